//! Lloyd's iterations over vectors that are prepared once.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::estimates::{Estimates, Estimator, Prepared, Right};
use crate::kmeans::{Centroids, KMeansSettings};
use crate::members::ClusterMembers;
use crate::products::{at_least, dot, maximum, mean, squared_norm};
use crate::seeding::plus_plus;

/// The vectors that are clustered. If bytes are multiplied, this takes a quarter
/// of the vectors' memory in addition.
pub(crate) struct Points<'a> {
    pub estimator: Estimator,
    pub prepared: Prepared<'a>,
    pub check: Check<'a>,
}

/// Where a vector belongs.
#[derive(Clone, Copy)]
pub(crate) struct PointPosition {
    /// The nearest centroid, the first of equally near.
    pub cluster: usize,
    /// What its score x · c - |c|² / 2 is at least.
    score: f32,
}

impl PointPosition {
    /// Of vectors that no centroid is near to: those that are not finite.
    const NOWHERE: Self = Self {
        cluster: 0,
        score: f32::NEG_INFINITY,
    };
}

impl<'a> Points<'a> {
    pub(crate) fn new(vectors: &'a [f32], dim: usize, check: Check<'a>) -> Self {
        assert!(dim > 0, "vectors have at least one dimension");
        Self::around(vectors, mean(vectors, dim), check)
    }

    /// With an origin near the mean of the vectors (see [`Estimator`]).
    pub(crate) fn around(vectors: &'a [f32], origin: Vec<f32>, check: Check<'a>) -> Self {
        assert!(!origin.is_empty(), "vectors have at least one dimension");
        Self::by(Estimator::new(origin), vectors, check)
    }

    fn by(estimator: Estimator, vectors: &'a [f32], check: Check<'a>) -> Self {
        let whole = vectors.len().is_multiple_of(estimator.dim());
        assert!(whole, "vectors hold whole rows");
        let prepared = estimator.prepare(vectors);
        Self {
            estimator,
            prepared,
            check,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.prepared.vectors.len() / self.estimator.dim()
    }

    /// Vector `index`.
    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        let dim = self.estimator.dim();
        &self.prepared.vectors[index * dim..][..dim]
    }

    /// Rows drawn by k-means++.
    pub(crate) fn start(&self, settings: &KMeansSettings) -> Result<Centroids> {
        let rows = plus_plus(self, settings.clusters, settings.seed)?.into_iter();
        Ok(Centroids {
            dim: self.estimator.dim(),
            data: rows.flat_map(|row| self.row(row)).copied().collect(),
        })
    }

    /// Lloyd's iterations.
    pub(crate) fn refine(&self, start: Centroids, settings: &KMeansSettings) -> Result<Centroids> {
        let mut centroids = start;
        if centroids.is_empty() || self.len() == 0 {
            return Ok(centroids);
        }
        let mut members =
            ClusterMembers::new(self.prepared.vectors, centroids.dim, centroids.len());
        let mut places = self.places(&centroids)?;
        let mut before: Option<f64> = None;
        for iteration in 1..=settings.max_iterations {
            (self.check)()?;
            members.regroup(places.iter().map(|place| place.cluster).collect());
            let inertia = members.inertia(&centroids);
            if before.is_some_and(|before| before - inertia <= settings.tolerance * before) {
                break;
            }
            before = Some(inertia);
            members.fill_empty(&centroids);
            let moved = members.move_to_means(&mut centroids);
            if iteration < settings.max_iterations {
                self.update(&mut places, &centroids, &moved)?;
            }
        }
        Ok(centroids)
    }

    /// Returns the position of each vector among `centroids`.
    pub(crate) fn places(&self, centroids: &Centroids) -> Result<Vec<PointPosition>> {
        let mut places = vec![PointPosition::NOWHERE; self.len()];
        self.update(&mut places, centroids, &vec![true; centroids.len()])?;
        Ok(places)
    }

