//! Looks an image up in every manifest that may know it.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sluice_harness::{Context, Plan, Receipts};
use sluice_manifest::dag::{self, STEPS, Step};
use sluice_manifest::rows::{
    CuratedRow, DecisionRow, DuplicateRow, EmbeddedRow, OUTPUT_KEY, OutputPlanRow, PlanRow, Row,
    SampleRow, ScoreRow, Status,
};
use sluice_manifest::{Error, ImageId, Partition, Result, ShardPath, Unit, layout};
use sluice_store::{Location, Store};

use crate::places::{Nearest, Places};

/// Duplicates are followed this far; an image that stays comes long before.
const CHAIN: usize = 100;
/// Names that a hint gives.
const HINTS: usize = 3;

/// Everything that is known about an image.
#[derive(Debug, Serialize)]
pub struct Story {
    /// The image.
    pub image_id: ImageId,
    /// Its partition.
    pub partition: Partition,
    /// Its shard.
    pub shard: String,
    /// What `read` found; none where `read` has not come to it.
    pub sample: Option<SampleRow>,
    /// Whether it has an embedding; none where `embed` has not come to it.
    pub embedded: Option<bool>,
    /// What the scoring stages said.
    pub scores: Vec<Score>,
    /// Why it is a duplicate, and of what.
    pub duplicates: Vec<Link>,
    /// What `export decide` made of it.
    pub decision: Option<DecisionRow>,
    /// Where it is in the curated dataset.
    pub output: Option<Place>,
    /// Steps that have not come to this image.
    pub not_run: Vec<&'static str>,
}

/// What a scoring stage said.
#[derive(Debug, Serialize)]
pub struct Score {
    /// The stage.
    pub stage: &'static str,
    /// The model.
    pub model: Option<String>,
    /// The score; none where the model gave none.
    pub score: Option<f32>,
    /// Whether the threshold lets it pass.
    pub keep: bool,
    /// The setting that is the threshold.
    pub setting: &'static str,
    /// Its value.
    pub threshold: Option<f64>,
}

/// One image is a duplicate of another.
#[derive(Debug, Serialize)]
pub struct Link {
    /// The duplicate.
    pub image_id: ImageId,
    /// What it duplicates.
    pub duplicate_of: ImageId,
    /// How that was found.
    pub method: String,
    /// How alike they are.
    pub similarity: f32,
    /// What became of the other one, once it is decided.
    pub other: Option<DecisionRow>,
}

/// A place in the curated dataset.
#[derive(Debug, Serialize)]
pub struct Place {
    /// The shard.
    pub shard: String,
    /// The sample's members in it; empty where the shard has not been written.
    pub members: Vec<String>,
    /// Whether the shard has been written.
    pub written: bool,
}

/// The columns of an output shard's Parquet file that place a sample.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    image_id: ImageId,
    key: String,
}

impl Row for KeyRow {
    const SCHEMA: &'static str = CuratedRow::SCHEMA;
    fn fields() -> Vec<Field> {
        let mut fields = CuratedRow::fields();
        fields.retain(|field| ["image_id", "key"].contains(&field.name().as_str()));
        fields
    }
}

/// Looks images up in a run.
pub struct Teller<'a> {
    context: &'a Context,
    receipts: &'a Receipts,
    places: Places<'a>,
}

impl<'a> Teller<'a> {
    /// Gets ready.
    pub fn new(context: &'a Context, plan: &'a Plan, receipts: &'a Receipts) -> Self {
        Self {
            context,
            receipts,
            places: Places::new(plan),
        }
    }

    /// The story of an image. An unknown one is a usage error that names similar ones.
    pub fn tell(&self, image_id: &str) -> Result<Story> {
        let (shard, sample) = self.locate(image_id)?;
        let unit = Unit::from(shard.partition);
        let name: ImageId = match &sample {
            Some(sample) => sample.image_id.clone(),
            None => named(shard, image_id),
        };
        let mut story = Story {
            partition: shard.partition,
            shard: shard.shard.to_string(),
            embedded: None,
            scores: Vec::new(),
            duplicates: Vec::new(),
            decision: self.decision(&name, shard.partition)?,
            output: None,
            not_run: self.not_run(&unit),
            image_id: name,
            sample,
        };
        let sound = story
            .sample
            .as_ref()
            .is_some_and(|sample| sample.status == Status::Ok);
        if !sound {
            return Ok(story);
        }
        story.embedded = self.embedded(&story.image_id, &unit)?;
        for (step, setting) in [(&dag::AESTHETIC, "min_score"), (&dag::NSFW, "max_score")] {
            let score = self.score(step, setting, &story.image_id, &unit)?;
            story.scores.extend(score);
        }
        story.duplicates = self.chain(&story.image_id, shard.partition)?;
        if story.decision.as_ref().is_some_and(|row| row.keep) {
            story.output = self.output(&story)?;
        }
        Ok(story)
    }

