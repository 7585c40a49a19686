//! `sluice models`: lists, downloads, shows and checks models.

mod compare;
mod fetch;
mod pull;
mod show;

use anyhow::Result;
use clap::{Args, Subcommand};
use sluice_harness::ToolContext;
use sluice_manifest::text::masked_word;
use sluice_manifest::{Class, Error};
use sluice_model::{
    Kind, Model, Precision, cached, catalogue, default_cache, folder_of, named, precisions, remove,
};
use sluice_store::{Location, Storage};

pub use pull::{missing, pull_missing};

use compare::{CompareSampling, EncoderChanges, Side, Trial, compare};

use crate::text::{columns, shorten};

/// List, pull, show and check models
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// The subcommands of `sluice models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the models of the catalogue and of the folder of models: kinds, dimensions, licences,
    /// and which are here
    ///
    /// Example: sluice models list
    List {
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Download a model, verify it, convert it where needed, and check it
    ///
    /// The Hub's variables apply (HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE).
    /// Downloads go to the Hub's own cache.
    ///
    /// Example: sluice models pull clip-vit-l14 laion-nsfw
    Pull {
        /// Names of the catalogue, hf://ORG/NAME[@REVISION][/PATH], or a new name
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// The source, for one name: hf://…, https://…, s3://…, a folder or an ONNX file
        #[arg(long, value_name = "URI")]
        from: Option<String>,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
    },
    /// Show a model's licence, source, dimension, preprocessing and heads
    ///
    /// Example: sluice models show clip-vit-l14
    Show {
        /// A name, a URI or a path
        #[arg(value_name = "MODEL")]
        name: String,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check models: the spec is valid, and the files have the hashes in the spec
    ///
    /// Example: sluice models check
    Check {
        /// Names or URIs (default: all that are in the folder of models)
        #[arg(value_name = "MODEL")]
        names: Vec<String>,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Write the ONNX file of another precision, and measure the differences on your images
    ///
    /// model.int8.onnx for CPUs; model.float16.onnx or model.bfloat16.onnx for GPUs.
    ///
    /// Example: sluice models quantize clip-vit-l14 --precision float16 --input data/
    Quantize {
        /// The model: a name, a URI or a path
        #[arg(value_name = "MODEL")]
        name: String,
        /// The precision
        #[arg(long, value_enum, default_value_t = Precision::Int8)]
        precision: Precision,
        /// The folder for it (default: the model's own)
        #[arg(long, value_name = "URI")]
        output: Option<String>,
        /// The images that the models are compared on.
        #[command(flatten)]
        sampling: CompareSampling,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
    },
    /// Measure the differences between two encoders on your images
    ///
    /// Compares the embeddings, each image's nearest neighbour, duplicates, and the decisions of
    /// the heads in the folder of models.
    ///
    /// Example: sluice models compare exports/a/ exports/b/ --input data/
    Compare {
        /// The first encoder: a name, a URI or a path
        #[arg(value_name = "MODEL")]
        first: String,
        /// The second encoder
        #[arg(value_name = "MODEL")]
        second: String,
        /// The precision of the second encoder's matrix products
        #[arg(long, value_enum, default_value_t)]
        precision: Precision,
        /// The images that the models are compared on.
        #[command(flatten)]
        sampling: CompareSampling,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
    },
    /// Remove a model from the folder of models
    ///
    /// Example: sluice models remove clip-vit-l14
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The folder of models.
        #[command(flatten)]
        cache: Cache,
    },
}

/// The location of the models.
#[derive(Debug, Args)]
pub struct Cache {
    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,
}

impl Cache {
    /// Returns the location of the models.
    pub(crate) fn location(&self) -> Result<Location, Error> {
        Location::parse(&self.models.clone().unwrap_or_else(default_cache))
    }
}

/// Returns the default folder of models: `SLUICE_MODELS`, or a folder in the user's cache.
pub fn models_folder() -> String {
    let set = std::env::var("SLUICE_MODELS").ok();
    set.filter(|uri| !uri.is_empty())
        .unwrap_or_else(default_cache)
}

/// The state of a model: whether it can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ModelState {
    BuiltIn,
    Cached,
    Missing,
    Broken(Class, String),
}

