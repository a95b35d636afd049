"""A server on loopback that speaks the Hub's protocol, as far as ``huggingface_hub`` needs here.

It makes repositories, takes commits (small files inside, weights by Git LFS's basic transfer),
and serves files by branch or commit, private ones for the token only. The storage behind Xet, to
which the client may send weights instead, is left out: HF_HUB_DISABLE_XET turns it off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

LIBRARY = "huggingface_hub"
TOKEN = "hf_of-this-test"  # may write, and read what is private


@dataclass
class Repository:
    """A repository: its commits in order, each with all of its files; LFS's files; tags."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, of a tag or of a commit; None where there is none."""
        if revision == "main" and self.commits:
            return list(self.commits)[-1]
        return revision if revision in self.commits else self.tags.get(revision)

    def add(self, files: dict[str, bytes]) -> str:
        """A commit that adds or replaces files; returns its name."""
        name = hashlib.sha1(repr((len(self.commits), files)).encode()).hexdigest()
        latest = self.commit_of("main")
        self.commits[name] = {**(self.commits[latest] if latest else {}), **files}
        return name


class HubServer(ThreadingHTTPServer):
    """The repositories by name, and the objects that were sent for LFS."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server without repositories."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_client(url: str, cache: Path, **environment: str) -> Iterator[None]:
    """Let this process take the server for the Hub.

    ``huggingface_hub`` reads its environment when it is imported, so it is imported again, and the
    earlier modules come back in the end.
    """
    settings = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **environment,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in [name for name in sys.modules if name.split(".")[0] == LIBRARY]:
            patch.delitem(sys.modules, name)
        yield
        for name in [name for name in sys.modules if name.split(".")[0] == LIBRARY]:
            del sys.modules[name]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self._body()
        if not self._authorised():
            return self._answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/(.+/.+)/preupload/main", self.path):
            files = [
                {"path": one["path"], "uploadMode": self._mode(one["path"]), "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if re.fullmatch(r"/.+/.+\.git/info/lfs/objects/batch", self.path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/(.+/.+)/commit/main", self.path):
            return self._commit(match[1], body)
        return self._answer(404, {"error": "unknown"})

    def do_PUT(self) -> None:
        body = self._body()
        name = self.path.removeprefix("/lfs/")
        whole = hashlib.sha256(body).hexdigest() == name
        if whole:
            self.server.objects[name] = body
        self._answer(200 if whole else 400, {})

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", self.path):
            repository = self._repository(match[1])
            if repository:
                self._answer(200, {"id": match[1], "private": repository.private})
            return
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match:
            return self._serve(*match.groups())
        return self._answer(404, {"error": "unknown"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        there = name in self.server.repositories
        if not there:
            private = wanted.get("visibility") == "private"
            self.server.repositories[name] = Repository(private)
        self._answer(409 if there else 200, {"url": f"{self.server.url}/{name}"})

    def _commit(self, name: str, body: bytes) -> None:
        files, repository = {}, self.server.repositories[name]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
                repository.large.add(value["path"])
        commit = repository.add(files)
        url = f"{self.server.url}/{name}/commit/{commit}"
        self._answer(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def _serve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        commit = repository.commit_of(revision)
        if commit is None:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        content = repository.commits[commit].get(path)
        found = {"X-Repo-Commit": commit}
        if content is None:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound", **found})
        if path in repository.large:
            found["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            found["X-Linked-Size"] = str(len(content))
        self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', **found})

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that says why it cannot be read."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._authorised()):
            # As the Hub: who may not see a private repository is not told that it is there.
            self._answer(404 if self._authorised() else 401, {}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _mode(self, path: str) -> str:
        return "lfs" if path.endswith(".safetensors") else "regular"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, tree: Any, headers: dict[str, str] | None = None) -> None:
        content = {"Content-Type": "application/json", **(headers or {})}
        self._send(status, json.dumps(tree).encode(), content)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.server.requests.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
