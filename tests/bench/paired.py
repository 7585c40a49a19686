"""Both sides of a comparison, run in turns: medians of wall seconds, CPU seconds and peak memory, and their ratios.

Every side is a command. Rounds go over the sides in turn, so that all of them see the same noise of the machine. CPU
seconds, the sum over all processes of a command, say more than wall seconds where other jobs share the cores.

A benchmark of this folder is a script with the sides of one row of README.md's table:

    sides = [Side("sluice", [...], images=600), Side("peer", [...], images=600)]
    show(measure(sides, rounds=5), against="peer")

A command that measures itself (to leave out its start, or what is not compared) prints a JSON object as its last line;
`seconds`, `cpu` and `peak_mb` in it replace what was measured from outside, `images` the count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
PROGRAMS = ROOT / "target/release"
BENCH = CACHE / "bench"


def arguments(doc, **defaults):
    """A parser with --rounds and --json, for a script with this docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="turns of every side (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures of every run there, too")
    return parser


def environment(name):
    """The Python of a virtual environment with tests/bench/peers/NAME.txt installed, made when it is missing."""
    folder, wanted = BENCH / name, Path(__file__).parent / "peers" / f"{name}.txt"
    done = folder / ".done"
    if not done.exists() or done.read_text() != wanted.read_text():
        print(f"installing {wanted.relative_to(ROOT)} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        done.write_text(wanted.read_text())
    return folder / "bin/python"


def inside(name):
    """Goes on in the Python of `environment(name)`, unless this is it."""
    python = environment(name)
    if Path(sys.prefix).resolve() != (BENCH / name).resolve():
        os.execv(python, [python, *sys.argv])


@dataclass
class Side:
    """One side. `before` runs ahead of every turn and is not measured."""

    name: str
    command: list
    images: int = 1
    env: dict = field(default_factory=dict)
    before: Callable[[], object] | None = None


@dataclass
class Run:
    """One turn of one side."""

    seconds: float
    cpu: float
    peak_mb: float
    images: int
    printed: dict


def once(side):
    """Runs a side once. Ends the program when the command fails."""
    if side.before:
        side.before()
    command = [str(word) for word in side.command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **side.env})
        watch = Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_mb = watch.finish()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{side.name}: {' '.join(command)}: exit {process.returncode}\n{err.read().decode(errors='replace')[-4000:]}")
        printed = last_json(out.read().decode(errors="replace"))
    return Run(
        seconds=printed.get("seconds", seconds),
        cpu=printed.get("cpu", usage.ru_utime + usage.ru_stime),
        peak_mb=printed.get("peak_mb", max(peak_mb, usage.ru_maxrss / 1024)),
        images=printed.get("images", side.images),
        printed=printed,
    )


def last_json(text):
    lines = [line for line in text.splitlines() if line.startswith("{")]
    try:
        return json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}


class Watch(threading.Thread):
    """The peak of a process tree's proportional set size (memory that is shared counts once)."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.25):
            self.peak = max(self.peak, sum(pss(pid) for pid in tree(self.pid)))

    def finish(self):
        self.ended.set()
        self.join()
        return self.peak / 1024


def pss(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def tree(pid):
    pids, todo = [], [pid]
    while todo:
        pids.append(todo.pop())
        try:
            todo += map(int, Path(f"/proc/{pids[-1]}/task/{pids[-1]}/children").read_text().split())
        except OSError:
            pass
    return pids


def measure(sides, rounds):
    """`rounds` turns of each side. Gives a list of runs for each name."""
    runs = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            print(f"round {number + 1} of {rounds}: {side.name}", file=sys.stderr)
            runs[side.name].append(once(side))
    return runs


def median(runs, what):
    """The median over the runs of `what(run)`."""
    return statistics.median(what(run) for run in runs)


def cpu_ms(run):
    """Milliseconds of CPU for each image."""
    return 1000 * run.cpu / run.images


def show(runs, against, title=""):
    """Prints a Markdown table. `against` names the side that the ratios are taken to, paired by round."""
    if title:
        print(f"\n## {title}")
    print(f"\n| | images/s | CPU ms/image | ratio of CPU | ratio of wall | peak MB |\n|---|---|---|---|---|---|")
    base = runs[against]
    for name, own in runs.items():
        cpu = statistics.median(cpu_ms(b) / cpu_ms(a) for a, b in zip(own, base))
        wall = statistics.median((b.seconds / b.images) / (a.seconds / a.images) for a, b in zip(own, base))
        print(
            f"| {name} | {median(own, lambda r: r.images / r.seconds):.4g} | {median(own, cpu_ms):.3g} "
            f"| {cpu:.2f} | {wall:.2f} | {median(own, lambda r: r.peak_mb):.0f} |"
        )
    print(f"\n{len(base)} rounds, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; a ratio above 1 is better than {against}.")


def keep(runs, path):
    """Writes every run's figures as JSON, where a path is given."""
    if path:
        path.write_text(json.dumps({name: [vars(run) for run in own] for name, own in runs.items()}, indent=1))
