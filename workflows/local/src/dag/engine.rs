//! The common parts of all engines' files: the image, command lines, names, and text in YAML.

use super::{Dag, DagNode, DagParameter, PodResources};
use crate::pipeline::Pipeline;
use sluice_manifest::{Error, Result};
use sluice_store::Location;

/// The image that contains all programs.
pub(super) const IMAGE: &str = concat!("sluice:", env!("CARGO_PKG_VERSION"));

/// The time limit of a task. A task that takes longer hangs, or should have been divided.
pub(super) const DEADLINE_SECONDS: u32 = 3 * 24 * 3600;

/// The default number of pods that share the work of a node.
pub(super) const TASKS: u32 = 64;

/// The help of the parameter `run`.
pub(super) const RUN_HELP: &str =
    "Where the run's manifests go: a URI prefix. Use the same one again to resume a run";

/// Parameters that the engines add.
const ADDED: [&str; 5] = ["run", "tasks", "max-tasks", "gpus", "known"];

/// A piece of a command line word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece<'a> {
    /// Literal text. The program must receive it unchanged.
    Text(&'a str),
    /// The value of a parameter.
    Value(&'a str),
}

/// The arguments that the pipeline defines.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    /// The words after the program's name.
    pub words: Vec<String>,
    /// The parameters with any number of values. The program reads them from `/etc/sluice/<name>`,
    /// one value per line.
    pub files: Vec<&'a str>,
}

/// Returns a node's arguments: the subcommand, then the engine's own words, then the pipeline's.
/// `write` formats each piece.
///
/// # Errors
/// Fails if a word is not an option, or if a parameter with several values is only part of a word.
pub(super) fn arguments<'a>(
    dag: &'a Dag,
    node: &'a DagNode,
    own: impl IntoIterator<Item = String>,
    write: fn(Piece<'_>) -> String,
) -> Result<Arguments<'a>> {
    let mut arguments = Arguments::default();
    arguments.words.extend(node.subcommand.clone());
    arguments.words.extend(own);
    for word in &node.arguments {
        // The programs read any other word that begins with `@` as a file of arguments.
        if !word.starts_with("--") {
            let text = format!("{}: {word:?} is not an option", node.name);
            return Err(Error::bug(text));
        }
        let pieces = pieces(dag, word);
        match (many(dag, &pieces), pieces.as_slice()) {
            (None, pieces) => {
                let written = pieces.iter().map(|piece| write(*piece));
                arguments.words.push(written.collect());
            }
            (Some(name), [Piece::Text(flag), Piece::Value(_)]) if flag.ends_with('=') => {
                let flag = flag.trim_end_matches('=').to_owned();
                arguments
                    .words
                    .extend([flag, format!("@/etc/sluice/{name}")]);
                arguments.files.push(name);
            }
            (Some(name), _) => {
                let text = format!("{}: {word:?}: {name} has several values", node.name);
                return Err(Error::usage(text).hint(format!("write \"${{{name}}}\" alone")));
            }
        }
    }
    Ok(arguments)
}

/// Returns the first parameter with any number of values.
fn many<'a>(dag: &Dag, pieces: &[Piece<'a>]) -> Option<&'a str> {
    let is_many = |name: &str| dag.parameters.iter().any(|p| p.many && p.name == name);
    pieces.iter().find_map(|piece| match piece {
        Piece::Value(name) if is_many(name) => Some(*name),
        _ => None,
    })
}

/// Splits a text at its placeholders. `${name}` is text where the pipeline has no parameter `name`.
pub(super) fn pieces<'a>(dag: &Dag, text: &'a str) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(open) = text[from..].find("${").map(|at| from + at) {
        from = open + 2;
        let name = text[from..].split_once('}').map(|(name, _)| name);
        let known = |name: &&str| dag.parameters.iter().any(|p| p.name == *name);
        if let Some(name) = name.filter(known) {
            pieces.extend([Piece::Text(&text[start..open]), Piece::Value(name)]);
            from += name.len() + 1;
            start = from;
        }
    }
    pieces.push(Piece::Text(&text[start..]));
    pieces.retain(|piece| *piece != Piece::Text(""));
    pieces
}

/// Returns the value of a parameter that was not given; `None` if it is required. The programs
/// ignore an option with an empty value.
pub(super) fn default(parameter: &DagParameter) -> Option<&str> {
    match &parameter.default {
        _ if parameter.required => None,
        Some(default) => Some(default),
        None if parameter.switch => Some("false"),
        None => Some(""),
    }
}

