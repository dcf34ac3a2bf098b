"""At which tokens all latents of some SAEs fire: sparse, so that a hundred thousand latents fit into memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fade_lens._util.progress import Advance
from fade_lens.subject.activations import OutlierRule, hidden_states, pieces_of
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import Model
from fade_lens.subject.tokens import TokenizedTexts

if TYPE_CHECKING:
    from scipy.sparse import csc_array


def firing_tokens(
    model: Model, every: Sequence[Features], tokens: TokenizedTexts, *, batch_tokens: int | None = None, progress: Advance | None = None
) -> "list[csc_array]":  # fmt: skip
    """For each of some SAEs of a model where its latents fire (are numbers other than zero), the texts going through the model once.

    Args:
        every: of each SAE the latents.
        tokens: the texts.
        batch_tokens: tokens a batch, padding included; None for what suits the device.
        progress: called with the number of texts done after each few.

    Returns:
        Of each SAE a sparse table of ones, by the tokens that count, of all texts one after the other, and its latents.
    """
    from scipy.sparse import csc_array

    starts, number_of = np.concatenate([[0], np.cumsum(tokens.lengths)]), np.cumsum(~tokens.special) - 1
    rows, columns = ([list[np.ndarray]() for _ in every] for _ in range(2))
    ruled = [(features, OutlierRule(float("inf"))) for features in every]
    for batch in hidden_states(model, ruled, tokens, batch_tokens):
        for number, ((features, _), read) in enumerate(zip(ruled, batch, strict=True)):
            for piece in pieces_of(model, features, read):
                on = (piece.activations != 0) & piece.activations.isfinite() & piece.usable[..., None]
                text, position, latent = (found.cpu().numpy() for found in on.nonzero(as_tuple=True))
                rows[number].append(number_of[starts[piece.texts[text]] + position].astype(np.int32))
                columns[number].append(latent.astype(np.int32))
                if progress is not None and number == len(every) - 1:
                    progress(len(piece.texts))
    tables: list[csc_array] = []
    for features, at, latent in zip(every, rows, columns, strict=True):
        where = np.concatenate(at or [np.zeros(0, np.int32)]), np.concatenate(latent or [np.zeros(0, np.int32)])
        ones = np.ones(len(where[0]), dtype=np.int32)
        tables.append(csc_array((ones, where), shape=(int((~tokens.special).sum()), len(features))))
    return tables
