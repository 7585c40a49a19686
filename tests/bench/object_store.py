#!/usr/bin/env python3
"""The speed of `read` and `export write` with an S3 server, compared with the AWS CLI's parallel copy of the same files.

    make build servers && .cache/venv/bin/python tests/bench/object_store.py --shards FOLDER [--copies 4] [--rounds 5]

Both sides run in alternation against one SeaweedFS on this machine. The CLI is installed into a separate venv. The output is
MB/s (medians over the rounds), CPU seconds of the client, and the number of requests that it reports. `read` also decodes
and measures every image, so its time on local disk is printed too: the difference is the cost of S3.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
PROGRAMS = ROOT / "target/release"
AWSCLI = "awscli==1.45.11"
BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "benchkey", "AWS_SECRET_ACCESS_KEY": "benchsecret", "AWS_REGION": "us-east-1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """SeaweedFS with one bucket."""

    def __init__(self, folder):
        ports = [free_port() for _ in range(4)]
        names = ["s3.port", "master.port", "volume.port", "filer.port"]
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        command = [CACHE / "servers/bin/weed", f"-logdir={folder}", "mini", f"-dir={folder}", f"-bucket={BUCKET}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0"]
        command += [f"-{name}={port}" for name, port in zip(names, ports)]
        self.process = subprocess.Popen(
            command, env={**os.environ, **KEYS}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=1)
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("SeaweedFS does not start")

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Run:
    """One command: its time, CPU seconds, and what it printed."""

    def __init__(self, command, env):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True)
        self.seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stderr[-2000:]}")
        self.stdout = done.stdout

    def requests(self):
        return json.loads(self.stdout.splitlines()[-1]).get("requests", {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--copies", type=int, default=4, help="number of names of each shard")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    cli = CACHE / "bench/awscli"
    if not (cli / "bin/aws").exists():
        venv.create(cli, with_pip=True)
        subprocess.run([cli / "bin/pip", "install", "-q", AWSCLI], check=True)
    aws = [cli / "bin/python", cli / "bin/aws"]
    (work / "server").mkdir()
    server = Server(work / "server")
    env = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": server.endpoint, "AWS_CONFIG_FILE": str(work / "no-config")}
    try:
        while subprocess.run([*aws, "s3", "ls", f"s3://{BUCKET}"], env=env, capture_output=True).returncode:
            time.sleep(0.2)  # the bucket is ready a little later than the server
        measure(args, work, aws, env)
    finally:
        server.stop()
        shutil.rmtree(work, ignore_errors=True)


def measure(args, work, aws, env):
    data = work / "data"
    data.mkdir()
    for copy in range(args.copies):
        for shard in sorted(args.shards.glob("*.tar")):
            shutil.copy(shard, data / f"{copy:02}-{shard.name}")
    size = sum(file.stat().st_size for file in data.iterdir())
    print(f"{len(list(data.iterdir()))} shards, {size / 1e6:.0f} MB, {args.rounds} rounds, {os.cpu_count()} CPUs\n")
    s3 = f"s3://{BUCKET}"
    Run([*aws, "s3", "cp", "--recursive", "--quiet", data, f"{s3}/data"], env)

    def sluice(program, *words, run):
        return Run([PROGRAMS / program, *words, "--run", run], env)

    # No filter, so that export copies every sample.
    kept = 0
    for run, source in [(f"{s3}/run", f"{s3}/data"), (work / "run", data)]:
        sluice("sluice-partition", "--input", source, run=run)
        sluice("sluice-read", run=run)
        sluice("sluice-export", "decide", run=run)
        output = f"{s3}/out" if str(run).startswith("s3") else work / "out"
        sluice("sluice-export", "plan", "--output", output, "--images-per-shard", "100", run=run)
        written = sluice("sluice-export", "write", run=run)
        kept = json.loads(written.stdout.splitlines()[-1])["outputs"]["bytes"]

    sides = {
        "aws s3 cp, S3 to disk": (size, lambda: fetch(aws, env, s3, work)),
        "sluice-read, S3": (size, lambda: sluice("sluice-read", "--force", run=f"{s3}/run")),
        "sluice-read, disk": (size, lambda: sluice("sluice-read", "--force", run=work / "run")),
        "aws s3 cp, S3 to S3 by way of disk": (kept, lambda: carry(aws, env, s3, work)),
        "sluice-export write, S3 to S3": (kept, lambda: sluice("sluice-export", "write", "--force", run=f"{s3}/run")),
        "sluice-export write, disk": (kept, lambda: sluice("sluice-export", "write", "--force", run=work / "run")),
    }
    runs = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (_, side) in sides.items():
            runs[name].append(side())
    print(f"{'':<38}{'MB/s':>8}{'seconds':>9}{'CPU s':>8}  requests")
    for name, (bytes_, _) in sides.items():
        seconds = statistics.median(run.seconds for run in runs[name])
        cpu = statistics.median(run.cpu for run in runs[name])
        sent = runs[name][-1].requests() if name.startswith("sluice") else ""
        print(f"{name:<38}{bytes_ / 1e6 / seconds:>8.0f}{seconds:>9.2f}{cpu:>8.2f}  {sent or ''}")


def fetch(aws, env, s3, work):
    target = work / "fetched"
    shutil.rmtree(target, ignore_errors=True)
    return Run([*aws, "s3", "cp", "--recursive", "--quiet", f"{s3}/data", target], env)


def carry(aws, env, s3, work):
    """Copies from bucket to bucket through the client, like export."""
    there = fetch(aws, env, s3, work)
    back = Run([*aws, "s3", "cp", "--recursive", "--quiet", work / "fetched", f"{s3}/carried"], env)
    back.seconds += there.seconds
    back.cpu += there.cpu
    return back


if __name__ == "__main__":
    main()
