//! The field of an image that a table is matched by.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use sluice_manifest::rows::SampleRow;
use sluice_manifest::{Error, Result};

/// A field that identifies images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyField {
    /// `image_id`: unique in a run.
    ImageId,
    /// `key`: the WebDataset key, which several shards may share.
    Key,
    /// `sha256`: of the image's bytes, hexadecimal.
    Sha256,
    /// `metadata.<path>`: text or an integer in the sample's JSON member. Dots separate the names of
    /// nested objects.
    Metadata(String),
}

impl KeyField {
    /// Returns the column of a table that is matched by default: the field's last name.
    pub fn column(&self) -> &str {
        match self {
            Self::ImageId => "image_id",
            Self::Key => "key",
            Self::Sha256 => "sha256",
            Self::Metadata(path) => path.rsplit('.').next().unwrap_or(path),
        }
    }

    /// Returns a sample's value, or None where it has none.
    pub fn value<'a>(&self, sample: &'a SampleRow) -> Option<Cow<'a, str>> {
        match self {
            Self::ImageId => Some(sample.image_id.as_str().into()),
            Self::Key => Some(sample.key.as_str().into()),
            Self::Sha256 => Some(sample.sha256.as_deref()?.into()),
            Self::Metadata(path) => {
                let metadata: Value = serde_json::from_str(sample.metadata.as_deref()?).ok()?;
                match path
                    .split('.')
                    .try_fold(&metadata, |value, name| value.get(name))?
                {
                    Value::String(text) => Some(text.clone().into()),
                    Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
                    _ => None,
                }
            }
        }
    }
}

impl fmt::Display for KeyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(path) => write!(f, "metadata.{path}"),
            field => f.write_str(field.column()),
        }
    }
}

impl FromStr for KeyField {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = text.strip_prefix("metadata.");
        match (text, path) {
            ("image_id", _) => Ok(Self::ImageId),
            ("key", _) => Ok(Self::Key),
            ("sha256", _) => Ok(Self::Sha256),
            (_, Some(path)) if path.split('.').all(|name| !name.is_empty()) => {
                Ok(Self::Metadata(path.to_owned()))
            }
            _ => Err(Error::usage(format!(
                "expected image_id, key, sha256 or metadata.<path>, got {text:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::rows::Status;
    use sluice_manifest::{ImageId, ShardPath};

    use super::*;

    fn sample(metadata: Option<&str>) -> SampleRow {
        SampleRow {
            image_id: ImageId::from_text("a/7"),
            shard: ShardPath::new("a.tar"),
            key: "7".into(),
            members: Vec::new(),
            image_extension: None,
            format: None,
            width: None,
            height: None,
            orientation: None,
            bytes: 0,
            sha256: Some("ab12".into()),
            phash: None,
            phash_transformed: None,
            md5: None,
            pdq: None,
            dark: None,
            light: None,
            blurry: None,
            low_information: None,
            odd_aspect: None,
            odd_size: None,
            caption: None,
            metadata: metadata.map(str::to_owned),
            status: Status::Ok,
            reason: None,
            detail: None,
        }
    }

    #[test]
    fn fields_parse_and_print() {
        for text in ["image_id", "key", "sha256", "metadata.url", "metadata.a.b"] {
            assert_eq!(text.parse::<KeyField>().unwrap().to_string(), text);
        }
        assert_eq!("metadata.a.b".parse::<KeyField>().unwrap().column(), "b");
        for wrong in ["", "url", "metadata", "metadata.", "metadata.a..b", "width"] {
            let error = wrong.parse::<KeyField>().unwrap_err().to_string();
            assert!(error.contains("metadata.<path>"), "{error}");
        }
    }

    #[test]
    fn values_come_from_columns_and_metadata() {
        let json =
            r#"{"url": "http://x/é", "id": 12, "score": 1.5, "flag": true, "nested": {"id": "n"}}"#;
        let sample = sample(Some(json));
        let value = |field: &str| {
            let field: KeyField = field.parse().unwrap();
            field.value(&sample).map(Cow::into_owned)
        };
        assert_eq!(value("image_id").as_deref(), Some("a/7"));
        assert_eq!(value("key").as_deref(), Some("7"));
        assert_eq!(value("sha256").as_deref(), Some("ab12"));
        assert_eq!(value("metadata.url").as_deref(), Some("http://x/é"));
        assert_eq!(value("metadata.id").as_deref(), Some("12"));
        assert_eq!(value("metadata.nested.id").as_deref(), Some("n"));
        for none in ["score", "flag", "nested", "nothing", "url.deeper"] {
            assert_eq!(value(&format!("metadata.{none}")), None, "{none}");
        }
    }

    #[test]
    fn missing_and_broken_metadata_have_no_value() {
        let field: KeyField = "metadata.url".parse().unwrap();
        assert_eq!(field.value(&sample(None)), None);
        assert_eq!(field.value(&sample(Some("{"))), None);
    }
}
