//! Resolves a user's text to an image: its id, its key, its file name, a part of its id, or the
//! path or key of a sample in the curated dataset.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sluice_manifest::layout::IMAGES;
use sluice_manifest::rows::{CuratedRow, Row, SampleRow};
use sluice_manifest::text::one_line;
use sluice_manifest::{Error, ImageId, Result, StepName, Unit};
use sluice_store::Location;

use super::lookup::Lookup;
use crate::places::NearestNames;

/// The number of images in an error message.
const NAMED: usize = 8;

/// The columns of `read/images` that identify an image.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    image_id: ImageId,
    key: String,
}

impl Row for KeyRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        let mut fields = SampleRow::fields();
        fields.retain(|field| ["image_id", "key"].contains(&field.name().as_str()));
        fields
    }
}

/// The columns that identify a sample in the Parquet file of an output shard.
#[derive(Debug, Serialize, Deserialize)]
struct CuratedKey {
    image_id: ImageId,
    key: String,
}

impl Row for CuratedKey {
    const SCHEMA: &'static str = CuratedRow::SCHEMA;
    const VERSION: u32 = CuratedRow::VERSION;
    fn fields() -> Vec<Field> {
        let mut fields = CuratedRow::fields();
        fields.truncate(2);
        fields
    }
}

/// The images that match a text in one way.
#[derive(Default)]
struct Matches {
    found: Vec<ImageId>,
    count: u64,
}

impl Matches {
    fn add(&mut self, id: &ImageId) {
        self.count += 1;
        if self.found.len() < NAMED {
            self.found.push(id.clone());
        }
    }
}

impl Lookup<'_> {
    /// Returns the image that a text refers to. Ids take precedence, then samples of the curated
    /// dataset, then keys and file names, then parts of ids.
    ///
    /// # Errors
    /// Usage, when there is no such image or the text matches several. The hint lists them, or
    /// similar ones.
    pub fn resolve(&self, text: &str) -> Result<ImageId> {
        let unknown = match self.locate(text) {
            Ok((shard, sample)) => {
                return Ok(match sample {
                    Some(sample) => sample.image_id,
                    None => super::facts::id_of(shard, text),
                });
            }
            Err(e) => e,
        };
        if let Some(id) = self.in_output(text)? {
            return Ok(id);
        }
        let (mut keys, mut parts) = (Matches::default(), Matches::default());
        let names = names(text);
        let mut nearest = NearestNames::new(text, 3);
        self.each_key(|row| {
            let id = row.image_id.as_str();
            if names.iter().any(|name| *name == row.key || *name == id) {
                keys.add(&row.image_id);
            } else if names.iter().any(|name| id.contains(name)) {
                parts.add(&row.image_id);
            } else if keys.count + parts.count == 0 {
                nearest.offer_as(&row.key, id);
            }
        })?;
        for matches in [keys, parts] {
            match (matches.count, matches.found.as_slice()) {
                (0, _) => {}
                (1, [only]) => return Ok(only.clone()),
                (count, found) => return Err(several(text, count, found)),
            }
        }
        if text.contains('/') {
            Err(unknown)
        } else {
            Err(similar(text, &nearest.names()))
        }
    }

    fn each_key(&self, mut each: impl FnMut(&KeyRow)) -> Result<()> {
        let read = StepName::read();
        for receipt in self.receipts.of(&read) {
            self.recorded.check_stop()?;
            let path = |step: &StepName, unit| IMAGES.path(step, unit);
            let rows = self.rows::<KeyRow>(&read, receipt.unit, path)?;
            for row in rows.into_iter().flatten() {
                each(&row?);
            }
        }
        Ok(())
    }

    /// Returns the image of a sample of the curated dataset, given as `OUT/shard-00003.tar/KEY` or
    /// by its key.
    fn in_output(&self, text: &str) -> Result<Option<ImageId>> {
        let places = [".tar/", ".tar#", ".parquet/", ".parquet#"];
        let Some((place, key)) = places.iter().find_map(|end| text.split_once(end)) else {
            return Ok(None);
        };
        let name = place.rsplit('/').next().unwrap_or(place);
        let Ok(unit) = name.parse::<Unit>() else {
            return Ok(None);
        };
        let receipt = self
            .export
            .and_then(|export| self.receipts.unit(export, unit));
        let mut outputs = receipt.into_iter().flat_map(|receipt| &receipt.outputs);
        let table = format!("{name}.parquet");
        let Some(output) = outputs.find(|output| output.path.as_str().ends_with(&table)) else {
            return Ok(None);
        };
        let Some((folder, file)) = Location::parse(output.path.as_str())?.split() else {
            return Ok(None);
        };
        let names = names(key);
        for row in self
            .recorded
            .storage
            .open(&folder)?
            .rows::<CuratedKey>(&file)?
        {
            let row = row?;
            if names.contains(&row.key.as_str()) {
                return Ok(Some(row.image_id));
            }
        }
        Ok(None)
    }
}

/// Returns the names that a text may refer to: the text, without its extension, and the last part
/// of the path.
fn names(text: &str) -> Vec<&str> {
    let mut names = vec![text];
    let stem = |text| -> Option<&str> {
        let (stem, extension) = str::rsplit_once(text, '.')?;
        let is_short = (1..=5).contains(&extension.len()) && !extension.contains('/');
        (is_short && !stem.is_empty()).then_some(stem)
    };
    names.extend(stem(text));
    let file = text
        .rsplit('/')
        .next()
        .filter(|file| !file.is_empty() && *file != text);
    if let Some(file) = file.filter(|_| text.starts_with(['/', '.', '~']) || text.contains("://")) {
        names.push(file);
        names.extend(stem(file));
    }
    names
}

fn several(text: &str, count: u64, found: &[ImageId]) -> Error {
    let names: Vec<_> = found.iter().map(|id| one_line(id.as_str())).collect();
    let more = if count > found.len() as u64 {
        ", …"
    } else {
        ""
    };
    Error::usage(format!("{text}: matches {count} images of this run"))
        .hint(format!("name one: {}{more}", names.join(", ")))
}

fn similar(text: &str, names: &[String]) -> Error {
    let error = Error::usage(format!("{text}: no such image in this run"));
    let names: Vec<_> = names.iter().map(|name| one_line(name)).collect();
    if names.is_empty() {
        error
    } else {
        error.hint(format!("similar ones are {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn texts_name_images_in_several_ways() {
        assert_eq!(names("0001"), ["0001"]);
        assert_eq!(names("0001.jpg"), ["0001.jpg", "0001"]);
        assert_eq!(names("a/b.c/1"), ["a/b.c/1"]);
        assert_eq!(
            names("/tmp/x/7.png"),
            ["/tmp/x/7.png", "/tmp/x/7", "7.png", "7"]
        );
    }
}
