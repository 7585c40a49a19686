//! `sluice dag`: the DAG as JSON, for what makes workflow engines' files.

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use sluice_harness::Desk;
use sluice_manifest::dag::{CountedBy, PARAMETERS, Parameter, Resources, STEPS, Step, retry};

/// Print the DAG as JSON: its parameters, its steps, what they wait for, and how they are told
///
/// The files of the workflow engines are made from it.
///
/// Example: sluice dag
#[derive(Debug, Args)]
pub struct DagArgs {}

/// Prints the DAG.
pub fn dag(_: &DagArgs, desk: &mut Desk<'_>) -> Result<()> {
    let json = serde_json::to_string_pretty(&definition())?;
    Ok(writeln!(desk.out, "{json}")?)
}

/// The DAG.
pub fn definition() -> Value {
    let resources: Map<String, Value> = Resources::ALL
        .into_iter()
        .map(|kind| {
            let (cpus, mebibytes) = kind.requests();
            let requests = json!({ "cpus": cpus, "memory_mib": mebibytes });
            (kind.as_str().to_owned(), requests)
        })
        .collect();
    json!({
        "parameters": PARAMETERS.iter().map(parameter).collect::<Vec<_>>(),
        "steps": STEPS.iter().map(step).collect::<Vec<_>>(),
        "resources": resources,
        "retry": {
            "limit": retry::LIMIT,
            "first_seconds": retry::FIRST_SECONDS,
            "longest_seconds": retry::LONGEST_SECONDS,
            "exit_codes": retry::EXIT_CODES,
        },
    })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "variable": parameter.variable,
        "value": parameter.value,
        "switch": parameter.value.is_empty(),
        "default": parameter.default,
        "required": parameter.required,
        "many": parameter.many,
        "help": parameter.help,
    })
}

fn step(step: &Step) -> Value {
    let counted_by = match step.fan_out.counted_by() {
        CountedBy::Nobody => Value::Null,
        CountedBy::Parameter(name) => json!({ "parameter": name }),
        CountedBy::Step(name) => json!({ "step": name }),
    };
    let arguments = step.arguments.iter();
    let arguments = arguments.map(|a| json!({ "flag": a.flag, "parameter": a.parameter }));
    json!({
        "name": step.name,
        "stage": step.stage,
        "program": format!("sluice-{}", step.stage),
        "subcommand": step.subcommand,
        "fan_out": step.fan_out.as_str(),
        "counted_by": counted_by,
        "resources": step.resources.as_str(),
        "after": step.after,
        "arguments": arguments.collect::<Vec<_>>(),
    })
}
