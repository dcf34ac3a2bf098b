"""Which earlier tokens make a feature fire: what its later activations lose when one token is left out of the text, exactly.

The tokens before the one that is left out stay as they were, so that their keys and values are computed once a text and only the tokens behind it
run again: with m positions up to the last one that counts, m + m(m − 1)/2 in place of m(m − 1). Suffixes of all texts are batched by their length.
After Ma et al. (2025), whose "holistic" values also hold the token's own activation and divide by the text's length; these do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

from fade_lens._util.brief import Brief
from fade_lens._util.workers import HERE, Workers
from fade_lens.subject.activations import usual_tokens
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import HookTensor, Model, device_of, is_bridge, layer_of, read_hooks
from fade_lens.subject.tokens import TokenizedTexts

TEXTS_AT_ONCE = 16
"""Texts whose keys and values are kept at a time."""


@dataclass(frozen=True)
class Causes(Brief):
    """What each token of a text does to a feature's activations at the tokens behind it, in the activations' own units.

    Attributes:
        causes: for each token the sum, over the later tokens at which the feature fires, of activation less activation without that token:
            above 0 it makes the feature fire, below 0 it holds it back. NaN for special tokens, which are never left out.
        silences: the same over the later tokens at which it is silent: below 0 where the token keeps it from firing there.
            None unless asked for.
    """

    causes: Float[np.ndarray, "pos column"]
    silences: Float[np.ndarray, "pos column"] | None


@dataclass(frozen=True)
class Left:
    """A text with one token left out: the number of the text, the token's position, and the last position that is wanted."""

    text: int
    at: int
    last: int


def causes_of(
    model: Model,
    features: Features,
    tokens: TokenizedTexts,
    activations: Sequence[Float[np.ndarray, "_pos _column"]],
    columns: Sequence[Sequence[int]],
    *,
    silences: bool = False,
    cached: bool = True,
    batch_tokens: int | None = None,
    workers: Workers = HERE,
) -> list[Causes]:
    """Causes of a few texts.

    Args:
        tokens: the texts.
        activations: of each text at every position, NaN where one never counts (`fade_lens.subject.activations.token_activations`).
        columns: for each text the columns of `features` that its activations are of.
        silences: also what tokens do where the feature is silent, for which every text runs to its end.
        cached: keep keys and values; else whole texts run, as they always do through a bridge.
        batch_tokens: tokens a batch, padding included; None for what suits the device.
        workers: who runs the model.

    Returns:
        For each text a table of positions by columns.
    """
    held = model, features, batch_tokens or usual_tokens(model, tokens, workers=workers), silences, cached
    parts = (range(at, min(at + TEXTS_AT_ONCE, len(tokens))) for at in range(0, len(tokens), TEXTS_AT_ONCE))
    tasks = ((tokens.select(list(some)), activations[some.start : some.stop], columns[some.start : some.stop]) for some in parts)  # fmt: skip
    return list(workers.each(of_a_few, held, tasks))


def of_a_few(
    model: Model,
    features: Features,
    size: int,
    silences: bool,
    cached: bool,
    tokens: TokenizedTexts,
    activations: Sequence[Float[np.ndarray, "_pos _column"]],
    columns: Sequence[Sequence[int]],
) -> Iterator[Causes]:
    """The causes of texts that run together (see `causes_of`)."""
    usual = [np.nan_to_num(values) for values in activations]
    # An SAE whose activations are negative fires by their size.
    sign = [np.where(-values.min(axis=0, initial=0) > values.max(axis=0, initial=0), -1, 1) for values in usual]
    fires = [values * signs > 0 for values, signs in zip(usual, sign, strict=True)]
    known = [~np.isnan(values) for values in activations]
    sums = [np.full((2, *values.shape), np.nan) for values in usual]
    left: list[Left] = []
    for text in range(len(tokens)):
        wanted = known[text] if silences else fires[text]
        last = int(np.flatnonzero(wanted.any(axis=1)).max(initial=-1))
        plain = np.flatnonzero(~tokens.special_of(text))
        sums[text][:, plain] = 0
        left += [Left(text, at, last) for at in plain.tolist() if at < last]
    for one, values in without(model, features, tokens, left, size, cached=cached):
        behind = slice(one.at + 1, one.last + 1)
        change = (usual[one.text][behind] - values[:, columns[one.text]]) * sign[one.text]
        firing, counted = fires[one.text][behind], known[one.text][behind]
        sums[one.text][0, one.at] = np.where(firing, change, 0).sum(axis=0)
        sums[one.text][1, one.at] = np.where(counted & ~firing, change, 0).sum(axis=0)
    for both in sums:
        yield Causes(both[0], both[1] if silences else None)


