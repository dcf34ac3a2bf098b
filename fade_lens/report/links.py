"""Where a described feature is on Neuronpedia, and its page inside a notebook."""

import re
from typing import TYPE_CHECKING, Any

from fade_lens._util.errors import InputError
from fade_lens.neuronpedia.ids import SourceId

if TYPE_CHECKING:
    from IPython.display import IFrame

    from fade_lens.runs.record import RunRecord
    from fade_lens.runs.results import Result, Results

_SITE = re.compile(r"https?://(?:www\.)?neuronpedia\.org/")


def source_of(*names: str) -> SourceId | None:
    """The Neuronpedia source that the first of some ids and addresses names.

    >>> str(source_of("", "https://www.neuronpedia.org/gpt2-small/8-res-jb/9"))
    'gpt2-small/8-res-jb'
    """
    for name in filter(None, names):
        try:
            return SourceId.parse(name)
        except InputError:  # the address of something else
            continue
    return None


def place_of(result: "Result") -> str:
    """The Neuronpedia source or address that the description comes from, "" for others: files and other people's ids look alike."""
    known = result.description.provenance
    return known.source if known.kind == "neuronpedia" or _SITE.match(known.source) else ""


def urls_of(results: "Results") -> list[str]:
    """The address of every description's feature on Neuronpedia, "" where it is not known."""
    return [link_of(result, results.run) or "" for result in results]


def link_of(result: "Result", run: "RunRecord") -> str | None:
    """The address of the feature's page, where its source is known."""
    from fade_lens.neuronpedia.links import dashboard

    source = source_of(place_of(result), result.neuronpedia, run.features.neuronpedia_id)
    return None if source is None else dashboard(source, result.description.index)


def dashboard_frame(result: "Result", source: Any = None, *, width: int | str = "100%", height: int = 600) -> "IFrame":
    """The feature's Neuronpedia page in a frame, of `source` (an id or an SAE) or where the description came from.

    Raises:
        InputError: the source is not known, or this is no notebook (IPython is not installed).
    """
    from fade_lens.neuronpedia.links import dashboard

    index, came_from = result.description.index, result.description.origin or "nowhere that was recorded"
    chosen = source if source is not None else source_of(place_of(result), result.neuronpedia)
    if chosen is None:
        raise InputError(
            f"the Neuronpedia id of feature {index} is not known: its description comes from {came_from!r:.80}, and the run "
            f'recorded no id; give it, as in results[{index}].dashboard("gpt2-small/8-res-jb"), or give the SAE'
        )
    try:
        from IPython.display import IFrame
    except ModuleNotFoundError as error:
        raise InputError(
            "a dashboard is shown in a notebook, and IPython is not installed: pip install ipython"
        ) from error
    return IFrame(dashboard(chosen, index, embed=True), width=width, height=height)
