//! From the files of a model to a model in the folder of models.
//!
//! The model is put together in a folder of local disk and checked there: the ONNX file is whole, its
//! output is as wide as it must be, and ONNX Runtime, where it is found, computes one input. Then its files
//! are copied: external data, `model.onnx`, and last `model.toml` with their SHA-256. A reader that
//! comes in between finds no model, or one whose SHA-256 is wrong.

use std::os::unix::fs::symlink;

use sluice_manifest::{Class, Error, Result};
use sluice_store::{Location, Storage, Store};

use crate::cache::folder_of;
use crate::catalogue::named;
use crate::choose::Choice;
use crate::convert::{Conversion, Credit, convert};
use crate::layout::{DESCRIPTIONS, MADE, ONNX, SPEC, onnx_file};
use crate::model::Model;
use crate::precision::Precision;
use crate::source::PublishedFile;
use crate::spec::{Kind, Spec};
use crate::weights::{data_names, sha256_of};

/// The files of a model, at hand.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// What it will be called.
    pub name: String,
    /// Where its files are.
    pub folder: Location,
    /// The published file: ONNX, or what is converted.
    pub file: String,
    /// Where that came from, for the record.
    pub source: PublishedFile,
    /// The licence that its publisher states.
    pub licence: Option<String>,
    /// Whether it is the file that the catalogue names, for which the catalogue's spec is made.
    pub is_catalogued: bool,
}

/// A model that was put into the folder of models.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Its spec, as its `model.toml` has it.
    pub spec: Spec,
    /// The numbers that ONNX Runtime computed for one input; none where it was not found.
    pub computed: Option<usize>,
}

/// Puts a model together in the empty folder `staging` of local disk, checks it, and copies it into
/// the folder of models.
///
/// # Errors
/// Usage, when there is no spec, or the kind or size of the model is not that of its name; data, when a file is damaged; of
/// storage.
pub fn install(
    storage: &Storage,
    cache: &Location,
    candidate: &ModelFiles,
    staging: &Location,
) -> Result<Installed> {
    let work = Work {
        storage,
        candidate,
        staging: storage.create(staging)?,
    };
    work.gather()?;
    let mut spec = work.spec()?;
    for precision in Precision::ALL {
        let is_there = work.staging.stat(onnx_file(precision))?.is_some();
        let sha256 = is_there.then(|| sha256_of(&work.staging, precision));
        *spec.sha256_mut(precision) = sha256.transpose()?;
    }
    work.put(&spec)?;
    let computed = work.check(&mut spec)?;
    work.put(&spec)?;
    work.copy(cache)?;
    Ok(Installed { spec, computed })
}

struct Work<'a> {
    storage: &'a Storage,
    candidate: &'a ModelFiles,
    staging: Store,
}

