"""`health` as a user calls it: beside sae_lens' own evaluation, on what it cannot do, and what is wrong with an SAE, by name."""

from typing import Any

import numpy as np
import pytest
import torch
from sae_lens.evals import EvalConfig, run_evals
from sae_lens.training.activation_scaler import ActivationScaler

import fade_lens
from fade_lens.runs.answers import next_tokens
from fade_lens.subject.tokens import tokenize
from tests.healthy import HOOK, WORDS, circular_texts, healthy_model, healthy_sae, healthy_transcoder
from tests.tiny import WORDS as ALL_WORDS
from tests.tiny import tiny_model, tiny_sae

MODEL, TEXTS = healthy_model(), circular_texts()


def health(*given: Any, **options: Any) -> fade_lens.Health:
    return fade_lens.health(*given, progress=False, **options)


def cause(model, sae, **options):
    """The only warning's cause, and its words."""
    (warning,) = health(model, sae, TEXTS, **options).items[0].warnings
    return warning.cause, warning.words


# Beside sae_lens


class Store:
    """What `run_evals` needs of an `ActivationsStore`: one batch of tokens."""

    store_batch_size_prompts = context_size = 1

    def __init__(self, tokens):
        self.tokens = tokens

    def get_batch_tokens(self, _):
        return self.tokens

    def reset_input_dataset(self):
        pass


PEERS = {
    "a residual stream": lambda: tiny_sae("jumprelu"),
    "latents below zero": lambda: tiny_sae("abstopk"),
    "layer norm": lambda: tiny_sae("gated", normalize_activations="layer_norm"),
    "every head": lambda: tiny_sae("topk", hook="blocks.0.attn.hook_z"),
    "one head": lambda: tiny_sae("standard", d_in=8, hook="blocks.0.attn.hook_z", meta_hook_head_index=2),
}


@pytest.mark.parametrize("peer", PEERS)
def test_figures_are_those_of_sae_lens_where_it_is_right(peer):
    model, sae, random = tiny_model(), PEERS[peer](), np.random.default_rng(0)
    texts = [" ".join(random.choice(ALL_WORDS, 9)) for _ in range(12)]
    tokens = tokenize(model, texts, context=32, prepend_bos=True)
    batch = torch.from_numpy(np.stack([tokens[text] for text in range(len(tokens))]))
    every: Any = {name: True for name in vars(EvalConfig()) if name.startswith("compute_")}
    config = EvalConfig(n_eval_reconstruction_batches=1, **every)
    theirs, latents = run_evals(sae, Store(batch), model, ActivationScaler(), config)  # pyright: ignore[reportArgumentType]
    row: Any = health(model, sae, texts, loss_tokens=None).frame.to_dict("records")[0]
    flat = {name: value for group in theirs.values() for name, value in group.items()}
    same = {
        "l0": "l0", "l1": "l1", "mse": "mse", "variance_explained": "explained_variance", "variance_explained_legacy": "explained_variance_legacy",
        "cosine": "cossim", "l2_ratio": "l2_ratio", "bias": "relative_reconstruction_bias", "ce_clean": "ce_loss_without_sae", "ce_sae": "ce_loss_with_sae",
        "kl_sae": "kl_div_with_sae",
    }  # fmt: skip
    for ours, name in same.items():
        assert row[ours] == pytest.approx(flat[name], rel=1e-3, abs=1e-4), ours
    assert row["dead"] == np.mean(np.array(latents["feature_density"]) == 0)
    # The known difference: its zero ablation destroys BOS as well.
    assert abs(row["ce_zero"] - flat["ce_loss_with_ablation"]) > 1e-4
    assert abs(row["kl_zero"] - flat["kl_div_with_ablation"]) > 1e-4


