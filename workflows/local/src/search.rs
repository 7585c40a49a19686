//! `sluice search`: the images of a run nearest to one, by their embeddings.
//!
//! The search is exact: it computes the cosine similarity with every embedding of the run, in a
//! stream. The query is an image of the run, or a file. The run's encoder embeds a file in a
//! temporary run.

mod query;

use std::collections::HashSet;

use anyhow::Result;
use arrow::array::AsArray;
use clap::Args;
use rayon::prelude::*;
use serde_json::{Value, json};
use sluice_harness::ToolContext;
use sluice_manifest::layout::EMBEDDINGS;
use sluice_manifest::numbers::decimal;
use sluice_manifest::{Error, ImageId, Partition, StepName, Unit, rows};
use sluice_report::gallery::{Gallery, Pictures};
use sluice_run::card::ImageCard;
use sluice_run::sampling::{Best, ascending};
use sluice_run::walk::Walk;
use sluice_run::{Plan, Receipts, Run, counted, steps};
use sluice_store::vectors;

use self::query::Query;
use crate::gallery::Pictured;
use crate::text::columns;

/// Find the images of a run nearest to one, by their embeddings
///
/// The similarity is the cosine of the embeddings: 1 is the same picture.
///
/// Example: sluice search --run runs/a 00017/000123 --top 20
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// An image of the run, or a picture file
    #[arg(value_name = "IMAGE_ID|FILE")]
    pub query: String,

    /// Number of images to find
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub top: u32,

    /// The step with the embeddings (default: the only one)
    #[arg(long, value_name = "STEP")]
    pub embeddings: Option<StepName>,

    /// The encoder for a file (default: the run's encoder, by its name)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,

    /// Print one JSON object per line
    #[arg(long, conflicts_with = "output")]
    pub json: bool,

    /// Write a page with the pictures
    #[arg(long, value_name = "FILE")]
    pub output: Option<String>,
}

/// A search result.
#[derive(Debug, Clone)]
struct Hit {
    image_id: ImageId,
    partition: Partition,
    similarity: f32,
}

/// Prints the nearest images.
///
/// # Errors
/// Usage, when there is no such image, file or encoder; data, when the run has no embeddings.
pub fn search(args: &SearchArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let recorded = Run::open_read_only(&tool.shared.storage, &args.run)?;
    let plan = recorded.plan()?;
    let receipts = counted::receipts(&recorded)?;
    let step = embedder(args.embeddings.as_ref(), &receipts)?;
    let run = Pictured {
        walk: Walk::new(&recorded, &plan, &receipts)?,
        recorded: &recorded,
        memory: &tool.shared.memory,
        plan: &plan,
        receipts: &receipts,
    };
    if let Some(place) = &args.output {
        run.refuse_other_page(place)?;
    }
    let query = Query::new(args, &recorded, &plan, &receipts, step, &tool.shared)?;
    let hits = nearest(&query, &recorded, &plan, &receipts, step, args.top as usize)?;
    let names: HashSet<ImageId> = hits.iter().map(|hit| hit.image_id.clone()).collect();
    let partitions = hits.iter().map(|hit| hit.partition).collect();
    let cards = run.walk.named(&names, Some(&partitions))?;
    let found: Vec<(&Hit, Option<&ImageCard>)> = hits
        .iter()
        .map(|hit| (hit, cards.get(&hit.image_id)))
        .collect();
    if let Some(place) = &args.output {
        let pictures = pictures(&query, &found);
        let place = run.write(pictures, place, sluice_report::gallery::MAX_BYTES)?;
        writeln!(tool.out, "{place}")?;
        return Ok(());
    }
    if args.json {
        for (hit, card) in found {
            writeln!(tool.out, "{}", line(hit, card))?;
        }
        return Ok(());
    }
    let mut lines = vec![
        ["similarity", "image", "decision"]
            .map(str::to_owned)
            .to_vec(),
    ];
    lines.extend(found.iter().map(|(hit, card)| {
        let fate = card.map(ImageCard::fate).unwrap_or_default();
        vec![decimal(hit.similarity), hit.image_id.to_string(), fate]
    }));
    write!(tool.out, "{}", columns(&lines, &[0], ""))?;
    Ok(())
}

