"""Bars in a notebook: one output a cell, plain HTML that changes in place and ends tidy; nothing where nothing is asked for."""

import html
import re
import time

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from fade_lens._util import progress
from fade_lens._util.progress import Cell, Stages


class Notebook:
    """A notebook's kernel, as far as displays go."""

    def __init__(self) -> None:
        self.shell = InteractiveShell()
        self.shell.display_pub = CapturingDisplayPublisher()

    def shown(self) -> dict[str, list[str]]:
        """What each output showed, one after the other, by the output's id."""
        found: dict[str, list[str]] = {}
        for one in self.shell.display_pub.outputs:
            found.setdefault(one["transient"]["display_id"], []).append(one["data"]["text/html"])
        return found


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch):
    made = Notebook()
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "CELL_SECONDS", 0.01)
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: made.shell)
    monkeypatch.setattr(InteractiveShell, "instance", classmethod(lambda cls: made.shell))
    monkeypatch.setattr(InteractiveShell, "initialized", classmethod(lambda cls: True))
    Cell.last = None
    yield made
    Cell.last = None


def words(shown: str) -> str:
    return html.unescape(re.sub("<[^>]+>", "", shown))


def test_all_bars_of_a_cell_stand_in_one_output_that_ends_full(notebook, capsys):
    for name in ("explaining", "rating"):
        stages = Stages()
        with stages.showing():
            stages.stage(f"judge: {name} <b>", 50)(20)
            stages.stage("never begun", 7)
            stages.found("9: cats", {"Clarity": "0.93"})
    outputs = notebook.shown()
    assert len(outputs) == 1
    (drawn,) = outputs.values()
    last = words(drawn[-1])
    assert last.count("20/20") == 2 and "explaining <b>" in last and "rating <b>" in last and "9: cats" not in last
    assert "never begun" not in last
    assert drawn[-1].startswith("<pre") and "<script" not in drawn[-1] and "<b>" not in drawn[-1]
    assert capsys.readouterr().out == "", "nothing is printed beside it"
    notebook.shell.execution_count += 1
    with (later := Stages()).showing():
        later.stage("another cell", 3)(3)
    assert len(notebook.shown()) == 2


def test_bars_are_drawn_while_they_move_and_an_error_leaves_them(notebook):
    stages = Stages()
    with pytest.raises(RuntimeError), stages.showing():
        advance = stages.stage("model", 10)
        for done in range(1, 4):
            advance(1)
            for _ in range(1000):
                if f"{done}/10" in "".join(words(one) for some in notebook.shown().values() for one in some):
                    break
                time.sleep(0.01)
        raise RuntimeError
    (drawn,) = notebook.shown().values()
    assert len(drawn) >= 3 and "3/10" in words(drawn[-1])


def test_nothing_is_shown_where_no_progress_is_asked_for(notebook):
    for shown in (False, True):
        with (stages := Stages(shown)).showing():
            if not shown:
                stages.stage("model", 3)(3)
    assert notebook.shown() == {}
