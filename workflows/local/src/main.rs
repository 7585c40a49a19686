fn main() -> std::process::ExitCode {
    sluice_harness::tool_main::<sluice::Args>()
}
