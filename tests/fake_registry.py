"""A small container registry on 127.0.0.1, which answers one question as real ones do."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Registry(ThreadingHTTPServer):
    """A registry with one image, and the kinds of login that there are.

    Attributes:
        login: ``open``, ``basic``, ``token`` or ``broken``.
        path: Path of the one manifest that it has.
        asked: What came with each question as authorization.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.login = "open"
        self.path = "/v2/team/mnist/manifests/1"
        self.asked: list[str] = []

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """One request."""

    server: Registry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def do_HEAD(self) -> None:
        """Answer whether there is a manifest, if the asker may know."""
        self.server.asked.append(self.headers["Authorization"] or "")
        token = f'Bearer realm="http://{self.server.host}/token",service="here",scope="repository:team/mnist:pull"'
        challenge, wanted = {
            "open": ("", ""),
            "basic": ('Basic realm="here"', "Basic " + base64.b64encode(b"ada:pass").decode()),
            "token": (token, "Bearer secret"),
            "broken": ('Bearer service="here"', "Bearer secret"),
        }[self.server.login]
        if wanted and self.headers["Authorization"] != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", challenge)
        else:
            known = self.path == self.server.path and "oci" in self.headers["Accept"]
            self.send_response(200 if known else 404)
        self.end_headers()

    def do_GET(self) -> None:
        """Hand out a token."""
        assert self.path == "/token?service=here&scope=repository%3Ateam%2Fmnist%3Apull"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"token": "secret"}).encode())


@contextmanager
def running_registry() -> Iterator[Registry]:
    """Yield a registry that answers meanwhile."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