    /// The image's shard and its row in `read/images`, where that was written.
    fn locate(&self, image_id: &str) -> Result<(&'a PlanRow, Option<SampleRow>)> {
        let candidates = self.places.of(image_id);
        let mut unread = None;
        for shard in &candidates {
            match self.rows::<SampleRow>(&dag::READ, "images", &shard.partition.into())? {
                None => unread = unread.or(Some(*shard)),
                Some(rows) => {
                    for row in rows {
                        let row = row?;
                        if row.image_id.as_str() == image_id {
                            return Ok((shard, Some(row)));
                        }
                    }
                }
            }
        }
        match unread {
            Some(shard) => Ok((shard, None)),
            None => Err(self.unknown(image_id, candidates)?),
        }
    }

    fn unknown(&self, image_id: &str, candidates: Vec<&PlanRow>) -> Result<Error> {
        let shards = match candidates.is_empty() {
            true => self.places.near(image_id, HINTS),
            false => candidates,
        };
        let mut nearest = Nearest::new(image_id, HINTS);
        let mut looked: Vec<Partition> = Vec::new();
        for shard in shards {
            if looked.contains(&shard.partition) {
                continue;
            }
            looked.push(shard.partition);
            let unit = shard.partition.into();
            for row in self
                .rows::<ImageRow>(&dag::READ, "images", &unit)?
                .into_iter()
                .flatten()
            {
                nearest.offer(row?.image_id.as_str());
            }
        }
        let names = nearest.names();
        let error = Error::usage(format!("{image_id}: no such image in this run"));
        Ok(match names.as_slice() {
            [] => error.hint("an id is the shard's path without .tar, a slash, and the key"),
            names => error.hint(format!("near it are {}", names.join(", "))),
        })
    }

    /// A unit's manifest, where the unit was done.
    fn rows<R: Row>(
        &self,
        step: &Step,
        kind: &str,
        unit: &Unit,
    ) -> Result<Option<sluice_store::RowReader<R>>> {
        if self.receipts.unit(step, unit).is_none() {
            return Ok(None);
        }
        let path = layout::manifest(step.stage, kind, unit);
        self.context.run.rows(&path).map(Some)
    }

