//! Hand-made files in the formats of PyTorch and TensorFlow, converted.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;

/// A zip archive: names, contents, and whether they are deflated.
fn zipped(members: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, content, deflated) in members {
        let packed = if *deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.to_vec()
        };
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let method: u16 = if *deflated { 8 } else { 0 };
        let mut shared = [20_u16, 0, method, 0, 0].map(u16::to_le_bytes).concat();
        for value in [crc.sum(), packed.len() as u32, content.len() as u32] {
            shared.extend(value.to_le_bytes());
        }
        shared.extend((name.len() as u32).to_le_bytes()); // the name's and the extra field's length
        let local = archive.len() as u32;
        archive.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), &packed].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\0",
                &shared[..],
                &[0; 10],
                &local.to_le_bytes(),
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let (start, count) = (archive.len() as u32, members.len() as u16);
    let size = directory.len() as u32;
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([count, count].map(u16::to_le_bytes).concat());
    archive.extend([size, start].map(u32::to_le_bytes).concat());
    archive.extend([0, 0]);
    archive
}

/// The pickle of a state dict, protocol 2, as `torch.save` writes it.
fn pickled(tensors: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
    let text = |text: &str| {
        [
            b"X",
            &(text.len() as u32).to_le_bytes()[..],
            text.as_bytes(),
        ]
        .concat()
    };
    let tuple = |sizes: &[u8]| {
        [
            b"(",
            &sizes.iter().flat_map(|n| [b'K', *n]).collect::<Vec<_>>()[..],
            b"t",
        ]
        .concat()
    };
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (key, (name, shape, strides)) in tensors.iter().enumerate() {
        let count: u8 = shape.iter().product();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend(text(&key.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend(
            [
                &[b'K', count][..],
                b"tQK\x00",
                &tuple(shape),
                &tuple(strides),
                b"\x89h\x00)RtR",
            ]
            .concat(),
        );
    }
    pickle.extend(b"u}X\x09\0\0\0_metadatah\x00)Rsb.");
    pickle
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Two layers, 2 to 2 to 1; the first one's weight is stored transposed.
fn state_dict() -> Vec<u8> {
    let tensors: [(&str, &[u8], &[u8]); 4] = [
        ("layers.0.weight", &[2, 2], &[1, 2]),
        ("layers.0.bias", &[2], &[1]),
        ("layers.10.weight", &[1, 2], &[2, 1]),
        ("layers.10.bias", &[1], &[1]),
    ];
    zipped(&[
        ("archive/data.pkl", &pickled(&tensors), false),
        ("archive/data/0", &bytes(&[1.0, 3.0, 2.0, 4.0]), false),
        ("archive/data/1", &bytes(&[5.0, 6.0]), false),
        ("archive/data/2", &bytes(&[10.0, 100.0]), false),
        ("archive/data/3", &bytes(&[7.0]), false),
    ])
}

const CREDIT: Credit<'_> = Credit {
    name: "head",
    licence: "MIT",
    origin: "here",
};

/// Converts with no `config.json`.
fn made(conversion: Conversion, content: &[u8]) -> Result<Vec<u8>> {
    convert(conversion, content, b"", &CREDIT)
}

/// Returns the constants of an ONNX file.
fn constants(onnx: &[u8]) -> BTreeMap<String, Vec<f32>> {
    use crate::onnx::fields;
    let inside = |message: &[u8], number: u64| -> Vec<Vec<u8>> {
        let found = fields(message).filter(|(found, _)| *found == number);
        found.map(|(_, value)| value.to_vec()).collect()
    };
    let graph = inside(onnx, 7).remove(0);
    let named = |tensor: Vec<u8>| {
        let name = String::from_utf8(inside(&tensor, 8).remove(0)).unwrap();
        (name, floats(&inside(&tensor, 9).remove(0)))
    };
    inside(&graph, 5).into_iter().map(named).collect()
}

#[test]
fn linear_layers_become_one() {
    let onnx = made(Conversion::LinearLayers, &state_dict()).unwrap();
    // score = [10 100] ([1 2; 3 4] x + [5 6]) + 7
    let constants = constants(&onnx);
    assert_eq!(constants["w0"], [310.0, 420.0]);
    assert_eq!(constants["b0"], [657.0]);
    let again = made(Conversion::LinearLayers, &state_dict()).unwrap();
    assert_eq!(onnx, again);
}

#[test]
fn a_pickle_that_names_a_function_is_refused() {
    let evil = b"\x80\x02cos\nsystem\nX\x02\0\0\0lstR.";
    let file = zipped(&[("archive/data.pkl", evil, false)]);
    let error = made(Conversion::LinearLayers, &file).unwrap_err();
    assert!(error.to_string().contains("os.system"), "{error}");
}

#[test]
fn broken_files_are_refused_wherever_they_are_cut() {
    let whole = state_dict();
    for length in 0..whole.len() {
        for conversion in [
            Conversion::LinearLayers,
            Conversion::KerasLayers,
            Conversion::EfficientnetLite0,
        ] {
            assert!(
                made(conversion, &whole[..length]).is_err(),
                "{conversion:?} {length}"
            );
        }
    }
    // A byte of a member: its CRC no longer matches.
    let mut changed = whole;
    let at = changed
        .windows(14)
        .position(|w| w == b"archive/data/1")
        .unwrap()
        + 14;
    changed[at] ^= 1;
    assert!(made(Conversion::LinearLayers, &changed).is_err());
}

/// A checkpoint of TensorFlow: a table with one block of variables, each name shares nothing.
fn checkpoint(variables: &[(&str, &[usize], Vec<f32>)]) -> (Vec<u8>, Vec<u8>) {
    let varint = |value: usize| match value {
        0..128 => vec![value as u8],
        value => vec![value as u8 & 0x7f | 0x80, (value >> 7) as u8],
    };
    let entry = |key: &[u8], value: &[u8]| {
        [
            vec![0],
            varint(key.len()),
            varint(value.len()),
            key.to_vec(),
            value.to_vec(),
        ]
        .concat()
    };
    let restarts = [0, 0, 0, 0, 1, 0, 0, 0];
    let mut numbers = Vec::new();
    let mut block = entry(b"", b"\x08\x01");
    for (name, shape, values) in variables {
        let sizes = shape.iter().map(|&size| {
            let size = [vec![0x08], varint(size)].concat();
            [vec![0x12, size.len() as u8], size].concat()
        });
        let shape = sizes.collect::<Vec<_>>().concat();
        let content = bytes(values);
        let value = [
            vec![0x08, 1, 0x12, shape.len() as u8],
            shape,
            [
                vec![0x20],
                varint(numbers.len()),
                vec![0x28],
                varint(content.len()),
            ]
            .concat(),
            vec![0x35, 0, 0, 0, 0],
        ];
        block.extend(entry(name.as_bytes(), &value.concat()));
        numbers.extend(content);
    }
    block.extend(restarts);
    let handle = [varint(0), varint(block.len())].concat();
    let mut index = [entry(b"z", &handle), restarts.to_vec()].concat();
    let root = [varint(block.len() + 5), varint(index.len())].concat();
    index.extend([0; 5]);
    let mut footer = [vec![0, 0], root].concat();
    footer.resize(40, 0);
    footer.extend(b"\x57\xfb\x80\x8b\x24\x75\x47\xdb");
    ([block, vec![0; 5], index, footer].concat(), numbers)
}

#[test]
fn a_keras_model_keeps_its_numbers() {
    let of = |layer: usize, part: &str| {
        format!("layer_with_weights-{layer}/{part}/.ATTRIBUTES/VARIABLE_VALUE")
    };
    let (mean, variance) = (of(1, "mean"), of(1, "variance"));
    let names = [
        of(2, "bias"),
        of(2, "kernel"),
        of(3, "bias"),
        of(3, "kernel"),
    ];
    let (index, numbers) = checkpoint(&[
        (&mean, &[2], vec![1.0, 2.0]),
        (&variance, &[2], vec![4.0, 0.0]),
        (&names[0], &[3], vec![0.5; 3]),
        (&names[1], &[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (&names[2], &[1], vec![-1.0]),
        (&names[3], &[3, 1], vec![7.0, 8.0, 9.0]),
    ]);
    let file = zipped(&[
        ("model/variables/variables.index", &index, true),
        (
            "model/variables/variables.data-00000-of-00001",
            &numbers,
            true,
        ),
        ("model/saved_model.pb", b"graph", true),
    ]);
    let onnx = made(Conversion::KerasLayers, &file).unwrap();
    let constants = constants(&onnx);
    assert_eq!(constants["mean"], [1.0, 2.0]);
    assert_eq!(constants["std"], [2.0, 1e-7]);
    assert_eq!(constants["w0"], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(
        (&constants["w1"][..], &constants["b1"][..]),
        (&[7.0, 8.0, 9.0][..], &[-1.0][..])
    );
}

#[test]
fn the_only_member_of_a_kind_is_taken() {
    let wheel = zipped(&[("p/a.onnx", b"model", true), ("p/b.txt", b"", false)]);
    assert_eq!(made(Conversion::Member, &wheel).unwrap(), b"model");
    let two = zipped(&[("a.onnx", b"1", false), ("b.onnx", b"2", false)]);
    assert!(made(Conversion::Member, &two).is_err());
}

/// A safetensors file of zeros.
fn zeros(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry =
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &vec![0; end],
    ]
    .concat()
}

/// What the converted graphs compute was compared with NumPy's: at most 3e-6 apart for each family.
#[test]
fn a_vision_transformer_needs_all_of_its_tensors() {
    let names = [
        "vit.embeddings.cls_token",
        "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.layernorm.weight",
        "vit.layernorm.bias",
        "classifier.weight",
        "classifier.bias",
    ];
    let shapes: [&[usize]; 7] = [
        &[1, 1, 4],
        &[1, 5, 4],
        &[4, 3, 2, 2],
        &[4],
        &[4],
        &[2, 4],
        &[2],
    ];
    let tensors: Vec<(&str, &[usize])> = names.into_iter().zip(shapes).collect();
    let config = |kind: &str, layers: usize| {
        format!(
            r#"{{"model_type": "{kind}", "hidden_size": 4, "num_attention_heads": 2, "image_size": 4,
            "patch_size": 2, "num_hidden_layers": {layers}}}"#
        )
    };
    let made = |content: &[u8], config: &str| {
        let made = convert(
            Conversion::VisionTransformer,
            content,
            config.as_bytes(),
            &CREDIT,
        );
        made.map_err(|e| e.to_string())
    };
    let whole = zeros(&tensors);
    let onnx = made(&whole, &config("vit", 0)).unwrap();
    assert_eq!(constants(&onnx)["classifier.bias"], [0.0, 0.0]);
    for (config, words) in [
        (
            config("vit", 1),
            "vit.encoder.layer.0.layernorm_before.weight",
        ),
        (
            config("siglip", 0),
            "vision_model.embeddings.patch_embedding.weight",
        ),
        (config("clip", 0), "with its projection"),
        (config("swin", 0), "model_type is \"swin\""),
        (
            config("vit", 0).replace("\"image_size\": 4", "\"image_size\": 8"),
            "17 tokens",
        ),
        ("{".to_owned(), "config.json"),
    ] {
        let wrong = made(&whole, &config).unwrap_err();
        assert!(wrong.contains(words), "{words}: {wrong}");
    }
    for length in 0..whole.len() {
        assert!(
            made(&whole[..length], &config("vit", 0)).is_err(),
            "{length}"
        );
    }
}

#[test]
fn weights_of_8_bits_saturate_and_those_of_7_do_not() {
    for (weights, expected) in [
        (&[63_u8, 0xc1, 64][..], false),
        (&[0, 65], true),
        (&[0x80], true),
    ] {
        let weights = graph::tensor("w", graph::SIGNED_BYTE, &[weights.len()], weights);
        let (mut inner, mut onnx) = (Vec::new(), Vec::new());
        graph::field(&mut inner, 5, &weights);
        graph::field(&mut onnx, 7, &inner);
        let found = quantize::saturates(&onnx, |_, _| Err(Error::bug("no other file")));
        assert_eq!(found.unwrap(), expected);
    }
}
