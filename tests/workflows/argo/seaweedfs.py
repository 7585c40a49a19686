"""SeaweedFS as the S3 server of a test: on free ports, in a temporary folder, gone with the test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

BUCKET = "sluice-test"
# Ends the server when this process does, however that one ends.
KEEPER = '"$@" >"$0" 2>&1 & server=$!; read -r _; kill -9 $server; wait'


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class SeaweedFs:
    """One bucket. `variables` is what the programs need to reach it."""

    def __init__(self, program: Path):
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-weed-")
        ports = free_ports(10)
        words = [str(program), "mini", f"-dir={self.folder.name}"]
        for i, name in enumerate(("s3", "filer", "master", "volume", "admin")):
            words += [f"-{name}.port={ports[i]}", f"-{name}.port.grpc={ports[5 + i]}"]
        words += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        words += ["-s3.autoCreateBucket=false", f"-bucket={BUCKET}"]
        credentials = {"AWS_ACCESS_KEY_ID": "AKIDARGOTESTS", "AWS_SECRET_ACCESS_KEY": "argo+tests/secret"}
        log = str(Path(self.folder.name) / "log")
        self.keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, log, *words], stdin=subprocess.PIPE, env=os.environ | credentials, cwd=self.folder.name
        )
        self.filer = f"http://127.0.0.1:{ports[1]}/buckets/{BUCKET}"
        self.variables = credentials | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[0]}", "AWS_REGION": "us-east-1"}
        self.bucket = f"s3://{BUCKET}"
        for url in (f"http://127.0.0.1:{ports[0]}/healthz", f"{self.filer}/"):
            self._wait(url, Path(log))

    @staticmethod
    def _wait(url: str, log: Path):
        started = time.time()
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                return
            except OSError:
                if time.time() - started > 60:
                    raise RuntimeError(f"the server does not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    # Past S3, through the server's own file system: the programs under test are the ones that speak S3.

    def put(self, key: str, data: bytes):
        urllib.request.urlopen(urllib.request.Request(f"{self.filer}/{key}", data=data, method="PUT")).read()

    def get(self, key: str) -> bytes:
        return urllib.request.urlopen(f"{self.filer}/{key}").read()

    def list(self, folder: str) -> list[str]:
        request = urllib.request.Request(f"{self.filer}/{folder}/?limit=10000", headers={"Accept": "application/json"})
        entries = json.load(urllib.request.urlopen(request))["Entries"] or []
        return sorted(entry["FullPath"].rsplit("/", 1)[1] for entry in entries)

    def stop(self):
        self.keeper.stdin.close()
        self.keeper.wait()
        self.folder.cleanup()
