//! Vision transformers of Hugging Face's transformers, from their safetensors and `config.json`: image
//! classifiers on ViT and SigLIP, and CLIP's image tower with its projection.
//!
//! Input `pixel_values` [N, 3, S, S]. Output `logits` [N, labels] or `image_embeds` [N, dimension].

use serde::Deserialize;
use serde_json::Value;

use super::graph::{Attribute, Graph};
use super::{Tensor, Tensors, safetensors, tensor};

/// Opset with LayerNormalization.
const OPSET: u64 = 17;

/// The parts of `config.json`, with transformers' defaults for what it leaves out.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    image_size: usize,
    patch_size: usize,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_attention_heads: 12,
            num_hidden_layers: 12,
            image_size: 224,
            patch_size: 16,
            layer_norm_eps: None,
            hidden_act: None,
        }
    }
}

/// Names of the parts of a family's models.
struct Family {
    patches: &'static str,
    /// The token before the patches, if there is one.
    class: Option<&'static str>,
    positions: &'static str,
    /// A norm before the layers.
    first_norm: Option<&'static str>,
    layers: &'static str,
    norms: [&'static str; 2],
    attention: [&'static str; 4],
    mlp: [&'static str; 2],
    last_norm: &'static str,
    head: &'static str,
    output: &'static str,
    epsilon: f32,
    activation: &'static str,
}

const VIT: Family = Family {
    patches: "vit.embeddings.patch_embeddings.projection",
    class: Some("vit.embeddings.cls_token"),
    positions: "vit.embeddings.position_embeddings",
    first_norm: None,
    layers: "vit.encoder.layer",
    norms: ["layernorm_before", "layernorm_after"],
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    mlp: ["intermediate.dense", "output.dense"],
    last_norm: "vit.layernorm",
    head: "classifier",
    output: "logits",
    epsilon: 1e-12,
    activation: "gelu",
};

const SIGLIP: Family = Family {
    patches: "vision_model.embeddings.patch_embedding",
    class: None,
    positions: "vision_model.embeddings.position_embedding.weight",
    first_norm: None,
    layers: "vision_model.encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    attention: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
    ],
    mlp: ["mlp.fc1", "mlp.fc2"],
    last_norm: "vision_model.post_layernorm",
    head: "classifier",
    output: "logits",
    epsilon: 1e-6,
    activation: "gelu_pytorch_tanh",
};

const CLIP: Family = Family {
    class: Some("vision_model.embeddings.class_embedding"),
    first_norm: Some("vision_model.pre_layrnorm"),
    head: "visual_projection",
    output: "image_embeds",
    epsilon: 1e-5,
    activation: "quick_gelu",
    ..SIGLIP
};

/// Returns the ONNX file of a model's weights.
///
/// # Errors
/// When the configuration is not supported, or a weight is missing or has another shape.
pub(super) fn convert(content: &[u8], config: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let whole: Value =
        serde_json::from_slice(config).map_err(|e| format!("its config.json: {e}"))?;
    let kind = whole["model_type"].as_str().unwrap_or_default();
    let family = match kind {
        "vit" => VIT,
        "siglip" | "siglip_vision_model" => SIGLIP,
        "clip" | "clip_vision_model" => CLIP,
        kind => {
            return Err(format!(
                "its model_type is {kind:?}; vit, siglip and clip are converted"
            ));
        }
    };
    let vision = whole.get("vision_config").unwrap_or(&whole);
    let config: Config =
        serde_json::from_value(vision.clone()).map_err(|e| format!("its config.json: {e}"))?;
    let weights = safetensors::read(content)?;
    let head = tensor(&weights, &format!("{}.weight", family.head));
    let head = head.map_err(|wrong| {
        format!("{wrong}: it is neither a classifier nor CLIP with its projection")
    })?;
    let width = *head.shape.first().unwrap_or(&0);
    let side = config.image_size;
    if config.patch_size == 0 || config.num_attention_heads == 0 {
        return Err("its config.json has a size of 0".to_owned());
    }
    let output = family.output;
    let mut network = Network {
        weights: &weights,
        config: &config,
        family: &family,
        graph: Graph::of_opset(OPSET),
        count: 0,
    };
    network.shared();
    let tokens = network.embed()?;
    let last = network.layers(tokens)?;
    network.finish(&last)?;
    let input: (&str, &[usize]) = ("pixel_values", &[3, side, side]);
    Ok(network.graph.finish(name, input, (output, &[width]), &[]))
}

struct Network<'a> {
    weights: &'a Tensors,
    config: &'a Config,
    family: &'a Family,
    graph: Graph,
    /// Nodes so far, for their names.
    count: usize,
}

impl Network<'_> {
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> String {
        let output = format!("{}_{}", operator.to_lowercase(), self.count);
        self.count += 1;
        self.graph.node(operator, inputs, &output, attributes);
        output
    }

