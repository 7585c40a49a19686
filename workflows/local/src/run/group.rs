//! Nodes of a pipeline that run together.

use std::collections::BTreeSet;

use crate::pass::OpenStep;
use crate::pipeline::PipelineNode;

/// Nodes that run together.
pub(super) struct Group<'a> {
    pub(super) nodes: Vec<&'a PipelineNode>,
    /// The steps of the nodes, if they share a pass over the images; otherwise empty.
    pub(super) pass: Vec<OpenStep>,
}

impl<'a> Group<'a> {
    pub(super) fn of(node: &'a PipelineNode) -> Self {
        Self {
            nodes: vec![node],
            pass: Vec::new(),
        }
    }

    pub(super) fn names(&self) -> Vec<&'a str> {
        self.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    /// Returns whether the group's dependencies are done: those of its first node. The other nodes of a
    /// pass have the same survivors, and their models take images, even if the pipeline names an
    /// earlier step's embeddings for them.
    pub(super) fn is_free(&self, done: &BTreeSet<&str>) -> bool {
        let first = self.nodes.first();
        first.is_some_and(|node| node.after.iter().all(|name| done.contains(name.as_str())))
    }
}
