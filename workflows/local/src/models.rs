//! `sluice models`: which models there are, which are here, and how others get here.

mod compare;
mod fetch;
mod pull;
mod show;

use anyhow::Result;
use clap::{Args, Subcommand};
use sluice_harness::Desk;
use sluice_manifest::text::masked_word;
use sluice_manifest::{Class, Error};
use sluice_model::{
    Kind, Model, Precision, cached, catalogue, default_cache, folder_of, named, remove,
};
use sluice_store::{Location, Storage};

pub use pull::{missing, pull_missing};

use compare::{Changes, Sampling, Side, compare};

use crate::text::columns;

/// List, pull, show and check models
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// What is done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the catalogue and what was pulled: kinds, dimensions, licences, and which are here
    ///
    /// Example: sluice models list
    List {
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Get a model: download, verify, convert where needed, check
    ///
    /// The Hub's variables apply (HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE), and
    /// what it downloads is in the Hub's own cache.
    ///
    /// Example: sluice models pull clip-vit-l14 laion-nsfw
    Pull {
        /// Names of the catalogue, hf://ORG/NAME[@REVISION][/PATH], or a new name
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Where it is, for one name: hf://…, https://…, s3://…, a folder or an ONNX file
        #[arg(long, value_name = "URI")]
        from: Option<String>,
        #[command(flatten)]
        cache: Cache,
    },
    /// Show what is known of a model: licence, source, dimension, preprocessing, heads
    ///
    /// Example: sluice models show clip-vit-l14
    Show {
        /// A name, a URI or a path
        #[arg(value_name = "MODEL")]
        name: String,
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check models: the spec can be read, and the files are those that the spec names
    ///
    /// Example: sluice models check
    Check {
        /// Names or URIs (default: all that are in the folder of models)
        #[arg(value_name = "MODEL")]
        names: Vec<String>,
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Make the ONNX file of another precision, and say what it changes on your images
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
        #[command(flatten)]
        sampling: Sampling,
        #[command(flatten)]
        cache: Cache,
    },
    /// Say what changes on your images from one encoder to another
    ///
    /// Compares the embeddings, each image's nearest neighbour, duplicates, and what the heads in the
    /// folder of models decide.
    ///
    /// Example: sluice models compare exports/a/ exports/b/ --input data/
    Compare {
        /// The first encoder: a name, a URI or a path
        #[arg(value_name = "MODEL")]
        first: String,
        /// The second encoder
        #[arg(value_name = "MODEL")]
        second: String,
        /// What the second encoder's matrix products are computed in
        #[arg(long, value_enum, default_value_t)]
        precision: Precision,
        #[command(flatten)]
        sampling: Sampling,
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
        #[command(flatten)]
        cache: Cache,
    },
}

/// Where models are kept.
#[derive(Debug, Args)]
pub struct Cache {
    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,
}

impl Cache {
    /// Returns where they are kept.
    pub(crate) fn location(&self) -> Result<Location, Error> {
        Location::parse(&self.models.clone().unwrap_or_else(default_cache))
    }
}

/// Returns the folder of models of programs that are given none: `SLUICE_MODELS`, or the default.
pub fn models_folder() -> String {
    let set = std::env::var("SLUICE_MODELS").ok();
    set.filter(|uri| !uri.is_empty())
        .unwrap_or_else(default_cache)
}

/// Whether a model can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    BuiltIn,
    Cached,
    Missing,
    Broken(Class, String),
}

impl State {
    /// Verifies a model's files.
    fn verified(storage: &Storage, name: &str, cache: &Location) -> Result<Self, Error> {
        let checked = Model::find(storage, name, cache, Precision::Float32).and_then(|model| {
            model.verify()?;
            model.check_what_can_be()?;
            Ok(model)
        });
        match checked {
            Ok(model) if model.spec.kind == Kind::Measure => Ok(State::BuiltIn),
            Ok(_) => Ok(State::Cached),
            Err(e) if matches!(e.class(), Class::Transient | Class::Stopped) => Err(e),
            Err(e) => Ok(State::Broken(e.class(), e.to_string())),
        }
    }

    fn words(&self) -> &str {
        match self {
            State::BuiltIn => "built in",
            State::Cached => "yes",
            State::Missing => "-",
            State::Broken(..) => "broken",
        }
    }
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

/// The names of the catalogue in its order, then of what was pulled besides.
fn all_names(storage: &Storage, cache: &Location) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = catalogue().iter().map(|spec| spec.name.clone()).collect();
    let pulled = cached(storage, cache)?.into_iter();
    names.extend(pulled.filter(|name| named(name).is_none()));
    Ok(names)
}

