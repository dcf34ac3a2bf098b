"""The evidence behind one description as plain values of bounded size: what a card of the page shows."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fade_lens._util.reasons import Reason
from fade_lens._util.words import amount, clip, evenly, number, plain
from fade_lens.analysis.notes import Unscored
from fade_lens.data.descriptions import Provenance
from fade_lens.metrics.metric import Metric
from fade_lens.report.decisions import decided
from fade_lens.report.standing import basis, below, concept_rates
from fade_lens.runs.results import Result
from fade_lens.scorers.base import RuleScores, ScoreSpec
from fade_lens.scorers.evidence import Control, RatedText
from fade_lens.scorers.fade import FadeEvidence
from fade_lens.subject.summary import LENS, FeatureSummary, Promoted, TopText


@dataclass(frozen=True)
class Detail:
    """How much of the evidence a card shows: numbers of texts, of tokens around a peak, of characters a text."""

    top: int
    tokens: int
    rated: int
    synthetic: int
    prompts: int
    characters: int
    points: int = 300


DETAILS = (
    Detail(20, 512, 400, 100, 50, 2000, 1000),
    Detail(10, 128, 200, 40, 10, 600),
    Detail(10, 64, 80, 20, 5, 400),
    Detail(8, 48, 40, 12, 3, 300),
    Detail(6, 40, 24, 8, 2, 200),
    Detail(5, 32, 16, 6, 2, 140),
    Detail(4, 24, 12, 4, 1, 110, 150),
    Detail(3, 16, 6, 3, 1, 70, 100),
    Detail(2, 10, 3, 1, 1, 40, 40),
)
"""From everything to the least that is of use; a page takes the first that fits."""

CAUSES = (
    "Underlined: what a token does to the activations behind it, found by leaving it out; solid: it makes the feature fire, dashed: it holds it "
    "back; as thick as the sum is large, in units of the largest activation."
)


def card(result: Result, detail: Detail = DETAILS[0]) -> dict[str, Any]:
    """A description's evidence as a JSON value; every string `visible`, every number finite."""
    continuations = result.faithfulness_evidence.continuations
    written = result.clarity_evidence.texts
    return plain(
        {
            "index": result.description.index,
            "text": clip(result.description.text, 3000),
            "origin": clip(result.description.origin, 200),
            # The sections on written, rated and steered texts are FADE's.
            "fade": any(isinstance(found, FadeEvidence) for found in result.evidence.values()),
            "not_steered": result.faithfulness.reason or "no continuations",
            "standing": result.standing,
            "why": result.standing.why,
            "flags": [clip(flag, 200) for flag in result.flags],
            "metrics": [_metric(spec, result.metric(spec.name), detail, result.gate) for spec in result.specs],
            "rules": ruled(result.rules, result.specs),
            **of_feature(result.feature, detail),
            "synthetic": {
                "points": evenly(sorted(t.activation for t in written if t.activation is not None), detail.points),
                # Strongest first; a text without an activation last.
                "texts": [
                    [t.activation, clip(t.text, detail.characters)]
                    for t in evenly(
                        sorted(written, key=lambda t: (t.activation is None, -(t.activation or 0))), detail.synthetic
                    )
                ],
                "of": len(written),
                "failures": [clip(f, 300) for f in result.clarity_evidence.failures[:5]],
            },
            "rated": _rated(result.rated_evidence.texts, detail),
            "detection": _detection(result),
            "explained": explained(result.description.provenance, result.shown, detail),
            "decided": decided(result.evidence, detail),
            "null": _null(result),
            "judge": _judge(result),
            "steering": {
                "rates": [[r.factor, r.rate, *r.interval, r.expressed, r.n, r.unrated] for r in concept_rates(continuations)],
                "texts": [
                    [c.factor, c.rating, clip_start(c.prompt, detail.characters), clip(c.text, detail.characters), clip(c.reason or "", 120)]
                    for factor in sorted({c.factor for c in continuations})
                    for c in [c for c in continuations if c.factor == factor][: detail.prompts]
                ],
                "of": len(continuations),
                "fluency": [[f.factor, f.increase, f.repeated, f.breaks] for f in result.faithfulness_evidence.fluency],
                "controls": [_control(control) for control in result.faithfulness_evidence.controls],
            },
        }
    )  # fmt: skip


