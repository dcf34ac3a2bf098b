"""One pass over a corpus for all features of a run: per text the activation of largest magnitude, and where it is."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens._util.brief import Brief
from fade_lens._util.grid import Grid
from fade_lens._util.workers import HERE, Workers
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import HookTensor, Model, device_of, moved, read_hooks
from fade_lens.subject.memory import is_out_of_memory, make_room, piece_bytes, tokens_at_once
from fade_lens.subject.tokens import TokenizedTexts

logger = logging.getLogger(__name__)

Progress = Callable[[int], None]

WINDOW = 4096
"""Texts sorted by length together: enough to waste no padding, few enough that a file of results is written a part at a time."""
BATCHES = 16
"""Batches that a worker is given at a time: enough that sending them is nothing beside the model's work, few enough to do again."""


@dataclass(frozen=True)
class MaxActivations(Brief):
    """What a corpus (or any texts) did to some features.

    Attributes:
        values: per text and feature the activation of largest magnitude over the counted positions, signed, float32;
            NaN where a text has no counted position, or where it overflowed at one. Memory is feature-major: one feature's
            column is contiguous, and where all are too large for memory they lie in a file mapped into it.
        positions: where it stands in the text's tokens (BOS is 0); -1 where there is none.
        counted: positions of each text that count: neither special nor a massive-activation outlier.
        active: counted positions of all texts at which each feature is not zero; -1 where that is not known.
        n_outliers: positions left out because their residual norm is a massive-activation outlier.
        n_overflowed: texts of which some feature's activation is no finite number at a counted position.
    """

    values: Float[np.ndarray, "text feature"]
    positions: Int[np.ndarray, "text feature"]
    counted: Int[np.ndarray, " text"]
    active: Int[np.ndarray, " feature"]
    n_outliers: int
    n_overflowed: int = 0

    def overflowed(self, column: int) -> int:
        """On how many texts a feature's activation is not finite at a counted position, so that its largest one is not known."""
        return int((np.isnan(self.values[:, column]) & (self.counted > 0)).sum()) if self.n_overflowed else 0

    def among(self, texts: Int[np.ndarray, " text"]) -> "MaxActivations":
        """The same of some of the texts, by their numbers.

        `active` is known of all texts together only. It is scaled to the chosen ones' positions, so that the firing rate stays that of all.
        """
        shape, counted = (self.values.shape[1], len(texts)), self.counted[texts]
        values, positions = Grid(shape, np.float32), Grid(shape, np.int32)
        for column in range(shape[0]):
            values.rows[column], positions.rows[column] = self.values[texts, column], self.positions[texts, column]
        share = counted.sum() / max(1, self.counted.sum())
        active = np.where(self.active < 0, -1, np.rint(self.active * share)).astype(np.int64)
        lost = int((np.isnan(values.rows).any(axis=0) & (counted > 0)).sum()) if self.n_overflowed else 0
        return MaxActivations(values.rows.T, positions.rows.T, counted, active, self.n_outliers, lost)

    def of(self, columns: Sequence[int]) -> "MaxActivations":
        """Those of some of the features."""
        values, positions = (rows.T[list(columns)].T for rows in (self.values, self.positions))
        lost = int((np.isnan(values).any(axis=1) & (self.counted > 0)).sum()) if self.n_overflowed else 0
        return MaxActivations(values, positions, self.counted, self.active[list(columns)], self.n_outliers, lost)

    @property
    def firing_rate(self) -> Float[np.ndarray, " feature"]:
        """Share of the counted positions at which each feature is not zero."""
        return np.where(self.active < 0, np.nan, self.active / max(1, int(self.counted.sum())))


