"""A server on loopback that speaks the Hub's HTTP API as far as huggingface_hub uses it; repositories live in memory.

    with hub_server.running() as hub:
        commit = hub.seed("me/model", folder)
        hub.cut("GET", r"model\\.safetensors", after=1000)
        subprocess.run(command, env=os.environ | hub.env(home, token=hub_server.WRITE))
        assert hub.count("GET", r"model\\.safetensors") == 2

huggingface_hub reads its environment when it is imported: a client is a process of its own, or `Hub.here`. "me" owns
the tokens `WRITE` and `READ`, "you" owns `OTHER`. Xet's protocol is not spoken: large files go by LFS.
"""

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub

WRITE, READ, OTHER = "hf_write", "hf_read", "hf_other"
TOKENS = {WRITE: ("me", "write"), READ: ("me", "read"), OTHER: ("you", "write")}
LFS_ENDINGS = (".safetensors", ".bin", ".pt", ".npy", ".onnx", ".parquet", ".tar", ".gz", ".xz", ".png")
LFS_SIZE = 10_000_000
DATE = "2020-01-01T00:00:00.000Z"
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Blob(NamedTuple):
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        """Of the file as git has it: a pointer where it lies in LFS."""
        data = self.data
        if self.lfs:
            version = "version https://git-lfs.github.com/spec/v1"
            data = f"{version}\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git


@dataclass
class Repo:
    """Commits are trees by hash; `history` has (hash, branch, title) in the order of commits."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    history: list[tuple[str, str, str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def commit(self, branch: str, title: str, tree: dict[str, Blob]) -> str:
        names = [f"{path} {blob.git}" for path, blob in sorted(tree.items())]
        commit = hashlib.sha1(repr((title, len(self.history), names)).encode()).hexdigest()
        self.commits[commit] = tree
        self.branches[branch] = commit
        self.history.append((commit, branch, title))
        return commit

    def resolve(self, revision: str) -> str | None:
        """Hash of a branch, a hash, or the beginning of one."""
        if revision in self.branches:
            return self.branches[revision]
        found = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return found[0] if len(found) == 1 else None


class Entry(NamedTuple):
    """A request of the log: `received` and `sent` are bytes of bodies; a cut connection has the status 0."""

    method: str
    path: str
    status: int
    range: str | None
    received: int
    sent: int


@dataclass
class Failure:
    method: str
    pattern: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None


class Answer(Exception):
    """What a request is answered with, wherever it is known."""

    def __init__(self, status: int, body: object = None, **headers: str) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            self.headers.setdefault("Content-Type", "application/json")


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """An error as the Hub puts it: in the body, in a header, and as a code that the client turns into a type."""
    codes = {"X_Error_Code": code} if code else {}
    return Answer(status, {"error": message}, X_Error_Message=message, **codes, **headers)


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.log: list[Entry] = []
        self.failures: list[Failure] = []
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def env(self, home: Path, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """Environment of a client whose cache and login lie in `home`."""
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        return settings | ({"HF_TOKEN": token} if token else {})

    def here(self, monkeypatch, home: Path, token: str | None = None) -> None:
        """Make this process such a client, for the length of a test."""
        for name, value in self.env(home, token).items():
            monkeypatch.setenv(name, value)
        if token is None:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
        settings |= {
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's tries
        huggingface_hub.utils.close_session()

    def create(self, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[repo_id] = Repo(private)
        repo.commit("main", "initial commit", {".gitattributes": Blob(ATTRIBUTES, False)})
        return repo

    def seed(self, repo_id: str, folder: Path, private: bool = False, branch: str = "main") -> str:
        """Commit a folder's files, to a new repository or over what one holds; give the commit's hash."""
        repo = self.repos.get(repo_id) or self.create(repo_id, private)
        tree = dict(repo.commits[repo.branches.get(branch, repo.branches["main"])])
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                blob = Blob(data, is_lfs(path.name, len(data)))
                tree[path.relative_to(folder).as_posix()] = blob
                if blob.lfs:
                    repo.objects[blob.sha256] = data
        return repo.commit(branch, "seed", tree)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Contents by path, without the .gitattributes that every repository begins with."""
        repo = self.repos[repo_id]
        tree = repo.commits[repo.resolve(revision)]
        return {path: blob.data for path, blob in tree.items() if path != ".gitattributes"}

    def fail(self, method: str, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next `times` requests whose path holds `pattern` (a regular expression) with an error."""
        if status == 429:
            headers.setdefault("Retry_After", "0")
        self.failures.append(Failure(method, pattern, times, status, headers))

    def cut(self, method: str, pattern: str, after: int, times: int = 1) -> None:
        """Cut the connection of the next requests after so many bytes of the body that goes either way."""
        self.failures.append(Failure(method, pattern, times, after=after))

    def failure(self, method: str, path: str) -> Failure | None:
        """The one that this request meets, if any."""
        with self.lock:
            for failure in self.failures:
                if failure.times and failure.method == method and re.search(failure.pattern, path):
                    failure.times -= 1
                    return failure
        return None

    def count(self, method: str, pattern: str, status: int | None = None) -> int:
        """Requests in the log, with any status or this one."""
        found = [entry for entry in self.log if entry.method == method and re.search(pattern, entry.path)]
        return len([entry for entry in found if status in (None, entry.status)])

    def uploads(self) -> list[str]:
        """SHA-256 of every LFS object that arrived whole, once for each time."""
        return [entry.path.rsplit("/", 1)[1] for entry in self.log if entry.method == "PUT" and entry.status == 200]


@contextmanager
def running():
    """A server in a thread, until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_ENDINGS) or size > LFS_SIZE


