"""Faithfulness: does steering the feature make the model write the concept?"""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.generation.checks import MODES, Mode
from fade_lens.generation.continuations import (
    FLUENCY_PROMPTS,
    OWN,
    UNSTEERED,
    ContinuationStore,
    Fluency,
    Steered,
    Texts,
)
from fade_lens.generation.controls import CONTROLS, check_controls, other_feature
from fade_lens.judge import Judge, Rating
from fade_lens.metrics.faithfulness import faithfulness, leading
from fade_lens.metrics.metric import GATE_NOT_PASSED, Metric
from fade_lens.scorers.evidence import Continuation, Control, FaithfulnessEvidence
from fade_lens.scorers.ratings import rating_values
from fade_lens.scorers.stopping import FIRST_PROMPTS, StoppingSettings, filled, next_prompts, widest

if TYPE_CHECKING:
    from fade_lens.subject.activations import Progress
    from fade_lens.subject.subject import Subject

Rated = Mapping[Steered, Sequence[Rating]]
"""The ratings of the first continuations of each set."""


@dataclass(frozen=True)
class FaithfulnessSettings(StoppingSettings):
    """How the feature is steered, and what that costs."""

    factors: tuple[float, ...] = option(
        (0.5, 1.0, 1.5, 2.0),
        """Steering factors, in units of the feature's reference activation. The baseline is the unsteered model; in another mode than "add"
        it is factor 0, such as a clamp to 0, where that is given.""",
        none="Faithfulness is not measured",
        switch="faithfulness",
    )
    """Measured on Gemma 3 270M and 29 latents of the demo's SAE whose concepts a rule can check (`tests/benchmarks/factors.py`): over all of
    them the concept shows in 4, 9, 11 and 12 % of continuations at these factors and in 13 % at 3, while the texts get 0.1, 0.9, 1.4, 1.9 and
    2.3 nats a token less likely than the model's own; from 2 nats on hardly one is a sentence. Single latents differ: those that show their
    concept in over a third of the texts do so best at 1 ("!"), 1.5 ("Mr.", spending), 2 (email addresses) or beyond 3 ("double"), and half of all never do."""

    mode: Mode = option(
        "add",
        "Steering: add the decoder direction, or clamp, scale or ablate the feature's activation.",
        choices=MODES,
    )
    controls: tuple[str, ...] = option(
        (),
        """Controls for steering, rated likewise: ablate the feature, steer along a random direction of equal length, or along that of an
        other feature. Each but ablate costs as many continuations as the feature's own.""",
        choices=CONTROLS,
    )
    max_nll_increase: float | None = option(
        None,
        "Nats a token that a factor's texts may be less likely to the unsteered model than its own and yet be the best.",
        none="no limit",
    )
    fluency_prompts: int = option(
        FLUENCY_PROMPTS,
        "Continuations of each factor whose likelihood is taken, to see whether the model breaks; 0: none.",
        least=0,
    )
    prompts: int = option(
        30,
        "Natural beginnings that are continued at every factor; how many of them are rated, `interval_width` tells.",
        least=1,
    )
    prompt_tokens: int | None = option(16, "Tokens of each beginning, BOS included.", least=1, none="whole texts")
    new_tokens: int = option(30, "Tokens of each continuation.", least=1)
    temperature: float = option(0.7, "Of the continuations; 0 is greedy.", least=0)

    def check(self) -> None:
        """Raise `InputError` for factors and controls that do not go together."""
        super().check()
        if self.controls and not self.factors:
            factors, controls = Argument("factors"), Argument("controls")
            raise InputError(
                controls,
                f" is {self.controls}, but there are no ",
                factors,
                " at which to steer them; give ",
                factors,
                " or no ",
                controls,
            )
        for factor in self.factors:
            if not math.isfinite(factor):
                raise InputError(Argument("factors"), f" holds {factor}; every factor must be a finite number")
        if len(set(self.factors)) < len(self.factors):
            raise InputError(Argument("factors"), f" {self.factors} holds a factor twice; give each once")
        if self.max_nll_increase is not None and not self.fluency_prompts:
            raise InputError(
                Argument("max_nll_increase", self.max_nll_increase),
                " needs the likelihood of some texts; give ",
                Argument("fluency_prompts"),
                " above 0",
            )

    @property
    def steered_factors(self) -> tuple[float, ...]:
        """The factors that change the model (0 in "add" mode leaves it unsteered and is generated once a run)."""
        return tuple(f for f in self.factors if f != 0) if self.mode == "add" else self.factors

    @property
    def steers(self) -> bool:
        """Whether there is a factor at which to steer; without one, Faithfulness is not measured."""
        return any(self.steered_factors)

    def control_factors(self, control: str) -> tuple[float, ...]:
        """The factors at which a control is steered: those of the feature, or one that stands for "ablated"."""
        return (1.0,) if control == "ablate" else tuple(f for f in self.steered_factors if f != 0)

    @property
    def steered_sets(self) -> int:
        """How often the prompts are continued for each feature, controls included, the unsteered model not."""
        return len(self.steered_factors) + sum(len(self.control_factors(control)) for control in self.controls)


