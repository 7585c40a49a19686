#!/usr/bin/env python3
"""Makes the Jobs of this folder from `sluice dag`.

    generate.py                    writes them
    generate.py --check            exits with 1 where they are not up to date, and writes nothing
    generate.py --commands         prints each container's command line with its settings filled in: one JSON array a line
    generate.py --dag FILE         takes what `sluice dag` printed from FILE (or `-`) instead of running the program
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "argo"))

from definition import (  # noqa: E402
    CONTAINER_SECURITY,
    DEADLINE_SECONDS,
    POD_SECURITY,
    Comment,
    Flow,
    default,
    documents,
    load,
    parameters,
    version,
    write,
)

import generate as argo  # noqa: E402  (the one of workflows/argo)

TASKS = 64
GENERATED = "Made by generate.py from `sluice dag`; change the DAG or the generator, not this file."


def job(dag: dict, step: dict) -> dict:
    known = parameters(dag)
    many = [a for a in step["arguments"] if known[a["parameter"]]["many"]]
    args = [step["subcommand"]] if step["subcommand"] else []
    args.append("--run=$(run)")
    if step["counted_by"]:
        args.append("--task-count=$(tasks)")
    for argument in step["arguments"]:
        name = argument["parameter"]
        args += [argument["flag"], f"@/etc/sluice/{name}"] if argument in many else [f"{argument['flag']}=$({name})"]
    resources = dag["resources"][step["resources"]]
    size = {"cpu": str(resources["cpus"]), "memory": f"{resources['memory_mib']}Mi"}
    labels = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": step["name"]}
    policy = dag["retry"]
    if step["counted_by"]:
        shape = {
            Comment("Each pod has its number in JOB_COMPLETION_INDEX, which the programs read as --task-index."): None,
            "completionMode": "Indexed",
            "completions": TASKS,
            "parallelism": TASKS,
            "backoffLimitPerIndex": policy["limit"],
            "maxFailedIndexes": 0,
        }
    else:
        shape = {"backoffLimit": policy["limit"]}
    container = {
        "name": "step",
        "image": f"{argo.IMAGE}:{version()}",
        "command": Flow([step["program"]]),
        "args": args,
        "envFrom": [
            Comment("What $(…) above stands for. Then credentials and endpoints of the object stores."),
            Flow({"configMapRef": {"name": "sluice-run"}}),
            Flow({"configMapRef": {"name": "sluice-store", "optional": True}}),
            Flow({"secretRef": {"name": "sluice-store", "optional": True}}),
        ],
        "resources": {"requests": Flow(size), "limits": Flow(size)},
        "securityContext": Flow(CONTAINER_SECURITY),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": Flow(POD_SECURITY), "containers": [container]}
    if many:
        container["volumeMounts"] = [Flow({"name": "settings", "mountPath": "/etc/sluice", "readOnly": True})]
        items = [{"key": a["parameter"], "path": a["parameter"]} for a in many]
        pod["volumes"] = [Flow({"name": "settings", "configMap": {"name": "sluice-run", "items": items}})]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"sluice-{step['name']}", "labels": Flow(labels)},
        "spec": {
            **shape,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": 7 * 86400,
            "podFailurePolicy": {
                "rules": [
                    Comment("An evicted pod, a lost node: again, and it does not count."),
                    Flow({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}),
                    Comment("A bug, wrong usage, unusable data: the Job fails at once. What is left is tried again."),
                    Flow({"action": "FailJob", "onExitCodes": {"containerName": "step", "operator": "NotIn", "values": policy["exit_codes"]}}),
                ]
            },
            "template": {"metadata": {"labels": Flow(labels)}, "spec": pod},
        },
    }  # fmt: skip


def settings(dag: dict) -> str:
    examples = {"input": "s3://sluice/raw\n", "output": "s3://sluice/curated/a"}
    data: dict = {
        Comment(argo.RUN_HELP): None,
        "run": "s3://sluice/runs/a",
        Comment("Pods that share the work of each step that fans out. More than there is work for do no harm"): None,
        "tasks": str(TASKS),
    }
    for parameter in dag["parameters"]:
        data[Comment(parameter["help"] + ("; one a line" if parameter["many"] else ""))] = None
        data[parameter["name"]] = examples.get(parameter["name"], default(parameter))
    value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sluice-run"}, "data": data}
    return documents(f"What the Jobs are told. An empty value leaves the program's own default.\n{GENERATED}\nYours go into a copy, or a Kustomization over it.", value)


def kustomization(dag: dict) -> str:
    wide = [step for step in dag["steps"] if step["counted_by"]]
    value = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["settings.yaml", *(f"jobs/{number:02}-{step['name']}.yaml" for number, step in enumerate(dag["steps"], 1))],
        Comment("images:\n  - {name: sluice, newName: registry.example/team/sluice, newTag: 0.1.0}"): None,
        "replacements": [
            Comment("`tasks` of the settings is how many pods there are."),
            {
                "source": Flow({"kind": "ConfigMap", "name": "sluice-run", "fieldPath": "data.tasks"}),
                "targets": [
                    Flow({"select": {"kind": "Job", "name": f"sluice-{step['name']}"}, "fieldPaths": ["spec.completions", "spec.parallelism"]})
                    for step in wide
                ],
            },
        ],
    }
    return documents(f"The Jobs and their settings, filled in: run.sh applies them one after the other.\n{GENERATED}", value)


def files(dag: dict) -> dict[Path, str]:
    made = {HERE / "settings.yaml": settings(dag), HERE / "kustomization.yaml": kustomization(dag)}
    for number, step in enumerate(dag["steps"], 1):
        after = ", ".join(step["after"]) or "nothing"
        units = f"Fans out over {step['fan_out'].replace('-', ' ')}." if step["counted_by"] else "Runs once."
        header = f"Step {step['name']}, after {after}. {units}\n{GENERATED}"
        made[HERE / f"jobs/{number:02}-{step['name']}.yaml"] = documents(header, job(dag, step))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dag", metavar="FILE", help="what `sluice dag` printed")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not up to date")
    parser.add_argument("--commands", action="store_true", help="print the containers' command lines (needs PyYAML)")
    args = parser.parse_args()
    dag = load(args.dag)
    if args.commands:
        for line in argo.commands(dag, HERE):
            print(json.dumps(line))
        return 0
    (HERE / "jobs").mkdir(exist_ok=True)
    return write(files(dag), args.check)


if __name__ == "__main__":
    sys.exit(main())
