//! Inputs with several images in a sample, and inputs that are moved.

use sluice_manifest::{Class, layout};
use sluice_store::Store;

use crate::inputs::{members, samples};
use crate::support::{again, export, picture, shard, shared, sluice, store};

/// Writes two shards of samples with several images. One of the shards is compressed.
fn put_several(input: &Store) {
    let [a, b, c, d] = [1, 2, 3, 4].map(|seed| picture(seed, 2));
    let shard = shard(&[
        ("x.json", b"{\"n\": 1}".as_slice()),
        ("x.0.png", &a),
        ("x.0.txt", b"the first"),
        ("x.1.png", &b),
        ("x.txt", b"both"),
        ("y.png", &c),
        ("z.input.png", &d),
        ("z.output.png", b"broken"),
        ("z.input.txt", b"an input"),
    ]);
    input.put("a.tar", shard.clone()).unwrap();
    let packed = zstd::encode_all(shard.as_slice(), 1).unwrap();
    input.put("b.tar.zst", packed).unwrap();
}

#[test]
fn each_image_is_a_sample_of_its_own() {
    put_several(&store("memory://each/in"));
    let run = "memory://each/run";
    again::<sluice_partition::Args>(run, "sluice-partition --input memory://each/in");
    again::<sluice_read::Args>(run, "sluice-read --images each");
    let samples = samples(run);
    let ids = samples.iter().map(|row| row.image_id.as_str());
    let names = ["x.0", "x.1", "y", "z.input", "z.output"];
    let expected = names.map(|name| format!("a/{name}"));
    assert_eq!(ids.take(5).collect::<Vec<_>>(), expected);
    let captions = samples.iter().map(|row| row.caption.as_deref());
    let expected = [
        Some("the first"),
        Some("both"),
        None,
        Some("an input"),
        None,
    ];
    assert_eq!(captions.take(5).collect::<Vec<_>>(), expected);
    let metadata = samples.iter().map(|row| row.metadata.is_some());
    let expected = [true, true, false, false, false];
    assert_eq!(metadata.take(5).collect::<Vec<_>>(), expected);
    let hashes = samples.iter().filter_map(|row| row.sha256.clone());
    assert_eq!(hashes.collect::<std::collections::BTreeSet<_>>().len(), 5);
    export(run, None);
    let said = sluice(&["verify", "--run", run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
    let kept = members(run);
    assert_eq!(kept["a/x%2E0.png"], picture(1, 2));
    assert_eq!(kept["a/x%2E0.txt"], b"the first");
    assert_eq!(kept["b.tar.zst/x%2E1.png"], picture(2, 2));
    assert_eq!(kept["b.tar.zst/x%2E1.json"], b"{\"n\": 1}");
    assert_eq!(kept["b.tar.zst/z%2Einput.txt"], b"an input");
    let said = sluice(&["explain", "a/z.output", "--run", run]);
    assert!(said.out.contains("not-an-image"), "{}", said.out);
}

fn partition(input: &str, run: &str) -> anyhow::Result<()> {
    let words = ["sluice-partition", "--input", input, "--run", run];
    let words = words.map(str::to_owned);
    sluice_harness::run_step::<sluice_partition::Args>(&words, shared()).map(drop)
}

#[test]
fn a_moved_input_is_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    put_several(&store(&at("in")));
    let run = "memory://moved/run";
    partition(&at("in"), run).unwrap();
    again::<sluice_read::Args>(run, "sluice-read");
    let place = store(run);
    let receipts = || -> Vec<Vec<u8>> {
        let all = place.list("read/receipts").unwrap().into_iter();
        all.map(|object| place.get(&object.path).unwrap().to_vec())
            .collect()
    };
    let before = receipts();
    std::fs::rename(at("in"), at("elsewhere")).unwrap();
    assert!(partition(&at("in"), run).is_err());
    partition(&at("elsewhere"), run).unwrap();
    again::<sluice_read::Args>(run, "sluice-read");
    assert_eq!(receipts(), before, "nothing is read again");
    export(run, None);
    let said = sluice(&["verify", "--run", run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
    let info = String::from_utf8(place.get(layout::RUN_INFO).unwrap().to_vec()).unwrap();
    assert!(info.contains("elsewhere"), "{info}");

    store(&at("other"))
        .put("a.tar", shard(&[("x.png", &picture(1, 2))]))
        .unwrap();
    let error = partition(&at("other"), run).unwrap_err();
    let (class, message) = sluice_harness::describe(&error);
    assert!(
        class == Class::Usage && message.contains("this run curates"),
        "{message}"
    );
}

/// A list refers to the files in it, not to its own folder.
#[test]
fn an_output_beside_a_list_is_not_in_the_input() {
    let base = "memory://beside-a-list";
    let place = store(base);
    place.put("pictures/a.png", picture(1, 2)).unwrap();
    place.put("far/b.png", picture(2, 2)).unwrap();
    let list = format!("path\npictures/a.png\n{base}/far/b.png\nhttps://h/c.png\n");
    place.put("objects.csv", list).unwrap();
    let run = format!("{base}/run");
    partition(&format!("{base}/objects.csv"), &run).unwrap();
    again::<sluice_read::Args>(&run, "sluice-read");
    again::<sluice_export::Args>(&run, "sluice-export decide");
    for (output, is_refused) in [
        ("", true),
        ("/pictures", true),
        ("/far", true),
        ("/far/out", false),
        ("/objects", false),
        ("/out", false),
    ] {
        let line = format!("sluice-export plan --output {base}{output} --overwrite --run {run}");
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let outcome = sluice_harness::run_step::<sluice_export::Args>(&words, shared());
        assert_eq!(outcome.is_err(), is_refused, "{output}: {outcome:?}");
    }
}

/// Returns a tar in which `b.png` is a hard link to `a.png`, and `c.png` a symbolic link.
fn linked_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let mut file = |builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let link = |builder: &mut tar::Builder<Vec<u8>>, name: &str, kind| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(kind);
        builder.append_link(&mut header, name, "./a.png").unwrap();
    };
    file(&mut builder, "./a.png", &picture(1, 2));
    file(&mut builder, "./m.png", &picture(2, 2));
    link(&mut builder, "./b.png", tar::EntryType::Link);
    file(&mut builder, "./b.txt", b"another caption");
    link(&mut builder, "./c.png", tar::EntryType::Symlink);
    file(&mut builder, "./d.png", &picture(3, 2));
    builder.into_inner().unwrap()
}

#[test]
fn a_hard_link_to_an_image_is_the_image() {
    let input = store("memory://linked/in");
    let packed = zstd::encode_all(linked_tar().as_slice(), 1).unwrap();
    input.put("a.tar", linked_tar()).unwrap();
    input.put("b.tar.zst", packed).unwrap();
    let run = "memory://linked/run";
    again::<sluice_partition::Args>(run, "sluice-partition --input memory://linked/in");
    again::<sluice_read::Args>(run, "sluice-read");
    let samples = samples(run);
    let ids: Vec<&str> = samples.iter().map(|row| row.image_id.as_str()).collect();
    assert_eq!(ids[..4], ["a/a", "a/m", "a/b", "a/d"], "no symbolic link");
    assert_eq!(samples[0].sha256, samples[2].sha256);
    export(run, None);
    let said = sluice(&["verify", "--run", run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
    for shard in ["a", "b.tar.zst"] {
        let kept = members(run);
        assert_eq!(kept[&format!("{shard}/b.png")], picture(1, 2));
        assert_eq!(kept[&format!("{shard}/b.txt")], b"another caption");
        assert_eq!(kept[&format!("{shard}/d.png")], picture(3, 2));
    }
}