impl Work<'_> {
    /// Returns the model's spec: the catalogue's for its own file, else the one that the files give, else
    /// the catalogue's.
    fn spec(&self) -> Result<Spec> {
        let ModelFiles { name, source, .. } = self.candidate;
        let known = named(name).cloned();
        let is_known = self.candidate.is_catalogued || self.is_published();
        let given = if is_known {
            None
        } else {
            self.given_spec(known.is_some())?
        };
        let mut spec = given
            .or_else(|| known.clone())
            .ok_or_else(|| self.no_spec())?;
        if let Some(known) = &known {
            let (kind, expected) = (spec.kind.as_str(), known.kind.as_str());
            if kind != expected {
                return Err(Error::usage(format!(
                    "{}: a model of kind {kind:?}, but {name} is of kind {expected:?}",
                    source.from
                )));
            }
            spec.dimension = spec.dimension.or(known.dimension);
            self.check_dimension(&spec, known)?;
        }
        spec.name.clone_from(name);
        spec.source = Some(source.clone());
        if let Some(licence) = self
            .candidate
            .licence
            .as_ref()
            .filter(|_| spec.licence.is_empty())
        {
            spec.licence.clone_from(licence);
        }
        Ok(spec)
    }

    /// Fails when an embedder gives another number of values than the catalogue's of its name.
    fn check_dimension(&self, spec: &Spec, known: &Spec) -> Result<()> {
        let (Some(found), Some(expected)) = (spec.dimension, known.dimension) else {
            return Ok(());
        };
        if found == expected {
            return Ok(());
        }
        let ModelFiles { name, source, .. } = self.candidate;
        Err(Error::usage(format!(
            "{}: {name} gives embeddings of {found} values, expected {expected}",
            source.from
        ))
        .hint("CLIP is exported with its projection (CLIPVisionModelWithProjection), output image_embeds"))
    }

    /// Whether the file is one that the catalogue's conversion is for, and which nothing describes.
    fn is_published(&self) -> bool {
        let conversion = self.candidate.source.convert;
        conversion.is_some_and(|conversion| conversion != Conversion::VisionTransformer)
    }

    /// Returns the spec that the files give, as `--model` of their folder would take it. `config.json`
    /// alone may say too little: then there is none, if the catalogue has one.
    fn given_spec(&self, is_known: bool) -> Result<Option<Spec>> {
        let mut tells = false;
        for name in DESCRIPTIONS
            .into_iter()
            .filter(|name| *name != "config.json")
        {
            tells |= self.staging.stat(name)?.is_some();
        }
        match self.find().map_err(|e| self.unstaged(&e)) {
            Ok(model) => {
                model.verify()?;
                Ok(Some(model.spec))
            }
            Err(e) if tells || matches!(e.class(), Class::Transient | Class::Stopped) => Err(e),
            Err(_) if is_known => Ok(None),
            Err(_) => Err(self.no_spec()),
        }
    }

    fn no_spec(&self) -> Error {
        let ModelFiles { name, source, .. } = self.candidate;
        Error::usage(format!(
            "{}: nothing states the preprocessing: neither model.toml nor preprocessor_config.json",
            source.from
        ))
        .hint(format!(
            "and {name:?} is no model of the catalogue; `sluice models list` names those"
        ))
    }

    /// Names the source in the place of the staging folder, which means nothing to anybody.
    fn unstaged(&self, e: &Error) -> Error {
        let staged = self.staging.location().to_string();
        Error::new(
            e.class(),
            e.to_string().replace(&staged, &self.candidate.source.from),
        )
    }

    fn find(&self) -> Result<Model> {
        let staged = self.staging.location();
        Model::find(
            self.storage,
            &format!("{staged}/"),
            staged,
            Precision::Float32,
        )
    }

    /// Puts the ONNX files, their external data and what describes them into the staging folder.
    fn gather(&self) -> Result<()> {
        let ModelFiles {
            folder,
            file,
            source,
            ..
        } = self.candidate;
        let (inner, onnx) = file.rsplit_once('/').unwrap_or(("", file));
        let root = self.storage.open(folder)?;
        if !self.candidate.is_catalogued && !self.is_published() {
            self.describe(&root)?;
        }
        if let Some(conversion) = source.convert {
            return self.convert(conversion, &root.get(file)?);
        }
        let store = if inner.is_empty() {
            root.clone()
        } else {
            self.storage
                .open(&Location::parse(&format!("{folder}/{inner}"))?)?
        };
        self.gather_one(&store, onnx, ONNX)?;
        for made in MADE {
            if onnx == ONNX && store.stat(made)?.is_some() {
                self.gather_one(&store, made, made)?;
            }
        }
        Ok(())
    }

    /// Puts the files that describe the model into the staging folder: of each name the nearest.
    fn describe(&self, root: &Store) -> Result<()> {
        for path in Choice::around(&self.candidate.file).specs {
            let name = path.rsplit('/').next().unwrap_or(&path);
            if self.staging.stat(name)?.is_none()
                && let Some(content) = root.get_if_there(&path)?
            {
                self.staging.put(name, content)?;
            }
        }
        Ok(())
    }

    fn convert(&self, conversion: Conversion, content: &[u8]) -> Result<()> {
        let ModelFiles { name, source, .. } = self.candidate;
        let known = named(name);
        let licence = known.map_or("", |spec| spec.licence.as_str());
        let credit = Credit {
            name,
            licence: source.notice.as_deref().unwrap_or(licence),
            origin: known.map_or(&source.from, |spec| &spec.origin),
        };
        let config = self
            .staging
            .get_if_there("config.json")?
            .unwrap_or_default();
        self.staging
            .put(ONNX, convert(conversion, content, &config, &credit)?)
    }

    fn gather_one(&self, store: &Store, onnx: &str, name: &str) -> Result<()> {
        for data in data_names(store, onnx)? {
            let is_ours = [ONNX, SPEC].iter().chain(&MADE).any(|ours| data == *ours);
            if data == name || is_ours {
                return Err(Error::usage(format!(
                    "{}: has weights in {data:?}, a name that the model's own files have",
                    store.uri(onnx)
                )));
            }
            self.take(store, &data, &data)?;
        }
        self.take(store, onnx, name)
    }

    /// Links a file of local disk, copies any other.
    fn take(&self, store: &Store, file: &str, name: &str) -> Result<()> {
        let missing = || Error::data(format!("{}: no such file", store.uri(file)));
        store.stat(file)?.ok_or_else(missing)?;
        if self.staging.stat(name)?.is_some() {
            return Ok(()); // data that both precisions share
        }
        let staging = self.staging.location();
        let (Some(from), Some(to)) = (store.location().as_local(), staging.as_local()) else {
            return store.copy_to(file, &self.staging, name);
        };
        let (from, to) = (from.join(file), to.join(name));
        let made = to.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| symlink(from, &to))
            .map_err(|e| Error::of_io(e, &self.staging.uri(name)))
    }

    fn put(&self, spec: &Spec) -> Result<()> {
        self.staging.put(SPEC, spec.text()?)
    }

    /// Checks the model as its users do, and fills in the dimension of an embedder.
    fn check(&self, spec: &mut Spec) -> Result<Option<usize>> {
        let model = self.find().map_err(|e| self.unstaged(&e))?;
        let computed = model.check_what_can_be().map_err(|e| self.unstaged(&e))?;
        if spec.kind == Kind::Embedder {
            spec.dimension = spec.dimension.or(model.spec.dimension).or(computed);
        }
        Ok(computed)
    }

    /// Copies what is staged, `model.onnx` and `model.toml` last.
    fn copy(&self, cache: &Location) -> Result<()> {
        let name = &self.candidate.name;
        let wrong = || Error::usage(format!("{name:?}: a name has no slash"));
        let folder = folder_of(name)?.ok_or_else(wrong)?;
        let target = self.storage.create(cache)?;
        let mut files: Vec<String> = self.staged()?;
        files.sort_by_key(|file| match file.as_str() {
            SPEC => 2,
            ONNX => 1,
            made if MADE.contains(&made) => 1,
            _ => 0,
        });
        // Files of other precisions that were made of an earlier `model.onnx` would run its weights.
        for made in MADE {
            if !files.iter().any(|file| file == made) {
                target.delete(&format!("{folder}/{made}"))?;
            }
        }
        for file in files {
            self.staging
                .copy_to(&file, &target, &format!("{folder}/{file}"))?;
        }
        target.tidy();
        Ok(())
    }

    fn staged(&self) -> Result<Vec<String>> {
        let mut files = vec![ONNX.to_owned(), SPEC.to_owned()];
        files.extend(data_names(&self.staging, ONNX)?);
        for made in MADE {
            if self.staging.stat(made)?.is_some() {
                files.push(made.to_owned());
                files.extend(data_names(&self.staging, made)?);
            }
        }
        files.sort();
        files.dedup();
        Ok(files)
    }
}
