"""SAE latents and neurons behind one face: where to read, how to encode the columns asked for, which way to steer.

Matching-pursuit, top-k and temporal SAEs cannot be encoded column by column, so they cost a full encoder pass. Temporal ones steer additively only.
"""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from fade_lens._util.errors import Argument, InputError
from fade_lens.data.indices import checked_indices, chosen_indices
from fade_lens.subject.hooks import (
    MLP_INPUT,
    HookTensor,
    Model,
    at_least_float32,
    device_of,
    dtype_of,
    model_name,
    moved,
    read_hooks,
    residual_hook,
    resolve_hook,
)
from fade_lens.subject.identity import sae_identity
from fade_lens.subject.loading import UNFOLDED, other_model, otherwise_loaded

logger = logging.getLogger(__name__)

# Architectures whose latents do not depend on one another: a column of the encoder gives a column of activations.
COLUMNWISE = frozenset(
    {
        "standard",
        "gated",
        "jumprelu",
        "transcoder",
        "skip_transcoder",
        "jumprelu_transcoder",
        "jumprelu_skip_transcoder",
    }
)
# The encoder's parameters with one entry a latent, by name and the axis of the latents.
LATENT_PARAMETERS = {"W_enc": 1, "b_enc": 0, "b_gate": 0, "b_mag": 0, "r_mag": 0, "threshold": 0}


