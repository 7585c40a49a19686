//! Feeds pictures to a model, and writes what goes in and what comes out, for comparison with the
//! library that the model is of (tests/models).
//!
//! `feed embedder|scorer MODEL OUT PICTURE...` writes `OUT.input` (the tensors, one after the other) and
//! `OUT.output` (embeddings, or scores), as little-endian float32, and prints a line of JSON: the
//! model's spec, and the shape of an input. `feed pixels MODEL OUT PICTURE...` writes the input only.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a tool to compare with: local files, one line on stdout or stderr"
)]

use std::error::Error;
use std::process::ExitCode;

use sluice_model::{Kind, Model, Precision};
use sluice_pixels::{Fidelity, Limits, Preprocess};
use sluice_store::{Location, Storage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match feed(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn feed(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [role, model, out, pictures @ ..] = arguments else {
        return Err("feed embedder|scorer|pixels MODEL OUT PICTURE...".into());
    };
    let cache = Location::parse("memory://models")?;
    let model = Model::find(&Storage::default(), model, &cache, Precision::Float32)?;
    match role.as_str() {
        "embedder" => model.require(&[Kind::Embedder], "--model")?,
        "scorer" => model.require(&[Kind::Classifier], "--model")?,
        _ => {}
    }
    let preprocess = model.spec.preprocess.as_ref().ok_or("no model of pixels")?;
    let tensors = tensors(preprocess, pictures)?;
    write(&format!("{out}.input"), &tensors)?;
    if role != "pixels" {
        model.check()?;
        write(
            &format!("{out}.output"),
            &outputs(&model, &tensors, pictures.len())?,
        )?;
    }
    let shape = preprocess.tensor_shape(pictures.len());
    println!(
        "{}",
        serde_json::json!({ "spec": model.spec, "shape": shape })
    );
    Ok(())
}

fn tensors(preprocess: &Preprocess, pictures: &[String]) -> Result<Vec<f32>, Box<dyn Error>> {
    let length = preprocess.tensor_len();
    let mut tensors = vec![0.0; length * pictures.len()];
    for (picture, tensor) in pictures.iter().zip(tensors.chunks_exact_mut(length)) {
        let (bytes, limits) = (std::fs::read(picture)?, Limits::default());
        preprocess.tensor_of_file(&bytes, &limits, &mut |_| {}, Fidelity::Exact, tensor)?;
    }
    Ok(tensors)
}

/// The tensors go through the model in batches of three, so that a rest is left over.
fn outputs(model: &Model, tensors: &[f32], rows: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut session = model.session(1)?;
    let preprocess = model.spec.preprocess.as_ref().ok_or("no model of pixels")?;
    let mut found = Vec::new();
    for batch in tensors.chunks(3 * tensors.len() / rows) {
        let count = batch.len() * rows / tensors.len();
        let output = session.run(&preprocess.tensor_shape(count), batch)?;
        match model.spec.kind {
            Kind::Embedder => found.extend(output),
            _ => found.extend(model.spec.scores(output, count)?),
        }
    }
    Ok(found)
}

fn write(path: &str, numbers: &[f32]) -> std::io::Result<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
    std::fs::write(path, bytes)
}
