//! `sluice explain`: what happened to one image, and why.

mod story;
mod words;

use anyhow::Result;
use clap::Args;
use sluice_harness::{Context, Desk};

use self::story::Teller;

/// Tell what happened to one image and why
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
pub fn explain(args: &ExplainArgs, desk: &mut Desk<'_>) -> Result<()> {
    let context = Context::look(&args.run, "sluice", &desk.shared)?;
    let plan = context.plan()?;
    let receipts = context.receipts()?;
    let story = Teller::new(&context, &plan, &receipts).tell(&args.image_id)?;
    match args.json {
        true => writeln!(desk.out, "{}", serde_json::to_string(&story)?)?,
        false => write!(desk.out, "{}", words::words(&story))?,
    }
    Ok(())
}
