"""Modules of Hugging Face's models by their paths, and the TransformerLens hooks at which their outputs are."""

import re

from fade_lens._util.errors import Argument, InputError

BLOCKS = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)(?:\.|$)(.*)")
"""A block's number and what follows, in a path whose numbers stand between dots."""
MLP = r"(?:mlp|feed_forward|ffn)"
ATTENTION = r"(?:self_attn|attn|attention|self_attention)(?:\.attention|\.self)?"
HOOKS = (
    (r"", "hook_resid_post"),
    (MLP, "hook_mlp_out"),
    (rf"{MLP}\.(?:act|act_fn|activation_fn|activation|gelu_impl)", "mlp.hook_post"),
    (r"activation_fn", "mlp.hook_post"),
    (rf"(?:{MLP}\.)?(?:down_proj|c_proj|dense_4h_to_h|fc_out|fc2|w2)", "hook_mlp_out"),
    (rf"{MLP}\.(?:gate_proj|w1)", "mlp.hook_pre"),
    (rf"{MLP}\.(?:up_proj|w3)", "mlp.hook_pre_linear"),
    (rf"(?:{MLP}\.)?(?:c_fc|dense_h_to_4h|fc_in|fc1)", "mlp.hook_pre"),
    (ATTENTION, "hook_attn_out"),
    (rf"{ATTENTION}\.(?:o_proj|c_proj|out_proj|dense)", "hook_attn_out"),
    (rf"{ATTENTION}\.(q|k|v)_proj", r"attn.hook_\1"),
    (r"(?:input_layernorm|ln_1)", "ln1.hook_normalized"),
    (r"(?:pre_feedforward_layernorm|ln_2)", "ln2.hook_normalized"),
)
"""What follows a block's number, with the hook in that block."""
OUTSIDE = (
    (r"(?:\w+\.)*(?:embed_tokens|wte|embed_in)", "hook_embed"),
    (r"(?:\w+\.)*(?:wpe|embed_positions)", "hook_pos_embed"),
    (
        r"(?:model|transformer|gpt_neox|model\.language_model|language_model\.model)\.(?:norm|ln_f|final_layer_norm)",
        "ln_final.hook_normalized",
    ),
)
"""Whole paths outside of blocks."""


def hook_of_module(path: str) -> str | None:
    """The hook at which TransformerLens has the output of a module, given by its path in Hugging Face's model; None for no such path.

    Where an MLP is gated, its neurons are at `mlp.hook_post` after the product with the linear part, which the module of the activation
    function alone does not have.

    >>> hook_of_module("model.layers[20].mlp.act_fn"), hook_of_module("transformer.h.5.mlp"), hook_of_module("blocks.5.hook_mlp_out")
    ('blocks.20.mlp.hook_post', 'blocks.5.hook_mlp_out', None)
    """
    plain = re.sub(r"\[(\d+)\]", r".\1", path.strip())
    block = BLOCKS.search(plain)
    table, part = (OUTSIDE, plain) if block is None else (HOOKS, block[2])
    if block is not None and re.match(r"(?:.*\.)?hook_\w+$", block[2]):  # TransformerLens' own, but for its brackets
        return None if plain == path.strip() else plain
    found = next((match.expand(hook) for pattern, hook in table if (match := re.fullmatch(pattern, part))), None)
    return found if block is None or found is None else f"blocks.{block[1]}.{found}"


def check_no_module(hook: str) -> None:
    """Raise `InputError` for the path of a module in place of a hook's name; nothing of the model is needed."""
    if (meant := hook_of_module(hook)) is not None:
        raise InputError(
            Argument("hook"), f" {hook!r} is a module's path, as Hugging Face writes it; that is {meant}: write it so"
        )
