//! What can be known about a rule before any row is read.
//!
//! The types of columns and scores are known, those of metadata are not. An operator is evaluated
//! once on sample values when all its operands have them, and refused when that fails because of
//! the types. `&&`, `||`, `?:` and loops are not evaluated: another row can take another branch.
//! So a rule over metadata always compiles if its names and functions exist.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::{Context, ExecutionError, Value as CelValue};

use super::describe::{NOT_BOOL, describe, is_type};
use super::expression::{Expression, Path, children, path};
use super::values::{Fields, Reading, SampleValues, Value};
use super::{Problem, Variable, VariableKind, refuse};

/// Functions and how they are called, for hints.
const FUNCTIONS: [(&str, &str); 16] = [
    ("all", "list.all(x, x > 0)"),
    ("contains", "text.contains('word')"),
    ("double", "double(value)"),
    ("endsWith", "text.endsWith('end')"),
    ("exists", "list.exists(x, x > 0)"),
    ("exists_one", "list.exists_one(x, x > 0)"),
    ("filter", "list.filter(x, x > 0)"),
    ("has", "has(metadata.field)"),
    ("int", "int(value)"),
    ("map", "list.map(x, x + 1)"),
    ("matches", "text.matches('pattern')"),
    ("max", "max(a, b)"),
    ("min", "min(a, b)"),
    ("size", "size(value)"),
    ("startsWith", "text.startsWith('start')"),
    ("string", "string(value)"),
];

/// What the checked expression reads.
#[derive(Debug)]
pub(crate) struct Reads {
    /// Names of variables.
    pub(crate) variables: BTreeSet<String>,
    /// Variables and fields as they are written, with their expressions, for the details.
    pub(crate) paths: Vec<(String, Expression)>,
    /// The fields of documents.
    pub(crate) fields: Fields,
}

/// Checks one rule's expression.
///
/// # Errors
///
/// Fails when the expression names a variable, output or function that does not exist, or when
/// types do not fit.
pub(crate) fn check(
    text: &str,
    expression: &Expression,
    variables: &[Variable],
    functions: &Context<'_, '_>,
) -> Result<Reads, Problem> {
    let row = samples(variables);
    let samples = Reading::new(&row, &Fields::All);
    let mut scope = functions.new_inner_scope();
    scope.set_variable_resolver(&samples);
    let mut checker = Checker {
        text,
        variables,
        samples: &samples,
        scope: &scope,
        bound: Vec::new(),
        in_path: false,
        reads: Reads {
            variables: BTreeSet::new(),
            paths: Vec::new(),
            fields: Fields::Named(BTreeSet::new()),
        },
    };
    let known = checker.visit(expression)?;
    known.must_be_bool(expression)?;
    Ok(checker.reads)
}

/// Returns a row with a value of each known type.
fn samples(variables: &[Variable]) -> SampleValues<'_> {
    let mut row = SampleValues::default();
    for Variable { name, kind } in variables {
        let sample = match kind {
            VariableKind::Int => Value::Int(1),
            VariableKind::Float | VariableKind::Score => Value::Float(1.0),
            VariableKind::Text => Value::Text(""),
            VariableKind::ScoreMap(outputs) => Value::Scores(
                outputs
                    .iter()
                    .map(|output| (output.as_str(), 1.0))
                    .collect(),
            ),
            VariableKind::Json => continue,
        };
        row.set(name, sample);
    }
    row
}

/// What is known about the value of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Nothing: it comes from metadata or from a loop.
    Nothing,
    /// The name of its type.
    Type(String),
    /// The name of its type, and the sample values give one.
    Sample(String),
}

impl Known {
    fn type_name(&self) -> Option<&str> {
        match self {
            Known::Nothing => None,
            Known::Type(name) | Known::Sample(name) => Some(name),
        }
    }

    fn is_sample(&self) -> bool {
        matches!(self, Known::Sample(_))
    }

    /// Returns the same without the sample.
    fn without_sample(self) -> Known {
        match self {
            Known::Sample(name) => Known::Type(name),
            other => other,
        }
    }

    /// Refuses an expression whose type is known and not bool.
    fn must_be_bool(&self, node: &Expression) -> Result<(), Problem> {
        match self.type_name() {
            None | Some("bool") => Ok(()),
            Some(found) => {
                let written = path(node).map(|path| path.text);
                refuse(is_type(written, found, NOT_BOOL))
            }
        }
    }
}