def of_feature(feature: FeatureSummary, detail: Detail) -> dict[str, Any]:
    """What the corpus alone tells of a feature."""
    return {
        "feature": {
            "rate": feature.firing_rate,
            "texts": feature.firing_texts,
            "of": feature.n_texts,
            "largest": feature.largest,
            "reference": feature.reference,
        },
        "natural": evenly(feature.quantiles, min(detail.points, 101)),
        "top": [shown_text(text, detail) for text in feature.top[: detail.top]],
        "top_of": len(feature.top),
        "legend": CAUSES if any(text.causes for text in feature.top[: detail.top]) else "",
        "tokens": [] if (found := feature.logits) is None else [told_tokens("Tokens", LENS, ("Promoted", "Suppressed"), found, detail)],
        "neighbours": near(feature, detail),
    }  # fmt: skip


def told_tokens(
    title: str, note: str, heads: tuple[str, str], found: Promoted | Reason, detail: Detail
) -> dict[str, Any]:
    """Tokens that a feature promotes, and those that it suppresses, with how that was found; or why there are none."""
    if isinstance(found, Reason):
        return {"title": title, "note": f"None: {found}.", "lists": []}
    ends = (
        [[clip(token, 80), value] for token, value in end[: 5 * detail.top]]
        for end in (found.promoted, found.suppressed)
    )
    return {"title": title, "note": note, "lists": list(zip(heads, ends, strict=True))}  # fmt: skip


def near(feature: FeatureSummary, detail: Detail) -> dict[str, Any] | None:
    """The nearest decoder directions, or why there are none."""
    if (found := feature.nearest) is None:
        return None
    if isinstance(found, Reason):
        return {"note": f"None: {found}.", "lists": []}
    return {"note": "", "lists": [["Nearest decoder directions, by cosine", found[: 5 * detail.top], "none"]]}


def bare_card(unscored: Unscored) -> dict[str, Any]:
    """The card of a description without metrics."""
    text = unscored.text if unscored.text.strip() else "(no description)"
    made = unscored.explanation
    about = None if made is None else explained(made.provenance, made.windows, DETAILS[2])
    return plain({"index": unscored.index, "text": clip(text, 3000), "origin": "", "metrics": [], "explained": about})


def shown_text(text: TopText, detail: Detail) -> dict[str, Any]:
    """A text token by token, around its peak."""
    part = text.window(detail.tokens)
    shown = whole_characters(text.tokens[part], text.activations[part])
    caused = () if text.causes is None else whole_characters(text.tokens[part], text.causes[part])
    return {
        "number": text.number,
        "activation": text.activation,
        "tokens": [clip(token, detail.characters) for token, _ in shown],
        "values": [value for _, value in shown],
        **({"causes": [value for _, value in caused]} if caused else {}),
        "before": part.start > 0,
        "after": part.stop < len(text.tokens),
    }


def explained(about: Provenance, windows: Sequence[TopText], detail: Detail) -> dict[str, Any] | None:
    """Who explained a feature, how, at what cost and on what; None where no explainer of this library did."""
    if about.kind != "explained":
        return None
    n = len(about.shown)
    facts = (
        ("Explainer", " ".join(filter(None, (about.method, about.version and f"(prompts {about.version})")))),
        ("Model", about.explainer),
        ("Cost", "" if about.cost is None else f"${about.cost:,.4f}"),
        ("Chosen among", f"{amount(about.candidates)} descriptions" if (about.candidates or 0) > 1 else ""),
        ("Shown", f"{amount(n)} window{'' if n == 1 else 's'}" if n else ""),
    )
    return {
        "facts": [[name, clip(value, 200)] for name, value in facts if value],
        "windows": [shown_text(window, detail) for window in windows[: max(detail.top, 2)]],
        "of": n,
        "largest": max((abs(window.activation) for window in windows), default=0.0),
    }


