"""Kappa against scikit-learn's; gold sets; and what a whole run reports about its judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fade_lens import Fade, Judge, Results
from fade_lens._util.errors import InputError
from fade_lens.judge.reliability import Agreement, Reliability, cohen_kappa, counts, gold_report, read_gold
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

SMALL = {
    "prompts": 6,
    "prompt_tokens": 4,
    "new_tokens": 4,
    "rated_texts": 120,
    "synthetic_texts": 10,
    "factors": (1.0,),
}
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_kappa_is_scikit_learns(pairs):
    from sklearn.metrics import cohen_kappa_score

    first, second = map(list, zip(*pairs, strict=True))
    table = counts(first, second)
    for weighted, weights in ((False, None), (True, "quadratic")):
        found = cohen_kappa(table, weighted=weighted)
        if found is None:
            assert len({*first, *second}) == 1
        else:
            expected = cohen_kappa_score(first, second, labels=[0, 1, 2], weights=weights)
            assert found == pytest.approx(expected, abs=1e-9)


def test_kappa_at_its_ends():
    assert cohen_kappa(np.diag([5, 2, 3])) == 1.0
    assert cohen_kappa(np.outer([5, 2, 3], [5, 2, 3])) == pytest.approx(0.0)
    assert cohen_kappa(np.zeros((3, 3), dtype=np.int64)) is None
    assert cohen_kappa(np.diag([9, 0, 0])) is None


def test_texts_without_both_ratings_are_counted():
    found = Agreement.of("repeat 1", [0, 1, 2, None, 2], [0, None, 2, 1, 0])
    assert (found.n, found.unrated, found.same) == (3, 2, pytest.approx(2 / 3))
    assert found.flag is None  # of three texts nothing is told
    assert "little agreement with x" in Agreement.of("x", [0, 2] * 20, [2, 0] * 20).flag


def test_gold_sets(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text('concept,text,rating\nanimals,"a cat, a dog",2\nanimals,,0\n')
    items = read_gold(path)
    assert [(i.concept, i.text, i.rating) for i in items] == [("animals", "a cat, a dog", 2), ("animals", "", 0)]
    assert read_gold([("animals", "a cat, a dog", 2), ("animals", "", "0")]) == items
    report = gold_report(read_gold([("c", "t", r) for r in (2, 2, 2, 2, 0, 0, 1)]), [2, 2, 2, 0, 0, None, 1])
    assert report.sensitivity == 0.75 and report.specificity == 1.0 and report.agreement.unrated == 1
    assert report.sensitivity_interval == pytest.approx((0.3006, 0.9544), abs=1e-3)  # Wilson's


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.csv", "'nowhere.csv' does not exist"),
        ([], "holds no row"),
        ([("c", "t")], "row 1: give"),
        ([("c", "t", 3)], "must be 0, 1 or 2"),
        ([("", "t", 1)], "not an empty one"),
    ],
)
def test_bad_gold_sets(source, message):
    with pytest.raises(InputError, match=message):
        read_gold(source)


def test_a_gold_file_without_its_columns(tmp_path):
    (tmp_path / "g.csv").write_text("concept,text\na,b\n")
    with pytest.raises(InputError, match="no column 'rating'"):
        read_gold(tmp_path / "g.csv")


@pytest.fixture(scope="module")
def parts():
    return planted_model(), planted_sae(), natural_texts()


def careless(concept, text):
    """Rates as the rule does, but every second text wrongly, whichever it is."""
    return 2 - rule(concept, text) if sum(map(ord, text)) % 2 == 0 else rule(concept, text)


def test_a_run_reports_how_far_its_judge_can_be_trusted(parts, tmp_path):
    model, sae, texts = parts
    gold = [(TRUE[0], text, rule(TRUE[0], text)) for text in texts[:80]]
    with FakeJudge(rule=rule, writer=writer) as good, FakeJudge(rule=careless, writer=writer) as bad:
        fade = Fade(model, sae, corpus=texts, judge=judge_of(good), **SMALL)
        plain = fade.evaluate(TRUE, progress=False)
        again = {"repeats": 1, "second_judge": f"{bad.base_url}#careless", "gold": gold}
        before = good.requests
        estimate = fade.estimate(TRUE, **again)
        results = fade.evaluate(TRUE, progress=False, store=tmp_path, **again)
        assert good.requests + bad.requests - before <= estimate.calls + 2
        assert results.run.gold.agreement.kappa == 1.0 and results.run.gold.sensitivity == 1.0
        own, other = results.run.agreement
        assert (own.by, own.n, own.kappa) == ("repeat 1", 3 * 45, 1.0)
        assert (other.by, other.n) == ("careless", 3 * 45) and 0.3 < other.same < 0.7 and other.weighted < 0.4
        assert results.run.second_judge["model"] == "careless"
        for result, without in zip(results, plain, strict=True):
            assert [one.by for one in result.agreement] == ["repeat 1", "careless"]
            assert any("little agreement with careless" in flag for flag in result.flags)
            assert result.metrics == without.metrics, "questions about the judge change no number"
            of_gold = 6 if result.description.index == 0 else 0
            assert result.usage.calls == without.usage.calls + 6 + of_gold
        assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items
        asked = good.requests, bad.requests
        fade.evaluate(TRUE, progress=False, store=tmp_path, **again)
        assert (good.requests - asked[0], bad.requests - asked[1]) == (0, 1), "only the new second judge's check"
    wrong = [(concept, text, 2 - rating) for concept, text, rating in gold]
    with FakeJudge(rule=rule, writer=writer) as server:
        report = Fade(model, sae, corpus=texts, judge=judge_of(server), **SMALL).evaluate(
            {0: TRUE[0]}, progress=False, gold=wrong
        )
        assert report.run.gold.specificity == 0.0 and report.run.gold.agreement.kappa < 0


def test_arguments_that_cannot_be_used():
    with pytest.raises(InputError, match="repeats is -1"):
        Reliability(Judge("m", base_url="http://h/v1"), repeats=-1)
    with pytest.raises(InputError, match="needs the price of every judge"):
        Reliability(Judge("m", base_url="http://h/v1", price=(1.0, 1.0), max_cost=1.0), second="http://h/v1#other")
