//! The program `sluice-dedup`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_dedup::Args>()
}