/// Returns the step whose embeddings are searched.
fn embedder<'r>(wanted: Option<&StepName>, receipts: &'r Receipts) -> Result<&'r StepName, Error> {
    let mut embedders = receipts.steps();
    embedders.retain(|step| {
        let mut units = receipts.of(step).iter();
        units.any(|receipt| steps::has_written(receipt, |step, unit| EMBEDDINGS.path(step, unit)))
    });
    let names: Vec<&str> = embedders.iter().map(|step| step.as_str()).collect();
    match (wanted, embedders.as_slice()) {
        (Some(wanted), _) => {
            let found = embedders.iter().find(|step| **step == wanted);
            found.copied().ok_or_else(|| {
                Error::usage(format!("--embeddings {wanted}: the step has no embeddings")).hint(
                    format!("the steps with embeddings are {}", names.join(", ")),
                )
            })
        }
        (None, [only]) => Ok(only),
        (None, []) => {
            Err(Error::data("the run has no embeddings")
                .hint("search needs a step of the stage embed"))
        }
        (None, _) => Err(Error::usage("several steps have embeddings")
            .hint(format!("choose one: --embeddings {}", names.join(" or ")))),
    }
}

fn nearest(
    query: &Query,
    recorded: &Run,
    plan: &Plan,
    receipts: &Receipts,
    step: &StepName,
    top: usize,
) -> Result<Vec<Hit>> {
    let units = plan.units().into_iter();
    let units: Vec<Unit> = units
        .filter(|unit| receipts.unit(step, *unit).is_some())
        .collect();
    let parts = units.par_iter().map(|unit| {
        recorded.check_stop()?;
        nearest_in(query, recorded, step, *unit, top)
    });
    let none = || Best::new(top);
    let best = parts.try_reduce(none, |mut a, b| {
        a.merge(b);
        Ok(a)
    })?;
    Ok(best.items().cloned().collect())
}

fn nearest_in(
    query: &Query,
    recorded: &Run,
    step: &StepName,
    unit: Unit,
    top: usize,
) -> Result<Best<Hit>> {
    let mut best = Best::new(top);
    let path = EMBEDDINGS.path(step, unit);
    let columns = ["image_id", "embedding"];
    for batch in recorded.table(&path, rows::EMBEDDINGS, &columns)? {
        let batch = batch?;
        let ids = batch.column_by_name("image_id");
        let ids = ids.and_then(|ids| ids.as_string_opt::<i32>());
        let ids = ids.ok_or_else(|| Error::data(format!("{path}: image_id is not text")))?;
        let all = vectors(&batch, "embedding")?;
        if batch.num_rows() > 0 && all.len() != batch.num_rows() * query.vector.len() {
            return Err(Error::data(format!("{path}: its embeddings differ in length")).into());
        }
        for (id, vector) in ids
            .iter()
            .flatten()
            .zip(all.chunks_exact(query.vector.len()))
        {
            let similarity: f32 = vector.iter().zip(&query.vector).map(|(a, b)| a * b).sum();
            if query.image_id.as_deref() != Some(id) {
                best.offer(ascending(-f64::from(similarity)), id, || Hit {
                    image_id: ImageId::from_text(id),
                    partition: Partition(unit.index),
                    similarity,
                });
            }
        }
    }
    Ok(best)
}

fn line(hit: &Hit, card: Option<&ImageCard>) -> Value {
    let dropped = card.and_then(|card| card.dropped.as_ref());
    json!({
        "image_id": hit.image_id,
        "similarity": hit.similarity,
        "kept": card.map(|card| card.dropped.is_none()),
        "step": dropped.map(|dropped| &dropped.step),
        "reason": dropped.map(|dropped| &dropped.reason),
        "caption": card.and_then(|card| card.caption.as_ref()),
    })
}

fn pictures(query: &Query, found: &[(&Hit, Option<&ImageCard>)]) -> Pictures {
    let mut pictures = Pictures {
        title: format!("Nearest to {}", query.name),
        ..Pictures::default()
    };
    let cards = found.iter().filter_map(|(_, card)| *card);
    let similarity = |card: &ImageCard| {
        let hit = found.iter().find(|(hit, _)| hit.image_id == card.image_id);
        let similarity = hit
            .map(|(hit, _)| decimal(hit.similarity))
            .unwrap_or_default();
        format!("{similarity}; {}", card.fate())
    };
    let gallery = Gallery::new("By similarity", "", cards, &mut pictures.album, similarity);
    pictures.galleries = vec![gallery];
    pictures
}
