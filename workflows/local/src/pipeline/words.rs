//! Converts values of a pipeline file to words of a command line, and substitutes parameters.

use std::collections::BTreeMap;

use clap::Arg;
use sluice_manifest::{Error, Result};
use toml::{Table, Value};

/// The values of the parameters by name. A missing parameter counts as empty.
pub type ParameterValues = BTreeMap<String, Vec<String>>;

/// Returns the words that set a flag: `--flag=value`.
///
/// # Errors
/// Usage, when the flag does not accept the value. The error does not contain the flag's name.
pub fn words(arg: &Arg, value: &Value) -> Result<Vec<String>> {
    let flag = arg.get_long().unwrap_or_default();
    let takes_values = match arg.get_num_args() {
        Some(range) => range.takes_values(),
        None => arg.get_action().takes_values(),
    };
    if !takes_values {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{flag}")]),
            Value::Boolean(false) => Ok(Vec::new()),
            _ => Err(Error::usage("expected true or false")),
        };
    }
    let word = |text: &str| format!("--{flag}={text}");
    match value {
        Value::Array(values) => {
            refuse_empty("list", values.is_empty())?;
            let texts = values.iter().map(scalar).collect::<Result<Vec<_>>>()?;
            match arg.get_value_delimiter() {
                Some(delimiter) => Ok(vec![word(&texts.join(&delimiter.to_string()))]),
                None => Ok(texts.iter().map(|text| word(text)).collect()),
            }
        }
        Value::Table(table) => {
            refuse_empty("table", table.is_empty())?;
            table
                .iter()
                .map(|(key, value)| Ok(word(&pair(key, value)?)))
                .collect()
        }
        value => Ok(vec![word(&scalar(value)?)]),
    }
}

/// A flag without values would be omitted, and its default would apply.
fn refuse_empty(what: &str, is_empty: bool) -> Result<()> {
    if is_empty {
        Err(Error::usage(format!("the {what} is empty"))
            .hint("leave the key out for the program's default"))
    } else {
        Ok(())
    }
}

/// Returns an entry of a table as `KEY=VALUE`.
fn pair(key: &str, value: &Value) -> Result<String> {
    let quoted = |inner: &Table| {
        let name = inner.keys().next().map_or("OUTPUT", String::as_str);
        Error::usage(format!("{key} is a table, expected a value"))
            .hint(format!("quote a name with a dot: \"{key}.{name}\" = …"))
    };
    match value {
        Value::Table(inner) => Err(quoted(inner)),
        value => Ok(format!("{key}={}", scalar(value)?)),
    }
}

/// Returns a text, a number or a truth value as text.
///
/// # Errors
/// Usage, for any other type.
pub fn scalar(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(on) => Ok(on.to_string()),
        other => Err(Error::usage(format!(
            "expected text or a number, got {}",
            type_of(other)
        ))),
    }
}

/// Returns a value's type as a noun with its article.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// Returns the names of the parameters in a text.
pub fn references(text: &str) -> Vec<&str> {
    let parts = text.split("${").skip(1);
    parts
        .filter_map(|part| Some(part.split_once('}')?.0))
        .collect()
}

/// Substitutes parameters in words. A word whose value becomes empty is dropped. A word that is a
/// single parameter with several values is repeated.
pub fn substitute(words: &[String], values: &ParameterValues) -> Vec<String> {
    let mut line = Vec::new();
    for word in words {
        let flag = word.split_once('=').map_or("", |(flag, _)| flag);
        for word in substitute_text(word, values) {
            if word != format!("{flag}=") || word.matches('=').count() != 1 {
                line.push(word);
            }
        }
    }
    line
}

/// Substitutes parameters in a text. Returns one text per value if the text ends in a parameter
/// with several values.
pub fn substitute_text(text: &str, values: &ParameterValues) -> Vec<String> {
    let Some((head, rest)) = text.split_once("${") else {
        return vec![text.to_owned()];
    };
    let Some((name, tail)) = rest.split_once('}') else {
        return vec![text.to_owned()];
    };
    let given = values.get(name).map_or(&[][..], Vec::as_slice);
    let tails = substitute_text(tail, values);
    let one = [String::new()];
    let given = if given.is_empty() { &one } else { given };
    let texts = given.iter().flat_map(|value| {
        let tails = tails.iter();
        tails.map(move |tail| format!("{head}{value}{tail}"))
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_put_in() {
        let values = ParameterValues::from([
            ("input".to_owned(), vec!["a b".to_owned(), "c".to_owned()]),
            ("eps".to_owned(), vec!["0.1".to_owned()]),
        ]);
        let line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            substitute(&words, &values)
        };
        assert_eq!(line(&["--input=${input}"]), ["--input=a b", "--input=c"]);
        assert_eq!(line(&["--eps=${eps}", "--keep=${keep}"]), ["--eps=0.1"]);
        assert_eq!(line(&["--min=a=${x}"]), ["--min=a="]);
        assert_eq!(
            line(&["--rule=r=a >= ${eps}${eps}"]),
            ["--rule=r=a >= 0.10.1"]
        );
        assert_eq!(line(&["--force", "--x=${"]), ["--force", "--x=${"]);
        assert_eq!(references("${a} ${b-c}${"), ["a", "b-c"]);
    }

    #[test]
    fn values_become_words() {
        let list = Arg::new("l")
            .long("list")
            .value_delimiter(',')
            .num_args(1..);
        let plain = Arg::new("p").long("plain").num_args(1..);
        let switch = Arg::new("s")
            .long("switch")
            .action(clap::ArgAction::SetTrue);
        let values: toml::Table =
            toml::from_str("a = ['x', 2]\nb = { k = 1.5, q = '' }\nc = true\nd = 'te xt'").unwrap();
        assert_eq!(words(&list, &values["a"]).unwrap(), ["--list=x,2"]);
        assert_eq!(
            words(&plain, &values["a"]).unwrap(),
            ["--plain=x", "--plain=2"]
        );
        assert_eq!(
            words(&plain, &values["b"]).unwrap(),
            ["--plain=k=1.5", "--plain=q="]
        );
        assert_eq!(words(&switch, &values["c"]).unwrap(), ["--switch"]);
        assert_eq!(words(&plain, &values["d"]).unwrap(), ["--plain=te xt"]);
        let wrong: Table = toml::from_str(
            "switch = 'te xt'\nnested = [['x']]\nnone = []\nempty = {}\ndotted = { s.a = 1 }\n\
            listed = { s = [1] }\ndate = 2020-01-01",
        )
        .unwrap();
        let refused = |arg: &Arg, key: &str| words(arg, &wrong[key]).unwrap_err().to_string();
        assert_eq!(refused(&switch, "switch"), "expected true or false");
        for (key, part) in [
            ("nested", "got a list"),
            ("none", "the list is empty"),
            ("empty", "the table is empty"),
            (
                "dotted",
                "s is a table, expected a value\n  hint: quote a name with a dot: \"s.a\"",
            ),
            ("listed", "got a list"),
            ("date", "got a date"),
        ] {
            for arg in [&plain, &list] {
                assert!(
                    refused(arg, key).contains(part),
                    "{key}: {}",
                    refused(arg, key)
                );
            }
        }
    }
}
