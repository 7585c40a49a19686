//! Copies of photographs in eight forms, and which copies each method finds.

use std::collections::BTreeMap;
use std::path::Path;

use sluice_manifest::rows::DuplicateRow;
use sluice_tests::{Run, fixtures, models, run};

use crate::page;
use crate::support::{column, csv, read, word};

/// A picture of the fixture.
struct DupPicture {
    id: String,
    group: u32,
    transformation: String,
}

fn truth(folder: &Path) -> Vec<DupPicture> {
    let table = csv(&folder.join("truth.csv"));
    let at = ["shard", "key", "group", "transformation"].map(|name| column(&table, name));
    let pictures = table[1..].iter().map(|row| {
        let [shard, key, group, transformation] = at.map(|i| row[i].as_str());
        DupPicture {
            id: format!("{}/{key}", shard.trim_end_matches(".tar")),
            group: group.parse().unwrap(),
            transformation: transformation.to_owned(),
        }
    });
    pictures.collect()
}

/// Returns for each picture the first picture that duplicate links connect it with.
fn components(pictures: &[DupPicture], links: &[DuplicateRow]) -> Vec<usize> {
    let places: BTreeMap<&str, usize> = (0..)
        .zip(pictures)
        .map(|(i, p)| (p.id.as_str(), i))
        .collect();
    let mut parents: Vec<usize> = (0..pictures.len()).collect();
    let root = |parents: &[usize], mut at: usize| {
        while parents[at] != at {
            at = parents[at];
        }
        at
    };
    for link in links {
        let ends = [&link.image_id, &link.duplicate_of].map(|id| places[id.as_str()]);
        let [a, b] = ends.map(|end| root(&parents, end));
        parents[a.max(b)] = a.min(b);
    }
    (0..pictures.len()).map(|at| root(&parents, at)).collect()
}

/// Numbers of found, correct and existing pairs, in total and by transformation.
#[derive(Debug, Default, Clone, Copy)]
struct PairCounts {
    there: u32,
    found: u32,
    right: u32,
}

impl PairCounts {
    fn add(&mut self, there: bool, found: bool) {
        self.there += u32::from(there);
        self.found += u32::from(found);
        self.right += u32::from(there && found);
    }

    fn recall(self) -> f64 {
        f64::from(self.right) / f64::from(self.there.max(1))
    }

    fn precision(self) -> f64 {
        match self.found {
            0 => 1.0,
            found => f64::from(self.right) / f64::from(found),
        }
    }
}

/// The results of a method: over all pairs, and, for each transformation, over the pairs of such a
/// picture with an original.
struct MethodResult {
    all: PairCounts,
    by_transformation: BTreeMap<String, PairCounts>,
}

fn judge(pictures: &[DupPicture], links: &[DuplicateRow]) -> MethodResult {
    let components = components(pictures, links);
    let mut found = MethodResult {
        all: PairCounts::default(),
        by_transformation: BTreeMap::new(),
    };
    for (i, a) in pictures.iter().enumerate() {
        for (j, b) in pictures.iter().enumerate() {
            let there = a.group == b.group;
            let linked = components[i] == components[j];
            if i < j {
                found.all.add(there, linked);
            }
            if i != j && b.transformation == "original" {
                let of = a.transformation.clone();
                let score = found.by_transformation.entry(of).or_default();
                score.add(there, linked);
            }
        }
    }
    found
}

fn print(method: &str, removed: usize, found: &MethodResult) {
    eprintln!("\n{method}: {removed} of 600 removed");
    eprintln!(
        "  {:<12} {:>6} {:>6} {:>7} {:>10}",
        "", "pairs", "found", "recall", "precision"
    );
    let rows = found.by_transformation.iter();
    let rows = rows.filter(|(_, score)| score.there > 0);
    let rows = rows.map(|(name, score)| (name.as_str(), score));
    for (name, score) in rows.chain([("all pairs", &found.all)]) {
        let (recall, precision) = (score.recall(), score.precision());
        let (there, right) = (score.there, score.right);
        eprintln!("  {name:<12} {there:>6} {right:>6} {recall:>7.3} {precision:>10.3}");
    }
}

/// Runs a method as a separate step, and returns the images that it removed.
fn links(read: &Run, method: &str, commands: &[&[&str]]) -> Vec<DuplicateRow> {
    for command in commands {
        let step = ["--run", &read.uri, "--step", method, "--methods", method];
        run(&[&["sluice-dedup"], *command, &step].concat()).unwrap();
    }
    read.rows(&format!("{method}/duplicates")).unwrap()
}

