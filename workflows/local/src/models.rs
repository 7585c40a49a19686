//! `sluice models`: which models there are, and whether they are here.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use sluice_harness::Desk;
use sluice_manifest::{Class, Error};
use sluice_model::{Kind, Model, Precision, catalogue, default_cache, pull};
use sluice_store::{Location, Storage};

use crate::text::{columns, shorten};

/// List, pull and check models
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// What is done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the catalogue: kinds, licences, and which models are cached
    ///
    /// Example: sluice models list
    List {
        #[command(flatten)]
        cache: Cache,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Put a model into the cache
    ///
    /// Example: sluice models pull clip-vit-l14 --from exports/clip-vit-large-patch14/
    Pull {
        /// The model's name, of the catalogue or a new one
        #[arg(value_name = "NAME")]
        name: String,
        /// A folder with model.onnx and its spec, or an ONNX file
        #[arg(long, value_name = "URI")]
        from: String,
        #[command(flatten)]
        cache: Cache,
    },
    /// Check models: the spec reads, and the file is the one that the spec names
    ///
    /// Example: sluice models check
    Check {
        /// Names or URIs (default: all of the catalogue that are cached)
        #[arg(value_name = "MODEL")]
        names: Vec<String>,
        #[command(flatten)]
        cache: Cache,
    },
}

/// Where models are cached.
#[derive(Debug, Args)]
pub struct Cache {
    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,
}

impl Cache {
    fn location(&self) -> Result<Location, Error> {
        Location::parse(&self.models.clone().unwrap_or_else(default_cache))
    }
}

/// Whether a model can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    BuiltIn,
    Cached,
    Missing,
    Broken(String),
}

impl State {
    fn of(storage: &Storage, name: &str, cache: &Location) -> Result<Self, Error> {
        match verified(storage, name, cache) {
            Ok(model) if model.spec.kind == Kind::Measure => Ok(State::BuiltIn),
            Ok(_) => Ok(State::Cached),
            Err(e) if is_passing(&e) => Err(e),
            Err(e) if !is_cached(storage, name, cache)? => {
                drop(e);
                Ok(State::Missing)
            }
            Err(e) => Ok(State::Broken(e.to_string())),
        }
    }

    fn words(&self) -> &str {
        match self {
            State::BuiltIn => "built in",
            State::Cached => "cached",
            State::Missing => "-",
            State::Broken(_) => "broken",
        }
    }
}

/// Whether an error says nothing about the model.
fn is_passing(e: &Error) -> bool {
    matches!(e.class(), Class::Transient | Class::Stopped)
}

fn verified(storage: &Storage, name: &str, cache: &Location) -> Result<Model, Error> {
    let model = Model::find(storage, name, cache, Precision::Float32)?;
    model.verify()?;
    Ok(model)
}

fn is_cached(storage: &Storage, name: &str, cache: &Location) -> Result<bool, Error> {
    let folder = Location::parse(&format!("{cache}/{name}"))?;
    match storage.open_if_there(&folder)? {
        Some(store) => Ok(store.stat("model.onnx")?.is_some()),
        None => Ok(false),
    }
}

/// Looks after models.
pub fn models(args: &ModelsArgs, desk: &mut Desk<'_>) -> Result<()> {
    match &args.command {
        ModelsCommand::List { cache, json } => list(&cache.location()?, *json, desk),
        ModelsCommand::Pull { name, from, cache } => {
            let cache = cache.location()?;
            let spec = pull(&desk.shared.storage, &cache, name, &Location::parse(from)?)?;
            let hash = spec.sha256.unwrap_or_default();
            writeln!(desk.out, "{name}: {cache}/{name}, SHA-256 {hash}")?;
            Ok(())
        }
        ModelsCommand::Check { names, cache } => check(names, &cache.location()?, desk),
    }
}

fn list(cache: &Location, as_json: bool, desk: &mut Desk<'_>) -> Result<()> {
    let head = ["name", "kind", "here", "licence", "from"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for spec in catalogue() {
        let state = match spec.kind {
            Kind::Measure => State::BuiltIn,
            // Hashing a gigabyte is for `check`.
            _ if is_cached(&desk.shared.storage, &spec.name, cache)? => State::Cached,
            _ => State::Missing,
        };
        if as_json {
            let line = json!({
                "name": spec.name,
                "kind": spec.kind.as_str(),
                "here": state != State::Missing,
                "licence": spec.licence,
                "origin": spec.origin,
                "embedder": spec.embedder,
                "sha256": spec.sha256,
            });
            writeln!(desk.out, "{line}")?;
            continue;
        }
        let kind = match &spec.embedder {
            Some(embedder) => format!("{} of {embedder}", spec.kind.as_str()),
            None => spec.kind.as_str().to_owned(),
        };
        rows.push(vec![
            spec.name.clone(),
            kind,
            state.words().to_owned(),
            spec.licence.clone(),
            shorten(&spec.origin, 72),
        ]);
    }
    if !as_json {
        write!(desk.out, "{}", columns(&rows, &[], ""))?;
        writeln!(desk.out, "\nthe cache: {cache}")?;
    }
    Ok(())
}

fn check(names: &[String], cache: &Location, desk: &mut Desk<'_>) -> Result<()> {
    let all = names.is_empty();
    let names: Vec<&str> = match all {
        true => catalogue().iter().map(|spec| spec.name.as_str()).collect(),
        false => names.iter().map(String::as_str).collect(),
    };
    let mut bad = 0;
    let mut rows = Vec::new();
    for name in names {
        let state = match all {
            // Of the catalogue, what is not here is nothing to complain about.
            true => State::of(&desk.shared.storage, name, cache)?,
            false => match verified(&desk.shared.storage, name, cache) {
                Ok(_) => State::Cached,
                Err(e) if is_passing(&e) => return Err(e.into()),
                Err(e) => State::Broken(e.to_string()),
            },
        };
        let said = match state {
            State::Missing => continue,
            State::Broken(why) => {
                bad += 1;
                format!("failed: {}", why.replace('\n', " "))
            }
            State::BuiltIn | State::Cached => "ok".to_owned(),
        };
        rows.push(vec![name.to_owned(), said]);
    }
    write!(desk.out, "{}", columns(&rows, &[], ""))?;
    if bad > 0 {
        let hint = "`sluice models pull NAME --from URI` puts a sound one there";
        return Err(
            Error::data(format!("{bad} of {} models failed", rows.len()))
                .hint(hint)
                .into(),
        );
    }
    Ok(())
}
