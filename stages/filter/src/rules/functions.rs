//! The functions that rules can call beyond CEL's own, and those that replace operators.
//!
//! The parsed expression is rewritten (see [`super::expression`]) to call functions whose names
//! begin with `@`, where CEL's own behaviour does not fit rules:
//!
//! | written | evaluated | why |
//! | --- | --- | --- |
//! | `a + b`, `-`, `*`, `/`, `%` | `@+(a, b)` | ints and doubles mix, no infinity and no NaN |
//! | `double(x)` | `@finite(double(x))` | `double("NaN")` is an error |
//! | `text.matches(pattern)` | `@matches(text, pattern, @patterns)` | a pattern is compiled once |
//! | `list.all(x, …)`, other loops | `@items(list, @budget).all(x, …)` | bounded, sorted map keys |

use std::any::Any;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelString, CelUInt, DYN_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Context, Env, ExecutionError};
use regex::{Regex, RegexBuilder};

use super::values::Budget;

/// Name of the [`Patterns`] in rewritten expressions.
pub(crate) const PATTERNS: &str = "@patterns";

/// Bytes that a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Compiled patterns that are kept. Only patterns that come from data exceed it.
const MAX_PATTERNS: usize = 100;

/// Arguments that `min` and `max` take.
const MAX_ARGUMENTS: usize = 8;

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Returns the context that has the functions. Rows are evaluated in its inner scopes.
pub(crate) fn context() -> Context<'static, 'static> {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    let mut add = |name: &str, arity: usize, function| {
        let types = (0..arity).map(|_| DYN_TYPE).collect();
        env.add_overload(name, &format!("{name}_{arity}"), types, function)
            .expect("names or arities differ"); // Unwrap safety: the list below is constant.
    };
    add("@+", 2, |args| arithmetic("+", args));
    add("@-", 2, |args| arithmetic("-", args));
    add("@*", 2, |args| arithmetic("*", args));
    add("@/", 2, |args| arithmetic("/", args));
    add("@%", 2, |args| arithmetic("%", args));
    add("@finite", 1, finite);
    add("@items", 2, items);
    add("@matches", 3, matches);
    for arity in 1..=MAX_ARGUMENTS {
        add("min", arity, |args| extreme(Ordering::Less, args));
        add("max", arity, |args| extreme(Ordering::Greater, args));
    }
    let mut context = Context::with_env(Arc::new(env));
    context.add_variable_as_val(PATTERNS, Box::new(Patterns::default()));
    context
}

/// Returns the error for arguments that a function does not take.
fn mismatch(function: &str, args: &Args<'_, '_>) -> ExecutionError {
    let types = args.iter().map(|arg| arg.get_type().name().to_owned());
    ExecutionError::no_such_overload(function, types.collect())
}

/// An int or a double.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    fn of(value: &dyn Val) -> Option<Self> {
        if let Some(value) = value.downcast_ref::<CelInt>() {
            Some(Number::Int(*value.inner()))
        } else if let Some(value) = value.downcast_ref::<CelDouble>() {
            Some(Number::Double(*value.inner()))
        } else {
            let value = value.downcast_ref::<CelUInt>()?;
            i64::try_from(*value.inner()).ok().map(Number::Int)
        }
    }

    fn double(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        }
    }
}

/// Evaluates `a op b` for numbers, and `a + b` for two strings or two lists.
///
/// # Errors
///
/// Fails for other types, division by zero, and results that are too large or NaN.
fn arithmetic<'b, 'v>(operator: &'static str, args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (a, b) = (args[0].as_ref(), args[1].as_ref());
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            integers(operator, a, b).map(|value| CowVal::owned(CelInt::from(value)))
        }
        (Some(a), Some(b)) if operator != "%" => doubles(operator, a.double(), b.double())
            .map(|value| CowVal::owned(CelDouble::from(value))),
        _ => match a.as_adder() {
            Some(adder) if operator == "+" && a.get_type() == b.get_type() => {
                Ok(CowVal::Owned(adder.add(b)?.into_owned()))
            }
            _ => Err(mismatch(operator, &args)),
        },
    }
}

fn integers(operator: &'static str, a: i64, b: i64) -> Result<i64, ExecutionError> {
    if b == 0 && matches!(operator, "/" | "%") {
        return Err(ExecutionError::DivisionByZero(a.into()));
    }
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    result.ok_or_else(|| ExecutionError::Overflow(operator, a.into(), b.into()))
}

