use std::sync::LazyLock;

use super::*;

fn storage() -> &'static Storage {
    static STORAGE: LazyLock<Storage> = LazyLock::new(Storage::default);
    &STORAGE
}

fn put(memory: &str, paths: &[&str]) -> String {
    let root = format!("memory://{memory}");
    let store = storage().create(&Location::parse(&root).unwrap()).unwrap();
    for path in paths {
        store.put(path, path.as_bytes().to_vec()).unwrap();
    }
    root
}

fn paths(patterns: &[String]) -> (String, Vec<String>) {
    let listing = list(storage(), patterns, false).unwrap();
    let tars = listing.objects.into_keys();
    let tars = tars.filter(|path| FileKind::of(path) == FileKind::Tar);
    (listing.root.to_string(), tars.collect())
}

#[test]
fn folders_globs_ranges_and_shards() {
    let root = put(
        "listing",
        &[
            "x/a.tar",
            "x/b/c.tgz",
            "x/b/d.tar.zst",
            "x/e.txt",
            "y/00.tar",
            "y/01.tar",
            "y/02.tar",
        ],
    );
    let at = |path: &str| format!("{root}/{path}");
    assert_eq!(
        paths(&[at("x")]),
        (
            at("x"),
            ["a.tar", "b/c.tgz", "b/d.tar.zst"]
                .map(String::from)
                .to_vec()
        )
    );
    assert_eq!(paths(&[at("*/a.tar")]).1, ["x/a.tar"]);
    assert_eq!(paths(&[at("x/*.t*")]).1, ["a.tar"]);
    assert_eq!(paths(&[at("**/*.tgz")]).1, ["x/b/c.tgz"]);
    assert_eq!(
        paths(&[at("y/{00..01}.tar")]),
        (at("y"), vec!["00.tar".to_owned(), "01.tar".to_owned()])
    );
    assert_eq!(
        paths(&[at("y/02.tar"), at("x/b")]),
        (
            root.clone(),
            ["x/b/c.tgz", "x/b/d.tar.zst", "y/02.tar"]
                .map(String::from)
                .to_vec()
        )
    );
}

#[test]
fn only_folders_are_listed_with_all_below_them() {
    let root = put("listing-deep", &["x/a.tar", "x/b/c.tar", "x/list.csv"]);
    for (pattern, folders) in [
        ("x", &["x"][..]),
        ("x/", &["x"]),
        ("x/**/*.tar", &["x"]),
        ("x/*/*.tar", &["x"]),
        ("*/a.tar", &[""]),
        ("x/*.tar", &[]),
        ("x/a.tar", &[]),
        ("x/list.csv", &[]),
    ] {
        let listing = list(storage(), &[format!("{root}/{pattern}")], false).unwrap();
        let found: Vec<String> = listing.folders.iter().map(ToString::to_string).collect();
        let expected = folders.iter().map(|folder| format!("{root}/{folder}"));
        let expected: Vec<_> = expected
            .map(|f| f.trim_end_matches('/').to_owned())
            .collect();
        assert_eq!(found, expected, "{pattern}");
    }
}

#[test]
fn what_is_hidden_is_taken_only_by_its_name() {
    let root = put(
        "listing-hidden",
        &[
            "a.tar",
            "._a.tar",
            "x/.b.tar",
            ".ipynb_checkpoints/a-checkpoint.tar",
            ".sluice-tmp/0.tar",
            "x/.sluice-tmp/1.tar",
            "x/c.tar",
        ],
    );
    let at = |path: &str| format!("{root}/{path}");
    let cases: [(&str, &[&str]); 9] = [
        ("", &["a.tar", "x/c.tar"]),
        ("*.tar", &["a.tar"]),
        ("**/*.tar", &["a.tar", "x/c.tar"]),
        ("?_a.tar", &[]),
        ("._a.tar", &["._a.tar"]),
        ("._*.tar", &["._a.tar"]),
        ("x/.*.tar", &[".b.tar"]),
        (".ipynb_checkpoints", &["a-checkpoint.tar"]),
        ("*/c.tar", &["x/c.tar"]),
    ];
    for (pattern, expected) in cases {
        let patterns = [at(pattern).trim_end_matches('/').to_owned()];
        match list(storage(), &patterns, false) {
            Ok(listing) => {
                let found: Vec<&str> = listing.objects.keys().map(String::as_str).collect();
                assert_eq!(found, expected, "{pattern}");
            }
            Err(e) => assert!(expected.is_empty(), "{pattern}: {e}"),
        }
    }
}

