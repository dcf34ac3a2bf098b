"""One feature from Neuronpedia's API: descriptions with their scores, statistics and contexts. About 1.2 MB each: few at a time."""

import gzip
import json
from collections.abc import Sequence
from typing import Any, cast

from fade_lens._util.errors import InputError
from fade_lens._util.files import json_value, whole_file
from fade_lens.neuronpedia.bulk import cache_of
from fade_lens.neuronpedia.errors import NeuronpediaError, NotThereError
from fade_lens.neuronpedia.ids import Hosts, SourceId
from fade_lens.neuronpedia.records import Imported, feature_of
from fade_lens.neuronpedia.transport import Web

MOST = 500
"""Features fetched one by one in a call; the API allows 25,000 requests an hour, and the bulk data has all of them at once."""


def read_feature(web: Web, hosts: Hosts, source: SourceId, index: int) -> Imported:
    """One feature, kept on disk once it was fetched.

    Raises:
        NeuronpediaError: it cannot be read; `NotThereError` if there is no such feature.
    """
    path = cache_of(hosts.site) / "features" / source.model_id / source.source_id / f"{index}.json.gz"
    url = f"{hosts.site}/api/feature/{source}/{index}"
    record: Any = json_value(path) if path.is_file() else None
    if record is None:
        record = web.json(url)
        if not record:
            raise NotThereError(f"Neuronpedia has no feature {index} in {source}")
        if not isinstance(record, dict) or "index" not in record:
            raise NeuronpediaError(f"{url} answered something that is no feature")
        with whole_file(path) as partial, gzip.open(partial, "wt", encoding="utf-8") as file:
            json.dump(record, file)
    return feature_of(cast(dict[str, Any], record), f"feature {source}/{index}", source)


def read_features(web: Web, hosts: Hosts, source: SourceId, indices: Sequence[int]) -> Imported:
    """Some features, one request each; those that Neuronpedia leaves out (dead ones) count as looked up.

    Raises:
        InputError: more than `MOST` of them.
        NeuronpediaError: they cannot be read, or it has none of them.
    """
    if len(indices) > MOST:
        raise InputError(f"{len(indices)} features would be fetched one by one; at most {MOST} are: use the bulk data")
    found: list[Imported] = [Imported(source)]
    absent: list[NotThereError] = []
    for index in indices:
        try:
            found.append(read_feature(web, hosts, source, index))
        except NotThereError as error:
            absent.append(error)
            found.append(Imported(source, looked_up=frozenset([index])))
    if absent and len(absent) == len(indices):
        raise absent[0]
    return Imported.together(found)
