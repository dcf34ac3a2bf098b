"""Controls for steering, the fluency guard and the dose-response test."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fade_lens import Fade, FaithfulnessEvaluator, Results, Settings, Subject
from fade_lens._util.errors import InputError
from fade_lens.generation.continuations import FLUENCY_PROMPTS
from fade_lens.generation.controls import control_directions, other_feature
from fade_lens.generation.decoders.choosing import decoder_of
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.fluency import breaks, negative_log_likelihood, repeated_share
from fade_lens.generation.steering import Request, generate
from fade_lens.metrics.trend import dose_response
from fade_lens.subject.features import features_of
from tests.architectures import bridge, gemma3_hf, hooked
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import HOOK, tiny_model, tiny_sae

SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 20}
CONTROLS = ("ablate", "random_direction", "other")
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()


@pytest.fixture
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


# --- Likelihood ---------------------------------------------------------------------------------------------------------------


def slow_nll(model, prompt, continuation) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *continuation]]))
    log_p = logits[0].float().log_softmax(-1)
    return -float(np.mean([log_p[len(prompt) - 1 + i, token] for i, token in enumerate(continuation)]))


PROMPTS = [(1, 5, 6), (1, 7), (1, 5, 6), (1, 8, 9, 10)]
WRITTEN = np.array([[4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15]])


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "llama"])
def test_likelihood_is_the_model_s(architecture, monkeypatch):
    model = hooked(architecture)
    expected = [slow_nll(model, p, w) for p, w in zip(PROMPTS, WRITTEN.tolist(), strict=True)]
    assert negative_log_likelihood(model, PROMPTS, WRITTEN) == pytest.approx(expected, rel=1e-5)
    decoder = decoder_of(model, ["blocks.1.hook_resid_post"], PROMPTS)
    assert isinstance(decoder, CompactDecoder)
    assert negative_log_likelihood(model, PROMPTS, WRITTEN, decoder) == pytest.approx(expected, rel=1e-4)
    monkeypatch.setattr("fade_lens.subject.memory.PIECE_ON_CPU", 1)
    monkeypatch.setattr("fade_lens.generation.decoders.heads.CPU_CHUNK", 7)
    assert negative_log_likelihood(model, PROMPTS, WRITTEN) == pytest.approx(expected, rel=1e-5)


def test_likelihood_of_a_bridge_and_of_a_hooked_model():
    model = bridge(gemma3_hf())
    expected = [slow_nll(model, p, w) for p, w in zip(PROMPTS, WRITTEN.tolist(), strict=True)]
    assert negative_log_likelihood(model, PROMPTS, WRITTEN) == pytest.approx(expected, rel=1e-4)
    tiny = tiny_model()
    tiny.add_perma_hook("unembed.hook_out", lambda x, hook: x.roll(1, -1))
    expected = [slow_nll(tiny, p, w) for p, w in zip(PROMPTS, WRITTEN.tolist(), strict=True)]
    assert negative_log_likelihood(tiny, PROMPTS, WRITTEN) == pytest.approx(expected, rel=1e-5)


def test_likelihood_of_nothing():
    model = tiny_model()
    assert np.isnan(negative_log_likelihood(model, PROMPTS, np.zeros((4, 0), dtype=np.int64))).all()
    assert len(negative_log_likelihood(model, [], np.zeros((0, 3), dtype=np.int64))) == 0


def test_repeated_share():
    model = tiny_model()
    assert repeated_share(model, ["cat cat cat cat", "the cat sees dog", "cat dog cat dog"]) == pytest.approx(1.25 / 3)
    assert repeated_share(model, []) == repeated_share(model, [""]) == 0.0


def test_what_breaks_the_model():
    assert not breaks(1.9, 0.2) and breaks(2.1, 0.0) and breaks(0.0, 0.3) and not breaks(math.nan, 0.0)


# --- Dose-response --------------------------------------------------------------------------------------------------------------


def slow_trend(expressed: np.ndarray) -> tuple[float, float]:
    """Every arrangement of each prompt's outcomes over the doses (ascending), counted."""
    n_doses, n_prompts = expressed.shape
    observed = np.arange(n_doses) @ expressed.sum(axis=1)
    orders = list(itertools.permutations(range(n_doses)))
    sums = [
        sum(np.arange(n_doses) @ expressed[list(order), prompt] for prompt, order in enumerate(chosen))
        for chosen in itertools.product(orders, repeat=n_prompts)
    ]
    spread = np.std(sums)
    return (observed - np.mean(sums)) / spread if spread else 0.0, float(np.mean(np.array(sums) >= observed))


