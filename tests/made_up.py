"""Made-up results for tests of everything that shows results: deterministic, realistic in size and shape, hostile on request.

The metrics are computed by `fade_lens.metrics` from made-up activations and ratings, so values, intervals and reasons are of the real kind.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np

from fade_lens._util.reasons import Flag, Reason
from fade_lens.analysis.notes import CardNotes, Notes, Unscored
from fade_lens.baselines.cross_scores import CrossScores
from fade_lens.baselines.permutation import compare
from fade_lens.data.descriptions import Description
from fade_lens.llm.budget import Usage
from fade_lens.metrics.fade import clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness
from fade_lens.metrics.metric import Metric
from fade_lens.runs.record import CorpusRecord, FeaturesRecord, JudgeRecord, ModelRecord, RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.evidence import (
    ClarityEvidence,
    Continuation,
    Control,
    FaithfulnessEvidence,
    Fluency,
    RatedEvidence,
    RatedText,
    SyntheticText,
)
from fade_lens.scorers.fade import FadeEvidence
from fade_lens.subject.summary import FeatureSummary, Promoted, TopText

KINDS = ("right", "wrong", "rough", "right", "rough", "unwritten", "right", "dead")
"""What goes round in `made_up_results`: right and wrong descriptions, and ways in which metrics are undefined."""

HOSTILE = (
    "</script><script>window.hacked = true; alert(1)</script>",
    "<img src=x onerror='window.hacked = true'>",
    "\"'><svg onload=window.hacked=true>",
    "<!-- <script> --> ]]> &lt;b&gt; &amp; {{ 7 * 7 }} {% raw %} ${7 * 7} %{customdata}",
    "right-to-left override \u202egnp.exe\u202c and isolates \u2066x\u2069",
    "NUL \x00, bell \x07, escape \x1b[31m, DEL \x7f, C1 \x9b",
    "lone surrogates \ud800 and \udfff",
    "line\u2028and paragraph\u2029separators, BOM \ufeff, tags \U000e0041\U000e0042, noncharacter \uffff",
    "Z̷̡̛͓̪̔̊a̸͍͒l̴̢̛̫g̵̬̈́o̶̟͑ שלום עולم 漢字 👩‍👩‍👧‍👦 🇮🇳",
    "javascript:alert(1) <a href='javascript:window.hacked=true'>click</a> $\\href{javascript:alert(1)}{x}$",
    '=HYPERLINK("http://example.invalid") \t\r\n tabs and\r\nline ends',
    "x" * 3000,
)
"""Strings that must come through every view as nothing but text."""

CONCEPTS = (
    'the word "here"', "forms of the verb \"use\"", "dates of the nineteenth century", "German articles", "import statements in Python",
    "names of rivers", "prices in dollars", "the end of a quotation", "apologies in letters", "chemical formulas",
    "football results", "words that follow a hyphen", "question marks", "legal boilerplate about warranties", "recipes that call for butter",
)  # fmt: skip
SENTENCES = (
    "The committee met on 14 March 1871 and adjourned without reaching a decision.",
    "<p>Add the butter, stir until it has melted, and leave to cool for ten minutes.</p>",
    "from pathlib import Path\n\nimport numpy as np\n\n\ndef load(path: Path) -> np.ndarray:\n    return np.load(path)\n",
    "Der Fluss trat über die Ufer, und das Dorf wurde in der Nacht evakuiert.",
    "“I never said that,” she replied, closing the door behind her.",
    "Prices start at $49.99 (plus shipping) for the basic version; click here to compare.",
    "После матча тренер сказал, что команда заслужила победу.",
    "The software is provided “as is”, without warranty of any kind, express or implied.",
    "Sodium chloride, NaCl, dissolves readily in water; its use here is purely illustrative.",
    "United drew 2–2 with City on Saturday after a late equaliser from the spot.",
    "La bibliothèque ouvre à neuf heures, sauf le dimanche.",
    "Dear Sir, I am sorry to say that your parcel was lost somewhere between Basel and Ulm.",
)
FACTORS = (0.0, 0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Numbers:
    """The numbers behind one made-up description; texts are put around them."""

    synthetic: np.ndarray[Any, Any]
    natural: np.ndarray[Any, Any]
    rated: np.ndarray[Any, Any]
    ratings: np.ndarray[Any, Any]
    inclusion: np.ndarray[Any, Any]
    continued: dict[float, np.ndarray[Any, Any]]
    metrics: dict[str, Metric]


@cache
def numbers(kind: str, variant: int, n_rated: int = 200, n_prompts: int = 30) -> Numbers:
    """Numbers of a kind of description, with the metrics that the package computes from them."""
    rng = np.random.default_rng([variant, *map(ord, kind)])
    natural = np.where(rng.random(3500) < 0.03, rng.gamma(2, 3, 3500), 0.0)
    if kind == "dead":
        natural = np.zeros(3500)
    strength = {"right": 0.95, "rough": 0.6}.get(kind, 0.03)
    synthetic = np.where(rng.random(30) < strength, rng.gamma(4, 3, 30), 0.0)
    if kind == "unwritten":
        synthetic = synthetic[:0]
    firing = np.flatnonzero(natural)
    chosen = np.concatenate([rng.permutation(firing)[: n_rated // 2], rng.permutation(np.flatnonzero(natural == 0))])[
        :n_rated
    ]
    rated = natural[chosen]
    expresses = rng.random(n_rated) < np.where(rated > 4, strength, np.where(rated > 0, strength / 2, 0.01))
    ratings = np.where(expresses, 2, np.where(rng.random(n_rated) < 0.08, 1, 0))
    if kind in ("wrong", "dead") and variant % 2:
        ratings = np.minimum(ratings, 1)
    ratings[rng.permutation(n_rated)[:3]] = -1
    inclusion = np.where(rated > 0, 1.0, 0.03)
    continued: dict[float, np.ndarray[Any, Any]] = {}
    metrics = {
        "clarity": clarity(synthetic, natural, seed=variant)
        if len(synthetic)
        else Metric(
            None,
            Reason("nothing_written", "the judge wrote no text for the description (refused: I can't help with that)"),
            counts={"synthetic": 0},
        ),
        "responsiveness": responsiveness(rated, ratings, 1 / inclusion, seed=variant),
        "purity": purity(rated, ratings, 1 / inclusion, seed=variant),
    }
    low = [n.capitalize() for n in ("clarity", "responsiveness") if (metrics[n].value or 0) < 0.5]
    if kind == "dead":
        metrics["faithfulness"] = Metric(
            None, Reason("never_fires", "the feature never fires on the corpus, so steering has no unit")
        )
    elif low:
        value = metrics[low[0].lower()].value
        why = f"{low[0]} is undefined" if value is None else f"{low[0]} is {value:.2f}, below 0.5"
        metrics["faithfulness"] = Metric(None, Reason("gate_not_passed", f"gate not passed: {why}"))
    else:
        for place, factor in enumerate(FACTORS):
            share = 0.04 + strength * (0.0, 0.1, 0.3, 0.7, 0.5)[place]
            continued[factor] = np.where(rng.random(n_prompts) < share, 2, 0)
        continued[3.0][0] = -1
        metrics["faithfulness"] = faithfulness(continued, seed=variant)
    return Numbers(synthetic, natural, rated, ratings, inclusion, continued, metrics)


class Prose:
    """Running text in pieces of any length, cheap enough for a run of a thousand descriptions."""

    def __init__(self, seed: int, hostile: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        pool = [*SENTENCES, *HOSTILE] if hostile else list(SENTENCES)
        self.body = " ".join(pool[i] for i in self.rng.integers(len(pool), size=2000))

    def piece(self, characters: int) -> str:
        start = int(self.rng.integers(len(self.body) - characters))
        return self.body[start : start + characters]


def fade_evidence(
    clarity: ClarityEvidence, rated: RatedEvidence, faithfulness: FaithfulnessEvidence
) -> dict[str, FadeEvidence]:
    """FADE's evidence as a result holds it."""
    return {"fade": FadeEvidence(clarity, rated, faithfulness)}