def without(
    model: Model, features: Features, tokens: TokenizedTexts, left: Sequence[Left], size: int, *, cached: bool
) -> Iterator[tuple[Left, Float[np.ndarray, "_pos feature"]]]:
    """The activations of every feature at the tokens behind the one that is left out, up to the last that is wanted."""
    past = keys_and_values(model, features, tokens) if cached and left and keeps(model, features) else None
    for rows in batched(left, size, whole=past is None):
        run = [kept(tokens[one.text], one, whole=past is None) for one in rows]
        ids = torch.zeros((len(rows), max(map(len, run))), dtype=torch.int64)
        for row, text in enumerate(run):
            ids[row, : len(text)] = torch.from_numpy(text)
        with torch.no_grad():
            hidden: HookTensor = read(model, features, ids, None if past is None else before(past, rows))
            values = features.encode(hidden).float().cpu().numpy()
        for row, one in enumerate(rows):
            start = one.at if past is None else 0
            yield one, values[row, start : start + one.last - one.at]


def kept(text: Int[np.ndarray, " pos"], one: Left, *, whole: bool) -> Int[np.ndarray, " kept"]:
    """The tokens that run: those behind the one that is left out, and those before it where a whole text runs."""
    behind = text[one.at + 1 : one.last + 1]
    return np.concatenate([text[: one.at], behind]) if whole else behind


def batched(left: Sequence[Left], size: int, *, whole: bool) -> Iterator[list[Left]]:
    """Batches of at most `size` tokens, padding included, the longest first."""

    def length(one: Left) -> int:
        return one.last if whole else one.last - one.at

    waiting = sorted(left, key=length, reverse=True)
    while waiting:
        n = max(1, size // length(waiting[0]))
        yield waiting[:n]
        waiting = waiting[n:]


def keeps(model: Model, features: Features) -> bool:
    """Whether keys and values may be kept: a `HookedTransformer` whose positions are its own, features of single positions in a block."""
    if is_bridge(model) or getattr(features, "sequential", False) or layer_of(features.read_hook) is None:
        return False
    return model.cfg.positional_embedding_type != "shortformer" and getattr(model.cfg, "n_devices", 1) == 1


def keys_and_values(model: Model, features: Features, tokens: TokenizedTexts) -> TransformerLensKeyValueCache:
    """Those of some texts, padded on the right, in the blocks up to the features."""
    ids = torch.zeros((len(tokens), int(tokens.lengths.max())), dtype=torch.int64)
    for text, n in enumerate(tokens.lengths.tolist()):
        ids[text, :n] = torch.from_numpy(tokens[text])
    past = TransformerLensKeyValueCache.init_cache(model.cfg, device_of(model), len(tokens))
    with torch.no_grad():
        read(model, features, ids, past)
    return past


def before(past: TransformerLensKeyValueCache, rows: Sequence[Left]) -> TransformerLensKeyValueCache:
    """Keys and values of the tokens before the one that each row leaves out, on the right of their tensor, next to what follows."""
    longest = max(one.at for one in rows)
    device = past.previous_attention_mask.device
    at = torch.tensor([one.at for one in rows], device=device)[:, None]
    places = torch.arange(longest, device=device) - (longest - at)
    text = torch.tensor([one.text for one in rows], device=device)[:, None]

    def moved(of: Tensor) -> Tensor:
        return of[text, places.clamp(min=0)]

    entries = [
        TransformerLensKeyValueCacheEntry(moved(entry.past_keys), moved(entry.past_values))
        for entry in past.entries
        if entry.past_keys.shape[1]
    ]
    return TransformerLensKeyValueCache(entries, (places >= 0).int())


def read(
    model: Model, features: Features, ids: Int[Tensor, "row pos"], past: TransformerLensKeyValueCache | None
) -> HookTensor:
    """What the features are encoded from."""
    return read_hooks(model, ids, [features.read_hook], past)[features.read_hook]
