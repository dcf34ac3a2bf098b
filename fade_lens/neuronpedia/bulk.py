"""Neuronpedia's bulk data: a public bucket with `v1/{model}/{source}/{features,activations,explanations}/batch-N.jsonl.gz`."""

import json
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fade_lens._util.errors import InputError, suggest
from fade_lens._util.files import json_lines, write_text
from fade_lens.neuronpedia.errors import NeuronpediaError
from fade_lens.neuronpedia.ids import NAME, Hosts, SourceId
from fade_lens.neuronpedia.records import Activation, Imported, Row, Stats, activation_of, index_of, row_of, stats_of
from fade_lens.neuronpedia.transport import Web

logger = logging.getLogger(__name__)

VERSION = "v1"
LISTING = "listing.json"
LISTING_BYTES = 16 * 2**20
MAX_PAGES = 2000
AT_ONCE = 4
"""Files fetched at the same time."""


@dataclass(frozen=True)
class Entry:
    """A file of the bucket."""

    key: str
    size: int
    etag: str = ""

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]


def listing(web: Web, bucket: str, prefix: str) -> tuple[list[Entry], list[str]]:
    """All files and folders right under a prefix, page after page.

    Raises:
        NeuronpediaError: the listing cannot be read.
    """
    entries: list[Entry] = []
    folders: list[str] = []
    token, seen = "", set[str]()
    for _ in range(MAX_PAGES):
        query = {"list-type": "2", "prefix": prefix, "delimiter": "/"} | (
            {"continuation-token": token} if token else {}
        )
        page = parsed(web.get(f"{bucket}/?{urlencode(query)}", LISTING_BYTES), bucket)
        for contents in page.iterfind("{*}Contents"):
            key, size = contents.findtext("{*}Key", ""), contents.findtext("{*}Size", "0")
            if key.startswith(prefix) and size.isdigit():
                entries.append(Entry(key, int(size), contents.findtext("{*}ETag", "")))
        folders += [p.findtext("{*}Prefix", "") for p in page.iterfind("{*}CommonPrefixes")]
        if page.findtext("{*}IsTruncated", "false").lower() != "true":
            return entries, folders
        token = page.findtext("{*}NextContinuationToken", "")
        if not token or token in seen:
            raise NeuronpediaError(f"the listing of {prefix} says that it goes on, but not where")
        seen.add(token)
    raise NeuronpediaError(f"the listing of {prefix} has over {MAX_PAGES} pages")


def parsed(raw: bytes, bucket: str) -> ElementTree.Element:
    """A page of a listing; one with a document type could hold entities that grow without bound."""
    try:
        if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
            raise ElementTree.ParseError("it declares a document type")
        root = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise NeuronpediaError(
            f"{bucket} answered with no listing ({error}); set FADE_LENS_NEURONPEDIA_BUCKET"
        ) from error
    if not root.tag.endswith("ListBucketResult"):
        raise NeuronpediaError(f"{bucket} answered <{root.tag.rsplit('}', 1)[-1]}> instead of a listing")
    return root


def files(web: Web, hosts: Hosts, source: SourceId, kind: str, most: int | None = None) -> list[Path]:
    """The batches of one kind ("explanations", "features", "activations") on disk, fetched where they are not there yet.

    A file is whole if its size is what the bucket lists, and fetched again if the bucket has another version. Where the bucket
    cannot be reached, what an earlier call listed is used.

    Raises:
        InputError: the bucket has no such source.
        NeuronpediaError: a file cannot be had.
    """
    prefix = f"{VERSION}/{source}/{kind}/"  # without its last slash, siblings such as explanations-old would match
    folder = cache_of(hosts.bucket) / VERSION / source.model_id / source.source_id / kind
    entries = [entry for entry in listed(web, hosts.bucket, prefix, folder) if is_batch(entry.name)]
    if not entries and kind == "explanations":
        raise InputError(unknown_source(web, hosts, source))
    chosen = entries[:most]
    fetch(web, hosts.bucket, entries, chosen, folder)
    return [folder / entry.name for entry in chosen]


def listed(web: Web, bucket: str, prefix: str, folder: Path) -> list[Entry]:
    """What the bucket lists under a prefix, or what it listed before if it cannot be reached."""
    try:
        return listing(web, bucket, prefix)[0]
    except NeuronpediaError as error:
        known = known_entries(folder)
        if known is None:
            raise
        logger.warning("%s; what was fetched before is used", error)
        return known


