"""A made-up run of explained features: a card with everything that the neighbouring scorers keep, and a feature without a description."""

from dataclasses import replace
from typing import Any

from fade_lens import Description, Results
from fade_lens._util.reasons import Reason
from fade_lens.data.descriptions import Provenance
from fade_lens.explainers.base import Explanation
from fade_lens.explainers.table import Explanations
from fade_lens.llm.budget import Usage
from fade_lens.metrics.metric import Metric
from fade_lens.runs.results import Result
from fade_lens.scorers.base import Scored
from fade_lens.scorers.deciding import JudgedWindow, WindowScores
from fade_lens.scorers.fuzzing import MarkedScores
from fade_lens.scorers.intruder import IntruderRounds, Round
from fade_lens.scorers.simulation import Simulated, SimulatedWindow
from fade_lens.subject.summary import TopText
from tests.made_up import HOSTILE, made_up_results

WORDS = ("The", " quick", " fox", " jumps")


def made_up_explained(hostile: bool = False) -> Results:
    """Two explained descriptions and a feature that has none; one text of each scorer is unanswered, and one is wrong."""
    said = HOSTILE if hostile else ("names of animals", "a small red fox", "the end", "nothing readable")
    about = Provenance("explained", "", said[0] if hostile else "gpt-made-up", "structured", version="3", evidence="0:made-up", shown=((4, 0, 4), (7, 0, 4), (9, 4, 8)), cost=0.0012)  # fmt: skip
    shown = TopText(4, 3.0, (*WORDS[:3], said[1]), (0.0, 0.2, 3.0, None))
    base = made_up_results(3, n_rated=12, hostile=hostile)
    rules = ((said[0], 5), (said[2], 2))

    def result(made: Result) -> Result:
        d = Description(made.description.index, made.description.text, about, rules)
        return replace(made, description=d, shown=(shown, shown), evidence={**made.evidence, **others(said)})

    without = Explanation(9, None, Reason("nothing_common", said[3]), about.shown, provenance=about, windows=(shown,))
    return replace(base, items=tuple(map(result, base.items[:2])), without=(without,))


def others(said: tuple[str, ...]) -> dict[str, Scored]:
    """Evidence of the neighbouring scorers."""
    why = said[3]
    detected = (
        JudgedWindow(1, "first " + said[1], "active", True, decided=True),
        JudgedWindow(2, "second", "active", True, decided=False),
        JudgedWindow(3, "third", "random_silent", False, decided=False),
        JudgedWindow(4, "fourth", "token_silent", False, reason=why),
    )
    marked = (
        JudgedWindow(1, "see the <<fox>> run", "right_marks", True, decided=True),
        JudgedWindow(1, "see <<the>> fox run", "wrong_marks", False, decided=True),
    )
    near = (JudgedWindow(1, said[1], "active", True, score=0.4), JudgedWindow(2, "far", "random_silent", False, score=0.7))  # fmt: skip
    rounds = (Round(0, ("a <<b>>", "c <<d>>", *("e <<f>>",) * 3), (1, 2, 3, 4, 5), 1, 0), Round(1, ("a <<b>>",) * 5, (1, 2, 3, 4, 5), 1, None, why))  # fmt: skip
    simulated = (
        SimulatedWindow(1, WORDS, "active", 1.0, (0.0, 0.0, 4.0, None), (0.0, 0.0, 0.0, 10.0)),
        SimulatedWindow(2, WORDS, "random_silent", 1.0, (0.0, 0.0, 0.0, 0.0), None, why),
    )

    def score(name: str, **more: Any) -> dict[str, Metric]:
        return {name: Metric(0.7, None, (0.6, 0.8), **more)}

    return {
        "detection": WindowScores(score("detection", counts={"unanswered": 1}), detected),
        "fuzzing": MarkedScores(score("fuzzing"), marked),
        "embedding": WindowScores(score("embedding"), near),
        "intruder": IntruderRounds(score("intruder"), rounds),
        "simulation": Simulated(score("simulation"), simulated),
    }


def made_up_explanations(hostile: bool = False) -> Explanations:
    """The explanations of that run, before it is scored."""
    run = made_up_explained(hostile)
    usage = Usage(1, 0, 200, 20, 0, 0, 0.0012)
    rows = [Explanation(r.description.index, r.description, shown=r.description.provenance.shown, provenance=r.description.provenance, usage=usage, windows=r.shown) for r in run]  # fmt: skip
    return Explanations((*rows, *run.without))
