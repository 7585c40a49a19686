//! A whole run with one damaged object: `verify`, `explain` and `inspect` report it, and never fail
//! with the class of a bug.
//!
//! The first byte selects the object, the second one the kind of damage and the reader. The damage
//! is other bytes, some changed bytes, a truncation, or another value in its JSON.

use std::sync::LazyLock;

use serde_json::Value;
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};

use super::{choice, refused_as, sealed};
use crate::{Run, sluice};

const PLACE: &str = "memory://fuzz-run";
const PIPELINE: &str = r#"
[[steps]]
stage = "read"

[[steps]]
stage = "score"
name = "liked"
import = "memory://fuzz-run/liked.csv"
by = "key"

[[steps]]
stage = "filter"
min = { liked = 1.0 }
rule = { wide = "width > 8" }

[[steps]]
stage = "dedup"
methods = ["exact", "perceptual"]
ranges = 1

[[steps]]
stage = "export"
images-per-shard = 2
"#;

/// A finished run, and its objects.
struct FinishedRun {
    place: Run,
    objects: Vec<(String, Vec<u8>)>,
}

static FINISHED: LazyLock<FinishedRun> = LazyLock::new(FinishedRun::new);

impl FinishedRun {
    fn new() -> Self {
        let place = Run::at(PLACE).expect("memory can be opened");
        let put = |path: &str, bytes: Vec<u8>| {
            place.store.put(path, bytes).expect("memory can be written");
        };
        for number in 0..2_u64 {
            let of = |seed: u64| png(&waves(seed, 16, 12));
            let shard = Shard::new()
                .with("a.png", of(number))
                .with("a.txt", "a caption")
                .with("b.png", of(7))
                .with("c.png", of(number + 2))
                .with("c.json", "{\"n\": 1}")
                .with("d.png", png(&waves(number, 8, 8)));
            put(&format!("input/{number}.tar"), shard.finish());
        }
        put("liked.csv", b"key,like\na,1\nb,2\nc,0\nd,4\n".to_vec());
        put("fuzz.toml", PIPELINE.as_bytes().to_vec());
        let [file, input, run, output] =
            ["fuzz.toml", "input", "run", "output"].map(|name| format!("{PLACE}/{name}"));
        let places = ["--input", &input, "--run", &run, "--output", &output];
        let command = [&["run", "--pipeline", &file], &places[..]].concat();
        let said = sluice(&command).expect("a command line");
        assert_eq!(said.failed, None, "{said:?}");
        let objects = place.store.list("").expect("memory can be listed");
        let objects = objects.into_iter().map(|object| {
            let bytes = place.store.get(&object.path).expect("memory can be read");
            (object.path, bytes.to_vec())
        });
        Self {
            objects: objects.collect(),
            place,
        }
    }
}

pub(super) fn run(data: &[u8]) {
    let (object, data) = choice(data);
    let (how, data) = choice(data);
    let finished = &*FINISHED;
    let (path, bytes) = &finished.objects[object % finished.objects.len()];
    let put = |bytes: Vec<u8>| {
        let put = finished.place.store.put(path, bytes);
        put.expect("memory can be written");
    };
    put(damaged(bytes, how % 4, data));
    read(path, how / 4);
    put(bytes.clone());
}

fn damaged(bytes: &[u8], how: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match how {
        0 => return data.to_vec(),
        1 => {
            for edit in data.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
                let length = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at % length) {
                    *byte = edit[2];
                }
            }
        }
        2 => {
            let cut = data
                .iter()
                .take(2)
                .fold(0, |cut, byte| cut << 8 | usize::from(*byte));
            bytes.truncate(bytes.len().saturating_sub(cut));
        }
        _ => return other_value(&bytes, data).unwrap_or(bytes),
    }
    bytes
}

/// Replaces a value in a JSON object. The first byte selects the value, the other bytes are the new
/// one.
fn other_value(json: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(json).ok()?;
    let (at, value) = choice(data);
    let value: Value = serde_json::from_slice(value).ok()?;
    let mut pointers = Vec::new();
    collect("", &document, &mut pointers);
    *document.pointer_mut(&pointers[at % pointers.len()])? = value;
    match document.get("seal") {
        Some(_) => Some(sealed(document)),
        None => serde_json::to_vec(&document).ok(),
    }
}

/// Returns the JSON pointers of a value and of all values in it.
fn collect(place: &str, value: &Value, pointers: &mut Vec<String>) {
    pointers.push(place.to_owned());
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect(&format!("{place}/{index}"), value, pointers);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(&format!("{place}/{name}"), value, pointers);
            }
        }
        _ => {}
    }
}

fn read(path: &str, reader: usize) {
    let run = format!("{PLACE}/run");
    let object = format!("{PLACE}/{path}");
    let image = ["0/a", "1/d"][reader % 2];
    let command: &[&str] = match reader % 4 {
        0 => &["verify", "--run", &run],
        1 => &["verify", "--quick", "--json", "--run", &run],
        2 => &["explain", "--run", &run, image],
        _ => &["inspect", "--json", &object],
    };
    let said = sluice(command).expect("a command line");
    if let Some((class, message)) = said.failed {
        refused_as(class, &message);
    }
}
