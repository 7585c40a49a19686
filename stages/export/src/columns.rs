//! Descriptions of the columns in the output's Parquet files, for the dataset card.

use crate::curated::EMBEDDING;

/// The columns and their descriptions, in the files' order. The scores follow.
pub const COLUMNS: &[(&str, &str)] = &[
    (
        "image_id",
        "name of the sample in the source: shard, `/`, key",
    ),
    ("key", "its key in the shard with the same number"),
    ("source_shard", "the shard it was copied from"),
    ("source_key", "its key there"),
    ("caption", "text of its caption member, where it has one"),
    ("metadata", "text of its `.json` member, where it has one"),
    ("format", "image format, detected from the content"),
    ("width", "width of the upright image, in pixels"),
    ("height", "height of the upright image, in pixels"),
    ("bytes", "size of the image member"),
    ("sha256", "SHA-256 of the image member, hexadecimal"),
    ("phash", "64-bit perceptual hash"),
    (
        "group_id",
        "number of its group of duplicates; of a group one image stays",
    ),
    ("group_size", "images of the group; 1: it has no duplicates"),
];

/// The first column of files with images.
pub const IMAGE_COLUMN: (&str, &str) = (
    "image",
    "the image member: its bytes, and its name as `path`",
);

/// The last column of files with embeddings.
pub const EMBEDDING_COLUMN: (&str, &str) = (
    EMBEDDING,
    "embedding of length 1; the file's metadata name the model",
);

#[cfg(test)]
mod tests {
    use sluice_manifest::rows::{CuratedRow, Row};

    use super::*;

    #[test]
    fn every_column_is_explained() {
        let explained: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let fields = CuratedRow::fields();
        let columns: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(explained, columns);
    }
}
