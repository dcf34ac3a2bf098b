"""Runs side by side: names, facts, means and pairs as `aggregates` gives them, files, the page, the command."""

import re
import sys
from dataclasses import replace

import pandas as pd
import pytest

import fade_lens
from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.analysis import compare as compare_module
from fade_lens.analysis.compare import compare, facts_of, told_apart, varying
from fade_lens.analysis.summary import compare_sources, summary
from fade_lens.cli import main
from fade_lens.data.descriptions import Description, Provenance
from fade_lens.metrics.metric import Metric
from fade_lens.runs.record import JudgeRecord
from fade_lens.runs.results import Results
from tests.made_up import HOSTILE, made_up_results, with_evidence
from tests.report.test_page import Document


def run_of(layer=9, size=4096, n=16, judge="small", shift=0.0, name="", **features) -> Results:
    """A run whose Clarity is `shift` higher than that of another."""
    made = made_up_results(n, n_rated=20, characters=20)
    items = tuple(
        with_evidence(r, clarity=replace(r.clarity_evidence, clarity=Metric(r.clarity.value + shift)))
        if r.clarity.value is not None
        else r
        for r in made
    )
    told = replace(made.run.features, hook=f"blocks.{layer}.hook_resid_post", size=size, **features)
    return replace(made, items=items, run=replace(made.run, features=told, judge=JudgeRecord(judge)))


def test_runs_are_called_by_what_tells_them_apart():
    names = [r.run for r in compare(run_of(5), run_of(9), run_of(9, 16384)).runs]
    assert names[0].startswith("layer 5, width 4096") and names[2].startswith("layer 9, width 16384")
    assert [r.run for r in compare(run_of(), run_of(judge="large")).runs] == ["judge small", "judge large"]
    assert [r.run for r in compare(run_of(), run_of(shift=0.01)).runs] == ["run (1)", "run (2)"]
    assert told_apart([facts_of(run_of())]) == ["run (1)"]


def test_means_are_those_of_the_aggregates():
    runs = [run_of(5), run_of(9, shift=-0.2)]
    comparison = fade_lens.compare(*runs, names=["low", "high"])
    frame, theirs = comparison.frame, summary(runs, "run")
    assert frame["run"].unique().tolist() == ["low", "high"]
    for column in ("metric", "mean", "low", "high", "n", "undefined", "reasons"):
        pd.testing.assert_series_equal(frame[column], theirs[column])
    assert frame["layer"].unique().tolist() == [5, 9]
    clarity = frame[frame.metric == "clarity"]["mean"].tolist()
    assert clarity[0] - clarity[1] == pytest.approx(0.2)


def test_runs_over_the_same_features_are_paired():
    comparison = compare(run_of(shift=0.1), run_of(judge="large"), run_of(5))
    pairs = comparison.paired
    assert set(pairs["a"]) == {comparison.runs[0].run} and set(pairs["b"]) == {comparison.runs[1].run}
    row = pairs[pairs.metric == "clarity"].iloc[0]
    assert row.difference == pytest.approx(0.1) and row.low == pytest.approx(0.1) and row.p_value < 0.01
    theirs = compare_sources([run_of(shift=0.1), run_of(judge="large")], "run")
    assert row.p_value == theirs[theirs.metric == "clarity"].iloc[0].p_value
    assert len(compare(run_of(5), run_of(9)).paired) == 0


def test_runs_over_other_features_are_compared_as_two_groups():
    found = compare(run_of(5, shift=0.3), run_of(9), names=["early", "late"])
    row = found.differences.set_index("metric").loc["clarity"]
    a, b = ([r.clarity.value for r in run if r.clarity.value is not None] for run in (run_of(5, shift=0.3), run_of(9)))
    assert not row.paired and (row.n_a, row.n_b) == (len(a), len(b))
    assert row.difference == pytest.approx(sum(a) / len(a) - sum(b) / len(b)) and row.low < row.difference < row.high
    assert found.paired.empty and (found.differences["further"].dropna() >= 0).all()


def test_one_sentence_says_which_of_two_runs_is_more_interpretable():
    (said,) = compare(run_of(shift=0.1), run_of(judge="large"), names=["ours", "theirs"]).sentences
    assert said.startswith(
        "ours is more interpretable than theirs by 0.10 of Clarity (0.10 to 0.10); not told apart by"
    )
    (said,) = compare(run_of(5), run_of(9, shift=-0.02), names=["early", "late"]).sentences
    assert (
        said.startswith("early and late: not told apart by Clarity (0.02, ")
        and "further latents of each would settle it" in said
    )
    (said,) = compare(run_of(5, n=4), run_of(9, n=4), names=["early", "late"]).sentences
    assert "Clarity (0.00)" in said, "too few for an interval"


