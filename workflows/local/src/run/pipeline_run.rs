//! A running pipeline: starts each group of nodes as soon as its dependencies are done.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use anyhow::{Context as _, Result};
use sluice_harness::{ProcessResources, Starter, StepCount, StepDone, shell, spawn};
use sluice_manifest::text::masked;
use sluice_manifest::{UnitKind, layout};
use sluice_store::Store;

use super::RunArgs;
use super::group::Group;
use crate::funnel::StepSummary;
use crate::pass::{OpenStep, run_pass};
use crate::pipeline::{ParameterValues, Pipeline, PipelineNode};

/// Cores for each of several concurrent steps.
const CORES_A_STEP: usize = 2;

/// A running pipeline.
pub(super) struct PipelineRun<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) pipeline: &'a Pipeline,
    pub(super) values: &'a ParameterValues,
    pub(super) place: &'a str,
    pub(super) store: &'a Store,
    pub(super) shared: &'a ProcessResources,
    pub(super) lines: Mutex<Vec<StepSummary>>,
    pub(super) count: StepCount,
}

impl<'a> PipelineRun<'a> {
    /// Runs the nodes, independent ones concurrently if there are enough cores.
    pub(super) fn all_nodes(&self) -> Result<()> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (self.args.jobs.unwrap_or(cpus) / CORES_A_STEP).max(1);
        let mut waiting = self.groups()?;
        let (sender, receiver) = channel();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut at_work = 0;
        let mut outcome = Ok(());
        std::thread::scope(|scope| {
            loop {
                while outcome.is_ok()
                    && at_work < at_once
                    && let Some(next) = waiting.iter().position(|group| group.is_free(&done))
                {
                    at_work += 1;
                    let group = waiting.remove(next);
                    let names = group.names();
                    let (sender, failed) = (sender.clone(), sender.clone());
                    let begun = spawn(scope, move || {
                        // The receiver waits for every started group.
                        let _ = sender.send((group.names(), self.one_group(&group)));
                    });
                    if let Err(e) = begun {
                        let _ = failed.send((names, Err(e.into())));
                    }
                }
                if at_work == 0 {
                    break; // every group is done, or one failed
                }
                // Unwrap safety: a running group owns a sender.
                let (names, result) = receiver.recv().expect("a group is at work");
                at_work -= 1;
                done.extend(names);
                if outcome.is_ok() {
                    outcome = result;
                }
            }
        });
        outcome
    }

    /// Returns the nodes in groups, in order. Nodes that run models on the images of the same survivors
    /// are one group.
    fn groups(&self) -> Result<Vec<Group<'a>>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for node in &self.pipeline.nodes {
            let Some(step) = self.image_step(node)? else {
                groups.push(Group::of(node));
                continue;
            };
            let is_same = |group: &&mut Group<'_>| {
                let first = group.pass.first();
                first.is_some_and(|first| first.has_same_samples(&step))
            };
            match groups.iter_mut().find(is_same) {
                Some(group) => {
                    group.nodes.push(node);
                    group.pass.push(step);
                }
                None => groups.push(Group {
                    nodes: vec![node],
                    pass: vec![step],
                }),
            }
        }
        Ok(groups)
    }

    /// Returns the step of a node that runs a model on images, or `None` if no other node may do so for
    /// the same survivors.
    fn image_step(&self, node: &PipelineNode) -> Result<Option<OpenStep>> {
        let survivors =
            |node: &'a PipelineNode| node.program.images.map(|_| node.argument("survivors-of"));
        let Some(open) = node.program.images else {
            return Ok(None);
        };
        let own = Some(node.argument("survivors-of"));
        let nodes = self.pipeline.nodes.iter();
        if nodes.filter(|other| survivors(other) == own).count() < 2 {
            return Ok(None);
        }
        let opened = open(&self.command(node), self.shared, Starter::Run);
        opened.with_context(|| format!("step {}", node.name))
    }

    fn command(&self, node: &PipelineNode) -> Vec<String> {
        let mut command = node.command(self.place, self.values);
        if let Some(jobs) = self.args.jobs {
            command.push(format!("--jobs={jobs}"));
        }
        if self.args.force {
            command.push("--force".to_owned());
        }
        command
    }

    fn one_group(&self, group: &Group<'_>) -> Result<()> {
        for node in &group.nodes {
            tracing::debug!(step = node.name, "{}", shell(&self.command(node)));
            self.count.begin(&node.name);
        }
        let done = match group.nodes.as_slice() {
            [node] => (node.program.run)(&self.command(node), self.shared).map(|done| vec![done]),
            _ => self.one_pass(&group.pass),
        };
        group
            .nodes
            .iter()
            .for_each(|node| self.count.end(&node.name));
        let done = done.with_context(|| {
            let by_hand = group.nodes.iter().map(|node| shell(&self.command(node)));
            let by_hand: Vec<String> = by_hand.map(|command| format!("`{command}`")).collect();
            let step = if by_hand.len() == 1 { "step" } else { "steps" };
            let names = group.names().join(", ");
            format!("{step} {names} (by hand: {})", by_hand.join(", "))
        })?;
        for (node, done) in group.nodes.iter().zip(done) {
            let others = group.names().into_iter().filter(|name| *name != node.name);
            let shared_with = others.map(str::to_owned).collect();
            self.end_node(node, shared_with, done)?;
        }
        Ok(())
    }

    fn one_pass(&self, pass: &[OpenStep]) -> Result<Vec<StepDone>> {
        let started = Instant::now();
        run_pass(pass)?;
        pass.iter().map(|step| step.done(started)).collect()
    }

    fn end_node(
        &self,
        node: &PipelineNode,
        shared_with: Vec<String>,
        done: StepDone,
    ) -> Result<()> {
        tracing::info!(
            step = node.name,
            units = done.units,
            up_to_date = done.up_to_date,
            seconds = (done.seconds * 1000.0).round() / 1000.0,
            "step done"
        );
        if node.operation.unit == UnitKind::Plan && node.after.is_empty() {
            self.put_pipeline()?;
        }
        let mut lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        lines.push(StepSummary {
            step: node.name.clone(),
            command: shell(&self.command(node)),
            shared_with,
            done,
        });
        Ok(())
    }

    /// Writes the pipeline file into the run, after the check that the run belongs to this input.
    fn put_pipeline(&self) -> Result<()> {
        let resolved = self.pipeline.file.resolved(self.values);
        let text = toml::to_string(&resolved)?;
        Ok(self
            .store
            .put(layout::PIPELINE, masked(&text).into_owned())?)
    }
}