/// Returns the requirements of a pipeline's pods beyond the image, one per line: the user's own
/// programs, and files on a local disk.
pub(super) fn needs_of_image(pipeline: &Pipeline) -> Vec<String> {
    let mut needs = Vec::new();
    for node in &pipeline.nodes {
        let command = node.argument("command");
        if !command.is_empty() {
            needs.push(format!(
                "step {}: the image must have what its command runs: {command}",
                node.step
            ));
        }
        for flag in ["import", "model"] {
            let value = node.argument(flag);
            // A model without a slash is a catalogue name.
            let is_path = value.contains('/') || flag == "import";
            let is_local = Location::parse(value).is_ok_and(|place| place.as_local().is_some());
            if is_path && is_local && !value.is_empty() && !value.contains("${") {
                needs.push(format!(
                    "step {}: pods do not see the local {flag} {value}; put it into an object store",
                    node.step
                ));
            }
        }
    }
    needs
}

/// Returns the parameters, the required ones first.
pub(super) fn parameters(dag: &Dag) -> Vec<&DagParameter> {
    let mut parameters: Vec<&DagParameter> = dag.parameters.iter().collect();
    parameters.sort_by_key(|parameter| !parameter.required);
    parameters
}

/// Returns the help of a parameter.
pub(super) fn help(parameter: &DagParameter) -> String {
    if parameter.many {
        format!("{}; one per line", parameter.help)
    } else {
        parameter.help.clone()
    }
}

/// Returns the resources of a node's class.
///
/// # Errors
/// Fails if the DAG has no such class.
pub(super) fn resources(dag: &Dag, node: &DagNode) -> Result<PodResources> {
    let found = dag.resources.get(&node.resources).copied();
    let class = &node.resources;
    found.ok_or_else(|| Error::bug(format!("{}: no class of resources {class}", node.name)))
}

/// Checks that the names in a DAG are valid names of Kubernetes objects, and of templates and
/// parameters in Argo.
///
/// # Errors
/// Fails if one is not valid.
pub(super) fn check_names(dag: &Dag) -> Result<()> {
    check_object("pipeline", &dag.name)?;
    for node in &dag.steps {
        check_object("step", &node.name)?;
    }
    for DagParameter { name, .. } in &dag.parameters {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letters) {
            let text = format!("parameter {name:?} cannot be a variable of a pod");
            let hint = "use lower-case letters, digits, `-` and `_`, a letter first";
            return Err(Error::usage(text).hint(hint));
        }
        if ADDED.contains(&name.as_str()) {
            let text = format!("parameter {name:?}: the engines' files have one of that name");
            return Err(Error::usage(text).hint("choose another name"));
        }
    }
    Ok(())
}

/// The longest name of a node. A Job's name has at most 63 characters: `sluice-`, the node, and the
/// number of a pod.
const LONGEST_NAME: usize = 50;

fn check_object(what: &str, name: &str) -> Result<()> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fine = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(letters)
        && !name.ends_with('-');
    if fine {
        return Ok(());
    }
    let text = format!("{what} {name:?} cannot be the name of an object in Kubernetes");
    let hint = format!(
        "use at most {LONGEST_NAME} lower-case letters, digits and `-`, a letter first and no `-` at the end"
    );
    Err(Error::usage(text).hint(hint))
}

/// Returns a text as a quoted YAML string on one line.
///
/// The form is JSON's, except for characters that YAML allows only as escapes or reads as line
/// ends.
pub(super) fn quote(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let escape = |c: char| {
        if is_printable(c) {
            c.to_string()
        } else {
            format!("\\u{:04x}", u32::from(c))
        }
    };
    json.chars().map(escape).collect()
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !"\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}".contains(c)
}

