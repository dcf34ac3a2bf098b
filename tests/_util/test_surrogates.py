"""Half characters (lone surrogates), which JSON may hold and UTF-8 may not: they crash nothing that hashes, writes or shows text."""

from dataclasses import replace

import pytest

from fade_lens import Fade, Results, compare_sources, summary
from fade_lens._util.files import clean
from fade_lens.data.descriptions import Description
from fade_lens.runs.record import FeaturesRecord, RunRecord
from tests.fake_judge import FakeJudge
from tests.made_up import made_up_results
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

HALF = "half \ud800 a character"
SMALL = {
    "prompts": 10,
    "prompt_tokens": 4,
    "new_tokens": 4,
    "rated_texts": 60,
    "synthetic_texts": 10,
    "factors": (1.0,),
}


@pytest.fixture
def results() -> Results:
    """Two sources of descriptions of the same features, one with such a name."""
    items = [
        replace(r, description=Description(number, f"{HALF} {number}", origin))
        for origin in (HALF, "other")
        for number, r in enumerate(made_up_results(6, n_rated=40))
    ]
    return Results(tuple(items), RunRecord(features=FeaturesRecord(hook=HALF)))


@pytest.mark.parametrize("by", ["explainer", "sae", "description"])
def test_means_by_group(results, by):
    assert len(summary(results, by)) >= 5
    assert len(results.summary(by)) >= 5


def test_paired_tests(results):
    compared = compare_sources(results)
    assert (
        set(compared["a"]) | set(compared["b"]) == {clean(HALF), "other"}
        and compared["difference"].dropna().eq(0).all()
    )


def test_every_way_out(results, tmp_path):
    results.frame.to_csv(tmp_path / "results.csv", errors="replace")
    assert "half" in results.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "half" in results._repr_html_()
    kept = results.save(tmp_path / "results.sqlite")
    assert Results.load(kept) == results


def test_a_whole_run(tmp_path):
    """In a description, a natural text and what the judge writes."""

    def half(concept: str, i: int) -> list[str]:
        return [f"{text} \ud800" for text in writer(concept.split(" (")[0], i)]

    described = {index: f"{text} (\ud800)" for index, text in TRUE.items()}
    texts = [f"{text} \ud800" if n % 3 == 0 else text for n, text in enumerate(natural_texts(200))]
    with FakeJudge(rule=lambda concept, text: rule(concept.split(" (")[0], text), writer=half) as server:
        fade = Fade(planted_model(), planted_sae(), corpus=texts, judge=judge_of(server), **SMALL)
        first = fade.evaluate(described, store=tmp_path, progress=False)
        asked = server.requests
        again = fade.evaluate(described, store=tmp_path, progress=False)
        assert server.requests <= asked + 2, "every answer is found again"
    for one, other in zip(first, again, strict=True):
        assert one.metrics == other.metrics and one.clarity.value > 0.9
    assert Results.load(first.save(tmp_path / "results.sqlite")).items == first.items
    first.to_html(tmp_path / "report.html")
