//! `sluice-spin`: a stage's program whose work never ends and never checks for a stop signal.

use clap::Parser;
use sluice_harness::{Common, Context, Program};
use sluice_manifest::{Operation, Resources, Role, UnitKind};

/// Work without an end
#[derive(Debug, Parser)]
#[command(name = "sluice-spin", version)]
pub(crate) struct Spin {
    #[command(flatten)]
    common: Common,
}

impl Program for Spin {
    const NAME: &'static str = "sluice-spin";
    const ROLE: Role = Role::Source;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Plan,
        resources: Resources::Light,
        after: &[],
        revision: 1,
    }];

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, _context: &Context) -> anyhow::Result<()> {
        loop {
            std::thread::park();
        }
    }
}