/// Returns a text as a comment on one line, without its `#`.
pub(super) fn comment(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || !is_printable(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_unknown_parameters_are_text() {
        let dag = Dag::of(&crate::pipeline::default().unwrap());
        for (text, expected) in [
            ("", vec![]),
            (
                "--eps=${eps}",
                vec![Piece::Text("--eps="), Piece::Value("eps")],
            ),
            (
                "${eps}${keep}",
                vec![Piece::Value("eps"), Piece::Value("keep")],
            ),
            ("a${b}$", vec![Piece::Text("a${b}$")]),
            ("${", vec![Piece::Text("${")]),
            (
                "${${eps}}",
                vec![Piece::Text("${"), Piece::Value("eps"), Piece::Text("}")],
            ),
        ] {
            assert_eq!(pieces(&dag, text), expected, "{text}");
        }
    }

    #[test]
    fn strings_of_yaml_hold_what_yaml_does_not_print() {
        assert_eq!(quote("a \"b\"\n\\ é 😀"), r#""a \"b\"\n\\ é 😀""#);
        assert_eq!(
            quote("\u{7f}\u{85}\u{2028}\u{feff}"),
            r#""\u007f\u0085\u2028\ufeff""#
        );
        assert_eq!(
            comment("two\nlines\u{85}and # more"),
            "two lines and # more"
        );
    }

    #[test]
    fn names_must_fit_kubernetes() {
        for name in ["", "Read", "a_b", "1a", "a-", "a.b", &"a".repeat(51)] {
            assert!(check_object("step", name).is_err(), "{name}");
        }
        assert!(check_object("step", &"a".repeat(50)).is_ok());
    }
}

/// Models of the readers of these files, for tests: they apply the substitutions that happen before
/// a program runs.
#[cfg(test)]
pub(super) mod readers {
    use std::collections::BTreeMap;

    use crate::dag::Dag;

    /// Values of parameters or variables, by name.
    pub(crate) type TextValues = BTreeMap<String, String>;

    /// Texts with a special meaning in YAML, Argo, Kubernetes, shells or the programs.
    pub(crate) const TEXTS: [&str; 20] = [
        "plain",
        "",
        "it's \"quoted\" \\ \\\\ \\n",
        "two\nlines\r\n\ttab",
        "{{workflow.parameters.run}}",
        "{{=1 + 1}} {{unknown}} {{ {{{x}}} }} }} { {",
        "${run} ${nothing} ${ $",
        "$(run) $(HOME) $(BRACE) $( $$ $$$ $$(run) $é",
        "@/etc/passwd",
        "- # : yes null 1e3 ~ & * ! | > %",
        "é ü 漢字 😀 \u{a0}\u{200b}",
        "\u{7f}\u{85}\u{2028}\u{2029}\u{feff}",
        "{",
        "}",
        "{{",
        "$",
        "$$",
        "metadata.license in ['cc0', \"cc-by\"] && {'a': 1}['a'] == 1",
        "<% if x %>{{ x }}<{ x }>",
        " spaces ",
    ];

    /// Returns the default pipeline with a parameter `mine` of the given default. One option of the
    /// first node has the text between two of its values.
    pub(crate) fn pipeline(text: &str) -> Dag {
        let mut dag = Dag::of(&crate::pipeline::default().unwrap());
        let mut mine = dag.parameters[2].clone();
        mine.name = "mine".to_owned();
        mine.default = Some(text.to_owned());
        mine.help = format!("help: {text}");
        dag.parameters.push(mine);
        dag.steps[0].arguments = vec![format!("--text=${{mine}}{text}${{mine}}")];
        dag
    }

    /// Returns the word that the program must receive.
    pub(crate) fn expected(text: &str) -> String {
        format!("--text={text}{text}{text}")
    }

    /// Returns the string that begins with `begin` and follows `before` on a line of YAML.
    pub(crate) fn string(yaml: &str, before: &str, begin: &str) -> String {
        let full = format!("{before}\"{begin}");
        let line = yaml
            .lines()
            .find(|line| line.trim_start().starts_with(&full));
        let line = line.unwrap_or_else(|| panic!("no {full}"));
        let rest = &line.trim_start()[before.len()..];
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        strings.next().unwrap().unwrap()
    }

    /// Replaces tags as Argo does: twice in the text of a template, including text that the first
    /// pass inserted.
    pub(crate) fn argo(text: &str, values: &TextValues) -> String {
        let once = |text: &str| {
            let mut parts = text.split("{{");
            let mut out = parts.next().unwrap().to_owned();
            for part in parts {
                let (tag, rest) = part
                    .split_once("}}")
                    .unwrap_or_else(|| panic!("no end: {part}"));
                let name = tag
                    .strip_prefix("workflow.parameters.")
                    .unwrap_or_else(|| panic!("{tag}"));
                out.extend([values[name].as_str(), rest]);
            }
            out
        };
        once(&once(text))
    }

    /// Replaces variables as Kubernetes does in arguments (`third_party/forked/golang/expansion`).
    pub(crate) fn kubernetes(text: &str, values: &TextValues) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let variable = after
                .strip_prefix('(')
                .and_then(|name| name.split_once(')'));
            (out, rest) = match (after.strip_prefix('$'), variable) {
                (Some(after), _) => (out + "$", after),
                (_, Some((name, after))) => match values.get(name) {
                    Some(value) => (out + value, after),
                    None => (out + &format!("$({name})"), after),
                },
                _ => (out + "$", after),
            };
        }
        out + rest
    }
}
