//! All programs in one executable, selected by the name under which it is started. Tests start it
//! to observe a program's exit code, results and memory.
//!
//! On exit it writes its peak memory in bytes to the file in `SLUICE_TESTS_PEAK`.

use std::process::ExitCode;

use sluice_tests::{Process, main_of};

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    let code = match main_of(&name) {
        Ok(main) => main(),
        Err(_) => ExitCode::FAILURE,
    };
    Process::report_peak();
    code
}
