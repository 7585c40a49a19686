//! `index`: the index and the card, and no shards of earlier plans.

use serde_json::Value;

use crate::support::{Run, exit, picture, samples, score, words};

fn small(name: &str) -> Run {
    let run = Run::new(name);
    run.shard("a.tar", &samples(0..30));
    run.read(1);
    run
}

#[test]
fn the_index_lists_the_shards() {
    let run = small("index-list");
    run.export_all(None, &["--images-per-shard", "10"]);
    let out = run.store("out");
    let index: Value = serde_json::from_slice(&out.get("index.json").unwrap()).unwrap();
    assert_eq!(index["__kind__"], "wids-shard-index-v1");
    assert_eq!(index["wids_version"], 1);
    let shards = index["shardlist"].as_array().unwrap();
    assert_eq!(shards.len(), 3);
    for (number, shard) in shards.iter().enumerate() {
        let url = shard["url"].as_str().unwrap();
        assert_eq!(url, format!("shard-{number:05}.tar"));
        assert_eq!(shard["filesize"], out.stat(url).unwrap().unwrap().bytes);
        assert_eq!(shard["nsamples"], run.curated(number as u32).len());
    }
}

#[test]
fn the_card_explains_what_was_left_out() {
    let run = small("index-card");
    run.embed("embed");
    run.score("clear", &["score"]);
    run.score("aesthetic", &["score"]);
    run.filter("usable", None, "clear", 0.2);
    run.dedup("twins", Some("usable"), "aesthetic", &[]);
    run.filter("a-filter", Some("twins"), "aesthetic", 0.25);
    run.export_all(Some("a-filter"), &["--embeddings"]);
    let card = run.store("out").get("README.md").unwrap();
    let card = std::str::from_utf8(&card).unwrap();
    let sound = run.samples().into_iter().filter(|s| s.reason.is_none());
    let clear = |least: f32| {
        let scores = sound.clone().map(|s| score(&s, "clear", "score"));
        scores
            .filter(move |score| score.is_some_and(|score| score < least))
            .count()
    };
    for line in [
        "|  | came in | 30 |  |".to_owned(),
        "| read | not-an-image | 4 | the bytes are not in a known image format |".to_owned(),
        format!(
            "| usable | below-min:clear | {} | the score is below the minimum |",
            clear(0.2)
        ),
        "| deciding steps | usable, twins, a-filter |".to_owned(),
        "| embed | tiny |  | not stated |  |  |".to_owned(),
        "| aesthetic | tiny |  | MIT |  |  |".to_owned(),
        "| a-filter | filter | threshold | 0.25 |".to_owned(),
        "| twins | dedup | threshold | 0 |".to_owned(),
        "| `aesthetic` | score of the step `aesthetic`, model tiny; null where the sample has none |"
            .to_owned(),
        "| `embedding` |".to_owned(),
    ] {
        assert!(card.contains(&line), "{line}\n\n{card}");
    }
    let at = |line: &str| card.find(line).unwrap();
    assert!(at("| usable | ") < at("| a-filter | "), "{card}");
    assert!(card.starts_with("---\ntags:\n"));
}

#[test]
fn an_earlier_longer_plan_leaves_nothing_behind() {
    let run = small("index-stale");
    run.export_all(None, &["--images-per-shard", "4"]);
    assert_eq!(run.output().len(), 7 * 2 + 4);
    run.export_all(None, &["--images-per-shard", "10"]);
    let names: Vec<String> = run.output().into_keys().collect();
    assert_eq!(
        names,
        [
            ".sluice.json",
            "README.md",
            "croissant.json",
            "index.json",
            "shard-00000.parquet",
            "shard-00000.tar",
            "shard-00001.parquet",
            "shard-00001.tar",
            "shard-00002.parquet",
            "shard-00002.tar",
        ]
    );
    let receipts = run.store("run").list("export/receipts").unwrap();
    assert_eq!(receipts.len(), 1 + 1 + 3 + 1);
}

#[test]
fn shards_that_were_there_before_do_not_mix_into_the_dataset() {
    let run = small("index-before");
    for name in [
        "shard-00001.tar",
        "shard-00009.tar",
        "shard-00009.parquet",
        "LICENSE",
    ] {
        run.store("out").put(name, "somebody's").unwrap();
    }
    run.export_all(None, &["--images-per-shard", "20", "--overwrite"]);
    let names: Vec<String> = run.output().into_keys().collect();
    let shards = ["00000", "00001"].map(|shard| format!("shard-{shard}.tar"));
    let tars = names.iter().filter(|name| name.ends_with(".tar"));
    assert!(tars.eq(&shards), "{names:?}");
    assert!(
        names.contains(&"LICENSE".to_owned()) && names.len() == 2 * 2 + 5,
        "{names:?}"
    );
}

