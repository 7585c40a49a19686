//! Values of a pipeline file as words of a command line, and parameters in them.

use std::collections::BTreeMap;

use clap::Arg;
use toml::Value;

/// The values of the parameters by name. One that is missing or has no values is empty.
pub type Values = BTreeMap<String, Vec<String>>;

/// Returns the words that give a value to a flag: `--flag=value`.
///
/// # Errors
/// Says what the flag cannot take, without its name.
pub fn words(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let flag = arg.get_long().unwrap_or_default();
    let takes_values = match arg.get_num_args() {
        Some(range) => range.takes_values(),
        None => arg.get_action().takes_values(),
    };
    if !takes_values {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{flag}")]),
            Value::Boolean(false) => Ok(Vec::new()),
            _ => Err("expected true or false".to_owned()),
        };
    }
    let word = |text: &str| format!("--{flag}={text}");
    match value {
        Value::Array(values) => {
            let texts = values.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
            match arg.get_value_delimiter() {
                Some(delimiter) => {
                    let mut separator = [0; 4];
                    Ok(vec![word(
                        &texts.join(delimiter.encode_utf8(&mut separator)),
                    )])
                }
                None => Ok(texts.iter().map(|text| word(text)).collect()),
            }
        }
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| {
                let value = scalar(value)?;
                Ok(word(&format!("{key}={value}")))
            });
            pairs.collect()
        }
        value => Ok(vec![word(&scalar(value)?)]),
    }
}

/// Returns a text, a number or a truth value as text.
///
/// # Errors
/// Says what else it is.
pub fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(on) => Ok(on.to_string()),
        Value::Datetime(_) => Err("expected text or a number, got a date".to_owned()),
        Value::Array(_) | Value::Table(_) => Err("expected a value, got a list".to_owned()),
    }
}

/// Returns the names of the parameters in a text.
pub fn references(text: &str) -> Vec<&str> {
    let parts = text.split("${").skip(1);
    parts
        .filter_map(|part| Some(part.split_once('}')?.0))
        .collect()
}

/// Puts values into words. A word that is left with nothing behind its `=` goes; one that is a single
/// parameter with several values is repeated.
pub fn substitute(words: &[String], values: &Values) -> Vec<String> {
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

/// Puts values into a text. Gives one text for each value where it ends in a parameter with several.
pub fn substitute_text(text: &str, values: &Values) -> Vec<String> {
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
        let values = Values::from([
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
        let values: toml::Table = toml::from_str(
            "a = ['x', 2]\nb = { k = 1.5, q = '' }\nc = true\nd = 'te xt'\ne = [['x']]",
        )
        .unwrap();
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
        assert!(words(&switch, &values["d"]).is_err() && words(&plain, &values["e"]).is_err());
    }
}
