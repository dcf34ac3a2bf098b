"""What an SAE makes of activations, against sae_lens itself and against plain arithmetic over all tokens at once."""

import numpy as np
import pytest
import torch
from sae_lens.registry import SAE_CLASS_REGISTRY

from fade_lens._util.errors import InputError
from fade_lens.data.corpus import Corpus
from fade_lens.subject import reconstruction as module
from fade_lens.subject.health import l0_histogram
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.reconstruction import Reconstruction, statistics, weight_cosines
from fade_lens.subject.tokens import tokenize
from tests.tiny import D_MODEL, HOOK, WORDS, tiny_model, tiny_sae

MODEL = tiny_model()


@pytest.fixture(scope="module")
def tokens():
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(30)]
    return tokenize(MODEL, Corpus.from_texts(texts), context=32, prepend_bos=True)


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", sorted(SAE_CLASS_REGISTRY))
def test_the_reconstruction_is_what_the_sae_itself_makes(architecture, normalization):
    sae = tiny_sae(architecture, normalize_activations=normalization)
    if hasattr(sae, "W_skip"):
        sae.W_skip.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(4, 30, (3, 9), generator=torch.Generator().manual_seed(0))
    hidden = read_hooks(MODEL, ids, [HOOK])[HOOK].detach()
    with torch.no_grad():
        want, latents = sae(hidden), sae.encode(hidden)
    ((_, found, made),) = Reconstruction(MODEL, sae)(hidden)
    torch.testing.assert_close(made, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, latents, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept_bytes", [2**29, 0])
@pytest.mark.parametrize(("architecture", "batch_tokens"), [("standard", 5000), ("abstopk", 40), ("temporal", 40), ("transcoder", 40)])  # fmt: skip
def test_sums_are_those_of_all_tokens_at_once(tokens, architecture, batch_tokens, kept_bytes, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)  # of more, the model runs twice
    sae = tiny_sae(architecture, meta_hook_name_out="blocks.1.hook_mlp_out" if architecture == "transcoder" else None)
    made = Reconstruction(MODEL, sae)
    found = statistics(made, tokens, batch_tokens=batch_tokens)
    ys, outs, zs, special = [], [], [], []
    for text in range(len(tokens)):
        seen = read_hooks(MODEL, torch.tensor(tokens[text][None]), made.hooks)
        with torch.no_grad():
            keep = ~tokens.special_of(text)
            ys.append(seen[made.features.write_hook][0].double())
            outs.append(sae(seen[made.features.read_hook])[0].double()[keep])
            zs.append(sae.encode(seen[made.features.read_hook])[0][keep])
            special.append(torch.from_numpy(~keep))
    every, special, out, z = torch.cat(ys), torch.cat(special), torch.cat(outs), torch.cat(zs)
    y = every[~special]
    mean, error = y.mean(0), (y - out).square().sum(-1)
    sums = {name: values.sum() for name, values in found.sums.items()}
    assert found.n == sums["n"] == len(y) and found.n_lost == 0
    assert sums["l0"] == int((z != 0).sum()) == int((found.l0 * np.arange(len(found.l0))).sum())
    want = {
        "error": error.sum(),
        "legacy": (1 - error / (y - mean).square().sum(-1)).sum(),
        "cosine": torch.cosine_similarity(y, out).sum(),
        "ratio": (out.norm(dim=-1) / y.norm(dim=-1)).sum(),
        "dot": (y * out).sum(),
        "l1": z.abs().sum(),
    }
    for name, value in want.items():
        assert sums[name] == pytest.approx(float(value), rel=1e-4), name
    assert np.array_equal(found.fires, (z != 0).sum(0).numpy())
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-5)
    away = (every - every.mean(0)).square().sum(-1)
    assert found.special_share == pytest.approx(float(away[special].sum() / away.sum()), rel=1e-6)


def test_a_head_is_read_and_written_alone():
    sae = tiny_sae(d_in=8, hook="blocks.0.attn.hook_z", meta_hook_head_index=2)
    made = Reconstruction(MODEL, sae)
    tensor, where = torch.randn(2, 5, 4, 8), torch.tensor([[True] * 4 + [False]] * 2)
    placed = made.put(tensor, made.of(tensor), where)
    assert torch.equal(placed[:, :, [0, 1, 3]], tensor[:, :, [0, 1, 3]]) and torch.equal(placed[:, 4], tensor[:, 4])
    torch.testing.assert_close(placed[:, :4, 2], sae(tensor[:, :4, 2]).detach())


def test_an_sae_is_put_some_blocks_further_where_there_are_such():
    made = Reconstruction(MODEL, tiny_sae(hook="blocks.0.hook_resid_pre"))
    assert made.tried(layers=1).hooks == ("blocks.1.hook_resid_pre",)
    with pytest.raises(InputError, match="no fellow 2 blocks further"):
        made.tried(layers=2)
    with pytest.raises(InputError, match="no fellow"):
        Reconstruction(MODEL, tiny_sae(hook="hook_embed")).tried(layers=1)


def test_scale_and_mean_are_taken_away_and_given_back():
    sae, hidden = tiny_sae("jumprelu"), torch.randn(2, 5, D_MODEL)
    mean = hidden.mean(-1, keepdim=True)
    want = sae((hidden - mean) * 3) / 3 + mean
    torch.testing.assert_close(Reconstruction(MODEL, sae).tried(scale=3, centred=True).of(hidden), want.detach())


def test_cosines_of_weights_are_those_of_a_plain_product():
    sae = tiny_sae(d_sae=40)
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=-1)
    every = (rows @ rows.T).fill_diagonal_(-1).amax(1)
    found = weight_cosines(Reconstruction(MODEL, sae))
    assert found["decoder_cosine"] == pytest.approx(float(every.mean()), abs=1e-6)
    assert found["encoder_decoder_cosine"] == pytest.approx(float(torch.cosine_similarity(sae.W_enc.T, sae.W_dec).mean().detach()), abs=1e-6)  # fmt: skip
    assert found["decoder_cosine_largest"] == pytest.approx(float(every.max()), abs=1e-6)
    assert "encoder_decoder_cosine" not in weight_cosines(Reconstruction(MODEL, tiny_sae("transcoder")))


def test_the_histogram_of_l0_holds_every_token():
    counts = np.zeros(500, dtype=np.int64)
    counts[[3, 40, 499]] = [2, 5, 1]
    edges, tokens = l0_histogram(counts)
    assert sum(tokens) == 8 and len(tokens) <= 40 and edges[0] == 3 and edges[-1] >= 499
    assert l0_histogram(np.zeros(3, dtype=np.int64)) == ((), ())
    assert l0_histogram(np.array([0, 7])) == ((1.0, 2.0), (7,))
