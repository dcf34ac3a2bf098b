"""The SAEs of a release: which of them are named, the model that they are of, and what opens each when its turn comes."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens.subject.features import Source
from fade_lens.subject.hooks import Model, device_of
from fade_lens.subject.loading import (
    Published,
    asked_of_model,
    check_published,
    load_model,
    load_sae,
    model_of,
    read_config,
    words_of,
)


def sources_of(
    saes: str | Mapping[str, Source],
    sae_ids: str | Sequence[str],
    model: Model | str | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    fails: Callable[[str, object], None],
) -> tuple[Model, dict[str, Callable[[], Source]]]:
    """The model, and what opens each SAE when its turn comes; an SAE whose config cannot be read `fails`.

    Raises:
        InputError: an unknown release, a pattern that matches nothing, SAEs of different models or that ask for differently loaded ones.
    """
    if isinstance(saes, str):
        return published(saes, names_in(saes, sae_ids), model, device, dtype, fails)
    if not saes:
        raise InputError(Argument("saes"), " holds no SAE; give at least one")
    if model is None or isinstance(model, str):
        raise InputError(Argument("model"), " must be given as an object with SAEs of your own; `fade_lens.load` gives both")  # fmt: skip
    same_model({name: sae.cfg.metadata.model_name for name, sae in saes.items() if isinstance(sae, SAE)})
    return model, {name: (lambda source=source: source) for name, source in saes.items()}


def names_in(release: str, sae_ids: str | Sequence[str]) -> list[str]:
    """The SAEs of a release that patterns name, in the release's order."""
    patterns = [sae_ids] if isinstance(sae_ids, str) else list(sae_ids)
    listed = get_pretrained_saes_directory().get(release)
    if listed is None:
        for name in patterns:
            check_published(release, name)
        if any(set(pattern) & set("*?[") for pattern in patterns):
            raise InputError(Argument("sae_ids"), f" is {patterns}: SAELens does not list what {release!r} holds; give the SAEs by name")  # fmt: skip
        return patterns
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in listed.saes_map):
            near = suggest(pattern, listed.saes_map) or f"; it has {', '.join(list(listed.saes_map)[:3])}, …"
            raise InputError(Argument("sae_ids"), f": {pattern!r} matches none of the {len(listed.saes_map)} SAEs of {release!r}{near}")  # fmt: skip
    return [name for name in listed.saes_map if any(fnmatchcase(name, pattern) for pattern in patterns)]


def published(
    release: str,
    names: Sequence[str],
    model: Model | str | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    fails: Callable[[str, object], None],
) -> tuple[Model, dict[str, Callable[[], Source]]]:
    """`sources_of` for SAEs of a release: their configs are read first, the model is loaded once."""
    configs = dict[str, Published]()
    why: object = ""
    for name in names:
        try:
            configs[name] = read_config(release, name)
        except InputError as error:
            why = error
            fails(name, error)
    if not configs:
        raise InputError(f"the config of none of {len(names)} SAEs of {release!r} can be read: {why}")
    first = next(iter(configs.values()))
    if model is None:
        same_model({name: model_of(config, release) for name, config in configs.items()})
    loaded_alike(configs)
    opened: Any = model
    if model is None or isinstance(model, str):
        opened = load_model(model or model_of(first, release), first, device=device, dtype=dtype)
    where = str(device_of(opened))
    return opened, {name: (lambda name=name: load_sae(release, name, device=where)) for name in configs}


def loaded_alike(configs: Mapping[str, Published]) -> None:
    """Raise `InputError` for SAEs that ask for a model that is loaded in different ways."""
    first = next(iter(configs))
    for name, config in configs.items():
        if asked_of_model(config) != asked_of_model(configs[first]):
            raise InputError(f"{first!r} and {name!r} ask for a model that is loaded in different ways; run them one after the other")  # fmt: skip


def same_model(named: Mapping[str, Any]) -> None:
    """Raise `InputError` for SAEs that name different models."""
    known = [(name, model) for name, model in named.items() if model]
    for name, model in known:
        if words_of(model) != words_of(known[0][1]):
            raise InputError(f"{known[0][0]!r} is an SAE of {known[0][1]!r}, {name!r} of {model!r}; give SAEs of one model at a time")  # fmt: skip
