"""What is evaluated: a model, some of its features, and the natural texts that they are seen on."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.reasons import Reason
from fade_lens._util.workers import HERE, Workers
from fade_lens.data.corpus import Corpus
from fade_lens.subject.activations import (
    MaxActivations,
    OutlierRule,
    Progress,
    Ruled,
    max_activations,
    max_activations_of_each,
    reference_activation,
)
from fade_lens.subject.features import Source, features_of
from fade_lens.subject.given import Given, given_activations
from fade_lens.subject.hooks import Model, dtype_of, tokenizer_state
from fade_lens.subject.identity import model_identity
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.ties import Precision
from fade_lens.subject.tokens import TokenizedTexts, tokenize

logger = logging.getLogger(__name__)

LONGEST_CONTEXT = 128
LOST = 0.1
"""Share of a corpus' text behind the ends of contexts that is told."""


@dataclass(frozen=True)
class Read:
    """A corpus as one model's tokens, shared by all subjects that read it alike as long as one of them is there."""

    corpus: Corpus
    tokenizer: Any
    tokens: TokenizedTexts

    @classmethod
    def of(cls, model: Model, corpus: Corpus, context: int, prepend_bos: bool) -> "Read":
        """The tokens that are there, or new ones; it is told if much of the corpus is cut off."""
        tokenizer = model.tokenizer
        rules = tokenizer and tokenizer_state(tokenizer)
        key = id(corpus), id(tokenizer), str(rules), context, prepend_bos
        if (found := _READ.get(key)) is not None:
            return found
        tokens = tokenize(model, corpus, context=context, prepend_bos=prepend_bos)
        if tokens.lost >= LOST:
            logger.warning(
                "%d of the %d texts of %s are longer than the context of %d tokens, so %.0f %% of its text is not read; "
                "windows=True (--corpus-windows) cuts them into windows that are all read",
                tokens.n_truncated,
                len(tokens),
                corpus.source,
                context,
                100 * tokens.lost,
            )
        return _READ.setdefault(key, cls(corpus, tokenizer, tokens))


_READ: WeakValueDictionary[tuple[int, int, str, int, bool], Read] = WeakValueDictionary()
"""By corpus and tokenizer, which live as long as what was read, so that an id is never another's."""


