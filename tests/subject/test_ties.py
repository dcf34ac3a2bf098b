"""Values that differ only by rounding are equal; values that differ in truth keep their order."""

import copy

import numpy as np
import pytest
import torch

from fade_lens.metrics.fade import clarity
from fade_lens.runs.presets import PAPER
from fade_lens.runs.settings import Settings
from fade_lens.subject.activations import OutlierRule, max_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.subject import Subject
from fade_lens.subject.ties import Precision, groups
from tests.tiny import D_MODEL, HOOK, WORDS, tiny_bridge, tiny_model, tiny_sae

OFF = OutlierRule(float("inf"))
LATENTS = list(range(16))


def texts_of(n, seed, longest=30):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(n)]


NATURAL, WRITTEN = texts_of(150, 0), texts_of(40, 1, longest=6)


def constant(seed=0):
    """A model and a unit direction along which its residual stream is 3 at every position, as a sum of terms that vary."""
    model = tiny_model(seed, normalization_type=None)
    w = torch.nn.functional.normalize(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed)), dim=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("W_E", "W_pos", "W_O", "W_out", "b_O", "b_out")):
                parameter.mul_(2)
                parameter -= (parameter @ w)[..., None] * w
        model.pos_embed.W_pos += 3 * w
    return model, w


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu_transcoder", "folded"])
def test_a_feature_with_one_value_on_every_text_has_no_clarity(architecture, dtype):
    model, w = constant()
    sae = tiny_sae(
        "standard" if architecture == "folded" else architecture, **({"k": 64} if architecture == "topk" else {})
    )
    with torch.no_grad():
        scale = torch.logspace(-3, 3, 64)  # of features that differ much
        sae.W_enc.copy_(w[:, None] * scale)
        for name, parameter in sae.named_parameters():
            if name.startswith(("b_", "r_", "threshold")):
                parameter.zero_()
            if name in ("b_enc", "b_mag", "b_gate"):
                parameter.copy_(-2.9 * scale)  # most of it cancels
        if architecture == "folded":
            sae.W_dec *= torch.rand(64, 1) * 1000
            sae.fold_W_dec_norm()
    subject = Subject(model.to(dtype), sae, NATURAL, list(range(64)), Settings(outlier_factor=float("inf")))
    written, natural = subject.activate(WRITTEN).values, subject.activations.values
    raw = max_activations(subject.model, subject.features, subject.tokens, OFF).values
    assert dtype != torch.float32 or (np.ptp(raw, axis=0) > 0).any(), "rounding tells them apart"
    for feature in range(0, 64, 9):
        found = clarity(written[:, feature].astype(float), natural[:, feature].astype(float))
        assert found.value == 0, (feature, np.unique(natural[:, feature]))


def test_a_neuron_with_one_value_on_every_text_has_no_clarity():
    model, w = constant()
    with torch.no_grad():
        model.blocks[1].mlp.W_in.copy_(w[:, None] * torch.linspace(-1, 1, 128))
    subject = Subject(model, "blocks.1.mlp.hook_post", NATURAL, LATENTS)
    written, natural = subject.activate(WRITTEN).values, subject.activations.values
    assert (natural < 0).any()
    assert all(
        clarity(written[:, f].astype(float), natural[:, f].astype(float)).value == 0 for f in range(len(LATENTS))
    )


@pytest.mark.parametrize("kind", ["standard", "topk", "temporal", "matching_pursuit", "neurons", "bridge"])
def test_the_same_text_has_the_same_value_in_another_batch(kind, tmp_path):
    """Written texts that stand in the corpus tie with themselves, whatever the batches."""
    model = tiny_bridge(tmp_path) if kind == "bridge" else tiny_model()
    hook = "blocks.0.hook_out" if kind == "bridge" else HOOK
    source = (
        "blocks.1.mlp.hook_post" if kind == "neurons" else tiny_sae("standard" if kind == "bridge" else kind, hook=hook)
    )
    subject = Subject(model, source, NATURAL, LATENTS)
    again = subject.activate(NATURAL[:7]).values
    np.testing.assert_array_equal(again, subject.activations.values[:7])


