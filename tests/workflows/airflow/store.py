"""SeaweedFS, an S3 server, on free ports and in a temporary folder. It ends with the tests, even ones that are killed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

BUCKET = "sluice-test"
# Unique words, so that tests can search for them.
KEY = "AKIDSLUICEAIRFLOW5K8"
SECRET = "airflow+secret/never+to/be+shown+93ad"

# Ends the server once nobody holds the other end of its standard input.
KEEPER = '"$@" >"$0" 2>&1 & server=$!; read -r _; kill -9 $server; wait'


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all at once, or else the same one could come twice."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Store:
    """The server with one bucket."""

    def __init__(self, program: Path, folder: Path) -> None:
        ports = free_ports(10)
        self.s3, self.filer = ports[0], ports[1]
        words = ["mini", f"-dir={folder}", f"-bucket={BUCKET}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"]
        words += ["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        for at, name in enumerate(("s3", "filer", "master", "volume", "admin")):
            words += [f"-{name}.port={ports[at]}", f"-{name}.port.grpc={ports[at + 5]}"]
        self.keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, folder / "log", program, *words],
            env={"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "PATH": "/usr/bin:/bin", "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
        )
        started = time.monotonic()
        while not (self._answers(self.s3, "/healthz") and self._answers(self.filer, f"/buckets/{BUCKET}/")):
            assert time.monotonic() - started < 60, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    @property
    def variables(self) -> dict[str, str]:
        """What a program needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def uri(self, path: str) -> str:
        """The URI of an object."""
        return f"s3://{BUCKET}/{path}"

    def put(self, file: Path, path: str) -> None:
        """Stores a file, around S3."""
        with file.open("rb") as body:
            length = {"Content-Length": str(file.stat().st_size)}
            self._request(f"/buckets/{BUCKET}/{path}", body, "PUT", length)

    def get(self, path: str) -> bytes:
        """An object."""
        return self._request(f"/buckets/{BUCKET}/{path}")

    def names(self, folder: str) -> list[str]:
        """The objects below a folder, at any depth."""
        try:
            listing = self._request(f"/buckets/{BUCKET}/{folder}/?limit=10000", headers={"Accept": "application/json"})
        except urllib.error.HTTPError:
            return []
        found = []
        for entry in json.loads(listing)["Entries"] or []:
            name = entry["FullPath"].rsplit("/", 1)[1]
            below = f"{folder}/{name}"
            found += self.names(below) if entry["Mode"] >> 31 else [below]
        return sorted(found)

    def stop(self) -> None:
        """Ends the server."""
        assert self.keeper.stdin
        self.keeper.stdin.close()
        self.keeper.wait()

    def _answers(self, port: int, path: str) -> bool:
        try:
            self._request(path, port=port, headers={"Accept": "application/json"})
        except OSError:
            return False
        return True

    def _request(self, path: str, body=None, method: str = "GET", headers=None, port: int | None = None) -> bytes:
        url = f"http://127.0.0.1:{port or self.filer}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()
