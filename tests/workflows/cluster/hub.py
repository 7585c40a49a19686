"""A Hugging Face Hub for pods: the listing of a repository and its files, with ETags as the Hub states them."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serving(address: str, repository: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serves a repository until the end of the block. Gives the endpoint, and the requests, which grow: `CLIENT METHOD PATH`."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            requests.append(f"{self.client_address[0]} {self.command} {self.path}")
            headers, body = {}, None
            if self.path == f"/api/models/{repository}/revision/main":
                listing = {"sha": COMMIT, "tags": ["license:apache-2.0"], "siblings": [{"rfilename": name} for name in files]}
                body = json.dumps(listing).encode()
            elif self.path.startswith(start := f"/{repository}/resolve/{COMMIT}/"):
                body = files.get(self.path.removeprefix(start))
                headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'} if body else {}
            self.send_response(200 if body else 404)
            for name, value in (headers | {"Content-Length": str(len(body or b""))}).items():
                self.send_header(name, value)
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
