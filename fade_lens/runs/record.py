"""How a run was made: what it scored, with what, by whom, and what that cost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fade_lens._util.brief import Brief
from fade_lens.judge.reliability import Agreement, GoldReport
from fade_lens.llm.budget import Usage
from fade_lens.metrics.metric import GATE
from fade_lens.subject.health import SaeHealth

L0_IN_NAME = re.compile(r"l0[-_](\d+(?:\.\d+)?)", re.IGNORECASE)
"""How names of SAEs tell their L0."""
Facts = Mapping[str, Any]
"""Facts by name that no code here reads."""


@dataclass(frozen=True)
class ModelRecord(Brief):
    """The subject model: its name, and what decides its numbers (sizes, a hash of its weights, settings)."""

    name: str = ""
    identity: Facts = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class FeaturesRecord(Brief):
    """The SAE, or the hook whose neurons are scored.

    Attributes:
        kind: "sae" or "neurons".
        hook: where activations are read.
        size: how many features the SAE or hook has.
        architecture: of the SAE.
        weights: a hash of the SAE's weights.
        release, sae_id, neuronpedia_id: what the SAE is called, where that is known.
        l0: mean number of active latents that SAELens lists for it.
        identity: everything else that decides its numbers.
    """

    kind: str = ""
    hook: str = ""
    size: int | None = None
    architecture: str = ""
    weights: str = ""
    release: str = ""
    sae_id: str = ""
    neuronpedia_id: str = ""
    l0: float | None = None
    identity: Facts = field(default_factory=dict[str, Any])

    @property
    def layer(self) -> int | None:
        """The block that it reads, None outside of blocks."""
        found = re.search(r"blocks\.(\d+)", self.hook)
        return int(found[1]) if found else None

    @property
    def words(self) -> str:
        """The SAE or hook in words: the same for the same weights, whatever they are called."""
        parts = (self.kind, self.architecture, self.hook, self.size, self.weights)
        return " ".join(str(part) for part in parts if part not in (None, "")) or "unknown"


@dataclass(frozen=True)
class CorpusRecord(Brief):
    """The natural texts: where they come from, how many there are, of how many documents if cut into windows, a hash of their tokens."""

    source: str = ""
    texts: int | None = None
    tokens: str = ""
    documents: int | None = None


@dataclass(frozen=True)
class JudgeRecord(Brief):
    """Who rated: the model, the server, how it was asked (`identity`: everything that decides its answers)."""

    model: str = ""
    endpoint: str = ""
    rating: str = ""
    identity: Facts = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Overflowed:
    """Texts on which activations were not finite."""

    natural: int = 0
    written: int = 0


@dataclass(frozen=True)
class RunRecord(Brief):
    """How a run was made.

    Attributes:
        settings: those of FADE and of the run's other scorers, by name.
        context: tokens of a text that are read.
        prepend_bos: whether texts begin with the BOS token.
        judge: None where nothing was asked.
        explained: the record of `Fade.explain`, where the descriptions are explanations of that run.
        held_out: how many texts of the corpus the scores rest on, where they are those that no explainer saw; None: on all.
        versions: of packages.
        usage: what the judges were asked, and what it cost.
        seconds: how long the run took.
        n_outliers: positions of massive activations that were left out.
        n_truncated, text_lost: texts longer than the context, and the share of the corpus that was cut off with them.
        gold: how the judge rated texts whose rating is known.
        agreement: how far ratings of the same texts agree, over all descriptions.
        second_judge: the other judge's identity.
        health: of the SAE, where the run looked at it before it scored.
    """

    settings: Facts = field(default_factory=dict[str, Any])
    model: ModelRecord = ModelRecord()
    features: FeaturesRecord = FeaturesRecord()
    corpus: CorpusRecord = CorpusRecord()
    context: int | None = None
    prepend_bos: bool | None = None
    judge: JudgeRecord | None = None
    explained: Facts = field(default_factory=dict[str, Any])
    held_out: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    usage: Usage | None = None
    seconds: float | None = None
    n_outliers: int | None = None
    n_overflowed: Overflowed = Overflowed()
    n_truncated: int | None = None
    text_lost: float = 0.0
    gold: GoldReport | None = None
    agreement: tuple[Agreement, ...] = ()
    second_judge: Facts = field(default_factory=dict[str, Any])
    health: SaeHealth | None = None

    @property
    def gate(self) -> float:
        """What a score that decides must reach: the run's gate, or `GATE` where it has none."""
        gate = self.settings.get("gate")
        return GATE if gate is None else float(gate)

    @classmethod
    def of(cls, identity: Facts, names: Facts, **known: Any) -> "RunRecord":
        """The record of a run of this identity (see `Subject.identity`); `names` are the model's and the SAE's."""
        model, features, judge = (dict(identity.get(key) or {}) for key in ("model", "features", "judge"))

        def typed(kind: Any, given: dict[str, Any], more: Facts) -> Any:
            own = {f: given.pop(f) for f in kind.__dataclass_fields__ if given.get(f) is not None}
            return kind(**{**own, **more, "identity": {k: v for k, v in given.items() if v is not None}})

        return cls(
            settings=identity["settings"],
            model=typed(ModelRecord, model, {"name": names["model"]}),
            features=typed(FeaturesRecord, features, names["features"]),
            corpus=CorpusRecord(**identity["corpus"]),
            context=identity["context"],
            prepend_bos=identity["prepend_bos"],
            judge=typed(JudgeRecord, judge, {}) if judge else None,
            explained=identity.get("explained", {}),
            **known,
        )
