//! The plan: which shards belong to which partition.

use sluice_manifest::rows::{PlanRow, ShardRow, ShardStatus};
use sluice_manifest::{
    Error, Fingerprint, Input, InputOf, Partition, Result, RunInfo, ShardPath, StepName, Unit,
    UnitKind, layout,
};
use sluice_store::{Location, ObjectReader, Storage, Store};

use crate::Context;

/// A run's partitions.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the run is.
    pub info: RunInfo,
    /// The partitions in order.
    pub partitions: Vec<PartitionPlan>,
    /// What opens the input.
    pub storage: Storage,
}

/// A partition's shards.
#[derive(Debug, Clone)]
pub struct PartitionPlan {
    /// The partition.
    pub partition: Partition,
    /// Its shards, by path.
    pub shards: Vec<PlanRow>,
}

impl Plan {
    /// The units of a step that fans out over partitions.
    pub fn units(&self) -> Vec<Unit> {
        self.partitions.iter().map(|p| p.partition.into()).collect()
    }

    /// The partition that is a unit of work.
    pub fn partition(&self, unit: Unit) -> Result<&PartitionPlan> {
        let found = self
            .partitions
            .iter()
            .find(|p| Unit::from(p.partition) == unit);
        found.ok_or_else(|| Error::bug(format!("{unit} is no partition of the plan")))
    }

    /// The input that the shards lie in.
    pub fn input(&self) -> Result<Store> {
        self.storage.open(&Location::parse(&self.info.input)?)
    }
}

/// Opens a shard of the plan for reading from its start. Fails when it is not the object that the
/// plan was made from.
pub fn open_shard(input: &Store, planned: &PlanRow) -> Result<ObjectReader> {
    check_unchanged(input, planned)?;
    let mut reader = input.read_ranges(planned.shard.as_str(), planned.bytes);
    reader.prefetch(0..planned.bytes);
    Ok(reader)
}

/// A shard as an input of `read`: its size and entity tag or modification time, and what else says
/// how it is read.
pub fn shard_input(planned: &PlanRow) -> Input {
    let stamp = planned.etag.as_deref().or(planned.modified.as_deref());
    let bytes = planned.bytes.to_string();
    let parts = [bytes.as_str(), stamp.unwrap_or_default()].into_iter();
    let how = [
        ("image", &planned.image_column),
        ("caption", &planned.caption_column),
        ("sidecar", &planned.sidecar_stamp),
    ];
    let how = how
        .iter()
        .filter_map(|(name, value)| Some([*name, value.as_deref()?]))
        .flatten();
    Input {
        of: InputOf::Shard {
            shard: planned.shard.clone(),
        },
        fingerprint: Fingerprint::of(parts.chain(how)),
    }
}

/// Fails when a shard is not the object that the plan was made from.
pub fn check_unchanged(input: &Store, planned: &PlanRow) -> Result<()> {
    let path = planned.shard.as_str();
    let found = input.stat(path)?;
    let same = found.is_some_and(|found| {
        found.bytes == planned.bytes
            && found.etag == planned.etag
            && found.modified == planned.modified
    });
    if same {
        return Ok(());
    }
    Err(Error::data(format!(
        "{}: changed or gone since the plan was made",
        input.uri(path)
    ))
    .hint("run sluice-partition again, then the steps after it"))
}

impl Context {
    /// Returns what the run is; none before `partition` was done.
    ///
    /// # Errors
    /// Data, when `run.json` is not what `partition` wrote, or the run has another layout.
    pub fn run_info(&self) -> Result<Option<RunInfo>> {
        let uri = self.run.uri(layout::RUN_INFO);
        let json = self.run.get_if_there(layout::RUN_INFO)?;
        if let Some(json) = &json {
            // First, for another version's receipts may have another form.
            RunInfo::check_layout(json, &uri)?;
        }
        let unit = Unit::once(UnitKind::Plan);
        let Some(receipt) = self.receipt(&StepName::partition(), unit)? else {
            return Ok(None);
        };
        let json = self.run.compared(receipt, layout::RUN_INFO, json)?;
        RunInfo::parse(&json, &uri).map(Some)
    }

    /// Returns the plan that `partition` wrote.
    ///
    /// # Errors
    /// As [`run_info`](Self::run_info); data, when there is no plan.
    pub fn plan(&self) -> Result<Plan> {
        let uri = self.run.uri(layout::RUN_INFO);
        let info = self.run_info()?.ok_or_else(|| {
            Error::data(format!("{uri}: there is no plan yet")).hint("run sluice-partition first")
        })?;
        let mut partitions: Vec<PartitionPlan> = Vec::new();
        for row in self.run.rows::<PlanRow>(layout::PLAN)? {
            let row = row?;
            match partitions.last_mut() {
                Some(last) if last.partition == row.partition => last.shards.push(row),
                _ => partitions.push(PartitionPlan {
                    partition: row.partition,
                    shards: vec![row],
                }),
            }
        }
        Ok(Plan {
            info,
            partitions,
            storage: self.storage.clone(),
        })
    }

    /// Returns the error of an input of which no sample can be used. It names a damaged shard, where
    /// there is one.
    pub fn unreadable_input(&self, plan: &Plan) -> Error {
        let run = &self.run;
        let hint = |kind: &str| {
            let path = format!("read/{kind}/part-00000.parquet");
            format!("`sluice inspect {}` shows the reasons", run.uri(&path))
        };
        match self.damaged_shard(plan) {
            Ok(Some((shard, detail))) => Error::data(format!(
                "{}: no sample can be read, the shards are damaged; {shard}: {detail}",
                plan.info.input
            ))
            .hint(hint("shards")),
            Ok(None) => Error::data(format!("{}: no sample can be used", plan.info.input))
                .hint(hint("images")),
            Err(e) => e,
        }
    }

    /// Returns the first damaged shard, and what is wrong with it.
    fn damaged_shard(&self, plan: &Plan) -> Result<Option<(ShardPath, String)>> {
        for unit in plan.units() {
            let path = layout::SHARDS.path(&StepName::read(), unit);
            for row in self.run.rows::<ShardRow>(&path)? {
                let row = row?;
                if row.status == ShardStatus::Damaged {
                    return Ok(Some((row.shard, row.detail.unwrap_or_default())));
                }
            }
        }
        Ok(None)
    }
}
