"""Several runs side by side: their means by layer, width, L0 and explainer, and differences, paired where they share features.

`fade_lens.analysis.summary` makes the numbers; here is what the runs are called, what is known about their SAEs, and how all of it is shown.
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.files import write_csv, write_text
from fade_lens._util.words import amount, number, visible
from fade_lens.analysis.summary import BEST, Key, check_reference, compare_sources, difference, specs_among, summary
from fade_lens.runs.record import L0_IN_NAME
from fade_lens.runs.results import RESULTS_FILE, Result, Results
from fade_lens.scorers.base import ScoreSpec

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

MOST_PAIRED = 20
"""Runs of which every pair is compared; of more, the best with each other one. A pair takes about a second, and a sentence to read."""
ALIKE, UNKNOWN = "not told apart", "too few features to tell"
MOST_NAMED = 8
"""Runs that a sentence names of one kind."""


@dataclass(frozen=True)
class RunFacts(Brief):
    """What a run's record tells about what it scored; None and "" where it does not tell.

    `l0` is the mean number of latents that fire on a token, `l0_from` how it is known: "given", "release" (SAELens lists it), "name" (of the
    SAE), "measured" (by the run before it scored), or "estimate" (mean firing rate of the run's features times the width, right as far as they are drawn at random from all).
    `release` is SAELens' name for what the SAE came with. `recovered` and `health` are what the run saw of its SAE before it scored: the share of
    the loss recovered, and the figures that tell most with the causes of warnings. `architecture` is the SAE's, or the kind of other features.
    `weighted` runs have latents that stand for unequal numbers of others (`Results.weights`).
    """

    run: str
    model: str
    features: str
    layer: int | None
    width: int | None
    l0: float | None
    l0_from: str
    release: str
    explainer: str
    judge: str
    n_descriptions: int
    n_features: int
    recovered: float | None = None
    health: str = ""
    architecture: str = ""
    weighted: bool = False


@dataclass(frozen=True)
class Comparison(Brief):
    """Runs side by side.

    Attributes:
        runs: what each run scored.
        frame: one row a group (a run unless other groups were asked for) and metric: the facts of the run, then `mean`, `low`, `high`,
            `n`, `n_features`, `undefined`, `reasons` as in `fade_lens.analysis.summary.summary`.
        differences: one row a metric and pair of runs, as in `fade_lens.analysis.summary.compare_sources`.
        reference: the run that was compared with every other, or "best"; None where all pairs were.
        by: what the groups of `frame` are.
        specs: the scores of any of the runs.
    """

    runs: tuple[RunFacts, ...]
    frame: "pd.DataFrame"
    differences: "pd.DataFrame"
    by: str = "run"
    specs: tuple[ScoreSpec, ...] = ()
    reference: str | None = None

    @property
    def paired(self) -> "pd.DataFrame":
        """The rows of `differences` that compare the same features."""
        return self.differences.loc[self.differences["paired"]]

    @property
    def sentences(self) -> tuple[str, ...]:
        """For each pair of runs one sentence: which is more interpretable, by what scores, and how many latents would settle the others.

        With a `reference`, for each score one sentence: which runs are lower or higher, which are not told apart, and what would settle these.
        """
        titles, rows = {spec.name: spec.title for spec in self.specs}, self.differences.to_dict("records")
        if self.reference is not None:
            by_score = ((title, [row for row in rows if row["metric"] == name]) for name, title in titles.items())
            return tuple(standing(title, some, self.reference) for title, some in by_score if some)
        pairs = dict[tuple[str, str], list[Mapping[str, Any]]]()
        for row in rows:
            pairs.setdefault((row["a"], row["b"]), []).append(row)
        return tuple(filter(None, (sentence(a, b, some, titles) for (a, b), some in pairs.items())))

    def to_csv(self, path: str | Path) -> Path:
        """Write `frame`, and `differences` beside it as NAME-differences.csv."""
        path = write_csv(self.frame, path)
        beside = path.with_name(f"{path.stem}-differences{path.suffix or '.csv'}")
        write_csv(self.differences, beside)
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with tables and plots."""
        from fade_lens.report.comparison import comparison_page

        return write_text(path, comparison_page(self))

    def plot(self, against: str = "run") -> "go.Figure":
        """Means with 95 % intervals, against "run", "layer", "width", "l0", "recovered" or "architecture"."""
        from fade_lens.report.comparison import comparison_figure

        return comparison_figure(self, against)

    def _repr_html_(self) -> str:
        from fade_lens.report.comparison import comparison_tables

        return comparison_tables(self)


def compare(
    *results: Results | str | Path,
    names: Sequence[str] | None = None,
    l0: Sequence[float] | None = None,
    by: str | Key = "run",
    scores: Sequence[str] | None = None,
    seed: int = 0,
    reference: str | None = None,
) -> Comparison:
    """Two or more runs side by side.

    Args:
        results: `Results`, files that `Results.save` wrote, or folders of `fade-lens evaluate`.
        names: what to call the runs; without them, by their folders or files, `Results` by what tells them apart.
        l0: of each run's SAE, where its record does not tell.
        by: "run", or other groups over all runs together: "layer", "width", "l0", "release", "sae", "explainer", any column of
            `Results.frame`, a function of a `Result`.
        scores: which, and any column of numbers of `Results.frame`, such as "detection_auroc"; None: every score of the runs.
        seed: of bootstraps and permutations.
        reference: the run, by its name, that every other is compared with; "best": of each score the run whose mean is highest. Without it all
            pairs are compared, of more than 20 runs the best with every other.

    Raises:
        InputError: fewer than two runs, a run given twice, names that do not fit, a file that holds no results, an unknown reference.
    """
    runs = [one if isinstance(one, Results) else Results.load(one) for one in results]
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run was given; a comparison needs at least two")
    places = [one if isinstance(one, Results) else folder_of(one) for one in results]
    for a, b in combinations(range(len(runs)), 2):
        if runs[a] is runs[b] or places[a] == places[b] or runs[a] == runs[b]:
            raise InputError(f"runs {a + 1} and {b + 1} are the same run: give two that were made apart")
    if empty := [place for place, run in enumerate(runs, 1) if not len(run)]:
        raise InputError(f"run {empty[0]} holds no description; leave it out")
    for field, given in (("names", names), ("l0", l0)):
        if given is not None and len(given) != len(runs):
            raise InputError(f"{field} holds {len(given)} values for {len(runs)} runs; give one for each")
    if names is not None and len(set(names)) < len(names):
        raise InputError(f"names {list(names)} holds a name twice; give each run its own")
    facts = [facts_of(run, given) for run, given in zip(runs, l0 or [None] * len(runs), strict=True)]
    return side_by_side(
        runs, names or called_by(results, facts), l0=l0, by=by, scores=scores, seed=seed, reference=reference
    )


def side_by_side(
    runs: Sequence[Results],
    names: Sequence[str],
    *,
    l0: Sequence[float] | None = None,
    by: str | Key = "run",
    scores: Sequence[str] | None = None,
    seed: int = 0,
    reference: str | None = None,
) -> Comparison:
    """`compare` for runs that are there, one alone too, each with its name."""
    check_reference(reference, names)
    facts = [facts_of(run, given) for run, given in zip(runs, l0 or [None] * len(runs), strict=True)]
    known = tuple(replace(fact, run=visible(name)) for fact, name in zip(facts, names, strict=True))
    renamed = {f"run {place}": fact for place, fact in enumerate(known)}
    frame = summary([_with_l0(run, fact) for run, fact in zip(runs, known, strict=True)], by, scores=scores, seed=seed)
    if by == "run":
        frame = _with_facts(frame, renamed)
    if reference is None and len(runs) > MOST_PAIRED:
        reference = BEST
    first = next((f"run {place}" for place, name in enumerate(names) if name == reference), reference)
    differences = no_differences()
    if len(runs) > 1:
        differences = compare_sources(runs, "run", scores=scores, seed=seed, reference=first)
    for side in ("a", "b"):
        differences[side] = [renamed[name].run for name in differences[side]]
    shown = tuple(spec for spec in specs_among(runs) if spec.name in set(frame["metric"]))
    return Comparison(known, frame, differences, by if isinstance(by, str) else "group", shown, reference)


def no_differences() -> "pd.DataFrame":
    """The frame of differences without a row."""
    import pandas as pd

    return pd.DataFrame(columns=["metric", "a", "b", *difference({}, {}, 0)]).astype({"paired": bool})


def sentence(a: str, b: str, rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Two runs in one sentence, from the rows of their differences: those of the scores in `titles`; "" where none is defined."""
    found: dict[str, list[str]] = {a: [], b: [], ALIKE: [], UNKNOWN: []}
    for row in rows:
        if row["metric"] in titles and not math.isnan(row["difference"]):
            kind, words = told(row)
            title = titles[row["metric"]]
            apart = f"{number(abs(row['difference']))} of {title} ({words})"
            found[kind].append(apart if kind in (a, b) else f"{title} ({words})")
    parts = [
        f"{one} is more interpretable than {b if one == a else a} by {_all(found[one])}" for one in (a, b) if found[one]
    ]
    for kind in (ALIKE, UNKNOWN):
        if found[kind]:
            parts.append(f"{'' if parts else f'{a} and {b}: '}{kind} by {_all(found[kind])}")
    return f"{'; '.join(parts)}." if parts else ""


def standing(title: str, rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """How the runs stand to the first of each pair by one score, in one sentence: the highest first."""
    found: dict[str, list[str]] = {"higher": [], "lower": [], ALIKE: [], UNKNOWN: []}
    for row in sorted((row for row in rows if not math.isnan(row["difference"])), key=lambda row: row["difference"]):
        kind, words = told(row)
        apart = {row["a"]: "lower", row["b"]: "higher"}.get(kind)
        size = f"{number(abs(row['difference']))}, " if apart else ""
        found[apart or kind].append(f"{row['b']} ({size}{words})")
    parts = [f"{'highest is' if reference == BEST else 'against'} {rows[0]['a']}"]
    for kind, some in found.items():
        if some:
            more = [f"{len(some) - MOST_NAMED} more"] * (len(some) > MOST_NAMED)
            parts.append(f"{kind}: {_all(some[:MOST_NAMED] + more)}")
    return f"{title}: {'; '.join(parts)}."


def told(row: Mapping[str, Any]) -> tuple[str, str]:
    """Which of two runs is higher by one score, if they are told apart: where the interval leaves 0 out and the test agrees (p ≤ 0.05); in numbers."""
    value, low, high = row["difference"], row["low"], row["high"]
    if math.isnan(low):
        return UNKNOWN, f"{number(value)}{_settled_by(row)}"
    if low * high > 0 and row["p_value"] <= 0.05:
        near, far = sorted(map(abs, (low, high)))
        return row["a" if value > 0 else "b"], f"{number(near)} to {number(far)}"
    return ALIKE, f"{number(value)}, {number(low)} to {number(high)}{_settled_by(row)}"


def further(row: Mapping[str, Any]) -> tuple[str, str]:
    """About how many further latents would settle a difference, and whether of each of the two; empty where none would, or none are needed."""
    import pandas as pd

    if pd.isna(row["further"]) or not row["further"]:
        return "", ""
    return amount(int(float(f"{row['further']:.2g}"))), "" if row["paired"] else " of each"


def _settled_by(row: Mapping[str, Any]) -> str:
    n, each = further(row)
    return n and f"; about {n} further latents{each} would settle it"


def _all(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def folder_of(source: str | Path) -> Path:
    """The folder of a run, or a file that has another name than the one in it."""
    path = Path(source).expanduser().absolute()
    return path.parent if path.name == RESULTS_FILE else path


def called_by(results: Sequence[Results | str | Path], facts: Sequence[RunFacts]) -> list[str]:
    """Folders and files by the ends of their paths that tell them apart; `Results` by their facts."""
    told = told_apart(facts)
    paths = [None if isinstance(one, Results) else folder_of(one) for one in results]
    for size in range(1, max((len(path.parts) for path in paths if path), default=0) + 1):
        names = ["/".join(path.parts[-size:]) if path else name for path, name in zip(paths, told, strict=True)]
        if len(set(names)) == len(names):
            return names
    return told


def facts_of(results: Results, l0: float | None = None) -> RunFacts:
    """What the record of a run tells about what it scored."""
    # Tables of pandas cannot hold every string that JSON can: what is unseen becomes its code here.
    run, features = results.run, results.run.features
    rates, explainers, sources = dict[int, float](), set[str](), set[str]()
    for result in results:
        rates[result.description.index] = result.feature_columns["firing_rate"]
        explainers.add(explainer_of(result))
        sources.add(p.source if (p := result.description.provenance).kind == "neuronpedia" else "")
    known, how = (l0, "given") if l0 is not None else _l0_of(results, rates, sources)
    return RunFacts(
        run="",
        model=visible(run.model.name),
        features=visible(" ".join(filter(None, (features.kind, features.architecture, features.hook)))),
        layer=features.layer,
        width=features.size,
        l0=known,
        l0_from=how,
        release=visible(features.release),
        explainer=visible(_listed(sorted(explainers))),
        judge=visible(run.judge.model if run.judge else ""),
        n_descriptions=len(results),
        n_features=len(rates),
        recovered=None if run.health is None else run.health.value("ce_recovered_zero"),
        health="" if run.health is None else visible(run.health.summary),
        architecture=visible(features.architecture or features.kind),
        weighted=bool(results.weights),
    )


def explainer_of(result: Result) -> str:
    """Who wrote a description: the maker of one of Neuronpedia's, else where it comes from."""
    known = result.description.provenance
    return (known.kind == "neuronpedia" and known.maker) or str(known)


def told_apart(facts: Sequence[RunFacts]) -> list[str]:
    """Names from the facts in which the runs differ; runs that differ in none are numbered."""
    shown = {
        "model": "",
        "layer": "layer ",
        "width": "width ",
        "l0": "L0 ",
        "release": "",
        "features": "",
        "explainer": "",
        "judge": "judge ",
    }
    rows = [asdict(fact) for fact in facts]
    differing = [key for key in shown if len({row[key] for row in rows}) > 1]
    if {"layer", "width", "release"} & set(differing):
        differing = [key for key in differing if key != "features"]  # says the same at greater length
    names = [
        ", ".join(f"{shown[key]}{_short(row[key])}" for key in differing if row[key] not in (None, "")) for row in rows
    ]
    return [
        name if name and names.count(name) == 1 else f"{name or 'run'} ({place})" for place, name in enumerate(names, 1)
    ]


def varying(comparison: Comparison) -> Iterator[str]:
    """Which of layer, width, L0, the loss recovered and architecture are known of all runs and differ between them."""
    for name in ("layer", "width", "l0", "recovered", "architecture"):
        values = [getattr(fact, name) for fact in comparison.runs]
        if not {None, ""} & set(values) and len(set(values)) > 1:
            yield name


def _l0_of(results: Results, rates: Mapping[int, float], sources: Set[str]) -> tuple[float | None, str]:
    features = results.run.features
    if features.kind != "sae":
        return None, ""
    if features.l0 is not None:
        return features.l0, "release"
    names = {features.neuronpedia_id, features.sae_id, *sources}
    found = {float(match[1]) for name in names if (match := L0_IN_NAME.search(name))}
    if len(found) == 1:
        return found.pop(), "name"
    if results.run.health is not None and (l0 := results.run.health.value("l0")) is not None:
        return l0, "measured"
    if features.size and rates:
        known = results.relative_weights
        weights = [known.get(index, 1.0) for index in rates]
        return features.size * sum(map(mul, weights, rates.values())) / sum(weights), "estimate"
    return None, ""


def _with_l0(run: Results, fact: RunFacts) -> Results:
    """The run with the L0 in its record, to group by."""
    if fact.l0 is None:
        return run
    return replace(run, run=replace(run.run, features=replace(run.run.features, l0=float(_short(fact.l0)))))


def _with_facts(frame: "pd.DataFrame", facts: Mapping[str, RunFacts]) -> "pd.DataFrame":
    """The frame with the facts of its run before each row's numbers."""
    import pandas as pd

    known = pd.DataFrame([asdict(facts[group]) for group in frame["group"]]).drop(
        columns=["n_features", "n_descriptions"]
    )
    for name in ("layer", "width"):
        known[name] = known[name].astype("Int64")
    return pd.concat([known, frame.drop(columns="group").reset_index(drop=True)], axis=1)


def _listed(names: Sequence[str], most: int = 3) -> str:
    named = [name for name in names if name]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
