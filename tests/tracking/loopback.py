"""Servers on 127.0.0.1 that treat wandb badly."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """Yield an address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Yield the address of a server that accepts every connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)  # the kernel accepts
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class FaultyServer(ThreadingHTTPServer):
    """A server that lets a run begin, and from then on answers with HTTP 200 and nothing useful, or not at all.

    Args:
        hang: whether uploads wait for an answer for ever.
    """

    daemon_threads = True

    def __init__(self, *, hang: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.hang = hang
        self.requests: list[dict[str, Any]] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    server: FaultyServer

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["content-length"]))
        answer: dict[str, Any] | None = None
        if self.path == "/graphql":
            asked = json.loads(request)
            self.server.requests.append(asked)
            answer = next((a for name, a in ANSWERS.items() if name in asked["query"]), None)
        if answer is None and self.server.hang:
            self.server.released.wait()
            return
        body = json.dumps({"data": answer or {}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


_PROJECT = {"id": "p", "name": "hoi_train", "entity": {"id": "e", "name": "somebody"}}
_RUN = {"id": "r", "name": "run1", "displayName": "run", "historyLineCount": 0, "project": _PROJECT}
ANSWERS = {
    "query RunResumeStatus": {"model": None},
    "mutation UpsertBucket": {"upsertBucket": {"bucket": _RUN, "inserted": True}},
    "query OrganizationCoreWeave": {},
}
