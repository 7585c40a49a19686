#!/usr/bin/env python3
"""Makes the Argo files of this folder from `sluice dag`.

    generate.py                    writes them
    generate.py --check            exits with 1 where they are not up to date, and writes nothing
    generate.py --commands         prints each container's command line with its parameters filled in: one JSON array a line
    generate.py --dag FILE         takes what `sluice dag` printed from FILE (or `-`) instead of running the program
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from definition import (
    CONTAINER_SECURITY,
    DEADLINE_SECONDS,
    POD_SECURITY,
    Comment,
    Flow,
    default,
    documents,
    load,
    parameters,
    stages,
    version,
    write,
)

HERE = Path(__file__).resolve().parent
IMAGE = "sluice"  # holds all programs; the Kustomization says where it comes from
RESULT = "/tmp/result.json"
MAX_TASKS = "64"
PARALLELISM = 600  # more than any step asks for with max-tasks 256, two steps at a time: a fuse
RUN_HELP = "Where the run's manifests go: a URI prefix. Submit again with the same one to resume"

GENERATED = "Made by generate.py from `sluice dag`; change the DAG or the generator, not this file."


# ---------------------------------------------------------------------------------------- expressions


def counted(dag: dict, step: dict) -> str | None:
    """The Argo expression for the number of tasks that a step fans out into; none: one."""
    counter = step["counted_by"]
    if counter is None:
        return None
    most = "asInt(workflow.parameters['max-tasks'])"
    if "parameter" in counter:
        units = f"asInt(sprig.default('1', workflow.parameters['{counter['parameter']}']))"
    else:
        result = f"tasks['{counter['step']}'].outputs.parameters.result"
        units = f"asInt(jsonpath({result}, '$.fan_out.{step['fan_out']}'))"
    # At least one: a step without units still runs, and says so.
    return f"max(1, min({most}, {units}))"


def retry(dag: dict) -> dict:
    policy = dag["retry"]
    codes = ", ".join(f"'{code}'" for code in [*policy["exit_codes"], -1])
    return {
        Comment("75: storage or network; 137 and 143: killed; -1: unknown, the pod is gone; Error: the node is.\n"
                "Never a bug (1), wrong usage (2), or data that cannot be used (3)."): None,
        "limit": str(policy["limit"]),
        "retryPolicy": "Always",
        "expression": f"lastRetry.exitCode in [{codes}] || "
        "(lastRetry.status == 'Error' && lastRetry.exitCode not in ['1', '2', '3'])",
        "backoff": Flow({"duration": f"{policy['first_seconds']}s", "factor": "2", "cap": f"{policy['longest_seconds']}s"}),
    }  # fmt: skip


# --------------------------------------------------------------------------------------- the templates


def input_parameter(name: str, help: str, value: str | None) -> Flow:
    entry = {"name": name, "description": help}
    if value is not None:
        entry = {"name": name, "value": value, "description": help}
    return Flow(entry)


def inputs(dag: dict, step: dict) -> list:
    known = parameters(dag)
    # No descriptions here: Argo would keep them with every pod's status.
    entries = [{"name": "run"}]
    if step["counted_by"]:
        entries += [{"name": "task-index", "value": "0"}, {"name": "task-count", "value": "1"}]
    for argument in step["arguments"]:
        parameter = known[argument["parameter"]]
        value = default(parameter)
        entries.append({"name": parameter["name"]} | ({} if value is None else {"value": value}))
    shares = [Comment("Task `task-index`, from 0, of `task-count` takes its share of the work.")] if step["counted_by"] else []
    return [*shares, *map(Flow, entries)]


def pod(dag: dict, step: dict) -> dict:
    """The template of a step: one pod, one program, its share of the work."""
    known = parameters(dag)
    many = [a for a in step["arguments"] if known[a["parameter"]]["many"]]
    args = [step["subcommand"]] if step["subcommand"] else []
    args.append("--run={{inputs.parameters.run}}")
    if step["counted_by"]:
        args += [f"--{name}={{{{inputs.parameters.{name}}}}}" for name in ("task-index", "task-count")]
    for argument in step["arguments"]:
        name = argument["parameter"]
        args += [argument["flag"], f"@/etc/sluice/{name}"] if argument in many else [f"{argument['flag']}={{{{inputs.parameters.{name}}}}}"]
    args += ["--result", RESULT]
    resources = dag["resources"][step["resources"]]
    size = {"cpu": str(resources["cpus"]), "memory": f"{resources['memory_mib']}Mi"}
    labels = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": step["name"], "sluice/resources": step["resources"]}
    take: dict = {"parameters": inputs(dag, step)}
    if many:
        take["artifacts"] = [
            Comment("Any number of them, of any length: the program reads the file (`@FILE`), one argument a line."),
            *(Flow({"name": a["parameter"], "path": f"/etc/sluice/{a['parameter']}", "raw": {"data": f"{{{{inputs.parameters.{a['parameter']}}}}}"}})
              for a in many),
        ]  # fmt: skip
    template = {
        "name": step["name"],
        "metadata": {"labels": Flow(labels)},
        "inputs": take,
    }
    if not step["counted_by"]:
        template["outputs"] = {
            "parameters": [
                Comment("The program's JSON result. Tasks that fan out give none: hundreds of them would not fit into a workflow."),
                Flow({"name": "result", "valueFrom": {"path": RESULT}}),
            ]
        }
    template |= {
        "retryStrategy": retry(dag),
        "activeDeadlineSeconds": str(DEADLINE_SECONDS),
        "securityContext": Flow(POD_SECURITY),
        "volumes": [
            Comment("The only place that can be written to: for the result."),
            Flow({"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}),
        ],
        "container": {
            "image": f"{IMAGE}:{version()}",
            "command": Flow([step["program"]]),
            "args": args,
            "envFrom": [
                Comment("Credentials and endpoints of the object stores, SLUICE_MODELS and other SLUICE_ variables."),
                Flow({"configMapRef": {"name": "sluice-store", "optional": True}}),
                Flow({"secretRef": {"name": "sluice-store", "optional": True}}),
            ],
            "resources": {
                Comment(f"Class {step['resources']}. The programs take as many threads as the limit grants CPUs."): None,
                "requests": Flow(size),
                "limits": Flow(size),
            },
            "securityContext": Flow(CONTAINER_SECURITY),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [Flow({"name": "tmp", "mountPath": "/tmp"})],
        },
    }
    return template


def task(dag: dict, step: dict, names: set[str], alone: bool) -> dict:
    """A step as a task of a DAG: of its own stage's (`alone`), or of all."""
    entry: dict = {"name": step["name"]}
    after = [name for name in step["after"] if name in names]
    if after:
        entry["depends"] = " && ".join(after)
    if alone:
        entry["template"] = step["name"]
    else:
        entry["templateRef"] = Flow({"name": f"sluice-{step['stage']}", "template": step["name"]})
    arguments = [Flow({"name": "run", "value": "{{workflow.parameters.run}}"})]
    count = counted(dag, step)
    if count:
        tasks = "{{workflow.parameters.tasks}}" if alone else f"{{{{={count}}}}}"
        entry["withSequence"] = {"count": tasks}
        arguments += [Flow({"name": "task-index", "value": "{{item}}"}), Flow({"name": "task-count", "value": tasks})]
    arguments += [
        Flow({"name": a["parameter"], "value": f"{{{{workflow.parameters.{a['parameter']}}}}}"}) for a in step["arguments"]
    ]
    entry["arguments"] = {"parameters": arguments}
    return entry


