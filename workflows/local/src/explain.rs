//! `sluice explain`: what happened to one image, and why.
//!
//! Works on any run, however far it is: what is known comes from the receipts that are there.

mod decisions;
mod lookup;
mod output;
mod story;
mod words;

use anyhow::Result;
use clap::Args;
use sluice_harness::{Context, Desk};
use sluice_report::counted;

use self::lookup::Lookup;

/// Show what happened to one image and why
///
/// Example: sluice explain --run runs/a shards/00017/000123
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// The image: its shard without .tar, a slash, its key
    #[arg(value_name = "IMAGE_ID")]
    pub image_id: String,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints an image's story.
///
/// # Errors
/// Usage, when there is no such image; data, when a manifest is missing or broken.
pub fn explain(args: &ExplainArgs, desk: &mut Desk<'_>) -> Result<()> {
    let context = Context::look(&args.run, "sluice", &desk.shared)?;
    let plan = context.plan()?;
    let receipts = counted::receipts(&context)?;
    let story = Lookup::new(&context, &plan, &receipts).story(&args.image_id)?;
    match args.json {
        true => writeln!(desk.out, "{}", serde_json::to_string(&story)?)?,
        false => write!(desk.out, "{}", words::words(&story))?,
    }
    Ok(())
}
