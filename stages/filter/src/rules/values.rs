//! The values that rules read: one row for one image, as CEL values.
//!
//! A row borrows its texts. Metadata is parsed when the first rule reads it, once for each row.
//! Only the fields that some rule reads become values: a document costs little more than the scan
//! of its text, and an odd value in another field has no effect.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use cel::ExecutionError;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::context::VariableResolver;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Name of the row's [`Budget`] in rewritten expressions. CEL source cannot contain it.
pub(crate) const BUDGET: &str = "@budget";

/// List items and map keys that one rule may visit for one row. Bounds nested loops.
const MAX_ITEMS: usize = 10_000;

/// Characters of a value that a failure's detail shows.
const SHOWN_CHARS: usize = 60;

/// One value of a [`SampleValues`].
#[derive(Debug)]
pub enum Value<'a> {
    /// A column without a value, CEL's `null`.
    Null,
    /// An int.
    Int(i64),
    /// A double. A rule that reads NaN does not pass.
    Float(f64),
    /// A string.
    Text(&'a str),
    /// The text of a JSON document.
    Json(&'a str),
    /// The scores of a step with several outputs, by output. A rule that reads NaN does not pass.
    Scores(Vec<(&'a str, f64)>),
}

impl<'a> Value<'a> {
    /// Returns the value for a JSON document. `None` reads as an object without fields, so that
    /// `has(metadata.license)` is false for an image without metadata.
    pub fn json(text: Option<&'a str>) -> Self {
        Value::Json(text.unwrap_or("{}"))
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Text(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// The fields of a document that rules read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fields {
    /// All: some rule reads the document as a whole.
    All,
    /// The fields of the outermost object with these names.
    Named(BTreeSet<String>),
}

impl Fields {
    /// Returns the fields that any of the readers reads.
    pub(crate) fn union<'f>(readers: impl Iterator<Item = &'f Fields>) -> Self {
        let mut all = BTreeSet::new();
        for fields in readers {
            match fields {
                Fields::All => return Fields::All,
                Fields::Named(names) => all.extend(names.iter().cloned()),
            }
        }
        Fields::Named(all)
    }
}

/// Parses the parts of a JSON document that rules read, without copies of strings that have no
/// escapes. Integers outside of 64-bit signed range become doubles. Of a repeated key the last
/// value counts.
///
/// # Errors
///
/// Fails when the text is not JSON, and when a field that is read is nested deeper than 127 levels
/// or has a number outside of the range of a double.
fn parse_json<'a>(text: &'a str, fields: &Fields) -> Result<Box<dyn Val + 'a>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document = DocumentVisitor(fields).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(document)
}

/// Builds CEL values from JSON. An object keeps the fields given.
struct DocumentVisitor<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for DocumentVisitor<'_> {
    type Value = Box<dyn Val + 'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DocumentVisitor<'_> {
    type Value = Box<dyn Val + 'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelDouble::from(value as f64)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Box::new(CelString::from(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(DocumentVisitor(&Fields::All))? {
            list.push(item);
        }
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(key) = fields.next_key_seed(DocumentVisitor(&Fields::All))? {
            let key = CelMapKey::try_from(key).map_err(A::Error::custom)?;
            if self.reads(&key) {
                let value = fields.next_value_seed(DocumentVisitor(&Fields::All))?;
                map.insert(key, value);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Box::new(CelMap::from(map)))
    }
}

impl DocumentVisitor<'_> {
    fn reads(&self, key: &CelMapKey<'_>) -> bool {
        match (self.0, key) {
            (Fields::Named(names), CelMapKey::String(key)) => names.contains(key.inner()),
            _ => true,
        }
    }
}

/// What the rules can read about one image: values by variable name.
///
/// A variable that is not set is missing: a rule that reads it does not pass. Set `None` for a
/// column without a value, leave out a score that the image does not have.
#[derive(Debug, Default)]
pub struct SampleValues<'a> {
    values: Vec<(&'a str, Value<'a>)>,
}

impl<'a> SampleValues<'a> {
    /// Sets a variable.
    pub fn set(&mut self, name: &'a str, value: impl Into<Value<'a>>) {
        self.values.push((name, value.into()));
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }
}

/// A row while rules are evaluated on it: what CEL looks variables up in.
#[derive(Debug)]
pub(crate) struct Reading<'r> {
    row: &'r SampleValues<'r>,
    fields: &'r Fields,
    document: OnceLock<Result<Box<dyn Val + 'r>, String>>,
    budget: Budget,
}

impl<'r> Reading<'r> {
    pub(crate) fn new(row: &'r SampleValues<'r>, fields: &'r Fields) -> Self {
        Reading {
            row,
            fields,
            document: OnceLock::new(),
            budget: Budget::default(),
        }
    }

    /// Refills the budget before an expression is evaluated.
    pub(crate) fn refill_budget(&self) {
        self.budget.0.store(MAX_ITEMS, Ordering::Relaxed);
    }