@dataclass(frozen=True)
class Asked:
    """One description's continuations, controls among them, and the ratings of some: `order` tells the set that each is of.

    `order` grows from round to round, and is whole once `answer` is there.
    """

    texts: Mapping[Steered, Texts]
    order: Sequence[Steered]
    answer: Future[list[Rating]]


class FaithfulnessEvaluator:
    """The model continues natural beginnings, unsteered and steered at several strengths; the judge rates what it wrote.

    Args:
        subject: model, features and corpus.
        judge: who rates.
        settings: of the subject's run unless given.
        store: where continuations are kept; None: in this object.

    Raises:
        InputError: a control that these features cannot have, or prompts and continuations that exceed the model's context.
    """

    def __init__(
        self,
        subject: "Subject",
        judge: Judge,
        settings: FaithfulnessSettings | None = None,
        store: ContinuationStore | None = None,
    ) -> None:
        from fade_lens.generation.continuing import Continuer, natural_beginnings

        self.subject, self.judge = subject, judge
        chosen = self.settings = settings or FaithfulnessSettings.of(subject.settings)
        check_controls(subject.features, chosen.controls)
        drawn = (chosen.prompts, chosen.prompt_tokens, chosen.new_tokens, chosen.seed)
        self.prompts = natural_beginnings(subject.model, subject.tokens, *drawn) if chosen.steers else []
        self.continuer = Continuer(
            subject.model,
            subject.features,
            subject.reference,
            self.prompts,
            mode=chosen.mode,
            new_tokens=chosen.new_tokens,
            temperature=chosen.temperature,
            seed=chosen.seed,
            likelihoods=chosen.fluency_prompts,
            store=store,
            workers=subject.workers,
        )

    def _sets(self, index: int) -> list[Steered]:
        """What is rated for a description of a feature, its baseline first: the unsteered model, or factor 0 where that is asked for."""
        own = [Steered(index, factor) for factor in self.settings.steered_factors]
        baseline = Steered(index, 0.0) if Steered(index, 0.0) in own else UNSTEERED
        controls = [
            Steered(index, f, control)
            for control in self.settings.controls
            for f in self.settings.control_factors(control)
        ]
        return [baseline, *(steered for steered in own if steered != baseline), *controls]

    def steer(self, indices: Sequence[int], progress: "Progress | None" = None) -> None:
        """Write what is not there yet for these features, baseline and controls included, features and factors batched together.

        Args:
            indices: of the features.
            progress: called with the number of continuations that are done.
        """
        compared = [UNSTEERED] if self.settings.fluency_prompts else []  # for fluency, whatever the baseline
        self.continuer.write([*compared, *(steered for index in indices for steered in self._sets(index))], progress)

    def ask(self, description: Description) -> Asked:
        """Begin to have a description's continuations rated, in the background; `steer` has written them.

        Controls are rated in the same batches: nothing tells the judge which text is which.

        Raises:
            InputError: `steer` has not written them.
        """
        texts = {steered: self.continuer.texts(steered) for steered in self._sets(description.index)}
        barred, order = self._barred(description.index), list[Steered]()
        lost = self.continuer.overflow(texts)

        def following(ratings: list[Rating]) -> list[str]:
            if lost is not None:  # no answer could define the score
                return []
            chosen = self._next(description, by_set(texts, order, ratings), barred)
            order.extend(steered for steered, numbers in chosen.items() for _ in numbers)
            return [texts[steered][number] for steered, numbers in chosen.items() for number in numbers]

        seed = stream(self.settings.seed, "continuation order", description.words)
        return Asked(texts, order, self.judge.submit_rounds(description.text, following, seed=seed))

    def _next(self, description: Description, rated: Rated, barred: AbstractSet[float]) -> dict[Steered, range]:
        """The prompts whose continuations are rated next in each set, none where it is enough.

        First some at every factor; then the others at the best factor of each control and unsteered, until the interval is narrow enough.
        """
        settings, prompts = self.settings, len(self.prompts)
        baseline, *steered = rated
        n = len(rated[baseline])
        if n == prompts or len(_table(OWN, rated, barred)) == 1:  # everything is known, or can never be
            return {}
        metric = self._value(description, OWN, rated, barred) if n else None
        width = None if metric is None else widest(metric)
        # Requests are filled without the controls, which change nothing of what they are set against.
        sets = sum(s.control == OWN for s in rated)
        end = next_prompts(n, prompts, width, sets, self.judge.texts_per_request, settings)
        if not n:
            return dict.fromkeys(rated, range(end))
        best = {control: leading(_table(control, rated, barred)) for control in (OWN, *settings.controls)}
        pursued = [baseline, *(s for s in steered if s.factor == best[s.control])]
        return dict.fromkeys(pursued, range(n, end)) if end > n else {}

    def _value(self, description: Description, control: str, rated: Rated, barred: AbstractSet[float]) -> Metric:
        seed = stream(self.settings.seed, "faithfulness halves", description.words)
        return faithfulness(_table(control, rated, barred), arithmetic=self.settings.arithmetic, seed=seed)

    def _barred(self, index: int) -> set[float]:
        """The factors that are never the best, for they break the model."""
        limit = self.settings.max_nll_increase
        fluency = () if limit is None else self.fluency(index)
        return {f.factor for f in fluency if limit is not None and f.factor != 0 and not f.increase <= limit}

    def measure(self, description: Description, asked: Asked) -> FaithfulnessEvidence:
        """Faithfulness, once the judge has answered."""
        ratings = asked.answer.result()
        rated, barred = by_set(asked.texts, asked.order, ratings), self._barred(description.index)
        fluency = self.fluency(description.index)
        lost = self.continuer.overflow(asked.texts)

        def value(control: str) -> Metric:
            return self._value(description, control, rated, barred) if lost is None else Metric(None, lost)

        if lost is not None:
            metric = Metric(None, lost)
        elif barred and all(f.factor in barred or f.factor == 0 for f in fluency):
            metric = Metric(None, Reason("breaks_model", self._all_barred(fluency)))
        else:
            metric = self._with_details(value(OWN), _table(OWN, rated, barred), fluency)
        return FaithfulnessEvidence(
            metric,
            self._continuations(OWN, asked, rated),
            fluency,
            tuple(
                Control(
                    control,
                    value(control),
                    self._continuations(control, asked, rated),
                    self.other(description.index) if control == "other" else None,
                )
                for control in self.settings.controls
            ),
        )

    def _all_barred(self, fluency: Sequence[Fluency]) -> str:
        """Why no steering factor is within `max_nll_increase`."""
        limit = f"{self.settings.max_nll_increase:g} nats"
        if not (unknown := [f"{f.factor:g}" for f in fluency if math.isnan(f.increase)]):
            return f"every steering factor raises the texts' negative log-likelihood by over {limit}"
        from fade_lens.subject.hooks import dtype_of

        return (
            f"no steering factor is known to raise the texts' negative log-likelihood by at most {limit}: it is not finite in "
            f"{str(dtype_of(self.subject.model)).removeprefix('torch.')} (at factor {', '.join(unknown)}), so load the model in "
            "bfloat16 or float32, or leave max_nll_increase out"
        )

    def other(self, index: int) -> int:
        """The feature whose direction is the control "other" of a feature."""
        return other_feature(self.subject.features, index, self.settings.seed)

    def fluency(self, index: int) -> tuple[Fluency, ...]:
        """How likely a feature's continuations are to the unsteered model, by factor; `steer` has written them."""
        if not self.settings.fluency_prompts:
            return ()
        return self.continuer.fluency(index, self.settings.steered_factors)

    def _with_details(self, metric: Metric, ratings: Mapping[float, Any], fluency: Sequence[Fluency]) -> Metric:
        """The metric with the trend over the factors and the best factor's fluency among its details."""
        if metric.value is None:
            return metric
        from fade_lens.metrics.trend import dose_response

        details = dict(metric.details)
        details["nll_increase"] = next((f.increase for f in fluency if f.factor == details["factor"]), None)
        # Under "scale" the unsteered model is factor 1, not 0; "ablate" has no doses.
        doses = [f for f in sorted(ratings) if f != 0 or self.settings.mode != "scale"]
        if self.settings.mode != "ablate" and len(doses) > 1:
            common = min(len(ratings[f]) for f in doses)  # prompts that are rated at every dose
            trend = dose_response(np.array(doses), np.stack([ratings[f][:common] == 2 for f in doses]))
            details |= {"dose_response": trend.statistic, "dose_response_p": trend.p}
        return replace(metric, details=details)

    def _continuations(self, control: str, asked: Asked, rated: Rated) -> tuple[Continuation, ...]:
        """One control's continuations that were asked about, with prompts and ratings; the unsteered model's are the feature's own."""
        prompts = self.continuer.beginnings
        found: list[Continuation] = []
        for steered, ratings in rated.items():
            if steered.control == control:
                rows = zip_longest(ratings, self.continuer.likelihoods(steered)[: len(ratings)])
                for prompt, text, (rating, nll) in zip(prompts, asked.texts[steered], rows, strict=False):
                    found.append(
                        Continuation(steered.factor, prompt, text, rating.value, rating.score, rating.reason, nll)
                    )
        return tuple(found)

    def gate(self, description: Description, clarity: Metric, responsiveness: Metric) -> Metric | None:
        """None if Faithfulness is to be measured, else the undefined metric that says why it is not."""
        threshold = self.settings.gate
        if not self.settings.steers:
            return Metric(None, Reason("no_factors", "not measured: the run has no steering factors"))
        if (reason := self.subject.overflow(description.index)) is not None:
            return Metric(None, reason)
        if not np.isfinite(self.subject.reference(description.index)):
            return Metric(None, Reason("never_fires", "the feature never fires on the corpus, so steering has no unit"))
        if threshold is None:
            return None
        for name, metric in (("Clarity", clarity), ("Responsiveness", responsiveness)):
            if metric.value is None:
                return Metric(
                    None, Reason("gate_not_judged", f"gate not judged: {name} is undefined ({metric.reason})")
                )
            if metric.value < threshold:
                return Metric(
                    None, Reason(GATE_NOT_PASSED, f"gate not passed: {name} is {metric.value:.2f}, below {threshold:g}")
                )
        return None

    def evaluate(self, descriptions: Any) -> dict[Description, FaithfulnessEvidence]:
        """Faithfulness alone and without a gate, for a table of descriptions (see `read_descriptions`).

        Raises:
            InputError: no factor at which to steer, or descriptions that cannot be read.
        """
        chosen = read_descriptions(descriptions)
        if not self.settings.steers:
            raise InputError(
                Argument("factors"), f" is {self.settings.factors}; give a factor other than 0 at which to steer"
            )
        self.steer([d.index for d in chosen])
        asked = {d: self.ask(d) for d in chosen}
        return {d: self.measure(d, answer) for d, answer in asked.items()}


