//! `sluice completions` and `sluice man`: shell completions and manual pages, generated from the
//! definitions of the command lines.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use sluice_harness::ToolContext;
use sluice_manifest::Error;
use sluice_store::Location;

use crate::programs::{PROGRAMS, StageProgram};

/// The program `sluice`, which has the subcommands.
const SLUICE: &str = "sluice";

/// Print completions for a shell
///
/// Example: sluice completions bash > ~/.local/share/bash-completion/completions/sluice
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to print completions for
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,

    /// The program that they are for
    #[arg(long, value_name = "NAME", default_value = SLUICE)]
    pub program: String,
}

/// Print the manual page of a program, or write those of all programs into a folder
///
/// Example: sluice man --to ~/.local/share/man/man1
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The program to print the page of
    #[arg(long, value_name = "NAME", default_value = SLUICE)]
    pub program: String,

    /// Write the pages of all programs and their commands into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "program")]
    pub to: Option<String>,
}

/// Prints completions.
///
/// # Errors
/// Returns a usage error when there is no such program.
pub fn completions(args: &CompletionsArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let mut command = command(&args.program)?;
    // Buffered, because a generator panics when its output is closed.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, &args.program, &mut text);
    Ok(tool.out.write_all(&text)?)
}

/// Prints a manual page, or writes the pages of all programs.
///
/// # Errors
/// Returns a usage error when there is no such program, or a storage error.
pub fn man(args: &ManArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let Some(folder) = &args.to else {
        let page = Man::new(command(&args.program)?);
        return Ok(page.render(&mut tool.out)?);
    };
    let store = tool.shared.storage.create(&Location::parse(folder)?)?;
    let names = std::iter::once(SLUICE).chain(PROGRAMS.iter().map(|program| program.name));
    let mut count = 0;
    for name in names {
        let mut command = command(name)?;
        // Gives subcommands the names of manual pages, such as sluice-pipeline-check.
        command.build();
        for command in with_subcommands(&command) {
            let mut page = Vec::new();
            let name = command
                .get_display_name()
                .unwrap_or(command.get_name())
                .to_owned();
            Man::new(command).title(name.clone()).render(&mut page)?;
            store.put(&format!("{name}.1"), page)?;
            count += 1;
        }
    }
    writeln!(tool.out, "{count} pages in {folder}")?;
    Ok(())
}

/// Returns the definition of a program's command line.
fn command(name: &str) -> Result<clap::Command, Error> {
    if name == SLUICE {
        return Ok(crate::Args::command());
    }
    let program = StageProgram::named(name).ok_or_else(|| {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        Error::usage(format!("there is no program {name}"))
            .hint(format!("the programs are {SLUICE}, {}", names.join(", ")))
    })?;
    Ok((program.command)())
}

/// Returns a command and its subcommands.
fn with_subcommands(command: &clap::Command) -> Vec<clap::Command> {
    let inner = command.get_subcommands();
    let inner = inner.filter(|inner| inner.get_name() != "help");
    let mut all = vec![command.clone()];
    all.extend(inner.flat_map(with_subcommands));
    all
}
