//! Rules over one image: named CEL expressions that must all give `true`.
//!
//! [`RuleSet::compile`] refuses what can be known to be wrong before any row is read.
//! [`RuleSet::first_failure`] evaluates the rules on one [`SampleValues`] and stops at the first that does
//! not give `true`. Evaluation has no errors: a missing field, null, NaN, a type that does not fit,
//! division by zero, overflow or a result that is not a bool means that the rule does not pass,
//! and the detail has the cause. `&&`, `||`, `?:` and `has()` work as in CEL, so such a value does not
//! matter in a branch that does not decide the result.
//!
//! Expressions are parsed and evaluated by the crate `cel`. [`functions`] lists what is replaced.
//! One context has the functions. Each row is an inner scope whose variables are looked up
//! in the row, so a row costs no copies of values that no rule reads.

mod check;
mod describe;
mod expression;
mod functions;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeSet, HashSet};
use std::thread;

use cel::common::ast::Expr;
use cel::common::types::CelBool;
use cel::{Context, ExecutionError, Value as CelValue};

use sluice_manifest::Class;

pub use self::values::{SampleValues, Value};

use self::describe::{NOT_BOOL, describe, is_type};
use self::expression::{Expression, PARSER_STACK, add_free_names, children, identifier, path};
use self::values::{Fields, Reading, shorten, show};

/// Characters of a failure's detail.
const DETAIL_CHARS: usize = 300;

/// Characters of an expression that an error shows.
const EXPRESSION_CHARS: usize = 120;

/// A variable that rules can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name in expressions.
    pub name: String,
    /// Its type.
    pub kind: VariableKind,
}

/// The content of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableKind {
    /// An int.
    Int,
    /// A double, or null.
    Float,
    /// A string, or null.
    Text,
    /// Any JSON value: the sample's metadata. At most one variable.
    Json,
    /// A score, which may be missing.
    Score,
    /// The scores of a step with these outputs. Each may be missing.
    ScoreMap(Vec<String>),
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// What helps: another rule (usage), or another try.
    pub class: Class,
    /// Names the rule, what is wrong and the expression.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// The first rule that an image does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'r> {
    /// The rule's name.
    pub rule: &'r str,
    /// The values that the rule read, or why it could not be evaluated.
    pub detail: String,
}

/// Compiled rules.
pub struct RuleSet {
    rules: Vec<Rule>,
    functions: Context<'static, 'static>,
    /// The fields of the document that some rule reads.
    fields: Fields,
}

struct Rule {
    name: String,
    expression: Expression,
    reads: check::Reads,
}

/// What is wrong with an expression, without the rule's name.
#[derive(Debug)]
pub(crate) struct Problem {
    message: String,
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Problem {
            message: message.into(),
            hint: None,
        }
    }
}

/// Returns a problem without a hint.
pub(crate) fn refuse<T>(message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::new(message))
}

/// Returns the names of the variables that an expression reads, whether they exist or not. Variables of
/// its own loops and the names of types are not among them.
///
/// # Errors
///
/// Fails when the expression is not CEL, or is too long or nested too deeply.
pub fn names(rule: &str, text: &str) -> Result<BTreeSet<String>, RuleError> {
    let parse = || {
        let expression = expression::parse(text)?;
        let mut names = BTreeSet::new();
        add_free_names(&expression, &mut Vec::new(), &mut names);
        let functions = functions::context();
        names.retain(|name| !is_value(name, &functions));
        Ok(names)
    };
    on_large_stack(parse)?.map_err(|problem: Problem| {
        let shown = shorten(text.trim(), EXPRESSION_CHARS);
        let message = format!("{} in `{shown}`", problem.message);
        rule_error(rule, Problem { message, ..problem })
    })
}

/// Whether a name means something in CEL itself, so that no variable can have it: a word such as `in`,
/// or a type, which is a value (`type(metadata.year) == int`).
pub fn is_of_language(name: &str) -> bool {
    match expression::parse(name) {
        Ok(node) => !matches!(node.expr, Expr::Ident(_)) || is_value(name, &functions::context()),
        Err(_) => true,
    }
}

/// Whether CEL gives a name a value.
fn is_value(name: &str, functions: &Context<'_, '_>) -> bool {
    CelValue::resolve_val(&identifier(0, name), functions).is_ok()
}