    /// The `count` nearest of `centroids` of each vector, the nearest first.
    pub(crate) fn ranked(&self, centroids: &Centroids, count: usize) -> Result<Vec<Vec<u32>>> {
        let all = Candidates::of(self, centroids);
        let among = all.among((0..centroids.len()).collect());
        let rows: Vec<usize> = (0..self.len()).collect();
        self.search(&among, &rows, |_| Ranking::new(count))
    }

    /// Brings `places` up to date, after some of the centroids have `moved`.
    fn update(
        &self,
        places: &mut [PointPosition],
        centroids: &Centroids,
        moved: &[bool],
    ) -> Result<()> {
        let candidates = Candidates::of(self, centroids);
        let all = candidates.among((0..centroids.len()).collect());
        let moving = candidates.among((0..centroids.len()).filter(|&c| moved[c]).collect());

        let (search, compare): (Vec<usize>, Vec<usize>) =
            (0..places.len()).partition(|&row| moved[places[row].cluster]);
        let searched = self.search(&all, &search, |_| Nearest::new(None))?;
        let compared = self.search(&moving, &compare, |row| Nearest::new(Some(places[row])))?;
        let rows = search.into_iter().chain(compare);
        for (row, place) in rows.zip(searched.into_iter().chain(compared)) {
            places[row] = place;
        }
        Ok(())
    }

    /// What a search among some centroids finds for each of the vectors `rows`.
    fn search<S: Search>(
        &self,
        among: &Among<'_>,
        rows: &[usize],
        begin: impl Fn(usize) -> S + Sync,
    ) -> Result<Vec<S::Found>> {
        let search = |estimates: &mut Estimates, rows: &[usize]| -> Result<Vec<S::Found>> {
            (self.check)()?;
            let mut searches: Vec<S> = rows.iter().map(|&row| begin(row)).collect();
            self.estimator
                .load(estimates, &self.prepared, rows.iter().copied());
            for columns in among.right.parts() {
                self.estimator
                    .estimate(estimates, &among.right, columns.clone());
                for (i, search) in searches.iter_mut().enumerate() {
                    let margin = self.estimator.margin(estimates, i, &among.right);
                    search.look(estimates.row(i), margin, &among.numbers[columns.clone()]);
                }
            }
            let searches = rows.iter().zip(searches);
            let found = searches.map(|(&row, search)| search.finish(self.row(row), among));
            Ok(found.collect())
        };
        let parts: Vec<Vec<S::Found>> = rows
            .par_chunks(self.estimator.rows())
            .map_init(Estimates::default, search)
            .collect::<Result<_>>()?;
        Ok(parts.into_iter().flatten().collect())
    }
}

/// All centroids, ready to be searched.
struct Candidates<'a> {
    estimator: &'a Estimator,
    centroids: &'a Centroids,
    prepared: Prepared<'a>,
    /// Half of the squared length of each.
    half: Vec<f64>,
}

impl<'a> Candidates<'a> {
    fn of(points: &'a Points<'_>, centroids: &'a Centroids) -> Self {
        Self {
            estimator: &points.estimator,
            prepared: points.estimator.prepare(&centroids.data),
            half: centroids.rows().map(|c| squared_norm(c) / 2.0).collect(),
            centroids,
        }
    }

    /// Returns those with these numbers.
    fn among(&self, numbers: Vec<usize>) -> Among<'_> {
        let biased = numbers.iter();
        let biased = biased.map(|&number| (number, -self.half[number] as f32));
        Among {
            right: self.estimator.right(&self.prepared, biased),
            numbers,
            centroids: self.centroids,
            half: &self.half,
        }
    }
}

/// Some centroids to search.
struct Among<'a> {
    right: Right,
    /// Which centroids the columns of `right` are.
    numbers: Vec<usize>,
    centroids: &'a Centroids,
    /// Half of the squared length of each centroid.
    half: &'a [f64],
}

impl Among<'_> {
    /// Half the difference of the vector's squared length and of its squared distance to a centroid: the
    /// higher, the nearer.
    fn score(&self, vector: &[f32], cluster: usize) -> f64 {
        dot(vector, self.centroids.row(cluster)) - self.half[cluster]
    }
}

