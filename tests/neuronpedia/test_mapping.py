"""The mapping check: what it lets through, and what it names when it does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fade_lens._util.errors import InputError
from fade_lens.neuronpedia import Activation, check_mapping
from fade_lens.neuronpedia.mapping import token_ids
from tests.alphabets import byte_level, with_fallback
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


# --- tokens that are not stored whole -----------------------------------------------------------------------------------------

SENTENCES = ("the cat sees 猫 and the cat", "the cat and the cat sees", "naïve cat thé the cat", "สวัสดี the cat the")


def model_of(tokenizer):
    model = tiny_model(n_layers=3, d_vocab=len(tokenizer))
    model.tokenizer = tokenizer
    return model


def contexts_of(model, sae, form):
    """Contexts with true activations; `form` makes the stored tokens of the ids."""
    rows = []
    for at, text in enumerate(SENTENCES * 2):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        _, cache = model.run_with_cache(torch.tensor([[model.tokenizer.bos_token_id, *ids]]), prepend_bos=False)
        with torch.no_grad():
            values = sae.encode(cache[HOOK])[0, 1:, at % 4]
        rows.append(Activation(at % 4, tuple(form(model.tokenizer, ids)), tuple(values.tolist())))
    return rows


FORMS = {
    "decoded one by one": lambda tokenizer, ids: [tokenizer.decode([i]) for i in ids],
    "as the vocabulary has them": lambda tokenizer, ids: tokenizer.convert_ids_to_tokens(ids),
    "with blanks for Ġ and ▁": lambda t, ids: [
        p.replace("Ġ", " ").replace("▁", " ") for p in t.convert_ids_to_tokens(ids)
    ],
    "with line breaks marked": lambda tokenizer, ids: [tokenizer.decode([i]).replace("\n", "↵") for i in ids],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokenizer", [byte_level(), with_fallback()], ids=["bytes", "fallback"])
def test_the_right_model_passes_however_its_tokens_are_stored(tokenizer, form):
    model, sae = model_of(tokenizer), tiny_sae(d_sae=16, hook=HOOK)
    rows = contexts_of(model, sae, FORMS[form])
    check = check_mapping(model, sae, rows)
    assert check.passed and check.agreement.correlation > 0.999
    partly = sum(any("\ufffd" in token for token in row.tokens) for row in rows)
    # Where blanks were stripped from all tokens, most may be either of two and are not guessed.
    assert check.left_out >= partly and ("only in part" in str(check)) == (check.left_out > 0)


def test_nothing_whole_is_not_checked_rather_than_another_model():
    model, sae = model_of(byte_level()), tiny_sae(d_sae=16, hook=HOOK)
    check = check_mapping(model, sae, [Activation(1, ("\ufffd", " cat"), (1.0, 2.0))] * 3)
    assert not check.passed and check.agreement is None and check.n == 0 and check.left_out == 3
    assert str(check).startswith("could not be checked") and not check.problem


def test_another_model_is_told_though_some_tokens_are_not_whole():
    model, sae = model_of(byte_level()), tiny_sae(d_sae=16, hook=HOOK)
    rows = contexts_of(model, tiny_sae(d_sae=16, hook=HOOK, seed=5), FORMS["decoded one by one"])
    with pytest.raises(InputError, match="it is another SAE"):
        check_mapping(model, sae, rows)
    foreign = [Activation(1, ("▁qwertz", "\ufffd"), (1.0, 0.0))] * 3
    with pytest.raises(InputError, match="another model"):
        check_mapping(model, sae, foreign)


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
