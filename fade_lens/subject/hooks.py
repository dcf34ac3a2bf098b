"""The small surface that fade_lens needs of a subject model, the same for `HookedTransformer`,
`HookedSAETransformer` and TransformerLens' bridges (`TransformerBridge`, `SAETransformerBridge`)."""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.aliases import collect_aliases_recursive

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens.subject.module_paths import check_no_module

HookTensor = Float[Tensor, "text pos *d_hook"]
MARKER = re.compile(r"[<\[]\S+[>\]]")
"""How a token is written that stands for no text."""
UNMARKED = re.compile(r"<\|?(start|begin|end)_of_\w+\|?>|<unused_?\d+>|<\w+_soft_token>|\[multimodal\]")
"""How added tokens are written that stand for no text though a tokenizer made of a GGUF file does not mark them (Gemma's `<start_of_image>`)."""

SWITCHES = {
    ".hook_mlp_in": "use_hook_mlp_in",
    ".hook_attn_in": "use_attn_in",
    ".hook_q_input": "use_split_qkv_input",
    ".hook_k_input": "use_split_qkv_input",
    ".hook_v_input": "use_split_qkv_input",
    ".attn.hook_result": "use_attn_result",
}
"""Hooks that fire only where the model is told so, by the end of their names: the settings, which TransformerLens keeps off to save time."""
RIVALS = {"use_attn_in": "use_split_qkv_input", "use_split_qkv_input": "use_attn_in"}
"""Settings of which one alone can be on: hooks of both are read in two runs."""
MLP_INPUT = ".mlp.hook_in"
"""What goes into an MLP, after its norm: a hook of bridges, which a `HookedTransformer` lacks and is given for the run."""


@runtime_checkable
class Model(Protocol):
    """What a subject model must offer; every TransformerLens model with hooks does."""

    cfg: Any
    tokenizer: Any

    @property
    def hook_dict(self) -> Mapping[str, Any]: ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, Mapping[str, Tensor]]: ...

    def hooks(self, fwd_hooks: Any = ..., bwd_hooks: Any = ...) -> Any: ...


def is_bridge(model: Model) -> bool:
    """Whether the model wraps Hugging Face modules (TransformerLens' bridge) rather than being a `HookedTransformer`."""
    return hasattr(model, "original_model")


