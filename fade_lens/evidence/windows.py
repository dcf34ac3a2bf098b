"""Windows of texts: drawn by a feature's activation with known probabilities, and read token by token in one run of their texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.evidence.roles import ROLES, Role, evidence_id, leads, marks_of, roles_of
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.summary import TopText

if TYPE_CHECKING:  # heavy: settings are read, and told to be wrong, before torch is there
    from fade_lens.subject.subject import Subject
    from fade_lens.subject.tokens import TokenizedTexts

By = Literal["strata", "random", "top", "square"]
"""How windows are drawn among the texts on which a feature fires: the same number from strata of equal counts; uniformly; among the
strongest; in proportion to the square of the activation."""
NEAR_BY = ("decoder", "cofiring")
"""What neighbours go by; see `fade_lens.evidence.negatives.neighbourhood`."""
ACTIVE = "active"
"""The kind of a window in which the feature fires; other kinds are those of `fade_lens.evidence.negatives`."""
WRITTEN = "written"
"""The kind of a text that a judge wrote."""


@dataclass(frozen=True)
class EvidenceSettings(SubjectSettings):
    """What evidence is made of."""

    window_tokens: int = option(32, "Tokens of a window that is shown or tested.", least=2)
    centred: bool = option(False, "Windows centred on the peak, in place of a fixed grid.")
    neighbours_by: str = option("decoder", "Which latents are a feature's neighbours: those of the SAE whose decoder directions are nearest, or those described in the run that fire on the same texts more often than by chance.", choices=NEAR_BY)  # fmt: skip
    silent_quantile: float = option(
        0.9,
        "A neuron is silent on a text whose largest activation, in magnitude, is at most this quantile over the corpus; an SAE latent where it is 0.",
        above=0,
        most=1,
    )


class Place(NamedTuple):
    """A window that was drawn and not read yet.

    `first` to `last` (left out) are its positions in the text's tokens; `inclusion` is the probability with which it was drawn, among the
    texts of its role and kind; `stratum` counts from the strongest; `peak` is the position for which it was drawn, -1 without one.
    """

    text: int
    first: int
    last: int
    inclusion: float = 1.0
    stratum: int = 0
    kind: str = ACTIVE
    peak: int = -1


@dataclass(frozen=True)
class Grid:
    """All windows of a corpus on the fixed grid, text by text.

    Attributes:
        text: the number of each window's text.
        first, last: its positions in the text's tokens, `last` left out; the last window of a text is as long as the others.
        begin: where each text's windows begin; `windows` how many there are.
        lead: tokens that stand before each text's own.
        size: tokens of a window.
    """

    text: Int[np.ndarray, " window"]
    first: Int[np.ndarray, " window"]
    last: Int[np.ndarray, " window"]
    begin: Int[np.ndarray, " text"]
    windows: Int[np.ndarray, " text"]
    lead: Int[np.ndarray, " text"]
    size: int

    @classmethod
    def of(cls, tokens: "TokenizedTexts", size: int) -> "Grid":
        """The windows of `size` tokens of a corpus; an empty text has an empty one."""
        lead, lengths = leads(tokens), tokens.lengths
        windows = np.maximum(-(-(lengths - lead) // size), 1)
        begin = np.concatenate([[0], np.cumsum(windows)[:-1]]).astype(np.int64)
        text = np.repeat(np.arange(len(tokens)), windows)
        first = lead[text] + size * (np.arange(len(text)) - begin[text])
        first = np.maximum(np.minimum(first, lengths[text] - size), lead[text])
        return cls(text, first, np.minimum(first + size, lengths[text]), begin, windows, lead, size)

    def at(self, text: int, position: int) -> int:
        """The window of a text that holds a position of it."""
        return int(self.begin[text]) + (position - int(self.lead[text])) // self.size


@dataclass(frozen=True)
class Window(Brief):
    """A window token by token.

    Attributes:
        place: where it is and how it was drawn.
        tokens: what each token adds to the text: joined they are the window's text.
        ids: the tokens' ids.
        activations: of the feature; None where a position never counts (special tokens, massive activations).
    """

    place: Place
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    activations: tuple[float | None, ...]

    @classmethod
    def of(
        cls, place: Place, words: Sequence[str], ids: Int[np.ndarray, " pos"], values: Float[np.ndarray, " pos"]
    ) -> "Window":
        """The window at a place of a text, of which all tokens and activations are given; NaN where one does not count."""
        part = slice(place.first, place.last)
        activations = tuple(None if v != v else v for v in values[part].tolist())
        return cls(place, tuple(words[part]), tuple(ids[part].tolist()), activations)

    @property
    def text(self) -> str:
        """The words of the window."""
        return "".join(self.tokens)

    @property
    def seen(self) -> TopText:
        """It, as people look at it."""
        return TopText(self.place.text, self.largest, self.tokens, self.activations)

    @property
    def largest(self) -> float:
        """The largest activation in it; 0 where the feature is silent."""
        return max((a for a in self.activations if a is not None), default=0.0)

    def silent(self, floor: float) -> bool:
        """Whether it has positions that count, and no activation's magnitude is above the floor (see `Evidence.floor`)."""
        magnitudes = [abs(a) for a in self.activations if a is not None]
        return bool(magnitudes) and max(magnitudes) <= floor

    @property
    def peak(self) -> int:
        """Which of its tokens has the largest activation."""
        values = [-np.inf if a is None else a for a in self.activations]
        return int(np.argmax(values)) if values else 0