struct Checker<'a, 'r> {
    text: &'a str,
    variables: &'a [Variable],
    samples: &'a Reading<'r>,
    /// Resolves the functions and the samples.
    scope: &'a Context<'a, 'a>,
    /// Variables of the loops around the visited expression.
    bound: Vec<String>,
    /// Whether the visited expression is part of a longer path.
    in_path: bool,
    reads: Reads,
}

impl Checker<'_, '_> {
    /// Checks an expression.
    fn visit(&mut self, node: &Expression) -> Result<Known, Problem> {
        let path = path(node);
        let in_path = std::mem::replace(&mut self.in_path, path.is_some());
        if let Some(path) = path.filter(|_| !in_path) {
            self.note(path, node);
        }
        let known = self.type_of(node);
        self.in_path = in_path;
        known
    }

    /// Notes what a path reads.
    fn note(&mut self, path: Path<'_>, node: &Expression) {
        let Some(variable) = self
            .variable(path.root)
            .filter(|_| !self.is_bound(path.root))
        else {
            return;
        };
        if variable.kind == VariableKind::Json {
            match (path.field, &mut self.reads.fields) {
                (Some(field), Fields::Named(names)) => {
                    names.insert(field.to_owned());
                }
                (_, fields) => *fields = Fields::All,
            }
        }
        if self
            .reads
            .paths
            .iter()
            .all(|(known, _)| *known != path.text)
        {
            let mut node = node.clone();
            if let Expr::Select(select) = &mut node.expr {
                select.test = false; // the value, where the rule asks `has()`
            }
            self.reads.paths.push((path.text, node));
        }
    }

