"""What a scorer is, and how one is registered: a file with a subclass of `Scorer` under `@scorer("name")` is all that a new one takes.

A scorer turns a subject, descriptions and a judge into `Metric`s with the evidence behind them. A run calls `ask` of every scorer, so that the
judge works on all of them at once, and then `measure` of each. Results, reports, comparisons and the command line read its `specs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.progress import Stages
from fade_lens._util.reasons import Flag, Reason
from fade_lens._util.registry import Registered, Registry
from fade_lens._util.words import number
from fade_lens.data.descriptions import Description
from fade_lens.generation.continuations import ContinuationStore
from fade_lens.judge import Estimate, Judge
from fade_lens.metrics.labelled import LabelledTexts
from fade_lens.metrics.metric import Metric
from fade_lens.subject.settings import SubjectSettings

if TYPE_CHECKING:
    from fade_lens.evidence.roles import Role
    from fade_lens.evidence.windows import Evidence
    from fade_lens.subject.subject import Subject

NOT_SCORED = Metric(None, Reason("not_scored", "not among the run's scores"))


@dataclass(frozen=True)
class ScoreSpec(Brief):
    """One score that a scorer gives, as tables and reports show it.

    Attributes:
        name: of its column in `Results.frame`: lower case, unique among all scorers.
        title: what people read.
        question: that it answers, in a sentence.
        range: its least and its largest value.
        chance: what a description that says nothing gets: a number, or the name of the detail of each `Metric` that holds it.
        needs: "judge", "steering": what it cannot be measured without.
        decides: whether a description holds or fails by it (see `fade_lens.scorers.standing`).
        gated: whether it is measured only where the scores that decide reach the gate; summaries also give its mean with 0 elsewhere.
        of_labels: the score as a function of labelled texts, which `fade_lens.analysis.sanity` tests; None where it has no labels.
    """

    name: str
    title: str
    question: str
    range: tuple[float, float] = (0.0, 1.0)
    chance: float | str = 0.0
    needs: tuple[str, ...] = ("judge",)
    decides: bool = False
    gated: bool = False
    of_labels: Callable[[LabelledTexts], float | None] | None = field(default=None, compare=False)

    def chance_of(self, metric: Metric) -> float | None:
        """The chance level of one metric; None where it is not known."""
        return metric.details.get(self.chance) if isinstance(self.chance, str) else self.chance


@dataclass(frozen=True)
class Decision(Brief):
    """One decision or prediction behind a score, as people look at it.

    Attributes:
        kind: of what was tested, such as "active", or that of a negative.
        texts: as they were read; `labels` has what each is where there are several, `signs` what stands around what is marked in them.
        right: whether it is right; None where there is no decision, or none that could be.
        said: what was decided, in a word.
        score: graded, where there is one.
        reason: why there is none.
        off: how far it is from the truth; of two that are equally right that is looked at first which is further.
        tokens, activations, predicted: of a prediction token by token; the activation is None where a position never counts.
    """

    kind: str
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    signs: tuple[str, str] | None = None
    right: bool | None = None
    said: str = ""
    score: float | None = None
    reason: str | None = None
    off: float = 0.0
    tokens: tuple[str, ...] = ()
    activations: tuple[float | None, ...] = ()
    predicted: tuple[float, ...] = ()


@dataclass(frozen=True)
class RuleScores(Brief):
    """What one rule of a description scores alone.

    Attributes:
        text: of the rule.
        strength: that it claims, 0 to 5.
        metrics: by the names of the scorer's specs.
    """

    text: str
    strength: int
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Basis:
    """What one score rests on: so many texts, what they are called, and the settings that buy more of them, between commas."""

    n: int
    texts: str
    settings: str


class Scored(Brief):
    """What the scores of one description rest on. A scorer's is a frozen dataclass of plain values with type hints, by which it is saved and loaded."""

    metrics: Mapping[str, Metric]
    """The scores by the names of the scorer's specs."""
    flags: tuple[Flag, ...] = ()
    """What a reader should know before trusting them."""
    rules: tuple[RuleScores, ...] = ()
    """What each rule scores alone, where the description is made of rules that were asked about one by one; those of strength 0 are not."""

    def columns(self) -> dict[str, Any]:
        """Further columns of `Results.frame`."""
        return {}

    def basis(self, name: str) -> Basis | None:  # noqa: ARG002
        """What a score rests on, where more of it would narrow the interval; a report then says about how many."""
        return None

    def decisions(self) -> Sequence[Decision]:
        """What people may look at behind the scores."""
        return ()

    def rated(self) -> list[tuple[str, int]]:
        """Texts that the judge rated, with their ratings: some are rated again where the judge's agreement is asked for."""
        return []


