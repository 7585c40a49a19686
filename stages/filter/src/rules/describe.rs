//! Texts for what goes wrong when an expression is evaluated.

use cel::ExecutionError;
use cel::common::ast::operators;

use super::expression::{Expression, children, path};
use super::values::{shorten, shown_type};

/// Characters of a message that comes from a library.
const MESSAGE_CHARS: usize = 120;

/// Returns one line about an error. `origin` is the innermost expression that gives it.
pub(crate) fn describe(error: &ExecutionError, origin: Option<&Expression>) -> String {
    let written = |index| origin.and_then(|node| operand(node, index));
    match error {
        ExecutionError::UndeclaredReference(name) => format!("{name} is missing"),
        ExecutionError::NoSuchKey(key) => {
            let whole = origin.and_then(path).map(|path| path.text);
            format!("{} is missing", whole.as_deref().unwrap_or(key))
        }
        ExecutionError::NoSuchOverload(call) => {
            let types: Vec<&str> = call
                .argument_types()
                .iter()
                .map(|t| shown_type(t))
                .collect();
            mismatch(call.function(), &types, written)
        }
        ExecutionError::UnexpectedType { got, want } => {
            let want = if want == "bool" {
                NOT_BOOL
            } else {
                &format!("not a {want}")
            };
            is_type(written(0), got, want)
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(operator, ..) => format!("the result of {operator} is too large"),
        ExecutionError::IndexOutOfBounds(_) => {
            let whole = origin.and_then(path).map(|path| path.text);
            format!("{} is missing", whole.as_deref().unwrap_or("the list item"))
        }
        ExecutionError::FunctionError { function, message } => {
            let message = shorten(message, MESSAGE_CHARS);
            if function.starts_with('@') {
                message
            } else {
                format!("{function}: {message}")
            }
        }
        ExecutionError::UnsupportedKeyType(_) => "the key is not a bool, int or string".to_owned(),
        ExecutionError::DuplicateKey(_) => "a key occurs twice".to_owned(),
        // The library prints values in no particular order and in full.
        _ => "the values do not fit the expression".to_owned(),
    }
}

/// The message about a value that must be a bool.
pub(crate) const NOT_BOOL: &str = "not true or false";

/// Returns `metadata.a is string, not true or false`.
pub(crate) fn is_type(written: Option<String>, found: &str, wanted: &str) -> String {
    let subject = written.as_deref().unwrap_or("the value");
    format!("{subject} is {}, {wanted}", shown_type(found))
}

/// Returns a line about arguments of the wrong types.
fn mismatch(function: &str, types: &[&str], written: impl Fn(usize) -> Option<String>) -> String {
    if let Some(index) = types.iter().position(|name| *name == "null")
        && let Some(subject) = written(index)
    {
        return format!("{subject} is null");
    }
    match (function, types) {
        (
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::EQUALS
            | operators::NOT_EQUALS,
            [left, right],
        ) => match (written(0), written(1)) {
            (None, Some(subject)) => format!("{subject} is {right}, compared with {left}"),
            (subject, _) => is_type(subject, left, &format!("compared with {right}")),
        },
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
            if *left == "bool" {
                is_type(written(1), right, NOT_BOOL)
            } else {
                is_type(written(0), left, NOT_BOOL)
            }
        }
        (operators::LOGICAL_NOT, [found]) => is_type(written(0), found, NOT_BOOL),
        (operators::NEGATE, [found]) => is_type(written(0), found, "not a number"),
        ("_._" | operators::INDEX, [found, ..]) => {
            is_type(written(0), found, "it has no such field or item")
        }
        ("+" | "-" | "*" | "/" | "%" | operators::IN, [left, right]) => {
            let function = function.trim_start_matches('@');
            format!("{function} does not take {left} and {right}")
        }
        _ => {
            let function = function.trim_start_matches('@');
            let types: Vec<_> = types
                .iter()
                .filter(|t| !t.starts_with('@'))
                .copied()
                .collect();
            format!("{function} does not take ({})", types.join(", "))
        }
    }
}

/// Returns how the operand of an operator or call is written, if it is a path.
fn operand(node: &Expression, index: usize) -> Option<String> {
    let operand = children(node).get(index).copied()?;
    path(operand).map(|path| path.text)
}
