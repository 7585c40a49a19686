//! The methods of a step, and the units of work that belong to them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sluice_manifest::UnitKind;
use sluice_manifest::rows::Method;

/// The active methods of a step, in the order in which they work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Methods(BTreeSet<Method>);

impl Methods {
    /// Returns a set of methods. Order and repetition do not matter.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        Self(methods.into_iter().collect())
    }

    /// Whether all methods are active.
    pub fn are_all(&self) -> bool {
        let all = [Method::Exact, Method::Perceptual, Method::Semantic];
        all.iter().all(|method| self.0.contains(method))
    }

    /// Whether a method is active.
    pub fn contains(&self, method: Method) -> bool {
        self.0.contains(&method)
    }

    /// Returns the active methods, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Method> {
        self.0.iter().copied()
    }

    /// Returns the kinds of units that hold the step's decisions.
    pub fn deciding_kinds(&self) -> Vec<UnitKind> {
        self.0.iter().map(|&method| kind_of(method)).collect()
    }

    /// Returns the kinds of units that hold the decisions of the active methods before this one.
    pub fn kinds_before(&self, method: Method) -> impl Iterator<Item = UnitKind> {
        self.0.range(..method).map(|&method| kind_of(method))
    }

    /// Whether units of this kind belong to an active method.
    pub fn include(&self, kind: UnitKind) -> bool {
        match kind {
            UnitKind::Exact => self.contains(Method::Exact),
            UnitKind::Pairs | UnitKind::Perceptual => self.contains(Method::Perceptual),
            UnitKind::Fit | UnitKind::Partition | UnitKind::Group => {
                self.contains(Method::Semantic)
            }
            UnitKind::Plan | UnitKind::Shard | UnitKind::Index | UnitKind::Report => false,
        }
    }
}

/// Returns the kind of the units that hold a method's decisions.
fn kind_of(method: Method) -> UnitKind {
    match method {
        Method::Exact => UnitKind::Exact,
        Method::Perceptual => UnitKind::Perceptual,
        Method::Semantic => UnitKind::Group,
    }
}