/// Looks after models.
pub fn models(args: &ModelsArgs, desk: &mut Desk<'_>) -> Result<()> {
    match &args.command {
        ModelsCommand::List { cache, json } => show::list(&cache.location()?, *json, desk),
        ModelsCommand::Pull { names, from, cache } => {
            if from.is_some() && names.len() > 1 {
                let text = format!("--from is the place of one model, not of {}", names.len());
                return Err(Error::usage(text).hint("pull them one by one").into());
            }
            let cache = cache.location()?;
            let pull = |name: &String| pull::pull(name, from.as_deref(), &cache, desk);
            names.iter().try_for_each(pull)
        }
        ModelsCommand::Show { name, cache, json } => {
            show::show(name, &cache.location()?, *json, desk)
        }
        ModelsCommand::Check { names, cache, json } => {
            check(names, &cache.location()?, *json, desk)
        }
        ModelsCommand::Quantize {
            name,
            precision,
            output,
            sampling,
            cache,
        } => {
            let (output, cache) = (output.as_deref(), cache.location()?);
            quantize(name, *precision, output, sampling, &cache, desk)
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
            let changes = compare(sides, sampling, &cache.location()?, desk)?;
            print(Some(&changes), sampling, &[], desk)
        }
        ModelsCommand::Remove { name, cache } => {
            let cache = cache.location()?;
            remove(&desk.shared.storage, &cache, name)?;
            writeln!(desk.out, "{name}: removed from {cache}")?;
            Ok(())
        }
    }
}

/// Makes a model's file of another precision and says what that changes.
fn quantize(
    name: &str,
    precision: Precision,
    output: Option<&str>,
    sampling: &Sampling,
    cache: &Location,
    desk: &mut Desk<'_>,
) -> Result<()> {
    let storage = &desk.shared.storage;
    let model = Model::find(storage, name, cache, Precision::Float32)?;
    let kinds: &[Kind] = match precision {
        Precision::Int8 => &[Kind::Embedder],
        _ => &[Kind::Embedder, Kind::Classifier],
    };
    model.require(kinds, "quantize")?;
    let output = output.map(Location::parse).transpose()?;
    let made = model.quantize(storage, precision, output.as_ref())?;
    let second = format!("{}/", made.folder);
    let use_it = output.map_or(name.to_owned(), |_| second.clone());
    let facts = [
        ("file", format!("{second}{}", made.file)),
        ("products", made.products.to_string()),
        ("bytes", made.bytes.to_string()),
        (
            "use it",
            format!("--model {use_it} --precision {precision}"),
        ),
    ];
    if sampling.input.is_empty() {
        tracing::warn!("nothing was compared; --input DATA says what changes on your images");
        return print(None, sampling, &facts, desk);
    }
    let sides = [(name, Precision::Float32), (&second, precision)];
    let sides = sides.map(|(model, precision)| Side { model, precision });
    let changes = compare(sides, sampling, cache, desk)?;
    print(Some(&changes), sampling, &facts, desk)
}

/// Prints what changes, and facts before it.
fn print(
    changes: Option<&Changes>,
    sampling: &Sampling,
    facts: &[(&str, String)],
    desk: &mut Desk<'_>,
) -> Result<()> {
    if sampling.json {
        let mut json = match changes {
            Some(changes) => serde_json::to_value(changes)?,
            None => serde_json::json!({}),
        };
        for (name, fact) in facts {
            json[name.replace(' ', "_")] = fact.as_str().into();
        }
        writeln!(desk.out, "{json}")?;
        return Ok(());
    }
    let facts = facts.iter();
    let facts = facts.map(|(name, fact)| vec![(*name).to_owned(), fact.clone()]);
    let rows: Vec<Vec<String>> = facts
        .chain(changes.into_iter().flat_map(Changes::lines))
        .collect();
    write!(desk.out, "{}", columns(&rows, &[], ""))?;
    Ok(())
}

fn check(names: &[String], cache: &Location, as_json: bool, desk: &mut Desk<'_>) -> Result<()> {
    let storage = &desk.shared.storage;
    let names = match names {
        // Of the catalogue, what is not here is nothing to complain about.
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
        let state = State::verified(storage, name, cache)?;
        let name = masked_word(name);
        let wrong = match &state {
            State::Broken(class, why) => {
                classes.push(*class);
                Some(why.replace('\n', " "))
            }
            _ => None,
        };
        if as_json {
            let line = serde_json::json!({"name": name, "ok": wrong.is_none(), "error": wrong});
            writeln!(desk.out, "{line}")?;
        }
        let said = wrong.map_or("ok".to_owned(), |why| format!("failed: {why}"));
        rows.push(vec![name.into_owned(), said]);
    }
    if !as_json {
        write!(desk.out, "{}", columns(&rows, &[], ""))?;
    }
    if classes.is_empty() {
        return Ok(());
    }
    let said = format!("{} of {} models failed", classes.len(), rows.len());
    if classes.contains(&Class::Data) {
        let hint = "`sluice models pull NAME` gets a broken one again";
        return Err(Error::data(said).hint(hint).into());
    }
    Err(Error::usage(said).into())
}