def with_evidence(result: Result, **changes: Any) -> Result:
    """A result with parts of FADE's evidence replaced: `clarity`, `rated_texts`, `faithfulness`."""
    return replace(result, evidence={"fade": replace(result.fade, **changes)})


def made_up_result(
    kind: str = "right",
    *,
    index: int = 0,
    text: str | None = None,
    hostile: bool = False,
    n_rated: int = 200,
    characters: int = 400,
    prose: Prose | None = None,
) -> Result:
    """A result of a kind in `KINDS`; `hostile` fills every text in it with the strings of `HOSTILE`."""
    prose = prose or Prose(index, hostile)
    made = numbers(kind, index % 16, n_rated)
    bad = [HOSTILE[(index + i) % len(HOSTILE)] for i in range(len(HOSTILE))] if hostile else []

    def words(place: int, length: int = characters) -> str:
        return bad[place] if place < len(bad) else prose.piece(length)

    firing = made.natural[made.natural != 0]
    top: list[TopText] = []
    for rank, value in enumerate(np.sort(firing)[::-1][:10]):
        tokens = tuple(bad) if hostile and rank == 0 else tuple(prose.piece(4) for _ in range(64))
        acts: list[float | None] = [0.0] * len(tokens)
        peak = (index + 7 * rank) % len(tokens)
        acts[0], acts[peak - 1], acts[peak] = None, float(value) / 3, float(value)
        causes = None if rank else (None, *(float(value) * share for share in np.linspace(-0.4, 1.2, len(tokens) - 1)))
        top.append(TopText(int(index + rank), float(value), tokens, tuple(acts), causes))
    description = text or (
        bad[0] if hostile else f"{CONCEPTS[index % len(CONCEPTS)]}" + (" (wrong on purpose)" if kind == "wrong" else "")
    )
    return Result(
        Description(index, description, bad[1] if hostile else "a dict"),
        FeatureSummary(
            firing_rate=len(firing) / len(made.natural) / 20,
            firing_texts=len(firing),
            n_texts=len(made.natural),
            largest=float(made.natural.max()),
            reference=float(np.quantile(firing, 0.99)) if len(firing) else None,
            quantiles=tuple(float(q) for q in np.quantile(made.natural, np.linspace(0, 1, 101))),
            top=tuple(top),
            logits=Promoted(((words(0, 6), 2.5), ("\n", 1.25)), ((words(1, 6), -1.5),)),
            nearest=Reason("neurons", "the neurons of a hook are at right angles") if index % 2 else ((index + 7, 0.91), (3, -0.02)),
        ),
        fade_evidence(
        ClarityEvidence(
            made.metrics["clarity"],
            tuple(SyntheticText(words(i, characters // 2), None if i == 3 else float(a)) for i, a in enumerate(made.synthetic)),
            () if len(made.synthetic) else (bad[0] if hostile else "refused: I can't help with that",),
        ),
        RatedEvidence(
            made.metrics["responsiveness"],
            made.metrics["purity"],
            tuple(
                RatedText(
                    number=100 + i,
                    text=words(i),
                    activation=float(value),
                    inclusion=float(inclusion),
                    rating=None if rating < 0 else int(rating),
                    score=None if rating < 0 else float(rating) - 0.3,
                    reason=(bad[1] if hostile else "the judge's answer left this text out, twice") if rating < 0 else None,
                )
                for i, (value, rating, inclusion) in enumerate(zip(made.rated, made.ratings, made.inclusion, strict=True))
            ),
        ),
        FaithfulnessEvidence(
            made.metrics["faithfulness"],
            tuple(
                Continuation(
                    factor,
                    prompt=words(place, 60),
                    text=words(place + 1, 130),
                    rating=None if rating < 0 else int(rating),
                    reason="timeout after 60 s" if rating < 0 else None,
                )
                for factor, ratings in made.continued.items()
                for place, rating in enumerate(ratings)
            ),
            tuple(Fluency(f, 2.1 + f**2 / 3, f**2 / 3, f / 10, f >= 3) for f in made.continued if f),
            (Control("random_direction", Metric(0.04, interval=(0.0, 0.15)), (Continuation(1.0, "a", "b", 0), Continuation(2.0, "a", "c", 2))),
             Control("other", Metric(None, Reason("undefined", bad[0] if hostile else "no other feature fires")), other=index + 1)) if made.continued else (),
        ),
        ),
    )  # fmt: skip


def made_up_results(n: int = 8, *, hostile: bool = False, n_rated: int = 200, characters: int = 400) -> Results:
    """A run of `n` descriptions, the kinds of `KINDS` going round, with a full record of how it was made."""
    prose = Prose(n, hostile)
    items = tuple(
        made_up_result(
            KINDS[i % len(KINDS)], index=i * 7, hostile=hostile, n_rated=n_rated, characters=characters, prose=prose
        )
        for i in range(n)
    )
    return Results(items, made_up_run(hostile))


def many_results(n: int, few: tuple[Result, ...] = ()) -> Results:
    """A run of `n` descriptions that share the evidence of a few, by default with little to show of each: quickly made, and quickly shown."""
    pool = made_up_results(16, n_rated=12, characters=20)
    few = few or tuple(
        with_evidence(
            replace(one, feature=replace(one.feature, top=one.feature.top[:1])),
            faithfulness=FaithfulnessEvidence(one.faithfulness),
        )
        for one in pool
    )
    described = (
        replace(one, description=replace(one.description, index=i, text=f"{one.description.text[:200]} number {i}"))
        for i, one in zip(range(n), cycle(few), strict=False)
    )
    return replace(pool, items=tuple(described))


def with_cross(results: Results) -> Results:
    """The same run with cross matrices in which every description that holds stands out, and what follows from them."""
    rng = np.random.default_rng(len(results))
    features = tuple(dict.fromkeys(r.description.index for r in results))
    owners = tuple(r.description.index for r in results)
    matrices = {
        name: np.clip(rng.normal(middle, 0.12, (len(features), len(owners))), 0 if name == "purity" else -1, 1).astype(
            np.float32
        )
        for name, middle in (("clarity", 0.0), ("responsiveness", 0.0), ("purity", 0.15))
    }
    for column, result in enumerate(results):
        row = features.index(result.description.index)
        if "wrong on purpose" in result.description.text:
            row = (row + 3) % len(features)  # what a swapped description looks like
        for name, matrix in matrices.items():
            value = result.metrics[name].value
            matrix[row, column] = (
                0.9 if "wrong on purpose" in result.description.text else np.nan if value is None else value
            )
    cross = CrossScores(features, owners, **matrices)
    nulls = compare(cross, [r.description for r in results])
    items = tuple(replace(r, permutation=test) for r, test in zip(results, nulls, strict=True))
    return replace(results, items=items, cross_scores=cross)


def made_up_notes(results: Results, hostile: bool = False) -> Notes:
    """What an audit might say of the run's first descriptions, and of features that it could not score."""
    bad = HOSTILE[0] if hostile else ""
    first, second, third = (r.description for r in results.items[:3])
    page = "https://www.neuronpedia.org/gpt2-small/8-res-jb"
    return Notes(
        {
            first.id: CardNotes("keep", 0.1, facts=(("explainer", f"gpt-4o-mini{bad}"), ("eleuther_fuzz", "0.81")), links=((f"Neuronpedia{bad}", f"{page}/{first.index}"),)),
            second.id: CardNotes(f"swapped{bad}", 0.9, f"it fits feature 28 better{bad}", (Flag("duplicate_description", f"as feature 28{bad}"),), links=(("Neuronpedia", f"{page}/{second.index}?a='\"&b"),)),
            third.id: CardNotes("rewrite", 0.55, "too broad"),
        },
        (Unscored(901, notes=CardNotes("missing", 1.0, "describe it", (Flag("missing"),))), Unscored(902, bad or "The user wants a label", CardNotes("unusable", 0.95, flags=(Flag("prompt_leak", "“The user wants”"),)))),
        (("Neuronpedia source", f"gpt2-small/8-res-jb{bad}"),),
    )  # fmt: skip


def made_up_run(hostile: bool = False) -> RunRecord:
    """What `Results.run` holds after a whole run."""
    name = HOSTILE[0] if hostile else "google/gemma-3-270m"
    return RunRecord(
        settings={"arithmetic": "default", "seed": 7, "context": 64, "gate": 0.5, "factors": [0.5, 1.0, 2.0, 3.0], "mode": "add"},
        model=ModelRecord(name, {"n_layers": 18, "d_model": 640}),
        features=FeaturesRecord("sae", "blocks.9.hook_resid_post", 4096, "jumprelu", "9f8e7d6c"),
        corpus=CorpusRecord(HOSTILE[6] if hostile else "corpus.jsonl.gz", 3500),
        context=64,
        judge=JudgeRecord("qwen2.5-coder-1.5b-instruct", "http://127.0.0.1:8123/v1", "single"),
        versions={"fade_lens": "0.1.0", "torch": "2.13.0", HOSTILE[1] if hostile else "sae_lens": "6.54.0"},
        usage=Usage(calls=2310, cached=12, prompt_tokens=412_000, completion_tokens=9_120, cost=None),
        seconds=431.7,
        n_outliers=512,
        n_truncated=3,
    )  # fmt: skip