def fitted(
    make: Callable[[Detail], dict[str, Any]],
    size: int,
    least: Callable[[Detail], int] = lambda _: 0,
    details: Sequence[Detail] = DETAILS,
) -> dict[str, Any]:
    """Of `details` the most detailed card that takes at most `size` bytes of JSON (or the least detailed one); `least` tells without making one which cannot fit."""
    made: dict[str, Any] = {}
    for detail in details:
        if least(detail) > size:
            continue
        made = make(detail)
        if len(compact(made).encode()) <= size:
            break
    return made or make(details[-1])


def least(result: Result, detail: Detail) -> int:
    """A lower bound of a card's size in bytes, from the lengths of its texts: saves making cards that cannot fit."""

    def clipped(texts: Iterable[str], each: int) -> int:
        return sum(min(len(text), detail.characters) + each for text in texts)

    shown = result.rated_evidence.texts
    continuations = result.faithfulness_evidence.continuations
    factors = len({c.factor for c in continuations})
    return (
        clipped(sorted((t.text for t in shown), key=len)[: detail.rated], 14)
        + clipped(sorted((t.text for t in result.clarity_evidence.texts), key=len)[: detail.synthetic], 9)
        + clipped(sorted((c.text for c in continuations), key=len)[: detail.prompts * factors], 14)
        + sum(5 * min(len(text.tokens), detail.tokens) for text in result.feature.top[: detail.top])
        + 2 * min(len(shown), detail.points)
    )


def compact(value: Any) -> str:
    """JSON that may stand inside `<script>`: nothing in it can end the element, begin a comment or break a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def clip_start(text: str, characters: int) -> str:
    """The end of a text: what a continuation goes on from."""
    return text if len(text) <= characters else "…" + text[-characters:]


def whole_characters(tokens: Sequence[str], activations: Sequence[float | None]) -> list[tuple[str, float | None]]:
    """Tokens with their activations, those of one character as one with the strongest.

    >>> whole_characters(["a", "", "", "猫"], [None, 3.0, None, 1.0])
    [('a', None), ('猫', 3.0)]
    """
    shown: list[tuple[str, float | None]] = []
    parts: list[float] = []
    for token, value in zip(tokens, activations, strict=True):
        parts += [] if value is None else [value]
        if token:
            shown.append((token, max(parts, key=abs, default=None)))
            parts = []
    return shown


def choose(texts: Sequence[RatedText], n: int) -> list[RatedText]:
    """The rated texts worth a look, by activation: disagreements, the strongest and the weakest of each rating, misses."""
    by = {r: sorted((t for t in texts if t.rating == r), key=lambda t: -abs(t.activation)) for r in (0, 1, 2, None)}
    # Fires without the concept; expresses it without firing; agreements; in doubt; unrated; silent as it should be.
    queues = (by[0], by[2][::-1], by[2], by[1], by[None], by[0][::-1])
    chosen: dict[int, RatedText] = {}
    for turn in zip_longest(*queues):
        for text in turn:
            if text is not None and len(chosen) < n:
                chosen[text.number] = text
    return sorted(chosen.values(), key=lambda t: -t.activation)


def _metric(spec: ScoreSpec, metric: Metric, detail: Detail, gate: float) -> dict[str, Any]:
    return {
        "name": spec.title,
        "question": spec.question,
        "range": spec.range,
        "bad": below(spec, metric, gate),
        # Rounded here as in the table, so that card and table cannot differ by a rounding of a rounding.
        "value": None if metric.value is None else round(metric.value, 2),
        "interval": None if metric.interval is None else [round(end, 2) for end in metric.interval],
        "reason": clip(metric.reason or metric.interval_reason or "", max(300, detail.characters // 2)),
        "basis": basis(spec, metric),
    }


def ruled(rules: Sequence[RuleScores], specs: Sequence[ScoreSpec] = ()) -> dict[str, Any]:
    """The rules of a description, the strongest first, with what each scores alone, by the scores that any of them has."""
    some = [spec for spec in specs if any(spec.name in rule.metrics for rule in rules)]

    def cell(metric: Metric | None) -> list[Any]:
        return [None, None, "–"] if metric is None else [metric.value, metric.interval, clip(metric.reason or "", 120)]

    strongest = sorted(rules, key=lambda rule: -rule.strength)
    rows = [[clip(r.text, 600), r.strength, [cell(r.metrics.get(spec.name)) for spec in some]] for r in strongest]
    return {"names": [spec.title for spec in some], "rows": rows}


def _judge(result: Result) -> list[str]:
    """What the judge's answers cost, how far it agrees with itself or with another judge, and why it was asked no more."""
    said: list[str] = []
    if usage := result.usage:
        cost = "price not known" if usage.cost is None else f"${usage.cost:,.4f}"
        tokens = f"{amount(usage.prompt_tokens)} tokens read, {amount(usage.completion_tokens)} written"
        said.append(f"{amount(usage.calls + usage.cached)} answers of the judge, {tokens}, {cost}")
    for agreed in result.agreement:
        kappa = "undefined" if agreed.weighted is None else number(agreed.weighted)
        said.append(f"agreement with {clip(agreed.by, 60)} on {amount(agreed.n)} texts: weighted kappa {kappa}")
    if stopped := result.rated_evidence.stopped:
        said.append(f"rating stopped after {amount(len(result.rated_evidence.texts))} texts: {clip(stopped, 200)}")
    return said