    fn type_of(&mut self, node: &Expression) -> Result<Known, Problem> {
        match &node.expr {
            Expr::Literal(_) => self.evaluate(node),
            Expr::Ident(name) => self.identifier(node, name),
            Expr::Call(call) => self.call(node, call),
            Expr::Select(select) => {
                let operand = self.visit(&select.operand)?;
                if select.test && self.lacks_output(node) {
                    self.no_output(node)
                } else {
                    self.evaluate_if(operand.is_sample(), node)
                }
            }
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range)?;
                let start = self.visit(&each.accu_init)?;
                let around = self.bound.len();
                self.bound.push(each.iter_var.clone());
                self.bound.extend(each.iter_var2.clone());
                self.bound.push(each.accu_var.clone());
                for part in [&each.loop_cond, &each.loop_step, &each.result] {
                    self.visit(part)?;
                }
                self.bound.truncate(around);
                // `map` and `filter` begin with an empty list and give a list.
                match start.type_name() {
                    Some("list") => Ok(start.without_sample()),
                    _ => Ok(Known::Nothing),
                }
            }
            Expr::List(_) | Expr::Map(_) => {
                let items = self.visit_children(node)?;
                let is_list = matches!(node.expr, Expr::List(_));
                let name = if is_list { "list" } else { "map" }.to_owned();
                if items.iter().all(Known::is_sample) {
                    Ok(Known::Sample(name))
                } else {
                    Ok(Known::Type(name))
                }
            }
            Expr::Struct(strct) => refuse(format!("unknown message type {:?}", strct.type_name)),
            Expr::Unspecified => refuse("the expression is incomplete"),
        }
    }

    fn visit_children(&mut self, node: &Expression) -> Result<Vec<Known>, Problem> {
        let children = children(node).into_iter();
        children.map(|child| self.visit(child)).collect()
    }

    fn identifier(&mut self, node: &Expression, name: &str) -> Result<Known, Problem> {
        if self.is_bound(name) || name.starts_with('@') {
            return Ok(Known::Nothing);
        }
        match self.variable(name) {
            Some(variable) => {
                self.reads.variables.insert(variable.name.clone());
                self.evaluate(node)
            }
            // The names of types are values: `type(metadata.year) == int`.
            None if CelValue::resolve_val(node, self.scope).is_ok() => Ok(Known::Nothing),
            None => Err(self.unknown_variable(name)),
        }
    }

    fn call(&mut self, node: &Expression, call: &CallExpr) -> Result<Known, Problem> {
        self.check_function(call)?;
        let operands = self.visit_children(node)?;
        let types: Vec<_> = operands.iter().map(Known::type_name).collect();
        let has_samples = operands.iter().all(Known::is_sample);
        match (call.func_name.as_str(), &types[..]) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => {
                for (child, operand) in children(node).into_iter().zip(&operands) {
                    operand.must_be_bool(child)?;
                }
                Ok(Known::Type("bool".to_owned()))
            }
            (operators::CONDITIONAL, [_, yes, no]) => {
                operands[0].must_be_bool(&call.args[0])?;
                if yes == no {
                    Ok(operands[1].clone().without_sample())
                } else {
                    Ok(Known::Nothing)
                }
            }
            (operators::EQUALS | operators::NOT_EQUALS, [Some(a), Some(b)])
                if !can_be_equal(a, b) =>
            {
                Err(self.never_equal(node, a, b))
            }
            (operators::IN, [Some(item), _]) => {
                self.check_members(node, &call.args[1], item)?;
                self.evaluate_if(has_samples, node)
            }
            // The type of an item can depend on the index, that of a minimum on the values.
            (operators::INDEX, _) if !self.is_score_map(&call.args[0]) => {
                self.evaluate_if(has_samples, node)?;
                Ok(Known::Nothing)
            }
            ("min" | "max", [first, rest @ ..]) if rest.iter().any(|other| other != first) => {
                self.evaluate_if(has_samples, node)?;
                Ok(Known::Nothing)
            }
            ("@matches", _) => {
                self.check_pattern(call)?;
                self.evaluate_if(operands[..2].iter().all(Known::is_sample), node)
            }
            ("@items", _) => self.evaluate_if(operands[0].is_sample(), node),
            _ => self.evaluate_if(has_samples, node),
        }
    }

    /// Refuses `item in [literals]` where no literal can equal the item.
    fn check_members(
        &self,
        node: &Expression,
        list: &Expression,
        item: &str,
    ) -> Result<(), Problem> {
        let Expr::List(list) = &list.expr else {
            return Ok(());
        };
        let mut last = None;
        for element in &list.elements {
            let Expr::Literal(_) = element.expr else {
                return Ok(());
            };
            match self.evaluate(element)?.type_name() {
                Some(found) if !can_be_equal(item, found) => last = Some(found.to_owned()),
                _ => return Ok(()),
            }
        }
        last.map_or(Ok(()), |found| Err(self.never_equal(node, item, &found)))
    }

    fn never_equal(&self, node: &Expression, a: &str, b: &str) -> Problem {
        let types = vec![a.to_owned(), b.to_owned()];
        let error = ExecutionError::no_such_overload(operators::EQUALS, types);
        self.type_problem(&error, node)
    }

    fn evaluate_if(&self, has_samples: bool, node: &Expression) -> Result<Known, Problem> {
        if has_samples {
            self.evaluate(node)
        } else {
            Ok(Known::Nothing)
        }
    }

    /// Evaluates an expression on the sample values.
    ///
    /// # Errors
    ///
    /// Fails when the types do not fit. Other errors depend on the values.
    fn evaluate(&self, node: &Expression) -> Result<Known, Problem> {
        self.samples.refill_budget();
        match CelValue::resolve_val(node, self.scope) {
            Ok(value) => Ok(Known::Sample(value.get_type().name().to_owned())),
            Err(ExecutionError::NoSuchKey(_)) if self.lacks_output(node) => self.no_output(node),
            Err(
                error @ (ExecutionError::NoSuchOverload(_) | ExecutionError::UnexpectedType { .. }),
            ) => Err(self.type_problem(&error, node)),
            Err(_) => Ok(Known::Nothing),
        }
    }

    /// Compiles a pattern that is part of the rule.
    fn check_pattern(&self, call: &CallExpr) -> Result<(), Problem> {
        let Expr::Literal(_) = call.args[1].expr else {
            return Ok(());
        };
        let mut call = call.clone();
        call.args[0].expr = Expr::Literal(LiteralValue::String("".into()));
        let node = unplaced(Expr::Call(call));
        match CelValue::resolve_val(&node, self.scope) {
            Err(ExecutionError::FunctionError { message, .. }) => refuse(message),
            _ => Ok(()),
        }
    }

    /// Checks that a function exists, by calling it without arguments.
    fn check_function(&self, call: &CallExpr) -> Result<(), Problem> {
        let name = &call.func_name;
        let is_operator = |char: char| !char.is_ascii_alphanumeric() && char != '_';
        if name.contains(is_operator) {
            return Ok(());
        }
        let null = || Box::new(unplaced(Expr::Literal(LiteralValue::Null)));
        let probe = unplaced(Expr::Call(CallExpr {
            func_name: name.clone(),
            target: call.target.as_ref().map(|_| null()),
            args: Vec::new(),
        }));
        match CelValue::resolve_val(&probe, self.scope) {
            Err(ExecutionError::UndeclaredReference(_)) => Err(unknown_function(name)),
            _ => Ok(()),
        }
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }

    fn is_score_map(&self, node: &Expression) -> bool {
        !self.outputs(node).is_empty()
    }

    /// Returns the outputs of the step that an expression names or selects from.
    fn outputs(&self, node: &Expression) -> &[String] {
        let Some(path) = path(node).filter(|path| !self.is_bound(path.root)) else {
            return &[];
        };
        match self.variable(path.root).map(|variable| &variable.kind) {
            Some(VariableKind::ScoreMap(outputs)) => outputs,
            _ => &[],
        }
    }

    /// Returns whether an expression selects an output that its step does not have.
    fn lacks_output(&self, node: &Expression) -> bool {
        match &node.expr {
            Expr::Select(select) => {
                self.is_score_map(node) && !self.outputs(node).contains(&select.field)
            }
            _ => self.is_score_map(node),
        }
    }

    fn no_output(&self, node: &Expression) -> Result<Known, Problem> {
        let path = path(node).map(|path| path.text).unwrap_or_default();
        Err(Problem {
            message: format!("unknown score {path}"),
            hint: Some(format!("outputs: {}", self.outputs(node).join(", "))),
        })
    }

    /// Returns the problem for types that do not fit, with a hint where a step has outputs.
    fn type_problem(&self, error: &ExecutionError, node: &Expression) -> Problem {
        let step = children(node)
            .into_iter()
            .find(|child| matches!(child.expr, Expr::Ident(_)) && self.is_score_map(child));
        let hint = step.and_then(|step| {
            let output = self.outputs(step).first()?;
            Some(format!("choose an output: {}.{output}", path(step)?.text))
        });
        Problem {
            message: describe(error, Some(node)),
            hint,
        }
    }

    fn unknown_variable(&self, name: &str) -> Problem {
        let names = || self.variables.iter().map(|variable| variable.name.as_str());
        let dashed = names()
            .find(|known| known.contains('_') && self.text.contains(&known.replace('_', "-")));
        let hint = if let Some(known) = dashed {
            format!("`-` is a minus sign in expressions: write {known}")
        } else if self.text.contains(&format!("-{name}")) && self.text.contains("metadata.") {
            format!("`-` is a minus sign in expressions: write metadata[\"…-{name}\"]")
        } else if let Some(near) = nearest(name, names()) {
            format!("did you mean {near}?")
        } else {
            format!("known: {}", names().collect::<Vec<_>>().join(", "))
        };
        Problem {
            message: format!("unknown variable {name:?}"),
            hint: Some(hint),
        }
    }
}

