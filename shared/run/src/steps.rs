//! Derives the pipeline from the receipts: its steps in order, the chain of deciding steps, the
//! exports.
//!
//! No step name is known here. A step is a filter or a dedup because its receipts list decisions,
//! and a scorer because they list scores.

use sluice_manifest::{InputOf, Receipt, StepName, Unit, UnitKind};

use crate::Receipts;

/// The stage whose steps write curated datasets.
pub const EXPORT: &str = "export";

/// All units of one kind that a step has done: the work of one program or subcommand.
#[derive(Debug, Clone, Copy)]
pub struct NodeDone<'r> {
    /// The step.
    pub step: &'r StepName,
    /// The units' receipts. At least one.
    pub units: &'r [Receipt],
    /// Whether the step also has units of other kinds.
    is_part: bool,
}

impl<'r> NodeDone<'r> {
    /// Returns the first unit's receipt.
    ///
    /// # Panics
    ///
    /// Panics if `units` is empty.
    pub fn first(&self) -> &'r Receipt {
        &self.units[0]
    }

    /// Returns the kind of the units.
    pub fn kind(&self) -> UnitKind {
        self.first().unit.kind
    }

    /// Returns whether all units are done.
    pub fn is_complete(&self) -> bool {
        self.units.len() == self.first().units as usize
    }

    /// Returns the step's name, with the subcommand if the step has several.
    pub fn name(&self) -> String {
        match &self.first().subcommand {
            Some(subcommand) if self.is_part => format!("{}-{subcommand}", self.step),
            _ => self.step.to_string(),
        }
    }
}

/// Returns everything that was run, each node after its inputs.
pub fn nodes(receipts: &Receipts) -> Vec<NodeDone<'_>> {
    let mut nodes = Vec::new();
    for step in receipts.steps() {
        let mut left: Vec<&[Receipt]> = receipts.kinds(step).collect();
        let is_part = left.len() > 1 || decides(receipts, step).len() > 1;
        while !left.is_empty() {
            let kinds: Vec<UnitKind> = left.iter().map(|units| units[0].unit.kind).collect();
            let free = left
                .iter()
                .position(|units| !reads_from(units, step, &kinds));
            let units = left.remove(free.unwrap_or(0));
            nodes.push(NodeDone {
                step,
                units,
                is_part,
            });
        }
    }
    nodes
}

/// Returns whether units read units of another of these kinds of their own step.
fn reads_from(units: &[Receipt], step: &StepName, kinds: &[UnitKind]) -> bool {
    let own = units[0].unit.kind;
    let inputs = units.iter().flat_map(|receipt| &receipt.inputs);
    let mut kinds_read = inputs.filter_map(|input| match &input.of {
        InputOf::Unit { step: other, unit } => (other == step).then_some(unit.kind),
        InputOf::Units {
            step: other, kind, ..
        } => (other == step).then_some(*kind),
        InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => None,
    });
    kinds_read.any(|kind| kind != own && kinds.contains(&kind))
}

/// Returns the kinds of units with a step's decisions. Empty if it does not decide.
pub fn decides<'r>(receipts: &'r Receipts, step: &StepName) -> &'r [UnitKind] {
    let mut kinds = receipts
        .of(step)
        .iter()
        .map(|receipt| receipt.decides.as_slice());
    kinds.find(|kinds| !kinds.is_empty()).unwrap_or_default()
}

/// Returns whether a deciding step has decided all partitions.
pub fn has_decided(receipts: &Receipts, step: &StepName) -> bool {
    let mut kinds = decides(receipts, step).iter();
    kinds.all(|kind| receipts.is_complete(step, *kind))
}

/// Returns the steps of the stage `export`, in order.
pub fn exports(receipts: &Receipts) -> Vec<&StepName> {
    let mut steps = receipts.steps();
    steps.retain(|step| {
        receipts
            .of(step)
            .iter()
            .any(|receipt| receipt.stage == EXPORT)
    });
    steps
}

/// Returns the export that the run is about: the last one.
pub fn export(receipts: &Receipts) -> Option<&StepName> {
    exports(receipts).pop()
}

/// Returns the deciding steps before the export, the earliest first. If there is no export, or its
/// deciding step is missing, returns the longest chain.
pub fn chain(receipts: &Receipts) -> Vec<&StepName> {
    let decided = export(receipts).map(|step| receipts.of_kind(step, UnitKind::Partition));
    if let Some([first, ..]) = decided {
        let chain = receipts.deciders(first.survivors_of.as_ref());
        if first.survivors_of.is_none() || !chain.is_empty() {
            return chain;
        }
    }
    let deciding = receipts.steps().into_iter();
    let deciding = deciding.filter(|step| !decides(receipts, step).is_empty());
    let chains = deciding.map(|step| receipts.deciders(Some(step)));
    chains.max_by_key(Vec::len).unwrap_or_default()
}

/// Returns the units of a deciding step that list removed duplicates.
pub fn duplicates<'r>(
    receipts: &'r Receipts,
    step: &'r StepName,
) -> impl Iterator<Item = &'r Receipt> {
    let kinds = decides(receipts, step).iter();
    let kinds = kinds.filter(|kind| **kind != UnitKind::Partition);
    kinds.flat_map(|kind| receipts.of_kind(step, *kind))
}

/// Returns whether a unit wrote a manifest.
pub fn has_written(receipt: &Receipt, path: impl FnOnce(&StepName, Unit) -> String) -> bool {
    receipt.output(&path(&receipt.step, receipt.unit)).is_some()
}

/// A curated dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The URI of the dataset.
    pub uri: String,
    /// The number of shards written.
    pub shards: u64,
    /// The size of the shards in bytes.
    pub bytes: u64,
    /// Whether all planned shards were written.
    pub is_complete: bool,
}

/// Returns the dataset that an export wrote, or `None` before its first object.
pub fn dataset(receipts: &Receipts, export: &StepName) -> Option<Dataset> {
    let shards = receipts.of_kind(export, UnitKind::Shard);
    let index = receipts.of_kind(export, UnitKind::Index);
    let mut objects = shards
        .iter()
        .chain(index)
        .flat_map(|receipt| &receipt.outputs);
    let first = objects.next()?.path.as_str();
    let written = shards.iter().filter_map(Receipt::shard_object);
    let (count, bytes) = written.fold((0, 0), |(n, bytes), shard| (n + 1, bytes + shard.bytes));
    let planned = receipts.unit(export, Unit::once(UnitKind::Plan));
    // A split has its own folder.
    let output = planned.and_then(|receipt| receipt.settings["output"].as_str());
    let uri = output.or_else(|| Some(first.rsplit_once('/')?.0))?;
    Some(Dataset {
        uri: uri.to_owned(),
        shards: count,
        bytes,
        is_complete: planned.is_none_or(|receipt| receipt.sums.shards == count),
    })
}
