"""Settings that go together under one name: `Fade(..., preset="paper")`, `--preset paper`.

"paper" is the reference implementation, the package fade-language 0.1.2: its arithmetic, its budgets and its steering. It sets what
differs from the defaults; a setting that is given beside it is not changed. So, what the reference reads from its YAML file is here:

| key of the reference (default) | here | value in "paper" |
|---|---|---|
| paths.output_path, experiments.store_data | `Fade.evaluate(store)` | as given |
| subjectLLM.sae_module (False) | `mode` | clamp for an SAE, scale for neurons |
| subjectLLM.batch_size (4) | none: batches are as large as memory allows, and change no number | |
| evaluationLLM.type, .name, .base_url | `Judge(model)`, `Judge(base_url)`, or a spec such as openai:gpt-4o-mini | as given |
| evaluationLLM.api_key | `Judge(api_key)`, or the environment | as given |
| evaluationLLM.api_version | `Judge.azure(api_version)` | as given |
| prompts.generation, prompts.rating | `Judge(prompts)` | as given: the reference's own words are not copied |
| experiments.rating_batch_size (15) | `Judge(texts_per_request)` | 15, the default |
| experiments.gini_threshold (0.5) | `gate` | 0.5, the default |
| experiments.clarity.llm_calls (15) | `synthetic_texts`, in calls of `Judge(texts_per_set)` | 150: 15 calls of about 10 texts, a number that it leaves to the model |
| responsiveness_and_purity.num_samples (500) | `rated_texts` | 500 |
| responsiveness_and_purity.rating_top_sampling_percentage (0.1) | `top_share` | 0.1, the default |
| (fixed: bins 0-50-75-95-100 of all texts, in equal parts) | `percentiles`, `bin_power`, `silent_apart`, `likely_texts` | the default edges, 0, False, none |
| responsiveness_and_purity.max_sparse_retries (1) | `sparse_rounds` | 1; the texts of both rounds are of one design |
| responsiveness_and_purity.retry_sparse_threshold (15) | `sparse_below` | 15, the default |
| *.max_failed_retries (1) | none: a judge is always asked again for what it left out, twice | |
| *.repeat_non_zeros (0) | none: it writes a second rating over the first; `Fade.evaluate(repeats)` compares the two | |
| faithfulness.modification_factors (-50, -10, -1, 0, 1, 10, 50) | `factors`, in units of `reference_quantile` | the same, of the largest activation |
| faithfulness.num_samples (50) | `prompts`, `prompt_tokens` | 50, whole texts |
| faithfulness.generation_length (30) | `new_tokens` | 30, the default |
| (fixed: as the model's own generation is set, greedy unless that says otherwise) | `temperature` | 0 |
| faithfulness.max_sparse_retries, .retry_sparse_threshold, .rating_top_sampling_percentage | none: they change nothing in the reference, where all continuations are rated | |
| (fixed: all is rated, no likelihood is read, no position left out) | `interval_width`, `fluency_prompts`, `outlier_factor` | None, 0, inf |
| (fixed: absolute Gini, no weights, the largest rate over all factors) | `arithmetic` | paper |

BOS never counts here; the reference counts it.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fade_lens._util.errors import Argument, InputError

PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "arithmetic": "paper",
        "synthetic_texts": 150,
        "rated_texts": 500,
        "bin_power": 0.0,
        "silent_apart": False,
        "likely_texts": "none",
        "sparse_rounds": 1,
        "interval_width": None,
        "mode": "clamp",
        "factors": (-50.0, -10.0, -1.0, 0.0, 1.0, 10.0, 50.0),
        "reference_quantile": 1.0,
        "prompts": 50,
        "prompt_tokens": None,
        "temperature": 0.0,
        "fluency_prompts": 0,
        "outlier_factor": math.inf,
    }
)
"""The reference's values, as settings of a run on an SAE."""
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"default": MappingProxyType({}), "paper": PAPER})


def preset_settings(name: str, *, neurons: bool = False) -> dict[str, Any]:
    """What a preset sets.

    Args:
        name: one of `PRESETS`.
        neurons: of neurons rather than SAE latents: the reference multiplies a neuron's activation by the factor.

    Raises:
        InputError: an unknown name.
    """
    if name not in PRESETS:
        raise InputError(Argument("preset"), f" is {name!r}; give one of {', '.join(map(repr, PRESETS))}")
    found = dict(PRESETS[name])
    return found | {"mode": "scale"} if neurons and "mode" in found else found