class Features(ABC):
    """Some features of one model: SAE latents or the dimensions of a hook.

    Attributes:
        read_hook: resolved hook name whose activations are encoded.
        write_hook: resolved hook name that steering adds to (a transcoder's output hook; else `read_hook`).
        residual_hook: resolved hook name of the residual stream beside `read_hook` (massive activations show there).
        indices: the features asked for, in the order of every `feature` axis.
        n_features: how many features the source has.
        d_in: size of the flattened activation at `read_hook`; `d_out` at `write_hook`.
        prepend_bos: whether the features expect texts to begin with BOS.
        head: attention head that the features belong to, or None for all.
    """

    def __init__(
        self,
        model: Model,
        read_hook: str,
        write_hook: str,
        indices: Sequence[int],
        n_features: int,
        d_in: int,
        d_out: int,
    ) -> None:
        self._model = model
        self.read_hook, self.write_hook = read_hook, write_hook
        self.residual_hook = residual_hook(model, read_hook)
        self.n_features, self.d_in, self.d_out = n_features, d_in, d_out
        self._choose(indices)
        self.prepend_bos = bool(getattr(model.cfg, "default_prepend_bos", True))
        self.head: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    dense = False
    """Whether they are hardly ever exactly 0, so that where they are silent is told by a quantile."""

    @property
    def model(self) -> Model:
        """The model that they are of."""
        return self._model

    @property
    def encoded_width(self) -> int:
        """How many features `encode` computes to give those asked for; some encoders need all of them."""
        return len(self)

    @abstractmethod
    def encode(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        """Activations of the features asked for, in float32 or wider, from the tensor at `read_hook`."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that activations are computed in."""
        return dtype_of(self._model)

    def before_threshold(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        """The value that decides whether a feature fires and how much, in its own dtype; the activation where the encoder shows no such value."""
        return self.encode(hook_activations)

    @abstractmethod
    def directions(self) -> Float[Tensor, "feature d_out"]:
        """What one unit of each feature adds at `write_hook`, flattened, float32."""

    def decoder(self, some: slice) -> Float[Tensor, "some d_out"] | None:  # noqa: ARG002
        """Decoder directions of a range of *all* features, of any length, float32; None where no two features share a dimension (neurons)."""
        return None

    def write_scale(self, hook_activations: HookTensor) -> Float[Tensor, "text pos 1"] | float:  # noqa: ARG002
        """How many units of the hook's tensor one unit of a feature is worth at each position: 1 unless the SAE normalizes its input."""
        return 1.0

    def select(self, indices: Sequence[int]) -> "Features":
        """The same source with other indices."""
        chosen = copy.copy(self)
        chosen._choose(indices)
        return chosen

    def _choose(self, indices: Sequence[int]) -> None:
        self.indices = checked_indices(indices, self.n_features)

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells these features from others in a stored run (the indices are not part of it)."""

    def flatten(self, hook_activations: HookTensor) -> Float[Tensor, "text pos d_in"]:
        """The hook's tensor with all axes after `pos` in one (heads first), of `head` only where one is set."""
        if self.head is not None:
            return hook_activations[..., self.head, :]
        if hook_activations.ndim > 3:
            return rearrange(hook_activations, "text pos head d_head -> text pos (head d_head)")
        return hook_activations


class Neurons(Features):
    """Dimensions of any hook whose tensor is `[text, pos, …]`, such as `blocks.3.mlp.hook_post`."""

    dense = True

    def __init__(self, model: Model, hook: str, indices: Sequence[int]) -> None:
        resolved = resolve_hook(model, hook)
        size = hook_size(model, resolved)
        super().__init__(model, resolved, resolved, indices, size, size, size)

    def encode(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        columns = moved(torch.tensor(self.indices), hook_activations.device)
        return at_least_float32(self.flatten(hook_activations)[..., columns])

    def directions(self) -> Float[Tensor, "feature d_out"]:
        unit = torch.zeros(len(self), self.d_out, device=device_of(self._model))
        unit[torch.arange(len(self)), list(self.indices)] = 1.0
        return unit

    def identity(self) -> dict[str, Any]:
        return {"kind": "neurons", "hook": self.read_hook, "size": self.n_features}


class Latents(Features):
    """Latents of a `sae_lens` SAE or transcoder of any architecture it registers."""

    def __init__(self, model: Model, sae: SAE[Any], indices: Sequence[int]) -> None:
        metadata = sae.cfg.metadata
        if metadata.hook_name is None:
            raise InputError("The SAE's metadata has no hook_name; set sae.cfg.metadata.hook_name to where it reads.")
        if sae.cfg.architecture() in ("batchtopk", "matryoshka_batchtopk"):
            raise InputError(
                f"The SAE is still in training form ({type(sae).__name__}): its activations depend on the batch. "
                "Save it with save_inference_model(path) and pass SAE.load_from_disk(path)."
            )
        read = resolve_hook(model, reads_at(sae))
        write = resolve_hook(model, str(metadata.hook_name_out)) if metadata.hook_name_out else read
        d_in, d_out = int(sae.cfg.d_in), int(getattr(sae.cfg, "d_out", sae.cfg.d_in))
        self._model, self._sae = model, sae
        self._columnwise = sae.cfg.architecture() in COLUMNWISE
        super().__init__(model, read, write, indices, int(sae.cfg.d_sae), d_in, d_out)
        head = metadata.hook_head_index
        self.head = None if head is None else int(head)
        if metadata.prepend_bos is not None:
            self.prepend_bos = bool(metadata.prepend_bos)
        widths = {hook: hook_size(model, hook, head=self.head) for hook in dict.fromkeys((read, write))}
        for hook, size, field in ((read, d_in, "d_in"), (write, d_out, "d_out")):
            check_width(model, hook, widths[hook], field, size)
        for message in (
            *(other_model(metadata.model_name, model_name(model))),
            *otherwise_loaded(metadata, model, read),
        ):
            tell_once(sae, message)
        if sae.cfg.normalize_activations in UNFOLDED:
            tell_once(sae, unfolded(sae, read))

    def _choose(self, indices: Sequence[int]) -> None:
        super()._choose(indices)
        self._columns = torch.tensor(self.indices, dtype=torch.long)
        vars(self).pop("encoder", None)

    @cached_property
    def encoder(self) -> SAE[Any]:
        """What encodes them, made when it is first asked for: what is steered by adding needs none."""
        every = len(self) == self.n_features and self.indices == tuple(range(self.n_features))
        columns = self._columns if self._columnwise and not every else None  # all as they stand need no copy
        return encoder_of(self._sae, columns, device_of(self._model))

    def encode(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        # A model spread over devices gives the hook's tensor on its layer's.
        activations = self.encoder.encode(self.flatten(hook_activations).to(self.encoder.device))
        if not self._columnwise:
            activations = activations[..., moved(self._columns, activations.device)]
        return at_least_float32(activations.detach())

    @property
    def sae(self) -> SAE[Any]:
        """The SAE or transcoder that they are of."""
        return self._sae

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.dtype

    def before_threshold(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        seen: list[Tensor] = []

        def see(_module: nn.Module, _given: Any, found: Tensor) -> None:
            seen.append(found)

        handle = self.encoder.hook_sae_acts_pre.register_forward_hook(see)
        activations = self.encode(hook_activations)
        handle.remove()
        if not seen:  # matching pursuit
            return activations
        columns = slice(None) if self._columnwise else self._columns.to(seen[0].device)
        found = seen[0].detach()[..., columns]
        if getattr(self._sae.cfg, "rescale_acts_by_decoder_norm", False):
            found = found * self._sae.W_dec.detach()[self._columns.to(self._sae.W_dec.device)].norm(dim=-1).to(found)
        return found

    @property
    def encoded_width(self) -> int:
        return len(self) if self._columnwise else self.n_features

    def directions(self) -> Float[Tensor, "feature d_out"]:
        return self._directions(self._columns)

    def _directions(self, latents: Tensor) -> Float[Tensor, "feature d_out"]:
        rows = self._sae.W_dec.detach()[latents.to(self._sae.W_dec.device)].float()
        if getattr(self._sae.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True)  # such an SAE folds the norm into its activations
        return rows.to(device_of(self._model))

    def decoder(self, some: slice) -> Float[Tensor, "some d_out"]:
        return self._sae.W_dec.detach()[some].float()

    def write_scale(self, hook_activations: HookTensor) -> Float[Tensor, "text pos 1"] | float:
        kind, x = self._sae.cfg.normalize_activations, self.flatten(hook_activations).float()
        if self._sae.cfg.architecture().endswith("transcoder"):
            return 1.0  # a transcoder's output is not mapped back: input and output differ
        if kind == "layer_norm":
            return x.std(dim=-1, keepdim=True)
        if kind == "constant_norm_rescale":
            return x.norm(dim=-1, keepdim=True) / self.d_in**0.5
        if kind == "constant_scalar_rescale":
            return 1.0 / float(self._sae.cfg.activation_normalization_factor)  # pyright: ignore[reportAttributeAccessIssue]
        return 1.0

    @property
    def sequential(self) -> bool:
        """Whether an activation depends on the positions before it, so that single positions cannot be encoded."""
        return self._sae.cfg.architecture() == "temporal"

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "sae",
            "hook": self.read_hook,
            "hook_out": self.write_hook,
            "head": self.head,
            "size": self.n_features,
            **sae_identity(self._sae),
        }


Source = SAE[Any] | str | Features
"""What features are of: an SAE, a hook by its name, or whatever encodes a hook's tensor as `Features` do."""


def features_of(model: Model, source: Source, indices: Sequence[int] | int | str, seed: int = 0) -> Features:
    """The features of an SAE object, of a hook by its name, or others of the source that some `Features` are of.

    Args:
        indices: of the features: numbers, or words such as "0:20,512" and "random:50".
        seed: of those drawn at random.

    Raises:
        InputError: unknown hook, an index out of range or given twice, an SAE that does not fit the model.
    """
    if isinstance(source, str):
        known = Neurons(model, source, [0])
    elif isinstance(source, SAE):
        known = Latents(model, source, [0])
    elif isinstance(source, Features):
        known = source
    else:
        raise InputError(f"Expected an SAE object or a hook name, got {type(source).__name__}: {source!r:.80}")
    return known.select(chosen_indices(indices, known.n_features, seed))


def every_feature(model: Model, source: Source) -> Features:
    """All features of an SAE or hook."""
    one = features_of(model, source, [0])
    return one.select(range(one.n_features))


def check_width(model: Model, hook: str, width: int, field: str, size: int) -> None:
    """Raise `InputError` where a field of an SAE's config is not the width of the hook that it is about."""
    if width != size:
        raise InputError(
            f"The SAE's {field} is {size}, but {hook!r} of {model_name(model)} is {width} wide: "
            "this SAE was made for another model or hook."
        )


def hook_size(model: Model, hook: str, head: int | None = None) -> int:
    """The flattened width of a hook's tensor at one position, seen by running two tokens.

    Raises:
        InputError: the hook's tensor is not `[text, pos, …]` (attention patterns), or the hook never fires.
    """
    tokens = torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad():
        try:
            shape = read_hooks(model, tokens, [hook])[hook].shape
        except KeyError:
            raise InputError(
                Argument("hook"), f" {hook!r} exists but did not fire: {model_name(model)} does not use it"
            ) from None
    if len(shape) < 3 or shape[:2] != (1, 2):
        raise InputError(
            Argument("hook"), f" {hook!r} gives {tuple(shape)} for one text of two tokens; features need [text, pos, …]"
        )
    if head is not None:
        if len(shape) < 4 or not 0 <= head < shape[2]:
            raise InputError(f"the SAE reads head {head}, but {hook!r} gives {tuple(shape)}")
        return int(shape[3])
    return int(torch.Size(shape[2:]).numel())


def encoder_of(sae: SAE[Any], columns: Tensor | None, device: torch.device) -> SAE[Any]:
    """A private copy of the SAE that encodes flattened activations, with only the given latents if `columns` is set.

    The copy shares its weights with the original where it does not slice them; hooks of the original never fire.
    """
    clone = copy.copy(sae)
    # A shallow copy of a module shares its registries: give the clone its own before changing anything.
    clone._parameters = dict(sae._parameters)
    clone._modules = {k: HookPoint() if isinstance(m, HookPoint) else m for k, m in sae._modules.items()}
    clone.device = device
    for name, axis in LATENT_PARAMETERS.items():
        parameter = sae._parameters.get(name)
        if parameter is not None and columns is not None:
            sliced = parameter.detach().index_select(axis, columns.to(parameter.device))
            clone._parameters[name] = nn.Parameter(sliced, requires_grad=False)
    for name, parameter in clone._parameters.items():
        if parameter is not None and parameter.device != device:
            clone._parameters[name] = nn.Parameter(parameter.detach().to(device), requires_grad=False)
    clone._modules = {
        name: module if module is None or isinstance(module, HookPoint) else copy.deepcopy(module).to(device)
        for name, module in clone._modules.items()
    }
    clone.turn_off_forward_pass_hook_z_reshaping()  # Features.flatten does it, for models that flatten by themselves too
    clone._setup_activation_normalization()  # its closures keep state: bind them to the clone
    return clone


def reads_at(sae: SAE[Any]) -> str:
    """The hook that an SAE reads: by its metadata, but for Gemma Scope 2's transcoders.

    Their files name the output of the norm before the MLP. SAELens calls it `hook_mlp_in`, as bridges did when it was written;
    TransformerLens has since given that name to the residual stream before the norm.
    """
    name, file_name = str(sae.cfg.metadata.hook_name), str(sae.cfg.metadata.hf_hook_name)
    if not (name.endswith(".hook_mlp_in") and file_name.endswith(".pre_feedforward_layernorm.output")):
        return name
    inside = name.removesuffix(".hook_mlp_in") + MLP_INPUT
    tell_once(
        sae, f"The SAE reads {file_name!r}, as its file says: that is {inside!r}, not {name!r} as SAELens has it."
    )
    return inside


def unfolded(sae: SAE[Any], hook: str) -> str:
    """What to do about an SAE whose input is to be normalized by a scale or whitening that is not in its weights."""
    fold = "sae.fold_activation_whitening(mean, whitening_matrix, unwhitening_matrix)"
    if sae.cfg.normalize_activations == "expected_average_only_in":
        fold = (
            "sae.fold_activation_norm_scaling_factor(sae.cfg.d_in ** 0.5 / norm), "
            f"norm being the mean norm of the activations that it was trained on at {hook!r}"
        )
    return (
        f"The SAE's normalize_activations is {sae.cfg.normalize_activations!r}, but SAELens applies that in training alone and "
        f"it was not folded into the weights, so that its activations are not those it was trained to give. First write {fold}."
    )


def tell_once(sae: SAE[Any], message: str) -> None:
    """Log a warning, once for an SAE however often it is used."""
    if message not in (told := _told.setdefault(sae, set())):
        told.add(message)
        logger.warning("%s", message)


_told: WeakKeyDictionary[SAE[Any], set[str]] = WeakKeyDictionary()
