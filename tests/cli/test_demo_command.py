"""`fade-lens demo`, with the real model and SAE, a small part of its texts, and a judge that goes by rules."""

import time

import pytest
from typer.testing import CliRunner

from fade_lens import JudgeError, demo
from fade_lens.cli import app
from fade_lens.runs.results import Results
from tests.fake_judge import FakeJudge

CHECKS = 2
"""Questions that tell whether the judge answers."""


def word(concept: str) -> str:
    """What a concept quotes, or its last word."""
    return concept.split('"')[1] if '"' in concept else concept.split()[-1]


def rule(concept: str, text: str) -> int:
    """2 where the quoted string is in the text."""
    return 2 * (word(concept) in text)


def writer(concept: str, variation: int) -> list[str]:
    """Texts with the quoted string."""
    return [
        f"They saw {word(concept)} {thing} {variation}."
        for thing in ("days", "books", "plans", "cars", "ideas", "towns")
    ]


@pytest.mark.real
@pytest.mark.slow
def test_the_wrong_description_fails_alone_and_the_judge_writes_while_the_model_loads(gemma, tmp_path, monkeypatch):
    with FakeJudge(rule=rule, writer=writer) as fake:

        def load():
            deadline = time.monotonic() + 30
            while fake.requests < CHECKS + len(demo.DESCRIPTIONS) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert fake.requests >= CHECKS + len(demo.DESCRIPTIONS), "the judge waits for the model"
            return gemma

        monkeypatch.setattr(demo, "model", load)
        monkeypatch.setattr("fade_lens.cli.demo.TEXTS", 60)
        out = tmp_path / "demo"
        command = ["demo", "--judge", f"{fake.base_url}#rules", "--rating", "batched", "--out", str(out)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        asked = fake.requests
        again = CliRunner().invoke(app, command)
        assert again.exit_code == 0 and fake.requests == asked, "nothing is asked twice"
    results = Results.load(out)
    assert {r.description.index for r in results if r.standing == "fails"} == {4005}
    assert min(results, key=lambda r: r.clarity.value or -1).description.index == 4005
    assert "Does the description tell the truth?" in done.output and (out / "report.html").is_file()


def test_a_judge_that_is_not_there_is_told_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens.demo.parts.check_extra", lambda: None)
    monkeypatch.setattr(demo, "model", lambda: pytest.fail("the model is loaded first"))
    monkeypatch.setattr("fade_lens.llm.queue.BACKOFF_SECONDS", 0.0)
    out = tmp_path / "demo"
    done = CliRunner().invoke(app, ["demo", "--judge", "http://127.0.0.1:9/v1#none", "--out", str(out)])
    assert isinstance(done.exception, JudgeError) and "127.0.0.1:9" in str(done.exception)
    assert not out.exists()


@pytest.mark.real
@pytest.mark.slow
def test_the_demo_explains_a_latent_that_has_no_description(gemma, tmp_path, monkeypatch):
    said = 'the string "!"'
    monkeypatch.setattr(demo, "model", lambda: gemma)
    monkeypatch.setattr("fade_lens.cli.demo.TEXTS", 160)
    with FakeJudge(
        rule=rule,
        writer=writer,
        says=lambda body: None if "<description" in body["messages"][-1]["content"] else f'{{"description": {said!r}}}',
    ) as fake:
        command = [
            "demo",
            "--explain",
            "--judge",
            f"{fake.base_url}#rules",
            "--rating",
            "batched",
            "--out",
            str(tmp_path / "demo"),
        ]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "Explained: 1 of 1 features" in done.output
    assert [r.description.index for r in Results.load(tmp_path / "demo")] == [demo.TO_EXPLAIN]
