//! Hashes that `read` computes on request: PDQ, MD5, and those of mirrored and turned images.

use sluice_manifest::Class;
use sluice_manifest::rows::{DuplicateRow, Method};

use super::references::{class, list};
use super::support::{Hashes, Made, Run, made, pdq_text};

/// A hash of which half of the bits are set.
const HALF: u64 = 0x5555_5555_5555_5555;

/// A sample with hashes that are unlike those of others.
fn hashed(id: &'static str, content: u8) -> Made {
    let far = u64::from(content).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Made {
        hashes: Some(Hashes {
            pdq: [far, !far, far ^ HALF, !far],
            transformed: std::array::from_fn(|form| !far.rotate_left(form as u32 + 1)),
        }),
        ..made(id, content)
    }
}

fn with_pdq(sample: Made, pdq: [u64; 4]) -> Made {
    let hashes = sample.hashes.map(|hashes| Hashes { pdq, ..hashes });
    Made { hashes, ..sample }
}

fn shown(rows: &[DuplicateRow]) -> Vec<(&str, &str, f32)> {
    let rows = rows.iter();
    rows.map(|row| {
        let (id, of) = (row.image_id.as_str(), row.duplicate_of.as_str());
        (id, of, row.similarity)
    })
    .collect()
}

#[test]
fn pdq_hashes_are_compared_by_any_number_of_units() {
    let first = hashed("a/1", 1);
    let [a, b, c, d] = first.hashes.unwrap().pdq;
    let run = Run::new(
        "requested-pdq",
        &[
            first,
            with_pdq(hashed("a/31", 2), [a ^ 0x7fff_ffff, b, c, d]),
            with_pdq(hashed("b/32", 3), [a, b, c ^ 0xffff, d ^ 0xffff]),
            hashed("b/4", 4),
        ],
    );
    let similarity = 1.0 - 31.0 / 256.0;
    for (step, flags) in [("one", ""), ("many", "--ranges=3")] {
        run.dedup_all(&format!(
            "--step={step} --methods=perceptual --hash=pdq {flags}"
        ));
        assert_eq!(
            shown(&run.rows(step)),
            [("a/31", "a/1", similarity)],
            "{step}"
        );
    }
}

#[test]
fn mirrored_and_turned_copies_are_found_where_asked() {
    let first = made("a/1", 1);
    let copy = |id, form: usize| {
        let sample = hashed(id, 2 + form as u8);
        let hashes = sample.hashes.map(|mut hashes| {
            hashes.transformed[form] = first.phash ^ 0b11;
            hashes
        });
        Made { hashes, ..sample }
    };
    let samples = [
        Made {
            pixels: 500,
            hashes: hashed("", 9).hashes,
            ..first
        },
        copy("a/hflip", 0),
        copy("a/rot90", 2),
        copy("b/rot270", 4),
        copy("b/transverse", 6),
    ];
    let run = Run::new("requested-forms", &samples);
    let similarity = 1.0 - 2.0 / 64.0;
    for (asked, found) in [
        ("", &[][..]),
        ("--transformations=vflip,rot180", &[]),
        ("--transformations=hflip", &["a/hflip"]),
        (
            "--transformations=rot90,transpose",
            &["a/rot90", "b/rot270", "b/transverse"],
        ),
    ] {
        let words = format!("perceptual --methods=perceptual {asked}");
        run.dedup(words.trim_end()).unwrap();
        let rows = run.rows("dedup");
        let expected: Vec<_> = found.iter().map(|id| (*id, "a/1", similarity)).collect();
        assert_eq!(shown(&rows), expected, "{asked}");
    }
}

#[test]
fn lists_of_md5_and_pdq_hashes_are_compared() {
    let name = "requested-lists";
    let sample = hashed("a/1", 1);
    let run = Run::new(name, &[sample, hashed("a/2", 2), hashed("b/3", 3)]);
    let md5 = list(
        name,
        "bad.csv",
        format!("md5,name\n{},bad\n", "02".repeat(16)),
    );
    let [a, b, c, d] = sample.hashes.unwrap().pdq;
    let pdq = pdq_text([a ^ 0b111, b, c, d]);
    let pdq = list(name, "bad.pdq", format!("{pdq},100,bad.jpg\n"));
    run.dedup_all(&format!(
        "--methods=exact,perceptual --hash=pdq --against={md5},{pdq}"
    ));
    let rows = run.rows("dedup");
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.image_id.as_str(), row.method))
        .collect();
    assert_eq!(found, [("a/1", Method::Perceptual), ("a/2", Method::Exact)]);
    let refused = [
        (
            format!("perceptual --step=p --methods=perceptual --against={pdq}"),
            "it has PDQ hashes, and 64-bit ones are compared",
        ),
        (
            "perceptual --step=q --methods=perceptual --hash=pdq --transformations=hflip"
                .to_owned(),
            "not with --hash pdq",
        ),
        (
            "perceptual --step=r --methods=perceptual --ranges=2 --transformations=hflip"
                .to_owned(),
            "not with --ranges",
        ),
        (
            "perceptual --step=s --methods=perceptual --max-distance=17".to_owned(),
            "takes 0 to 16",
        ),
    ];
    for (words, part) in refused {
        let (class, error) = class(run.dedup(&words));
        assert_eq!(class, Some(Class::Usage), "{words}: {error}");
        assert!(error.contains(part), "{words}: {error}");
    }
}

/// PDQ has no hash of an image of low quality.
#[test]
fn images_may_all_have_no_hash() {
    let samples = [made("a/1", 1), made("b/2", 2)];
    let run = Run::with_hashes("requested-low-quality", &samples, &["pdq"]);
    for (step, flags) in [("one", ""), ("many", "--ranges=3")] {
        run.dedup_all(&format!(
            "--step={step} --methods=perceptual --hash=pdq {flags}"
        ));
        assert_eq!(run.survivors_of(step), ["a/1", "b/2"]);
    }
}

#[test]
fn hashes_that_read_did_not_compute_are_named() {
    let name = "requested-none";
    let run = Run::new(name, &[made("a/1", 1), made("a/2", 2)]);
    let md5 = list(name, "bad.md5", format!("{}  bad.jpg\n", "02".repeat(16)));
    for (words, part) in [
        (format!("exact --against={md5}"), "--hashes md5"),
        (
            "perceptual --methods=perceptual --hash=pdq".to_owned(),
            "--hashes pdq",
        ),
        (
            "perceptual --methods=perceptual --transformations=hflip".to_owned(),
            "--hashes transformed",
        ),
    ] {
        let error = run.dedup(&words).unwrap_err();
        let hint = error
            .downcast_ref::<sluice_manifest::Error>()
            .map(|error| format!("{error:?}"));
        assert!(
            hint.unwrap_or_default().contains(part),
            "{words}: {error:#}"
        );
    }
}