@dataclass(frozen=True)
class PlainScores(Scored):
    """Evidence of a scorer that keeps its scores and nothing else."""

    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Scoring:
    """One run, as its scorers see it.

    Attributes:
        subject: model, features and corpus.
        judge: who is asked.
        settings: of the whole run; a scorer takes its own with `Settings.of(settings)`.
        store: where continuations are kept; None: nowhere.
        stages: progress bars.
        evidence: windows of the features over the whole corpus, by role; to be drawn once the pass is there.
        role: whose texts the scores rest on: "test" where an explainer was used, None for all. `subject` has these texts alone.
        observe: makes sure of the pass over the corpus. What needs no activations is asked before it, so that the judge works meanwhile.
        first: of each text the first description of the run that has it; `ask` may be given some of the run's descriptions, and others later,
            of which another object of the scorer is asked.
        compared: features that the descriptions which `ask` is given are compared with; None: all of the subject.
    """

    subject: "Subject"
    judge: Judge
    settings: SubjectSettings
    store: ContinuationStore | None
    stages: Stages
    evidence: "Evidence"
    role: "Role | None"
    observe: Callable[[], None]
    first: Mapping[str, Description] = field(default_factory=dict[str, Description])
    compared: Sequence[int] | None = None

    def wait(self, name: str, futures: Iterable["Future[Any]"]) -> None:
        """Wait for the judge, the bar moving as answers come; the first error ends the run."""
        self.stages.wait(name, futures)

    def found(self, description: Description, metrics: Mapping[str, Metric]) -> None:
        """Show some scores of a description, by their names, while others are computed."""

        def told(metric: Metric) -> str:
            if metric.value is None:
                return "–"
            limits = "" if metric.interval is None else " ({} to {})".format(*map(number, metric.interval))
            return number(metric.value) + limits

        row = f"{description.index} {description.text}"
        self.stages.found(row, {name.replace("_", " "): told(metric) for name, metric in metrics.items()})


class Scorer(Registered, ABC):
    """What every scorer is; an object of it lives for one run, or for one block of descriptions of a large one.

    A run calls `ask`, then `measure`, from one thread. The judge never calls a scorer, with one exception: the function that `ask` gives to
    `Judge.submit_rounds` is called from the judge's thread with the ratings so far (see `fade_lens.judge.rounds`, which says what it must
    keep to). Whatever is neither writing nor rating is asked by `Judge.submit_ask`.

    Attributes:
        specs: the scores that it gives.
        Settings: a frozen dataclass that inherits from `SubjectSettings`, with its own settings beside those.
        Evidence: the class of what `measure` gives.
    """

    specs: ClassVar[tuple[ScoreSpec, ...]]
    Settings: ClassVar[type[SubjectSettings]] = SubjectSettings
    Evidence: ClassVar[type[Scored]] = PlainScores

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring

    @classmethod
    def asks_a_judge(cls, settings: SubjectSettings) -> bool:  # noqa: ARG003
        """Whether any of its scores needs one in a run of these settings."""
        return any("judge" in spec.needs for spec in cls.specs)

    @classmethod
    def check(cls, settings: SubjectSettings) -> None:
        """Raise where it cannot be used here, such as `MissingExtraError`; called before anything is computed or asked."""

    @classmethod
    @abstractmethod
    def estimate(
        cls, judge: Judge, settings: SubjectSettings, descriptions: Sequence[Description], n_texts: int
    ) -> Estimate:
        """What the judge is asked at most.

        Args:
            judge: who is asked; its `estimate` tells the price of texts written and rated.
            settings: of the whole run.
            descriptions: that are scored, null descriptions among them, as `ask` is given them.
            n_texts: how many natural texts there are at most.
        """

    @abstractmethod
    def ask(self, descriptions: Sequence[Description]) -> Any:
        """Begin to ask the judge, in the background; what this gives is handed to `measure`."""

    @abstractmethod
    def measure(self, asked: Any) -> Mapping[Description, Any]:
        """Wait for the answers and compute: the evidence of every description that `ask` was given."""


Class = TypeVar("Class", bound=type[Scorer])
REGISTRY: Registry[Scorer] = Registry("scorer", "fade_lens.scorers")


def scorer(name: str) -> Callable[[Class], Class]:
    """Register a class as a scorer under a name: `Fade.evaluate(..., scorers=("fade", name))`, `--scorers fade,name`.

    Raises:
        InputError: the name or the name of a score is another scorer's, or that of a setting is taken.
    """

    def register(made: Class) -> Class:
        others = {other: known for other, known in REGISTRY.items() if other != name}
        taken = {spec.name: other for other, known in others.items() for spec in known.specs}
        for spec in made.specs:
            if not spec.name.isidentifier() or not spec.name.islower():
                raise InputError(f"score {spec.name!r} of scorer {name!r}: give a name of small letters, digits and _")
            if spec.name in taken:
                raise InputError(
                    f"score {spec.name!r} of scorer {name!r} is already one of {taken[spec.name]!r}; call it otherwise"
                )
        REGISTRY.add(name, made)
        return made

    return register


def scorer_of(name: str) -> type[Scorer]:
    """The scorer of a name.

    Raises:
        InputError: none is registered under it, here or by an installed package.
    """
    return REGISTRY.find(name)


def scorers_of(names: Sequence[str]) -> dict[str, type[Scorer]]:
    """The scorers of several names. Raises `InputError` for an unknown one, or for none."""
    return REGISTRY.find_all(names, "('fade',)")


def specs_of(names: Iterable[str]) -> tuple[ScoreSpec, ...]:
    """The scores of some scorers, in their order."""
    return tuple(spec for name in dict.fromkeys(names) for spec in scorer_of(name).specs)