/// Returns an expression that has no place in the rule's text.
fn unplaced(expr: Expr) -> Expression {
    Expression { id: 0, expr }
}

fn unknown_function(name: &str) -> Problem {
    let names = || FUNCTIONS.iter().map(|(name, _)| *name);
    let usage = nearest(name, names()).and_then(|near| {
        let (_, usage) = FUNCTIONS.iter().find(|(name, _)| *name == near)?;
        Some(format!("write {usage}"))
    });
    let all = || format!("functions: {}", names().collect::<Vec<_>>().join(", "));
    Problem {
        message: format!("unknown function {name:?}"),
        hint: Some(usage.unwrap_or_else(all)),
    }
}

/// Returns whether values of two types can be equal. Null equals null, and columns can be null.
fn can_be_equal(a: &str, b: &str) -> bool {
    let is_number = |name| matches!(name, "int" | "uint" | "double");
    a == b || a == "null_type" || b == "null_type" || (is_number(a) && is_number(b))
}

/// Returns the name that differs from `name` by the fewest edits, at most two. Prefers the
/// same first letter.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let limit = (name.len() / 2).min(2);
    known
        .map(|known| (edits(name, known), known.get(..1) != name.get(..1), known))
        .filter(|(edits, ..)| *edits <= limit)
        .min()
        .map(|(.., known)| known)
}

/// Returns the Levenshtein distance, without regard to case.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
