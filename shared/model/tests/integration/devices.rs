//! Devices: what is missing, by the libraries that ONNX Runtime's packages really have, and what
//! becomes of a batch that a device has no memory for.

use sluice_manifest::{Class, Result};
use sluice_model::{BatchSize, Device, Model};
use sluice_testkit::onnx::{FLOAT32, Tensor, graph_with, int, integers, node, node_of};

use crate::place::{SPEC, find};

/// A model that takes petabytes for more than four rows at once: ONNX Runtime has no memory for them.
fn hungry() -> Model {
    let nodes = [
        node("Shape", "pixel_values", "shape", &[]),
        node_of("Gather", &["shape", "first"], "rows", &[int("axis", 0)]),
        node_of("Greater", &["rows", "four"], "is_large", &[]),
        node_of("Where", &["is_large", "petabytes", "one"], "size", &[]),
        node("ConstantOfShape", "size", "zeros", &[]),
        node("ReduceMax", "zeros", "zero", &[int("keepdims", 0)]),
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("Add", &["flat", "zero"], "image_embeds", &[]),
    ];
    let constants = [
        integers("first", &[0]),
        integers("four", &[4]),
        integers("petabytes", &[1 << 50]),
        integers("one", &[1]),
    ];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "12"]);
    let onnx = graph_with(&nodes, &constants, &[input], &[output]);
    find(&[("model.toml", SPEC.as_bytes()), ("model.onnx", &onnx)]).unwrap()
}

#[test]
fn a_batch_that_there_is_no_memory_for_is_run_in_halves() {
    let model = hungry();
    let mut session = model.session(1).unwrap();
    for rows in [3, 19, 64] {
        let values: Vec<f32> = (0..rows * 12).map(|i| i as f32).collect();
        assert_eq!(
            session.run(&[rows, 3, 2, 2], &values).unwrap(),
            values,
            "{rows} rows"
        );
    }
    assert_eq!((session.batch_size(64), session.batch_size(2)), (4, 2));
}

fn place(device: &str) -> Result<Model> {
    hungry().place(device.parse().unwrap(), BatchSize::Auto)
}

#[test]
fn a_library_for_cpus_has_no_provider() {
    // Whatever library the tests run with, a GPU that no machine has is missing.
    for device in ["cuda:99", "tensorrt:99"] {
        let error = place(device).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
        let error = error.to_string();
        assert!(error.contains(device) && error.contains("hint"), "{error}");
    }
}

#[test]
fn the_cpu_is_there() {
    let model = place("cpu").unwrap();
    assert_eq!(
        (model.placement.device, model.placement.batch_size),
        (Device::Cpu, 16)
    );
    model.check().unwrap();
}
