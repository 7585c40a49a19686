//! One row for each sample, whatever is wrong with it.

use sluice_harness::MemoryBudget;
use sluice_manifest::rows::{PlanRow, SampleRow, Status};
use sluice_manifest::{ReasonKind, ShardPath};
use sluice_read::examine::examine;
use sluice_read::{ExtraHash, Settings, WhichImages};
use sluice_shard::{Event, ShardLimits, ShardReader};
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};

/// Returns the rows of a shard's samples.
fn rows(shard: &[u8]) -> Vec<SampleRow> {
    rows_with(shard, &Settings::default())
}

fn rows_with(shard: &[u8], settings: &Settings) -> Vec<SampleRow> {
    let shard_row = PlanRow {
        shard: ShardPath::new("a/b.tar"),
        ..PlanRow::default()
    };
    let memory = MemoryBudget::new(1 << 30);
    let reader = ShardReader::new(shard, ShardLimits::default()).unwrap();
    let samples = reader.filter_map(|event| match event.unwrap() {
        Event::Sample(sample) => Some(examine(sample, &shard_row, settings, &memory)),
        _ => None,
    });
    samples.collect()
}

fn picture() -> Vec<u8> {
    png(&waves(1, 40, 30))
}

#[test]
fn a_sound_sample_is_measured_and_its_texts_are_taken_up() {
    let shard = Shard::new()
        .with("k.png", picture())
        .with("k.txt", "a caption")
        .with("k.json", r#"{"n": 1}"#);
    let [row] = &rows(&shard.finish())[..] else {
        panic!("one sample")
    };
    assert_eq!(row.image_id.as_str(), "a/b/k");
    assert_eq!(
        (row.status, &row.reason, &row.detail),
        (Status::Ok, &None, &None)
    );
    assert_eq!((row.width, row.height), (Some(40), Some(30)));
    assert_eq!(row.format.as_deref(), Some("png"));
    assert_eq!(row.caption.as_deref(), Some("a caption"));
    assert_eq!(row.metadata.as_deref(), Some(r#"{"n": 1}"#));
    assert_eq!(row.bytes, picture().len() as u64);
    let members = row.members.iter().map(|member| member.extension.as_str());
    assert_eq!(members.collect::<Vec<_>>(), ["png", "txt", "json"]);
    assert!(row.sha256.is_some() && row.phash.is_some() && row.blurry.is_some());
}

#[test]
fn what_is_wrong_with_an_image_is_the_reason() {
    let cut = picture()[..600].to_vec();
    let shard = Shard::new()
        .with("none.txt", "no image")
        .with("empty.jpg", "")
        .with("text.jpg", "<html>no image</html>")
        .with("cut.png", cut)
        .with_sparse("sparse.png", picture())
        .with("again.png", picture())
        .with("between.png", picture())
        .with("again.txt", "late");
    let rows = rows(&shard.finish());
    let expected = [
        (
            "none",
            Some(ReasonKind::NoImage),
            "no member has an image extension",
        ),
        ("empty", Some(ReasonKind::EmptyFile), ""),
        ("text", Some(ReasonKind::NotAnImage), ""),
        ("cut", Some(ReasonKind::Truncated), ""),
        ("sparse", Some(ReasonKind::SparseMember), "sparse file"),
        ("again", None, ""),
        ("between", None, ""),
        (
            "again#1",
            Some(ReasonKind::NoImage),
            "occurred in the shard before",
        ),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (name, kind, detail)) in rows.iter().zip(expected) {
        assert_eq!(row.image_id.as_str(), format!("a/b/{name}"));
        assert_eq!(row.reason, kind.map(Into::into), "{name}");
        let is_rejected = row.status == Status::Rejected;
        assert_eq!(is_rejected, kind.is_some(), "{name}");
        let said = row.detail.as_deref().unwrap_or_default();
        assert!(said.contains(detail), "{name}: {said}");
        assert_eq!(row.phash.is_some(), kind.is_none(), "{name}");
    }
}

#[test]
fn texts_that_cannot_be_taken_up_are_noted_and_cost_no_sample() {
    let long = "x".repeat((1 << 20) + 1);
    let longest = "x".repeat(1 << 20);
    let cases: [(&str, &[u8], &str); 5] = [
        ("txt", b"caf\xe9", "caption is not UTF-8"),
        ("txt", long.as_bytes(), "caption is too large"),
        ("txt", longest.as_bytes(), ""),
        ("json", b"{\"n\": ", "metadata is not valid JSON"),
        ("json", long.as_bytes(), "metadata is too large"),
    ];
    for (extension, text, note) in cases {
        let shard = Shard::new()
            .with("k.png", picture())
            .with(&format!("k.{extension}"), text);
        let row = &rows(&shard.finish())[0];
        let detail = row.detail.as_deref().unwrap_or_default();
        assert_eq!(row.status, Status::Ok, "{detail}");
        assert!(
            detail.contains(note) && detail.is_empty() == note.is_empty(),
            "{detail}"
        );
    }
}

#[test]
fn a_torn_member_costs_its_sample_alone() {
    let shard = Shard::new()
        .with("whole.png", picture())
        .with("torn.txt", "its caption is whole")
        .with("torn.png", picture());
    let rows = rows(&shard.cut(600));
    assert_eq!(rows[0].status, Status::Ok);
    assert_eq!(rows[1].reason, Some(ReasonKind::ShardDamaged.into()));
    let detail = rows[1].detail.as_deref().unwrap_or_default();
    assert!(detail.contains(".png"), "{detail}");
    assert_eq!(rows.len(), 2);
}

#[test]
fn further_images_are_reported_or_checked() {
    let shard = Shard::new()
        .with("a.0.png", picture())
        .with("a.1.png", "broken")
        .with("a.caption.txt", "by its name")
        .with("b.png", picture())
        .with("b.mask.png", "no image of its own")
        .finish();
    let first = rows(&shard);
    assert!(first.iter().all(|row| row.status == Status::Ok));
    assert!(
        first[0]
            .detail
            .as_deref()
            .unwrap()
            .contains("several images: 2")
    );
    assert_eq!((&first[0].caption, &first[1].detail), (&None, &None));
    let all = Settings {
        images: WhichImages::All,
        caption_member: Some("caption.txt".to_owned()),
        hashes: vec![ExtraHash::Md5, ExtraHash::Pdq, ExtraHash::Transformed],
    };
    let all = rows_with(&shard, &all);
    assert_eq!(all[0].reason, Some(ReasonKind::NotAnImage.into()));
    assert!(all[0].detail.as_deref().unwrap().starts_with("1.png: "));
    assert_eq!(all[0].caption.as_deref(), Some("by its name"));
    assert_eq!((&first[1].md5, &first[1].pdq), (&None, &None));
    assert_eq!(all[1].phash_transformed.as_ref().map(Vec::len), Some(7));
    assert_eq!(all[1].md5.as_ref().map(String::len), Some(32));
    assert_eq!(all[1].status, Status::Ok);
}
