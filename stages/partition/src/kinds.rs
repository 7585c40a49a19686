//! Classifies files by name.

use std::collections::HashSet;

use sluice_shard::IMAGE_EXTENSIONS;
use sluice_store::ObjectInfo;
use sluice_table::TableFormat;

/// File name endings of shards.
const SHARD_ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
/// Extensions of captions and metadata of an image.
const TEXT_EXTENSIONS: [&str; 3] = ["txt", "caption", "json"];
/// The name, without extension, of a table that describes the images in a folder.
const METADATA: &str = "metadata";

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A shard.
    Tar,
    /// An image.
    Image,
    /// A Parquet file: images, or a list of them.
    Parquet,
    /// The caption or metadata of an image. A list, if a pattern names it.
    Text,
    /// A list, if a pattern names it.
    Table,
    /// `metadata.jsonl`, `metadata.csv` or `metadata.parquet`: describes the images below its
    /// folder.
    Metadata,
    /// Anything else.
    Other,
}

impl FileKind {
    /// Returns the kind of a file.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        if SHARD_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Self::Tar;
        }
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let is = |known: &&str| known.eq_ignore_ascii_case(extension);
        if IMAGE_EXTENSIONS.iter().any(is) {
            return Self::Image;
        }
        match TableFormat::of(name) {
            Some(TableFormat::Csv | TableFormat::JsonLines | TableFormat::Parquet)
                if stem == METADATA =>
            {
                Self::Metadata
            }
            Some(TableFormat::Parquet) => Self::Parquet,
            _ if TEXT_EXTENSIONS.iter().any(is) => Self::Text,
            Some(_) => Self::Table,
            None => Self::Other,
        }
    }

    /// Returns whether a file that a pattern names can be a list.
    pub fn is_table(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Table | Self::Metadata | Self::Parquet
        )
    }
}

/// Returns the path without its last extension.
pub fn key_of(path: &str) -> &str {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name..].rfind('.') {
        Some(dot) if dot > 0 => &path[..name + dot],
        _ => path,
    }
}

/// Returns the extension, without its dot.
pub fn extension_of(path: &str) -> &str {
    path[key_of(path).len()..].trim_start_matches('.')
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the captions and metadata of images, which a pattern for images does not match.
pub fn texts_of(images: &[ObjectInfo], others: Vec<ObjectInfo>) -> Vec<ObjectInfo> {
    let images = images.iter().map(|object| object.path.as_str());
    let images: Vec<&str> = images
        .filter(|path| FileKind::of(path) == FileKind::Image)
        .collect();
    let keys: HashSet<&str> = images
        .iter()
        .flat_map(|path| [key_of(path), *path])
        .collect();
    let folders: HashSet<&str> = images.iter().map(|path| folder_of(path)).collect();
    let mut texts = others;
    texts.retain(|object| match FileKind::of(&object.path) {
        FileKind::Text => keys.contains(key_of(&object.path)),
        FileKind::Metadata => folders.contains(folder_of(&object.path)),
        _ => false,
    });
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_kinds() {
        for (path, kind) in [
            ("a.tar", FileKind::Tar),
            ("a.b.tgz", FileKind::Tar),
            ("x/a.JPG", FileKind::Image),
            ("a.mpo", FileKind::Image),
            ("a.jfif", FileKind::Image),
            ("a.parquet", FileKind::Parquet),
            ("x/metadata.jsonl", FileKind::Metadata),
            ("metadata.parquet", FileKind::Metadata),
            ("metadata.json", FileKind::Text),
            ("a.caption", FileKind::Text),
            ("a.csv", FileKind::Table),
            ("jpg", FileKind::Other),
            ("a.pdf", FileKind::Other),
            ("x.jpg/readme", FileKind::Other),
        ] {
            assert_eq!(FileKind::of(path), kind, "{path}");
        }
    }

    #[test]
    fn keys_end_at_the_last_dot() {
        for (path, key, extension) in [
            (
                "a/Screenshot 2024.01.01.jpg",
                "a/Screenshot 2024.01.01",
                "jpg",
            ),
            ("a.b/c", "a.b/c", ""),
            (".jpg", ".jpg", ""),
            ("a/b.JPG", "a/b", "JPG"),
        ] {
            assert_eq!((key_of(path), extension_of(path)), (key, extension));
        }
    }
}
