"""`fires`: which latents fire on a text, and at which tokens."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from sae_lens import SAE

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens.subject.features import Features, Source, every_feature
from fade_lens.subject.hooks import HookTensor, Model, read_hooks
from fade_lens.subject.tokens import pieces, tokenize

logger = logging.getLogger(__name__)

COLUMNS = ["sae", "position", "token", "index", "activation"]
CHUNK_BYTES = 2**28
"""Activations of all latents in memory at a time."""


class Fires(pd.DataFrame):
    """A frame with one row for each token and latent that fires at it; in a notebook a shaded table of latents by tokens.

    What is made of it by pandas is a plain frame.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import fires_table

        return fires_table(self)


def fires(model: Model, saes: Source | Sequence[Source] | Mapping[str, Source], text: str, k: int | None = 20) -> Fires:
    """Which latents of one or several SAEs fire on a text, and at which tokens.

    Special tokens (BOS, EOS, padding, turn markers) never count, as everywhere. Tokens with massive activations do: which
    they are is told by a corpus, and here is none. There is no `ray`: one text is read at once.

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        saes: an SAE or transcoder of this model, or a hook name for neurons; or several in a list, or in a dict by names of your own.
        text: what the model reads, BOS in front where the SAE wants it.
        k: of each SAE the latents that fire most strongly anywhere in the text; None: all that fire.

    Returns:
        Columns sae, position (of the token, BOS being 0), token, index, activation; the strongest first.

    Raises:
        InputError: an empty text, no SAE, a `k` below 1, an SAE that does not fit the model, an unknown hook.
    """
    if k is not None and k < 1:
        raise InputError(Argument("k"), f" is {k}; give at least 1, or None for all latents that fire")
    named = by_name(saes)
    chosen = {name: every_feature(model, source) for name, source in named.items()}
    rows: list[dict[str, Any]] = []
    # SAEs that read the same tokens share one pass.
    for bos in dict.fromkeys(features.prepend_bos for features in chosen.values()):
        tokens = tokenize(model, [text], context=int(model.cfg.n_ctx), prepend_bos=bos)
        counted = ~tokens.special_of(0)
        if not counted.any():
            raise InputError(
                Argument("text"),
                f" is {text[:40]!r}, which holds no token that counts once special tokens are left out",
            )
        if tokens.n_truncated:
            logger.warning("text is longer than the model's context: only its first %d tokens are read", len(tokens[0]))
        some = {name: features for name, features in chosen.items() if features.prepend_bos == bos}
        read = read_hooks(model, torch.from_numpy(tokens[0])[None], [features.read_hook for features in some.values()])
        shown = pieces(model.tokenizer, tokens[0].tolist())
        for name, features in some.items():
            rows += rows_of(name, features, read[features.read_hook], counted, shown, k)
    rows.sort(key=lambda row: -abs(row["activation"]))
    return Fires(table_of(rows).reindex(columns=COLUMNS))


def by_name(saes: Source | Sequence[Source] | Mapping[str, Source]) -> dict[str, Source]:
    """SAEs and hooks by the names in the table: those given, else what they read, numbered where several read the same."""
    if isinstance(saes, Mapping):
        named = {str(name): source for name, source in saes.items()}
    else:
        given = [saes] if isinstance(saes, str | SAE | Features) else list(saes)
        places = [
            s if isinstance(s, str) else s.read_hook if isinstance(s, Features) else str(s.cfg.metadata.hook_name)
            for s in given
        ]
        named = {
            place if places.count(place) == 1 else f"{place} #{places[: at + 1].count(place)}": source
            for at, (place, source) in enumerate(zip(places, given, strict=True))
        }
    if not named:
        raise InputError("no SAE was given; give an SAE or a hook name, or several in a list or dict")
    return named


def rows_of(
    name: str,
    features: Features,
    hidden: HookTensor,
    counted: Bool[np.ndarray, " pos"],
    tokens: Sequence[str],
    k: int | None,
) -> Iterator[dict[str, Any]]:
    """The rows of one SAE."""
    positions, indices, values = firing(features, hidden, counted)
    finite = np.isfinite(values)
    if not finite.all():
        lost = len(set(positions[~finite].tolist()))
        logger.warning(
            "%s: activations at %d tokens are not finite and are left out; load model and SAE in bfloat16 or float32",
            name,
            lost,
        )
    peak = np.zeros(features.n_features, dtype=np.float32)
    np.maximum.at(peak, indices[finite], np.abs(values[finite]))
    strongest = set(np.argsort(-peak, kind="stable")[:k].tolist())
    for position, index, value in zip(
        positions[finite].tolist(), indices[finite].tolist(), values[finite].tolist(), strict=True
    ):
        if index in strongest:
            yield dict(zip(COLUMNS, (name, position, tokens[position], index, value), strict=True))


def firing(
    features: Features, hidden: HookTensor, counted: Bool[np.ndarray, " pos"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, index and activation wherever a feature is not zero at a position that counts; some positions at a time."""
    whole = getattr(features, "sequential", False)
    size = hidden.shape[1] if whole else max(1, CHUNK_BYTES // (4 * features.n_features))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, hidden.shape[1], size):
        with torch.no_grad():
            found = features.encode(hidden[:, start : start + size])[0].float().cpu().numpy()
        found[~counted[start : start + size]] = 0
        at, index = np.nonzero(found)
        parts.append((at + start, index, found[at, index]))
    positions, indices, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return positions, indices, values