/// The search for what a vector is near to. Estimates leave few centroids open, exact scores decide.
trait Search: Send {
    /// What it finds.
    type Found: Send;

    /// Looks at the estimated scores of the centroids `numbers`, each at most `margin` from its score.
    fn look(&mut self, estimates: &[f32], margin: f32, numbers: &[usize]);

    /// Returns what is found.
    fn finish(self, vector: &[f32], among: &Among<'_>) -> Self::Found;
}

/// The search for a vector's nearest centroid, or the one that it has already.
struct Nearest {
    /// What the best score is at least.
    least: f32,
    /// Centroids that may have it, and what their scores are at most.
    open: Vec<(usize, f32)>,
}

impl Nearest {
    fn new(has: Option<PointPosition>) -> Self {
        Self {
            least: has.map_or(f32::NEG_INFINITY, |place| place.score),
            open: has
                .iter()
                .map(|place| (place.cluster, f32::INFINITY))
                .collect(),
        }
    }
}

impl Search for Nearest {
    type Found = PointPosition;

    fn look(&mut self, estimates: &[f32], margin: f32, numbers: &[usize]) {
        self.least = self.least.max(maximum(estimates) - margin);
        let mut found = Vec::new();
        at_least(estimates, self.least - margin, &mut found);
        let open = |column: usize| (numbers[column], estimates[column] + margin);
        self.open.extend(found.into_iter().map(open));
    }

    /// Where `vector` belongs.
    fn finish(mut self, vector: &[f32], among: &Among<'_>) -> PointPosition {
        self.open.retain(|&(_, most)| most >= self.least);
        if let &[(cluster, _)] = &self.open[..] {
            let score = self.least;
            return PointPosition { cluster, score };
        }
        let scores = self
            .open
            .iter()
            .map(|&(cluster, _)| (among.score(vector, cluster), cluster));
        let best = scores.reduce(|a, b| {
            let b_better = b.0 > a.0 || (b.0 == a.0 && b.1 < a.1);
            if b_better { b } else { a }
        });
        best.map_or(PointPosition::NOWHERE, |(score, cluster)| PointPosition {
            cluster,
            score: (score as f32).next_down(),
        })
    }
}

/// The search for a vector's nearest centroids. Where the estimate of the last is `t`, as many
/// scores are at least `t - margin`; so a centroid that is estimated below `t - 2 margin` is not among them.
struct Ranking {
    count: usize,
    /// The estimate of the last one so far.
    last: f32,
    /// Estimated scores of the centroids that may be among them.
    open: Vec<(f32, usize)>,
}

impl Ranking {
    fn new(count: usize) -> Self {
        Self {
            count,
            last: f32::NEG_INFINITY,
            open: Vec::new(),
        }
    }
}

impl Search for Ranking {
    type Found = Vec<u32>;

    fn look(&mut self, estimates: &[f32], margin: f32, numbers: &[usize]) {
        let mut found = Vec::new();
        at_least(estimates, self.last - 2.0 * margin, &mut found);
        let open = |column: usize| (estimates[column], numbers[column]);
        self.open.extend(found.into_iter().map(open));
        if self.open.len() > self.count {
            let descending = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0);
            let (_, last, _) = self.open.select_nth_unstable_by(self.count - 1, descending);
            self.last = last.0;
            let least = self.last - 2.0 * margin;
            self.open.retain(|&(estimate, _)| estimate >= least);
        }
    }