@dataclass(frozen=True)
class Draw:
    """How windows in which a feature fires are drawn.

    Attributes:
        n: how many at most.
        by: see `By`.
        strata: how many, for "strata".
        of: how many of the strongest "top" draws among; None: the `n` strongest.
        skip: how many of the strongest are left out.
        tokens: a window's length; None: that of the settings.
        centred: whether the peak stands in its middle; None: as the settings say.
        purpose: a word that makes another draw of it.
    """

    n: int = 40
    by: By = "strata"
    strata: int = 10
    of: int | None = None
    skip: int = 0
    tokens: int | None = None
    centred: bool | None = None
    purpose: str = ""


class Evidence:
    """Windows of a subject's features.

    What is kept of the corpus is its pass (`Subject.activations`): for every feature and text the largest activation and its position. A
    text has one window, that with its peak; texts that are drawn are read once more, token by token.

    Args:
        subject: model, features and corpus.
        settings: sizes of windows, and the seed.
        observe: runs the pass of another subject over the same corpus, or takes it from a store: that of neighbours.
        store: the file of the run's store, beside which embeddings of the windows are kept.
    """

    def __init__(
        self,
        subject: "Subject",
        settings: SubjectSettings | None = None,
        observe: "Callable[[Subject], object] | None" = None,
        store: Path | None = None,
    ) -> None:
        self.subject, self._observe, self.store = subject, observe, store
        self.settings = EvidenceSettings.of(settings or subject.settings)

    def observe(self, subject: "Subject") -> None:
        """Make sure of the pass of another subject over the same corpus."""
        if self._observe is None:
            subject.observe()
        else:
            self._observe(subject)

    @cached_property
    def role(self) -> Int[np.ndarray, " text"]:
        """The role of every text, as its place in `ROLES`."""
        return roles_of(self.subject.tokens, self.marks, self.settings.seed)

    @cached_property
    def marks(self) -> list[bytes]:
        """A hash of each document of the corpus."""
        return marks_of(self.subject.corpus)

    @property
    def id(self) -> str:
        """What the roles rest on: the seed, and a hash of the corpus' documents in any order."""
        return evidence_id(self.marks, self.settings.seed)

    def texts(self, role: Role | None) -> Int[np.ndarray, " text"]:
        """The numbers of the texts of a role; None: of all."""
        n = len(self.subject.tokens)
        return np.arange(n) if role is None else np.flatnonzero(self.role == ROLES.index(role))

    def floor(self, index: int) -> float:
        """The magnitude up to which a feature counts as silent: 0 for a latent."""
        if not self.subject.features.dense:
            return 0.0
        magnitude = np.abs(self.subject.natural(index))
        magnitude = magnitude[np.isfinite(magnitude)]
        return float(np.quantile(magnitude, self.settings.silent_quantile)) if len(magnitude) else 0.0

    def firing(self, index: int, role: Role | None) -> Int[np.ndarray, " text"]:
        """The texts of a role on which a feature fires, strongest first."""
        texts = self.texts(role)
        values = self.subject.natural(index)[texts]
        some = np.flatnonzero(values > self.floor(index))  # NaN compares False
        return texts[some[np.argsort(-values[some], kind="stable")]]

    def silent(self, index: int, role: Role | None) -> Int[np.ndarray, " text"]:
        """The texts of a role on which a feature is silent, and that have a token that counts."""
        texts = self.texts(role)
        return texts[np.abs(self.subject.natural(index)[texts]) <= self.floor(index)]

    def scale(self, index: int, role: Role | None = "show") -> float:
        """The largest activation on the texts of a role, which activations are divided by; NaN where there is none."""
        texts = self.firing(index, role)
        return float(self.subject.natural(index)[texts[0]]) if len(texts) else float("nan")

    def lacking(self, index: int, role: Role | None, least: int) -> Reason | None:
        """Why a feature has no evidence of a role; None where it has at least so many texts."""
        if (overflow := self.subject.overflow(index)) is not None:
            return overflow
        if not len(self.firing(index, None)):
            return Reason("silent", f"never fires on the {len(self.subject.tokens):,} texts of the corpus")
        if (n := len(self.firing(index, role))) < least:
            return Reason("too_few_texts", f"fires on {n} of the texts kept for {role or 'it'}, fewer than {least}")
        return None

    def active(self, role: Role | None, draw: Draw | None = None) -> dict[int, list[Place]]:
        """Windows in which each feature fires, strongest first: no more than there are, one a text, with their inclusion probabilities."""
        return {index: self.drawn(index, role, draw or Draw()) for index in self.subject.features.indices}

    def drawn(self, index: int, role: Role | None, draw: Draw) -> list[Place]:
        """`active` of one feature."""
        texts = self.firing(index, role)[draw.skip :]
        random = rng(self.settings.seed, "evidence", draw.purpose, index, role)
        values = self.subject.natural(index)[texts].astype(np.float64)
        chosen, inclusion, stratum = choose(values, draw, random)
        positions = self.peaks(index, texts[chosen])
        spans = [self.span(text, at, draw) for text, at in zip(texts[chosen].tolist(), positions.tolist(), strict=True)]
        rows = zip(texts[chosen].tolist(), spans, inclusion.tolist(), stratum.tolist(), positions.tolist(), strict=True)
        return [Place(text, *span, p, layer, peak=at) for text, span, p, layer, at in rows]

    def peaks(self, index: int, texts: Int[np.ndarray, " text"]) -> Int[np.ndarray, " text"]:
        """Where a feature's largest activation stands in some texts; these are run where the activations were given without positions."""
        from fade_lens.subject.activations import max_activations

        subject = self.subject
        found = subject.activations.positions[texts, subject.column(index)]
        if not (found < 0).any():
            return found
        some = subject.tokens.select(texts.tolist())
        return max_activations(subject.model, subject.features.select([index]), some, subject.outliers).positions[:, 0]

    def span(self, text: int, position: int, draw: Draw) -> tuple[int, int]:
        """The window of a text that holds a position: that of the grid, or centred on it; within the text, without its BOS."""
        size = draw.tokens or self.settings.window_tokens
        end, lead = int(self.subject.tokens.lengths[text]), int(self.grid.lead[text])
        centred = self.settings.centred if draw.centred is None else draw.centred
        first = position - size // 2 if centred else lead + (position - lead) // size * size
        first = max(min(first, end - size), lead)  # the last window of a text is as long as the others
        return first, min(first + size, end)

    @cached_property
    def grid(self) -> Grid:
        """All windows of the corpus."""
        return Grid.of(self.subject.tokens, self.settings.window_tokens)

    @property
    def words(self) -> Iterator[str]:
        """The text of every window of the grid."""
        from fade_lens.subject.tokens import decode

        tokens, grid, tokenizer = self.subject.tokens, self.grid, self.subject.model.tokenizer
        for text, first, last in zip(grid.text.tolist(), grid.first.tolist(), grid.last.tolist(), strict=True):
            yield decode(tokenizer, tokens[text][first:last].tolist())

    default = Draw()
    """How exemplars are drawn."""

    def read(self, places: Mapping[int, Sequence[Place]]) -> dict[int, tuple[Window, ...]]:
        """The windows of some features token by token; every text is run once for all of them."""
        subject, columns = self.subject, dict[int, list[int]]()
        for index, some in places.items():
            for place in some:
                columns.setdefault(place.text, []).append(subject.column(index))
        numbers = sorted(columns)
        wanted = [list(dict.fromkeys(columns[number])) for number in numbers]
        some = subject.tokens.select(numbers)
        from fade_lens.subject.activations import token_activations
        from fade_lens.subject.tokens import pieces

        rows = token_activations(
            subject.model, subject.features, some, subject.outliers, columns=wanted, workers=subject.workers
        )
        words = {number: pieces(subject.model.tokenizer, subject.tokens[number].tolist()) for number in numbers}
        by_text = dict(zip(numbers, zip(wanted, rows, strict=True), strict=True))

        def window(index: int, place: Place) -> Window:
            kept, row = by_text[place.text]
            values = row[:, kept.index(subject.column(index))]
            return Window.of(place, words[place.text], subject.tokens[place.text], values)

        return {index: tuple(window(index, place) for place in some) for index, some in places.items()}

    def read_written(self, index: int, texts: Sequence[str]) -> tuple[Window, ...]:
        """Texts that are not of the corpus, such as those that a judge writes, token by token; each is one window, of the kind "written".

        It runs the model: not from two threads at once, and from within `Explainer.explain` by `asyncio.to_thread`.
        """
        from fade_lens.subject.activations import token_activations
        from fade_lens.subject.tokens import pieces

        subject, read = self.subject, self.subject.read(texts)
        rows = token_activations(subject.model, subject.features.select([index]), read, subject.outliers)
        places = [Place(-1, lead, end, kind=WRITTEN) for lead, end in zip(leads(read).tolist(), read.lengths.tolist(), strict=True)]  # fmt: skip
        words = [pieces(subject.model.tokenizer, read[at].tolist()) for at in range(len(read))]
        return tuple(Window.of(place, words[at], read[at], rows[at][:, 0]) for at, place in enumerate(places))


