"""Transcripts: shown by `fade-lens judge log`, and shared between runs."""

import json

import pytest
from typer.testing import CliRunner

from fade_lens import Fade
from fade_lens._util.errors import InputError, StoreError
from fade_lens.cli import app
from fade_lens.judge import Judge
from fade_lens.runs.store import RunStore, read_transcripts
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

TEXTS = ["a cat", "a \x1b[31mdog\x07", "a cat\u202e"]


@pytest.fixture
def folder(tmp_path):
    with FakeJudge(script=["ok", "ok", "garbage", "refuse"]) as fake, RunStore(tmp_path / "run") as store:
        with Judge("m", base_url=fake.base_url) as judge, judge.session(store):
            judge.rate("the word 'cat'", TEXTS)
            judge.rate("\x1b]0;the word 'dog'\x07", TEXTS)
            judge.rate("the word 'owl'", TEXTS)
            judge.write("the word 'owl'", n_texts=10)
        with Judge("m", base_url=fake.base_url, rating="single") as judge, judge.session(store):
            judge.rate("the word 'cat'", TEXTS[:1])
    return tmp_path / "run"


def shown(*arguments):
    done = CliRunner().invoke(app, ["judge", "log", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_all_of_a_run(folder):
    output = shown(folder)
    assert "rate · the word 'cat' · m · 100 + 10 tokens" in output
    assert "   2  a cat" in output and "write · the word 'owl'" in output and "Sentence 10 of many" in output
    assert "rate one" in output and "+9.0" in output
    assert not set("\x1b\x07\u202e") & set(output), "nothing in a text acts on the terminal"
    assert "a ⟨U+001B⟩[31mdog" in output and "a cat⟨U+202E⟩" in output


def test_some_of_a_run(folder):
    failed = shown(folder, "--failures")
    assert failed.count("!") == 2 and "3 of 3 texts got no rating" in failed and "refused: I cannot" in failed
    assert "2 answers; 2 gave less than was asked for" in failed
    assert shown(folder, "--concept", "DOG").count("rate ·") == 1
    assert "1 answers" in shown(folder, "--kind", "rate", "--concept", "cat")
    with pytest.raises(InputError, match="kind is 'x'; give one of rate, rate one, write, batch"):
        shown(folder, "--kind", "x")
    assert "the last 1 shown" in shown(folder, "--limit", "1")
    whole = shown(folder, "--concept", "cat", "--full", "--kind", "rate")
    assert "system:" in whole and '{"ratings"' in whole


def test_as_json(folder):
    lines = shown(folder, "--json").splitlines()
    entries = [json.loads(line) for line in lines]
    assert len(entries) == len(list(read_transcripts(folder)))
    first = entries[0]
    assert first["kind"] == "rate" and first["seed"] == 0 and first["answer"]["prompt_tokens"] == 100
    assert sorted(first["texts"]) == sorted([["2", "a cat"], ["0", TEXTS[1]], ["2", TEXTS[2]]])
    assert all(line.isascii() for line in lines)


def test_what_is_no_run(tmp_path):
    with pytest.raises(StoreError):
        shown(tmp_path)
    assert not list(tmp_path.iterdir()), "looking makes nothing"
    (tmp_path / "run.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        shown(tmp_path)


def test_answers_are_shared_between_runs(tmp_path):
    small = {
        "prompts": 6,
        "prompt_tokens": 4,
        "new_tokens": 4,
        "rated_texts": 60,
        "synthetic_texts": 10,
        "factors": (1.0,),
    }
    with FakeJudge(rule=rule, writer=writer) as server:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(), judge=judge_of(server), **small)
        shared = tmp_path / "answers.sqlite"
        first = fade.evaluate(TRUE, store=tmp_path / "one", transcripts=shared, progress=False)
        asked = server.requests
        second = fade.evaluate(TRUE, store=tmp_path / "two", transcripts=shared, progress=False)
        third = fade.evaluate(TRUE, transcripts=tmp_path / "one", progress=False)
        assert server.requests == asked and first.items == second.items == third.items
        assert second.run.usage.calls == 0 < second.run.usage.cached
        assert second.frame.equals(first.frame), "what a description cost is not forgotten"
        with pytest.raises(InputError, match="no run has left answers"):
            fade.evaluate(TRUE, transcripts=tmp_path / "onne", progress=False)
        # Each run's folder is whole without the shared file.
        shared.unlink()
        assert fade.evaluate(TRUE, store=tmp_path / "two", progress=False).items == first.items
        assert server.requests == asked
