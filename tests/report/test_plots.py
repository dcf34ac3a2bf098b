"""The plotly figures: what is drawn is the evidence, what is undefined is said, hostile texts stay text."""

import json
import re

import plotly.graph_objects as go
import pytest

from fade_lens.report.plots import ONE_BY_ONE, label, overview_figure, result_figure
from fade_lens.runs.results import Results
from fade_lens.scorers.fade import METRICS
from tests.made_up import HOSTILE, KINDS, made_up_result, made_up_results


def said(figure: go.Figure) -> str:
    """All words of a figure."""
    return str(json.loads(figure.to_json()))


def test_panels_hold_the_evidence() -> None:
    result = made_up_result("right", index=1)
    figure = result_figure(result)
    assert [a.text for a in figure.layout.annotations[:4]] == [
        "Activation: synthetic and natural texts",
        "Activation by the judge's rating",
        "Concept rate by steering factor",
        "The scores",
    ]
    boxes = [t for t in figure.data if isinstance(t, go.Box)]
    assert list(boxes[0].y) == list(result.feature.quantiles)
    assert list(boxes[1].y) == [t.activation for t in result.clarity_evidence.texts if t.activation is not None]
    for trace, rating in zip(boxes[2:], (0, 1, 2, None), strict=True):
        assert list(trace.y) == [t.activation for t in result.rated_evidence.texts if t.rating == rating]
        assert f"n = {len(trace.y)}" in trace.name
    [rate] = [t for t in figure.data if isinstance(t, go.Scatter)]
    assert list(rate.x) == ["0", "0.5", "1", "2", "3"]
    assert rate.y[0] == pytest.approx(result.faithfulness.details["rate_0"])
    assert all(e >= 0 for e in (*rate.error_y.array, *rate.error_y.arrayminus))
    assert "unsteered model" in said(figure)
    radar, missing = (t for t in figure.data if isinstance(t, go.Scatterpolar))
    assert list(radar.r) == [result.metrics[n].value for n in METRICS] + [result.clarity.value]
    assert not missing.r


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_undefined_metrics_are_absent_and_said(kind: str) -> None:
    result = made_up_result(kind, index=1)
    figure = result_figure(result)
    defined = [m.value for m in result.metrics.values() if m.value is not None]
    radar, missing = (t for t in figure.data if isinstance(t, go.Scatterpolar))
    assert list(radar.r or ())[: len(defined)] == defined
    assert len(missing.r or ()) == 4 - len(defined)
    notes = [a.text for a in figure.layout.annotations if a.text.startswith("×")]
    assert len(notes) == 4 - len(defined)
    if result.faithfulness.value is None:
        assert "not steered" in said(figure)


def test_negative_metrics_are_inside_the_radar() -> None:
    kinds = [made_up_result("wrong", index=i) for i in range(16)]
    negative = [r for r in kinds if any((m.value or 0) < 0 for m in r.metrics.values())]
    assert negative
    for result in negative:
        low = result_figure(result).layout.polar.radialaxis.range[0]
        assert low <= min(m.value for m in result.metrics.values() if m.value is not None)


@pytest.mark.parametrize("n", [1, 2, ONE_BY_ONE])
def test_few_descriptions_are_drawn_one_by_one(n: int) -> None:
    results = made_up_results(n, n_rated=50, characters=20)
    figure = overview_figure(results)
    assert len(figure.data) == 8
    for name, shown, absent in zip(METRICS, figure.data[::2], figure.data[1::2], strict=True):
        values = [r.metrics[name].value for r in results]
        assert sorted(shown.x) == sorted(v for v in values if v is not None)
        assert len(absent.x) == values.count(None)
        if None in values:
            assert f"{values.count(None)} undefined" in said(figure)
    assert len(set(figure.layout.yaxis.categoryarray)) == n


def test_the_same_words_twice_are_two_rows() -> None:
    twice = made_up_result(index=3)
    figure = overview_figure(Results((twice, twice)))
    assert len(set(figure.layout.yaxis.categoryarray)) == 2


def test_many_descriptions_are_drawn_as_distributions() -> None:
    results = made_up_results(120, n_rated=50, characters=20)
    figure = overview_figure(results)
    assert [type(t) for t in figure.data] == [go.Histogram] * 4
    for name, trace in zip(METRICS, figure.data, strict=True):
        values = [r.metrics[name].value for r in results]
        assert list(trace.x) == [v for v in values if v is not None]
        assert f"{values.count(None)} undefined" in said(figure)


def test_no_descriptions_make_an_empty_figure() -> None:
    assert overview_figure(Results(())).layout.title.text == "0 descriptions"


def test_hostile_texts_stay_text() -> None:
    results = made_up_results(len(HOSTILE), hostile=True, n_rated=40)
    for figure in (overview_figure(results), *(result_figure(r) for r in results)):
        words = figure.to_json()
        words.encode("utf-8")
        for found in re.findall(r"<[^>]*>|<\S+", json.loads(json.dumps(words))):
            assert found in ("<br>", "<b>", "</b>", "<extra>", "</extra>") or found.startswith("\\u003c"), found
    for string in HOSTILE:
        assert not set("<>$") & set(label(string)), string
