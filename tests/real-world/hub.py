"""A small Hub on this machine: python3 hub.py PORT FOLDER serves the model folder as tiny-lab/tiny-flux.

It answers what the real one answers to a reader: a repository at a revision, its tree, the sizes of some paths, files (whole, ranged,
large ones by a redirect), packed where the client takes that.
"""

import gzip
import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
REPO = "tiny-lab/tiny-flux"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class File:
    def __init__(self, path):
        with open(os.path.join(FOLDER, path), "rb") as file:
            self.bytes = file.read()
        self.large = path.endswith(".safetensors")
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()
        self.git = hashlib.sha1(b"blob %d\0" % len(self.bytes) + self.bytes).hexdigest()

    def entry(self, path):
        entry = {"type": "file", "oid": self.git, "size": len(self.bytes), "path": path}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.bytes), "pointerSize": 134}
        return entry

    def sibling(self, path, blobs):
        sibling = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(self.bytes), "blobId": self.git}
            if self.large:
                sibling["lfs"] = {"sha256": self.sha256, "size": len(self.bytes), "pointerSize": 134}
        return sibling


def files():
    for folder, _, names in os.walk(FOLDER):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), FOLDER)
            yield path, File(path)


FILES = dict(sorted(files()))


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value):
        body, headers = json.dumps(value).encode(), [("Content-Type", "application/json")]
        if "gzip" in self.headers.get("accept-encoding", ""):
            body, headers = gzip.compress(body), [*headers, ("Content-Encoding", "gzip")]
        self.answer(200, body, headers)

    def answer_bytes(self, data, headers):
        wanted = self.headers.get("range")
        if not wanted:
            return self.answer(200, data, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or len(data) - 1), len(data) - 1)
        span = ("Content-Range", f"bytes {first}-{last}/{len(data)}")
        return self.answer(206, data[first : last + 1], [*headers, span])

    def do_GET(self):
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        api = f"/api/models/{REPO}"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [file.sibling(name, "blobs" in query) for name, file in FILES.items()]
            return self.answer_json({"id": REPO, "sha": COMMIT, "private": False, "siblings": siblings})
        if path.startswith(f"{api}/tree/"):
            return self.answer_json([file.entry(name) for name, file in FILES.items()])
        for file in FILES.values():
            if path == f"/cdn/{file.sha256}":
                return self.answer_bytes(file.bytes, [("ETag", '"cdn"')])
        for revision in ("main", COMMIT):
            name = path.removeprefix(f"/{REPO}/resolve/{revision}/")
            if name in FILES:
                return self.answer_file(FILES[name])
        code = "RevisionNotFound" if path.startswith(f"{api}/revision/") else "EntryNotFound"
        return self.answer(404, b"{}", [("X-Error-Code", code if REPO in path else "RepoNotFound")])

    def answer_file(self, file):
        commit = ("X-Repo-Commit", COMMIT)
        if not file.large:
            return self.answer_bytes(file.bytes, [("ETag", f'"{file.git}"'), commit])
        linked = [("X-Linked-Etag", f'"{file.sha256}"'), ("X-Linked-Size", str(len(file.bytes)))]
        place = ("Location", f"http://127.0.0.1:{PORT}/cdn/{file.sha256}")
        return self.answer(302, b"", [place, commit, *linked])

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = parse_qs(body)["paths"]
        self.answer_json([FILES[path].entry(path) for path in paths if path in FILES])

    do_HEAD = do_GET


ThreadingHTTPServer(("127.0.0.1", PORT), Hub).serve_forever()
