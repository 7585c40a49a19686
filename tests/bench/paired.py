"""Runs the sides of a comparison in alternation: medians of wall seconds, CPU seconds and peak memory, and their ratios.

Every side is a command. Each round runs all sides, so that they see the same noise of the machine. When other jobs share the
cores, CPU seconds, the sum over all processes of a command, are more reliable than wall seconds.

A benchmark of this folder is a script with the sides of one row of README.md's table:

    sides = [Side("sluice", [...], images=600), Side("peer", [...], images=600)]
    show(measure(sides, rounds=5), against="peer")

A command that measures itself (to exclude its start, or parts that are not compared) prints a JSON object as its last line.
Its `seconds`, `cpu` and `peak_mb` replace the external measurements, and `images` the count. (Sluice's programs print a
JSON object too, which replaces nothing.)
"""

import argparse
import atexit
import ctypes
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
PROGRAMS = ROOT / "target/release"
BENCH = CACHE / "bench"


def arguments(doc, **defaults):
    """Returns a parser with --rounds and --json, for a script with this docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="rounds of every side (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures of every run to this file")
    return parser


def environment(name):
    """Returns the Python of a virtual environment with tests/bench/peers/NAME.txt, which is created if it is missing."""
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
    """Restarts the script in the Python of `environment(name)`, unless it already runs there."""
    python = environment(name)
    if Path(sys.prefix).resolve() != (BENCH / name).resolve():
        os.execv(python, [python, *sys.argv])


# Orphaned descendants become children of this process: see `once`.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
# A terminated benchmark leaves no process and no folder.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
atexit.register(lambda: end_leftovers())


@contextmanager
def workspace():
    """Creates a temporary folder on the disk of .cache."""
    BENCH.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=BENCH))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def photographs(folder):
    """Yields (name, bytes) of the .jpg members of a folder's shards."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    yield member.name, tar.extractfile(member).read()


def write_shard(path, samples):
    """Writes a WebDataset shard of (name, bytes) pairs."""
    with tarfile.open(path, "w") as tar:
        for name, content in samples:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))


def single_shards(photos, folder, count):
    """Writes shards of one photograph each, and repeats the photographs as needed."""
    folder.mkdir(parents=True)
    all_photographs = list(photographs(photos))
    for number in range(count):
        _, content = all_photographs[number % len(all_photographs)]
        write_shard(folder / f"{number:06}.tar", [(f"{number:09}.jpg", content)])


def linked_shards(photos, folder, copies):
    """Links every shard under this number of names."""
    folder.mkdir(parents=True)
    for copy in range(copies):
        for shard in sorted(photos.glob("*.tar")):
            (folder / f"{copy:04}-{shard.name}").symlink_to(shard.resolve())


def steps(source, run, output, embedder="tiny", shards_per_partition=None, images_per_shard=1000):
    """Returns the commands of all steps in order, with models of models.py and thresholds that every image passes."""
    models = BENCH / "models"
    short = {"tiny": "tiny", "clip-vit-b32-768": "b32", "clip-vit-l14": "l14"}[embedder]
    partition = ["partition", "--input", source]
    if shards_per_partition:
        partition += ["--shards-per-partition", shards_per_partition]
    kept = ["--survivors-of", "filter"]
    words = {
        "partition": partition,
        "read": ["read"],
        "embed": ["embed", "--model", embedder, "--models", models],
        "aesthetic": ["aesthetic", "--model", f"{models}/aesthetic-mlp-{short}"],
        "nsfw": ["nsfw", "--model", f"{models}/nsfw-{short}"],
        "filter": ["filter", "--rule", "scored=aesthetic > -100.0 && nsfw < 2.0"],
        "dedup exact": ["dedup", "exact", *kept],
        "dedup perceptual": ["dedup", "perceptual", *kept, "--max-distance", 0],
        "dedup fit": ["dedup", "fit", *kept, "--clusters", 16],
        "dedup assign": ["dedup", "assign", *kept],
        "dedup match": ["dedup", "match", *kept, "--eps", 0],
        "export decide": ["export", "decide"],
        "export plan": ["export", "plan", "--output", output, "--images-per-shard", images_per_shard],
        "export write": ["export", "write"],
        "export index": ["export", "index"],
        "report": ["report"],
    }
    return {name: [PROGRAMS / f"sluice-{command[0]}", *command[1:], "--run", run] for name, command in words.items()}


