"""The one pass over a corpus, against a loop over texts one at a time."""

import numpy as np
import pytest
import torch

from fade_lens._util import grid as grid_module
from fade_lens._util.errors import StoreError
from fade_lens._util.grid import Grid
from fade_lens.data.corpus import Corpus
from fade_lens.subject import activations as activations_module
from fade_lens.subject.activations import OutlierRule, batches, max_activations, reference_activation, token_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.tokens import tokenize
from tests.tiny import HOOK, WORDS, tiny_model, tiny_sae

OFF = OutlierRule(float("inf"))
INDICES = [3, 17, 40, 8]


def corpus_of(n=60, seed=0, longest=20):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(n)]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokens(model):
    return tokenize(model, Corpus.from_texts([*corpus_of(), ""]), context=32, prepend_bos=True)


def by_hand(model, features, tokens, limit=float("inf")):
    """Each text alone, position by position."""
    values, positions = np.full((len(tokens), len(features)), np.nan), np.full((len(tokens), len(features)), -1)
    for i in range(len(tokens)):
        hidden = read_hooks(model, torch.tensor(tokens[i][None]), [features.read_hook])[features.read_hook]
        encoded = features.encode(hidden)[0].detach().numpy()
        for position, row in enumerate(encoded):
            if tokens.special_of(i)[position] or hidden[0, position].norm() > limit:
                continue
            for f, value in enumerate(row):
                if np.isnan(values[i, f]) or abs(value) > abs(values[i, f]):
                    values[i, f], positions[i, f] = value, position
    return values, positions


@pytest.mark.parametrize("source", ["jumprelu", "abstopk", "temporal", "neurons"])
@pytest.mark.parametrize("batch_tokens", [8, 100, 5000])
def test_equals_a_loop_over_texts(model, tokens, source, batch_tokens):
    features = features_of(model, "blocks.1.mlp.hook_post" if source == "neurons" else tiny_sae(source), INDICES)
    found = max_activations(model, features, tokens, OFF, batch_tokens=batch_tokens)
    values, positions = by_hand(model, features, tokens)
    np.testing.assert_allclose(found.values, values, rtol=1e-4, atol=1e-5)
    active = np.abs(values) > 1e-4  # where a text is silent everywhere, any position is as good
    assert np.array_equal(found.positions[active], positions[active])
    assert np.isnan(found.values[-1]).all() and (found.positions[-1] == -1).all(), (
        "a text without tokens has no maximum"
    )


def test_signed_features_keep_their_sign(model, tokens):
    features = features_of(model, HOOK, [3, 17])
    found = max_activations(model, features, tokens, OFF)
    assert (found.values[:-1] < 0).any() and (found.values[:-1] > 0).any()


def test_special_tokens_never_count(model):
    sae = tiny_sae("standard")
    with torch.no_grad():
        bos = read_hooks(model, torch.tensor([[1]]), [HOOK])[HOOK][0, 0]
        sae.W_enc[:, 3] = 100 * bos / bos.norm() ** 2  # a latent that fires on BOS most of all
    tokens = tokenize(model, Corpus.from_texts(["the cat", "<eos> the cat"]), context=8, prepend_bos=True)
    found = max_activations(model, features_of(model, sae, [3]), tokens, OFF)
    assert (found.values < 90).all() and found.counted.tolist() == [2, 2]
    assert (found.positions[0] > 0).all()


def test_outliers_never_count_and_are_counted(model, tokens):
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    norms = torch.cat(
        [read_hooks(model, torch.tensor(tokens[i][None]), [HOOK])[HOOK][0].norm(dim=-1)[1:] for i in range(len(tokens))]
    )
    limit = float(norms.quantile(0.9))
    found = max_activations(model, features, tokens, OutlierRule(limit))
    values, _ = by_hand(model, features, tokens, limit)
    np.testing.assert_allclose(found.values, values, rtol=1e-4, atol=1e-5)
    assert found.n_outliers == int((norms > limit).sum())
    assert found.counted.sum() == len(norms) - found.n_outliers


def test_the_rule_is_a_multiple_of_the_corpus_median(model, tokens):
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    norms = torch.cat(
        [read_hooks(model, torch.tensor(tokens[i][None]), [HOOK])[HOOK][0].norm(dim=-1)[1:] for i in range(len(tokens))]
    )
    rule = OutlierRule.fit(model, features, tokens, factor=3.0, n_texts=len(tokens))
    assert rule.limit == pytest.approx(3 * float(norms.median()), rel=1e-4)
    assert OutlierRule.fit(model, features, tokens, factor=float("inf")).limit == float("inf")


def test_firing_rate(model, tokens):
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    found = max_activations(model, features, tokens, OFF)
    rows = np.concatenate(token_activations(model, features, tokens, OFF))
    rows = rows[~np.isnan(rows[:, 0])]
    np.testing.assert_allclose(found.firing_rate, (rows != 0).mean(axis=0))


def test_token_activations_agree_with_the_maxima(model, tokens):
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    found = max_activations(model, features, tokens, OFF)
    rows = token_activations(model, features, tokens, OFF, batch_tokens=50)
    for i, row in enumerate(rows[:-1]):
        assert len(row) == tokens.lengths[i] and np.isnan(row[0]).all()
        np.testing.assert_allclose(np.nanmax(row, axis=0), found.values[i], rtol=1e-4, atol=1e-5)
    some = token_activations(model, features, tokens, OFF, columns=[[2]] * len(tokens))
    np.testing.assert_allclose(some[4][:, 0], rows[4][:, 2], rtol=1e-4, atol=1e-5)