def workflow_arguments(dag: dict, steps: list[dict], first: list[Flow]) -> dict:
    used = {argument["parameter"] for step in steps for argument in step["arguments"]}
    wanted = [parameter for parameter in dag["parameters"] if parameter["name"] in used]
    entries = [
        input_parameter(p["name"], p["help"] + ("; one a line" if p["many"] else ""), default(p))
        for p in sorted(wanted, key=lambda p: not p["required"])
    ]
    return {"parameters": [input_parameter("run", RUN_HELP, None), *entries, *first]}


def housekeeping() -> dict:
    return {
        "serviceAccountName": "sluice",
        "parallelism": PARALLELISM,
        "podGC": Flow({"strategy": "OnPodSuccess", "deleteDelayDuration": "60s"}),
        "ttlStrategy": Flow({"secondsAfterSuccess": 7 * 86400, "secondsAfterFailure": 30 * 86400}),
    }


def stage_template(dag: dict, stage: str) -> str:
    steps = [step for step in dag["steps"] if step["stage"] == stage]
    names = {step["name"] for step in steps}
    fans_out = any(step["counted_by"] for step in steps)
    tasks = [input_parameter("tasks", "Pods that share the work of each step that fans out", "1")] if fans_out else []
    example = f"argo submit --from workflowtemplate/sluice-{stage} -p run=s3://bucket/runs/a{' -p tasks=8' if fans_out else ''}"
    header = f"Stage {stage}: {', '.join(step['name'] for step in steps)}.\n{GENERATED}\n\n  {example}"
    value = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {
            "name": f"sluice-{stage}",
            "labels": Flow({"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": stage}),
        },
        "spec": {
            "entrypoint": "all",
            **housekeeping(),
            "arguments": workflow_arguments(dag, steps, tasks),
            "templates": [
                Comment("For this stage alone. `sluice-curate`, and DAGs of your own, refer to the templates below it."),
                {"name": "all", "dag": {"tasks": [task(dag, step, names, alone=True) for step in steps]}},
                *(pod(dag, step) for step in steps),
            ],
        },
    }
    return documents(header, value)


