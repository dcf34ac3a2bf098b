"""Windows that a description should be told apart from: random ones, and hard ones of five further kinds. Never one kind for another."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.errors import InputError, suggest
from fade_lens._util.files import whole_file
from fade_lens._util.seeds import rng
from fade_lens.data.embedding import MODEL, check_embedding, embed
from fade_lens.evidence.roles import Role, digest
from fade_lens.evidence.windows import Evidence, Place

if TYPE_CHECKING:  # heavy: settings are read, and told to be wrong, before torch is there
    from fade_lens.subject.activations import Progress
    from fade_lens.subject.subject import Subject

KINDS = ("random", "random_silent", "similar", "similar_silent", "token_silent", "neighbour")
"""What the windows of each kind are, always one a document:

- `random`: of any text, those on which the feature fires included;
- `random_silent`: of texts on which it is silent;
- `similar`: nearest in meaning to windows in which it fires, whether it fires there or not;
- `similar_silent`: the same among texts on which it is silent;
- `token_silent`: with one of the tokens at which it fires most, in texts on which it is silent;
- `neighbour`: in which a latent near to it fires (see `neighbourhood`), in texts on which it is silent.
"""
SIMILAR = frozenset({"similar", "similar_silent"})
NEIGHBOURS = 5
"""Latents near to a feature whose windows are taken."""
RAREST = 0.001
"""Share of the texts on which a feature must fire to be a neighbour by co-firing."""
Order = Literal["nearest", "mean"]


SAMPLED = 1000
"""Values that a threshold is told by."""
EMBEDDED: dict[tuple[str, int, str], Float[np.ndarray, "window d"]] = {}
"""The windows that were embedded last, by corpus, size and model: explaining and scoring need the same."""


def check_kinds(kinds: Iterable[str]) -> None:
    """Raise `InputError` for an unknown kind, and `MissingExtraError` for one that needs embeddings where texts cannot be embedded."""
    for kind in (kinds := tuple(kinds)):
        if kind not in KINDS:
            raise InputError(
                f"negatives holds {kind!r}; give some of {', '.join(map(repr, KINDS))}{suggest(kind, KINDS)}"
            )
    if SIMILAR & set(kinds):
        check_embedding("Finding negatives that are similar in meaning")


def neighbourhood(evidence: Evidence, n: int = NEIGHBOURS) -> "tuple[Subject, dict[int, tuple[int, ...]]] | None":  # fmt: skip
    """The latents near to those of a subject, observed, as a subject over the same corpus, and which are near to which, nearest first.

    By the settings' `neighbours_by`: of the whole SAE, those with the nearest decoder directions (None for neurons, which have no directions
    that could be near); or among the features of the subject alone those that fire on the same texts, by lift over the texts to *show*.
    """
    from fade_lens.subject.neighbours import firing_together, nearest_directions

    subject = evidence.subject
    if evidence.settings.neighbours_by == "cofiring":
        values = subject.activations.values[evidence.texts("show")]
        near = firing_together(subject.features, values, n, RAREST)
    else:
        near = nearest_directions(subject.features, n)
    if not isinstance(near, list):
        return None
    found = {index: tuple(i for i, _ in some) for index, some in zip(subject.features.indices, near, strict=True)}
    others = tuple(dict.fromkeys(i for some in found.values() for i in some))
    if evidence.settings.neighbours_by == "cofiring":
        return subject, found
    evidence.observe(those := subject.of_features(others))
    return those, found


def negatives_of(evidence: Evidence, kinds: Iterable[str] = KINDS, progress: "Progress | None" = None) -> "Negatives":
    """The `Negatives` of some kinds, with the neighbours that they need, observed.

    Raises:
        InputError: an unknown kind.
        MissingExtraError: a kind that needs embeddings where the extra `similarity` is not installed.
    """
    check_kinds(kinds := tuple(kinds))
    near = neighbourhood(evidence) if "neighbour" in kinds else None
    return Negatives(evidence, neighbours=near, progress=progress)


def in_turn(drawn: Mapping[str, Sequence[Place]], n: int) -> list[Place]:
    """Up to `n` windows, one of each kind after the other."""
    return list(islice(filter(None, chain.from_iterable(zip_longest(*drawn.values()))), n))


def window_vectors(
    evidence: Evidence, model: str = MODEL, progress: "Progress | None" = None
) -> Float[np.ndarray, "window d"]:
    """An embedding of every window of the grid, made when first needed; beside a run's store it is kept for the next one."""
    key = evidence.subject.tokens.fingerprint, evidence.settings.window_tokens, model
    if key not in EMBEDDED:
        EMBEDDED.clear()
        store = evidence.store
        path = None if store is None else store.with_suffix(f".{digest(repr(key).encode()).hex()[:16]}.npy")
        found = None if path is None else kept_vectors(path, len(evidence.grid.text))
        if found is None:
            found = embed(list(evidence.words), model, progress=progress)
            if path is not None:
                keep_vectors(path, found)
        EMBEDDED[key] = found
    return EMBEDDED[key]


