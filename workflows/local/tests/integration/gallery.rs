//! `sluice gallery` and `sluice search` show the expected pictures.

use std::collections::BTreeSet;

use sluice_manifest::Class;

use crate::support::{curate, failure, picture, sluice, store};

/// Returns the names of the pictures on a page, in order.
fn shown(page: &str) -> Vec<String> {
    let parts = page.split("data-id=\"").skip(1);
    let names = parts.map(|part| part.split_once('"').unwrap().0);
    names
        .map(|name| {
            name.replace("&#60;", "<")
                .replace("&#62;", ">")
                .replace("&#38;", "&")
        })
        .collect()
}

fn gallery(run: &str, flags: &[&str]) -> BTreeSet<String> {
    let place = run.replace("/run", "/pages/gallery.html");
    let line = [&["gallery", "--run", run, "--output", &place], flags].concat();
    sluice(&line).outcome.unwrap();
    let page = store(&run.replace("/run", "/pages"))
        .get("gallery.html")
        .unwrap();
    shown(std::str::from_utf8(&page).unwrap())
        .into_iter()
        .collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn galleries_hold_what_was_asked_for() {
    let run = curate("gallery");
    let rejects = ["a/html", "a/cut", "a/text-only", "torn/torn"];
    assert_eq!(gallery(&run, &["--dropped-by", "read"]), names(rejects));
    for rule in ["detailed", "rule:detailed", "rule"] {
        assert_eq!(
            gallery(&run, &["--rule", rule]),
            names(["a/flat"]),
            "{rule}"
        );
    }
    let exact = ["--duplicates", "--limit", "1"];
    assert_eq!(gallery(&run, &exact).len(), 2, "both of a pair");
    let pairs = gallery(&run, &["--duplicates"]);
    assert!(
        pairs.is_superset(&names(["sub/b/exact", "a/keep-1", "sub/b/perceptual"])),
        "{pairs:?}"
    );
    let kept = gallery(&run, &["--kept"]);
    assert!(
        kept.contains("sub/b/<b>&keep-4") && !kept.contains("sub/b/exact"),
        "{kept:?}"
    );
    assert_eq!(
        gallery(&run, &["--score", "aesthetic=0.2.."]).len(),
        gallery(&run, &["--score", "aesthetic=.."]).len()
    );
    let some = gallery(&run, &["--limit", "3"]);
    assert_eq!((some.len(), &some), (3, &gallery(&run, &["--limit", "3"])));
    store(&run.replace("/run", "/pages"))
        .put("ids.txt", "a/keep-1\n\na/cut\n")
        .unwrap();
    let ids = run.replace("/run", "/pages/ids.txt");
    assert_eq!(
        gallery(&run, &["--ids", &ids]),
        names(["a/keep-1", "a/cut"])
    );
}

#[test]
fn what_the_run_does_not_have_is_named() {
    let run = curate("gallery-wrong");
    for (flags, hint) in [
        (["--dropped-by", "filtr"], "usable"),
        (["--dropped-by", "aesthetic"], "drops nothing"),
        (["--rule", "large"], "rule:detailed"),
        (["--score", "beauty=1..2"], "aesthetic"),
        (["--ids", "memory://gallery-wrong/none.txt"], "none.txt"),
        (["--score", "aesthetic=7..8"], "no image"),
    ] {
        let line = [&["gallery", "--run", &run], flags.as_slice()].concat();
        let (class, message) = failure(&sluice(&line));
        assert_eq!(class, Class::Usage, "{message}");
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn nothing_is_written_over_the_run_its_input_or_files_of_others() {
    let run = curate("gallery-taken");
    let at = |path: &str| run.replace("/run", path);
    store(&at("/far")).put("mine.txt", "mine").unwrap();
    let contents = |path: &str| -> Vec<(String, Vec<u8>)> {
        let place = store(&at(path));
        let objects = place.list("").unwrap().into_iter();
        objects
            .map(|object| {
                (
                    object.path.clone(),
                    place.get(&object.path).unwrap().to_vec(),
                )
            })
            .collect()
    };
    let places = ["/in", "/run", "/out", "/far"];
    let before = places.map(contents);
    for (flag, place) in [
        ("--output", "/in/a.tar"),
        ("--output", "/in/new.html"),
        ("--output", "/run/new.html"),
        ("--output", "/out/README.md"),
        ("--output", "/far/mine.txt"),
        ("--to", "/in"),
        ("--to", "/in/new"),
        ("--to", "/run/new"),
        ("--to", "/out"),
        ("--to", "/far"),
        ("--to", ""),
    ] {
        let line = ["gallery", "--run", &run, flag, &at(place)];
        let (class, message) = failure(&sluice(&line));
        assert_eq!(class, Class::Usage, "{message}");
        assert!(message.contains(flag), "{message}");
    }
    assert_eq!(places.map(contents), before);
}

#[test]
fn pictures_are_copied_with_their_captions() {
    let run = curate("gallery-files");
    let folder = run.replace("/run", "/files");
    let said = sluice(&["gallery", "--run", &run, "--kept", "--to", &folder]);
    said.outcome.unwrap();
    let files = store(&folder);
    assert_eq!(files.get("a/keep-1.png").unwrap(), picture(1, 0));
    assert_eq!(files.get("a/keep-1.txt").unwrap(), "a caption");
    let index = files.get("samples.jsonl").unwrap();
    let lines = std::str::from_utf8(&index).unwrap().lines();
    let line = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let first = line
        .into_iter()
        .find(|line| line["image_id"] == "a/keep-1")
        .unwrap();
    assert_eq!(
        (&first["file"], &first["fate"]),
        (&"a/keep-1.png".into(), &"kept".into())
    );
    let pairs = run.replace("/run", "/pairs");
    sluice(&["gallery", "--run", &run, "--duplicates", "--to", &pairs])
        .outcome
        .unwrap();
    let paths: Vec<String> = store(&pairs)
        .list("00000")
        .unwrap()
        .into_iter()
        .map(|o| o.path)
        .collect();
    assert!(paths.contains(&"00000/dropped.png".to_owned()), "{paths:?}");
    assert!(paths.contains(&"00000/kept.png".to_owned()), "{paths:?}");
}

#[test]
fn the_nearest_images_are_found() {
    let run = curate("search");
    let said = sluice(&["search", "--run", &run, "keep-3", "--top", "2", "--json"]);
    said.outcome.unwrap();
    let lines: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["image_id"], "sub/b/semantic");
    assert_eq!(lines[0]["similarity"], 1.0);
    assert_eq!(lines[1]["similarity"], 0.0);
    let words = sluice(&["search", "--run", &run, "sub/b/semantic", "--top", "1"]).out;
    assert!(words.contains("sub/b/keep-3"), "{words}");
    let (class, message) = failure(&sluice(&["search", "--run", &run, "a/cut"]));
    assert_eq!(class, Class::Usage);
    assert!(message.contains("no embedding"), "{message}");
    let page = run.replace("/run", "/pages/near.html");
    sluice(&["search", "--run", &run, "keep-3", "--output", &page])
        .outcome
        .unwrap();
    let page = store(&run.replace("/run", "/pages"))
        .get("near.html")
        .unwrap();
    assert_eq!(
        shown(std::str::from_utf8(&page).unwrap())[0],
        "sub/b/semantic"
    );
}