ROUTES: list[tuple[str, re.Pattern[str], str]] = []


def route(method: str, pattern: str):
    """Register a method of `Handler`; {repo} and {name} are parts of the path, unquoted."""
    pattern = pattern.replace("{repo}", r"(?P<repo>[^/]+/[^/]+?)")
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def register(function):
        ROUTES.append((method, re.compile(pattern), function.__name__))
        return function

    return register


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args) -> None:
        pass

    # From the socket to a route, and back

    def handle_request(self) -> None:
        path = urlsplit(self.path).path
        failure = self.server.failure(self.command, path)
        self.body = b""
        cut = failure.after if failure else None
        if not self.read_body(cut):
            return self.hang_up(path, 0)
        try:
            if failure and failure.status:
                raise refusal(failure.status, f"failure {failure.status} on demand", **failure.headers)
            for method, pattern, name in ROUTES:
                if method == self.command.replace("HEAD", "GET") and (match := pattern.fullmatch(path)):
                    parts = {key: unquote(value) for key, value in match.groupdict().items() if value}
                    with self.server.lock:
                        getattr(self, name)(**parts)
            raise refusal(404, f"no such address: {path}")
        except Answer as answer:
            self.answer(path, answer, cut)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def read_body(self, limit: int | None) -> bool:
        """Read the body; False if it is to be cut before its end."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return limit is None or len(self.body) <= limit
        size = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(size if limit is None else min(size, limit))
        return len(self.body) == size

    def answer(self, path: str, answer: Answer, cut: int | None) -> None:
        body = answer.body if self.command != "HEAD" else b""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if cut is not None and cut < len(body):
            self.wfile.write(body[:cut])
            self.wfile.flush()
            return self.hang_up(path, cut)
        self.note(path, answer.status, len(body))  # before the client can go on
        self.wfile.write(body)

    def hang_up(self, path: str, sent: int) -> None:
        """End the connection: what is on its way to the client arrives, what comes from it is refused."""
        self.note(path, 0, sent)
        self.close_connection = True

    def note(self, path: str, status: int, sent: int) -> None:
        ranges = self.headers.get("Range")
        self.server.log.append(Entry(self.command, path, status, ranges, len(self.body), sent))

    # Who asks, and for what

    def user(self) -> tuple[str | None, str]:
        """Name and role of the token's owner; (None, "") without one."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise refusal(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token, (None, ""))

    def repo(self, repo_id: str, write: bool = False) -> Repo:
        user, role = self.user()
        repo = self.server.repos.get(repo_id)
        owns = user == repo_id.partition("/")[0]
        if repo is None or (repo.private and not owns):  # the Hub does not tell which
            if user is None:
                raise refusal(401, "Invalid username or password.", "RepoNotFound")
            raise refusal(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise refusal(401, "Invalid username or password.")
        if write and (role != "write" or not owns):
            raise refusal(403, f"Forbidden: this requires a write token of the owner of {repo_id}")
        return repo

    def tree(self, repo_id: str, revision: str) -> tuple[str, dict[str, Blob]]:
        repo = self.repo(repo_id)
        commit = repo.resolve(revision)
        if commit is None:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.commits[commit]

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    # The API

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        user, role = self.user()
        if user is None:
            raise refusal(401, "Invalid username or password.")
        token = {"accessToken": {"displayName": role, "role": role}, "type": "access_token"}
        raise Answer(200, {"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": token})

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> None:
        warnings = (
            [] if self.json()["content"].startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
        )
        raise Answer(200, {"errors": [], "warnings": warnings})

    @route("POST", "/api/repos/create")
    def create_repo(self) -> None:
        asked = self.json()
        user, role = self.user()
        if user is None:
            raise refusal(401, "Invalid username or password.")
        owner = asked.get("organization") or user
        if role != "write" or owner != user:
            raise refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        repo_id = f"{owner}/{asked['name']}"
        url = {"url": f"{self.server.url}/{repo_id}", "name": repo_id}
        if repo_id in self.server.repos:
            raise Answer(409, url | {"error": "You already created this model repo"})
        self.server.create(repo_id, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        raise Answer(200, url)

    @route("POST", "/api/models/{repo}/branch/{branch}")
    def create_branch(self, repo: str, branch: str) -> None:
        found = self.repo(repo, write=True)
        if branch in found.branches:
            raise refusal(409, "Reference already exists")
        found.branches[branch], _ = self.tree(repo, self.json().get("startingPoint", "main"))
        raise Answer(200, {})

    @route("GET", "/api/models/{repo}(/revision/{revision})?")
    def model_info(self, repo: str, revision: str = "main") -> None:
        commit, tree = self.tree(repo, revision)
        siblings = [
            self.described(path, blob) | {"rfilename": path, "blobId": blob.git} for path, blob in tree.items()
        ]
        private = self.repo(repo).private
        info = {"id": repo, "modelId": repo, "author": repo.partition("/")[0], "sha": commit, "private": private}
        raise Answer(200, info | {"siblings": siblings, "tags": [], "lastModified": DATE, "createdAt": DATE})

    @staticmethod
    def described(path: str, blob: Blob) -> dict:
        found = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git}
        if blob.lfs:  # one place has it as oid, the other as sha256
            found["lfs"] = {"oid": blob.sha256, "sha256": blob.sha256, "size": len(blob.data), "pointerSize": 128}
        return found

    def listing(self, tree: dict[str, Blob], folder: str, recursive: bool) -> list[dict]:
        """Entries below a folder ("" is the root): files and, as the Hub has them, folders."""
        start = f"{folder}/" if folder else ""
        entries = {}
        for path, blob in tree.items():
            if path.startswith(start):
                *parents, _ = path[len(start) :].split("/")
                for depth in range(1, len(parents) + 1):
                    name = start + "/".join(parents[:depth])
                    entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
                entries[path] = self.described(path, blob)
        return [entry for name, entry in entries.items() if recursive or "/" not in name[len(start) :]]

    @route("GET", "/api/models/{repo}/tree/{revision}(/{folder})?")
    def list_tree(self, repo: str, revision: str, folder: str = "") -> None:
        _, tree = self.tree(repo, revision)
        query = parse_qs(urlsplit(self.path).query)
        found = self.listing(tree, folder, query.get("recursive", [""])[0].lower() in ("true", "1"))
        if folder and not found:
            raise refusal(404, f"{folder} does not exist", "EntryNotFound")
        raise Answer(200, found)

    # Uploads

    @route("POST", "/api/models/{repo}/preupload/{revision}")
    def preupload(self, repo: str, revision: str) -> None:
        self.repo(repo, write=True)
        commit, tree = self.tree(repo, revision)
        answers = []
        for path, size in [(file["path"], file["size"]) for file in self.json()["files"]]:
            oid = tree[path].etag if path in tree else None
            mode = "lfs" if is_lfs(path, size) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise Answer(200, {"files": answers, "commitOid": commit})

    @route("POST", r"/{repo}\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> None:
        known = self.repo(repo, write=True).objects
        objects = [{"oid": each["oid"], "size": each["size"]} for each in self.json()["objects"]]
        for each in objects:
            if each["oid"] not in known:
                href = f"{self.server.url}/lfs/{repo}/{each['oid']}"
                verify = f"{self.server.url}/api/models/{repo}/lfs-verify"
                each["actions"] = {"upload": {"href": href}, "verify": {"href": verify}}
        raise Answer(200, {"transfer": "basic", "objects": objects})

    @route("PUT", "/lfs/{repo}/{oid}")
    def put_object(self, repo: str, oid: str) -> None:
        """The address itself is the permission, as with a storage that is signed for: no token comes with it."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise refusal(400, "The content has another SHA-256")
        self.server.repos[repo].objects[oid] = self.body
        raise Answer(200, b"", ETag=f'"{oid}"')

    @route("POST", "/api/models/{repo}/lfs-verify")
    def verify(self, repo: str) -> None:
        asked = self.json()
        if len(self.repo(repo, write=True).objects.get(asked["oid"], b"")) != asked["size"]:
            raise refusal(404, "The object is not there, or not whole")
        raise Answer(200, {})

    @route("POST", "/api/models/{repo}/commit/{revision}")
    def commit(self, repo: str, revision: str) -> None:
        found = self.repo(repo, write=True)
        parent, tree = self.tree(repo, revision if revision in found.branches else "")
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", parent) != parent:
            raise refusal(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(tree)
        for key, value in [line.values() for line in lines]:
            if key == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in found.objects:
                    raise refusal(400, f"LFS pointer of {value['path']} points to a file that does not exist")
                tree[value["path"]] = Blob(found.objects[value["oid"]], True)
            elif key == "deletedFile":
                del tree[value["path"]]
            elif key == "deletedFolder":
                tree = {path: blob for path, blob in tree.items() if not path.startswith(value["path"])}
        commit = found.commit(revision, header["summary"], tree)
        url = f"{self.server.url}/{repo}/commit/{commit}"
        raise Answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    # Downloads

    @route("GET", "/{repo}/resolve/{revision}/(?P<path>.+)")
    def download(self, repo: str, revision: str, path: str) -> None:
        commit, tree = self.tree(repo, revision)
        if path not in tree:
            raise refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit)
        data = tree[path].data
        etag = f'"{tree[path].etag}"'
        headers = {"ETag": etag, "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if tree[path].lfs:
            headers |= {"X_Linked_Etag": etag, "X_Linked_Size": str(len(data))}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(data) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
            raise Answer(206, data[start : end + 1], **headers)
        raise Answer(200, data, **headers)
