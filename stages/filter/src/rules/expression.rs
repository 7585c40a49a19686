//! Expressions: parsing within limits, and the rewriting that [`super::functions`] describes.

use std::collections::BTreeSet;
use std::mem;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Parser;

use super::functions::PATTERNS;
use super::values::{BUDGET, shorten};
use super::{Problem, refuse};

pub(crate) use cel::IdedExpr as Expression;

/// Characters of an expression.
const MAX_CHARS: usize = 10_000;

/// Levels of the parsed expression. Evaluation recurses this deep.
const MAX_DEPTH: usize = 100;

/// Bytes of stack that parsing [`MAX_CHARS`] needs at most, with a wide margin.
pub(crate) const PARSER_STACK: usize = 64 << 20;

/// Parses and rewrites an expression. Needs [`PARSER_STACK`] bytes of stack.
///
/// # Errors
///
/// Fails when the text is not CEL, is empty, too long or nested too deep.
pub(crate) fn parse(text: &str) -> Result<Expression, Problem> {
    if text.trim().is_empty() {
        return refuse("the expression is empty");
    }
    if text.chars().count() > MAX_CHARS {
        return refuse(format!(
            "the expression is longer than {MAX_CHARS} characters"
        ));
    }
    let mut expression = Parser::new().parse(text).map_err(|errors| {
        let first = errors.errors.first();
        let (position, message) = first.map_or(((1, 1), ""), |error| (error.pos, &*error.msg));
        syntax_problem(text, position, message)
    })?;
    if depth(&expression) > MAX_DEPTH {
        return refuse(TOO_DEEP);
    }
    rewrite(&mut expression);
    Ok(expression)
}

const TOO_DEEP: &str = "the expression is nested too deep";

/// Returns the parser's message in plain words, with a hint for common slips.
fn syntax_problem(text: &str, (line, column): (isize, isize), message: &str) -> Problem {
    if message.contains("Recursion limit") {
        return Problem::new(TOO_DEEP);
    }
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting ").next().unwrap_or_default();
    let message = message
        .replace("token recognition error at: ", "unexpected ")
        .replace("mismatched input ", "unexpected ")
        .replace("extraneous input ", "unexpected ")
        .replace("'<EOF>'", "end of expression");
    let place = if text.contains('\n') {
        format!("line {line}, column {column}")
    } else {
        format!("column {column}")
    };
    let hint = if message.contains("unexpected '=") {
        Some("compare with ==, >= or <=")
    } else if message.contains("has()") {
        Some("write has(metadata.field), or 'a-b' in metadata for other keys")
    } else if text.contains('\\') {
        Some(r"write patterns as raw strings: caption.matches(r'\d+')")
    } else if [" and ", " or ", " not "].iter().any(|w| text.contains(w)) {
        Some("CEL writes && for and, || for or, ! for not")
    } else {
        None
    };
    Problem {
        message: format!("syntax error at {place}: {}", shorten(&message, 120)),
        hint: hint.map(str::to_owned),
    }
}

/// Defines a function that returns the direct subexpressions of an expression.
macro_rules! define_children {
    ($name:ident, $iter:ident, $($mutable:tt)?) => {
        pub(crate) fn $name(node: & $($mutable)? Expression) -> Vec<& $($mutable)? Expression> {
            match & $($mutable)? node.expr {
                Expr::Call(call) => {
                    let target = call.target.$iter().map(|target| & $($mutable)? **target);
                    target.chain(call.args.$iter()).collect()
                }
                Expr::Comprehension(each) => vec![
                    & $($mutable)? each.iter_range,
                    & $($mutable)? each.accu_init,
                    & $($mutable)? each.loop_cond,
                    & $($mutable)? each.loop_step,
                    & $($mutable)? each.result,
                ],
                Expr::List(list) => list.elements.$iter().collect(),
                Expr::Map(map) => map
                    .entries
                    .$iter()
                    .flat_map(|entry| match & $($mutable)? entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            vec![& $($mutable)? entry.key, & $($mutable)? entry.value]
                        }
                        EntryExpr::StructField(field) => vec![& $($mutable)? field.value],
                    })
                    .collect(),
                Expr::Select(select) => vec![& $($mutable)? *select.operand],
                Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => vec![],
            }
        }
    };
}

define_children!(children, iter,);
define_children!(children_mut, iter_mut, mut);