def test_runs_are_called_by_their_folders(tmp_path):
    for name, run in (("x/l5", run_of(5)), ("x/l9", run_of(9)), ("y/l5", run_of(judge="large"))):
        run.save(tmp_path / name / "results.sqlite")
    called = lambda *names: [r.run for r in compare(*(tmp_path / n for n in names)).runs]  # noqa: E731
    assert called("x/l5", "x/l9") == ["l5", "l9"]
    assert called("x/l5", "x/l9/results.sqlite", "y/l5") == ["x/l5", "x/l9", "y/l5"]
    assert [r.run for r in compare(tmp_path / "x/l5", run_of(9)).runs] == ["l5", "layer 9"]


def test_a_run_is_not_compared_with_itself(tmp_path):
    run = run_of()
    folder = run.save(tmp_path / "a" / "results.sqlite").parent
    for pair in ((run, run), (folder, run), (folder, folder)):
        with pytest.raises(InputError, match="runs 1 and 2 are the same run"):
            compare(*pair)


def test_columns_of_numbers_are_compared_like_scores():
    a, b = run_of(), run_of(shift=-0.1)
    found = compare(a, b, names=["a", "b"], scores=["clarity", "firing_rate"])
    assert set(found.frame["metric"]) == set(found.paired["metric"]) == {"clarity", "firing_rate"}
    rates = a.frame["firing_rate"]
    row = found.frame.set_index(["run", "metric"]).loc[("a", "firing_rate")]
    assert row["mean"] == pytest.approx(rates.mean()) and row["n"] == len(rates)
    assert found.paired.set_index("metric")["difference"].round(6).to_dict() == {"clarity": 0.1, "firing_rate": 0.0}
    assert [spec.name for spec in found.specs] == ["clarity"] and "firing_rate" in found._repr_html_()
    with pytest.raises(InputError, match="scores holds 'firing_rat', which no result has"):
        summary(a, scores=["firing_rat"])


def test_l0_from_a_name_from_the_user_or_estimated():
    assert (
        facts_of(run_of(sae_id="layer_9/width_16k/average_l0_71")).l0,
        facts_of(run_of(neuronpedia_id="a/5-x__l0-18")).l0,
    ) == (71, 18)
    results = run_of()
    imported = replace(
        results,
        items=tuple(
            replace(
                r,
                description=Description(
                    r.description.index,
                    r.description.text,
                    Provenance("neuronpedia", "gemma-2-2b/5-gemmascope-res-16k__l0-34", "gpt-4o", "t"),
                ),
            )
            for r in results
        ),
    )
    facts = facts_of(imported)
    assert (facts.l0, facts.l0_from, facts.explainer) == (34, "name", "gpt-4o (t)")
    estimate = facts_of(results)
    rates = [r.feature.firing_rate for r in results]
    assert estimate.l0_from == "estimate" and estimate.l0 == pytest.approx(4096 * sum(rates) / len(rates))
    assert facts_of(run_of(kind="neurons")).l0 is None
    given = compare(run_of(5), run_of(9), l0=[20, 70])
    assert [r.l0 for r in given.runs] == [20, 70] and list(varying(given)) == ["layer", "l0"]


def test_other_groups():
    comparison = compare(run_of(5), run_of(9), run_of(9, judge="large"), by="layer")
    assert comparison.frame["group"].unique().tolist() == ["5", "9"]
    assert "Means by layer" in Document(page_of(comparison)).text


def page_of(comparison) -> str:
    from fade_lens.report.comparison import comparison_page

    return comparison_page(comparison)


def test_the_page_and_its_fragment_are_sound_and_hostile_names_are_text():
    names = [HOSTILE[0], HOSTILE[1], HOSTILE[6]]
    comparison = compare(run_of(5), run_of(9), run_of(9, judge=HOSTILE[0]), names=names)
    document = Document(page_of(comparison))
    assert not {"script", "img", "iframe"} & {tag for tag, _ in document.elements}
    assert "default-src 'none'; style-src" in next(a["content"] for a in document.all("meta") if a.get("http-equiv"))
    assert HOSTILE[0] in document.text and "Against layer" in document.text and "⟨U+D800⟩" in document.text
    assert not any(name.startswith("on") or name in ("src", "href") for _, a in document.elements for name in a)
    Document(comparison._repr_html_())
    assert len(comparison.plot("layer").data) == 4
    with pytest.raises(InputError, match="give 'run', or what is known of all runs and differs: layer"):
        comparison.plot("width")


