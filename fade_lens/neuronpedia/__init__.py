"""Descriptions from Neuronpedia: importing them, checking that they belong to an SAE, what is wrong with them at sight, links.

```python
from fade_lens import neuronpedia

table = neuronpedia.descriptions("gpt2-small/8-res-jb", indices=range(200))   # or an SAE, a file, a folder
neuronpedia.flags(table)                                                        # what is wrong with them, no LLM asked
fade.evaluate(table)                                                            # score them
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fade_lens.neuronpedia import links
    from fade_lens.neuronpedia.errors import NeuronpediaError
    from fade_lens.neuronpedia.flagging import flags
    from fade_lens.neuronpedia.ids import Hosts, SourceId
    from fade_lens.neuronpedia.loading import (
        descriptions,
        feature,
        from_dataframe,
        from_dataframes,
        load,
        load_and_process_autointerp_dfs,
    )
    from fade_lens.neuronpedia.mapping import MappingCheck, check_mapping
    from fade_lens.neuronpedia.records import Activation, Imported, Row, Score, Stats
    from fade_lens.neuronpedia.resolving import resolve

_HOMES = {
    "Activation": "records",
    "Hosts": "ids",
    "Imported": "records",
    "MappingCheck": "mapping",
    "NeuronpediaError": "errors",
    "Row": "records",
    "Score": "records",
    "SourceId": "ids",
    "Stats": "records",
    "check_mapping": "mapping",
    "descriptions": "loading",
    "feature": "loading",
    "flags": "flagging",
    "from_dataframe": "loading",
    "from_dataframes": "loading",
    "load": "loading",
    "load_and_process_autointerp_dfs": "loading",
    "resolve": "resolving",
}

__all__ = [
    "Activation",
    "Hosts",
    "Imported",
    "MappingCheck",
    "NeuronpediaError",
    "Row",
    "Score",
    "SourceId",
    "Stats",
    "check_mapping",
    "descriptions",
    "feature",
    "flags",
    "from_dataframe",
    "from_dataframes",
    "links",
    "load",
    "load_and_process_autointerp_dfs",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name == "links":
        return import_module("fade_lens.neuronpedia.links")
    if name in _HOMES:
        return getattr(import_module(f"fade_lens.neuronpedia.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fade_lens.neuronpedia' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
