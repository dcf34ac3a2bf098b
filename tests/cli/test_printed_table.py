"""What a run prints: the worst forty with intervals, no reason that the user asked for, and where the others are."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fade_lens._util.progress import MOST_ROWS, Stages
from fade_lens._util.reasons import Reason
from fade_lens.cli.evaluate import table
from fade_lens.metrics.metric import Metric
from fade_lens.report.standing import worst_first
from fade_lens.runs.results import Results
from tests.made_up import made_up_results


def printed(results: Results, width: int = 80) -> str:
    screen = Console(file=io.StringIO(), width=width)
    screen.print(table(results, Path("runs/x/results.csv")))
    return screen.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_worst_forty_are_shown_with_intervals_and_how_many_more_there_are():
    results = made_up_results(43)
    shown, worst = printed(results), worst_first(results)
    rows = [int(line.split()[0]) for line in shown.splitlines() if line[:8].strip().isdigit()]
    assert rows == [result.description.index for result in worst[:40]]
    assert f"{len(results) - 40} more in runs/x/results.csv" in shown
    assert max(map(len, shown.splitlines())) <= 80
    clarity = next(result.clarity for result in worst if result.clarity.interval)
    assert clarity.interval is not None
    low, high = (f"{limit:.2f}".replace("-", "−") for limit in clarity.interval)
    assert f"{low}–{high}" in shown
    assert "more in" not in printed(replace(results, items=results.items[:40]))


def test_a_heading_is_whole_or_has_a_hyphen():
    wide = printed(made_up_results(3), 120)
    for title in ("Clarity", "Purity", "Responsive-", "Faithful-", "ness"):
        assert title in wide and title in printed(made_up_results(3))


@pytest.mark.parametrize(("code", "told"), [("no_factors", False), ("never_fires", True)])
def test_what_the_user_left_out_has_no_column_and_no_reason(code, told):
    why = Metric(None, Reason(code, "not measured: the reason in words"))
    items = []
    for result in made_up_results(3):
        fade = result.fade
        left_out = replace(fade, faithfulness=replace(fade.faithfulness, faithfulness=why))
        items.append(replace(result, evidence={**result.evidence, "fade": left_out}))
    shown = printed(Results(tuple(items)))
    assert ("Faithful" in shown) is told and ("the reason in words" in shown) is told


def test_bars_end_full_though_less_was_done_than_could_have_been_and_those_of_nothing_go(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stages = Stages()
    with stages.showing():
        stages.stage("judge: rating", 50)(20)
        stages.stage("model: nothing to do", 7)
        stages.stage("model: all of it", 3)(3)
    said = capsys.readouterr().out
    assert "20/20" in said and "nothing to do" not in said and "3/3" in said
    with pytest.raises(RuntimeError), Stages().showing():
        raise RuntimeError


def test_scores_show_as_they_come_and_leave_the_screen_to_the_whole_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    console = Console(width=100, file=(screen := io.StringIO()))
    stages = Stages()
    answered = 3
    with stages.showing():
        stages.answers(lambda: answered, 12)
        stages.found("7 cats", {"clarity": "0.90 (0.8 to 1.0)"})
        stages.found("9 dogs", {"clarity": "–", "purity": "0.5"})
        console.print(stages.shown())
        assert re.search(r"7 cats +0.90 \(0.8 to 1.0\) +… ", said := screen.getvalue()) and "3/12" in said
        stages.fewer(4)
        answered = 8
        console.print(stages.shown())
        assert "8/8" in screen.getvalue()
        stages.fewer(5)  # what is there stays there
    assert "7 cats" not in capsys.readouterr().out.splitlines()[-3:]
    console.print(stages.shown())
    assert screen.getvalue().count("7 cats") == 2 and "8/8" in screen.getvalue().splitlines()[-1]


def test_of_many_descriptions_those_that_changed_last_are_shown_in_their_order(monkeypatch):
    console = Console(width=100, file=(screen := io.StringIO()))
    stages = Stages(shown=False)
    for at in range(MOST_ROWS + 3):
        stages.found(f"{at} a word", {"clarity": "1.00"})
    stages.found("1 a word", {"purity": "0.50"})
    console.print(stages.shown())
    shown = [int(number) for number in re.findall(r"(\d+) a word", screen.getvalue())]
    assert shown == [1, *range(4, MOST_ROWS + 3)]
    assert re.search(r" 1 a word +1.00 +0.50", screen.getvalue())


def test_results_are_loaded_from_a_runs_folder(tmp_path):
    from fade_lens._util.errors import InputError

    results = made_up_results(2)
    results.to_folder(tmp_path / "run")
    assert Results.load(tmp_path / "run") == Results.load(tmp_path / "run" / "results.sqlite") == results
    with pytest.raises(InputError, match=r"holds no results\.sqlite; give a folder"):
        Results.load(tmp_path)


def test_a_run_is_not_compared_with_itself(tmp_path):
    from fade_lens import compare
    from fade_lens._util.errors import InputError

    made_up_results(3).to_folder(tmp_path / "run")
    for other in (tmp_path / "run" / "results.sqlite", tmp_path / "run"):
        with pytest.raises(InputError, match="are the same run"):
            compare(tmp_path / "run", other)