def test_order_of_texts_and_features_changes_nothing(model):
    texts = corpus_of(30)
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    forwards, backwards = (
        tokenize(model, Corpus.from_texts(order), context=32, prepend_bos=True) for order in (texts, texts[::-1])
    )
    one = max_activations(model, features, forwards, OFF, batch_tokens=64)
    two = max_activations(model, features.select(INDICES[::-1]), backwards, OFF, batch_tokens=64)
    np.testing.assert_allclose(one.values, two.values[::-1, ::-1], rtol=1e-4, atol=1e-5)


def test_batches_waste_little(tokens):
    made = list(batches(tokens, 200))
    assert sorted(i for b in made for i in b.texts) == list(range(len(tokens)))
    assert all(b.ids.numel() <= 200 for b in made)
    padding = 1 - tokens.lengths.sum() / sum(b.ids.numel() for b in made)
    assert padding < 0.2, f"{padding:.0%} of what the model runs on is padding"


def test_progress_adds_up(model, tokens):
    steps: list[int] = []
    max_activations(model, features_of(model, HOOK, [0]), tokens, OFF, batch_tokens=64, progress=steps.append)
    assert sum(steps) == len(tokens)


def test_a_mapped_file_holds_the_same_as_memory(model, tokens, tmp_path, monkeypatch):
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    monkeypatch.setattr(activations_module, "WINDOW", 16)
    inside = max_activations(model, features, tokens, OFF, batch_tokens=64)
    monkeypatch.setattr(grid_module, "IN_MEMORY", 0)
    mapped = max_activations(model, features, tokens, OFF, batch_tokens=64, folder=tmp_path)
    assert isinstance(mapped.values, np.memmap) and isinstance(mapped.positions, np.memmap)
    np.testing.assert_array_equal(mapped.values, inside.values)
    np.testing.assert_array_equal(mapped.positions, inside.positions)
    assert mapped.values[:, 1].flags.c_contiguous, "one feature is read in one piece"
    assert not list(tmp_path.iterdir()), "nothing is left that could be taken for a whole result"


@pytest.mark.parametrize("source", ["jumprelu", "topk", "temporal", "neurons"])
def test_pieces_of_a_batch_give_what_the_whole_gives(model, tokens, source, monkeypatch):
    features = features_of(model, "blocks.1.mlp.hook_post" if source == "neurons" else tiny_sae(source), INDICES)
    whole = max_activations(model, features, tokens, OutlierRule(6.0), batch_tokens=400)
    monkeypatch.setattr("fade_lens.subject.memory.PIECE_ON_CPU", 1)
    pieces = max_activations(model, features, tokens, OutlierRule(6.0), batch_tokens=400)
    np.testing.assert_allclose(pieces.values, whole.values, rtol=1e-5, atol=1e-6)
    assert np.array_equal(pieces.counted, whole.counted) and np.array_equal(pieces.active, whole.active)
    assert pieces.n_outliers == whole.n_outliers > 0


def test_no_piece_is_larger_than_it_may_be(model, tokens, monkeypatch):
    """Encoders that need every latent count all of them, not those asked for."""
    monkeypatch.setattr("fade_lens.subject.memory.PIECE_ON_CPU", 4 * 64 * 20)  # 20 positions of the SAE's 64 latents
    for source, positions in (("topk", 20), ("jumprelu", 20 * 64 // len(INDICES))):
        features = features_of(model, tiny_sae(source), INDICES)
        pieces = list(activations_module.encoded(model, features, tokens, OFF, 400))
        sizes = [p.usable.numel() for p in pieces if len(p.texts) > 1]
        assert sizes and max(sizes) <= positions


def test_windows_keep_every_text_once(tokens, monkeypatch):
    monkeypatch.setattr(activations_module, "WINDOW", 16)
    made = list(batches(tokens, 100))
    assert sorted(i for b in made for i in b.texts) == [i for i in range(len(tokens)) if tokens.lengths[i]]
    windows = [b.texts // 16 for b in made]
    assert all((w == w[0]).all() for w in windows) and [w[0] for w in windows] == sorted(w[0] for w in windows)


def test_no_room_for_the_results_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_module, "IN_MEMORY", 0)
    with pytest.raises(StoreError, match=r"cannot hold 0\.0 GB of activations.*TMPDIR"):
        Grid((2, 3), np.float32, tmp_path / "missing")


def test_user_tensors_stay_usable_for_training(model, tokens):
    """Nothing that outlives the pass was made in inference mode."""
    sae = tiny_sae("jumprelu")
    max_activations(model, features_of(model, sae, INDICES), tokens, OFF)
    loss = model(torch.tensor(tokens[0][None]), return_type="loss") + sae(torch.randn(3, sae.cfg.d_in)).sum()
    loss.backward()
    model.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maxima_are_float32(dtype):
    model = tiny_model(dtype=dtype)
    tokens = tokenize(model, Corpus.from_texts(corpus_of(10)), context=32, prepend_bos=True)
    found = max_activations(model, features_of(model, tiny_sae(), INDICES), tokens, OutlierRule(1e9))
    assert found.values.dtype == np.float32 and np.isfinite(found.values).all()
    full = max_activations(tiny_model(), features_of(tiny_model(), tiny_sae(), INDICES), tokens, OFF)
    np.testing.assert_allclose(found.values, full.values, atol=0.1)


def test_reference_activation_ignores_silent_texts_and_one_outlier():
    values = np.concatenate([np.zeros(900), np.full(198, 2.0), [1000.0, np.nan]]).astype(np.float32)
    assert reference_activation(values, 0.99) == pytest.approx(2.0)
    assert reference_activation(values, 1.0) == pytest.approx(1000.0)
    assert np.isnan(reference_activation(np.zeros(3, dtype=np.float32), 0.99))
