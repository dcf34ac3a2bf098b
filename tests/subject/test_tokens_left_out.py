"""What earlier tokens do to later activations: the kept keys and values against texts that run whole, and a model whose causes are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fade_lens import Corpus, Subject
from fade_lens.subject.activations import token_activations
from fade_lens.subject.causes import causes_of
from fade_lens.subject.hooks import read_hooks
from tests.architectures import ARCHITECTURES, hooked, sae_at
from tests.tiny import tiny_bridge, tiny_model, tiny_sae

TEXTS = Corpus.from_tokens([[*range(5, 17)], [20], [9, 3, 21, 5, 5, 6, 30], [31, 30, 9, 8, 7, 6, 5, 4, 3, 12]])
INDICES = range(12)


def plainly(subject: Subject, text: int, silences: bool) -> np.ndarray:
    """Every token left out of a text by itself, one forward pass each; the sum over later tokens."""
    ids, special = subject.tokens[text], subject.tokens.special_of(text)
    features = subject.features
    rule = subject.outliers

    def values(some: np.ndarray) -> np.ndarray:
        hidden = read_hooks(subject.model, torch.from_numpy(some)[None], [features.read_hook])[features.read_hook]
        with torch.no_grad():
            return features.encode(hidden)[0].float().numpy()

    whole = values(ids)
    usable = ~np.isnan(token_activations(subject.model, features, subject.tokens.select([text]), rule)[0])
    found = np.full(whole.shape, np.nan)
    for at in np.flatnonzero(~special):
        less = values(np.delete(ids, at))
        for column in range(whole.shape[1]):
            counted = whole[usable[:, column], column]
            sign = -1 if len(counted) and -counted.min() > max(counted.max(), 0) else 1
            found[at, column] = sum(
                sign * (whole[j, column] - less[j - 1, column])
                for j in range(at + 1, len(ids))
                if usable[j, column] and (sign * whole[j, column] > 0) != silences
            )
    return found


def subject_of(model: Any, source: Any, texts: Corpus | list[str] = TEXTS) -> Subject:
    return Subject(model, source, texts, INDICES)


def found_by(subject: Subject, **options: Any) -> list[Any]:
    activations = token_activations(subject.model, subject.features, subject.tokens, subject.outliers)
    columns = [list(range(len(subject.features)))] * len(subject.tokens)
    return causes_of(subject.model, subject.features, subject.tokens, activations, columns, **options)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_token_left_out_by_itself_gives_the_same_causes_as_kept_keys_and_values(architecture: str) -> None:
    model = hooked(architecture)
    subject = subject_of(model, sae_at("blocks.1.hook_resid_post"))
    found = found_by(subject, silences=True, batch_tokens=40)
    for text, one in enumerate(found):
        np.testing.assert_allclose(one.causes, plainly(subject, text, silences=False), atol=2e-4, rtol=2e-4)
        np.testing.assert_allclose(one.silences, plainly(subject, text, silences=True), atol=2e-4, rtol=2e-4)
    assert max(np.nanmax(np.abs(one.causes)) for one in found) > 0.01


@pytest.mark.parametrize(
    "source", ["blocks.1.attn.hook_z", "blocks.1.mlp.hook_post", "hook_embed", "ln_final.hook_normalized"]
)
def test_causes_of_neurons_at_any_hook_equal_the_plain_ones(source: str) -> None:
    subject = subject_of(hooked("gpt2"), source)
    for text, one in enumerate(found_by(subject)):
        np.testing.assert_allclose(one.causes, plainly(subject, text, silences=False), atol=2e-4, rtol=2e-4)
        assert one.silences is None


@pytest.mark.parametrize("architecture", ["temporal", "topk", "abstopk", "gated"])
def test_causes_of_latents_of_every_kind_equal_the_plain_ones(architecture: str) -> None:
    model, sae = tiny_model(), tiny_sae(architecture, hook="blocks.1.hook_resid_post")
    subject = subject_of(
        model, sae, ["the cat sees a red dog and a black owl", "a fox runs in the old house again today ."]
    )
    for text, one in enumerate(found_by(subject)):
        np.testing.assert_allclose(one.causes, plainly(subject, text, silences=False), atol=2e-4, rtol=2e-4)


def test_a_bridge_runs_whole_texts_and_finds_the_same(tmp_path: Path) -> None:
    subject = subject_of(
        tiny_bridge(tmp_path), tiny_sae(hook="blocks.1.hook_resid_post"), ["the cat sees a red dog", "the"]
    )
    for text, one in enumerate(found_by(subject)):
        np.testing.assert_allclose(one.causes, plainly(subject, text, silences=False), atol=2e-4, rtol=2e-4)


def test_only_the_tokens_behind_the_one_left_out_run_again() -> None:
    model = hooked("gpt2")
    subject = subject_of(model, sae_at("blocks.1.hook_resid_post"), Corpus.from_tokens([[5, 6, 7] * 8]))
    counts = dict[bool, int]()
    for cached in (True, False):
        ran: list[int] = []
        with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook, ran=ran: ran.append(x.shape[0] * x.shape[1]))]):
            activations = token_activations(model, subject.features, subject.tokens, subject.outliers)
            ran.clear()
            causes_of(
                model, subject.features, subject.tokens, activations, [list(INDICES)], cached=cached, batch_tokens=64
            )
        counts[cached] = sum(ran)
    m = len(subject.tokens[0]) - 1
    assert counts[False] >= m * (m - 1)
    assert counts[True] <= 1.15 * (m + 1 + m * (m - 1) / 2)  # what is more is padding


def test_at_the_embedding_no_token_does_anything_to_a_later_one() -> None:
    subject = subject_of(hooked("gpt2"), "hook_embed")
    one = found_by(subject)[0]
    assert np.nanmax(np.abs(one.causes)) < 1e-6
    assert np.isnan(one.causes[subject.tokens.special_of(0)]).all()
