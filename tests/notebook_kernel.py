"""Notebooks as they are, run one after the other in one kernel, which keeps the demo's model; and a judge that goes by rules."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from fade_lens.judge.prompts import read_rating
from tests import demo_rules
from tests.fake_judge import FakeJudge

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
EMBEDDED = "Judge.local(demo.judge_gguf())"
"""Minutes of work for the embedded judge, which `tests/demo` and `tests/llm/test_local.py` try."""

KEEP_THE_MODEL = """
from functools import cache

from fade_lens import demo


def kept(make):
    make = cache(make)

    def model():
        found = make()
        found.reset_hooks()
        found.reset_saes()
        return found

    return model


demo.model = kept(demo.model)
"""
"""What it defines outlives the names, which every notebook's start clears."""
MARKED = re.compile(r"\w*(?:<<.+?>>|⟦.+?⟧)\w*", re.S)
"""What is marked, with the rest of the word that it is a piece of."""


class Kernel(AbstractContextManager["Kernel"]):
    """A kernel that is started once, for use in a `with` block: every notebook begins with an empty namespace, in a folder of its own.

    Loading the demo's model takes ten seconds; the first notebook that asks for it does, the others get the same, its hooks and SAEs off.
    """

    def __init__(self) -> None:
        self._preamble = NotebookClient(new_notebook(cells=[new_code_cell(KEEP_THE_MODEL)]), kernel_name="python3")

    def __enter__(self) -> "Kernel":
        self._running = self._preamble.setup_kernel()
        self._running.__enter__()
        self._preamble.execute_cell(self._preamble.nb.cells[0], 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def run(self, path: Path, folder: Path, judge: str = EMBEDDED, timeout: int | None = None) -> NotebookNode:
        """Run a notebook and give it with its outputs.

        Args:
            path: of the notebook.
            folder: in which it runs, for what it writes.
            judge: the Python expression that stands for the embedded judge.
            timeout: seconds that a cell may take.

        Raises:
            CellExecutionError: a cell failed; the message holds it with its traceback.
        """
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace(EMBEDDED, judge)
        notebook.cells.insert(0, new_code_cell(f"%reset -f\n%cd -q {folder}"))
        client = NotebookClient(notebook, km=self._preamble.km, timeout=timeout)
        try:
            return client.execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


def rule_judge() -> FakeJudge:
    """A server that knows what the demo's descriptions mean, takes others by the strings they quote, and explains by what is marked."""
    return FakeJudge(rule=rule, writer=writer, says=says)


def rule(concept: str, text: str) -> int:
    """2 where the text expresses the concept."""
    if concept in demo_rules.PATTERNS or concept in demo_rules.WRONG:
        return demo_rules.rule(concept, text)
    return 2 * any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text, re.I) for one in quoted(concept))


def writer(concept: str, variation: int) -> list[str]:
    """Ten texts that express the concept; common sentences where it quotes nothing."""
    texts = demo_rules.writer(concept, variation)
    if concept in demo_rules.PATTERNS or concept in demo_rules.WRONG or not (found := quoted(concept)):
        return texts
    return [f"{text} {found[at % len(found)]} {text}" for at, text in enumerate(texts)]


def quoted(concept: str) -> list[str]:
    """The strings that a concept quotes, white space off."""
    return [one.strip() for _, one in re.findall(r"""(?<!\w)(["'])(.+?)\1(?!\w)""", concept) if one.strip()]


def says(body: dict[str, Any]) -> str | None:
    """The words of an answer, where it is none of writing or rating."""
    return decides(body) or names_marked(body) or names_numbers(body)


def decides(body: dict[str, Any]) -> str | None:
    """Decisions of yes and no, which know no 2; None for other questions."""
    asked = read_rating(body["messages"])
    if asked is None or "\n2 " in body["messages"][0]["content"]:  # what a grade of 2 means
        return None
    return json.dumps({"ratings": [{"id": n, "rating": rule(asked[0], text) // 2} for n, text in asked[1].items()]})


def names_marked(body: dict[str, Any]) -> str | None:
    """An explainer by rule: the words that are marked most often; None for the questions of a judge."""
    messages: Iterable[dict[str, str]] = body["messages"]
    system, said = (found := [m["content"] for m in messages])[0], found[-1]
    if "description" not in system and "rules" not in system:
        return None
    marks = (re.sub("<<|>>|[⟦⟧]", "", one) for one in MARKED.findall(said))
    marked = Counter(word for one in marks for word in re.findall(r"\w+|[^\w\s\"']", one)).most_common(3)
    if not marked:  # signs alone, where an explainer is asked; else a question of a judge
        return json.dumps({"description": "", "rules": []}) if re.search(r'"(?:description|rules)": ', system) else None
    rules = [{"activates_on": f'the string "{one}"', "strength": round(5 * n / marked[0][1])} for one, n in marked]
    return json.dumps({"rules": rules} if '"rules"' in system else {"description": rules[0]["activates_on"]})


def names_numbers(body: dict[str, Any]) -> str | None:
    """A reader's own question of which numbered texts fit a description: their numbers, or "none"; None for others."""
    said = body["messages"][-1]["content"]
    asked = re.search(r"^Description: (.+)$", said, re.M)
    fit = [n for n, text in re.findall(r"^(\d+)\. (.*)$", said, re.M) if asked and rule(asked[1], text)]
    return None if asked is None else ", ".join(fit) or "none"