def _null(result: Result) -> dict[str, Any] | None:
    """The description beside the others of its run."""
    null = result.permutation
    if null is None:
        return None
    percentiles = (
        ("Clarity", null.clarity_percentile), ("Responsiveness", null.responsiveness_percentile),
        ("Purity", null.purity_percentile),
    )  # fmt: skip
    return {
        "percentiles": [[name, round(value, 1)] for name, value in percentiles if value is not None],
        "of": null.n_null,
        "p": null.p_value,
        "q": null.q_value,
        "better": null.better_feature,
        "suggested": null.suggested_feature,
        "reason": clip(null.reason or "", 200),
    }


def _detection(result: Result) -> list[list[Any]]:
    """Detection-style scores: name and value; none where they are undefined, which the metrics have said already."""
    found = result.detection
    named = (
        ("best F1", found.f1), ("IoU", found.iou), ("correlation", found.correlation),
        ("balanced accuracy", found.balanced_accuracy),
    )  # fmt: skip
    return [[name, round(value, 2)] for name, value in named if value is not None]


def _control(control: Control) -> dict[str, Any]:
    """A control for steering: its value and its rates."""
    names = {
        "ablate": "feature ablated",
        "random_direction": "random direction",
        "other": f"direction of feature {control.other}",
    }
    rates = concept_rates(control.continuations)
    return {
        "name": clip(names.get(control.name, control.name), 80),
        "value": control.faithfulness.value,
        "interval": control.faithfulness.interval,
        "reason": clip(control.faithfulness.reason or "", 200),
        "rates": [[r.factor, r.rate, *r.interval, r.expressed, r.n, r.unrated] for r in rates],
    }


def _rated(texts: Sequence[RatedText], detail: Detail) -> dict[str, Any]:
    activation: Callable[[RatedText], float] = lambda t: t.activation  # noqa: E731
    groups = {r: sorted((t for t in texts if t.rating == r), key=activation) for r in (0, 1, 2, None)}
    share = detail.points / max(len(texts), 1)
    return {
        "points": [
            [t.activation for t in evenly(groups[r], max(round(len(groups[r]) * min(share, 1)), 2))]
            for r in (0, 1, 2, None)
        ],
        "counts": [len(groups[r]) for r in (0, 1, 2, None)],
        "texts": [
            [t.activation, t.rating, t.score, clip(t.text, detail.characters), clip(t.reason or "", 200)]
            for t in choose(texts, detail.rated)
        ],
        "of": len(texts),
    }
