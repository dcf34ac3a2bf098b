"""A model without weights: what can be told of a hook, or of an SAE, before anything large is loaded."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import HookedSAETransformer
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from transformer_lens.loading_from_pretrained import get_pretrained_model_config
from transformers import AutoConfig

from fade_lens._util.errors import InputError, renamed
from fade_lens.subject.features import check_width, hook_size
from fade_lens.subject.hooks import Model, resolve_hook
from fade_lens.subject.loading import UNREADABLE, Published, official_name

NOWHERE = "meta"
"""torch's device of tensors that have a shape and no numbers."""
UNTOLD = (*UNREADABLE, RuntimeError, AssertionError, LookupError)
"""What is raised for a model that cannot be made of its config, or not run without numbers (a router of experts): loading it will tell."""


def outline(name: str, folder: Path | None = None) -> Model | None:
    """A model made of its config alone, all of it on the device "meta".

    Args:
        name: as `load_model` takes it.
        folder: where its config lies, for a model that is not read from the hub.

    Returns:
        The model, or None where its config cannot be read or tells too little: loading it will say why.
    """
    place = str(folder or name)
    try:
        with torch.device(NOWHERE):
            if (official := official_name(name)) is None:
                config = AutoConfig.from_pretrained(place)
                whole = config.get_text_config() is config  # of a model that also sees only a half is loaded
                return (
                    SAETransformerBridge.boot_transformers(place, device="cpu", load_weights=False) if whole else None
                )
            known = None if folder is None else AutoConfig.from_pretrained(place).to_dict()
            config = get_pretrained_model_config(official, hf_cfg=known, device="cpu")
            config.tokenizer_name = None
            model = HookedSAETransformer(config, move_to_device=False)
        model.cfg.device = NOWHERE
        return model
    except UNTOLD:
        return None


def width_of_hook(model: Model, hook: str, head: int | None = None) -> int | None:
    """The width of a hook's tensor, by a run without numbers; None where the model needs numbers to run.

    Raises:
        InputError: no such hook, or one that does not fire or has no positions.
    """
    resolved = resolve_hook(model, hook)
    try:
        return hook_size(model, resolved, head)
    except InputError:
        raise
    except UNTOLD:
        return None


def check_fits(model: Model, published: Published) -> None:
    """Check that what an SAE's config says of its hooks fits a model.

    Raises:
        InputError: a hook that the model has not, or one of another width.
    """
    head: Any = published.get("hook_head_index")
    for hook, size in (("hook_name", "d_in"), ("hook_name_out", "d_out")):
        name, wanted = published.get(hook), published.get(size)
        if not isinstance(name, str):
            continue
        with renamed({"hook": f"the SAE's {hook}"}):
            width = width_of_hook(model, name, None if head is None else int(head))
        if width is not None and isinstance(wanted, int):
            check_width(model, name, width, size, wanted)
