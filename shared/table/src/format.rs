//! Formats of tables, detected from file names.

/// The format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// A Parquet file.
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

const ENDINGS: [(&str, TableFormat); 9] = [
    (".parquet", TableFormat::Parquet),
    (".csv", TableFormat::Csv),
    (".tsv", TableFormat::Tsv),
    (".jsonl", TableFormat::JsonLines),
    (".ndjson", TableFormat::JsonLines),
    (".txt", TableFormat::Lines),
    (".text", TableFormat::Lines),
    (".list", TableFormat::Lines),
    (".lst", TableFormat::Lines),
];

impl TableFormat {
    /// Returns the format of a file from its name, or `None` for other files.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let mut endings = ENDINGS.iter();
        let found = endings.find(|(ending, _)| plain.ends_with(ending))?.1;
        (found != TableFormat::Parquet || plain == name).then_some(found)
    }
}

/// Returns whether a file is compressed with gzip, from its name.
pub(crate) fn is_gzipped(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_formats() {
        for (name, format) in [
            ("a/b.Parquet", Some(TableFormat::Parquet)),
            ("a.csv.gz", Some(TableFormat::Csv)),
            ("a.TSV", Some(TableFormat::Tsv)),
            ("metadata.jsonl", Some(TableFormat::JsonLines)),
            ("urls.txt.gz", Some(TableFormat::Lines)),
            ("a.parquet.gz", None),
            ("a.json", None),
            ("csv", None),
        ] {
            assert_eq!(TableFormat::of(name), format, "{name}");
        }
    }
}
