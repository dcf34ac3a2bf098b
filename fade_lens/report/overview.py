"""The head of the page: what was evaluated and how, and how the scores are distributed over the run."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from statistics import quantiles
from typing import Any, cast

from markupsafe import Markup

from fade_lens._util.reasons import Reason
from fade_lens._util.words import amount, clip, duration, evenly, number
from fade_lens.analysis.summary import subtracted, summary
from fade_lens.data.rows import is_null
from fade_lens.llm.budget import Usage
from fade_lens.metrics.metric import Metric
from fade_lens.report.rows import Counted
from fade_lens.runs.record import RunRecord
from fade_lens.runs.results import Results
from fade_lens.scorers.base import NOT_SCORED

WIDTH, HEIGHT, MARGIN = 240, 112, 10
DRAWN = 1000
"""Descriptions in a drawing: of more each is thinner than can be seen."""
WORDS = {"sae": "SAE latents", "single": "one text a request", "batched": "several texts a request"}
"""How kinds of features and ways of rating are called."""


@dataclass(frozen=True)
class Mean:
    """A mean over the run's descriptions, with the 95 % interval of a bootstrap over features where there are enough."""

    value: float
    interval: tuple[float, float] | None

    @property
    def words(self) -> str:
        """
        >>> Mean(0.5, (0.4, 0.6)).words
        '0.50 [0.40, 0.60]'
        """
        if self.interval is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.interval[0])}, {number(self.interval[1])}]"


@dataclass(frozen=True)
class Panel:
    """One metric over the whole run."""

    title: str
    question: str
    words: str
    drawing: Markup


def panels(results: Results) -> list[Panel]:
    """The scores: in words, and drawn description by description with intervals."""
    gate = results.run.gate
    found = means(results)
    made: list[Panel] = []
    for spec in results.specs:
        metrics = scored(results, spec.name)
        limit = gate if spec.decides else None
        words = spread(metrics, found.get((spec.name, None)))
        if isinstance(spec.chance, float) and spec.chance:
            words += f"; chance level {number(spec.chance)}"
        made.append(Panel(spec.title, spec.question, words, drawing(metrics, spec.range, limit)))
    return made


def scored(results: Results, name: str) -> list[Metric]:
    """A score of every description, as the frame has it."""
    if not len(results):
        return []
    known: Any = results.frame.head(len(results)).reindex(
        columns=[name, f"{name}_low", f"{name}_high", f"{name}_reason"]
    )
    return [
        Metric(value, interval=None if isnan(low) else (low, high))
        if not isnan(value)
        else NOT_SCORED
        if is_null(why)
        else Metric(None, Reason("", why))
        for value, low, high, why in known.itertuples(index=False)
    ]


def means(results: Results) -> dict[tuple[str, str | None], Mean]:
    """Means over the run by metric and what is subtracted (see `subtracted`); nothing of a run without descriptions."""
    if not len(results):
        return {}
    rows = summary(results).to_dict("records")
    return {
        (str(row["metric"]), subtracted(row)): Mean(
            row["mean"], None if isnan(row["low"]) else (row["low"], row["high"])
        )
        for row in rows
        if not isnan(row["mean"])
    }


def against_others(results: Results) -> list[tuple[str, str]]:
    """Scores minus those of null descriptions and of baseline features, where the run has such."""
    found = means(results) if results.nulls or results.baselines else {}
    return [(minus(name, other), mean.words) for (name, other), mean in found.items() if other is not None]


def minus(name: str, other: str) -> str:
    """What a score minus that of a kind of null description or baseline is called."""
    return f"{name} minus {other}"


def spread(metrics: Sequence[Metric], mean: Mean | None) -> str:
    """Mean with its 95 % interval, quartiles, and how many are undefined."""
    values = [m.value for m in metrics if m.value is not None]
    words: list[str] = []
    if len(values) > 1 and mean is not None:
        words.append(f"mean {mean.words}")
    if len(values) >= 10:
        words.append("quartiles " + ", ".join(number(q) for q in quantiles(values, n=4)))
    elif values:
        words.append(number(values[0]) if len(values) == 1 else f"{number(min(values))} to {number(max(values))}")
    if missing := len(metrics) - len(values):
        words.append(f"{missing} of {len(metrics)} undefined")
    return "; ".join(words)


def drawing(metrics: Sequence[Metric], bounds: tuple[float, float], gate: float | None) -> Markup:
    """An SVG of numbers only: every description (of many, `DRAWN` evenly by rank) a dot on a line that is its interval, the lowest at the top."""
    low, high = bounds
    shown = evenly(sorted((m for m in metrics if m.value is not None), key=lambda m: m.value or 0.0), DRAWN)

    def x(value: float) -> str:
        return f"{MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN):.1f}"

    room = HEIGHT - 22
    step = min(room / max(len(shown), 1), 14)
    lines: list[str] = []
    dots: dict[bool, list[str]] = {True: [], False: []}
    for place, metric in enumerate(shown):
        y, value = f"{6 + (place + 0.5) * step:.2f}", cast(float, metric.value)
        if metric.interval:
            lines.append(f"M{x(metric.interval[0])} {y}H{x(metric.interval[1])}")
        dots[gate is not None and value < gate].append(f"M{x(value)} {y}h0")
    # Intervals never overlap, so that a thousand of them are a light band under the dots.
    thin, thick = min(step * 0.35, 2), max(min(step * 0.8, 7), 2.4)
    ticks = [low, 0.0, high] if low < 0 else [0.0, 0.5, 1.0]
    parts = [f'<path class="axis" d="M{x(low)} {HEIGHT - 15}H{x(high)}"/>']
    parts += [f'<path class="axis" d="M{x(t)} 2V{HEIGHT - 12}"/>' for t in ticks]
    if gate is not None:
        parts.append(f'<path class="gate" d="M{x(gate)} 2V{HEIGHT - 12}"/>')
    parts += [
        f'<path class="interval" stroke-width="{thin:.3f}" d="{"".join(lines)}"/>',
        f'<path class="dot ok" stroke-width="{thick:.1f}" d="{"".join(dots[False])}"/>',
        f'<path class="dot bad" stroke-width="{thick:.1f}" d="{"".join(dots[True])}"/>',
    ]
    parts += [
        f'<text x="{x(t)}" y="{HEIGHT - 2}" text-anchor="middle">{number(t, 1 if t % 1 else 0)}</text>' for t in ticks
    ]
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>')