def kept_vectors(path: Path, n: int) -> Float[np.ndarray, "window d"] | None:
    """The embedding of `n` windows that a file holds; None where there is none that is whole."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == n and found.dtype == np.float32 else None


def keep_vectors(path: Path, vectors: Float[np.ndarray, "window d"]) -> None:
    """Write an embedding, all of it or nothing."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


class Negatives:
    """Negatives of a subject's features.

    Args:
        evidence: of the same features.
        vectors: an embedding of every window of `evidence.grid`, rows of length 1; unless given, they are made when first needed, once.
        neighbours: the latents near to them, observed, and which are near to which (`neighbourhood`); without them there are no
            windows of kind "neighbour".
        order: "nearest": the nearest window to each exemplar in turn; "mean": the nearest to all of them together.
        model: embeds the windows (see `fade_lens.data.embedding`).
        progress: told the number of windows that were embedded.
    """

    def __init__(
        self,
        evidence: Evidence,
        *,
        vectors: Float[np.ndarray, "window d"] | None = None,
        neighbours: "tuple[Subject, Mapping[int, Sequence[int]]] | None" = None,
        order: Order = "nearest",
        model: str = MODEL,
        progress: "Progress | None" = None,
    ) -> None:
        self.evidence, self.neighbours, self.order = evidence, neighbours, order
        self._given, self._model, self._progress = vectors, model, progress

    @cached_property
    def vectors(self) -> Float[np.ndarray, "window d"]:
        """An embedding of every window of the grid."""
        return window_vectors(self.evidence, self._model, self._progress) if self._given is None else self._given

    def draw(
        self,
        role: Role | None,
        n: int,
        kinds: Sequence[str] = KINDS,
        *,
        exemplars: Mapping[int, Sequence[Place]] | None = None,
        indices: Sequence[int] | None = None,
        purpose: str = "",
    ) -> dict[int, dict[str, list[Place]]]:
        """Up to `n` windows of each kind for each feature; where there are fewer of a kind there are fewer, and none stands in for them.

        Args:
            role: whose texts they are from.
            n: of each kind.
            kinds: see `KINDS`.
            exemplars: windows in which a feature fires, the strongest first, which "similar" and "token_silent" go by; by default 40 of
                the role *show*, drawn by strata, so that nothing is learned from the texts that are tested.
            indices: the features; by default all.
            purpose: a word that makes another draw of it.

        Returns:
            For each feature and kind places in a random order. `inclusion` is the probability with which a window was drawn, among those of
            its kind; 1 where the kind itself says which they are.
        """
        indices = self.evidence.subject.features.indices if indices is None else indices
        return {
            index: self.drawn(index, role, n, kinds, exemplars[index] if exemplars else None, purpose)
            for index in indices
        }

    def drawn(
        self,
        index: int,
        role: Role | None,
        n: int,
        kinds: Sequence[str] = KINDS,
        exemplars: Sequence[Place] | None = None,
        purpose: str = "",
    ) -> dict[str, list[Place]]:
        """`draw` of one feature."""
        check_kinds(set(kinds) - SIMILAR)
        evidence = self.evidence
        if exemplars is None and set(kinds) & {*SIMILAR, "token_silent"}:
            exemplars = evidence.drawn(index, None if role is None else "show", evidence.default)
        silent = evidence.silent(index, role)
        quiet = np.zeros(len(evidence.subject.tokens), dtype=bool)
        quiet[silent] = True
        own = {place.text for place in exemplars or ()}
        random = {kind: rng(evidence.settings.seed, "negatives", kind, purpose, index, role) for kind in kinds}
        found: dict[str, list[Place]] = {}
        likeness: _Likeness | None = None
        for kind in kinds:
            if kind in ("random", "random_silent"):
                texts = evidence.texts(role) if kind == "random" else silent
                texts = texts[~np.isin(texts, list(own))] if own and role in (None, "show") else texts
                places = self._random(texts, n, random[kind])
            elif kind == "token_silent":
                places = self._with_token(exemplars or (), quiet, n, random[kind])
            elif kind == "neighbour":
                places = self._of_neighbours(index, quiet, n)
            else:
                likeness = likeness or self._likeness(exemplars or (), role, own)
                places = self._nearest(likeness, quiet if kind == "similar_silent" else None, n)
            shuffled = random[kind].permutation(len(places)).tolist()
            found[kind] = [places[at]._replace(kind=kind) for at in shuffled]
        return found

    def _random(self, texts: Int[np.ndarray, " text"], n: int, random: np.random.Generator) -> list[Place]:
        """A window, drawn at random, of each of up to `n` texts of different documents."""
        texts = random.permutation(texts)
        if self._in_parts:
            texts = texts[np.sort(np.unique(self.evidence.subject.tokens.documents[texts], return_index=True)[1])]
        return self._windows(texts[:n], random, min(1.0, n / max(1, len(texts))))

    @cached_property
    def _in_parts(self) -> bool:
        """Whether documents have several texts."""
        documents = self.evidence.subject.tokens.documents
        return len(np.unique(documents)) < len(documents)

    def _windows(self, texts: Int[np.ndarray, " text"], random: np.random.Generator, inclusion: float) -> list[Place]:
        """A window, drawn at random, of each text; the probability is that of the text."""
        grid = self.evidence.grid
        at = grid.begin[texts] + (random.random(len(texts)) * grid.windows[texts]).astype(np.int64)
        spans = zip(texts.tolist(), grid.first[at].tolist(), grid.last[at].tolist(), strict=True)
        return [Place(text, first, last, inclusion) for text, first, last in spans]

    def _with_token(
        self, exemplars: Sequence[Place], quiet: Bool[np.ndarray, " text"], n: int, random: np.random.Generator
    ) -> list[Place]:
        """Windows of silent texts around a token that is at the peak of an exemplar, token by token in turn."""
        tokens = self.evidence.subject.tokens
        peaks = [int(tokens.ids[tokens.offsets[place.text] + place.peak]) for place in exemplars if place.peak >= 0]
        lists: list[Iterator[tuple[int, int]]] = []
        there = np.zeros_like(quiet)
        for token in dict.fromkeys(peaks):
            texts, positions = self.places_of(token)
            kept = np.flatnonzero(quiet[texts])
            there[texts[kept]] = True
            lists.append(at_random(texts, positions, kept, random, 4 * n))
        n_texts = int(there.sum())
        inclusion = min(1.0, n / max(1, n_texts))
        return [Place(text, *self.evidence.span(text, at, self.evidence.default), inclusion, peak=at) for text, at in self._in_turn(lists, n)]  # fmt: skip

    def places_of(self, token: int) -> tuple[Int[np.ndarray, " place"], Int[np.ndarray, " place"]]:
        """The texts and the positions at which a token stands that is not special there."""
        order, ids, text_of = self._inverted
        first, end = np.searchsorted(
            ids, np.array([token, token + 1], dtype=ids.dtype)
        )  # of another type all would be copied
        at = order[first:end]
        return text_of[at], at - self.evidence.subject.tokens.offsets[text_of[at]]

    @cached_property
    def _inverted(self) -> tuple[Int[np.ndarray, " own"], Int[np.ndarray, " own"], Int[np.ndarray, " token"]]:
        """The order by their ids of the corpus' tokens that are not special, the ids in that order, and the text of every token."""
        tokens = self.evidence.subject.tokens
        own = np.flatnonzero(~tokens.special)
        order = own[np.argsort(tokens.ids[own], kind="stable")]
        return order, tokens.ids[order], np.repeat(np.arange(len(tokens), dtype=np.int32), tokens.lengths)

    def _of_neighbours(self, index: int, quiet: Bool[np.ndarray, " text"], n: int) -> list[Place]:
        """The strongest windows of the nearest latents, where the feature is silent, latent by latent in turn."""
        if self.neighbours is None:
            return []
        subject, near = self.neighbours
        lists: list[Iterator[tuple[int, int]]] = []
        for other in near.get(index, ()):
            values = np.nan_to_num(subject.natural(other))
            floor = self.evidence.floor(other) if subject is self.evidence.subject else 0.0
            texts = np.flatnonzero((values > floor) & quiet)
            texts = texts[np.argsort(-values[texts], kind="stable")]
            lists.append(pairs(texts, subject.activations.positions[texts, subject.column(other)]))
        return [Place(text, *self.evidence.span(text, at, self.evidence.default), peak=at) for text, at in self._in_turn(lists, n)]  # fmt: skip

    def _in_turn(self, lists: Sequence[Iterator[tuple[int, int]]], n: int) -> list[tuple[int, int]]:
        """Up to `n` texts and positions, one of each list in turn, each document once."""
        documents = self.evidence.subject.tokens.documents
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        left = list(lists)
        while left and len(found) < n:
            for some in list(left):
                fresh = next((one for one in some if int(documents[one[0]]) not in seen), None)
                if fresh is None:
                    left.remove(some)
                elif len(found) < n:
                    seen.add(int(documents[fresh[0]]))
                    found.append(fresh)
        return found

    def _likeness(self, exemplars: Sequence[Place], role: Role | None, own: set[int]) -> "_Likeness":
        """The likeness of every window of a role to the exemplars; windows of the exemplars' own texts are left out."""
        rows, vectors, texts = self._of_role(role)
        shown = self.vectors[[self.evidence.grid.at(place.text, max(place.peak, place.first)) for place in exemplars]]
        if self.order == "mean" and len(shown):
            shown = shown.mean(axis=0, keepdims=True)
        found = shown @ vectors.T
        if own and role in (None, "show"):
            found[:, np.isin(texts, list(own))] = -np.inf
        return _Likeness(rows, texts, found)

    def _of_role(
        self, role: Role | None
    ) -> tuple[Int[np.ndarray, " window"], Float[np.ndarray, "window d"], Int[np.ndarray, " window"]]:
        """The windows of a role: their numbers, vectors and texts; kept for the next feature."""
        if self._kept is None or self._kept[0] != role:
            kept = np.zeros(len(self.evidence.subject.tokens), dtype=bool)
            kept[self.evidence.texts(role)] = True
            rows = np.flatnonzero(kept[self.evidence.grid.text])
            self._kept = role, (rows, self.vectors[rows], self.evidence.grid.text[rows])
        return self._kept[1]

    _kept: tuple[Role | None, tuple[Int[np.ndarray, " window"], Float[np.ndarray, "window d"], Int[np.ndarray, " window"]]] | None = None  # fmt: skip

    def _nearest(self, likeness: "_Likeness", quiet: Bool[np.ndarray, " text"] | None, n: int) -> list[Place]:
        """The windows most like the exemplars, exemplar by exemplar in turn, of silent texts where `quiet` tells them."""
        grid, found = self.evidence.grid, likeness.values
        allowed = np.arange(found.shape[1])
        if quiet is not None:
            allowed = np.flatnonzero(quiet[likeness.texts])
            found = found[:, allowed]
        most = n
        while True:  # further ones where the first are of the same documents
            best = [ranked(values, most) for values in found]
            lists = [pairs(likeness.texts[allowed[some]], likeness.rows[allowed[some]]) for some in best]
            chosen = self._in_turn(lists, n)
            if len(chosen) >= n or most >= len(allowed):
                return [Place(int(grid.text[w]), int(grid.first[w]), int(grid.last[w])) for _, w in chosen]
            most *= 4