#[test]
fn names_that_look_like_patterns_are_taken_as_they_are() {
    let root = put("listing-brackets", &["a[1].tar", "x{2}/b.tar", "a1.tar"]);
    for (pattern, expected) in [
        ("a[1].tar", "a[1].tar"),
        ("x{2}", "b.tar"),
        ("a[0-9].tar", "a1.tar"),
    ] {
        assert_eq!(paths(&[format!("{root}/{pattern}")]).1, [expected]);
    }
}

#[test]
fn all_that_is_missing_is_named() {
    let root = put("listing-missing", &["a.tar"]);
    let at = |path: &str| format!("{root}/{path}");
    let inputs = ["a.tar", "b.tar", "none", "c.tar"].map(at);
    let said = list(storage(), &inputs, false).err().unwrap().to_string();
    for name in ["b.tar", "none", "c.tar"] {
        assert!(said.contains(&at(name)), "{said}");
    }
    assert!(!said.contains("a.tar,"), "{said}");
}

#[test]
fn every_shard_of_a_range_must_be_there() {
    let shards = [0, 1, 3].map(|number| format!("{number:05}.tar"));
    let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
    let root = put(
        "listing-gaps",
        &[&shards[..], &["p0/a.tar", "p2/a.tar"]].concat(),
    );
    let cases: [(&str, &[&str]); 6] = [
        ("{00000..00001}.tar", &[]),
        ("{00000..00003}.tar", &["1 of 4", "00002.tar"]),
        (
            "{00000..00099}.tar",
            &["97 of 100", "00002.tar, 00004.tar", "92 more"],
        ),
        ("p{0..2}/*.tar", &["1 of 3", "p1/*.tar"]),
        ("p{0..2}/a.tar", &["1 of 3", "p1/a.tar"]),
        ("{5..6}.tar", &["no shards"]),
    ];
    for (pattern, words) in cases {
        let said = list(storage(), &[format!("{root}/{pattern}")], false).err();
        let said = said.map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(said.is_empty(), words.is_empty(), "{pattern}: {said}");
        for word in words {
            assert!(said.contains(word), "{pattern}: {said}");
        }
    }
}

#[test]
fn folders_are_taken_by_their_very_names_before_wildcards() {
    let names = ["[data] v1/x.tar", "set{1}/x.tar", "what?/x.tar"];
    let root = put("listing-brackets", &names);
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().display().to_string();
    for name in names {
        let store = storage().create(&Location::parse(&disk).unwrap());
        store.unwrap().put(name, name).unwrap();
    }
    for root in [root, disk] {
        for name in ["[data] v1", "set{1}", "what?"] {
            for pattern in ["", "/x.tar", "/*.tar", "/?.tar"] {
                let pattern = format!("{root}/{name}{pattern}");
                let (found, tars) = paths(std::slice::from_ref(&pattern));
                assert_eq!(found, format!("{root}/{name}"), "{pattern}");
                assert_eq!(tars, ["x.tar"], "{pattern}");
            }
        }
    }
}

#[test]
fn shards_of_two_stores_are_refused() {
    let inputs = ["one", "two"].map(|memory| put(memory, &["a.tar"]));
    let error = list(storage(), &inputs, false).err().unwrap().to_string();
    assert!(error.contains("different stores"), "{error}");
}

#[test]
fn nothing_found_is_an_error_with_the_pattern() {
    let root = put("listing-empty", &["a.txt"]);
    for pattern in [
        root.clone(),
        format!("{root}/*.tar"),
        format!("{root}/{{5..1}}.tar"),
    ] {
        let error = list(storage(), std::slice::from_ref(&pattern), false)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(&pattern), "{error}");
    }
}
