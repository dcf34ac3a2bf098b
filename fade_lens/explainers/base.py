"""What an explainer is, and how one is registered: a file with a subclass of `Explainer` under `@explainer("name")` is all that a new one takes.

An explainer is given the evidence of one feature and may ask a language model, and gives a description, or the reason why there is none. A run
gathers the evidence of all features at once, asks for all of them together, and keeps every answer before it is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.registry import Registered, Registry
from fade_lens._util.wording import one_line
from fade_lens._util.words import evenly
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, Provenance
from fade_lens.data.rules import Rule, rules_in_words
from fade_lens.evidence.roles import evidence_id, marks_of
from fade_lens.evidence.windows import Draw, Evidence, EvidenceSettings, Place, Window
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.asking import Questions
from fade_lens.llm.budget import Usage
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.summary import TopText

if TYPE_CHECKING:
    from fade_lens.subject.hooks import Model

REASONS = {
    "silent": "the feature never fires on the corpus",
    "too_few_texts": "the feature fires on too few texts",
    "nothing_common": "the explainer sees nothing that the texts share",
    "refused": "the explainer refuses",
    "unreadable": "the explainer's answers cannot be read",
    "cut": "the explainer's answers end before they say anything",
    "no_tokens": "what the feature makes the model say cannot be told",
    "no_direction": "the feature has no direction in the residual stream",
    "nothing_said": "the model says no more of the direction than of random ones",
    "inseparable": "no text tells the feature from those that it is to be told from",
    "overflow": "activations are not finite",
    "too_long": "the explainer's context has no room for the evidence",
    "failed": "requests about the feature get no answer",
}
"""Why a feature has no description, by the codes of `Reason`."""
KEPT = 8
"""Windows that are kept with an explanation, of those that the explainer was shown, for people to look at."""
LONGEST = 600
"""Characters of a description; what is longer is the explainer's reasoning and not a description."""


@dataclass(frozen=True)
class ExplainerSettings(EvidenceSettings):
    """What every explainer needs to know."""

    shown_windows: int | None = option(
        None,
        "Windows in which the feature fires that an explainer is shown; unless given, as its way of showing has it.",
        least=1,
    )
    least_texts: int = option(3, "Texts kept for showing on which a feature must fire to be explained.", least=1)