@pytest.mark.parametrize("seed", range(8))
def test_trend_is_like_every_permutation(seed):
    random = np.random.default_rng(seed)
    expressed = random.random((3, 4)) < random.uniform(0.2, 0.8, (3, 1))
    statistic, p = dose_response(np.array([0.0, 1.0, 2.0]), expressed)
    assert (statistic, p) == pytest.approx(slow_trend(expressed), abs=1e-9)
    shuffled = [2, 0, 1]
    assert dose_response(np.array([0.0, 1.0, 2.0])[shuffled], expressed[shuffled]) == pytest.approx((statistic, p))


def test_trend_where_nothing_varies():
    for value in (False, True):
        assert dose_response(np.array([0.0, 1.0]), np.full((2, 5), value)) == (0.0, 1.0)
    with pytest.raises(InputError, match="distinct"):
        dose_response(np.array([1.0, 1.0]), np.full((2, 5), False))


def test_trend_holds_its_level_and_sees_a_rise():
    random, doses = np.random.default_rng(0), np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    ease = random.uniform(0, 0.6, (300, 1, 30))
    null = [dose_response(doses, random.random((5, 30)) < e).p for e in ease]
    assert np.mean(np.array(null) <= 0.05) <= 0.075  # discrete, so a little below 5 %; 300 draws
    rise = np.array([0.05, 0.1, 0.2, 0.4, 0.5])[:, None]
    found = [dose_response(doses, random.random((5, 30)) < rise).p for _ in range(50)]
    assert np.mean(np.array(found) < 0.01) > 0.95
    fall = dose_response(doses, random.random((5, 30)) < rise[::-1])
    assert fall.p > 0.9 and fall.statistic < -2


def test_trend_over_many_doses():
    assert 0 < dose_response(np.arange(40.0), np.random.default_rng(0).random((40, 30)) < 0.3).p < 1


# --- Directions -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [tiny_sae(), HOOK])
@pytest.mark.parametrize("control", ["random_direction", "other"])
def test_control_directions_are_as_long_and_no_one_s_company_matters(source, control):
    model = tiny_model()
    together, alone = (features_of(model, source, i) for i in ([3, 5, 7], [5]))
    own, found = together.directions(), control_directions(control, together, 0)
    torch.testing.assert_close(found.norm(dim=-1), own.norm(dim=-1))
    assert (torch.cosine_similarity(found, own) < 0.9).all()
    torch.testing.assert_close(found[1:2], control_directions(control, alone, 0))
    assert not torch.equal(found, control_directions(control, together, 1))
    assert control_directions("ablate", together, 0) is None


def test_the_other_feature_is_nearly_as_long():
    model, sae = tiny_model(), tiny_sae()
    with torch.no_grad():
        sae.W_dec[:32] *= 10
    features = features_of(model, sae, [3, 40])
    for index in (3, 40):
        other = other_feature(features, index, 0)
        assert other != index and (other < 32) == (index < 32)
        lengths = sae.W_dec.norm(dim=-1)
        assert float((lengths[other] / lengths[index]).detach().log().abs()) < 0.2


