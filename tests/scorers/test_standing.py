"""How a description stands: by intervals against the gate, in the same words in the frame, on the page, in an audit and in what is printed."""

import copy
import io
import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from fade_lens._util.reasons import Reason
from fade_lens.analysis.audit import audit
from fade_lens.cli.evaluate import table
from fade_lens.metrics.metric import Metric
from fade_lens.neuronpedia import flags
from fade_lens.neuronpedia.frames import frame as imported
from fade_lens.neuronpedia.records import Imported, Row
from fade_lens.report.notebook import result_card, results_table
from fade_lens.report.page import page
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.base import REGISTRY, PlainScores, Scorer, ScoreSpec, scorer
from tests.explained import made_up_explained
from tests.made_up import made_up_result, made_up_results, made_up_run, with_evidence
from tests.report.test_page import Document

SURE = Metric(0.9, interval=(0.7, 1.0), counts={"synthetic": 30})


def judged(responsiveness: Metric, clarity: Metric = SURE, **rated: Any) -> Result:
    """A description with these scores."""
    one = made_up_result()
    texts = replace(one.rated_evidence, responsiveness=responsiveness, **rated)
    return with_evidence(one, clarity=replace(one.clarity_evidence, clarity=clarity), rated_texts=texts)


def rated(value: float, low: float, high: float, n: int = 60) -> Metric:
    return Metric(value, interval=(low, high), counts={"rated_0": n - 20, "rated_1": 10, "rated_2": 10})


@pytest.mark.parametrize(
    ("responsiveness", "word", "why"),
    [
        (rated(0.9, 0.7, 1.0), "holds", "Clarity is 0.90 (0.70 to 1.00) and Responsiveness is 0.90 (0.70 to 1.00), wholly at or above 0.5"),
        (rated(0.9, 0.5, 1.0), "holds", "wholly at or above 0.5"),
        (rated(0.2, -0.1, 0.4), "fails", "Responsiveness is 0.20 (−0.10 to 0.40), wholly below 0.5"),
        (rated(0.6, 0.3, 0.9), "open", "Responsiveness is 0.60 (0.30 to 0.90), on both sides of 0.5: about 500 more rated texts would tell (rated_texts)"),
        (rated(1.0, -0.04, 1.0, 40), "open", "about 130 more rated texts would tell (rated_texts)"),
        (rated(0.4, 0.1, 0.5), "open", "about 10 more rated texts"),
        (rated(0.55, 0.1, 0.9), "open", "more than 1,000 more rated texts would tell"),
        (rated(0.5, 0.1, 0.9), "open", "so near that no number of rated texts would tell"),
        (Metric(0.9, counts={"rated_2": 2, "rated_0": 40}, interval_reason="2 positive and 40 negative texts; an interval needs at least 3 of each"), "open", "Responsiveness is 0.90 without an interval (2 positive and 40 negative texts; an interval needs at least 3 of each); more rated texts may tell (rated_texts)"),
        (Metric(None, Reason("no_positive", "no text is rated 2"), counts={"rated_0": 40}), "open", "Responsiveness is undefined (no text is rated 2); more rated texts may tell (rated_texts)"),
        (Metric(None, Reason("overflow", "activations overflow")), "open", "Responsiveness is undefined (activations overflow)"),
    ],
)  # fmt: skip
def test_a_description_holds_or_fails_where_an_interval_leaves_the_gate_out(
    responsiveness: Metric, word: str, why: str
):
    standing = judged(responsiveness).standing
    assert standing == word and why in standing.why
    for again in (copy.deepcopy(standing), pickle.loads(pickle.dumps(standing))):
        assert again == word and again.why == standing.why


def test_the_setting_is_named_that_buys_more_texts():
    short = Metric(0.6, interval=(0.4, 0.8), counts={"synthetic": 30})
    assert judged(rated(0.9, 0.7, 1.0), short).standing.why.endswith("about 90 more written texts would tell (synthetic_texts)")  # fmt: skip
    stopped = judged(rated(0.6, 0.45, 0.75), stopped="both intervals are no wider than 0.3").standing
    assert stopped.why.endswith("more rated texts would tell (interval_width, rated_texts)")