@dataclass(frozen=True)
class OutlierRule:
    """Positions whose residual-stream norm is above a limit never count.

    A few tokens (the first ones of a text, some delimiters) carry massive activations that excite many latents far
    beyond their normal range (Sun et al., 2024, "Massive Activations in Large Language Models"). The limit is one
    number for a run, `factor` × the median norm over a fixed part of its corpus, so a text's maximum never depends
    on the batch it was in.

    Attributes:
        limit: the largest norm that counts; inf switches the rule off.
        median: the median norm that it was made of; NaN if there is none.
    """

    limit: float
    median: float = float("nan")

    @classmethod
    def fit(
        cls, model: Model, features: Features, tokens: TokenizedTexts, *, factor: float, n_texts: int = 32
    ) -> "OutlierRule":
        """The rule for one model, hook and corpus: `factor` × the median norm over `n_texts` evenly spaced texts; inf: no rule."""
        return cls.fit_each(model, [features], tokens, factor=factor, n_texts=n_texts)[0]

    @classmethod
    def fit_each(
        cls, model: Model, every: Sequence[Features], tokens: TokenizedTexts, *, factor: float, n_texts: int = 32
    ) -> "list[OutlierRule]":
        """The rules for several hooks, from one run of the texts."""
        if not np.isfinite(factor):
            return [cls(float("inf"))] * len(every)
        norms: dict[str, list[Tensor]] = {features.residual_hook: [] for features in every}
        for batch in batches(spread(tokens, n_texts), 2048):
            for hook, residual in read_hooks(model, batch.ids, norms).items():
                norms[hook].append(norm(residual)[batch.counted.to(residual.device)].cpu())
        rules = {hook: cls._of(torch.cat(some) if some else torch.zeros(0), factor) for hook, some in norms.items()}
        return [rules[features.residual_hook] for features in every]

    @classmethod
    def _of(cls, norms: Tensor, factor: float) -> "OutlierRule":
        finite = norms[norms.isfinite()]
        median = float(finite.median()) if len(finite) else float("nan")
        return cls(factor * median if median > 0 else float("inf"), median)


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, padded on the right.

    Attributes:
        texts: their numbers in the input.
        ids: tokens, padded with 0.
        counted: which positions are real and not special.
    """

    texts: Int[np.ndarray, " text"]
    ids: Int[Tensor, "text pos"]
    counted: Bool[Tensor, "text pos"]

    def halves(self) -> "list[Batch]":
        """Its first and its second texts."""
        middle = len(self.texts) // 2
        return [Batch(self.texts[p], self.ids[p], self.counted[p]) for p in (slice(middle), slice(middle, None))]


def batches(tokens: TokenizedTexts, batch_tokens: int) -> Iterator[Batch]:
    """Batches of at most `batch_tokens` tokens (padding included), empty texts left out.

    Texts come a window of `WINDOW` texts after the other, in each the longest first.
    """
    lengths = tokens.lengths
    for chosen in batch_texts(lengths, batch_tokens):
        longest = int(lengths[chosen[0]])
        ids = np.zeros((len(chosen), longest), dtype=np.int64)
        counted = np.zeros((len(chosen), longest), dtype=bool)
        for row, text in enumerate(chosen.tolist()):
            ids[row, : lengths[text]] = tokens[text]
            counted[row, : lengths[text]] = ~tokens.special_of(text)
        yield Batch(chosen, torch.from_numpy(ids), torch.from_numpy(counted))


def batch_texts(lengths: Int[np.ndarray, " text"], batch_tokens: int) -> Iterator[Int[np.ndarray, " chosen"]]:
    """The numbers of the texts of each batch (see `batches`)."""
    for window in range(0, len(lengths), WINDOW):
        order = window + np.argsort(-lengths[window : window + WINDOW], kind="stable")
        order = order[lengths[order] > 0]
        start = 0
        while start < len(order):
            yield (chosen := order[start : start + max(1, batch_tokens // int(lengths[order[start]]))])
            start += len(chosen)


def shares(
    tokens: TokenizedTexts, batch_tokens: int, workers: Workers
) -> Iterator[tuple[TokenizedTexts, Int[np.ndarray, " text"]]]:
    """The texts, some batches at a time, and their numbers: the batches of each share are those of the whole, so that values are the same bits."""
    every = list(batch_texts(tokens.lengths, batch_tokens))
    most, start = max(1, min(BATCHES, ceil(len(every) / (4 * workers.size)))), 0
    while start < len(every):
        # Batches of two windows would be sorted anew.
        same = [one for one in every[start : start + most] if one[0] // WINDOW == every[start][0] // WINDOW]
        texts = np.concatenate(same)
        yield tokens.select(texts.tolist()), texts
        start += len(same)


Ruled = tuple[Features, OutlierRule]
"""Features, and the rule for positions that never count for them beside the special ones."""


def max_activations(
    model: Model,
    features: Features,
    tokens: TokenizedTexts,
    outliers: OutlierRule,
    *,
    batch_tokens: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    workers: Workers = HERE,
) -> MaxActivations:
    """The activation of largest magnitude of every feature on every text, in one pass, results in the input's order.

    Args:
        tokens: the texts.
        outliers: positions that never count beside the special ones.
        batch_tokens: tokens a batch, padding included; by default 2,048 on a CPU, 16,384 on an accelerator that has room for them.
        folder: where results too large for memory lie (see `Grid`).
        progress: called with the number of texts done after each few.
        workers: who runs the model.

    Raises:
        StoreError: results too large for memory, and no room for them in `folder`.
    """
    options: dict[str, Any] = {"batch_tokens": batch_tokens, "folder": folder, "progress": progress, "workers": workers}
    return max_activations_of_each(model, [(features, outliers)], tokens, **options)[0]


def max_activations_of_each(
    model: Model,
    every: Sequence[Ruled],
    tokens: TokenizedTexts,
    *,
    batch_tokens: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    workers: Workers = HERE,
) -> list[MaxActivations]:
    """The same for features of several SAEs or hooks: the texts go through the model once, up to the deepest hook.

    Values are those of a pass for each alone. In memory are the hooks' tensors of one batch, and one SAE's activations of a few texts.

    Args:
        every: features, each with its own rule.
        tokens, batch_tokens, folder, progress, workers: as in `max_activations`.

    Raises:
        StoreError: as in `max_activations`.
    """
    ends = [0, *accumulate(len(features) for features, _ in every)]
    mine = [slice(*pair) for pair in pairwise(ends)]
    values, positions = (Grid((ends[-1], len(tokens)), dtype, folder) for dtype in (np.float32, np.int32))
    empty = np.flatnonzero(tokens.lengths == 0)
    values.rows[:, empty], positions.rows[:, empty] = np.nan, -1
    counted = np.zeros((len(every), len(tokens)), dtype=np.int64)
    active, window = np.zeros(ends[-1], dtype=np.int64), 0
    n_outliers, n_overflowed = np.zeros((2, len(every)), dtype=np.int64)
    batch_tokens = batch_tokens or usual_tokens(model, tokens, every, workers)
    tasks = ((*share, batch_tokens) for share in shares(tokens, batch_tokens, workers))
    for part in workers.each(maxima, (model, tuple(every)), tasks):
        if part.texts[0] // WINDOW != window:
            window = part.texts[0] // WINDOW
            values.release()
            positions.release()
        rows, number = mine[part.number], part.number
        values.rows[rows, part.texts], positions.rows[rows, part.texts] = part.values, part.positions
        counted[number, part.texts] = part.counted
        active[rows] += part.active
        n_outliers[number] += part.n_outliers
        n_overflowed[number] += part.n_overflowed
        if progress is not None and number == len(every) - 1:
            progress(len(part.texts))
    return [
        MaxActivations(
            values.rows[rows].T, positions.rows[rows].T, counted[number], active[rows],
            int(n_outliers[number]), int(n_overflowed[number]),
        )
        for number, rows in enumerate(mine)
    ]  # fmt: skip


class Part(NamedTuple):
    """What a few texts did to some of the features: `number` tells which of `every`; the rest is as in `MaxActivations`."""

    number: int
    texts: Int[np.ndarray, " text"]
    values: Float[np.ndarray, "feature text"]
    positions: Int[np.ndarray, "feature text"]
    counted: Int[np.ndarray, " text"]
    active: Int[np.ndarray, " feature"]
    n_outliers: int
    n_overflowed: int


def maxima(
    model: Model, every: Sequence[Ruled], tokens: TokenizedTexts, texts: Int[np.ndarray, " text"], batch_tokens: int
) -> Iterator[Part]:
    """The largest activations on some texts, which `texts` are the numbers of, a few at a time.

    A batch's results are handed on when the next batch is under way, so that a GPU never waits for what is done with them.
    """
    before: list[Callable[[], Part]] = []
    for batch in hidden_states(model, every, tokens, batch_tokens):
        now = [
            part_of(number, texts[piece.texts], piece)
            for number, ((features, _), read) in enumerate(zip(every, batch, strict=True))
            for piece in pieces_of(model, features, read)
        ]
        yield from (there() for there in before)
        before = now
    yield from (there() for there in before)


def part_of(number: int, texts: Int[np.ndarray, " text"], piece: "Piece") -> Callable[[], Part]:
    """What a piece comes to: it is computed now and on its way to the CPU; the call waits until it is there."""
    magnitude = piece.activations.abs().masked_fill_(~piece.usable.unsqueeze(-1), -1.0)
    largest, at = magnitude.max(dim=1)  # [text, feature]
    top = piece.activations.gather(1, at.unsqueeze(1)).squeeze(1).float()
    overflowed = ~largest.isfinite()  # the maximum of NaN and numbers is NaN
    none = (largest < 0) | overflowed
    there = on_its_way(
        top.masked_fill_(none, float("nan")).T,
        at.masked_fill_(none, -1).T.to(torch.int32),
        piece.usable.sum(dim=1),
        (magnitude > 0).sum(dim=(0, 1)),
        piece.n_outliers,
        overflowed.any(dim=1).sum(),
    )

    def part() -> Part:
        values, positions, counted, active, n_outliers, n_overflowed = there()
        return Part(number, texts, values, positions, counted, active, int(n_outliers), int(n_overflowed))

    return part


def on_its_way(*tensors: Tensor) -> Callable[[], list[np.ndarray]]:
    """Tensors on one device, for the CPU: a GPU copies them when it has made them; the call waits for these alone, not for later work."""
    there = [tensor.to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    copied = torch.cuda.Event() if tensors[0].is_cuda else None
    if copied is not None:
        copied.record(torch.cuda.current_stream(tensors[0].device))

    def arrays() -> list[np.ndarray]:
        if copied is not None:
            copied.synchronize()
        return [tensor.numpy() for tensor in there]

    return arrays


def token_activations(
    model: Model,
    features: Features,
    tokens: TokenizedTexts,
    outliers: OutlierRule,
    *,
    columns: Sequence[Sequence[int]] | None = None,
    batch_tokens: int | None = None,
    workers: Workers = HERE,
) -> list[Float[np.ndarray, "pos column"]]:
    """Every position's activations for a few texts, float32, NaN where a position does not count or overflowed.

    Args:
        outliers: positions that never count beside the special ones.
        columns: for each text the columns of `features` that are wanted; all of them if None.
        batch_tokens: tokens a batch, padding included; None for what suits the device.
        workers: who runs the model.

    Returns:
        For each text a table of positions by columns.
    """
    found = [np.zeros((0, 0), dtype=np.float32)] * len(tokens)
    batch_tokens = batch_tokens or usual_tokens(model, tokens, [(features, outliers)], workers)
    tasks = (
        (some, texts, batch_tokens, None if columns is None else [columns[text] for text in texts])
        for some, texts in shares(tokens, batch_tokens, workers)
    )
    for text, table in workers.each(tables, (model, features, outliers), tasks):
        found[text] = table
    return found


def tables(
    model: Model,
    features: Features,
    outliers: OutlierRule,
    tokens: TokenizedTexts,
    texts: Int[np.ndarray, " text"],
    batch_tokens: int,
    columns: Sequence[Sequence[int]] | None,
) -> Iterator[tuple[int, Float[np.ndarray, "pos column"]]]:
    """Every position's activations on some texts, which `texts` are the numbers of (see `token_activations`)."""
    for piece in encoded(model, features, tokens, outliers, batch_tokens):
        shown = piece.activations.float()
        shown = shown.masked_fill(~piece.usable.unsqueeze(-1) | shown.isinf(), float("nan")).cpu().numpy()
        for row, text in enumerate(piece.texts.tolist()):
            wanted = shown[row, : tokens.lengths[text]]
            yield int(texts[text]), wanted.copy() if columns is None else wanted[:, list(columns[text])]