def test_orders_that_are_true_in_double_precision_are_kept():
    model, sae = tiny_model(), tiny_sae()
    subject = Subject(model, sae, NATURAL, LATENTS)
    found = subject.activations.values.astype(float)
    exact_model, exact_sae = tiny_model(dtype=torch.float64), copy.deepcopy(sae).to(dtype=torch.float64)
    exact_model.load_state_dict(model.state_dict())
    features = features_of(exact_model, exact_sae, LATENTS)
    exact = max_activations(exact_model, features, subject.tokens, subject.outliers).values.astype(float)
    kept = merged = 0
    for f in range(len(LATENTS)):
        difference = exact[:, None, f] - exact[None, :, f]
        slack = subject.precision.within(f, exact[:, f])
        told = np.abs(difference) > 2 * np.maximum(slack[:, None], slack[None])
        assert (np.sign(found[:, None, f] - found[None, :, f]) == np.sign(difference))[told].all()
        kept += told.sum()
        merged += ((found[:, None, f] == found[None, :, f]) & (np.abs(difference) > 1e-4)).sum()
    assert kept > 0.999 * (np.abs(exact[:, None] - exact[None]) > 1e-4).sum() and merged == 0


def test_groups_hold_what_is_near_and_nothing_that_is_far():
    random = np.random.default_rng(0)
    for spread in (1e-3, 1e-6, 3e-8):
        values = np.unique(
            np.concatenate([random.normal(size=300), 1 + spread * random.random(300), -spread * random.random(50)])
        )
        within = 1e-6 * (1 + np.abs(values))
        found = groups(values, within)
        assert found[0] == 0 and (np.diff(found) >= 0).all() and (np.diff(found) <= 1).all()
        for group in range(found[-1] + 1):
            inside = values[found == group]
            assert np.ptp(inside) <= 2e-6 * (1 + np.abs(inside).max())
        if spread < 1e-6:
            atom = found[(values >= 1) & (values <= 1 + spread)]
            assert len(set(atom.tolist())) == 1, "what lies closest stays together"


def test_values_on_both_sides_of_any_line_tie():
    precision = Precision(np.array([1e-6]), 1e-6)
    for centre in (0.5, 1.0, -2.0, 1e3, 1e-9, 0.0):
        noise = 1e-7 * (1 + abs(centre)) * np.linspace(-1, 1, 21)
        values = np.append(centre + noise, [7.0, np.nan]).astype(np.float32)[:, None]
        written = np.append(centre - noise / 2, [7.1, np.nan]).astype(np.float32)[:, None]
        precision.tie(values)
        precision.snap(written, values)
        assert len(np.unique(values[:21])) == 1 and values[21] == 7 and np.isnan(values[22])
        assert (written[:21] == values[0]).all() and written[21] == np.float32(7.1) and np.isnan(written[22])
        assert centre or values[0] == 0


def test_the_reference_compares_digit_by_digit():
    subject = Subject(tiny_model(), tiny_sae(), NATURAL, LATENTS, Settings(**PAPER))
    raw = max_activations(subject.model, subject.features, subject.tokens, subject.outliers).values
    np.testing.assert_array_equal(subject.activations.values, raw)


def test_neither_the_order_of_features_nor_a_store_changes_what_ties():
    made = [Subject(tiny_model(), tiny_sae(), NATURAL, order) for order in (LATENTS, LATENTS[::-1])]
    one, two = (subject.activations for subject in made)
    np.testing.assert_allclose(one.values, two.values[:, ::-1], rtol=1e-5, atol=1e-5)
    kept = one.values.copy()
    again = Subject(tiny_model(), tiny_sae(), NATURAL, LATENTS)
    np.testing.assert_array_equal(again.observe(one).values, kept)
