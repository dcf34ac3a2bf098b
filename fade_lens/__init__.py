"""fade_lens: does this description of this feature tell the truth?

The public names are imported when they are first used, so that importing the package costs nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fade_lens import neuronpedia
    from fade_lens._util.errors import FadeLensError, InputError, JudgeError, MissingExtraError, StoreError
    from fade_lens.analysis.compare import compare
    from fade_lens.analysis.summary import compare_sources, summary
    from fade_lens.data.corpus import Corpus
    from fade_lens.data.descriptions import Description, read_descriptions
    from fade_lens.judge import Judge
    from fade_lens.metrics.fade import Metric
    from fade_lens.runs.fade import Fade
    from fade_lens.runs.results import Result, Results
    from fade_lens.runs.settings import Settings
    from fade_lens.runs.store import RunStore
    from fade_lens.scorers import ClarityEvaluator, FaithfulnessEvaluator, RatingEvaluator
    from fade_lens.subject.loading import load
    from fade_lens.subject.subject import Subject

__version__ = "0.1.0"

_HOMES = {
    "ClarityEvaluator": "evaluators",
    "Corpus": "corpus",
    "Description": "descriptions",
    "Fade": "fade",
    "FadeLensError": "errors",
    "FaithfulnessEvaluator": "evaluators",
    "InputError": "errors",
    "Judge": "judge",
    "JudgeError": "errors",
    "Metric": "metrics",
    "MissingExtraError": "errors",
    "RatingEvaluator": "evaluators",
    "Result": "results",
    "Results": "results",
    "RunStore": "store",
    "Settings": "settings",
    "StoreError": "errors",
    "Subject": "subject",
    "compare": "comparing",
    "compare_sources": "aggregates",
    "load": "loading",
    "read_descriptions": "descriptions",
    "summary": "aggregates",
}

__all__ = [
    "ClarityEvaluator",
    "Corpus",
    "Description",
    "Fade",
    "FadeLensError",
    "FaithfulnessEvaluator",
    "InputError",
    "Judge",
    "JudgeError",
    "Metric",
    "MissingExtraError",
    "RatingEvaluator",
    "Result",
    "Results",
    "RunStore",
    "Settings",
    "StoreError",
    "Subject",
    "compare",
    "compare_sources",
    "load",
    "neuronpedia",
    "read_descriptions",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name == "neuronpedia":
        return import_module("fade_lens.neuronpedia")
    if name in _HOMES:
        return getattr(import_module(f"fade_lens.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fade_lens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
