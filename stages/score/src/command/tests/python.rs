//! Programs in Python: the example, and what numpy makes of tensors.

use sluice_testkit::python;

use super::*;
use crate::command::samples::{SampleBatch, Sent, SentSample};

/// A picture of 64 by 64 pixels that Pillow reads: flat, or a checkerboard.
fn picture(sharp: bool) -> Vec<u8> {
    let mut file = b"P5 64 64 255\n".to_vec();
    let pixel = |index: usize| {
        if sharp && (index / 8 + index / 512).is_multiple_of(2) {
            255
        } else {
            90
        }
    };
    file.extend((0..64 * 64).map(pixel));
    file
}

#[test]
fn the_python_example_scores_sharpness() {
    let Some(python) = python("pyarrow, PIL") else {
        return;
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/score_sharpness.py");
    let text = std::fs::read_to_string(&example).unwrap();
    assert!(text.lines().count() < 20);
    let program = command(&format!("{} {}", python.display(), example.display()));
    let mut samples = SampleBatch::new(&[Sent::Image], 0).unwrap();
    assert!(
        run_on(&program, samples.schema(), std::iter::empty())
            .unwrap()
            .is_empty()
    );
    let (flat, sharp) = (picture(false), picture(true));
    for (image_id, image) in [("a/flat", &flat), ("a/sharp", &sharp)] {
        samples
            .push(&SentSample {
                image_id,
                image,
                ..SentSample::default()
            })
            .unwrap();
    }
    let schema = samples.schema().clone();
    let batch = samples.take().unwrap();
    let scores = run_on(&program, &schema, [Ok(batch)].into_iter()).unwrap();
    assert_eq!((&*scores[0].0, &*scores[1].0), ("a/flat", "a/sharp"));
    assert!(scores[1].1[0] > 2.0 * scores[0].1[0], "{scores:?}");
    // A file that is not an image fails the program, with the program's own error.
    samples
        .push(&SentSample {
            image_id: "a/text",
            image: b"text",
            ..SentSample::default()
        })
        .unwrap();
    let batch = samples.take().unwrap();
    let error = run_on(&program, &schema, [Ok(batch)].into_iter())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit code 1") && error.contains("UnidentifiedImageError"),
        "{error}"
    );
}

#[test]
fn pixels_and_embeddings_are_numpy_arrays_without_a_copy() {
    let Some(python) = python("pyarrow, numpy") else {
        return;
    };
    let script = r#"
import sys, pyarrow as pa
SCORES = pa.schema([("image_id", pa.string()), ("mean", pa.float64()), ("norm", pa.float32())])
with pa.ipc.open_stream(sys.stdin.buffer) as samples, pa.ipc.new_stream(sys.stdout.buffer, SCORES) as scores:
    width, height = (int(samples.schema.metadata[side]) for side in (b"width", b"height"))
    for batch in samples:
        pixels = batch["pixels"].to_numpy_ndarray()
        assert pixels.shape == (len(batch), height, width, 3) == (2, 1, 2, 3) and pixels.dtype == "uint8"
        embeddings = batch["embedding"].to_numpy_ndarray()
        assert embeddings.shape == (2, 4) and embeddings.dtype == "float32"
        assert batch["caption"].to_pylist() == ["a cat", None] and batch["metadata"].to_pylist() == ["{}"] * 2
        mean, norm = pixels.mean(axis=(1, 2, 3)), (embeddings**2).sum(axis=1)
        scores.write_batch(pa.record_batch([batch["image_id"], mean, norm], SCORES))
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("score.py");
    std::fs::write(&file, script).unwrap();
    let mut program = command(&format!("{} {}", python.display(), file.display()));
    program.outputs = vec!["mean".to_owned(), "norm".to_owned()];
    let pixels = Sent::Pixels {
        width: 2,
        height: 1,
    };
    let sent = [pixels, Sent::Caption, Sent::Metadata, Sent::Embedding];
    let mut samples = SampleBatch::new(&sent, 4).unwrap();
    for (image_id, caption) in [("a/0", Some("a cat")), ("a/1", None)] {
        let sample = SentSample {
            image_id,
            pixels: &[10, 20, 30, 40, 50, 60],
            caption,
            metadata: Some("{}"),
            embedding: &[1.0, 2.0, 0.0, 2.0],
            ..SentSample::default()
        };
        samples.push(&sample).unwrap();
    }
    let schema = samples.schema().clone();
    let batch = samples.take().unwrap();
    let scores = run_on(&program, &schema, [Ok(batch)].into_iter()).unwrap();
    assert_eq!(scores[1], ("a/1".into(), vec![35.0, 9.0]));
}
