//! The keys of a JSON object, each read once, so that those that nothing read can be named.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A JSON object that is being read.
pub(crate) struct Keys<'a> {
    object: &'a Map<String, Value>,
    read: BTreeSet<&'static str>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            read: BTreeSet::new(),
        }
    }

    /// Returns a value; none where it is null.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.read.insert(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Marks keys that change nothing.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        self.read.extend(keys);
    }

    /// Whether a key is there and has no value.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    /// Returns a truth value, or the default where the key is absent. Null is false, as in Python.
    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, String> {
        let Some(value) = self.get(key) else {
            return Ok(default && !self.is_null(key));
        };
        let flag = value.as_bool();
        flag.ok_or_else(|| format!("{key} is {value}, expected true or false"))
    }

    /// Returns a number, or the default.
    pub(crate) fn number(&mut self, key: &'static str, default: f64) -> Result<f64, String> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let number = value.as_f64();
        number.ok_or_else(|| format!("{key} is {value}, expected a number"))
    }

    /// Returns a text, or the default.
    pub(crate) fn text(&mut self, key: &'static str, default: &'a str) -> Result<&'a str, String> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let text = value.as_str();
        text.ok_or_else(|| format!("{key} is {value}, expected a text"))
    }

    /// Returns a number for each channel, or the default. One number applies to all three.
    pub(crate) fn channels(
        &mut self,
        key: &'static str,
        default: [f64; 3],
    ) -> Result<[f64; 3], String> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        if let Some(number) = value.as_f64() {
            return Ok([number; 3]);
        }
        let numbers = value.as_array().filter(|list| list.len() == 3);
        let numbers = numbers.and_then(|list| {
            let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
            numbers?.try_into().ok()
        });
        numbers.ok_or_else(|| format!("{key} is {value}, expected three numbers"))
    }

    /// Returns an error if a key is left that was not read and is neither null nor false.
    pub(crate) fn finish(self) -> Result<(), String> {
        let says_nothing = |value: &Value| value.is_null() || *value == Value::Bool(false);
        let mut left = self
            .object
            .iter()
            .filter(|(key, value)| !self.read.contains(key.as_str()) && !says_nothing(value));
        match left.next() {
            None => Ok(()),
            Some((key, value)) => Err(format!("the key {key:?} ({value}) is not understood")),
        }
    }
}

/// Returns a number of pixels.
pub(crate) fn pixels(name: &str, value: &Value) -> Result<u32, String> {
    let side = value.as_u64().and_then(|side| u32::try_from(side).ok());
    side.ok_or_else(|| format!("{name} is {value}, expected a number of pixels"))
}