class Subject:
    """Features of a model over a corpus: everything about them that needs no judge.

    Attributes:
        model: a `HookedSAETransformer`, `HookedTransformer` or bridge.
        source: the SAE or hook name that the features are of.
        features: the SAE latents or neurons, in the order of `indices`.
        tokens: the corpus as the model's tokens.
        outliers: the rule for positions that never count.
        workers: who runs the model over texts.

    `activations` are a user's own, in place of the pass over the corpus (see `fade_lens.subject.given`): a function or a mapping from a
    feature's index to its largest activation on every text.

    Raises:
        InputError: an unknown hook, an SAE that does not fit the model, an index out of range, an empty corpus.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        corpus: Corpus | Sequence[str],
        indices: Sequence[int] | int | str,
        settings: SubjectSettings | None = None,
        activations: Given | None = None,
    ) -> None:
        self.settings, self._given = settings or SubjectSettings(), activations
        self.model, self.source = model, source
        self.features = features_of(model, source, indices, self.settings.seed)
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
        self.context = self._context(source)
        self._read = Read.of(model, self.corpus, self.context, self.features.prepend_bos)
        self.tokens = self._read.tokens
        if self.tokens.special.all():
            raise InputError(f"{self.corpus.source} holds no token that counts once special tokens are left out")
        self._column = {index: column for column, index in enumerate(self.features.indices)}
        self._outliers: OutlierRule | None = None
        self._activations: MaxActivations | None = None
        self._precision: Precision | None = None
        self.workers: Workers = HERE
        self._whole: tuple[Subject, Int[np.ndarray, " text"]] | None = None
        """Of a part of a corpus: the subject over all of it, and which texts these are."""

    def among(self, texts: Int[np.ndarray, " text"]) -> "Subject":
        """The same features over some of the texts, by their numbers; what is known of the whole corpus is taken from there."""
        part = copy.copy(self)
        part.tokens = self.tokens.select(texts.tolist())
        part._whole, part._activations = (self, texts), None
        return part

    def of_features(self, indices: Sequence[int]) -> "Subject":
        """Other features of the same model and source over the same texts, not yet observed."""
        other = copy.copy(self)
        other.features = self.features.select(indices)
        other._column = {index: column for column, index in enumerate(other.features.indices)}
        other._activations = other._precision = other._given = None
        return other

    def _context(self, source: Source) -> int:
        """The context asked for, else the SAE's own up to 128 tokens; never more than the model's."""
        limit = int(self.model.cfg.n_ctx)
        if self.settings.context is not None:
            if self.settings.context > limit:
                raise InputError(
                    Argument("context"), f" is {self.settings.context}, but the model reads at most {limit} tokens"
                )
            return self.settings.context
        trained = source.cfg.metadata.context_size if isinstance(source, SAE) else None
        return min(limit, LONGEST_CONTEXT, int(trained or LONGEST_CONTEXT))

    @property
    def outliers(self) -> OutlierRule:
        """The rule for massive activations, fitted on the corpus at first use."""
        if self._whole is not None:
            return self._whole[0].outliers
        if self._outliers is None:
            factor = self.settings.outlier_factor
            self._outliers = OutlierRule.fit(self.model, self.features, self.tokens, factor=factor)
        return self._outliers

    @property
    def activations(self) -> MaxActivations:
        """The corpus' activations, computed in one pass at first use."""
        if self._activations is None and self._whole is not None:
            whole, texts = self._whole
            self._activations = whole.activations.among(texts)
        elif self._activations is None:
            self.observe()
        assert self._activations is not None
        return self._activations

    @property
    def is_observed(self) -> bool:
        """Whether the corpus' activations are there already."""
        return self._activations is not None

    def take(self, other: "Subject") -> None:
        """The activations of another subject over the same corpus, where it is observed and has all of these features."""
        if other.is_observed and set(self.features.indices) <= set(other.features.indices):
            self._activations = other.activations.of([other.column(index) for index in self.features.indices])

    def observe(self, stored: MaxActivations | None = None, progress: Progress | None = None) -> MaxActivations:
        """Run the pass over the corpus, or take the result that a store kept of it. Equal values are made one (see `fade_lens.subject.ties`)."""
        if stored is None and self._given is None:
            self.observe_each([self], progress)
            return self.activations
        return self._keep(stored or given_activations(self, cast(Given, self._given)), tie=stored is None)

    @staticmethod
    def observe_each(subjects: "Sequence[Subject]", progress: Progress | None = None) -> None:
        """Run the pass over the corpus for several subjects of one model: those that read the same tokens share it, up to the deepest hook.

        What each finds is what it would find alone. Those that are observed already, or have activations that were given, run nothing.

        Args:
            subjects: of any SAEs and hooks of the model.
            progress: called with the number of texts done after each few, in every pass.
        """
        passes: dict[int, list[Subject]] = {}
        for subject in subjects:
            if subject.is_observed:
                continue
            if subject._given is not None:
                subject.observe()
            else:
                passes.setdefault(id(subject.tokens), []).append(subject)
        for some in passes.values():
            model, tokens = some[0].model, some[0].tokens
            new = [one for one in some if one._whole is None and one._outliers is None]
            for factor in {one.settings.outlier_factor for one in new}:
                ruled = [one for one in new if one.settings.outlier_factor == factor]
                rules = OutlierRule.fit_each(model, [one.features for one in ruled], tokens, factor=factor)
                for one, rule in zip(ruled, rules, strict=True):
                    one._outliers = rule
            about: dict[str, Any] = {"progress": progress, "workers": some[0].workers}
            found = max_activations_of_each(model, [one._ruled for one in some], tokens, **about)
            new = [one for one in some if one._whole is None and one._precision is None and one._ties]
            for one, precision in zip(new, Precision.of_each(model, [one._ruled for one in new], tokens), strict=True):
                one._precision = precision
            for one, own in zip(some, found, strict=True):
                one._keep(own, tie=True)

    @property
    def _ruled(self) -> Ruled:
        return self.features, self.outliers

    @property
    def _ties(self) -> bool:
        return self.settings.arithmetic != "paper"

    def _keep(self, found: MaxActivations, *, tie: bool) -> MaxActivations:
        if tie and self.precision is not None:
            self.precision.tie(found.values)
        self._activations = found
        if found.n_overflowed:
            logger.warning("%s.", self._not_finite(found.n_overflowed, "natural texts"))
        return found

    @property
    def precision(self) -> Precision | None:
        """How exact activations are, told at first use; None in arithmetic "paper", which compares them digit by digit."""
        if self._whole is not None:
            return self._whole[0].precision
        if self._precision is None and self._ties:
            self._precision = Precision.of(self.model, self.features, self.tokens, self.outliers)
        return self._precision

    def overflow(self, index: int, written: int = 0) -> Reason | None:
        """Why no metric of a feature is defined, if it overflowed on natural texts, or on so many `written` ones; else None.

        Such texts are not like the others: they are those that excite the model most, often the concept's.
        """
        for n, kind in ((self.activations.overflowed(self.column(index)), "natural texts"), (written, "written texts")):
            if n:
                return Reason("overflow", self._not_finite(n, kind))
        return None

    def _not_finite(self, n: int, kind: str) -> str:
        dtypes = {dtype_of(self.model), self.features.dtype}
        narrow = min(dtypes, key=lambda dtype: torch.finfo(dtype).max)
        mend = (
            "load model and SAE in bfloat16 or float32"
            if narrow == torch.float16
            else "look for weights of model or SAE that are not finite"
        )
        return f"activations on {n} {kind} are not finite in {str(narrow).removeprefix('torch.')}: {mend}"

    def column(self, index: int) -> int:
        """Where a feature stands on every `feature` axis. Raises `InputError` for one that the subject does not have."""
        if index not in self._column:
            raise InputError(
                f"feature {index} is described, but not among the subject's indices; make the Subject with it"
            )
        return self._column[index]

    def natural(self, index: int) -> Float[np.ndarray, " text"]:
        """One feature's largest activation on every text of the corpus."""
        return self.activations.values[:, self.column(index)]

    def reference(self, index: int) -> float:
        """The unit of a feature's steering factors (NaN if it never fires)."""
        return reference_activation(self.natural(index), self.settings.reference_quantile)

    def read(self, texts: Sequence[str]) -> TokenizedTexts:
        """Other texts as the model's tokens, cut as the corpus is."""
        return tokenize(self.model, texts, context=self.context, prepend_bos=self.features.prepend_bos)

    def activate(self, texts: Sequence[str], progress: Progress | None = None) -> MaxActivations:
        """Other texts' largest activations, all features in one pass; those that equal a natural text's have its value."""
        about: dict[str, Any] = {"progress": progress, "workers": self.workers}
        found = max_activations(self.model, self.features, self.read(texts), self.outliers, **about)
        if self.precision is not None:
            self.precision.snap(found.values, self.activations.values)
        return found

    def identity(self) -> dict[str, Any]:
        """What decides this subject's numbers, beside the indices asked for."""
        return {
            "model": model_identity(self.model),
            "features": {**self.features.identity(), **({} if self._given is None else {"activations": "given"})},
            "corpus": {
                "source": self.corpus.source,
                "texts": len(self.tokens),
                "tokens": self.tokens.fingerprint,
                **({"documents": len(self.corpus)} if self.corpus.windows else {}),
            },
            "context": self.context,
            "prepend_bos": self.features.prepend_bos,
        }