#[test]
fn copies_are_found() {
    let Some(fixtures) = fixtures() else { return };
    let Some(models) = models(&["efficientnet-lite0"]) else {
        return;
    };
    let folder = fixtures.join("dups");
    let pictures = truth(&folder);
    let place = tempfile::tempdir().unwrap();
    let read = read(word(&folder), word(&place.path().join("run")), &[]);
    let models = ["--models", word(&models), "--run", &read.uri];
    let embed = ["sluice-embed", "--model", "efficientnet-lite0"];
    run(&[&embed[..], &models].concat()).unwrap();

    // Each method runs separately, so that no method hides the results of another.
    let exact = links(&read, "exact", &[&["exact"]]);
    let found = judge(&pictures, &exact);
    print("exact", exact.len(), &found);
    assert_eq!(found.by_transformation["exact-copy"].right, 60);
    assert_eq!(
        (found.all.found, found.all.right, exact.len()),
        (60, 60, 60)
    );

    let perceptual = links(&read, "perceptual", &[&["perceptual"]]);
    let found = judge(&pictures, &perceptual);
    print("perceptual, --max-distance 4", perceptual.len(), &found);
    let recalls = [
        ("bright-10", 0.95),
        ("crop-5", 0.35),
        ("exact-copy", 1.0),
        ("jpeg-q60", 0.95),
        ("resize-50", 0.95),
        ("text", 0.95),
    ];
    floors(&found, 0.995, &recalls);

    let parts: [&[&str]; 3] = [&["fit"], &["assign"], &["match", "--eps", "0.15"]];
    let semantic = links(&read, "semantic", &parts);
    let found = judge(&pictures, &semantic);
    print(
        "semantic, EfficientNet-Lite0, --eps 0.15",
        semantic.len(),
        &found,
    );
    assert!(found.all.recall() >= 0.95, "{:?}", found.all);
    let recalls = [
        ("bright-10", 0.95),
        ("crop-5", 0.95),
        ("exact-copy", 1.0),
        ("hflip", 0.95),
        ("jpeg-q60", 0.95),
        ("resize-50", 0.75),
        ("text", 0.95),
    ];
    floors(&found, 0.995, &recalls);
    page::check(&read, &["exact", "perceptual", "semantic"]);

    against_the_originals(&read, &pictures);
}

/// The 60 originals are a benchmark set. Their copies among the 600 pictures are removed as
/// duplicates, and no other picture is.
fn against_the_originals(read: &Run, pictures: &[DupPicture]) {
    let originals = pictures
        .iter()
        .filter(|picture| picture.transformation == "original");
    let names: Vec<String> = originals
        .map(|picture| format!("{:?}", picture.id))
        .collect();
    let rule = format!("original=image_id in [{}]", names.join(", "));
    let filter = ["sluice-filter", "--step", "originals", "--rule", &rule];
    run(&[&filter[..], &["--run", &read.uri]].concat()).unwrap();
    let index = format!("{}.index", read.uri);
    let made = [
        "sluice-dedup",
        "index",
        "--run",
        &read.uri,
        "--output",
        &index,
    ];
    run(&[&made[..], &["--survivors-of", "originals"]].concat()).unwrap();
    for command in [
        &["exact", "--against", &index][..],
        &["perceptual", "--against", &index],
        &["fit"],
        &["assign"],
        &["match", "--against", &index, "--eps", "0.15"],
    ] {
        let step = ["--run", &read.uri, "--step", "known"];
        run(&[&["sluice-dedup"], command, &step].concat()).unwrap();
    }
    let rows: Vec<DuplicateRow> = read.rows("known/duplicates").unwrap();
    let rows = rows.iter().filter(|row| row.reference.is_some());
    let found: BTreeMap<&str, &str> = rows
        .map(|row| (row.image_id.as_str(), row.duplicate_of.as_str()))
        .collect();
    let group = |id: &str| {
        pictures
            .iter()
            .find(|picture| picture.id == id)
            .unwrap()
            .group
    };
    let mut missed = Vec::new();
    for picture in pictures {
        match found.get(picture.id.as_str()) {
            Some(of) => assert_eq!(group(of), picture.group, "{}", picture.id),
            None if picture.transformation == "single" => {}
            None => missed.push(&picture.id),
        }
    }
    eprintln!(
        "in the benchmark set: {} of 480, missed {missed:?}",
        found.len()
    );
    assert!(found.len() >= 470, "{missed:?}");
}

/// Fails when precision over all pairs or the recall of a transformation is below its minimum.
fn floors(found: &MethodResult, precision: f64, recalls: &[(&str, f64)]) {
    assert!(found.all.precision() >= precision, "{:?}", found.all);
    for (transformation, least) in recalls {
        let score = found.by_transformation[*transformation];
        assert!(score.recall() >= *least, "{transformation}: {score:?}");
    }
}