@dataclass(frozen=True)
class Piece:
    """Some texts of a batch, encoded.

    Attributes:
        texts: their numbers in the input.
        activations: of the features asked for; NaN or infinite where they overflowed.
        usable: which positions count: neither padding, nor special, nor outliers.
        n_outliers: positions that do not count only because they are outliers.
    """

    texts: Int[np.ndarray, " text"]
    activations: Float[Tensor, "text pos feature"]
    usable: Bool[Tensor, "text pos"]
    n_outliers: Int[Tensor, ""]


def encoded(
    model: Model, features: Features, tokens: TokenizedTexts, outliers: OutlierRule, batch_tokens: int | None
) -> Iterator[Piece]:
    """The corpus through the model, a batch at a time, and through the encoder, a few texts at a time."""
    for (read,) in hidden_states(model, [(features, outliers)], tokens, batch_tokens):
        yield from pieces_of(model, features, read)


def pieces_of(model: Model, features: Features, read: "Hidden") -> Iterator[Piece]:
    """A batch through the encoder, a few texts at a time.

    The model is fastest on large batches; many features of a large batch would be gigabytes, and on a CPU the encoder is
    faster on what its cache holds.
    """
    at_once = max(1, piece_bytes(device_of(model)) // (4 * features.encoded_width * read.usable.shape[1]))
    for start in range(0, len(read.texts), at_once):
        some = slice(start, start + at_once)
        with torch.no_grad():
            activations = features.encode(read.hidden[some])
        lost = moved(read.overflowed[some], activations.device).unsqueeze(-1)
        if (
            lost.device.type != "cpu" or lost.any()
        ):  # an encoder may make numbers of NaN; to look waits for an accelerator
            activations = activations.masked_fill(lost, float("nan"))
        usable = moved(read.usable[some], activations.device)
        yield Piece(read.texts[some], activations, usable, read.massive[some].sum().to(activations.device))


class Hidden(NamedTuple):
    """What the features of a batch's texts are encoded from, and which positions are what.

    Attributes:
        texts: their numbers in the input.
        hidden: the tensor at `read_hook`.
        usable: which positions count; `massive` would, were they not outliers; at `overflowed`, some of which count, `hidden` is not finite.
    """

    texts: Int[np.ndarray, " text"]
    hidden: HookTensor
    usable: Bool[Tensor, "text pos"]
    massive: Bool[Tensor, "text pos"]
    overflowed: Bool[Tensor, "text pos"]


def hidden_states(
    model: Model, every: Sequence[Ruled], tokens: TokenizedTexts, batch_tokens: int | None = None
) -> Iterator[list[Hidden]]:
    """The corpus through the model up to the deepest features, a batch at a time: for each features what they are encoded from.

    Where memory runs out, the batch is halved.
    """
    names = {f.read_hook for f, _ in every} | {f.residual_hook for f, rule in every if rule.limit < float("inf")}
    for whole in batches(tokens, batch_tokens or usual_tokens(model, tokens, every)):
        left = [whole]
        while left:
            batch = left.pop()
            try:
                with torch.no_grad():
                    cache = read_hooks(model, batch.ids, names)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(batch.texts) == 1:
                    raise
                logger.info("Out of memory with %d texts at a time; going on with half of them", len(batch.texts))
                left += batch.halves()[::-1]
            else:
                yield [_hidden(batch, cache, features, outliers) for features, outliers in every]
                continue
            make_room(device_of(model))  # once the error no longer holds what was computed


def _hidden(batch: Batch, cache: Mapping[str, Tensor], features: Features, outliers: OutlierRule) -> Hidden:
    hidden = cache[features.read_hook]
    counted = moved(batch.counted, hidden.device)
    overflowed = ~features.flatten(hidden).isfinite().all(dim=-1)
    massive = torch.zeros_like(counted)
    if outliers.limit < float("inf"):  # what is infinite by overflow is no outlier that could be left out
        massive = counted & ~overflowed & (norm(cache[features.residual_hook]) > outliers.limit).to(hidden.device)
    return Hidden(batch.texts, hidden, counted & ~massive, massive, overflowed)


def usual_tokens(model: Model, tokens: TokenizedTexts, every: Sequence["Ruled"] = (), workers: Workers = HERE) -> int:
    """Tokens a batch, padding included, that suit the device of the model, or that of the workers who run it."""
    kept = sum(features.d_in + int(model.cfg.d_model) for features, _ in every)
    return tokens_at_once(model, int(tokens.lengths.max(initial=1)), kept, workers.device)


def spread(tokens: TokenizedTexts, n: int) -> TokenizedTexts:
    """Up to `n` evenly spaced texts."""
    return tokens.select(np.unique(np.linspace(0, len(tokens) - 1, min(n, len(tokens))).astype(int)).tolist())


def norm(residual: Tensor) -> Float[Tensor, "text pos"]:
    """Norm of each position's activation vector, all axes after `pos` in one, in float32."""
    return residual.flatten(2).float().norm(dim=-1)


def fires(values: Float[np.ndarray, "text *feature"]) -> Bool[np.ndarray, "text *feature"]:
    """Whether a feature fires on each text: its largest activation there is a number other than 0.

    A feature that fires on no text of a corpus is *dead* on it.

    >>> fires(np.array([0.0, 2.0, -1.0, np.nan])).tolist()
    [False, True, True, False]
    """
    return np.isfinite(values) & (values != 0)


def reference_activation(values: Float[np.ndarray, " text"], quantile: float) -> float:
    """The unit of a feature's steering factors: a high quantile of |activation| over the texts on which it fires.

    A single outlier text moves it less than it moves the maximum.

    Args:
        values: the feature's largest activation on each text.
        quantile: from 0 to 1; 1 is the maximum.

    Returns:
        The unit, in the activations' own units; NaN for a dead feature.
    """
    firing = np.abs(values[fires(values)])
    return float(np.quantile(firing, quantile)) if len(firing) else float("nan")