    /// Adds the constants that every layer uses.
    fn shared(&mut self) {
        let Config {
            hidden_size,
            num_attention_heads,
            ..
        } = *self.config;
        let (width, heads) = (hidden_size as i64, num_attention_heads as i64);
        self.graph.integers("split", &[0, 0, heads, width / heads]);
        self.graph.integers("joined", &[0, 0, width]);
        self.graph.integers("flat", &[0, width, -1]);
        self.graph.integers("first", &[0]);
        self.graph.integers("one token", &[1, width]);
        let scale = 1.0 / ((hidden_size / num_attention_heads) as f32).sqrt();
        for (name, value) in [
            ("scale", scale),
            ("half", 0.5),
            ("one", 1.0),
            ("root of 2", std::f32::consts::SQRT_2),
            ("cubic", 0.044_715),
            ("root of 2/pi", (2.0 / std::f32::consts::PI).sqrt()),
            ("1.702", 1.702),
        ] {
            let values = vec![value];
            self.graph.constant(
                name,
                &Tensor {
                    shape: Vec::new(),
                    values,
                },
            );
        }
    }

    /// Patches as tokens, with the class token before them and positions added.
    fn embed(&mut self) -> Result<String, String> {
        let kernel = format!("{}.weight", self.family.patches);
        self.graph.constant(&kernel, tensor(self.weights, &kernel)?);
        let bias = format!("{}.bias", self.family.patches);
        let mut inputs = vec!["pixel_values", &kernel];
        if let Some(values) = self.weights.get(&bias) {
            self.graph.constant(&bias, values);
            inputs.push(&bias);
        }
        let patch = [self.config.patch_size as u64; 2];
        let attributes = [
            Attribute::Integers("kernel_shape", &patch),
            Attribute::Integers("strides", &patch),
        ];
        let map = self.node("Conv", &inputs, &attributes);
        let flat = self.node("Reshape", &[&map, "flat"], &[]);
        let mut tokens = self.node(
            "Transpose",
            &[&flat],
            &[Attribute::Integers("perm", &[0, 2, 1])],
        );
        if let Some(class) = self.family.class {
            let width = self.config.hidden_size;
            let values = tensor(self.weights, class)?.values.clone();
            self.graph.constant(
                class,
                &Tensor {
                    shape: vec![1, 1, width],
                    values,
                },
            );
            let shape = self.node("Shape", &["pixel_values"], &[]);
            let rows = self.node("Gather", &[&shape, "first"], &[]);
            let wanted = self.node(
                "Concat",
                &[&rows, "one token"],
                &[Attribute::Integer("axis", 0)],
            );
            let first = self.node("Expand", &[class, &wanted], &[]);
            tokens = self.node(
                "Concat",
                &[&first, &tokens],
                &[Attribute::Integer("axis", 1)],
            );
        }
        let positions = tensor(self.weights, self.family.positions)?;
        let count = (self.config.image_size / self.config.patch_size).pow(2)
            + usize::from(self.family.class.is_some());
        if positions.values.len() != count * self.config.hidden_size {
            return Err(format!("its positions are not those of {count} tokens"));
        }
        let shape = vec![1, count, self.config.hidden_size];
        let values = positions.values.clone();
        self.graph
            .constant(self.family.positions, &Tensor { shape, values });
        let placed = self.node("Add", &[&tokens, self.family.positions], &[]);
        match self.family.first_norm {
            Some(norm) => self.norm(&placed, norm),
            None => Ok(placed),
        }
    }

    fn layers(&mut self, mut tokens: String) -> Result<String, String> {
        for index in 0..self.config.num_hidden_layers {
            let of = |part: &str| format!("{}.{index}.{part}", self.family.layers);
            let [query, key, value, out] = self.family.attention.map(of);
            let [before, after] = self.family.norms.map(of);
            let [wide, narrow] = self.family.mlp.map(of);
            let normed = self.norm(&tokens, &before)?;
            let mixed = self.attention(&normed, [&query, &key, &value])?;
            let mixed = self.linear(&mixed, &out)?;
            tokens = self.node("Add", &[&tokens, &mixed], &[]);
            let normed = self.norm(&tokens, &after)?;
            let hidden = self.linear(&normed, &wide)?;
            let hidden = self.activation(&hidden)?;
            let hidden = self.linear(&hidden, &narrow)?;
            tokens = self.node("Add", &[&tokens, &hidden], &[]);
        }
        Ok(tokens)
    }