fn depth(node: &Expression) -> usize {
    1 + children(node).into_iter().map(depth).max().unwrap_or(0)
}

/// Replaces what CEL evaluates differently from what rules need.
fn rewrite(node: &mut Expression) {
    children_mut(node).into_iter().for_each(rewrite);
    let id = node.id;
    match &mut node.expr {
        Expr::Call(call) => match call.func_name.as_str() {
            // `@result + 1` counts in a loop that CEL made itself.
            _ if call.args.first().is_some_and(is_internal) => {}
            operators::ADD => call.func_name = "@+".to_owned(),
            operators::SUBSTRACT => call.func_name = "@-".to_owned(),
            operators::MULTIPLY => call.func_name = "@*".to_owned(),
            operators::DIVIDE => call.func_name = "@/".to_owned(),
            operators::MODULO => call.func_name = "@%".to_owned(),
            "double" => node.expr = self::call("@finite", vec![mem::take(node)]),
            "matches" if call.args.len() + usize::from(call.target.is_some()) == 2 => {
                let target = call.target.take().map(|target| *target);
                let mut args: Vec<_> = target
                    .into_iter()
                    .chain(mem::take(&mut call.args))
                    .collect();
                args.push(identifier(id, PATTERNS));
                node.expr = self::call("@matches", args);
            }
            _ => {}
        },
        Expr::Comprehension(each) => {
            let range = mem::take(&mut each.iter_range);
            each.iter_range = Expression {
                id,
                expr: self::call("@items", vec![range, identifier(id, BUDGET)]),
            };
        }
        _ => {}
    }
}

fn call(name: &str, args: Vec<Expression>) -> Expr {
    Expr::Call(CallExpr {
        func_name: name.to_owned(),
        target: None,
        args,
    })
}

pub(crate) fn identifier(id: u64, name: &str) -> Expression {
    Expression {
        id,
        expr: Expr::Ident(name.to_owned()),
    }
}

fn is_internal(node: &Expression) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name.starts_with('@'))
}

/// Adds the names that an expression reads from outside: all but the variables of its own loops.
/// `bound` are the variables of the loops around it.
pub(crate) fn add_free_names<'e>(
    node: &'e Expression,
    bound: &mut Vec<&'e str>,
    names: &mut BTreeSet<String>,
) {
    match &node.expr {
        Expr::Ident(name) if !is_internal(node) && !bound.contains(&name.as_str()) => {
            names.insert(name.clone());
        }
        Expr::Comprehension(each) => {
            add_free_names(&each.iter_range, bound, names);
            add_free_names(&each.accu_init, bound, names);
            let around = bound.len();
            bound.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
            bound.extend(each.iter_var2.as_deref());
            for part in [&each.loop_cond, &each.loop_step, &each.result] {
                add_free_names(part, bound, names);
            }
            bound.truncate(around);
        }
        _ => {
            for child in children(node) {
                add_free_names(child, bound, names);
            }
        }
    }
}

/// A variable, or a field of one, as it is written: `metadata.sizes[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'e> {
    /// The variable.
    pub(crate) root: &'e str,
    /// The field of the variable, where the path begins with one.
    pub(crate) field: Option<&'e str>,
    /// The whole path.
    pub(crate) text: String,
}

/// Returns the path that an expression spells, `None` for any other expression.
pub(crate) fn path(node: &Expression) -> Option<Path<'_>> {
    let (operand, field, suffix) = match &node.expr {
        Expr::Ident(name) if !is_internal(node) => {
            return Some(Path {
                root: name,
                field: None,
                text: name.clone(),
            });
        }
        Expr::Select(select) => {
            let suffix = format!(".{}", select.field);
            (&*select.operand, Some(select.field.as_str()), suffix)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match &call.args[..] {
            [operand, key] => match &key.expr {
                Expr::Literal(LiteralValue::String(key)) => {
                    (operand, Some(key.inner()), format!("[{:?}]", key.inner()))
                }
                Expr::Literal(LiteralValue::Int(index)) => {
                    (operand, None, format!("[{}]", index.inner()))
                }
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    let operand_path = path(operand)?;
    let is_first = matches!(operand.expr, Expr::Ident(_));
    Some(Path {
        root: operand_path.root,
        field: if is_first { field } else { operand_path.field },
        text: operand_path.text + &suffix,
    })
}
