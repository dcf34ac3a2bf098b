"""A Neuronpedia for tests: a real HTTP server on loopback with the bucket's listing and files and the API's answers, as recorded."""

import gzip
import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from fade_lens.neuronpedia import Hosts
from fade_lens.neuronpedia.transport import Web

MODEL, SOURCE = "gpt2-small", "6-res-jb"
REMOVED = {
    "newUrl": "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com/index.html?prefix=v1/",
    "message": "This endpoint has been removed. Explanations exports can be downloaded more quickly and efficiently elsewhere.",
}
LIMITED = {
    "endpoint": "/api/feature",
    "limitPerWindow": 25000,
    "requestWindow": "60 minutes",
    "remainingRequests": 0,
    "error": "Rate limit exceeded",
}


def explanation(index: Any, text: Any, n: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of the bulk data as it is written: the index a string, the embedding a string."""
    return {
        "id": f"clabc{n:05d}{index}",
        "modelId": MODEL,
        "layer": SOURCE,
        "index": str(index),
        "authorId": "clauthor",
        "description": text,
        "embedding": "[0.01,-0.02]",
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
        "umap_x": 0,
        "umap_y": 0,
        "umap_cluster": 0,
        "umap_log_feature_sparsity": 0,
    } | changes


def packed(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a batch."""
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


class FakeSite:
    """Bucket and API in one server; `files` maps keys to bytes, `features` (source, index) to answers.

    `script` lists what happens to the next requests whose path holds its first word: ("batch-0", "cut" | "error" | "limit" | ...).
    """

    def __init__(self, page: int = 1000) -> None:
        self.files: dict[str, bytes] = {}
        self.features: dict[str, Any] = {}
        self.page = page
        self.script: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.met: Counter[str] = Counter()
        self.retry_after: str | None = "0.02"
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.site = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def hosts(self) -> Hosts:
        return Hosts(site=self.url, bucket=self.url)

    @property
    def web(self) -> Web:
        return Web(backoff=0.01, timeout=5.0)

    def __enter__(self) -> "FakeSite":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, rows: list[dict[str, Any]], kind: str = "explanations", source: str = SOURCE) -> str:
        """A batch in the bucket."""
        key = f"v1/{MODEL}/{source}/{kind}/{name}"
        self.files[key] = packed(rows)
        return key

    def fetched(self, word: str) -> int:
        """Requests whose path and query hold a word."""
        return sum(word in request for request in self.requests)

    def misbehaviour(self, path: str) -> str:
        with self.lock:
            for at, (word, kind) in enumerate(self.script):
                if word in path:
                    del self.script[at]
                    self.met[kind] += 1
                    return kind
        return "ok"


QUOTED = {'"': "&quot;"}


def etag(raw: bytes) -> str:
    return f'"{hashlib.md5(raw).hexdigest()}"'


def listing_xml(site: FakeSite, query: dict[str, list[str]]) -> bytes:
    """A page of a listing, in the shape that S3 gives it."""
    prefix, delimiter = query["prefix"][0], query.get("delimiter", [""])[0]
    names: list[tuple[str, str]] = []
    for key in sorted(site.files):  # lexicographic, as S3 has it
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            folder = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else ""
            names.append(("folder", folder) if folder else ("file", key))
    names = list(dict.fromkeys(names))
    start = int(query.get("continuation-token", ["0"])[0])
    shown, rest = names[start : start + site.page], names[start + site.page :]
    body = "".join(
        f"<Contents><Key>{escape(name)}</Key><LastModified>2026-03-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(etag(site.files[name]), QUOTED)}</ETag><Size>{len(site.files[name])}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        if kind == "file"
        else f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        for kind, name in shown
    )
    more = f"<NextContinuationToken>{start + site.page}</NextContinuationToken>" if rest else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>neuronpedia-datasets</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(shown)}</KeyCount><MaxKeys>{site.page}</MaxKeys>"
        f"<IsTruncated>{'true' if rest else 'false'}</IsTruncated>{more}{body}</ListBucketResult>"
    ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        site: FakeSite = self.server.site  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        with site.lock:
            site.requests.append(self.path)
            site.headers.append({name.lower(): value for name, value in self.headers.items()})
        kind = site.misbehaviour(unquote(self.path))
        if kind == "limit":
            extra = {"Retry-After": site.retry_after} if site.retry_after else {}
            return self._send(429, json.dumps(LIMITED).encode(), **extra)
        if kind == "error":
            return self._send(503, b"<html>busy</html>")
        if kind == "refused":
            return self._send(403, b"<html>Forbidden</html>")
        if kind == "moved":
            return self._send(301, b"", Location="http://elsewhere.invalid" + self.path)
        if kind == "turned":
            return self._send(302, b"", Location=self.path)
        if kind == "doctype":
            return self._send(200, b'<!DOCTYPE lol [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>')
        if kind == "html":
            return self._send(200, b"<html><body>Sign in to the hotel's network</body></html>")
        if kind == "slow":
            time.sleep(0.3)
        if parts.path == "/" and "list-type=2" in parts.query:
            return self._send(200, listing_xml(site, parse_qs(parts.query)))
        if parts.path == "/api/explanation/export":
            return self._send(400, json.dumps(REMOVED).encode())
        if parts.path.startswith("/api/feature/"):
            found = site.features.get(parts.path.removeprefix("/api/feature/"))
            return self._send(200, json.dumps(found).encode())
        raw = site.files.get(unquote(parts.path.lstrip("/")))
        if raw is None:
            return self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return self._file(raw, kind)

    def _file(self, raw: bytes, kind: str) -> None:
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted and condition in (None, etag(raw)) and kind != "no_ranges":
            return self._send(206, raw[start:], kind, **{"Content-Range": f"bytes {start}-{len(raw) - 1}/{len(raw)}"})
        return self._send(200, raw, kind)

    def _send(self, status: int, body: bytes, kind: str = "ok", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body[:-1] + b"?" if kind == "flip" else body)
