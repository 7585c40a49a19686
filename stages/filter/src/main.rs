//! The program `sluice-filter`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_filter::Args>()
}