def test_the_number_of_sae_lens_stands_beside_ours():
    sae = healthy_sae(noise=0.3, hook_name="blocks.0.hook_resid_post")
    tokens = tokenize(MODEL, [text for text in TEXTS if len(text.split()) == 8], context=32, prepend_bos=True)
    batch = torch.from_numpy(np.stack([tokens[text] for text in range(len(tokens))]))
    config = EvalConfig(n_eval_reconstruction_batches=1, compute_ce_loss=True)
    theirs, _ = run_evals(sae, Store(batch), MODEL, ActivationScaler(), config)  # pyright: ignore[reportArgumentType]
    row: Any = health(MODEL, sae, tokens.texts, loss_tokens=None).frame.to_dict("records")[0]
    assert row["recovered_saelens"] == pytest.approx(theirs["model_performance_preservation"]["ce_loss_score"], abs=1e-4)  # fmt: skip


# What is wrong, by name


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_sae_gets_no_warning(seed):
    found = health(healthy_model(seed), healthy_sae(seed, sae_id="layer_1/average_l0_1"), TEXTS, seed=seed)
    row: Any = found.frame.to_dict("records")[0]
    assert not found.items[0].warnings and row["causes"] == "" and row["l0_release"] == 1
    assert row["ce_recovered_zero"] > 0.99 and row["ce_recovered_mean"] > 0.99 and row["variance_explained"] > 0.9
    assert row["l0"] == 1 and row["dead"] == pytest.approx(8 / 24) and row["dense_1"] == pytest.approx(16 / 24)
    assert row["dense_1_firing"] == 1 and row["silent_bound"] == pytest.approx(3 / row["tokens"])


def test_a_missing_bos_is_named():
    code, words = cause(MODEL, healthy_sae(prepend_bos=False))
    assert code == "bos" and "BOS is likely missing" in words and "prepend_bos = True" in words


@pytest.mark.parametrize("asked", [{"center_writing_weights": True}, None])
def test_a_model_that_is_not_loaded_as_the_sae_needs_is_named(asked):
    """Also where the SAE does not say so."""
    code, words = cause(healthy_model(centred=False), healthy_sae(model_from_pretrained_kwargs=asked))
    assert code == "loading" and "center_writing_weights=True" in words
    assert ("this one's weights show" in words) == (asked is not None)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_wrong_layer_is_named(layer):
    code, words = cause(MODEL, healthy_sae(hook_name=f"blocks.{layer}.hook_resid_post"))
    assert code == "layer" and f"at {HOOK!r} than at 'blocks.{layer}.hook_resid_post'" in words


@pytest.mark.parametrize("factor", [6.0, 1 / 6, 1 / 30])
def test_a_wrong_scale_is_named_with_the_factor(factor):
    sae = healthy_sae()
    sae.fold_activation_norm_scaling_factor(factor)
    code, words = cause(MODEL, sae)
    told = float(words.split("fold_activation_norm_scaling_factor(")[1].split(")")[0])
    assert code == "scale" and 0.7 < told * factor < 1.4, words


def test_of_a_transcoder_each_mistake_is_named_as_well():
    right, early, large, other = healthy_transcoder(), healthy_transcoder(), healthy_transcoder(), healthy_transcoder(2)
    early.cfg.metadata.prepend_bos = False
    large.W_enc.data *= 6
    saes = {"right": right, "bos": early, "scale": large, "layer": other}
    found = health(MODEL, saes, TEXTS)
    assert found.frame["causes"].tolist() == ["", "bos", "scale", "layer"] and found["right"].value("variance_explained") > 0.99  # fmt: skip
    assert "multiply sae.W_enc by 0.177" in found["scale"].warnings[0].words
    assert health(healthy_model(centred=False), right, TEXTS).frame["causes"].tolist() == ["loading"]


def test_a_scale_that_was_never_folded_in_is_named_as_sae_lens_has_it():
    sae = healthy_sae()
    sae.fold_activation_norm_scaling_factor(8.0)
    sae.cfg.normalize_activations = "expected_average_only_in"
    code, words = cause(MODEL, sae)
    assert code == "scale" and "SAELens applies that in training alone" in words


def test_an_l0_that_is_not_the_releases_is_told():
    code, words = cause(MODEL, healthy_sae(sae_id="layer_1/average_l0_5"))
    assert code == "unknown" and "L0 is 1, the release's 5" in words


def test_an_sae_that_is_merely_poor_is_told_without_a_cause():
    code, words = cause(MODEL, healthy_sae(noise=3.0))
    assert code == "unknown" and "of the loss is recovered" in words