impl ModelState {
    /// Verifies a model's files, of all precisions.
    fn verified(storage: &Storage, name: &str, cache: &Location) -> Result<Self, Error> {
        let checked = |precision| -> Result<Kind, Error> {
            let model = Model::find(storage, name, cache, precision)?;
            model.verify()?;
            model.check_what_can_be()?;
            Ok(model.spec.kind)
        };
        let mut state = ModelState::Missing;
        for precision in precisions_of(storage, name, cache)? {
            match checked(precision) {
                Ok(Kind::Measure) => return Ok(ModelState::BuiltIn),
                Ok(_) => state = ModelState::Cached,
                Err(e) if matches!(e.class(), Class::Transient | Class::Stopped) => return Err(e),
                Err(e) => return Ok(ModelState::Broken(e.class(), e.to_string())),
            }
        }
        Ok(state)
    }

    fn words(&self) -> &str {
        match self {
            ModelState::BuiltIn => "built in",
            ModelState::Cached => "yes",
            ModelState::Missing => "-",
            ModelState::Broken(..) => "broken",
        }
    }
}

/// Returns the precisions for which a model has a file; float32 if it has none, so that the error names
/// the file that is missing.
pub(crate) fn precisions_of(
    storage: &Storage,
    name: &str,
    cache: &Location,
) -> Result<Vec<Precision>, Error> {
    let mut found = precisions(storage, name, cache)?;
    if found.is_empty() {
        found.push(Precision::Float32);
    }
    Ok(found)
}

/// Whether the folder of models has a model of that name.
fn is_cached(storage: &Storage, name: &str, cache: &Location) -> Result<bool, Error> {
    let Some(folder) = folder_of(name)? else {
        return Ok(false);
    };
    match storage.open_if_there(cache)? {
        Some(store) => Ok(store.stat(&format!("{folder}/model.onnx"))?.is_some()),
        None => Ok(false),
    }
}

/// Returns the names of the catalogue in its order, then the other names in the folder of models.
fn all_names(storage: &Storage, cache: &Location) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = catalogue().iter().map(|spec| spec.name.clone()).collect();
    let pulled = cached(storage, cache)?.into_iter();
    names.extend(pulled.filter(|name| named(name).is_none()));
    Ok(names)
}

/// Runs a subcommand of `sluice models`.
///
/// # Errors
/// Usage, when a model does not exist or cannot be used; or a storage or network error.
pub fn models(args: &ModelsArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    match &args.command {
        ModelsCommand::List { cache, json } => show::list(&cache.location()?, *json, tool),
        ModelsCommand::Pull { names, from, cache } => {
            if from.is_some() && names.len() > 1 {
                let text = format!("--from: expected one name, got {}", names.len());
                return Err(Error::usage(text).hint("pull them one by one").into());
            }
            let cache = cache.location()?;
            let pull = |name: &String| pull::pull(name, from.as_deref(), &cache, tool);
            names.iter().try_for_each(pull)
        }
        ModelsCommand::Show { name, cache, json } => {
            show::show(name, &cache.location()?, *json, tool)
        }
        ModelsCommand::Check { names, cache, json } => {
            check(names, &cache.location()?, *json, tool)
        }
        ModelsCommand::Quantize {
            name,
            precision,
            output,
            sampling,
            cache,
        } => {
            let (output, cache) = (output.as_deref(), cache.location()?);
            quantize(name, *precision, output, sampling, &cache, tool)
        }
        ModelsCommand::Compare {
            first,
            second,
            precision,
            sampling,
            cache,
        } => {
            let sides = [(first, Precision::Float32), (second, *precision)];
            let sides = sides.map(|(model, precision)| Side { model, precision });
            let changes = compare(sides, sampling, &cache.location()?, tool)?;
            print(Some(&changes), sampling, &[], tool)
        }
        ModelsCommand::Remove { name, cache } => {
            let cache = cache.location()?;
            remove(&tool.shared.storage, &cache, name)?;
            writeln!(tool.out, "{name}: removed from {cache}")?;
            Ok(())
        }
    }
}