def pairs(texts: Int[np.ndarray, " place"], where: Int[np.ndarray, " place"]) -> Iterator[tuple[int, int]]:
    """Texts and places in them one by one: of a long list only the beginning is needed."""
    return ((int(text), int(at)) for text, at in zip(texts, where, strict=True))


def at_random(
    texts: Int[np.ndarray, " place"],
    where: Int[np.ndarray, " place"],
    kept: Int[np.ndarray, " kept"],
    random: np.random.Generator,
    first: int,
) -> Iterator[tuple[int, int]]:
    """Places in a random order: of a long list `first` are drawn, the others only when these are used up."""
    some = random.choice(len(kept), min(first, len(kept)), replace=False)
    yield from pairs(texts[kept[some]], where[kept[some]])
    if len(some) < len(kept):
        left = random.permutation(np.setdiff1d(np.arange(len(kept)), some))
        yield from pairs(texts[kept[left]], where[kept[left]])


def ranked(values: Float[np.ndarray, " window"], n: int) -> Int[np.ndarray, " best"]:
    """Where the `n` largest finite values are, the largest first.

    A threshold told by some of the values leaves few to be sorted: 20 times as fast as a partition of 30,000, and as exact.
    """
    some = np.sort(values[:: max(1, len(values) // SAMPLED)])
    enough = 4 * n * len(some) // max(1, len(values)) + 4
    best = np.flatnonzero(values > some[-enough]) if enough < len(some) else np.arange(0)
    if len(best) < n:
        best = np.argpartition(values, len(values) - n)[-n:] if 0 < n < len(values) else np.arange(len(values))
    best = best[np.argsort(-values[best], kind="stable")][:n]
    return best[np.isfinite(values[best])]


class _Likeness:
    """How like each window is to each exemplar."""

    def __init__(self, rows: Int[np.ndarray, " window"], texts: Int[np.ndarray, " window"], values: Float[np.ndarray, "exemplar window"]) -> None:  # fmt: skip
        self.rows, self.texts, self.values = rows, texts, values
