"""One pass for several runs, each with its own store."""

import numpy as np
import pytest

from fade_lens import Corpus, Fade, InputError, RunStore
from fade_lens.runs.passes import one_pass
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.subject.test_one_pass import runs_of

NEURONS = "blocks.0.mlp.hook_post"
SMALL = {"synthetic_texts": 4, "rated_texts": 10, "prompts": 2, "new_tokens": 2, "factors": (1.0,), "context": 32}


def test_a_run_finds_in_its_store_what_the_pass_for_all_has_found(tmp_path, monkeypatch):
    model, corpus = planted_model(), Corpus.from_texts(natural_texts(120))
    with FakeJudge(rule=rule, writer=writer) as server:
        fades = [Fade(model, s, corpus=corpus, judge=judge_of(server), **SMALL) for s in (planted_sae(), NEURONS)]
        stores = [tmp_path / "sae", tmp_path / "neurons"]
        found = one_pass(fades, [[0, 1, 2, 3], [5, 7]], stores, progress=False)
        assert [one.values.shape for one in found] == [(120, 4), (120, 2)]
        runs = runs_of(monkeypatch, model)
        again = one_pass(fades, [[2, 0], [7]], stores, progress=False)
        assert not runs, "what the stores have is taken from there"
        np.testing.assert_array_equal(again[0].values, found[0].values[:, [2, 0]])
        kept = fades[0].evaluate(dict(list(TRUE.items())[:1]), store=stores[0], progress=False)
        alone = fades[0].evaluate(dict(list(TRUE.items())[:1]), progress=False)
        assert kept.frame.drop(columns=["judge_calls", "judge_cost"]).equals(
            alone.frame.drop(columns=["judge_calls", "judge_cost"])
        )
    with RunStore(stores[1]) as store:
        np.testing.assert_array_equal(store.activations([5, 7]).values, found[1].values)


def test_runs_that_cannot_share_a_pass_are_told():
    model, texts = planted_model(), natural_texts(20)
    fades = [Fade(model, NEURONS, corpus=texts) for _ in range(2)]
    with pytest.raises(InputError, match="must have the same model object and the same Corpus object"):
        one_pass(fades, [[0], [1]])
