//! Perceptual duplicates among the 64-bit hashes of a file (little-endian, one after the other), in parts or by
//! one process, measured from outside by `tests/bench/perceptual.py`.
//!
//! ```text
//! cargo run --release -p sluice-dedup --example pairs -- alone FILE MAX_DISTANCE
//! cargo run --release -p sluice-dedup --example pairs -- part FILE MAX_DISTANCE PARTS OUTPUT PART[,PART…]
//! cargo run --release -p sluice-dedup --example pairs -- decide FILE MAX_DISTANCE OUTPUT
//! ```
//!
//! The order of the file is the rank. `alone` and `decide` print a JSON object with the number of `removed` hashes
//! and a `digest` of what was decided; `part` appends its pairs to a file.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark reads local files"
)]

use std::io::Write;

use anyhow::Result;
use sluice_dedup::bands::{Pair, Part};
use sluice_dedup::components::{Components, decide};
use sluice_dedup::hash::{Forms, Hash};
use sluice_dedup::perceptual;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["alone", file, distance] => {
            let hashes = numbers(file)?.into_iter();
            let forms: Vec<Forms<1>> = hashes.map(|hash| Hash([hash]).into()).collect();
            let found = perceptual::duplicates(&forms, distance.parse()?, &|| Ok(()))?;
            report(&found);
            Ok(())
        }
        ["part", file, distance, parts, output, chosen] => {
            for part in chosen.split(',') {
                find(
                    file,
                    distance.parse()?,
                    part.parse()?,
                    parts.parse()?,
                    output,
                )?;
            }
            Ok(())
        }
        ["decide", file, distance, output] => {
            let words = numbers(output)?;
            let pairs = words.chunks_exact(2).map(|words| Pair {
                one: words[0],
                other: words[1],
            });
            let components = Components::new(&pairs.collect::<Vec<_>>());
            let hashes = numbers(file)?.into_iter().map(|hash| Hash([hash]));
            let ranked: Vec<(u64, Hash<1>)> = (0..).zip(hashes).collect();
            let distance = distance.parse()?;
            report(&decide(&components, &ranked, distance, &|| Ok(()))?);
            Ok(())
        }
        _ => anyhow::bail!("usage: pairs alone|part|decide …"),
    }
}

fn numbers(file: &str) -> Result<Vec<u64>> {
    let bytes = std::fs::read(file)?;
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .collect())
}

fn find(file: &str, max_distance: u32, part: u32, parts: u32, output: &str) -> Result<()> {
    let mut part = Part::new(max_distance, part, parts);
    for (image, hash) in numbers(file)?.into_iter().enumerate() {
        part.add(image as u64, Hash([hash]));
    }
    let mut bytes = Vec::new();
    for pair in part.pairs(&|| Ok(()))? {
        for number in [pair.one, pair.other] {
            bytes.extend(number.to_le_bytes());
        }
    }
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(output)?;
    Ok(file.write_all(&bytes)?)
}

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn report(found: &[Option<(usize, u32)>]) {
    let digest = found.iter().fold(0_u64, |digest, found| {
        let word = found.map_or(0, |(of, distance)| {
            1 + (of as u64) * 65 + u64::from(distance)
        });
        (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    let removed = found.iter().flatten().count();
    println!(r#"{{"removed": {removed}, "digest": "{digest:016x}"}}"#);
}