def test_architectures_are_an_axis_of_the_page_and_the_figure():
    kinds = ["topk", "jumprelu", "jumprelu", HOSTILE[0]]
    comparison = compare(*(run_of(5, architecture=kind, weights=str(n)) for n, kind in enumerate(kinds)))
    assert list(varying(comparison)) == ["architecture"]
    document = Document(page_of(comparison))
    assert (
        "Against architecture" in document.text and "run 1: 0." in document.text and " at topk; run 2:" in document.text
    )
    assert not {"script", "img"} & {tag for tag, _ in document.elements}
    xs = comparison.plot("architecture").data[0].x
    assert list(xs[:3]) == kinds[:3]
    places = re.findall(
        r'stroke-width="8" d="M([\d.]+) [\d.]+h0"', page_of(comparison).split("Against architecture")[1]
    )
    assert len(set(places[:4])) == 4 and float(places[1]) < float(places[2]) < float(places[0]) < 300, (
        "two side by side"
    )
    neurons = compare(run_of(5), run_of(5, kind="neurons", architecture=""))
    assert [fact.architecture for fact in neurons.runs] == ["jumprelu", "neurons"]
    assert list(varying(compare(run_of(5), run_of(9, kind="", architecture="")))) == ["layer"], "one is not known"


def test_the_pareto_front_is_drawn_where_less_or_more_is_better_and_nowhere_else():
    from fade_lens.report.comparison import front

    runs = [run_of(5, 4096), run_of(5, 8192, shift=-0.1), run_of(5, 16384, shift=0.05)]
    page = page_of(compare(*runs, l0=[20, 40, 60]))
    narrow = page.split("Against width")[1].split("<h2>")[0]
    assert "none beats 1, 3 in both" in narrow and narrow.count('class="front"') >= 1
    assert "none beats" not in page_of(compare(run_of(5), run_of(9))), "no layer is better"
    points = [(1.0, 0.5, None, 1), (1.0, 0.6, None, 2), (2.0, 0.6, None, 3), (3.0, 0.7, None, 4)]
    assert [p[3] for p in front(points, -1)] == [2, 4] and [p[3] for p in front(points, 1)] == [4]
    assert front(points, 0) == [] and front([], 1) == []


def test_a_metric_undefined_everywhere():
    runs = [
        replace(
            r,
            items=tuple(
                with_evidence(
                    i, clarity=replace(i.clarity_evidence, clarity=Metric(None, Reason("undefined", "no text")))
                )
                for i in r
            ),
        )
        for r in (run_of(5, n=3), run_of(9, n=3))
    ]
    comparison = compare(*runs)
    text = Document(page_of(comparison)).text
    assert "no text (3)" in text and "no interval: too few features" in text


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ([], {}, "0 run was given; a comparison needs at least two"),
        ([5], {}, "1 run"),
        ([5, 9], {"names": ["a"]}, "names holds 1 values for 2 runs"),
        ([5, 9], {"names": ["a", "a"]}, "holds a name twice"),
        ([5, 9], {"l0": [1, 2, 3]}, "l0 holds 3 values"),
        ([5, 9], {"by": "no such"}, "by is 'no such'"),
    ],
)  # fmt: skip
def test_bad_input(arguments, options, message):
    with pytest.raises(InputError, match=message):
        compare(*(run_of(layer, n=2) for layer in arguments), **options)


def test_an_empty_run():
    with pytest.raises(InputError, match="run 2 holds no description"):
        compare(run_of(n=2), Results(()))


