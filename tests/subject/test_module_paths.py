"""Paths of Hugging Face's modules in place of hook names."""

import pytest

from fade_lens._util.errors import InputError
from fade_lens.subject.features import features_of
from fade_lens.subject.module_paths import hook_of_module
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("path", "hook"),
    [
        ("model.layers[20].mlp.act_fn", "blocks.20.mlp.hook_post"),
        ("model.layers.20.mlp", "blocks.20.hook_mlp_out"),
        ("model.model.layers[3]", "blocks.3.hook_resid_post"),
        ("model.language_model.layers.4.self_attn.o_proj", "blocks.4.hook_attn_out"),
        ("transformer.h.5.mlp.act", "blocks.5.mlp.hook_post"),
        ("transformer.h.5.attn.attention.out_proj", "blocks.5.hook_attn_out"),
        ("gpt_neox.layers.2.mlp.dense_h_to_4h", "blocks.2.mlp.hook_pre"),
        ("model.decoder.layers.3.fc2", "blocks.3.hook_mlp_out"),
        ("layers[3].mlp.up_proj", "blocks.3.mlp.hook_pre_linear"),
        ("model.layers.3.self_attn.v_proj", "blocks.3.attn.hook_v"),
        ("blocks[4].mlp.hook_post", "blocks.4.mlp.hook_post"),
        ("transformer.wte", "hook_embed"),
        ("transformer.ln_f", "ln_final.hook_normalized"),
        ("blocks.4.mlp.hook_post", None),
        ("blocks.4.mlp.out.hook_out", None),
        ("hook_embed", None),
        ("model.layers.20.something", None),
        ("named.module", None),
    ],
)
def test_a_modules_path_has_the_hook_of_its_output(path, hook):
    assert hook_of_module(path) == hook


def test_every_hook_that_is_named_is_one():
    hooks = {hook_of_module(f"model.layers.0.{part}") for part in ("mlp", "mlp.act_fn", "mlp.c_fc", "self_attn", "self_attn.q_proj", "ln_1", "ln_2")}  # fmt: skip
    hooks |= {hook_of_module("model.layers[0]"), hook_of_module("transformer.wte"), hook_of_module("model.norm")}
    assert hooks <= set(tiny_model().hook_dict)


def test_python_is_told_the_hook():
    with pytest.raises(InputError, match=r"that is blocks.0.mlp.hook_post: write it so") as caught:
        features_of(tiny_model(), "transformer.h[0].mlp.act", [0])
    assert caught.value.field == "hook"