@pytest.mark.parametrize("mode", ["add", "clamp", "scale"])
def test_steering_along_another_direction(mode):
    """The other direction is written in place of the feature's own: as if the SAE's decoder had it."""
    model, sae, changed = tiny_model(), tiny_sae(), tiny_sae()
    along = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changed.W_dec[[7, 2]] = along
    requests = [Request((1, 5 + i, 9), i % 2, 3.0, i) for i in range(6)] + [Request((1, 4), None, 0.0, 0)]
    options = {"reference": torch.tensor([4.0, 5.0]), "mode": mode, "new_tokens": 6, "temperature": 1.0}
    found = generate(model, features_of(model, sae, [7, 2]), requests, directions=along, **options)
    expected = generate(model, features_of(model, changed, [7, 2]), requests, **options)
    assert found.tolist() == expected.tolist()
    assert found.tolist() != generate(model, features_of(model, sae, [7, 2]), requests, **options).tolist()


# --- A run ----------------------------------------------------------------------------------------------------------------------


def test_controls_of_planted_features_do_nothing(server):
    plain = make(server).evaluate(TRUE, progress=False)
    controlled = make(server, controls=CONTROLS).evaluate(TRUE, progress=False)
    for result, without in zip(controlled, plain, strict=True):
        evidence = result.faithfulness_evidence
        assert evidence.faithfulness == without.faithfulness
        assert evidence.continuations == without.faithfulness_evidence.continuations
        assert result.faithfulness.value > 0.5
        assert [control.name for control in evidence.controls] == list(CONTROLS)
        for control in evidence.controls:
            assert control.faithfulness.value < 0.25, control
            assert {c.factor for c in control.continuations} == (
                {1.0} if control.name == "ablate" else set(Settings().factors)
            )
            assert all(c.rating == rule(result.description.text, c.text) for c in control.continuations)
            assert (control.other is None) == (control.name != "other") and control.other != result.description.index
        assert result.faithfulness.details["dose_response_p"] < 0.01 < result.faithfulness.details["dose_response"]
    frame = controlled.frame
    assert (frame["faithfulness_random_direction"] < frame["faithfulness"]).all() and (
        frame["dose_response_p"] < 0.01
    ).all()
    assert "faithfulness_random_direction" not in plain.frame


def test_controls_are_counted_before_spending(server):
    plain, controlled = make(server).estimate(TRUE), make(server, controls=CONTROLS).estimate(TRUE)
    assert controlled.calls > plain.calls
    assert make(server, controls=CONTROLS).settings.steered_sets == 3 * len(Settings().factors) + 1


def test_controls_come_back_from_store_and_file(server, tmp_path):
    first = make(server, controls=CONTROLS).evaluate(TRUE, store=tmp_path, progress=False)
    asked = server.requests
    again = make(server, controls=CONTROLS).evaluate(TRUE, store=tmp_path, progress=False)
    assert again.items == first.items and server.requests <= asked + 1
    loaded = Results.load(first.save(tmp_path / "r.sqlite"))
    assert loaded.items == first.items


def test_likelihoods_are_told(server):
    result = make(server).evaluate({0: TRUE[0]}, progress=False)[0]
    evidence = result.faithfulness_evidence
    assert [f.factor for f in evidence.fluency] == list(Settings().factors)
    prompts = FaithfulnessEvaluator(Subject(MODEL, SAE, TEXTS, [0], Settings(**SMALL)), judge_of(server)).prompts
    encode = MODEL.tokenizer.get_vocab()
    base = [c for c in evidence.continuations if c.factor == 0][:FLUENCY_PROMPTS]
    assert len(prompts) > FLUENCY_PROMPTS and all(
        c.nll is None for c in evidence.continuations[FLUENCY_PROMPTS : len(prompts)]
    )
    for c, prompt in zip(base, prompts, strict=False):
        assert c.nll == pytest.approx(slow_nll(MODEL, prompt, [encode[w] for w in c.text.split()]), rel=1e-4)
    for f in evidence.fluency:
        own = [c.nll for c in evidence.continuations if c.factor == f.factor][:FLUENCY_PROMPTS]
        assert f.nll == pytest.approx(np.mean(own)) and f.increase == pytest.approx(
            f.nll - np.mean([c.nll for c in base])
        )
    best = next(f for f in evidence.fluency if f.factor == result.faithfulness.details["factor"])
    assert result.faithfulness.details["nll_increase"] == best.increase == result.to_row()["nll_increase"]