def test_a_score_that_fails_outweighs_one_that_is_open_or_undefined():
    nothing = Metric(None, Reason("nothing_written", "the judge wrote no text"))
    for other in (nothing, rated(0.6, 0.3, 0.9)):
        standing = judged(rated(0.1, 0.0, 0.2), other).standing
        assert standing == "fails" and "Clarity" not in standing.why


@pytest.mark.parametrize(("gate", "words"), [(0.5, {"holds", "open", "fails", "dead"}), (0.99, {"fails", "open", "dead"})])  # fmt: skip
def test_frame_page_card_notebook_audit_and_printed_table_say_the_same(gate, words, tmp_path):
    made = made_up_results(16)
    results = Results(made.items, replace(made.run, settings={"gate": gate}))
    known = {result.description.index: str(result.standing) for result in results}
    assert set(known.values()) == words
    frame = results.frame.set_index("index")
    assert frame["standing"].to_dict() == known
    assert frame["standing_reason"].to_dict() == {r.description.index: r.standing.why for r in results}
    document = Document(page(results))
    assert {int(a["data-index"] or 0): a["data-standing"] for a in document.all("tr") if "data-place" in a} == known
    assert {c["index"]: (c["standing"], c["why"]) for c in document.cards} == {r.description.index: (r.standing, r.standing.why) for r in results}  # fmt: skip
    for word in words:
        assert f'class="{word}"' in results_table(results)
    for result in results:
        assert f"<b>{known[result.description.index]}</b>" in result_card(results[result.description.index])
    screen = Console(file=io.StringIO(), width=100)
    screen.print(table(results, Path("x.csv")))
    lines = screen.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    printed = {int(one[:8]): two[:8].strip() for one, two in pairwise(lines) if one[:8].strip().isdigit()}  # fmt: skip
    assert printed == known
    labels = tuple(Row(result.description.index, result.description.text) for result in results)
    verdicts = audit(flags(imported(Imported(rows=labels))), results)
    assert verdicts.frame.set_index("index")["standing"].to_dict() == known
    assert {row["index"]: row["verdict"] for row in verdicts.frame.to_dict("records")} == known
    again = Results.load(results.save(tmp_path / "results.sqlite")).frame
    assert again[["standing", "standing_reason"]].equals(results.frame[["standing", "standing_reason"]])


@pytest.fixture
def plain_scorer() -> Iterator[type[Scorer]]:
    """A scorer of a user's own, with a score that decides and nothing said about what would narrow its interval."""

    @scorer("toy_deciding")
    class Toy(Scorer):
        specs: ClassVar[tuple[ScoreSpec, ...]] = (ScoreSpec("toy_truth", "Toy truth", "Is it true?", decides=True),)

        @classmethod
        def estimate(cls, *_: Any) -> Any: ...

        def ask(self, descriptions: Any) -> Any: ...

        def measure(self, asked: Any) -> Any: ...

    yield Toy
    REGISTRY.pop("toy_deciding", None)


@pytest.mark.parametrize(
    ("truth", "word", "why"),
    [
        (Metric(0.8, interval=(0.6, 0.9)), "holds", " and Toy truth is 0.80 (0.60 to 0.90), wholly at or above 0.5"),
        (Metric(0.2, interval=(0.1, 0.4)), "fails", "Toy truth is 0.20 (0.10 to 0.40), wholly below 0.5"),
        (Metric(0.8, interval=(0.4, 0.9)), "open", "Toy truth is 0.80 (0.40 to 0.90), on both sides of 0.5"),
        (Metric(0.8), "open", "Toy truth is 0.80 without an interval"),
        (None, "open", "Toy truth is undefined"),
    ],
)
def test_scores_of_ones_own_scorers_decide_too(plain_scorer, truth, word, why):
    made = judged(rated(0.9, 0.7, 1.0))
    own = PlainScores({} if truth is None else {"toy_truth": truth})
    standing = replace(made, evidence={**made.evidence, "toy_deciding": own}).standing
    assert standing == word and standing.why.endswith(why)


def test_without_a_score_that_decides_all_is_open():
    made = made_up_explained().items[0]
    result = replace(made, evidence={"detection": made.evidence["detection"]})
    assert result.standing == "open" and result.standing.why == "none of the run's scores decides"
    assert "no score decides" in Document(page(Results((result,), made_up_run()))).text
