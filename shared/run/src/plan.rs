//! The plan: the shards of each partition.

use sluice_manifest::rows::{PlanRow, ShardRow, ShardStatus};
use sluice_manifest::{
    Error, Partition, Result, RunInfo, ShardPath, StepName, Unit, UnitKind, layout,
};
use sluice_store::{Location, Storage, Store};

use crate::Run;

/// The partitions of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The properties of the run.
    pub info: RunInfo,
    /// The partitions in order.
    pub partitions: Vec<PartitionPlan>,
    /// Opens the input.
    pub storage: Storage,
}

/// A partition with its shards.
#[derive(Debug, Clone)]
pub struct PartitionPlan {
    /// The partition.
    pub partition: Partition,
    /// The shards, sorted by path.
    pub shards: Vec<PlanRow>,
}

impl Plan {
    /// Returns the units of a step that fans out over partitions.
    pub fn units(&self) -> Vec<Unit> {
        self.partitions.iter().map(|p| p.partition.into()).collect()
    }

    /// Returns the partition of a unit.
    ///
    /// # Errors
    ///
    /// Returns a bug if the plan does not contain the unit.
    pub fn partition(&self, unit: Unit) -> Result<&PartitionPlan> {
        let found = self
            .partitions
            .iter()
            .find(|p| Unit::from(p.partition) == unit);
        found.ok_or_else(|| Error::bug(format!("{unit} is not a partition of the plan")))
    }

    /// Opens the input that contains the shards.
    ///
    /// # Errors
    ///
    /// Returns a usage error if its URI is not valid, and otherwise a storage error.
    pub fn input(&self) -> Result<Store> {
        self.storage.open(&Location::parse(&self.info.input)?)
    }
}

impl Run {
    /// Returns the properties of the run, or `None` if `partition` has not finished.
    ///
    /// # Errors
    ///
    /// Returns a data error if `run.json` differs from what `partition` wrote, or if the run has
    /// the layout of another version, and otherwise a storage error.
    pub fn run_info(&self) -> Result<Option<RunInfo>> {
        let uri = self.uri(layout::RUN_INFO);
        let json = self.get_if_there(layout::RUN_INFO)?;
        if let Some(json) = &json {
            // The layout is checked first, because receipts of another version may have another
            // form.
            RunInfo::check_layout(json, &uri)?;
        }
        let unit = Unit::once(UnitKind::Plan);
        let Some(receipt) = self.receipt(&StepName::partition(), unit)? else {
            return Ok(None);
        };
        let json = self.compared(receipt, layout::RUN_INFO, json)?;
        RunInfo::parse(&json, &uri).map(Some)
    }

    /// Returns the plan that `partition` wrote.
    ///
    /// # Errors
    ///
    /// Fails like [`run_info`](Self::run_info), and with a data error if there is no plan.
    pub fn plan(&self) -> Result<Plan> {
        let uri = self.uri(layout::RUN_INFO);
        let info = self.run_info()?.ok_or_else(|| {
            Error::data(format!("{uri}: there is no plan yet")).hint("run sluice-partition first")
        })?;
        let mut partitions: Vec<PartitionPlan> = Vec::new();
        for row in self.rows::<PlanRow>(layout::PLAN)? {
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

    /// Returns the error for an input without any usable sample. It names a damaged shard, if there
    /// is one.
    pub fn unreadable_input(&self, plan: &Plan) -> Error {
        let hint = |kind: &str| {
            let path = format!("read/{kind}/part-00000.parquet");
            format!("`sluice inspect {}` shows the reasons", self.uri(&path))
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

    /// Returns the first damaged shard, with a description of the damage.
    fn damaged_shard(&self, plan: &Plan) -> Result<Option<(ShardPath, String)>> {
        for unit in plan.units() {
            let path = layout::SHARDS.path(&StepName::read(), unit);
            for row in self.rows::<ShardRow>(&path)? {
                let row = row?;
                if row.status == ShardStatus::Damaged {
                    return Ok(Some((row.shard, row.detail.unwrap_or_default())));
                }
            }
        }
        Ok(None)
    }
}
