//! The section about the dataset's composition: sizes, formats, captions, metadata, quality.

use askama::Template;

use crate::data::{AcceptedAndKept, DataFindings, MEASURES, RangeCounts};
use crate::plot;
use sluice_manifest::numbers::{percent, plural, thousands};

/// The number of values shown for a field.
const VALUES: usize = 5;
/// The number of repeated captions shown.
const CAPTIONS: usize = 8;
/// The number of formats shown.
const FORMATS: usize = 8;

/// The section about the dataset's composition.
#[derive(Debug, Template)]
#[template(path = "data.html")]
pub(crate) struct DataSection {
    /// Whether there are any samples.
    has_samples: bool,
    plots: Vec<Plot>,
    captions: Vec<[String; 2]>,
    repeated: Vec<[String; 2]>,
    metadata: String,
    fields: Vec<[String; 3]>,
    quality: Vec<Plot>,
}

/// A plot with its table.
#[derive(Debug)]
struct Plot {
    title: String,
    svg: String,
    rows: Vec<[String; 3]>,
}

impl Plot {
    fn new(title: &str, ranges: Vec<(String, AcceptedAndKept)>) -> Self {
        let rows = ranges
            .iter()
            .map(|(name, both)| [name.clone(), thousands(both.all), thousands(both.kept)]);
        Self {
            title: title.to_owned(),
            svg: plot::ranges(title, &ranges),
            rows: rows.collect(),
        }
    }

    fn of(title: &str, ranges: &RangeCounts) -> Self {
        Self::new(title, named(ranges))
    }
}

/// Returns the ranges with labels: `<64`, `64+`, …, each from its number to the next.
fn named(ranges: &RangeCounts) -> Vec<(String, AcceptedAndKept)> {
    let first = ranges.edges.first().map(|edge| format!("<{edge}"));
    let rest = ranges.edges.iter().map(|edge| format!("{edge}+"));
    first
        .into_iter()
        .chain(rest)
        .zip(ranges.counts.iter().copied())
        .collect()
}

impl DataSection {
    /// Creates the section from the findings.
    pub(crate) fn new(data: &DataFindings) -> Self {
        let mut plots = vec![
            Plot::of("Short side in pixels", &data.sides),
            Plot::of("Megapixels", &data.megapixels),
            Plot::of("Width by height", &data.aspects),
            Plot::of("Image file in kB", &data.kilobytes),
            Plot::new("Format", formats(data)),
        ];
        if data.captioned.all > 0 {
            plots.push(Plot::of("Words of the caption", &data.words));
        }
        let quality = MEASURES.iter().zip(&data.quality);
        Self {
            has_samples: data.samples.all > 0,
            plots,
            captions: captions(data),
            repeated: repeated(data),
            metadata: metadata(data),
            fields: fields(data),
            quality: quality
                .map(|(name, ranges)| Plot::of(name, ranges))
                .collect(),
        }
    }
}

fn formats(data: &DataFindings) -> Vec<(String, AcceptedAndKept)> {
    let mut formats: Vec<(String, AcceptedAndKept)> = data
        .formats
        .iter()
        .map(|(name, both)| (name.clone(), *both))
        .collect();
    formats.sort_by(|a, b| b.1.all.cmp(&a.1.all).then_with(|| a.0.cmp(&b.0)));
    formats.truncate(FORMATS);
    formats
}

fn captions(data: &DataFindings) -> Vec<[String; 2]> {
    let (with, empty, all) = (
        data.captioned.all,
        data.empty_captions.all,
        data.samples.all,
    );
    let of = |count: u64| format!("{} ({})", thousands(count), percent(count, all));
    let distinct = data.distinct_captions.count().min(with);
    let about = if data.distinct_captions.is_exact() {
        ""
    } else {
        "about "
    };
    [
        ("with a caption", of(with)),
        ("with an empty caption", of(empty)),
        ("without a caption", of(all - with - empty)),
        (
            "different captions",
            format!("{about}{}", thousands(distinct)),
        ),
        (
            "captions that repeat another one",
            format!("{about}{}", of(with - distinct)),
        ),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

fn repeated(data: &DataFindings) -> Vec<[String; 2]> {
    let top = data
        .captions
        .top(CAPTIONS)
        .into_iter()
        .filter(|(_, count)| *count > 1);
    let rows = top.map(|(caption, count)| [caption, at_least(count, data.captions.is_exact())]);
    rows.collect()
}

fn at_least(count: u64, is_exact: bool) -> String {
    let least = if is_exact { "" } else { "at least " };
    format!("{least}{}", thousands(count))
}

fn metadata(data: &DataFindings) -> String {
    let (with, all) = (data.with_metadata.all, data.samples.all);
    let more = if data.has_more_fields {
        "; the first fields by name"
    } else {
        ""
    };
    format!(
        "{} with metadata ({}){more}",
        plural(with, "sample"),
        percent(with, all)
    )
}

fn fields(data: &DataFindings) -> Vec<[String; 3]> {
    let fields = data.fields.iter().map(|(name, field)| {
        let top = field.values.top(VALUES).into_iter();
        let repeated = top.filter(|(_, count)| *count > 1 || field.values.is_exact());
        let values = repeated.map(|(value, count)| {
            format!("{value} ({})", at_least(count, field.values.is_exact()))
        });
        let values: Vec<String> = values.collect();
        let values = if values.is_empty() {
            "hardly any value twice".to_owned()
        } else {
            values.join(", ")
        };
        [
            name.clone(),
            percent(field.count.all, data.samples.all),
            values,
        ]
    });
    fields.collect()
}