def curate_template(dag: dict) -> str:
    steps = dag["steps"]
    names = {step["name"] for step in steps}
    # The last step whose counts are the run's.
    summary = next(step["name"] for step in reversed(steps) if step["stage"] == "export" and not step["counted_by"])
    most = input_parameter("max-tasks", "Pods that share the work of a step, at most; a step with less to do gets fewer", MAX_TASKS)
    header = f"""The whole DAG.
{GENERATED}

  argo submit --from workflowtemplate/sluice-curate -p run=s3://bucket/runs/a -p input=s3://bucket/raw -p output=s3://bucket/curated

Submitted again with the same run it resumes: what is up to date is left alone."""
    value = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {
            "name": "sluice-curate",
            "labels": Flow({"app.kubernetes.io/name": "sluice"}),
            "annotations": Flow({"workflows.argoproj.io/description": "Curates an image dataset: shards in, a smaller and better dataset out."}),
        },
        "spec": {
            "entrypoint": "curate",
            **housekeeping(),
            "workflowMetadata": {"annotations": Flow({"workflows.argoproj.io/title": "Curate {{workflow.parameters.run}}"})},
            "synchronization": {
                Comment("One workflow at a time works on a run. Two would do no harm, and the work twice."): None,
                "mutexes": [Flow({"name": "sluice-{{=sprig.trunc(32, sprig.sha256sum(workflow.parameters.run))}}"})],
            },
            "arguments": workflow_arguments(dag, steps, [most]),
            "templates": [
                {
                    "name": "curate",
                    "outputs": {
                        "parameters": [
                            Comment("What came in, what stayed, and what was dropped for which reason."),
                            Flow({"name": "result", "valueFrom": {"parameter": f"{{{{tasks.{summary}.outputs.parameters.result}}}}"}}),
                        ]
                    },
                    "dag": {
                        "tasks": [
                            Comment("How many tasks a step has is known when the step that counts its units is done; its result tells."),
                            *(task(dag, step, names, alone=False) for step in steps),
                        ]
                    },
                }
            ],
        },
    }  # fmt: skip
    return documents(header, value)


def cluster_patch(dag: dict) -> str:
    patch = [
        Flow({"op": "replace", "path": "/kind", "value": "ClusterWorkflowTemplate"}),
        *(Flow({"op": "add", "path": f"/spec/templates/0/dag/tasks/{i}/templateRef/clusterScope", "value": True})
          for i in range(len(dag["steps"]))),
    ]  # fmt: skip
    return documents("Every templateRef of sluice-curate looks for a ClusterWorkflowTemplate.\n" + GENERATED, patch)


def files(dag: dict) -> dict[Path, str]:
    made = {HERE / f"{stage}.yaml": stage_template(dag, stage) for stage in stages(dag)}
    made[HERE / "curate.yaml"] = curate_template(dag)
    made[HERE / "components/cluster/curate.yaml"] = cluster_patch(dag)
    return made


# -------------------------------------------------------------------------------------- command lines

# A value for every parameter, for a check of the command lines by the programs' own parsers.
SAMPLES = {
    "URI": "s3://bucket/place",
    "MODEL": "clip-vit-l14",
    "SCORE": "0.5",
    "EPS": "0.15",
    "PRECISION": "int8",
    "RANKING": "best",
    "N": "8",
    "BITS": "4",
    "PIXELS": "200",
    "RATIO": "3.5",
    "BYTES": "1000000000",
    "": "true",
}


def commands(dag: dict, folder: Path) -> list[list[str]]:
    """Every container's command line in the YAML files of a folder, first as it is without optional parameters (those options are
    left out, as the programs do), then with all. Read back from the files."""
    import yaml

    values = {p["name"]: SAMPLES[p["value"]] for p in dag["parameters"]}
    values |= {"run": "s3://bucket/runs/a", "task-index": "3", "task-count": "8", "tasks": "8"}
    # These exclude each other.
    either = {"images-per-shard", "bytes-per-shard"}
    optional = {p["name"]: default(p) for p in dag["parameters"] if default(p) is not None}
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for container in containers(document):
                for filled in (values | optional, values | {"bytes-per-shard": ""}, values | {"images-per-shard": ""}):
                    line = [fill(word, filled) for word in container["command"] + container.get("args", [])]
                    line = [word for word in line if not (word.startswith("--") and word.endswith("="))]
                    line = [values["input"] if word.startswith("@") else word for word in line]
                    if line not in found:
                        found.append(line)
    assert either <= set(values)
    return found


def containers(value) -> list[dict]:
    if isinstance(value, dict):
        own = [value] if "image" in value and "command" in value else []
        return own + [c for entry in value.values() for c in containers(entry)]
    return [c for entry in value for c in containers(entry)] if isinstance(value, list) else []


def fill(word: str, values: dict) -> str:
    """Argo's `{{inputs.parameters.NAME}}` and Kubernetes' `$(NAME)`."""
    return re.sub(r"\{\{(?:inputs|workflow)\.parameters\.([\w-]+)\}\}|\$\(([\w-]+)\)", lambda m: values[m[1] or m[2]], word)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dag", metavar="FILE", help="what `sluice dag` printed")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not up to date")
    parser.add_argument("--commands", action="store_true", help="print the containers' command lines (needs PyYAML)")
    args = parser.parse_args()
    dag = load(args.dag)
    if args.commands:
        for line in commands(dag, HERE):
            print(json.dumps(line))
        return 0
    return write(files(dag), args.check)


if __name__ == "__main__":
    sys.exit(main())
