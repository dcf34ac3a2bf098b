"""The mapping check: what it lets through, and what it names when it does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fade_lens.errors import InputError
from fade_lens.neuronpedia import Activation, check_mapping
from fade_lens.neuronpedia.mapping import token_ids
from tests.tiny import VOCABULARY, WORDS, tiny_model, tiny_sae

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def model():
    return tiny_model(n_layers=3)


def stored(model, sae, hook=HOOK, *, bos=True, scale=1.0, n=12, keep_bos=False, seed=0):
    """Contexts with activations computed in the plain way: model, hook, `sae.encode`."""
    random = np.random.default_rng(seed)
    rows = []
    for at in range(n):
        words = [str(w) for w in random.choice(WORDS, 10)]
        ids = ([1] if bos else []) + [VOCABULARY.index(w) for w in words]
        _, cache = model.run_with_cache(torch.tensor([ids]), prepend_bos=False)
        with torch.no_grad():
            values = sae.encode(cache[hook])[0, int(bos) :, at % 4] * scale
        tokens = ("<bos>", *words) if keep_bos else tuple(words)
        rows.append(
            Activation(at % 4, tokens, tuple(([99.0] if keep_bos else []) + [round(float(v), 3) for v in values]))
        )
    return rows


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_the_right_sae_passes(model, architecture):
    sae = tiny_sae(architecture, d_sae=16, hook=HOOK)
    for keep_bos in (False, True):  # a stored BOS and its massive value do not count
        check = check_mapping(model, sae, stored(model, sae, keep_bos=keep_bos))
        assert check.passed and check.agreement.correlation > 0.999 and abs(check.agreement.scale - 1) < 0.01
        assert str(check).startswith("passed on 1")


def test_a_missing_bos_is_named(model):
    sae = tiny_sae(d_sae=16, hook=HOOK)
    with pytest.raises(InputError, match=r"computed without BOS in front: set .*prepend_bos = False"):
        check_mapping(model, sae, stored(model, sae, bos=False))
    sae.cfg.metadata.prepend_bos = False
    assert check_mapping(model, sae, stored(model, sae, bos=False)).passed
    with pytest.raises(InputError, match=r"computed with BOS in front"):
        check_mapping(model, sae, stored(model, sae, bos=True))


def test_another_scale_is_another_variant(model):
    sae = tiny_sae(d_sae=16, hook=HOOK)
    check = check_mapping(model, sae, stored(model, sae, scale=4.0), strict=False)
    assert not check.passed and "0.25 times the size" in check.problem and "variant" in check.problem


@pytest.mark.parametrize("hook", ["blocks.2.hook_resid_pre", "blocks.1.hook_resid_mid"])
def test_another_layer_or_hook_is_named(model, hook):
    sae = tiny_sae(d_sae=16, hook=HOOK)
    with pytest.raises(InputError, match=f"they fit {hook} instead of {HOOK}"):
        check_mapping(model, sae, stored(model, sae, hook=hook))


def test_another_sae_or_model_is_told(model):
    sae, other = tiny_sae(d_sae=16, hook=HOOK), tiny_sae(d_sae=16, hook=HOOK, seed=5)
    with pytest.raises(InputError, match="it is another SAE"):
        check_mapping(model, sae, stored(model, other))
    with pytest.raises(InputError, match="another model"):
        check_mapping(tiny_model(seed=7, n_layers=3), sae, stored(model, sae))
    rows = stored(model, sae)
    with pytest.raises(InputError, match="the SAE has 16: it is another SAE"):
        check_mapping(model, sae, [replace(rows[0], index=16)])
    strange = [replace(row, tokens=("Ġqwertz", *row.tokens[1:])) for row in rows]
    with pytest.raises(InputError, match="does not know the stored token 'Ġqwertz'"):
        check_mapping(model, sae, strange)
    assert check_mapping(model, sae, [*rows, strange[0]]).n <= len(rows)  # a few are left out


def test_nothing_to_compare(model):
    sae = tiny_sae(d_sae=16, hook=HOOK)
    with pytest.raises(InputError, match="no stored activations"):
        check_mapping(model, sae, [])
    with pytest.raises(InputError, match="all zero"):
        check_mapping(model, sae, [Activation(1, ("cat", "dog"), (0.0, 0.0))])


def test_neurons_are_checked_too(model):
    hook = "blocks.1.mlp.hook_post"
    _, cache = model.run_with_cache(torch.tensor([[1, 4, 5, 6, 7]]), prepend_bos=False)
    values = tuple(cache[hook][0, 1:, 3].tolist())
    assert check_mapping(model, hook, [Activation(3, tuple(VOCABULARY[4:8]), values)]).passed


def test_tokens_as_neuronpedia_stores_them():
    class Tokenizer:
        unk_token_id = 0

        def get_vocab(self):
            return {"<unk>": 0, "Ġthe": 1, "▁cat": 2, "dog": 3, "Ċ": 4, " sat": 5}

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [7] if text == "\t" else [0]}

        def decode(self, ids, **options):
            return "".join(key for key, i in self.get_vocab().items() if i in ids)

    model = tiny_model()
    model.tokenizer = Tokenizer()
    ids, unknown = token_ids(model, [" the", "Ġthe", " cat", "dog", "↵", " sat", "\t"])
    assert ids == [1, 1, 2, 3, 4, 5, 7] and unknown == ""