def reasons(results: Results) -> list[tuple[str, str, int]]:
    """Why metrics are undefined: metric, reason, number of descriptions; reasons that differ in numbers only are one."""
    found: dict[tuple[str, str], list[str]] = {}
    for spec in results.specs:
        for metric in scored(results, spec.name):
            if (reason := metric.reason) is not None:
                found.setdefault((spec.title, re.sub(r"-?\d+(?:[.,]\d+)*", "…", reason)), []).append(reason)
    rows = [
        (title, clip(same[0] if len(set(same)) == 1 else pattern, 300), len(same))
        for (title, pattern), same in found.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def facts(results: Results, counted: Counted) -> list[tuple[str, str]]:
    """What was evaluated, with what, at what cost; only what the run recorded. Hashes and the like are in the full record."""
    run, judge, n_features = results.run, results.run.judge, len(counted.features)
    without = Counter(row.reason.code for row in results.without if row.reason)
    rows = [
        ("Evaluated", f"{amount(len(results))} descriptions of {amount(n_features)} features" if n_features else "nothing: flags only"),
        ("Without a description", ", ".join(f"{n} {code.replace('_', ' ')}" for code, n in without.items())),
        *subject_facts(run),
        ("Means", "weigh each latent by how many it stands for, for latents were drawn by strata" if results.weights else ""),
        ("Held out", "" if run.held_out is None else f"scores rest on the {amount(run.held_out)} texts that no explainer saw"),
        ("Judge", "" if judge is None else _listed(judge.model, judge.rating, judge.endpoint)),
        ("Seed", str(run.settings.get("seed", ""))),
    ]  # fmt: skip
    if usage := run.usage:
        cost = "not known (the model has no price on record)" if usage.cost is None else f"${usage.cost:,.2f}"
        rows += [("Judge's work", _usage(usage)), ("Cost", cost)]
    rows += _reliability(run) + _stopped(counted.stopped, len(results))
    rows.append(("Time", "" if run.seconds is None else duration(run.seconds)))
    if run.n_outliers is not None:
        rows.append(("Left out", f"{amount(run.n_outliers)} positions as outliers"))
    if run.n_truncated is not None:
        share = f", {run.text_lost:.0%} of the text" if run.text_lost else ""
        rows.append(("Left out", f"{amount(run.n_truncated)} ends of texts longer than the context{share}"))
    if lost := {kind: n for kind, n in asdict(run.n_overflowed).items() if n}:
        words = " and ".join(f"{amount(n)} {kind}" for kind, n in lost.items())
        rows.append(("Overflow", f"activations on {words} texts are not finite; what rests on them is undefined"))
    return shown(rows)


def subject_facts(run: RunRecord) -> list[tuple[str, str]]:
    """The model, the features and the texts that they are seen on."""
    features, n_texts = run.features, run.corpus.texts
    return [
        ("Model", run.model.name),
        ("Features", _listed(features.kind, features.architecture, features.hook)),
        ("SAE", _listed(features.release, features.sae_id)),
        ("Neuronpedia", features.neuronpedia_id),
        ("Corpus", _listed(run.corpus.source, "" if n_texts is None else f"{amount(n_texts)} texts")),
        ("Context", "" if run.context is None else f"{run.context} tokens"),
    ]


def shown(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is known of them, in short."""
    return [(name, clip(value, 400)) for name, value in rows if value]


def _listed(*parts: str) -> str:
    return "; ".join(WORDS.get(part, part) for part in parts if part)


def _reliability(run: RunRecord) -> list[tuple[str, str]]:
    """How the judge rated texts whose rating is known, and how far it agrees with itself and with another judge."""
    rows: list[tuple[str, str]] = []
    if gold := run.gold:
        rates = ((n, getattr(gold, n), getattr(gold, f"{n}_interval")) for n in ("sensitivity", "specificity"))
        words = [f"{name} {number(rate)}{_limits(interval)}" for name, rate, interval in rates]
        kappa = f"weighted kappa {number(gold.agreement.weighted)}"
        rows.append(("Judge on the gold set", "; ".join([f"{amount(gold.agreement.n)} texts", *words, kappa])))
    for one in run.agreement:
        words = f"equal on {number(one.same)} of {amount(one.n)} texts; kappa {number(one.kappa)}"
        rows.append(("Judge's agreement", f"{one.by}: {words}, weighted {number(one.weighted)}"))
    return rows


def _limits(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"


def _stopped(why: Counter[str], of: int) -> list[tuple[str, str]]:
    """Why fewer texts were rated than the settings allow, and for how many descriptions."""
    return [
        ("Rating stopped early", f"{amount(n)} of {amount(of)} descriptions: {reason}")
        for reason, n in why.most_common(3)
    ]


def _usage(usage: Usage) -> str:
    words = {
        "calls": "requests answered", "cached": "taken from the store", "prompt_tokens": "tokens read", "completion_tokens": "tokens written",
        "retries": "retries", "failed": "given up",
    }  # fmt: skip
    return ", ".join(f"{amount(getattr(usage, key))} {word}" for key, word in words.items())
