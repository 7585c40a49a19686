//! Formats of tables, by the names of their files.

/// A format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Parquet.
    Parquet,
    /// Fields separated by commas, with a header.
    Csv,
    /// Fields separated by tabs, with a header.
    Tsv,
    /// One JSON object on each line.
    JsonLines,
    /// One value on each line.
    Lines,
}

const ENDINGS: [(&str, Format); 9] = [
    (".parquet", Format::Parquet),
    (".csv", Format::Csv),
    (".tsv", Format::Tsv),
    (".jsonl", Format::JsonLines),
    (".ndjson", Format::JsonLines),
    (".txt", Format::Lines),
    (".text", Format::Lines),
    (".list", Format::Lines),
    (".lst", Format::Lines),
];

impl Format {
    /// Returns the format of a file with this name; none for other files.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let mut endings = ENDINGS.iter();
        let found = endings.find(|(ending, _)| plain.ends_with(ending))?.1;
        (found != Format::Parquet || plain == name).then_some(found)
    }
}

/// Whether a file is compressed with gzip, by its name.
pub(crate) fn is_gzipped(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_formats() {
        for (name, format) in [
            ("a/b.Parquet", Some(Format::Parquet)),
            ("a.csv.gz", Some(Format::Csv)),
            ("a.TSV", Some(Format::Tsv)),
            ("metadata.jsonl", Some(Format::JsonLines)),
            ("urls.txt.gz", Some(Format::Lines)),
            ("a.parquet.gz", None),
            ("a.json", None),
            ("csv", None),
        ] {
            assert_eq!(Format::of(name), format, "{name}");
        }
    }
}