    /// Returns the document, or the parser's message.
    fn document(&self, text: &'r str) -> &Result<Box<dyn Val + 'r>, String> {
        self.document
            .get_or_init(|| parse_json(text, self.fields).map_err(|error| error.to_string()))
    }

    /// Returns why a variable, or an output of a step (`step.output`), cannot be read.
    pub(crate) fn absence(&self, path: &str) -> String {
        let (name, output) = path.split_once('.').unwrap_or((path, ""));
        let is_nan = match self.row.get(name) {
            Some(Value::Float(value)) => value.is_nan(),
            Some(Value::Scores(scores)) => scores
                .iter()
                .any(|(known, score)| *known == output && score.is_nan()),
            Some(Value::Json(text)) => match self.document(text) {
                Err(error) => return format!("{name} is not valid JSON: {error}"),
                Ok(_) => false,
            },
            _ => false,
        };
        format!("{path} is {}", if is_nan { "NaN" } else { "missing" })
    }
}

impl VariableResolver for Reading<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == BUDGET {
            return Some(CowVal::Borrowed(&self.budget));
        }
        Some(match self.row.get(name)? {
            Value::Null => CowVal::owned(CelNull),
            Value::Int(value) => CowVal::owned(CelInt::from(*value)),
            Value::Float(value) if value.is_nan() => return None,
            Value::Float(value) => CowVal::owned(CelDouble::from(*value)),
            Value::Text(value) => CowVal::owned(CelString::from(*value)),
            Value::Json(text) => CowVal::Borrowed(self.document(text).as_ref().ok()?.as_ref()),
            Value::Scores(scores) => CowVal::owned(score_map(scores)),
        })
    }
}

/// Returns the scores as a map without those that are NaN.
fn score_map<'a>(scores: &[(&'a str, f64)]) -> CelMap<'a> {
    let known = scores.iter().filter(|(_, score)| !score.is_nan());
    CelMap::from(
        known
            .map(|&(output, score)| {
                let score: Box<dyn Val> = Box::new(CelDouble::from(score));
                (CelMapKey::from(output), score)
            })
            .collect::<HashMap<_, _>>(),
    )
}

/// How many list items and map keys the rule may still visit.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// Takes `items` from the budget.
    ///
    /// # Errors
    ///
    /// Fails when fewer are left.
    pub(crate) fn spend(&self, items: usize) -> Result<(), ExecutionError> {
        let spent = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(items)
            });
        spent.map(|_| ()).map_err(|_| {
            let message = format!("the rule visits more than {MAX_ITEMS} list items");
            ExecutionError::function_error(BUDGET, message)
        })
    }
}

static BUDGET_TYPE: Type = Type::new_unspecified_type(BUDGET);

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &BUDGET_TYPE
    }

    fn cel_type() -> &'static Type {
        &BUDGET_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Budget(AtomicUsize::new(self.0.load(Ordering::Relaxed))))
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// Returns a value as people read it: at most about 60 characters, no control characters.
pub(crate) fn show(value: &dyn Val) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    shorten(&text, SHOWN_CHARS)
}

/// Returns `text` without control characters, cut after `limit` characters.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    let mut chars = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    let mut short: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// Appends a value. Stops early when the text is longer than what [`show`] keeps.
fn write_value(text: &mut String, value: &dyn Val) {
    if text.len() > 4 * SHOWN_CHARS {
        return;
    }
    if let Some(value) = value.downcast_ref::<CelString>() {
        text.push('"');
        text.extend(value.inner().chars().take(SHOWN_CHARS + 1));
        text.push('"');
    } else if let Some(value) = value.downcast_ref::<CelDouble>() {
        text.push_str(&show_double(*value.inner()));
    } else if let Some(value) = value.downcast_ref::<CelInt>() {
        let _ = write!(text, "{}", value.inner());
    } else if let Some(value) = value.downcast_ref::<CelBool>() {
        let _ = write!(text, "{}", value.inner());
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        text.push('[');
        for (index, item) in list.inner().iter().enumerate() {
            text.push_str(if index == 0 { "" } else { ", " });
            write_value(text, item.as_ref());
        }
        text.push(']');
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        let mut fields: Vec<_> = map.inner().iter().collect();
        fields.sort_by_key(|(key, _)| *key);
        text.push('{');
        for (index, (key, value)) in fields.into_iter().enumerate() {
            text.push_str(if index == 0 { "" } else { ", " });
            write_value(text, key.inner());
            text.push_str(": ");
            write_value(text, value.as_ref());
        }
        text.push('}');
    } else {
        text.push_str(shown_type(value.get_type().name()));
    }
}

/// Returns a double in the shortest form. Scores are stored as 32-bit floats: 0.3, not
/// 0.30000001192092896.
fn show_double(value: f64) -> String {
    let narrow = value as f32;
    if f64::from(narrow) == value {
        narrow.to_string()
    } else {
        value.to_string()
    }
}

/// Returns the name of a CEL type as messages show it.
pub(crate) fn shown_type(name: &str) -> &str {
    match name {
        "null_type" => "null",
        name => name,
    }
}
