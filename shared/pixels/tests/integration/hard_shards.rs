//! Compares irregular, damaged and hostile image files with their `expected.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sluice_pixels::{DecodeError, Decoded, Fidelity, Limits, Preprocess, RgbImage, decode};

/// Returns the outcome of every image of a shard, together with the fixture's expectation.
fn outcomes(fixtures: &Path, shard: &str) -> Vec<(Value, Result<Decoded, DecodeError>)> {
    let folder = fixtures.join("hard");
    let text = std::fs::read_to_string(folder.join(format!("{shard}.expected.json"))).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let members: BTreeMap<_, _> = crate::members(&folder.join(format!("{shard}.tar")))
        .into_iter()
        .collect();
    let samples = expected["samples"].as_array().unwrap();
    samples
        .iter()
        .map(|sample| {
            let picture = sample["members"][0].as_str().unwrap();
            let outcome = decode(&members[picture], &Limits::default());
            let reduced = reduced(&members[picture]);
            assert_eq!(
                reduced.err(),
                outcome.as_ref().err().cloned(),
                "{picture}, reduced"
            );
            (sample.clone(), outcome)
        })
        .collect()
}

/// Reduced decoding of large images, here from 64 pixels on, finds the same faults.
fn reduced(bytes: &[u8]) -> Result<(), DecodeError> {
    let spec = "resize = { shortest-edge = 1 }\nfilter = \"box\"\ncrop = { width = 1, height = 1 }";
    let spec: Preprocess = toml::from_str(spec).unwrap();
    let out = &mut [0.0; 3];
    spec.tensor_of_file(
        bytes,
        &Limits::default(),
        &mut |_| {},
        Fidelity::Approximate,
        out,
    )
}

fn mean(image: &RgbImage) -> [f64; 3] {
    let mut sums = [0u64; 3];
    for pixel in image.data.as_chunks::<3>().0 {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
        }
    }
    sums.map(|sum| sum as f64 / (image.data.len() / 3) as f64)
}

/// Compares sizes and mean colour of a decoded image with the sample's. Alpha is composited onto
/// white.
fn check(sample: &Value, decoded: Decoded) -> Result<(), String> {
    let stored = (&sample["width"], &sample["height"]);
    if !stored.0.is_null() && (stored.0 != decoded.image.width || stored.1 != decoded.image.height)
    {
        return Err(format!("stored size of {:?}", decoded.image));
    }
    let size = decoded.upright_size();
    let upright = decoded.upright();
    if size != (upright.width, upright.height) || upright.data.len() as u32 != size.0 * size.1 * 3 {
        return Err("upright_size is not the size of upright".to_owned());
    }
    if let Some(width) = sample.get("oriented_width")
        && (*width != upright.width || sample["oriented_height"] != upright.height)
    {
        return Err(format!("oriented size of {upright:?}"));
    }
    let Some(want) = ["mean_rgb_over_white", "mean_rgb"]
        .iter()
        .find_map(|name| sample.get(*name))
    else {
        return Ok(());
    };
    // For this one, the fixture only has the mean without alpha.
    if sample["key"] == "png-gray-alpha" {
        return Ok(());
    }
    let got = mean(&upright);
    let tolerance = sample["tolerance"].as_f64().unwrap();
    for (channel, got) in got.iter().enumerate() {
        if (got - want[channel].as_f64().unwrap()).abs() > tolerance {
            return Err(format!("mean {got:?} in channel {channel}, want {want}"));
        }
    }
    Ok(())
}

fn run(shard: &str, must_reject: impl Fn(&str) -> bool, unsupported: &[&str]) {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let mut failures = Vec::new();
    for (sample, outcome) in outcomes(&fixtures, shard) {
        let key = sample["key"].as_str().unwrap();
        let expect = sample["expect"].as_str().unwrap();
        let verdict = match (expect, outcome) {
            ("reject", Ok(_)) => Err("decoded, want reject".to_owned()),
            (_, Ok(_)) if must_reject(key) => Err("decoded, though we are strict".to_owned()),
            (_, Ok(decoded)) => check(&sample, decoded),
            ("decode", Err(error)) => Err(error.to_string()),
            ("decode-if-supported", Err(error)) if !unsupported.contains(&key) => {
                Err(error.to_string())
            }
            ("decode-if-supported", Err(error)) if error.kind() != "unsupported" => {
                Err(error.to_string())
            }
            (_, Err(error)) if sample["limit"] == "pixel limit" && error.kind() != "too-large" => {
                Err(error.to_string())
            }
            (_, Err(_)) => Ok(()),
        };
        if let Err(text) = verdict {
            failures.push(format!("{key} ({expect}): {text}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn legal_pictures_of_every_kind() {
    run("formats-00000", |_| false, &["avif", "jp2", "ppm"]);
}

#[test]
fn damaged_lying_and_hostile_files() {
    run(
        "broken-00000",
        |key| key.starts_with("trunc-") || key == "lying-width" || key == "flipped-bytes",
        &[],
    );
}

#[test]
fn pictures_beside_odd_texts() {
    run("text-00000", |_| false, &[]);
}

/// Checks the reasons of the damaged shard, as a report would show them.
#[test]
fn reasons_say_what_is_wrong() {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let kinds: BTreeMap<String, &str> = outcomes(&fixtures, "broken-00000")
        .into_iter()
        .filter_map(|(sample, outcome)| {
            let key = sample["key"].as_str().unwrap().to_owned();
            Some((key, outcome.err()?.kind()))
        })
        .collect();
    let want = [
        ("trunc-50", "truncated"),
        ("trunc-95", "truncated"),
        ("trunc-noeoi", "truncated"),
        ("trunc-header", "truncated"),
        ("trunc-progressive", "truncated"),
        ("zero-byte", "empty"),
        ("one-byte", "not-an-image"),
        ("soi-eoi", "corrupt"),
        ("text-as-jpg", "not-an-image"),
        ("html-as-jpg", "not-an-image"),
        ("svg-as-jpg", "unsupported"),
        ("pdf-as-jpg", "not-an-image"),
        ("width-0", "corrupt"),
        ("bomb-jpeg-header", "too-large"),
        ("no-quant-table", "corrupt"),
        ("png-trunc", "truncated"),
        ("png-bad-crc", "corrupt"),
        ("bomb-png-maxint", "too-large"),
        ("webp-trunc", "truncated"),
    ];
    for (key, kind) in want {
        assert_eq!(kinds.get(key), Some(&kind), "{key}");
    }
}
