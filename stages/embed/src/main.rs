//! The program `sluice-embed`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_embed::Args>()
}
