"""Several SAEs and hooks in one pass, against a pass for each alone."""

import weakref

import numpy as np
import pytest
import torch

from fade_lens.data.corpus import Corpus
from fade_lens.subject import activations as activations_module
from fade_lens.subject import hooks as hooks_module
from fade_lens.subject.activations import OutlierRule, max_activations, max_activations_of_each
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.ties import Precision
from fade_lens.subject.tokens import tokenize
from tests.subject.test_activations import corpus_of
from tests.tiny import HOOK, tiny_bridge, tiny_model, tiny_sae

SOURCES = {
    "a shallow SAE": lambda: tiny_sae("jumprelu", hook="blocks.0.hook_resid_pre"),
    "one that needs all latents": lambda: tiny_sae("topk", seed=1),
    "a deep one": lambda: tiny_sae("standard", hook="blocks.1.hook_resid_post", seed=2),
    "a transcoder": lambda: tiny_sae("transcoder", hook="blocks.1.ln2.hook_normalized", meta_hook_name_out="blocks.1.hook_mlp_out"),
    "neurons": lambda: "blocks.1.mlp.hook_post",
    "neurons of another layer": lambda: "blocks.0.mlp.hook_post",
    "what a hook needs a setting for": lambda: "blocks.1.attn.hook_result",
}  # fmt: skip
INDICES = [3, 17, 8]


def runs_of(monkeypatch, model: Model) -> list[list[str]]:
    """The hooks that each run of texts reads, as they are read."""
    seen: list[list[str]] = []

    def counted(tokens, **kwargs):
        if tokens.shape != (1, 2):  # which tell how wide a hook is
            seen.append(list(kwargs["names_filter"]))
        return run(tokens, **kwargs)

    run = model.run_with_cache
    monkeypatch.setattr(model, "run_with_cache", counted)
    return seen


def same(one, other) -> None:
    for name in ("values", "positions", "counted", "active"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.n_outliers, one.n_overflowed) == (other.n_outliers, other.n_overflowed)


@pytest.mark.parametrize("bridge", [False, True])
def test_each_finds_to_the_last_bit_what_it_finds_alone(bridge, tmp_path):
    model = tiny_bridge(tmp_path) if bridge else tiny_model()
    tokens = tokenize(model, Corpus.from_texts([*corpus_of(), ""]), context=32, prepend_bos=True)
    names = list(SOURCES)[:3] if bridge else list(SOURCES)[:-1]
    every = [features_of(model, SOURCES[name](), INDICES) for name in names]
    rules = OutlierRule.fit_each(model, every, tokens, factor=1.2)
    precisions = Precision.of_each(model, list(zip(every, rules, strict=True)), tokens)
    found = max_activations_of_each(model, list(zip(every, rules, strict=True)), tokens, batch_tokens=200)
    assert any(one.n_outliers for one in found)
    for features, rule, precision, one in zip(every, rules, precisions, found, strict=True):
        assert rule == OutlierRule.fit(model, features, tokens, factor=1.2)
        alone = Precision.of(model, features, tokens, rule)
        assert precision.relative == alone.relative and np.array_equal(precision.absolute, alone.absolute)
        same(one, max_activations(model, features, tokens, rule, batch_tokens=200))


def test_subjects_over_one_corpus_share_tokens_and_the_pass(monkeypatch):
    model, corpus = tiny_model(), Corpus.from_texts(corpus_of())
    settings = SubjectSettings(context=32)
    alone = [Subject(model, make(), corpus, INDICES, settings).observe() for make in SOURCES.values()]
    subjects = [Subject(model, make(), corpus, INDICES, settings) for make in SOURCES.values()]
    assert len({id(subject.tokens) for subject in subjects}) == 1
    steps: list[int] = []
    runs = runs_of(monkeypatch, model)
    Subject.observe_each(subjects, steps.append)
    assert sum(steps) == len(corpus)
    deep = [hooks for hooks in runs if "blocks.0.hook_resid_pre" in hooks and "blocks.1.attn.hook_result" in hooks]
    assert len(deep) == 2, "the texts that tell the precision, and the pass"
    assert len(runs) == 5, (
        "beside these the outlier rule's texts, and a run for each of two residual streams whose terms are moved"
    )
    for subject, one in zip(subjects, alone, strict=True):
        # A head's result, switched on, sums what attention writes in another order.
        np.testing.assert_allclose(subject.activations.values, one.values, rtol=1e-4, atol=1e-5)
    runs.clear()
    Subject.observe_each(subjects)
    assert not runs, "what was observed is not observed again"


def test_subjects_that_read_other_tokens_have_a_pass_of_their_own():
    model, corpus = tiny_model(), Corpus.from_texts(corpus_of())
    sources = [tiny_sae(), tiny_sae(meta_prepend_bos=False), tiny_sae(meta_context_size=8)]
    subjects = [Subject(model, source, corpus, INDICES) for source in sources]
    Subject.observe_each(subjects)
    assert len({id(subject.tokens) for subject in subjects}) == 3
    for subject, source in zip(subjects, sources, strict=True):
        same(subject.activations, Subject(model, source, corpus, INDICES).observe())


def test_rules_and_settings_stay_each_subjects_own():
    model, corpus = tiny_model(), Corpus.from_texts(corpus_of())
    every = [SubjectSettings(outlier_factor=1.2), SubjectSettings(outlier_factor=float("inf"), arithmetic="paper")]
    subjects = [Subject(model, tiny_sae(), corpus, INDICES, settings) for settings in every]
    Subject.observe_each(subjects)
    for subject, settings in zip(subjects, every, strict=True):
        same(subject.activations, Subject(model, tiny_sae(), corpus, INDICES, settings).observe())
    assert subjects[0].activations.n_outliers > 0 == subjects[1].activations.n_outliers


def test_hooks_of_which_one_alone_can_be_switched_on_are_read_all_the_same():
    model = tiny_model()
    names = ["blocks.1.hook_attn_in", "blocks.1.hook_q_input", HOOK]
    tokens = tokenize(model, Corpus.from_texts(corpus_of(2)), context=32, prepend_bos=True)
    ids = torch.from_numpy(tokens[0])[None]
    found = hooks_module.read_hooks(model, ids, names)
    assert set(found) == set(names)
    for name in names:
        torch.testing.assert_close(found[name], hooks_module.read_hooks(model, ids, [name])[name])


def test_memory_is_that_of_one_batch_and_one_saes_piece(monkeypatch):
    """At no time are more hook tensors there than those of one batch."""
    model, corpus = tiny_model(), Corpus.from_texts(corpus_of(400))
    tokens = tokenize(model, corpus, context=32, prepend_bos=True)
    every = [(features_of(model, f"blocks.{layer}.hook_resid_post", INDICES), OutlierRule(1e9)) for layer in (0, 1)]
    alive, most = set(), [0]

    def read(*args):
        found = real(*args)
        for tensor in found.values():
            key = id(tensor)
            alive.add(key)
            weakref.finalize(tensor, alive.discard, key)
        most[0] = max(most[0], len(alive))
        return found

    real = hooks_module.read_hooks
    monkeypatch.setattr(activations_module, "read_hooks", read)
    max_activations_of_each(model, every, tokens, batch_tokens=100)
    assert most[0] <= 2 * len(every), "those of a batch, and those of the next while it is read"
