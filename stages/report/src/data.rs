//! The composition of the dataset: sizes, formats, captions, metadata, quality. Counts all samples
//! that `read` accepted, and those that are kept.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_manifest::rows::{SampleRow, Status};
use sluice_run::card::shortened;
use sluice_run::sampling::Distinct;

use crate::frequent::Frequent;

/// The maximum number of metadata fields examined: the first by name.
const FIELDS: usize = 40;
/// The number of counters for each field's values.
const VALUES: usize = 512;
/// The maximum number of characters of a value.
const VALUE: usize = 60;
/// The number of counters for captions.
const CAPTIONS: usize = 4096;

const SIDES: &[f64] = &[
    64.0, 128.0, 256.0, 384.0, 512.0, 768.0, 1024.0, 1536.0, 2048.0, 4096.0,
];
const MEGAPIXELS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
const ASPECTS: &[f64] = &[0.33, 0.5, 0.66, 0.75, 0.95, 1.05, 1.34, 1.5, 2.0, 3.0];
const KILOBYTES: &[f64] = &[
    10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
];
const WORDS: &[f64] = &[1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0];
const QUALITY: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// The names of the quality measures. 1 is best.
pub(crate) const MEASURES: [&str; 6] = [
    "dark",
    "light",
    "blurry",
    "low information",
    "odd aspect",
    "odd size",
];

/// The number of accepted samples, and of kept ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptedAndKept {
    /// All accepted samples.
    pub all: u64,
    /// The kept samples.
    pub kept: u64,
}

impl AcceptedAndKept {
    fn add(&mut self, kept: bool) {
        self.all += 1;
        self.kept += u64::from(kept);
    }

    fn merge(&mut self, other: Self) {
        self.all += other.all;
        self.kept += other.kept;
    }
}

/// Counts by ranges of a number.
#[derive(Debug, Clone)]
pub struct RangeCounts {
    /// The boundaries. A number equal to one is in the range above.
    pub edges: &'static [f64],
    /// The counts, one more than boundaries.
    pub counts: Vec<AcceptedAndKept>,
}

impl RangeCounts {
    fn new(edges: &'static [f64]) -> Self {
        Self {
            edges,
            counts: vec![AcceptedAndKept::default(); edges.len() + 1],
        }
    }

    fn add(&mut self, number: f64, kept: bool) {
        let range = self.edges.partition_point(|edge| *edge <= number);
        self.counts[range].add(kept);
    }

    fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            own.merge(*other);
        }
    }
}

/// A field of the metadata.
#[derive(Debug, Clone)]
pub struct MetadataField {
    /// The number of samples in which it exists and is not null.
    pub count: AcceptedAndKept,
    /// The most frequent values.
    pub values: Frequent,
}

/// The counts of everything the report shows about the data.
#[derive(Debug, Clone)]
pub struct DataFindings {
    /// The accepted samples.
    pub samples: AcceptedAndKept,
    /// The shorter side in pixels.
    pub sides: RangeCounts,
    /// Megapixels.
    pub megapixels: RangeCounts,
    /// Width divided by height.
    pub aspects: RangeCounts,
    /// The size of the image file in kB.
    pub kilobytes: RangeCounts,
    /// Samples by format.
    pub formats: BTreeMap<String, AcceptedAndKept>,
    /// Samples with a caption that is not empty.
    pub captioned: AcceptedAndKept,
    /// Samples with an empty caption.
    pub empty_captions: AcceptedAndKept,
    /// The number of words in captions.
    pub words: RangeCounts,
    /// The number of distinct captions.
    pub distinct_captions: Distinct,
    /// The most frequent captions.
    pub captions: Frequent,
    /// Samples whose metadata is a JSON object.
    pub with_metadata: AcceptedAndKept,
    /// The fields of the metadata.
    pub fields: BTreeMap<String, MetadataField>,
    /// Whether there are more fields.
    pub has_more_fields: bool,
    /// The quality measures.
    pub quality: [RangeCounts; 6],
}