#[test]
fn an_earlier_output_elsewhere_stays_whole() {
    let run = small("index-elsewhere");
    run.export_all(None, &["--images-per-shard", "4"]);
    let before = run.output();
    let other = format!("{}/other", run.base);
    let plan = ["plan", "--output", &other, "--images-per-shard", "10"];
    run.export(&plan).unwrap();
    run.export(&["write"]).unwrap();
    run.export(&["index"]).unwrap();
    assert_eq!(run.output(), before);
    assert_eq!(run.store("other").list("").unwrap().len(), 3 * 2 + 4);
    let receipts = run.store("run").list("export/receipts").unwrap();
    assert_eq!(receipts.len(), 1 + 1 + 3 + 1);
}

#[test]
fn shards_of_another_plan_are_not_listed() {
    let run = small("index-mixed");
    run.export_all(None, &["--images-per-shard", "10"]);
    run.plan(&["--images-per-shard", "12"]).unwrap();
    let text = words(run.export(&["index"]));
    assert!(text.contains("sluice-export write"), "{text}");
    assert_eq!(exit(run.export(&["index"])), 3);
}

#[test]
fn nothing_kept_is_a_valid_output() {
    let run = Run::new("index-empty");
    run.shard("a.tar", &samples(0..3));
    run.read(1);
    run.score("clear", &["score"]);
    run.filter("none", None, "clear", 9.0);
    run.export_all(Some("none"), &[]);
    let names: Vec<String> = run.output().into_keys().collect();
    let expected = [".sluice.json", "README.md", "croissant.json", "index.json"];
    assert_eq!(names, expected);
}

/// Returns the YAML front matter of the card.
fn front_matter(run: &Run) -> String {
    let card = run.store("out").get("README.md").unwrap();
    let card = String::from_utf8(card.to_vec()).unwrap();
    let (_, rest) = card.split_once("---\n").unwrap();
    rest.split_once("---\n").unwrap().0.to_owned()
}

#[test]
fn the_card_names_every_extension_of_all_shards() {
    let run = small("index-columns");
    run.export_all(None, &["--images-per-shard", "10"]);
    let yaml = front_matter(&run);
    for column in [
        "  - name: \"png\"\n    dtype: image\n",
        "  - name: \"json\"\n    dtype: json\n",
        "  - name: \"seg.mask.bin\"\n    dtype: binary\n",
        "  - name: \"txt\"\n    dtype: string\n",
        "  - name: \"__key__\"\n    dtype: string\n",
        "    num_examples: 26\n",
    ] {
        assert!(yaml.contains(column), "{column}\n\n{yaml}");
    }
    assert!(
        !yaml.contains("parquet"),
        "one builder reads the card: {yaml}"
    );
}

#[test]
fn another_dataset_of_the_same_size_has_another_card() {
    let [one, other] = [0..2, 5..7].map(|numbers| {
        let run = Run::new(&format!("index-content-{}", numbers.start));
        let pictures = numbers.map(|number| (format!("{}.png", number % 5), picture(3 * number)));
        run.shard("a.tar", &pictures.collect());
        run.read(1);
        run.export_all(None, &[]);
        front_matter(&run)
    });
    let line = |yaml: &str| {
        yaml.lines()
            .find(|l| l.contains("description:"))
            .map(str::to_owned)
    };
    assert!(line(&one).is_some());
    assert_ne!(line(&one), line(&other));
}

#[test]
fn the_licence_changes_the_card_alone() {
    let run = small("index-licence");
    run.export_all(None, &[]);
    let before = run.output();
    run.export(&["index", "--license", "cc-by-4.0"]).unwrap();
    let after = run.output();
    let changed = before.iter().filter(|(name, hash)| after[*name] != **hash);
    let changed: Vec<&String> = changed.map(|(name, _)| name).collect();
    assert_eq!(changed, ["README.md", "croissant.json"]);
    assert!(front_matter(&run).starts_with("license: \"cc-by-4.0\"\n"));
}

#[test]
fn croissant_describes_every_column() {
    let run = small("index-croissant");
    run.score("clear", &["score"]);
    run.export_all(None, &["--scores=clear"]);
    let out = run.store("out");
    let croissant: Value = serde_json::from_slice(&out.get("croissant.json").unwrap()).unwrap();
    let fields = croissant["recordSet"][0]["field"].as_array().unwrap();
    let described: Vec<&str> = fields.iter().map(|f| f["name"].as_str().unwrap()).collect();
    let table = out.any_table("shard-00000.parquet").unwrap();
    let columns = table.schema().fields().iter();
    let columns: Vec<&str> = columns.map(|field| field.name().as_str()).collect();
    assert_eq!(described, columns);
}

#[test]
fn another_format_leaves_nothing_of_the_first() {
    let run = small("index-format");
    run.export_all(None, &["--images-per-shard", "20"]);
    run.export_all(None, &["--images-per-shard", "20", "--format", "parquet"]);
    let names: Vec<String> = run.output().into_keys().collect();
    let tables = ["shard-00000.parquet", "shard-00001.parquet"];
    let expected = [
        &[".sluice.json", "README.md", "croissant.json"],
        &tables[..],
    ]
    .concat();
    assert_eq!(names, expected);
    assert!(front_matter(&run).contains("path: shard-*.parquet\n"));
}