@dataclass
class Side:
    """One side. `before` runs before every round and is not measured."""

    name: str
    command: list
    images: int = 1
    env: dict = field(default_factory=dict)
    before: Callable[[], object] | None = None


@dataclass
class Run:
    """One run of one side."""

    seconds: float
    cpu: float
    peak_mb: float
    images: int
    printed: dict


def once(side):
    """Runs a side once, and kills its leftover processes. Exits when the command fails.

    CPU seconds are those of all descendants of this process. It is a subreaper: it adopts the daemons of a command when their
    parents exit, waits for them and counts them. Processes whose parents ignore their exit are missing in that sum, but not in
    the sum of the samples. The larger sum counts.
    """
    if side.before:
        side.before()
    command = [str(word) for word in side.command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **side.env})
        watch = Watch()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_mb, sampled = watch.finish()
        reaped = usage.ru_utime + usage.ru_stime + end_leftovers()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            words = err.read().decode(errors="replace")[-4000:]
            sys.exit(f"{side.name}: {' '.join(command)}: exit {process.returncode}\n{words}")
        printed = last_json(out.read().decode(errors="replace"))
    told = {} if "program" in printed else printed
    return Run(
        seconds=told.get("seconds", seconds),
        cpu=told.get("cpu", max(reaped, sampled)),
        # Not `ru_maxrss`, which starts with the memory of this process.
        peak_mb=told.get("peak_mb", peak_mb),
        images=told.get("images", side.images),
        printed=printed,
    )


def end_leftovers():
    """Kills the remaining descendants of this process and waits for them. Returns their CPU seconds."""
    seconds = 0.0
    while True:
        for pid in tree(os.getpid())[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime


def last_json(text):
    lines = [line for line in text.splitlines() if line.startswith("{")]
    try:
        return json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}


class Watch(threading.Thread):
    """Samples the peak of the proportional set size (shared memory counts once) of all descendants of this
    process, and the CPU seconds of each."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.cpu, self.ended = 0, {}, threading.Event()
        self.start()

    def run(self):
        together = 0.0
        while True:
            pids = tree(os.getpid())[1:]
            self.cpu |= dict(filter(None, map(cpu_of, pids)))
            # The kernel records the peak of a single process. For several it walks all their pages, which blocks them, so
            # the query runs once a second.
            self.peak = max(self.peak, *map(high_water, pids), 0)
            if len(pids) > 1 and time.monotonic() > together + 1:
                self.peak = max(self.peak, sum(map(pss, pids)))
                together = time.monotonic()
            if self.ended.wait(0.05):
                return

    def finish(self):
        self.ended.set()
        self.join()
        return self.peak / 1024, sum(self.cpu.values())


def cpu_of(pid):
    """Returns ((pid, start), CPU seconds) of a process without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return (pid, fields[19]), ticks / os.sysconf("SC_CLK_TCK")


def pss(pid):
    return kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:")


def high_water(pid):
    return kilobytes(f"/proc/{pid}/status", "VmHWM:")


def kilobytes(file, name):
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def tree(pid):
    """Returns a process and its descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += map(int, children.read_text().split())
            except OSError:
                pass
    return pids


def measure(sides, rounds):
    """Runs each side `rounds` times. Returns a list of runs for each name."""
    runs = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            print(f"round {number + 1} of {rounds}: {side.name}", file=sys.stderr)
            runs[side.name].append(once(side))
    return runs


def median(runs, what):
    """Returns the median of `what(run)` over the runs."""
    return statistics.median(what(run) for run in runs)


def cpu_ms(run):
    """Returns the CPU milliseconds per image."""
    return 1000 * run.cpu / run.images


def show(runs, against, title=""):
    """Prints a Markdown table. `against` is the reference side of the ratios, which are paired by round."""
    if title:
        print(f"\n## {title}")
    print("\n| | images/s | CPU ms/image | ratio of CPU | ratio of wall | peak MB |\n|---|---|---|---|---|---|")
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
    """Writes every run's figures as JSON, if a path is given."""
    if path:
        path.write_text(json.dumps({name: [vars(run) for run in own] for name, own in runs.items()}, indent=1))