/// Writes a model's file of another precision, and compares the two.
fn quantize(
    name: &str,
    precision: Precision,
    output: Option<&str>,
    sampling: &CompareSampling,
    cache: &Location,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let storage = &tool.shared.storage;
    let model = Model::find(storage, name, cache, Precision::Float32)?;
    let kinds: &[Kind] = match precision {
        Precision::Int8 => &[Kind::Embedder],
        _ => &[Kind::Embedder, Kind::Classifier],
    };
    model.require(kinds, "quantize")?;
    let output = output.map(Location::parse).transpose()?;
    let trial = if sampling.input.is_empty() {
        None
    } else {
        Some(Trial::new(sampling, cache, &tool.shared)?)
    };
    let made = model.quantize(storage, precision, output.as_ref(), |ranges| {
        trial
            .as_ref()
            .map_or(Ok(()), |trial| trial.feed(&model, ranges))
    })?;
    let second = format!("{}/", made.folder);
    // Of a model of the catalogue its folder may not state the preprocessing.
    let use_it = output.map_or(name.to_owned(), |_| second.clone());
    let mut facts = vec![
        ("file", format!("{second}{}", made.file)),
        ("products", made.products.to_string()),
        ("bytes", made.bytes.to_string()),
    ];
    if !made.too_large.is_empty() {
        let names = shorten(&made.too_large.join(", "), 200);
        let count = made.too_large.len();
        let text = format!("{count} tensors that are too large for {precision}: {names}");
        facts.push(("kept in float32", text));
    }
    facts.push((
        "use it",
        format!("--model {use_it} --precision {precision}"),
    ));
    let Some(trial) = trial else {
        tracing::warn!(
            "nothing was compared; pass --input DATA to measure the differences on your images"
        );
        return print(None, sampling, &facts, tool);
    };
    let sides = [(name, Precision::Float32), (&use_it, precision)];
    let sides = sides.map(|(model, precision)| Side { model, precision });
    let changes = trial.compare_precisions(sides, sampling, tool)?;
    print(Some(&changes), sampling, &facts, tool)
}

/// Prints the differences, after some facts.
fn print(
    changes: Option<&EncoderChanges>,
    sampling: &CompareSampling,
    facts: &[(&str, String)],
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    if sampling.json {
        let mut json = match changes {
            Some(changes) => serde_json::to_value(changes)?,
            None => serde_json::json!({}),
        };
        for (name, fact) in facts {
            json[name.replace(' ', "_")] = fact.as_str().into();
        }
        writeln!(tool.out, "{json}")?;
        return Ok(());
    }
    let facts = facts.iter();
    let facts = facts.map(|(name, fact)| vec![(*name).to_owned(), fact.clone()]);
    let rows: Vec<Vec<String>> = facts
        .chain(changes.into_iter().flat_map(EncoderChanges::lines))
        .collect();
    write!(tool.out, "{}", columns(&rows, &[], ""))?;
    Ok(())
}

fn check(
    names: &[String],
    cache: &Location,
    as_json: bool,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let storage = &tool.shared.storage;
    let names = match names {
        // A catalogue model that is not installed is not an error.
        [] => {
            let mut names = all_names(storage, cache)?;
            let here = cached(storage, cache)?;
            let is_measure =
                |name: &str| named(name).is_some_and(|spec| spec.kind == Kind::Measure);
            names.retain(|name| here.contains(name) || is_measure(name));
            names
        }
        names => names.to_vec(),
    };
    let mut classes = Vec::new();
    let mut rows = Vec::new();
    for name in &names {
        let state = ModelState::verified(storage, name, cache)?;
        let name = masked_word(name);
        let wrong = match &state {
            ModelState::Broken(class, why) => {
                classes.push(*class);
                Some(why.replace('\n', " "))
            }
            _ => None,
        };
        if as_json {
            let line = serde_json::json!({"name": name, "ok": wrong.is_none(), "error": wrong});
            writeln!(tool.out, "{line}")?;
        }
        let said = wrong.map_or("ok".to_owned(), |why| format!("failed: {why}"));
        rows.push(vec![name.into_owned(), said]);
    }
    if !as_json {
        write!(tool.out, "{}", columns(&rows, &[], ""))?;
    }
    if classes.is_empty() {
        return Ok(());
    }
    let said = format!("{} of {} models failed", classes.len(), rows.len());
    if classes.contains(&Class::Data) {
        let hint = "`sluice models pull NAME` replaces a broken model";
        return Err(Error::data(said).hint(hint).into());
    }
    Err(Error::usage(said).into())
}