def fetch(web: Web, bucket: str, entries: Sequence[Entry], chosen: Sequence[Entry], folder: Path) -> None:
    """Fetch what is missing or of another version, a few files at a time, and keep the listing beside it."""
    before = {entry.key: entry for entry in known_entries(folder) or ()}

    def there(entry: Entry) -> bool:
        path = folder / entry.name
        same = before.get(entry.key, entry).etag == entry.etag
        return path.is_file() and path.stat().st_size == entry.size and same

    missing = [entry for entry in chosen if not there(entry)]
    if missing:
        logger.info("fetching %d files, %.1f MB", len(missing), sum(entry.size for entry in missing) / 1e6)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda e: web.download(f"{bucket}/{quote(e.key)}", folder / e.name, e.size, e.etag), missing))
    write_text(folder / LISTING, json.dumps([asdict(entry) for entry in entries]))


def known_entries(folder: Path) -> list[Entry] | None:
    """What an earlier call listed, None if there was none."""
    try:
        found: Any = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        return [Entry(str(e["key"]), int(e["size"]), str(e["etag"])) for e in found]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_batch(name: str) -> bool:
    """Whether a file holds rows; its number says nothing about which."""
    return bool(NAME.fullmatch(name)) and name.endswith((".jsonl.gz", ".jsonl"))


def unknown_source(web: Web, hosts: Hosts, source: SourceId) -> str:
    """What to say of a source without explanations: what the model has instead."""
    _, folders = listing(web, hosts.bucket, f"{VERSION}/{source.model_id}/")
    known = [f"{source.model_id}/{folder.rstrip('/').rsplit('/', 1)[-1]}" for folder in folders]
    near = suggest(str(source), known) if known else f"; it has nothing of model {source.model_id!r} either"
    return f"Neuronpedia's bulk data has no descriptions of {str(source)!r}{near}"


def cache_of(bucket: str) -> Path:
    """Where a host's files are kept."""
    from fade_lens._util.cache import cache_folder

    host = "".join(c if c.isalnum() or c in ".-" else "_" for c in urlsplit(bucket).netloc)
    return cache_folder() / "neuronpedia" / host


def source_config(web: Web, hosts: Hosts, source: SourceId) -> dict[str, Any]:
    """The first line of `source.jsonl`: which SAE this is; empty where there is none."""
    prefix = f"{VERSION}/{source}/source.jsonl"
    folder = cache_of(hosts.bucket) / VERSION / source.model_id / source.source_id
    entries = listed(web, hosts.bucket, prefix, folder)
    chosen = [entry for entry in entries if entry.name in ("source.jsonl", "source.jsonl.gz")]
    fetch(web, hosts.bucket, chosen, chosen, folder)
    return next((record for entry in chosen for _, record in json_lines(folder / entry.name)), {})


def explanation_rows(
    paths: Sequence[Path], source: SourceId | None, wanted: Collection[int] | None = None
) -> Iterator[Row]:
    """The descriptions in some batches, of the features wanted; embeddings and the like are dropped line by line."""
    for path in paths:
        for where, record in json_lines(path):
            row = row_of(record, where, source)
            if wanted is None or row.index in wanted:
                yield row


def feature_stats(paths: Sequence[Path], wanted: Collection[int] | None = None) -> dict[int, Stats]:
    """Statistics of features from their batches."""
    found: dict[int, Stats] = {}
    for path in paths:
        for where, record in json_lines(path):
            index = index_of(record, where)
            if wanted is None or index in wanted:
                found[index] = stats_of(record)
    return found


def activation_rows(
    paths: Sequence[Path], most: int, each: int = 2, wanted: Collection[int] | None = None
) -> list[Activation]:
    """Up to `most` stored contexts that are not silent, at most `each` of one feature; those of the features wanted first."""
    first: list[Activation] = []
    others: list[Activation] = []
    counts: dict[int, int] = {}
    for path in paths:
        for where, record in json_lines(path):
            found = activation_of(record, where)
            if found is None or not any(found.values) or counts.get(found.index, 0) >= each:
                continue
            counts[found.index] = counts.get(found.index, 0) + 1
            (first if wanted is None or found.index in wanted else others).append(found)
            if len(first) >= most:
                return first[:most]
        if len(first) + len(others) >= most:
            break
    return (first + others)[:most]


def read_bulk(
    web: Web,
    hosts: Hosts,
    source: SourceId,
    indices: Collection[int] | None = None,
    activations: int = 0,
    stats: bool = False,
) -> Imported:
    """Everything asked for about a source: its descriptions, statistics, and some stored contexts from the first batch of them.

    Raises:
        InputError: no such source.
        NeuronpediaError: it cannot be read.
    """
    rows = tuple(explanation_rows(files(web, hosts, source, "explanations"), source, indices))
    stored: list[Activation] = []
    if activations:
        stored = activation_rows(files(web, hosts, source, "activations", most=1), activations, wanted=indices)
    known = feature_stats(files(web, hosts, source, "features"), indices) if stats else {}
    return Imported(source, rows, known, tuple(stored), complete=True, config=source_config(web, hosts, source))