def test_the_command(tmp_path, monkeypatch, capsys):
    for name, run in (("a", run_of(5)), ("b", run_of(9)), ("c", run_of(9, judge="large"))):
        run.save(tmp_path / name / "results.sqlite")
    out = tmp_path / "out"
    folders = [str(tmp_path / name) for name in "abc"]
    monkeypatch.setattr(sys, "argv", ["fade-lens", "compare", *folders, "--l0", "18,71,71", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert "Means with 95 % intervals, by run" in capsys.readouterr().out
    frame = pd.read_csv(out / "comparison.csv")
    assert frame["l0"].unique().tolist() == [18, 71] and frame["run"].unique().tolist() == ["a", "b", "c"]
    assert len(pd.read_csv(out / "comparison-differences.csv")) == 15
    assert "3 runs compared" in (out / "comparison.html").read_text(encoding="utf-8")
    for wrong, message in (
        ([str(tmp_path)], "holds no results.sqlite"),
        ([folders[0], "--l0", "x"], "--l0 is 'x'; give numbers"),
        ([*folders, "--reference", "d"], "--reference is 'd', which is none of those compared"),
    ):
        monkeypatch.setattr(sys, "argv", ["fade-lens", "compare", *wrong])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_runs_of_one_sae_are_paired_whatever_it_is_called():
    named = {
        "release": "gpt2-small-res-jb",
        "sae_id": "blocks.9.hook_resid_pre",
        "neuronpedia_id": "gpt2-small/9-res-jb",
    }
    comparison = compare(run_of(shift=0.1, **named), run_of(judge="large"))
    assert len(comparison.paired) and comparison.paired["difference"].iloc[0] == pytest.approx(0.1)
    assert comparison.runs[0].release == "gpt2-small-res-jb"
    assert "(gpt2-small-res-jb)" in Document(page_of(comparison)).text


def test_releases_widths_and_l0_tell_runs_apart_and_group_them():
    runs = run_of(release="res", l0=20.0), run_of(release="res", l0=70.0), run_of(release="res-all", l0=70.0)
    comparison = compare(*runs, by="l0")
    assert [r.run for r in comparison.runs] == ["L0 20, res", "L0 70, res", "L0 70, res-all"]
    assert [(r.l0, r.l0_from) for r in comparison.runs] == [(20, "release"), (70, "release"), (70, "release")]
    assert comparison.frame["group"].unique().tolist() == ["20", "70"]
    assert compare(*runs, by="release").frame["group"].unique().tolist() == ["res", "res-all"]
    assert compare(*runs[:2], l0=[3, 4], by="l0").frame["group"].unique().tolist() == ["3", "4"]
    assert compare(*runs, by="width").frame["group"].unique().tolist() == ["4096"]


def test_of_many_runs_the_best_is_compared_with_every_other_in_a_sentence_a_score(monkeypatch):
    monkeypatch.setattr(compare_module, "MOST_PAIRED", 4)
    monkeypatch.setattr(compare_module, "MOST_NAMED", 2)
    shifts = [-0.02, -0.04, 0.0, -0.03, -0.01]
    runs = [run_of(5, shift=shift, weights=str(n)) for n, shift in enumerate(shifts)]
    found = compare(*runs, names=list("abcde"))
    rows = found.differences.query("metric == 'clarity'")
    assert set(rows["a"]) == {"c"} and rows["b"].tolist() == ["a", "b", "d", "e"]
    assert len(found.sentences) == len(found.specs)
    number = r"0\.0\d, −0\.\d\d to 0\.\d\d; about [\d,]+ further latents of each would settle it"
    assert re.fullmatch(
        rf"Clarity: highest is c; not told apart: e \({number}\), a \({number}\) and 2 more\.", found.sentences[0]
    )
    text = Document(page_of(found)).text
    assert "its lead is a little overstated" in text and re.search(r"[\d,]{3,} of each", text)
    monkeypatch.setattr(compare_module, "MOST_PAIRED", 5)
    assert len(compare(*runs, scores=["clarity"]).differences) == 10


def test_every_run_is_compared_with_the_one_that_is_named():
    runs = {"low": run_of(5), "middle": run_of(5, shift=0.1), "high": run_of(5, shift=0.3), "few": run_of(5, n=3)}
    found = compare(*runs.values(), names=list(runs), reference="middle", scores=["clarity"])
    assert set(found.differences["a"]) == {"middle"} and found.differences["b"].tolist() == ["low", "high", "few"]
    (said,) = found.sentences
    assert said.startswith(
        "Clarity: against middle; higher: high (0.20, 0.20 to 0.20); lower: low (0.10, 0.10 to 0.10)"
    )
    assert "too few features to tell: few (" in said
    assert "Every other run is compared with middle." in Document(page_of(found)).text
    best = compare(*runs.values(), names=list(runs), reference="best", scores=["clarity"])
    assert set(best.differences["a"]) == {"high"} and best.sentences[0].startswith(
        "Clarity: highest is high; lower: middle"
    )
    with pytest.raises(InputError, match="reference is 'hihg', which is none of those compared; did you mean 'high'"):
        compare(*runs.values(), names=list(runs), reference="hihg")