def has_torch_hooks(module: torch.nn.Module) -> bool:
    """Whether a forward hook is attached to the module itself; what it does cannot be told, and torch lists hooks in no public place."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def device_of(model: Model) -> torch.device:
    """The device that holds the model's first parameter."""
    return next(cast(torch.nn.Module, model).parameters()).device


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; of CUDA nobody waits for it, whereas MPS reads the memory later, when it may hold something else."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def dtype_of(model: Model) -> torch.dtype:
    """The dtype of the model's first parameter that is not quantized."""
    floating = (p.dtype for p in cast(torch.nn.Module, model).parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def tokenizer_state(tokenizer: Any) -> tuple[int, tuple[int, ...], str]:
    """What may change of a tokenizer that is in use, and with it which tokens stand for no text: its size, special tokens and chat template."""
    return len(tokenizer), tuple(tokenizer.all_special_ids), str(getattr(tokenizer, "chat_template", None) or "")


_SPECIAL = WeakKeyDictionary[Any, tuple[Any, frozenset[int]]]()
"""Of each tokenizer its state when its special tokens were looked for, and these."""


def special_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that stand for no text: BOS, EOS, padding, turn and image markers, reserved tokens.

    A tokenizer lists some of them as its special tokens, and marks others only among its added tokens. The markers that its
    chat template writes around turns are special too, even where the tokenizer does not mark them (DeepSeek's `<｜User｜>`), and so is what
    `UNMARKED` finds.
    """
    state = _, listed, template = tokenizer_state(tokenizer)
    known = _SPECIAL.get(tokenizer)
    if known is None or known[0] != state:  # looking through thousands of added tokens takes a tenth of a second

        def stands_for_none(token: Any) -> bool:
            name = str(token.content)
            return token.special or bool(UNMARKED.fullmatch(name) or (name in template and MARKER.fullmatch(name)))

        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        known = state, frozenset((*listed, *(i for i, token in added.items() if stands_for_none(token))))
        _SPECIAL[tokenizer] = known
    return known[1]


def textless_tokens(model: Model, d_vocab: int) -> Int[Tensor, " token"]:
    """Ids that stand for no text: the tokenizer's special tokens, and rows of the vocabulary beyond it. They are never generated nor promoted."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return torch.empty(0, dtype=torch.long)
    special = {i for i in special_tokens(tokenizer) if 0 <= i < d_vocab}
    return torch.tensor(sorted(special | set(range(len(tokenizer), d_vocab))), dtype=torch.long)


def hook_aliases(model: Model) -> dict[str, str]:
    """Names that a bridge accepts beside its own hook names, each with the one it stands for; empty for a `HookedTransformer`."""
    if not is_bridge(model):
        return {}
    found: dict[str, str | list[str]] = collect_aliases_recursive(model)  # pyright: ignore[reportAssignmentType]
    known = model.hook_dict
    names = {alias: [given] if isinstance(given, str) else given for alias, given in found.items()}
    # An alias may list several names, of which an architecture has one; where it has none the alias stands for nothing.
    return {alias: here for alias, given in names.items() if (here := next((n for n in given if n in known), None))}


def resolve_hook(model: Model, name: str) -> str:
    """The name under which the model itself knows this hook point.

    A bridge's `run_with_cache` silently returns nothing for an alias, so every hook name passes through here.

    Args:
        name: a hook name of the model, or an alias.

    Raises:
        InputError: the model has no such hook (near names are suggested), or SAEs are attached to it.
    """
    attached = list(getattr(model, "acts_to_saes", {}) or {})
    if attached:
        raise InputError(
            f"The model has SAEs attached at {attached}, so its activations would be reconstructions. "
            "Call model.reset_saes() first; fade_lens runs the SAE itself."
        )
    aliases = hook_aliases(model)
    resolved = aliases.get(name, name)
    if resolved not in model.hook_dict and not lacks_mlp_input(model, resolved):
        check_no_module(name)
        known = [*model.hook_dict, *aliases]
        raise InputError(
            Argument("hook"), f" {name!r} is not a hook point of {model_name(model)}{suggest(name, known)}"
        )
    return resolved


def lacks_mlp_input(model: Model, hook: str) -> bool:
    """Whether the hook is the input of an MLP that a `HookedTransformer` has, but no hook point for."""
    layer = layer_of(hook)
    if layer is None or hook != f"blocks.{layer}{MLP_INPUT}" or hook in model.hook_dict or is_bridge(model):
        return False
    return layer < int(model.cfg.n_layers) and not getattr(model.cfg, "attn_only", False)


def layer_of(hook: str) -> int | None:
    """The block that a hook name belongs to: 9 for `blocks.9.hook_resid_post`, None outside the blocks."""
    parts = hook.split(".")
    return int(parts[1]) if len(parts) > 2 and parts[0] == "blocks" and parts[1].isdigit() else None


def residual_hook(model: Model, hook: str) -> str:
    """The residual-stream hook whose norms tell massive activations at `hook`: itself, or its block's input."""
    layer = layer_of(hook)
    if layer is None or ".hook_resid_" in hook or hook in (f"blocks.{layer}.hook_in", f"blocks.{layer}.hook_out"):
        return hook
    return resolve_hook(model, f"blocks.{layer}.hook_resid_pre")


@contextmanager
def running(model: Model, hooks: Iterable[str] = ()) -> Generator[None]:
    """The time in which a model is run: without dropout, and with the settings and hook points that the hooks need.

    Everything is put back afterwards, also after an error.

    Args:
        hooks: resolved names of the hook points that are to fire.

    Raises:
        InputError: a hook that this model cannot be made to fire.
    """
    whole: Any = model
    training = [m for m in (*whole.modules(), *getattr(whole, "original_model", whole).modules()) if m.training]
    with ExitStack() as afterwards:
        for module in training:
            module.training = False
            afterwards.callback(setattr, module, "training", True)
        for hook in dict.fromkeys(hooks):
            if setting := setting_of(hook):
                try:
                    switch(model, setting, afterwards)
                except (AssertionError, NotImplementedError, ValueError) as error:
                    raise InputError(
                        Argument("hook"), f" {hook!r} cannot be switched on in {model_name(model)}: {error}"
                    ) from error
            elif lacks_mlp_input(model, hook):
                add_mlp_input(model, hook, afterwards)
        yield


def setting_of(hook: str) -> str | None:
    """The setting that a hook needs to fire (see `SWITCHES`)."""
    return next((setting for end, setting in SWITCHES.items() if hook.endswith(end)), None)


def switch(model: Model, setting: str, afterwards: ExitStack, *, on: bool = True) -> None:
    """Give a model's setting (see `SWITCHES`) a value until `afterwards` closes."""
    before = bool(getattr(model.cfg, setting, False))
    if before == on:
        return
    # Both replace what the attention reads: a hook at one would go unheard beside the other.
    rival = RIVALS.get(setting)
    if on and rival:
        switch(model, rival, afterwards, on=False)
    change = getattr(model, f"set_{setting}")
    change(on)
    afterwards.callback(change, before)


def add_mlp_input(model: Model, hook: str, afterwards: ExitStack) -> None:
    """Give a `HookedTransformer` a hook point at the input of an MLP until `afterwards` closes."""
    hooked, point = cast(Any, model), HookPoint()
    point.name = hook
    mlp = hooked.blocks[layer_of(hook)].mlp
    afterwards.callback(mlp.register_forward_pre_hook(lambda _, inputs: (point(inputs[0]), *inputs[1:])).remove)
    for known in (hooked.hook_dict, hooked.mod_dict):
        known[hook] = point
        afterwards.callback(known.pop, hook)


def read_hooks(
    model: Model,
    tokens: Int[Tensor, "text pos"],
    names: Iterable[str],
    past: TransformerLensKeyValueCache | None = None,
) -> dict[str, Tensor]:
    """The activations at some hooks; no layer above the last hook runs, and no logits are computed.

    Args:
        tokens: padded on the right, where causal attention keeps padding from every real position.
        names: resolved hook names.
        past: keys and values of the tokens before these, to which theirs are added; for a `HookedTransformer` alone.

    Returns:
        For each name the tensor `[text, pos, …]`, on the model's device and in its dtype.

    Raises:
        InputError: a hook that this model cannot be made to fire.
    """
    wanted = sorted(set(names))
    apart = [name for name in wanted if setting_of(name) == "use_attn_in"]
    if apart and any(setting_of(name) == RIVALS["use_attn_in"] for name in wanted):  # one alone is heard in a run
        return read_hooks(model, tokens, apart, past) | read_hooks(model, tokens, {*wanted}.difference(apart), past)
    layers = [layer_of(name) for name in wanted]
    stop = None if None in layers else max(cast(list[int], layers)) + 1
    if stop is None and all(name.startswith("hook_") for name in wanted):
        stop = 0 if not is_bridge(model) else 1  # embeddings: no block is needed
    options: dict[str, Any] = {"names_filter": wanted, "stop_at_layer": stop, "return_cache_object": False}
    if is_bridge(model):
        # A bridge cannot stop after its last block, and its left-padding logic is kept out by an explicit mask.
        options["attention_mask"] = torch.ones_like(tokens)
        if stop is not None and stop >= model.cfg.n_layers:
            options["stop_at_layer"] = None
    else:
        options |= {"padding_side": "right", "return_type": None}
        if past is not None:
            options |= {"past_kv_cache": past, "attention_mask": torch.ones_like(tokens)}
    with running(model, wanted):
        _, cache = model.run_with_cache(moved(tokens, device_of(model)), **options)
    return {name: cache[name] for name in wanted}


@contextmanager
def forward_hooks(model: Model, hooks: Sequence[tuple[str, Any]]) -> Generator[None]:
    """The time in which forward hooks, each with its resolved hook name, act on the model, which is ready to run (see `running`)."""
    with running(model, [name for name, _ in hooks]), model.hooks(fwd_hooks=list(hooks)):
        yield


def model_name(model: Model) -> str:
    """The name the model was loaded under."""
    return str(getattr(model.cfg, "model_name", type(model).__name__))