def by_set(sets: Iterable[Steered], order: Sequence[Steered], ratings: Sequence[Rating]) -> dict[Steered, list[Rating]]:
    """The ratings of each set of continuations, `order` telling which set each is of."""
    rated: dict[Steered, list[Rating]] = {steered: [] for steered in sets}
    for steered, rating in zip(order, ratings, strict=True):
        rated[steered].append(rating)
    return rated


def longest_rounds(settings: FaithfulnessSettings, batch: int) -> list[int]:
    """How many continuations are rated in each round for a description that takes as many rounds as one can.

    >>> longest_rounds(FaithfulnessSettings(), 15)
    [105, 14, 4]
    """
    baseline = 0.0 not in settings.steered_factors  # a set besides those that are steered
    own, sets = len(settings.steered_factors) + baseline, settings.steered_sets + baseline
    prompts = settings.prompts if settings.steers else 0
    if settings.interval_width is None:
        return [sets * prompts]
    first = min(filled(FIRST_PROMPTS, own, batch), prompts)
    step = filled(1, 2, batch)
    later = [min(step, prompts - n) for n in range(first, prompts, step)]
    return [first * sets, *((2 + len(settings.controls)) * n for n in later)]


def _table(control: str, rated: Rated, barred: AbstractSet[float]) -> dict[float, Any]:
    """A control's ratings by factor, as `metrics` takes them, the unsteered model's among them."""
    # An ablated feature has no factor; the one that stands for it is never barred.
    used = {
        s: ratings
        for s, ratings in rated.items()
        if s.factor == 0 or (s.control == control and (control == "ablate" or s.factor not in barred))
    }
    return {steered.factor: rating_values(ratings) for steered, ratings in used.items()}