def choose(
    values: Float[np.ndarray, " text"], draw: Draw, random: np.random.Generator
) -> tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, " chosen"], Int[np.ndarray, " chosen"]]:
    """Which of some texts, given strongest first, are drawn; with what probability each was, and the stratum of each.

    In proportion to the square, probabilities are exact (systematic sampling along a random order).
    """
    n = min(draw.n, len(values))
    stratum = np.zeros(len(values), dtype=np.int64)
    if draw.by == "top":
        among, probability = max(n, min(draw.of or n, len(values))), np.zeros(len(values))
        probability[:among] = n / max(among, 1)
        chosen = random.choice(among, n, replace=False) if among else np.zeros(0, dtype=np.int64)
    elif draw.by == "square":
        probability = shares(values**2, n)
        order = random.permutation(len(values))
        ends = random.random() + np.concatenate([[0.0], np.cumsum(probability[order])])
        chosen = order[np.flatnonzero(np.diff(np.floor(ends + 1e-9)))]
    else:
        strata = max(1, min(draw.strata, n)) if draw.by == "strata" else 1
        edges = np.linspace(0, len(values), strata + 1).round().astype(np.int64)
        stratum = np.repeat(np.arange(strata), np.diff(edges))
        quota = np.diff(np.linspace(0, n, strata + 1).round().astype(np.int64))
        quota = np.minimum(quota, np.diff(edges))
        for _ in range(n - int(quota.sum())):  # rounding leaves room in a stratum
            quota[np.argmax(np.diff(edges) - quota)] += 1
        parts = [edges[k] + random.choice(int(edges[k + 1] - edges[k]), int(quota[k]), replace=False) for k in range(strata) if quota[k]]  # fmt: skip
        chosen = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        probability = np.repeat(quota / np.maximum(np.diff(edges), 1), np.diff(edges))
    chosen = np.sort(chosen.astype(np.int64))
    return chosen, probability[chosen], stratum[chosen]


def shares(sizes: Float[np.ndarray, " text"], n: int) -> Float[np.ndarray, " text"]:
    """Inclusion probabilities in proportion to `sizes`, none above 1, that sum to `n`."""
    probability, free = np.zeros(len(sizes)), sizes > 0
    sure = np.zeros(len(sizes), dtype=bool)
    while free.any() and n > sure.sum():
        probability[free] = (n - sure.sum()) * sizes[free] / sizes[free].sum()
        if not (over := free & (probability >= 1)).any():
            break
        sure |= over
        free &= ~over
    probability[sure] = 1.0
    return probability
