//! Every program in one, told apart by the name it is started under: what the tests start
//! to see a program's exit code, its results, and how much memory it takes.
//!
//! When it ends it writes the most memory that it held, in bytes, to the file that
//! `SLUICE_TESTS_PEAK` names.

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