fn doubles(operator: &'static str, a: f64, b: f64) -> Result<f64, ExecutionError> {
    if b == 0.0 && operator == "/" {
        return Err(ExecutionError::DivisionByZero(a.into()));
    }
    let result = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        _ => a / b,
    };
    if result.is_finite() {
        Ok(result)
    } else {
        Err(ExecutionError::Overflow(operator, a.into(), b.into()))
    }
}

/// Returns its argument unless that is NaN or infinite.
fn finite<'b, 'v>(mut args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    match args[0].downcast_ref::<CelDouble>() {
        Some(value) if !value.is_finite() => {
            let message = format!("{} is not a number", value.inner());
            Err(ExecutionError::function_error("double", message))
        }
        _ => Ok(args.remove(0)),
    }
}

/// Returns the smallest or largest argument, or item of a list given alone.
///
/// # Errors
///
/// Fails for an empty list and for values that do not compare.
fn extreme<'b, 'v>(keep: Ordering, args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let name = if keep == Ordering::Less { "min" } else { "max" };
    let args = match args[0].downcast_ref::<CelList>() {
        Some(list) if args.len() == 1 => list
            .inner()
            .iter()
            .map(|item| CowVal::Owned(item.clone_as_boxed()))
            .collect(),
        _ => args,
    };
    let mut best: Option<CowVal<'b, 'v>> = None;
    for arg in &args {
        let comparer = arg.as_comparer().ok_or_else(|| mismatch(name, &args))?;
        let better = match &best {
            None => true,
            Some(best) => {
                comparer
                    .compare(best.as_ref())
                    .map_err(|_| mismatch(name, &args))?
                    == keep
            }
        };
        if better {
            best = Some(arg.clone());
        }
    }
    best.ok_or_else(|| ExecutionError::function_error(name, "the list is empty"))
}

/// Returns the items of a list, or the sorted keys of a map, and takes their number from the
/// row's budget.
///
/// # Errors
///
/// Fails for other types and when the budget is spent.
fn items<'b, 'v>(mut args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let budget = args.pop();
    let range = args.remove(0);
    let (Some(_), Some(sizer)) = (range.as_iterable(), range.as_sizer()) else {
        return Err(ExecutionError::UnexpectedType {
            got: range.get_type().name().to_owned(),
            want: "list or map".to_owned(),
        });
    };
    if let Some(budget) = budget.as_ref().and_then(|b| b.downcast_ref::<Budget>()) {
        budget.spend(usize::try_from(*sizer.size().inner()).unwrap_or(usize::MAX))?;
    }
    match range.downcast_ref::<CelMap>() {
        None => Ok(range),
        Some(map) => {
            let mut keys: Vec<_> = map.inner().keys().collect();
            keys.sort();
            let keys = keys.into_iter().map(|key| key.inner().clone_as_boxed());
            Ok(CowVal::owned(CelList::from(keys.collect::<Vec<_>>())))
        }
    }
}

/// Returns whether the pattern matches anywhere in the text.
fn matches<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (Some(text), Some(pattern), Some(patterns)) = (
        args[0].downcast_ref::<CelString>(),
        args[1].downcast_ref::<CelString>(),
        args[2].downcast_ref::<Patterns>(),
    ) else {
        return Err(mismatch("matches", &args));
    };
    let found = patterns
        .is_match(pattern.inner(), text.inner())
        .map_err(|message| ExecutionError::function_error("matches", message))?;
    Ok(CowVal::owned(CelBool::from(found)))
}

/// The compiled patterns of all rules. Clones share them.
#[derive(Clone, Debug, Default)]
struct Patterns(Arc<RwLock<HashMap<String, Regex>>>);

impl Patterns {
    /// Returns whether `pattern` matches anywhere in `text`. Compiles and keeps the pattern at its first use.
    ///
    /// # Errors
    ///
    /// Fails when the pattern is not a regular expression or too large.
    fn is_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
        let known = self.0.read().map_err(|error| error.to_string())?;
        if let Some(regex) = known.get(pattern) {
            return Ok(regex.is_match(text));
        }
        drop(known);
        let regex = RegexBuilder::new(pattern)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map_err(pattern_error)?;
        let found = regex.is_match(text);
        let mut known = self.0.write().map_err(|error| error.to_string())?;
        if known.len() < MAX_PATTERNS {
            known.insert(pattern.to_owned(), regex);
        }
        Ok(found)
    }
}

/// Returns the reason without the drawing of the pattern that precedes it.
fn pattern_error(error: regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return "the pattern is too large".to_owned();
    }
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    format!("invalid pattern: {reason}")
}

static PATTERNS_TYPE: Type = Type::new_unspecified_type(PATTERNS);

impl Val for Patterns {
    fn get_type(&self) -> &Type {
        &PATTERNS_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERNS_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Patterns {}
