#!/usr/bin/env python3
"""What a run of a given size needs: pods, manifests, requests, the workflow's own size, time and cost of each step.

    plan.py                                  a billion images in 100,000 shards
    plan.py --images 1e7 --shards 1000 --max-tasks 32 …   what is not given follows from the number of images
    plan.py --pipeline FILE                  a pipeline of your own

Steps, fan-out, resources and the workflow come from `sluice dag`, costs per image from measured.json. Exits with 1 if a limit of
Argo, Airflow or S3 would be exceeded.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
MIB = 2**20
# Bytes of a node in the status of a workflow, on a real cluster.
NODE_BYTES = 758
# Where things break.
LIMITS = {
    "argo: bytes of the workflow object (spec, status)": 1_000_000,
    "argo: nodes": 10_000,
    "airflow: mapped tasks of a step (max_map_length)": 1024,
    "s3: PUT a second, one prefix": 3500,
    "s3: GET a second, one prefix": 5500,
    "s3: parts of an upload": 10_000,
    "s3: bytes of a single PUT": 5 * 2**30,
    "ours: seconds of a task (activeDeadlineSeconds)": 3 * 24 * 3600,
}
# Of workflows/argo/components/limits: a key of its own for a step, or one for those that run models.
SHARED_LIMIT = {"embed": "models", "aesthetic": "models", "nsfw": "models"}


def print_dag(pipeline: str | None, format: str) -> str:
    """Returns what `sluice dag` prints: of the program that SLUICE_PROGRAM names, that was built last, or that is on the PATH."""
    built = [path for kind in ("release", "debug") if (path := HERE.parent / "target" / kind / "sluice").exists()]
    newest = max(built, key=lambda path: path.stat().st_mtime, default=None)
    program = os.environ.get("SLUICE_PROGRAM") or newest or shutil.which("sluice")
    if not program:
        sys.exit("no program `sluice`: run `make build`, or set SLUICE_PROGRAM")
    line = [program, "dag", "--format", format, *(["--pipeline", pipeline] if pipeline else [])]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else sys.exit(done.returncode)


def work(step: dict, dag: dict) -> str:
    """Returns what a step does, under which its costs are known whatever the step is called: its stage and subcommand, and for
    scorers where the scores come from. A head waits for the step that gives it embeddings, a classifier for none."""
    if step["stage"] not in ("aesthetic", "nsfw", "score"):
        return "-".join(filter(None, (step["stage"], step["subcommand"])))
    given = {word.split("=")[0] for word in step["arguments"]}
    if source := given & {"--command", "--import"}:
        return f"score-{source.pop()[2:]}"
    encoders = {other["name"] for other in dag["steps"] if other["stage"] == "embed"}
    is_head = encoders & set(step["after"])
    return {"score": "aesthetic"}.get(step["stage"], step["stage"]) if is_head else "classifier"


@dataclass
class Row:
    step: str
    units: int
    tasks: int
    at_once: int
    cpus: int
    core_hours: float
    hours: float
    gets: float
    puts: float
    bytes: float
    objects: int
    memory: float
    limit_mib: int


def limits() -> dict[str, int]:
    """Returns the pods of a step at a time that the component `limits` allows."""
    data = yaml.safe_load((HERE / "argo/components/limits/limits.yaml").read_text())["data"]
    return {key: int(value) for key, value in data.items()}


def rows(dag: dict, a: argparse.Namespace, m: dict) -> list[Row]:
    partitions = math.ceil(a.shards / a.shards_per_partition)
    kept = a.images * a.keep_fraction
    units = {
        "one": 1,
        "partitions": partitions,
        "hash-ranges": a.ranges,
        "cluster-groups": a.groups,
        "output-shards": math.ceil(kept / a.images_per_shard),
    }
    sample = min(a.images, 256 * a.clusters)
    flop = m["flop_per_core_second"][0]
    product = 2 * a.dimension / flop
    # Core seconds that are not so many an image.
    extra = {
        "dedup-fit": 20 * sample * a.clusters * product,
        "dedup-assign": a.images * a.clusters * product,
        "dedup-match": a.images * (a.images / a.clusters) / 2 * product,
    }
    # With several ranges `pairs` compares, in 15 tables, and `perceptual` has the images of pairs in memory.
    in_parts = a.ranges > 1
    if in_parts:
        extra["dedup-pairs"] = a.images * (m["cpu_seconds_per_image"]["dedup-compare"][0] + a.ranges * m["cpu_seconds_per_image"]["dedup-pass"][0])
    held = {
        "dedup-exact": a.images / a.ranges,
        "dedup-pairs": 15 * a.images / a.ranges if in_parts else 0,
        "dedup-perceptual": a.images * (a.near_fraction if in_parts else 1),
        "dedup-fit": sample,
        "export-plan": a.images * a.near_fraction,
        "dedup-match": a.images / a.groups,
    }
    semaphores = {} if a.no_limits else limits()
    out = []
    for step in dag["steps"]:
        name, key = step["name"], work(step, dag)
        count = units[step["fan_out"]]
        tasks = max(1, min(a.max_tasks, count)) if step["counted_by"] else 1
        at_once = min(tasks, semaphores.get(SHARED_LIMIT.get(name, name), tasks))
        cpus = a.embed_cpus if key == "embed" else dag["resources"][step["resources"]]["cpus"]
        per_image = m["cpu_seconds_per_image"].get(key, [0])[0]
        if key in ("dedup-assign", "dedup-match"):
            per_image *= a.dimension / 768
        core_seconds = a.images * per_image + extra.get(key, 0)
        each = m["requests_per_unit"].get(key, {"get": 5, "put": 2, "passes": 0})
        gets = count * each["get"] + each["passes"] * a.images * a.image_bytes / m["stretch_bytes"][0]
        gets += count * partitions * m["requests_per_unit_and_partition"].get(key, [0])[0]
        puts = count * each["put"]
        made = a.images * m["bytes_per_image"].get(key, [0])[0] + count * m["receipt_bytes"][0]
        if key == "export-write":
            made = kept * (m["bytes_per_image"][key][0] + a.image_bytes)
            puts += made / m["part_bytes"][0]
        # A task waits for its requests too: 32 in flight, 50 ms each.
        waiting = (gets + puts) / at_once * 0.05 / 32
        seconds = core_seconds / (at_once * cpus) + waiting + a.start_seconds
        memory = held.get(key, 0) * m["memory_bytes"].get(key, [0])[0] / MIB
        out.append(Row(name, count, tasks, at_once, cpus, core_seconds / 3600, seconds / 3600, gets, puts, made, count * 2, memory,
                       dag["resources"][step["resources"]]["memory_mib"]))  # fmt: skip
    return out


# ----------------------------------------------------------------------------------- the workflow object


def workflow(template: dict, a: argparse.Namespace, table: list[Row]) -> dict[str, int]:
    """Returns the number of nodes, and the bytes of what Argo keeps in one object of Kubernetes: the template's spec and every node's
    status (compressed, as Argo does it above 1 MB)."""
    spec = template["spec"]
    templates = {t["name"]: t for t in spec["templates"]}
    tasks = templates[spec["entrypoint"]]["dag"]["tasks"]
    parameters = {p["name"]: p.get("value") or "s3://some-bucket/with/a/prefix/of-some-length" for p in spec["arguments"]["parameters"]}
    compact = lambda value: len(json.dumps(value, separators=(",", ":")))  # noqa: E731
    # A workflow by reference keeps its arguments, and the template's spec in its status.
    fixed = compact(spec) + compact(parameters) + 3000

    counts = {row.step: row.tasks for row in table}
    number = random.Random(1)
    nodes = {}

    def node(kind: str, name: str, template: str, children: int, inputs: dict | None, last: bool = False) -> None:
        identity = f"sluice-abcde-{number.randrange(10**10)}"
        value = {
            "id": identity, "name": f"sluice-abcde.{name}", "displayName": name.split(".")[-1], "type": kind,
            "templateName": template, "templateScope": "local/",
            "phase": "Succeeded", "boundaryID": "sluice-abcde", "startedAt": "2026-11-23T04:45:06Z",
            "finishedAt": f"2026-11-23T{number.randrange(24):02}:{number.randrange(60):02}:{number.randrange(60):02}Z",
            "progress": "16/16", "resourcesDuration": {"cpu": number.randrange(10**6), "memory": number.randrange(10**6)},
            "children": [f"sluice-abcde-{number.randrange(10**10)}" for _ in range(children)],
        }  # fmt: skip
        if inputs:
            value["inputs"] = inputs
        if last:
            value |= {"hostNodeName": f"node-{number.randrange(10**6)}.some-region.internal", "outputs": {"exitCode": "0"}, "taskResultSynced": True}
        nodes[identity] = value

    for task in tasks:
        name, count = task["name"], counts[task["name"]]
        if "withSequence" in task:
            node("TaskGroup", name, name, count, None)
        for i in range(count):
            path, inputs = name, templates[name].get("inputs")
            if "withSequence" in task:
                own = {"task-index": str(i), "task-count": str(count)}
                path, inputs = f"{name}({i}:{i})", {"parameters": [{"name": key, "value": value} for key, value in own.items()]}
            # With a retryStrategy there is a node for the tries, and one for each.
            node("Retry", path, name, 1, inputs)
            for attempt in range(1 + (number.random() < a.retries)):
                node("Pod", f"{path}({attempt})", name, 1, inputs, last=True)
    packed = len(base64.b64encode(gzip.compress(json.dumps(nodes, separators=(",", ":")).encode())))
    plain = NODE_BYTES * len(nodes)
    return {"nodes": len(nodes), "spec": fixed, "status": plain, "packed": packed, "object": fixed + min(packed, plain)}


# --------------------------------------------------------------------------------------------- the page


def human(value: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.{0 if value / size >= 100 else 1}f} {unit}"
    return f"{value:.0f} B"


def many(value: float) -> str:
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"


def hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 1 else f"{max(1, value * 60):.0f} min"


def critical_path(dag: dict, table: list[Row]) -> float:
    done: dict[str, float] = {}
    time = {row.step: row.hours for row in table}
    for step in dag["steps"]:
        done[step["name"]] = time[step["name"]] + max((done[name] for name in step["after"]), default=0)
    return max(done.values())


def page(dag: dict, template: dict, a: argparse.Namespace, m: dict) -> tuple[str, bool]:
    table = rows(dag, a, m)
    flow = workflow(template, a, table)
    lines = [
        f"{many(a.images)} images in {a.shards:,} shards ({human(a.images * a.image_bytes)}), {a.shards_per_partition} shards a partition, "
        f"at most {a.max_tasks} tasks a step; embed on {a.embed_cpus} CPUs",
        f"clusters {a.clusters:,}, groups {a.groups:,}, ranges {a.ranges:,}, {a.images_per_shard:,} images an output shard, {a.keep_fraction:.0%} kept",
        "",
        f"{'step':<17}{'units':>8}{'tasks':>7}{'at once':>9}{'CPUs':>6}{'core hours':>12}{'wall':>10}{'GET':>10}{'PUT':>10}{'written':>10}{'compute':>10}{'requests':>10}",
    ]
    total = [0.0] * 6
    for row in table:
        # What is asked for is paid for, busy or not.
        compute = row.hours * row.at_once * row.cpus * a.cpu_hour
        requests = row.gets / 1000 * a.per_1000_get + row.puts / 1000 * a.per_1000_put
        lines.append(
            f"{row.step:<17}{row.units:>8,}{row.tasks:>7}{row.at_once:>9}{row.cpus:>6}{row.core_hours:>12,.0f}{hours(row.hours):>10}{many(row.gets):>10}"
            f"{many(row.puts):>10}{human(row.bytes):>10}{f'${compute:,.0f}':>10}{f'${requests:,.0f}':>10}"
        )
        for i, value in enumerate((row.core_hours, row.gets, row.puts, row.bytes, compute, requests)):
            total[i] += value
    pods = sum(row.tasks for row in table)
    lines.append(
        f"{'all':<17}{'':>8}{pods:>7}{'':>9}{'':>6}{total[0]:>12,.0f}{hours(critical_path(dag, table)):>10}{many(total[1]):>10}{many(total[2]):>10}"
        f"{human(total[3]):>10}{f'${total[4]:,.0f}':>10}{f'${total[5]:,.0f}':>10}"
    )
    lines += [
        "",
        f"compute at ${a.cpu_hour} a CPU hour; requests at ${a.per_1000_get} a thousand GET, ${a.per_1000_put} a thousand PUT",
        f"the workflow: {flow['nodes']:,} nodes; spec {human(flow['spec'])}; status {human(flow['status'])}, compressed {human(flow['packed'])}",
    ]
    for row in table:
        if row.step == "embed" and a.gpu_images_per_second:
            gpu_hours = a.images / a.gpu_images_per_second / 3600
            lines.append(
                f"embed on GPUs, {many(a.gpu_images_per_second)} images a second each: {gpu_hours:,.0f} GPU hours at ${a.gpu_hour}, "
                f"${gpu_hours * a.gpu_hour:,.0f}, in place of ${row.hours * row.at_once * row.cpus * a.cpu_hour:,.0f}"
            )
    wide = [row for row in table if row.memory > row.limit_mib]
    for row in wide:
        lines.append(f"more memory than its class: {row.step} holds about {human(row.memory * MIB)}, the class has {row.limit_mib} MiB: patch it")
    largest = a.images_per_shard * a.image_bytes
    per_partition = a.images / math.ceil(a.shards / a.shards_per_partition)
    found = {
        "argo: bytes of the workflow object (spec, status)": flow["object"],
        "argo: nodes": flow["nodes"],
        "airflow: mapped tasks of a step (max_map_length)": max(row.tasks for row in table),
        # In the hours that the step takes without its start, evenly.
        "s3: PUT a second, one prefix": max(row.puts / (row.hours * 3600) for row in table),
        "s3: GET a second, one prefix": max(row.gets / (row.hours * 3600) for row in table),
        "s3: parts of an upload": largest / m["part_bytes"][0],
        "s3: bytes of a single PUT": per_partition * max(value[0] for value in m["bytes_per_image"].values()),
        "ours: seconds of a task (activeDeadlineSeconds)": max(row.hours for row in table) * 3600,
    }
    lines += ["", f"{'limit':<70}{'allowed':>16}{'planned':>16}"]
    fine = True
    for name, allowed in LIMITS.items():
        over = found[name] > allowed
        fine &= not over
        lines.append(f"{name:<70}{allowed:>16,}{math.ceil(found[name]):>16,}{'   EXCEEDED' if over else ''}")
    return "\n".join(line.rstrip() for line in lines) + "\n", fine


def fill_in(a: argparse.Namespace) -> None:
    """Sets what was not given: for a billion images what such a run needs, for fewer what the programs choose or the work asks for."""
    share = min(1, a.images / 10**9)
    a.shards = a.shards or max(1, round(100_000 * share))
    a.shards_per_partition = a.shards_per_partition or (25 if a.shards > 5000 else 4)
    a.clusters = a.clusters or max(1, min(8192, a.images // 1000))
    a.groups = a.groups or max(1, min(2048, a.clusters // 4))
    a.ranges = a.ranges or max(1, min(64, round(64 * share)))


def main() -> int:
    number = lambda text: int(float(text))  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=number, default=10**9, help="images")
    parser.add_argument("--shards", type=number, help="input shards (default: one for 10,000 images)")
    parser.add_argument("--image-bytes", type=number, default=110_000, help="bytes of an image with its caption")
    parser.add_argument("--keep-fraction", type=float, default=0.5, help="share of the images that stays")
    parser.add_argument("--shards-per-partition", type=number, help="as of sluice-partition (default: 25, or 4 for up to 5,000 shards)")
    parser.add_argument("--max-tasks", type=number, default=256, help="as of sluice-curate")
    parser.add_argument("--clusters", type=number, help="as of sluice-dedup fit (default: one for 1,000 images, at most 8,192)")
    parser.add_argument("--groups", type=number, help="as of sluice-dedup match (default: one for 4 clusters, at most 2,048)")
    parser.add_argument("--ranges", type=number, help="as of sluice-dedup exact and pairs (default: one for 16 M images)")
    parser.add_argument("--near-fraction", type=float, default=0.1, help="images that another one is near to")
    parser.add_argument("--images-per-shard", type=number, default=10_000, help="as of sluice-export plan")
    parser.add_argument("--no-limits", action="store_true", help="without the component `limits`")
    parser.add_argument("--dimension", type=number, default=768, help="of an embedding")
    parser.add_argument("--embed-cpus", type=number, default=16, help="CPUs of a pod of embed, whose class has fewer")
    parser.add_argument("--retries", type=float, default=0.05, help="share of the pods that is tried again")
    parser.add_argument("--start-seconds", type=float, default=60, help="until a step's last pod has started")
    parser.add_argument("--cpu-hour", type=float, default=0.04, help="price of a CPU for an hour; spot is a third")
    parser.add_argument("--gpu-images-per-second", type=float, default=0, help="images that a GPU embeds; 0: no GPUs")
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="price of a GPU with its CPUs for an hour")
    parser.add_argument("--per-1000-get", type=float, default=0.0004, help="price")
    parser.add_argument("--per-1000-put", type=float, default=0.005, help="price")
    parser.add_argument("--pipeline", metavar="FILE", help="a pipeline file, in place of the default pipeline")
    args = parser.parse_args()
    fill_in(args)
    dag, template = json.loads(print_dag(args.pipeline, "json")), yaml.safe_load(print_dag(args.pipeline, "argo"))
    text, fine = page(dag, template, args, json.loads((HERE / "measured.json").read_text()))
    print(text, end="")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
