//! The program `sluice-nsfw`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_nsfw::Args>()
}