@dataclass(frozen=True)
class FeatureEvidence(Brief):
    """What an explainer is given of a feature.

    Attributes:
        index: the feature's index in its SAE or hook.
        active: windows in which it fires, strongest first.
        silent: windows in which it is silent; their `place.kind` says what they are like.
        scale: its largest activation on the texts kept for showing.
        n_firing: texts kept for showing on which it fires, of `n_texts`.
        promoted, suppressed: tokens that its direction makes likelier and less likely by itself, the strongest first; empty unless asked for.
        held: windows of other roles ("refine", "select") for an explainer that searches, those in which it fires and those in which it is silent.
        likelier, unlikelier: tokens that the model says more and less often where the feature is steered; empty unless asked for.
    """

    index: int
    active: tuple[Window, ...]
    silent: tuple[Window, ...] = ()
    scale: float = 1.0
    n_firing: int = 0
    n_texts: int = 0
    promoted: tuple[str, ...] = ()
    suppressed: tuple[str, ...] = ()
    held: Mapping[str, tuple[Window, ...]] = field(default_factory=dict[str, tuple[Window, ...]])
    likelier: tuple[str, ...] = ()
    unlikelier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation(Brief):
    """What an explainer made of a feature.

    Attributes:
        index: the feature's index.
        description: what it says; None where it says nothing.
        reason: why it says nothing; None where it does.
        shown: the windows that it was shown, each as the number of its text and the positions of its first and its last token (left out).
        windows: a few of these token by token, from the first to the last.
        dropped: rules that were more than asked for.
        search: how it was chosen, where it was among several: their number (`candidates`), and by its name each score that decided.
        provenance: who explained it, how and on what; also where there is no description.
        usage: what the answers cost that it rests on, in this run or before.
    """

    index: int
    description: Description | None = None
    reason: Reason | None = None
    shown: tuple[tuple[int, int, int], ...] = ()
    dropped: int = 0
    search: Mapping[str, float] = field(default_factory=dict[str, float])
    provenance: Provenance = field(default_factory=lambda: Provenance("explained"))
    usage: Usage | None = None
    windows: tuple[TopText, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(
        cls,
        evidence: FeatureEvidence,
        text: str = "",
        *,
        rules: Sequence[Rule] = (),
        reason: Reason | None = None,
        dropped: int = 0,
        shown: Sequence[Window] | None = None,
    ) -> "Explanation":
        """An explanation in words, or by rules with strengths, whose words are then made of them; or none, and why.

        Args:
            evidence: of the feature.
            text: the description.
            rules: texts with their strengths, 0 to 5.
            reason: why there is none, by a code of `REASONS`.
            dropped: further rules that were left out.
            shown: what of the evidence was shown, if not all.
        """
        windows = (*evidence.active, *evidence.silent) if shown is None else shown
        places = tuple((w.place.text, w.place.first, w.place.last) for w in windows)
        kept = tuple(window.seen for window in evenly(windows, KEPT))
        if reason is not None:
            return cls(evidence.index, None, reason, places, windows=kept)
        text = one_line(text) or rules_in_words(rules)
        description = Description(evidence.index, text, Provenance("explained", shown=places), tuple(rules))
        return cls(evidence.index, description, None, places, dropped, windows=kept)

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import explanation_card

        return explanation_card(self)


def concept_of(index: int) -> str:
    """What requests about a feature go by: its cost is counted under it."""
    return f"feature {index}"


class Explainer(Registered, ABC):
    """What every explainer is; an object of it lives for one run.

    Attributes:
        name: under which it is registered.
        version: of its prompts and of what it shows: it stands in the provenance of descriptions.
        asks: whether it asks a language model.
        reads_texts: whether it needs texts on which a feature fires: one that is silent is not explained then.
        contrasts: whether it can show a feature's windows beside those of given others (`against`).
        Settings: a frozen dataclass that inherits from `ExplainerSettings`, with its own settings beside those.
        against: the features that each is to be told from, where a run gives them.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    asks: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    contrasts: ClassVar[bool] = False
    Settings: ClassVar[type[ExplainerSettings]] = ExplainerSettings

    def __init__(self, settings: SubjectSettings, against: Mapping[int, Sequence[int]] | None = None) -> None:
        self.settings = self.Settings.of(settings)
        self.against = dict(against or {})

    def check_tokenizer(self, read: Callable[[], Any]) -> None:
        """Raise where the model's tokenizer, which `read` gives or None, tells that it cannot be used; called before weights are read if it can be."""

    def check(self, model: "Model") -> None:
        """Raise where it cannot be used on this model; called before anything is computed or asked."""

    @classmethod
    @abstractmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        """What the language model is asked at most, retries left out.

        Args:
            judge: who is asked; its `price_of` tells the price of tokens.
            settings: of the whole run.
            n_features: how many are explained.
        """

    @abstractmethod
    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        """Explain one feature.

        Args:
            evidence: what is shown of it.
            questions: `await questions.ask(request, read)` gives what `read` finds in the answer, or a `Reason`; `await
                questions.write(concept, n, seed=…)` gives texts; answers are kept. What a text does to the feature tells
                `Evidence.read_written`, of the evidence that `gather` was given.
        """

    @property
    def rules(self) -> int:
        """How many rules a description has at most, each of which scorers may ask about; 0: it is a text."""
        return 0

    def draws(self) -> tuple[Draw, ...]:
        """How the windows are drawn that are shown."""
        return (Draw(n=self.settings.shown_windows or 40),)

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        """What is shown of some features, all of whose texts are read in one run."""
        drawn = {i: [place for draw in self.draws() for place in evidence.drawn(i, "show", draw)] for i in indices}
        n_texts = len(evidence.texts("show"))
        return {
            index: FeatureEvidence(
                index,
                windows,
                scale=evidence.scale(index),
                n_firing=len(evidence.firing(index, "show")),
                n_texts=n_texts,
            )
            for index, windows in evidence.read(drawn).items()
        }


Class = TypeVar("Class", bound=type[Explainer])
REGISTRY: Registry[Explainer] = Registry("explainer", "fade_lens.explainers")


def explainer(name: str) -> Callable[[Class], Class]:
    """Register a class as an explainer under a name: `Fade.explain(..., explainer=name)`, `--explainer name`.

    Raises:
        InputError: the name is another explainer's, or that of a setting is taken.
    """

    def register(made: Class) -> Class:
        REGISTRY.add(name, made)
        made.name = name
        return made

    return register


def explainer_of(name: str) -> type[Explainer]:
    """The explainer of a name.

    Raises:
        InputError: none is registered under it, here or by an installed package.
    """
    return REGISTRY.find(name)


def completed(explanation: Explanation, made: type[Explainer], model: str, evidence: str, usage: Usage) -> Explanation:
    """An explanation with what the run knows of it: who made it, on what evidence, at what cost."""
    about = Provenance(
        "explained",
        explainer=model if made.asks else "",
        method=made.name,
        version=made.version,
        evidence=evidence,
        shown=explanation.shown,
        cost=usage.cost,
        candidates=int(n) if (n := explanation.search.get("candidates")) else None,
    )
    given = explanation.description
    description = None if given is None else Description(given.index, given.text, about, given.rules)
    return replace(explanation, description=description, provenance=about, usage=usage)


def shown_windows(evidence: Evidence, descriptions: Iterable[Description]) -> dict[Description, tuple[TopText, ...]]:
    """A few of the windows that the explainers of some descriptions were shown, read again, where they are of this corpus."""
    n = evidence.subject.tokens.lengths
    some = [d for d in descriptions if d.provenance.shown]
    same = evidence.id if some else ""
    places = {
        d: [Place(*at) for at in evenly(d.provenance.shown, KEPT) if 0 <= at[0] < len(n) and 0 <= at[1] < at[2] <= n[at[0]]]
        for d in some
        if d.provenance.evidence == same
    }  # fmt: skip
    if not places:
        return {}
    by_index: dict[int, list[Place]] = {}
    for d, found in places.items():
        by_index.setdefault(d.index, []).extend(found)
    read = {index: dict(zip(by_index[index], found, strict=True)) for index, found in evidence.read(by_index).items()}
    return {d: tuple(read[d.index][place].seen for place in found) for d, found in places.items()}


def check_evidence(descriptions: Iterable[Description], corpus: Corpus, seed: int) -> None:
    """Raise `InputError` for a description that was explained on this corpus with other roles: texts that it was made of would test it."""
    made = [d for d in descriptions if d.provenance.evidence]
    known = evidence_id(marks_of(corpus), seed).partition(":")[2] if made else ""
    for d in made:
        before, _, on = d.provenance.evidence.partition(":")
        if on == known and before != str(seed):
            raise InputError(
                f"feature {d.index} was explained on this corpus with seed {before}, which is {seed} now: texts that its explainer was "
                "shown would be among those that test it; give ",
                Argument("seed"),
                f" {before}, or explain it again",
            )