    /// The steps that have not come to the image's partition. Steps with other units count as a
    /// whole.
    fn not_run(&self, unit: &Unit) -> Vec<&'static str> {
        let missing = STEPS.iter().filter(|step| match step.fan_out {
            dag::FanOut::Partitions => self.receipts.unit(step, unit).is_none(),
            _ => !self.receipts.complete(step),
        });
        // Where nothing stays there is no output shard to be written.
        let none_planned = self.receipts.complete(&dag::EXPORT_INDEX);
        missing
            .map(|step| step.name)
            .filter(|name| *name != dag::REPORT.name)
            .filter(|name| !(none_planned && *name == dag::EXPORT_WRITE.name))
            .collect()
    }

    fn embedded(&self, id: &ImageId, unit: &Unit) -> Result<Option<bool>> {
        let Some(rows) = self.rows::<EmbeddedRow>(&dag::EMBED, "embeddings", unit)? else {
            return Ok(None);
        };
        for row in rows {
            if row?.image_id == *id {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    fn score(
        &self,
        step: &Step,
        setting: &'static str,
        id: &ImageId,
        unit: &Unit,
    ) -> Result<Option<Score>> {
        let Some(receipt) = self.receipts.unit(step, unit) else {
            return Ok(None);
        };
        let mut score = Score {
            stage: step.stage,
            model: receipt.settings["model"]["name"]
                .as_str()
                .map(str::to_owned),
            score: None,
            keep: false,
            setting,
            threshold: receipt.settings[setting].as_f64(),
        };
        for row in self
            .context
            .run
            .rows::<ScoreRow>(&layout::manifest(step.stage, "scores", unit))?
        {
            let row = row?;
            if row.image_id == *id {
                score.score = Some(row.score);
                score.keep = row.keep;
                break;
            }
        }
        Ok(Some(score))
    }

    fn decision(&self, id: &ImageId, partition: Partition) -> Result<Option<DecisionRow>> {
        let rows = self.rows::<DecisionRow>(&dag::EXPORT_DECIDE, "decisions", &partition.into())?;
        for row in rows.into_iter().flatten() {
            let row = row?;
            if row.image_id == *id {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// What the image duplicates, what that one duplicates, and so on to one that is no duplicate.
    fn chain(&self, id: &ImageId, partition: Partition) -> Result<Vec<Link>> {
        let mut links: Vec<Link> = Vec::new();
        let (mut id, mut partition) = (id.clone(), partition);
        while links.len() < CHAIN {
            let Some(row) = self.duplicate(&id, partition)? else {
                break;
            };
            let next = self.partition_of(&row.duplicate_of)?;
            let other = match next {
                Some(partition) => self.decision(&row.duplicate_of, partition)?,
                None => None,
            };
            let seen = links.iter().any(|link| link.image_id == row.duplicate_of);
            links.push(Link {
                image_id: row.image_id,
                duplicate_of: row.duplicate_of.clone(),
                method: format!("{:?}", row.method).to_lowercase(),
                similarity: row.similarity,
                other,
            });
            match next {
                Some(next) if !seen => (id, partition) = (row.duplicate_of, next),
                _ => break,
            }
        }
        Ok(links)
    }

    /// The first method's row for an image: later methods do not look at what an earlier removed.
    fn duplicate(&self, id: &ImageId, partition: Partition) -> Result<Option<DuplicateRow>> {
        for step in [&dag::DEDUP_EXACT, &dag::DEDUP_PERCEPTUAL, &dag::DEDUP_MATCH] {
            for receipt in self.receipts.of(step) {
                let path = layout::manifest(step.stage, "duplicates", &receipt.unit);
                let rows = self.context.run.rows::<DuplicateRow>(&path)?;
                for row in rows.within("partition", partition.0..partition.0 + 1)? {
                    let row = row?;
                    if row.image_id == *id {
                        return Ok(Some(row));
                    }
                }
            }
        }
        Ok(None)
    }

    fn partition_of(&self, id: &ImageId) -> Result<Option<Partition>> {
        let candidates = self.places.of(id.as_str());
        if let [only] = candidates.as_slice() {
            return Ok(Some(only.partition));
        }
        for shard in candidates {
            let rows = self.rows::<ImageRow>(&dag::READ, "images", &shard.partition.into())?;
            for row in rows.into_iter().flatten() {
                if row?.image_id == *id {
                    return Ok(Some(shard.partition));
                }
            }
        }
        Ok(None)
    }

    /// Where a kept image lies in the curated dataset: in one of the shards that take from its
    /// partition.
    fn output(&self, story: &Story) -> Result<Option<Place>> {
        let Some(receipt) = self.receipts.of(&dag::EXPORT_PLAN).first() else {
            return Ok(None);
        };
        let path = layout::manifest(dag::EXPORT_PLAN.stage, "plan", &receipt.unit);
        let rows = self.context.run.rows::<OutputPlanRow>(&path)?;
        let output = Location::parse(rows.table().required(OUTPUT_KEY)?)?;
        let mut planned = Vec::new();
        for row in rows {
            let row = row?;
            if row.partition == story.partition {
                planned.push(row.shard);
            }
        }
        let mut unwritten = Vec::new();
        for shard in planned {
            let unit = layout::output_shard(shard);
            if self.receipts.unit(&dag::EXPORT_WRITE, &unit).is_none() {
                unwritten.push(format!("{output}/{unit}.tar"));
                continue;
            }
            let store = Store::open(&output)?;
            for row in store.rows::<KeyRow>(&format!("{unit}.parquet"))? {
                let row = row?;
                if row.image_id == story.image_id {
                    let members = story.sample.iter().flat_map(|sample| &sample.members);
                    let name = |extension: &str| {
                        sluice_shard::safe_member_name(row.image_id.as_str(), extension)
                    };
                    return Ok(Some(Place {
                        shard: store.uri(&format!("{unit}.tar")),
                        members: members.map(|member| name(&member.extension)).collect(),
                        written: true,
                    }));
                }
            }
        }
        Ok((!unwritten.is_empty()).then(|| Place {
            shard: unwritten.join(" or "),
            members: Vec::new(),
            written: false,
        }))
    }
}

/// The one column of `read/images` that names are sought in.
#[derive(Debug, Serialize, Deserialize)]
struct ImageRow {
    image_id: ImageId,
}

impl Row for ImageRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        let mut fields = SampleRow::fields();
        fields.truncate(1);
        fields
    }
}

/// The id of an image that no manifest names yet.
fn named(shard: &PlanRow, image_id: &str) -> ImageId {
    let shard: &ShardPath = &shard.shard;
    let key = image_id.strip_prefix(shard.stem()).unwrap_or(image_id);
    ImageId::new(shard, key.trim_start_matches('/'), 0)
}
