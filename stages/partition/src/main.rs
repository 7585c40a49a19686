//! The program `sluice-partition`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_partition::Args>()
}
