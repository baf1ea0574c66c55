"""The Hugging Face hub on loopback: enough of its HTTP API for the real client to create, upload, commit, download.

`faults[step]` makes a step fail: an HTTP status, or CUT for a connection that breaks off. Steps are whoami, create,
preupload, batch, upload, commit, info and resolve. `failing` limits how often, `requests` counts what was asked.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER, TOKEN = "ada", "hf_loopback"
CUT = "cut"
REPOSITORY = r"(?P<type>models|datasets)/(?P<repo>[^/]+/[^/]+)"
FILE_REPOSITORY = r"/(?P<type>datasets/)?(?P<repo>[^/]+/[^/]+)"


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], list[dict[str, bytes]]] = {}  # (type, id) -> commits, each all files
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.faults: dict[str, int | str] = {}
        self.failing = -1  # how many more requests fail; -1: all
        self.requests: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: str) -> dict[str, str]:
        """For a client that is logged in here, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": home,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def files(self, repo: str, type: str = "models") -> dict[str, bytes]:
        """What the repository holds now."""
        return self.repositories[type, repo][-1]

    @contextmanager
    def running(self) -> Iterator["Hub"]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


def revision(commits: list[dict[str, bytes]], number: int = -1) -> str:
    """The id of a commit, 40 hex digits."""
    number %= len(commits)
    return hashlib.sha1(f"{number}{sorted(commits[number])}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", rf"/api/{REPOSITORY}/preupload/main", "preupload"),
        ("POST", rf"{FILE_REPOSITORY}\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/upload/(?P<oid>\w+)", "upload"),
        ("POST", rf"/api/{REPOSITORY}/commit/main", "commit"),
        ("GET", rf"/api/{REPOSITORY}(/revision/(?P<revision>\w+))?", "info"),
        ("GET", rf"/api/{REPOSITORY}/tree/(?P<revision>\w+)", "tree"),
        ("GET", rf"{FILE_REPOSITORY}/resolve/(?P<revision>\w+)/(?P<path>.+)", "resolve"),
        ("HEAD", rf"{FILE_REPOSITORY}/resolve/(?P<revision>\w+)/(?P<path>.+)", "resolve"),
    )

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for method, pattern, step in self.ROUTES:
            match = re.fullmatch(pattern, self.path.partition("?")[0])
            if method != self.command or not match:
                continue
            self.server.requests[step] += 1
            fault = self.server.faults.get(step)
            if fault is not None and self.server.failing != 0:
                self.server.failing -= 1
                return self.fail(fault)
            if step != "upload" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.fail(401)
            return getattr(self, step)(body, **match.groupdict())
        return self.fail(404)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815  # names of http.server

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status, Content_Type="application/json")

    def fail(self, fault: int | str) -> None:
        if fault == CUT:
            self.close_connection = True
            self.connection.close()
        else:
            self.answer_json({"error": f"told to fail with {fault}"}, int(fault))

    def commits(self, type: str | None, repo: str) -> list[dict[str, bytes]]:
        return self.server.repositories.get(((type or "models").strip("/"), repo), [])

    def whoami(self, _: bytes) -> None:
        self.answer_json({"type": "user", "name": USER, "fullname": USER, "orgs": []})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        type = f"{wanted.get('type', 'model')}s"
        repo = f"{wanted.get('organization') or USER}/{wanted['name']}"
        if (type, repo) in self.server.repositories:
            return self.answer_json({"error": "You already created this repo", "url": f"{self.server.url}/{repo}"}, 409)
        self.server.repositories[type, repo] = [{}]
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(repo)
        return self.answer_json({"url": f"{self.server.url}/{repo}", "name": repo, "id": repo})

    def validate(self, _: bytes) -> None:
        self.answer_json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, type: str, repo: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".h5", ".mp4")) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer_json({"files": modes})

    def batch(self, body: bytes, type: str | None, repo: str) -> None:
        objects: list[dict[str, Any]] = []
        for wanted in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{self.server.url}/upload/{wanted['oid']}", "header": {}}}
            known = wanted["oid"] in self.server.blobs
            objects.append(wanted if known else {**wanted, "actions": actions})
        self.answer_json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self.answer(b"")

    def commit(self, body: bytes, type: str, repo: str) -> None:
        commits = self.commits(type, repo)
        files = dict(commits[-1])
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        commits.append(files)
        id = revision(commits)
        self.answer_json(
            {"success": True, "commitOid": id, "commitUrl": f"{self.server.url}/{repo}/commit/{id}", "hookOutput": ""}
        )

    def files_of(self, type: str | None, repo: str, wanted: str | None) -> tuple[str, dict[str, bytes]] | None:
        commits = self.commits(type, repo)
        for number, files in reversed(list(enumerate(commits))):
            if wanted in (None, "main", revision(commits, number)):
                return revision(commits, number), files
        return None

    def info(self, _: bytes, type: str, repo: str, revision: str | None) -> None:
        if (found := self.files_of(type, repo, revision)) is None:
            return self.missing("RepoNotFound")
        id, files = found
        siblings = [{"rfilename": name} for name in sorted(files)]
        return self.answer_json({"_id": id, "id": repo, "sha": id, "private": False, "siblings": siblings, "tags": []})

    def tree(self, _: bytes, type: str, repo: str, revision: str) -> None:
        if (found := self.files_of(type, repo, revision)) is None:
            return self.missing("RevisionNotFound")
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in sorted(found[1].items())
        ]
        return self.answer_json(entries)

    def resolve(self, _: bytes, type: str | None, repo: str, revision: str, path: str) -> None:
        found = self.files_of(type, repo, revision)
        if found is None or path not in found[1]:
            return self.missing("EntryNotFound")
        id, files = found
        etag = hashlib.sha256(files[path]).hexdigest()
        return self.answer(files[path], ETag=f'"{etag}"', X_Repo_Commit=id)

    def missing(self, code: str) -> None:
        self.answer(b"{}", 404, X_Error_Code=code)
