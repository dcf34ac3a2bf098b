"""Addresses of Neuronpedia's pages, lists of features, and rows that an instance of one's own imports."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fade_lens._util.errors import InputError
from fade_lens.neuronpedia.ids import Hosts, SourceId
from fade_lens.neuronpedia.resolving import resolve

LINK_FEATURES = 45
"""Features in one quick-list link: Neuronpedia takes 150, servers and browsers about 8,000 characters."""
LINK_CHARACTERS = 8000
LIST_FEATURES = 150


def dashboard(source: Any, index: int, *, hosts: Hosts | None = None, embed: bool = False) -> str:
    """The page of a feature.

    >>> dashboard("gpt2-small/8-res-jb", 204)
    'https://www.neuronpedia.org/gpt2-small/8-res-jb/204'
    """
    extra = "?embed=true&embedexplanation=true&embedplots=true&embedactivations=true" if embed else ""
    return f"{(hosts or Hosts()).site}/{resolve(source)}/{int(index)}{extra}"


def quick_list(
    source: Any,
    indices: Iterable[int],
    name: str = "fade-lens",
    *,
    hosts: Hosts | None = None,
    most: int = LINK_FEATURES,
) -> list[str]:
    """Links that each open a list of some of the features, in their order; no account is needed.

    Raises:
        InputError: `most` is not between 1 and 150.
    """
    if not 1 <= most <= LIST_FEATURES:
        raise InputError(f"most is {most}; a quick list holds 1 to {LIST_FEATURES} features")
    chosen = resolve(source)
    items = [{"modelId": chosen.model_id, "layer": chosen.source_id, "index": str(int(i))} for i in indices]
    groups = [items[start : start + most] for start in range(0, len(items), most)]
    shown = [f"{name} {n} of {len(groups)}" if len(groups) > 1 else name for n in range(1, len(groups) + 1)]
    links = [list_link(title, group, (hosts or Hosts()).site) for title, group in zip(shown, groups, strict=True)]
    if most > 1 and any(len(link) > LINK_CHARACTERS for link in links):
        return quick_list(source, [int(item["index"]) for item in items], name, hosts=hosts, most=max(1, most // 2))
    return links


def list_link(name: str, items: Sequence[Mapping[str, str]], site: str) -> str:
    """One link."""
    return f"{site}/quick-list/?name={quote(name, safe='')}&features={quote(json.dumps(list(items), separators=(',', ':')), safe='')}"


def list_bodies(
    source: Any, features: Iterable[tuple[int, str]], name: str, description: str = ""
) -> list[dict[str, Any]]:
    """Bodies for `POST /api/list/new-with-features` (header `x-api-key`), which make lists that stay; 150 features each.

    Args:
        features: index and a line about each.
    """
    chosen = resolve(source)
    pairs = list(features)
    groups = [pairs[start : start + LIST_FEATURES] for start in range(0, len(pairs), LIST_FEATURES)]
    return [
        {
            "name": f"{name} {n} of {len(groups)}" if len(groups) > 1 else name,
            "description": description,
            "features": [
                {"modelId": chosen.model_id, "layer": chosen.source_id, "index": int(index), "description": text}
                for index, text in group
            ],
        }
        for n, group in enumerate(groups, 1)
    ]


IMPORT_COLUMNS = (
    "id",
    "modelId",
    "layer",
    "index",
    "authorId",
    "description",
    "typeName",
    "explanationModelName",
    "notes",
)


def import_rows(source: Any, rows: Iterable[Mapping[str, Any]], author: str = "fade-lens") -> Iterator[dict[str, Any]]:
    """Explanation rows in the bulk format, for an instance of one's own.

    Its importer takes the columns from the first line, so every row has all of them; what has no column of its own goes into
    `notes` as JSON. It leaves out rows whose id it has: a row without `explanation_id` gets one that its text decides.

    Args:
        rows: each with `index` and `description`, and whatever else is to be kept.
        author: the id of a user that the instance has; it takes no rows of others.
    """
    return _import_rows(resolve(source), rows, author)


def _import_rows(chosen: SourceId, rows: Iterable[Mapping[str, Any]], author: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        extra = {
            k: v
            for k, v in row.items()
            if k not in ("index", "description", "explanation_id", "type_name", "explanation_model_name")
        }
        text = f"{chosen}/{row['index']}:{row['description']}".encode("utf-8", "replace")
        made_up = f"{author}-{hashlib.sha256(text).hexdigest()[:20]}"
        yield {
            "id": str(row.get("explanation_id") or made_up),
            "modelId": chosen.model_id,
            "layer": chosen.source_id,
            "index": str(int(row["index"])),
            "authorId": author,
            "description": str(row["description"]),
            "typeName": row.get("type_name") or None,  # a key of another table: "" is none of its
            "explanationModelName": row.get("explanation_model_name") or None,
            "notes": json.dumps(extra, ensure_ascii=False, default=str),
        }
