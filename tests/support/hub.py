"""A hub on loopback that speaks what huggingface_hub asks for: revisions, trees, files in parts."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

BRANCH = "main"


def commit_of(files: Mapping[str, bytes]) -> str:
    """The commit that a repository with these files is at."""
    text = json.dumps({name: blob(content) for name, content in sorted(files.items())})
    return hashlib.sha1(text.encode()).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@dataclass
class FakeHub:
    """repos: name to files. gated: repositories refused without `token`. asked: every path."""

    repos: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_good"
    lost: set[str] = field(default_factory=set)  # names that are listed and answered with 404
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer on a port of the system's choice; `hub.url` says which."""

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    of: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `asked` instead."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.of.asked.append(f"{self.command} {path}")
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            repo, rest = "/".join(words[2:4]), words[4:]
        else:
            repo, rest = "/".join(words[:2]), words[2:]
        files = self.of.repos.get(repo)
        if files is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.of.gated and self.headers["Authorization"] != f"Bearer {self.of.token}":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif len(rest) > 1 and rest[1] not in (BRANCH, commit_of(files)):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self._json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": blob(content)}
                    for name, content in files.items()
                ]
            )
        elif rest[:1] == ["resolve"]:
            self._file(files, "/".join(rest[2:]))
        else:
            self._json({"id": repo, "sha": commit_of(files), "siblings": []})

    def _file(self, files: Mapping[str, bytes], name: str) -> None:
        content = files.get(name)
        if content is None or name in self.of.lost:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            about = {"ETag": f'"{blob(content)}"', "X-Repo-Commit": commit_of(files)}
            unit, _, part = (self.headers["Range"] or "").partition("=")
            if unit == "bytes":
                first, _, last = part.partition("-")
                end = min(int(last) + 1, len(content)) if last else len(content)
                about["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
                self._send(206, content[int(first) : end], about)
            else:
                self._send(200, content, about)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