def test_variance_that_is_not_explained_is_told_where_the_loss_does_not_show_it():
    """As without BOS in Gemma 3, whose first tokens are massive: the demo's SAE still recovers 0.72 of the loss."""
    sae = healthy_sae()
    sae.b_dec.data += 20.0  # the same along every dimension, which the next norm takes away
    found = health(MODEL, sae, TEXTS).items[0]
    recovered = found.value("ce_recovered_zero")
    assert recovered is not None and recovered > 0.99
    (warning,) = found.warnings
    assert warning.cause == "unknown" and warning.words.startswith("the variance explained is −")


def test_an_sae_that_makes_something_else_each_time_is_told(monkeypatch):
    sae = healthy_sae()

    class Noisy(type(sae)):
        def decode(self, feature_acts):
            return super().decode(feature_acts) + 5 * torch.randn(64)

    sae.__class__ = Noisy
    torch.manual_seed(0)
    found = health(MODEL, sae, TEXTS).items[0].warnings
    assert found[0].cause == "unsteady" and "each time" in found[0].words


# What is shown


def test_several_saes_at_several_hooks_in_one_call():
    saes = {"right": healthy_sae(), "early": healthy_sae(hook_name="blocks.0.hook_resid_post")}
    found = health(MODEL, saes, TEXTS)
    assert found.frame["sae"].tolist() == ["right", "early"] and found.frame["causes"].tolist() == ["", "layer"]
    assert found["right"].metrics == health(MODEL, saes["right"], TEXTS).items[0].metrics, "beside others or alone"
    with pytest.raises(fade_lens.InputError, match="'x' is none of these SAEs: right, early"):
        found["x"]


def test_intervals_resample_texts_and_one_text_has_none():
    found = health(MODEL, healthy_sae(noise=0.2), TEXTS).items[0].metrics["variance_explained"]
    assert found.interval is not None and found.value is not None and found.interval[0] < found.value < found.interval[1]  # fmt: skip
    alone = health(MODEL, healthy_sae(), TEXTS[:1]).items[0].metrics
    assert alone["l0"].value == 1 and alone["l0"].interval is None and alone["l0"].interval_reason == "one text tells nothing of how texts differ"  # fmt: skip


def test_an_answer_is_said_with_the_sae_and_not_with_ablations():
    prompt, answer = " ".join(WORDS[:5]), WORDS[5]
    found = health(MODEL, {"right": healthy_sae(), "early": healthy_sae(hook_name="blocks.0.hook_resid_post")}, TEXTS, prompts={prompt: answer}).prompts  # fmt: skip
    rows = {(row["sae"], row["arm"]): row for row in found.to_dict("records")}
    assert rows["right", "clean"]["rank"] == rows["right", "sae"]["rank"] == 1
    assert rows["right", "sae"]["probability"] > 0.9 and rows["right", "zero"]["probability"] < 0.1
    assert rows["early", "sae"]["probability"] < 0.1 and rows["early", "clean"]["probability"] > 0.9


def test_an_answer_is_read_behind_its_prompt():
    """Alone, some tokenizers begin it with a space of its own."""

    def tokenizer(texts, **_):
        return {"input_ids": [[ord(c) for c in (text if text.startswith("J") else f"_{text}")] for text in texts]}

    assert next_tokens(tokenizer, "John", " M") == [32, 77] and next_tokens(tokenizer, "x", "") == []