    fn attention(
        &mut self,
        tokens: &str,
        [query, key, value]: [&str; 3],
    ) -> Result<String, String> {
        let mut heads = |name: &str, order: &[u64]| {
            let all = self.linear(tokens, name)?;
            let split = self.node("Reshape", &[&all, "split"], &[]);
            Ok::<_, String>(self.node(
                "Transpose",
                &[&split],
                &[Attribute::Integers("perm", order)],
            ))
        };
        let query = heads(query, &[0, 2, 1, 3])?;
        let key = heads(key, &[0, 2, 3, 1])?;
        let value = heads(value, &[0, 2, 1, 3])?;
        let query = self.node("Mul", &[&query, "scale"], &[]);
        let products = self.node("MatMul", &[&query, &key], &[]);
        let weights = self.node("Softmax", &[&products], &[Attribute::Integer("axis", LAST)]);
        let mixed = self.node("MatMul", &[&weights, &value], &[]);
        let order = [0, 2, 1, 3];
        let mixed = self.node(
            "Transpose",
            &[&mixed],
            &[Attribute::Integers("perm", &order)],
        );
        Ok(self.node("Reshape", &[&mixed, "joined"], &[]))
    }

    /// `x W + b` for a weight that is stored as [out, in].
    fn linear(&mut self, x: &str, name: &str) -> Result<String, String> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        let stored = tensor(self.weights, &weight)?;
        let &[out, inner] = &stored.shape[..] else {
            return Err(format!("{weight} has the shape {:?}", stored.shape));
        };
        let values = (0..out * inner)
            .map(|i| stored.values[i % out * inner + i / out])
            .collect();
        let shape = vec![inner, out];
        self.graph.constant(&weight, &Tensor { shape, values });
        let product = self.node("MatMul", &[x, &weight], &[]);
        match self.weights.get(&bias) {
            None => Ok(product),
            Some(values) => {
                self.graph.constant(&bias, values);
                Ok(self.node("Add", &[&product, &bias], &[]))
            }
        }
    }

    fn norm(&mut self, x: &str, name: &str) -> Result<String, String> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.graph.constant(&weight, tensor(self.weights, &weight)?);
        self.graph.constant(&bias, tensor(self.weights, &bias)?);
        let epsilon = self.config.layer_norm_eps.unwrap_or(self.family.epsilon);
        let attributes = [
            Attribute::Integer("axis", LAST),
            Attribute::Float("epsilon", epsilon),
        ];
        Ok(self.node("LayerNormalization", &[x, &weight, &bias], &attributes))
    }

    fn activation(&mut self, x: &str) -> Result<String, String> {
        let kind = self
            .config
            .hidden_act
            .as_deref()
            .unwrap_or(self.family.activation);
        match kind {
            // x (1 + erf(x / sqrt 2)) / 2
            "gelu" => {
                let scaled = self.node("Div", &[x, "root of 2"], &[]);
                let erf = self.node("Erf", &[&scaled], &[]);
                Ok(self.gate(x, &erf))
            }
            // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
            "gelu_pytorch_tanh" | "gelu_new" => {
                let square = self.node("Mul", &[x, x], &[]);
                let cube = self.node("Mul", &[&square, x], &[]);
                let part = self.node("Mul", &[&cube, "cubic"], &[]);
                let sum = self.node("Add", &[x, &part], &[]);
                let scaled = self.node("Mul", &[&sum, "root of 2/pi"], &[]);
                let tanh = self.node("Tanh", &[&scaled], &[]);
                Ok(self.gate(x, &tanh))
            }
            // x sigmoid(1.702 x)
            "quick_gelu" => {
                let scaled = self.node("Mul", &[x, "1.702"], &[]);
                let sigmoid = self.node("Sigmoid", &[&scaled], &[]);
                Ok(self.node("Mul", &[x, &sigmoid], &[]))
            }
            kind => Err(format!("its hidden_act is {kind:?}, which is not known")),
        }
    }

    /// `x (1 + gate) / 2`
    fn gate(&mut self, x: &str, gate: &str) -> String {
        let gate = self.node("Add", &[gate, "one"], &[]);
        let product = self.node("Mul", &[x, &gate], &[]);
        self.node("Mul", &[&product, "half"], &[])
    }

    /// The class token, or the mean of the patches where there is none, through the head.
    fn finish(&mut self, tokens: &str) -> Result<(), String> {
        let normed = self.norm(tokens, self.family.last_norm)?;
        let pooled = match self.family.class {
            Some(_) => {
                let token = self.node(
                    "Gather",
                    &[&normed, "first"],
                    &[Attribute::Integer("axis", 1)],
                );
                self.node("Flatten", &[&token], &[Attribute::Integer("axis", 1)])
            }
            None => {
                let attributes = [
                    Attribute::Integers("axes", &[1]),
                    Attribute::Integer("keepdims", 0),
                ];
                self.node("ReduceMean", &[&normed], &attributes)
            }
        };
        let result = self.linear(&pooled, self.family.head)?;
        self.graph
            .node("Identity", &[&result], self.family.output, &[]);
        Ok(())
    }
}

/// The axis -1.
const LAST: u64 = u64::MAX;