impl Default for DataFindings {
    fn default() -> Self {
        Self {
            samples: AcceptedAndKept::default(),
            sides: RangeCounts::new(SIDES),
            megapixels: RangeCounts::new(MEGAPIXELS),
            aspects: RangeCounts::new(ASPECTS),
            kilobytes: RangeCounts::new(KILOBYTES),
            formats: BTreeMap::new(),
            captioned: AcceptedAndKept::default(),
            empty_captions: AcceptedAndKept::default(),
            words: RangeCounts::new(WORDS),
            distinct_captions: Distinct::default(),
            captions: Frequent::new(CAPTIONS),
            with_metadata: AcceptedAndKept::default(),
            fields: BTreeMap::new(),
            has_more_fields: false,
            quality: MEASURES.map(|_| RangeCounts::new(QUALITY)),
        }
    }
}

impl DataFindings {
    /// Adds a sample to the counts.
    pub fn add(&mut self, sample: &SampleRow, kept: bool) {
        if sample.status == Status::Rejected {
            return;
        }
        self.samples.add(kept);
        self.add_size(sample, kept);
        self.add_caption(sample.caption.as_deref(), kept);
        if let Some(text) = &sample.metadata {
            self.add_metadata(text, kept);
        }
        let measures = [
            sample.dark,
            sample.light,
            sample.blurry,
            sample.low_information,
            sample.odd_aspect,
            sample.odd_size,
        ];
        for (ranges, value) in self.quality.iter_mut().zip(measures) {
            if let Some(value) = value {
                ranges.add(f64::from(value), kept);
            }
        }
    }

    fn add_size(&mut self, sample: &SampleRow, kept: bool) {
        if let (Some(width), Some(height)) = (sample.width, sample.height) {
            let (width, height) = (f64::from(width), f64::from(height));
            self.sides.add(width.min(height), kept);
            self.megapixels.add(width * height / 1e6, kept);
            self.aspects.add(width / height.max(1.0), kept);
        }
        self.kilobytes.add(sample.bytes as f64 / 1000.0, kept);
        let format = sample.format.as_deref().unwrap_or("unknown");
        let count = self.formats.entry(format.to_owned()).or_default();
        count.add(kept);
    }

    fn add_caption(&mut self, caption: Option<&str>, kept: bool) {
        let Some(caption) = caption.map(str::trim) else {
            return;
        };
        if caption.is_empty() {
            self.empty_captions.add(kept);
            return;
        }
        self.captioned.add(kept);
        self.words
            .add(caption.split_whitespace().count() as f64, kept);
        self.distinct_captions.add(caption);
        self.captions.add(&shortened(caption, 2 * VALUE));
    }

    fn add_metadata(&mut self, text: &str, kept: bool) {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return;
        };
        self.with_metadata.add(kept);
        for (name, value) in fields {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => shortened(&text, VALUE),
                other => shortened(&other.to_string(), VALUE),
            };
            let name = shortened(&name, VALUE);
            let field = self.fields.entry(name).or_insert_with(|| MetadataField {
                count: AcceptedAndKept::default(),
                values: Frequent::new(VALUES),
            });
            field.count.add(kept);
            field.values.add(&text);
        }
        self.trim_fields();
    }

    fn trim_fields(&mut self) {
        while self.fields.len() > FIELDS {
            self.has_more_fields = true;
            self.fields.pop_last();
        }
    }

    /// Adds the counts of another part.
    pub fn merge(&mut self, other: Self) {
        self.samples.merge(other.samples);
        for (own, other) in [
            (&mut self.sides, &other.sides),
            (&mut self.megapixels, &other.megapixels),
            (&mut self.aspects, &other.aspects),
            (&mut self.kilobytes, &other.kilobytes),
            (&mut self.words, &other.words),
        ] {
            own.merge(other);
        }
        for (own, other) in self.quality.iter_mut().zip(&other.quality) {
            own.merge(other);
        }
        for (format, count) in other.formats {
            self.formats.entry(format).or_default().merge(count);
        }
        self.captioned.merge(other.captioned);
        self.empty_captions.merge(other.empty_captions);
        self.distinct_captions.merge(other.distinct_captions);
        self.captions.merge(other.captions);
        self.with_metadata.merge(other.with_metadata);
        self.has_more_fields |= other.has_more_fields;
        for (name, field) in other.fields {
            match self.fields.get_mut(&name) {
                Some(own) => {
                    own.count.merge(field.count);
                    own.values.merge(field.values);
                }
                None => {
                    self.fields.insert(name, field);
                }
            }
        }
        self.trim_fields();
    }
}
