"""`preset="paper"` is one object of plain settings, and the table beside it covers the reference's YAML file."""

import inspect
import re
from dataclasses import fields

import pytest

from fade_lens import Fade, Judge, Settings
from fade_lens._util.errors import InputError
from fade_lens.runs import presets
from fade_lens.runs.presets import PAPER, PRESETS
from fade_lens.runs.settings import settings_of

YAML = [
    "paths.output_path",
    "subjectLLM.sae_module",
    "subjectLLM.batch_size",
    "evaluationLLM.type",
    "evaluationLLM.name",
    "evaluationLLM.api_key",
    "evaluationLLM.base_url",
    "evaluationLLM.api_version",
    "experiments.store_data",
    "experiments.rating_batch_size",
    "experiments.gini_threshold",
    "clarity.llm_calls",
    "responsiveness_and_purity.num_samples",
    "responsiveness_and_purity.max_failed_retries",
    "responsiveness_and_purity.max_sparse_retries",
    "responsiveness_and_purity.retry_sparse_threshold",
    "responsiveness_and_purity.repeat_non_zeros",
    "responsiveness_and_purity.rating_top_sampling_percentage",
    "faithfulness.modification_factors",
    "faithfulness.num_samples",
    "faithfulness.generation_length",
    "faithfulness.max_failed_retries",
    "faithfulness.max_sparse_retries",
    "faithfulness.retry_sparse_threshold",
    "faithfulness.repeat_non_zeros",
    "faithfulness.rating_top_sampling_percentage",
    "prompts.generation",
    "prompts.rating",
]
"""The keys of the reference's file, those of `experiments` by what follows it where that is told apart."""


def rows() -> list[tuple[str, str]]:
    """The first two columns of the table."""
    lines = [line for line in str(presets.__doc__).splitlines() if line.startswith("| ")]
    return [(cells[1], cells[2]) for cells in (line.split("|") for line in lines[1:])]


def test_every_key_of_the_references_file_is_in_the_table():
    told = " ".join(key for key, _ in rows())
    missing = [key for key in YAML if key not in told and f".{key.split('.')[-1]}" not in told]
    assert not missing


def test_what_the_table_names_exists():
    known = {field.name for field in fields(Settings)}
    callables = {"Judge": Judge, "Judge.azure": Judge.azure, "Fade.evaluate": Fade.evaluate}
    named = [name for _, ours in rows() for name in re.findall(r"`([^`]+)`", ours)]
    assert len(named) > 20 and {"rated_texts", "Judge(texts_per_request)"} <= set(named)
    for name in named:
        owner, _, argument = name.rstrip(")").partition("(")
        there = set(inspect.signature(callables[owner]).parameters) if argument else known
        assert (argument or owner) in there, name


def test_the_preset_sets_the_references_budgets_and_leaves_what_is_given():
    paper = settings_of(None, {"preset": "paper"})
    assert {name: getattr(paper, name) for name in PAPER} == dict(PAPER)
    assert (paper.rated_texts, paper.prompts, paper.new_tokens, paper.gate) == (500, 50, 30, 0.5)
    assert (paper.top_share, paper.percentiles) == (0.1, (0, 50, 75, 95, 100))
    assert (paper.sparse_rounds, paper.sparse_below, paper.mode) == (1, 15, "clamp")
    assert paper.factors == (-50, -10, -1, 0, 1, 10, 50) and paper.arithmetic == "paper"
    given = settings_of(None, {"preset": "paper", "rated_texts": 200, "mode": "add"})
    assert (given.rated_texts, given.mode, given.prompts) == (200, "add", 50), "200 is the default, but it was given"
    before = settings_of(Settings(prompts=12, rated_texts=200), {"preset": "paper"})
    assert (before.prompts, before.rated_texts) == (12, 500), "what differs from the defaults was meant"
    assert settings_of(Settings(**PAPER), {}) == paper


def test_a_neuron_is_multiplied_as_the_reference_does():
    assert settings_of(None, {"preset": "paper"}, neurons=True).mode == "scale"
    assert settings_of(None, {"preset": "default"}, neurons=True).mode == Settings().mode


def test_a_misspelt_preset_or_setting_is_told():
    with pytest.raises(InputError, match="'default', 'paper'") as caught:
        settings_of(None, {"preset": "papper"})
    assert caught.value.field == "preset" and set(PRESETS) == {"default", "paper"}
    with pytest.raises(InputError, match=r"rated_text is no setting; did you mean 'rated_texts'"):
        settings_of(None, {"rated_text": 3})


def test_the_references_arithmetic_rates_all_and_says_so_before_anything_is_asked():
    with pytest.raises(InputError, match=r"interval_width=0.2 .* arithmetic='paper'"):
        settings_of(None, {"preset": "paper", "interval_width": 0.2})
    with pytest.raises(InputError, match="fluency_prompts above 0"):
        settings_of(None, {"preset": "paper", "max_nll_increase": 2.0})