    /// The nearest centroids by their exact scores.
    fn finish(self, vector: &[f32], among: &Among<'_>) -> Vec<u32> {
        let open = self.open.into_iter();
        let mut scores: Vec<(f64, usize)> = open
            .map(|(_, cluster)| (among.score(vector, cluster), cluster))
            .collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores.truncate(self.count);
        scores
            .into_iter()
            .map(|(_, cluster)| cluster as u32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codes::Coder;

    /// Unit vectors around a few directions, a tenth equal to others.
    fn vectors() -> impl Strategy<Value = (Vec<f32>, usize)> {
        (2..40_usize, 1..20_usize).prop_flat_map(|(dim, topics)| {
            let value = || prop::collection::vec(-1.0_f32..1.0, dim);
            let row = (0..topics, value(), 0..10_u8);
            let rows = prop::collection::vec(row, 1..300);
            (prop::collection::vec(value(), topics), rows).prop_map(move |(topics, rows)| {
                let vector = |(topic, noise, copies): (usize, Vec<f32>, u8)| {
                    let share = if copies == 0 { 0.0 } else { 0.5 };
                    let sum: Vec<f32> = topics[topic]
                        .iter()
                        .zip(noise)
                        .map(|(t, n)| t + share * n)
                        .collect();
                    let length = squared_norm(&sum).sqrt().max(1e-6) as f32;
                    sum.into_iter().map(move |value| value / length)
                };
                (rows.into_iter().flat_map(vector).collect(), dim)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// To the last bit: estimates decide nothing.
        #[test]
        fn clusters_do_not_depend_on_how_products_are_estimated(
            (vectors, dim) in vectors(), clusters in 1..40_usize, seed: u64
        ) {
            let settings = KMeansSettings { clusters, max_iterations: 6, tolerance: 0.0, seed };
            let bytes = Estimator::Bytes(Coder::new(mean(&vectors, dim)));
            let [bytes, floats] = [bytes, Estimator::Floats { dim }].map(|estimator| {
                let points = Points::by(estimator, &vectors, &|| Ok(()));
                points.refine(points.start(&settings).unwrap(), &settings).unwrap()
            });
            prop_assert_eq!(bytes, floats);
        }

        /// All scores, in order.
        #[test]
        fn the_nearest_centroids_are_those_of_brute_force(
            (vectors, dim) in vectors(), clusters in 1..40_usize, count in 1..9_usize, seed: u64
        ) {
            let settings = KMeansSettings { clusters, max_iterations: 2, tolerance: 0.0, seed };
            let points = Points::new(&vectors, dim, &|| Ok(()));
            let centroids = points.refine(points.start(&settings).unwrap(), &settings).unwrap();
            let places = points.places(&centroids).unwrap();
            let ranked = points.ranked(&centroids, count).unwrap();
            for ((vector, place), ranked) in vectors.chunks(dim).zip(places).zip(ranked) {
                let score = |c: usize| {
                    let centroid = centroids.row(c);
                    dot(vector, centroid) - squared_norm(centroid) / 2.0
                };
                let mut all: Vec<u32> = (0..centroids.len() as u32).collect();
                all.sort_by(|&a, &b| score(b as usize).total_cmp(&score(a as usize)).then(a.cmp(&b)));
                all.truncate(count);
                prop_assert_eq!(&ranked, &all);
                prop_assert_eq!(ranked[0] as usize, place.cluster);
            }
        }

        /// What is skipped because centroids stay would not have changed anything.
        #[test]
        fn skipping_changes_no_place((vectors, dim) in vectors(), clusters in 1..40_usize, seed: u64) {
            let settings = KMeansSettings { clusters, max_iterations: 9, tolerance: 0.0, seed };
            let points = Points::new(&vectors, dim, &|| Ok(()));
            let mut centroids = points.start(&settings).unwrap();
            let mut members = ClusterMembers::new(&vectors, dim, centroids.len());
            let mut places = points.places(&centroids).unwrap();
            let clusters_of = |places: &[PointPosition]| -> Vec<usize> {
                places.iter().map(|place| place.cluster).collect()
            };
            for _ in 0..settings.max_iterations {
                members.regroup(clusters_of(&places));
                members.fill_empty(&centroids);
                let moved = members.move_to_means(&mut centroids);
                points.update(&mut places, &centroids, &moved).unwrap();
                let all = points.places(&centroids).unwrap();
                prop_assert_eq!(clusters_of(&places), clusters_of(&all));
            }
        }
    }
}