def test_a_factor_that_breaks_the_model_is_not_chosen(server):
    for index, text in TRUE.items():
        free = make(server).evaluate({index: text}, progress=False)[index]
        increases = {f.factor: f.increase for f in free.faithfulness_evidence.fluency}
        chosen = free.faithfulness.details["factor"]
        limit = increases[chosen] - 1e-6
        if kept := [f for f, increase in increases.items() if increase <= limit]:
            break
    held = make(server, max_nll_increase=limit).evaluate({index: text}, progress=False)[index]
    assert kept and held.faithfulness.details["factor"] in kept
    assert held.faithfulness_evidence.continuations == free.faithfulness_evidence.continuations
    none = make(server, max_nll_increase=-math.inf).evaluate({0: TRUE[0]}, progress=False)[0]
    assert none.faithfulness.value is None and "every steering factor" in none.faithfulness.reason
    assert not none.faithfulness_evidence.continuations  # none was paid for


def test_controls_in_later_rounds_whatever_factor_is_barred(server, monkeypatch):
    """An ablated feature has no factor, so none that bars one of the feature's own takes it away."""
    measured = FaithfulnessEvaluator.fluency

    def broken_at_1(self, index):
        return tuple(replace(f, increase=math.inf) if f.factor == 1 else f for f in measured(self, index))

    monkeypatch.setattr(FaithfulnessEvaluator, "fluency", broken_at_1)
    more = {"prompts": 30, "interval_width": 0.02, "controls": ("ablate", "other"), "max_nll_increase": 1e9}
    evidence = make(server, **more).evaluate({0: TRUE[0]}, progress=False)[0].faithfulness_evidence
    assert evidence.faithfulness.counts["prompts"] == 30 and evidence.faithfulness.details["factor"] != 1.0
    for control in evidence.controls:
        assert control.faithfulness.value is not None and control.faithfulness.counts["prompts"] == 30, (
            control.faithfulness
        )


def test_a_broken_best_factor_is_flagged(server, monkeypatch):
    monkeypatch.setattr("fade_lens.generation.fluency.MAX_INCREASE", -math.inf)
    result = make(server).evaluate({0: TRUE[0]}, progress=False)[0]
    assert any("breaks the model" in flag for flag in result.flags)
    monkeypatch.setattr("fade_lens.generation.fluency.MAX_INCREASE", math.inf)
    monkeypatch.setattr("fade_lens.generation.fluency.MAX_REPEATED", 1.0)
    result = make(server).evaluate({0: TRUE[0]}, progress=False)[0]
    assert not any("breaks the model" in flag for flag in result.flags)


@pytest.mark.parametrize("options", [{"mode": "clamp"}, {"mode": "scale", "factors": (2.0, 5.0)}, {"mode": "clamp", "preset": "paper", "factors": (0.0, 1.0)}, {"mode": "ablate", "factors": (1.0,)}])  # fmt: skip
def test_controls_in_every_mode(server, options):
    result = make(server, controls=CONTROLS, gate=None, **options).evaluate({0: TRUE[0]}, progress=False)[0]
    assert result.faithfulness.value is not None
    assert [control.faithfulness.value is not None for control in result.faithfulness_evidence.controls] == [True] * 3
    assert ("dose_response_p" in result.faithfulness.details) == (options["mode"] != "ablate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"controls": ("rand",)}, "'ablate', 'random_direction', 'other'"),
        ({"controls": ("random_direction", "random_direction")}, "at most once"),
        ({"max_nll_increase": math.nan}, "max_nll_increase is nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_ablation_of_latents_that_depend_on_earlier_positions_is_told_at_once(server):
    subject = Subject(tiny_model(), tiny_sae("temporal"), TEXTS, [0], Settings(controls=("ablate",), **SMALL))
    with pytest.raises(InputError, match="leave it out"):
        FaithfulnessEvaluator(subject, judge_of(server))