/// Runs `work` on a thread with a stack that the parser's recursion fits into: it recurses once for
/// each operator of a chain such as `1 + 1 + 1`.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, RuleError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(PARSER_STACK);
        let worker = worker
            .spawn_scoped(scope, work)
            .map_err(|error| RuleError {
                class: Class::Transient,
                message: format!("cannot start a thread to compile rules: {error}"),
                hint: None,
            })?;
        Ok(worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

impl RuleSet {
    /// Compiles rules, given as names and CEL expressions, for the variables that rows will have.
    ///
    /// # Errors
    ///
    /// Fails when a name is not `[a-z][a-z0-9_-]*` or occurs twice, when an expression is not CEL,
    /// is longer than 10,000 characters or nested deeper than 100 levels, when it names an unknown
    /// variable, output or function, when a pattern is not a regular expression, and when types
    /// do not fit, so that the expression cannot give a bool.
    ///
    /// # Panics
    ///
    /// Panics if two variables are of the kind [`VariableKind::Json`].
    pub fn compile(
        rules: &[(String, String)],
        variables: &[Variable],
    ) -> Result<RuleSet, RuleError> {
        let documents = variables.iter().filter(|v| v.kind == VariableKind::Json);
        assert!(documents.count() <= 1, "a row has one document");
        let compile = || {
            let functions = functions::context();
            let mut names = HashSet::new();
            let rules = rules
                .iter()
                .map(|(name, text)| {
                    check_name(name)?;
                    if !names.insert(name) {
                        return Err(rule_error(name, Problem::new("the name occurs twice")));
                    }
                    Rule::compile(name, text, variables, &functions)
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok(RuleSet {
                fields: Fields::union(rules.iter().map(|rule| &rule.reads.fields)),
                rules,
                functions,
            })
        };
        on_large_stack(compile)?
    }

    /// Returns the names of the variables that the rules read.
    pub fn references(&self) -> BTreeSet<&str> {
        let reads = self.rules.iter().flat_map(|rule| &rule.reads.variables);
        reads.map(String::as_str).collect()
    }

    /// Returns the first rule, in the order given to [`compile`](Self::compile), that does not give
    /// `true` for the row. `None` means that the image passes.
    pub fn first_failure(&self, row: &SampleValues<'_>) -> Option<Failure<'_>> {
        let reading = Reading::new(row, &self.fields);
        let mut scope = self.functions.new_inner_scope();
        scope.set_variable_resolver(&reading);
        self.rules.iter().find_map(|rule| {
            Some(Failure {
                rule: &rule.name,
                detail: shorten(&rule.failure(&reading, &scope)?, DETAIL_CHARS),
            })
        })
    }
}

impl Rule {
    fn compile(
        name: &str,
        text: &str,
        variables: &[Variable],
        functions: &Context<'_, '_>,
    ) -> Result<Rule, RuleError> {
        let compile = || {
            let expression = expression::parse(text)?;
            let reads = check::check(text, &expression, variables, functions)?;
            Ok((expression, reads))
        };
        let (expression, reads) = compile().map_err(|problem: Problem| {
            let shown = shorten(text.trim(), EXPRESSION_CHARS);
            let message = format!("{} in `{shown}`", problem.message);
            rule_error(name, Problem { message, ..problem })
        })?;
        Ok(Rule {
            name: name.to_owned(),
            expression,
            reads,
        })
    }

    /// Returns the detail if the rule does not pass.
    fn failure(&self, row: &Reading<'_>, scope: &Context<'_, '_>) -> Option<String> {
        row.refill_budget();
        match CelValue::resolve_val(&self.expression, scope) {
            Ok(value) => match value.downcast_ref::<CelBool>().map(|bool| *bool.inner()) {
                Some(true) => None,
                Some(false) => Some(self.values(row, scope)),
                None => {
                    let written = path(&self.expression).map(|path| path.text);
                    Some(is_type(written, value.get_type().name(), NOT_BOOL))
                }
            },
            Err(error) => {
                row.refill_budget();
                let origin = origin(&self.expression, &error, scope);
                Some(explain(&error, origin, row))
            }
        }
    }

    /// Returns the values that the rule reads: `width 120, height 90`.
    fn values(&self, row: &Reading<'_>, scope: &Context<'_, '_>) -> String {
        if self.reads.paths.is_empty() {
            return "the rule reads no values and gives false".to_owned();
        }
        let values = self.reads.paths.iter().map(|(written, node)| {
            match CelValue::resolve_val(node, scope) {
                Ok(value) => format!("{written} {}", show(value.as_ref())),
                Err(error) => explain(&error, Some(node), row),
            }
        });
        values.collect::<Vec<_>>().join(", ")
    }
}

/// Returns the innermost expression that gives the error, `None` inside of loops.
fn origin<'e>(
    node: &'e Expression,
    error: &ExecutionError,
    scope: &Context<'_, '_>,
) -> Option<&'e Expression> {
    let inner = children(node)
        .into_iter()
        .find_map(|child| origin(child, error, scope));
    inner.or_else(|| {
        let fails = CelValue::resolve_val(node, scope).err().as_ref() == Some(error);
        fails.then_some(node)
    })
}

/// Returns one line about an error. The row shows whether a value is NaN, invalid or missing.
fn explain(error: &ExecutionError, origin: Option<&Expression>, row: &Reading<'_>) -> String {
    match (error, origin.and_then(path)) {
        (ExecutionError::UndeclaredReference(name), _) => row.absence(name),
        (ExecutionError::NoSuchKey(_), Some(path)) => row.absence(&path.text),
        _ => describe(error, origin),
    }
}

/// Checks that a rule's name can name a reason.
fn check_name(name: &str) -> Result<(), RuleError> {
    let is_valid = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|char| matches!(char, 'a'..='z' | '0'..='9' | '_' | '-'));
    if is_valid {
        return Ok(());
    }
    Err(RuleError {
        class: Class::Usage,
        message: format!("{:?} is not a rule name", shorten(name, EXPRESSION_CHARS)),
        hint: Some(
            "names are lower-case letters, digits, `-` and `_`: --rule large='width >= 256'"
                .to_owned(),
        ),
    })
}

fn rule_error(name: &str, problem: Problem) -> RuleError {
    RuleError {
        class: Class::Usage,
        message: format!("rule {name}: {}", problem.message),
        hint: problem.hint,
    }
}