@pytest.mark.parametrize("windows", [False, True])
def test_texts_come_as_token_ids_and_in_windows_as_well(windows):
    ids = [MODEL.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    corpus = fade_lens.Corpus.from_tokens(ids, windows=windows)
    found = health(MODEL, healthy_sae(), corpus, context=6, texts=30)
    assert not found.items[0].warnings and found.items[0].texts == 30 and found.items[0].tokens <= 30 * 5


def test_losses_are_compared_on_texts_that_have_a_next_token():
    found = health(MODEL, healthy_sae(), [*["the"] * 50, *TEXTS[:3]], texts=40, loss_texts=3).items[0]
    assert found.loss_tokens > 3 and found.value("ce_recovered_zero") is not None


def test_a_page_and_a_card_show_all_and_run_nothing(tmp_path):
    saes = {"<script>alert(1)</script>": healthy_sae(), "early": healthy_sae(hook_name="blocks.0.hook_resid_post")}
    found = health(MODEL, saes, TEXTS, prompts={WORDS[0]: WORDS[1]})
    for shown in (found.to_html(tmp_path / "h" / "health.html").read_text(), found._repr_html_()):
        assert "<script" not in shown and "&lt;script&gt;" in shown and "The SAE is likely of another layer" in shown
        assert shown.count("<svg") == 2 and "Loss recovered, of what zero ablation costs" in shown
    csv = found.to_csv(tmp_path / "h" / "health.csv")
    assert csv.is_file() and csv.with_name("health-prompts.csv").is_file()
    assert len(found.plot().data) == 4 and (found.densities["early"] == 0).all()


# What cannot be used


@pytest.mark.parametrize(
    ("saes", "texts", "options", "words"),
    [
        ([], TEXTS, {}, "no SAE was given"),
        ("blocks.0.hook_resid_post", TEXTS, {}, "only SAEs have health"),
        (tiny_sae(d_in=32, hook=HOOK), TEXTS, {}, "d_in is 32, but .* is 64 wide"),
        (healthy_sae(hook_name="blocks.9.hook_resid_post"), TEXTS, {}, "is not a hook point"),
        (healthy_sae(), [], {}, "text"),
        (healthy_sae(), ["the", "a"], {}, "none of the 2 texts drawn .* holds two tokens"),
        (healthy_sae(), ["<bos> <eos>", "<pad>"], {}, "holds no token that counts"),
        (healthy_sae(), TEXTS, {"texts": 0}, "texts is 0"),
        (healthy_sae(), TEXTS, {"loss_tokens": 0}, "loss_tokens is 0"),
        (healthy_sae(), TEXTS, {"loss_texts": 0}, "loss_texts is 0"),
        (healthy_sae(), TEXTS, {"prompts": {"": "a"}}, "prompts: '' has no token, or its answer has none"),
        (healthy_sae(), TEXTS, {"prompts": {"the": ""}}, "prompts: 'the' has no token, or its answer has none"),
        (healthy_sae(), TEXTS, {"prompts": {"the " * 80: "a"}}, "is longer than the model's context"),
        (healthy_sae(), TEXTS, {"context": 500}, "context is 500"),
    ],
)
def test_what_cannot_be_used_is_told(saes, texts, options, words):
    with pytest.raises(fade_lens.InputError, match=words):
        health(MODEL, saes, texts, **options)


def test_activations_that_are_not_finite_leave_no_figure_and_one_warning():
    model = healthy_model()
    with torch.no_grad():
        model.embed.W_E[model.tokenizer.get_vocab()["the"]] = float("nan")
    (one,) = health(model, healthy_sae(), TEXTS)
    assert all(metric.reason is not None and metric.reason.code == "overflow" for metric in one.metrics.values())
    assert [warning.cause for warning in one.warnings] == ["overflow"] and "not finite at" in one.warnings[0].words


def test_a_cross_layer_transcoder_has_no_loss_at_one_layer():
    sae = tiny_sae("transcoder", hook="blocks.0.ln2.hook_normalized", meta_hook_name_out="blocks.0.hook_mlp_out")
    sae.cfg.metadata["release"] = "mntss-gemma-2-2b-2.5m-clt-as-per-layer"
    (one,) = health(tiny_model(), sae, TEXTS)
    assert one.metrics["ce_sae"].reason is not None and one.metrics["ce_sae"].reason.code == "cross_layer"
    assert one.value("l0") is not None


def test_an_ablation_that_costs_nothing_leaves_nothing_to_recover():
    model = healthy_model()
    with torch.no_grad():
        model.unembed.W_U.zero_()
    metric = health(model, healthy_sae(), TEXTS).items[0].metrics["ce_recovered_zero"]
    assert metric.reason is not None and metric.reason.code == "no_harm"
