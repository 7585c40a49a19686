//! Describes the curated dataset in Croissant 1.1, the JSON-LD format for machine learning
//! datasets.
//!
//! The vocabulary is defined in
//! <https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html>. File sets have paths
//! relative to the description, so the output can be moved.

use arrow::datatypes::{DataType, Field};
use serde_json::{Map, Value, json};
use sluice_manifest::rows::{CuratedRow, Row};

use crate::card::DatasetCard;
use crate::columns::IMAGE_COLUMN;
use crate::format::OutputFormat;

/// The version that the description conforms to.
const VERSION: &str = "http://mlcommons.org/croissant/1.1";

/// Returns the description, with a trailing line break.
///
/// # Errors
///
/// Returns serde's error if it cannot be serialised.
pub fn render(card: &DatasetCard) -> serde_json::Result<Vec<u8>> {
    let mut description = json!({
        "@context": context(),
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": "curated-image-dataset",
        "description": card.summary(),
        "keywords": ["image", "sluice"],
        "version": "1.0.0",
        "distribution": distribution(card),
        "recordSet": record_sets(card),
    });
    if let Some(licence) = &card.licence {
        description["license"] = json!(licence);
    }
    let mut json = serde_json::to_vec_pretty(&description)?;
    json.push(b'\n');
    Ok(json)
}

/// Returns the JSON-LD context, as listed in the specification.
fn context() -> Value {
    let mut context = json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "description": { "@container": "@language" },
        "examples": { "@id": "cr:examples", "@type": "@json" },
        "name": { "@container": "@language" },
        "rai": "http://mlcommons.org/croissant/RAI/",
        "sc": "https://schema.org/",
    });
    let own = [
        "arrayShape",
        "citeAs",
        "column",
        "containedIn",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
        "fileProperty",
        "fileSet",
        "format",
        "includes",
        "isArray",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "samplingRate",
        "separator",
        "source",
        "subField",
        "transform",
    ];
    for name in own {
        context[name] = json!(format!("cr:{name}"));
    }
    context
}

fn distribution(card: &DatasetCard) -> Value {
    if card.shards() == 0 {
        return json!([]);
    }
    let mut sets = vec![file_set(
        card,
        "tables",
        OutputFormat::Parquet,
        "application/x-parquet",
    )];
    if card.format == OutputFormat::Webdataset {
        sets.push(file_set(card, "shards", card.format, "application/x-tar"));
    }
    Value::Array(sets)
}

fn file_set(card: &DatasetCard, id: &str, format: OutputFormat, encoding: &str) -> Value {
    let patterns = card.splits.iter();
    let patterns: Vec<String> = patterns
        .map(|split| split.pattern(format.extension()))
        .collect();
    let includes = match patterns.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    json!({
        "@type": "cr:FileSet",
        "@id": id,
        "name": id,
        "includes": includes,
        "encodingFormat": encoding,
    })
}

fn record_sets(card: &DatasetCard) -> Value {
    if card.shards() == 0 {
        return json!([]);
    }
    let fields: Vec<Value> = card
        .columns()
        .map(|(name, about)| field(name, about))
        .collect();
    json!([{
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "a record for each sample",
        "key": { "@id": "samples/image_id" },
        "field": fields,
    }])
}

fn field(name: &str, about: &str) -> Value {
    let mut field = Map::from_iter([
        ("@type".to_owned(), json!("cr:Field")),
        ("@id".to_owned(), json!(format!("samples/{name}"))),
        ("name".to_owned(), json!(name)),
        ("description".to_owned(), json!(about)),
        ("dataType".to_owned(), json!(data_type(name))),
    ]);
    let mut source = json!({ "fileSet": { "@id": "tables" }, "extract": { "column": name } });
    if name == IMAGE_COLUMN.0 {
        source["transform"] = json!({ "jsonPath": "bytes" });
    }
    field.insert("source".to_owned(), source);
    if name == crate::curated::EMBEDDING {
        field.insert("isArray".to_owned(), json!(true));
        field.insert("arrayShape".to_owned(), json!("-1"));
    }
    Value::Object(field)
}

/// Returns the type of a column. Columns that are not in every output are scores, embeddings or
/// images.
fn data_type(column: &str) -> &'static str {
    if column == IMAGE_COLUMN.0 {
        return "sc:ImageObject";
    }
    let fields = CuratedRow::fields();
    let known = fields.iter().find(|field| field.name() == column);
    match known.map(Field::data_type) {
        Some(DataType::Utf8) => "sc:Text",
        Some(_) => "sc:Integer",
        None => "sc:Float",
    }
}
