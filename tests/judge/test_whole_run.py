"""Whole runs against judges that fail: the numbers are those of a healthy judge's run, and no file holds the key."""

import gzip
import json
import random

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import Fade, Judge
from fade_lens._util.errors import InputError
from fade_lens.cli import app
from tests.cli.test_commands import parts
from tests.fake_judge import BAD_ANSWERS, FAILURES, FORMS, FakeJudge, evenly
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer

__all__ = ["parts"]  # a fixture

KEY = "sk-SECRET-planted-key"
SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 20}
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()
KINDS = FAILURES + BAD_ANSWERS


def evaluated(server, store=None, **options):
    judge = Judge("planted", base_url=server.base_url, api_key=KEY, **options)
    with judge:
        return Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **SMALL).evaluate(TRUE, store=store, progress=False)


def test_a_judge_that_fails_in_every_way_changes_no_number(tmp_path, caplog):
    """30 % of all requests fail, in every way there is, and another 20 % of the answers come in odd forms."""
    small = {"texts_per_request": 6, "texts_per_set": 5}
    with FakeJudge(rule=rule, writer=writer) as server:
        healthy = evaluated(server, **small)
    for seed in range(2):
        plan = evenly(0.3, KINDS) | evenly(0.2, FORMS)
        # Every way of failing is met at least once, at 30 % of the first requests too.
        script = random.Random(seed).sample([*KINDS, *["ok"] * 25], len(KINDS) + 25)
        with FakeJudge(
            rule=rule, writer=writer, script=["ok", *script], plan=plan, seed=seed, slow_seconds=1.3, echo_key=True
        ) as server:
            # A busy machine may time more requests out than the slow ones: only this run has a short timeout.
            failing = evaluated(server, tmp_path / str(seed), timeout=1.0, **small)
            assert all(server.met[kind] for kind in KINDS) and server.requests > 80
            assert sum(server.met[kind] for kind in KINDS) > 0.2 * server.requests
        assert failing.items == healthy.items
        # Only the bill differs: answers that were no use are paid for, too.
        bill = ["judge_calls", "judge_cost"]
        pd.testing.assert_frame_equal(failing.frame.drop(columns=bill), healthy.frame.drop(columns=bill))
        assert (failing.frame.judge_calls >= healthy.frame.judge_calls).all()
        assert failing.run.usage.retries > 0
        failing.save(tmp_path / f"{seed}" / "results.sqlite")
        failing.to_html(tmp_path / f"{seed}" / "report.html")
        failing.frame.to_csv(tmp_path / f"{seed}" / "results.csv")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert b"SECRET" not in data, path
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("kind", ["unauthorized", "not_found", "quota"])
def test_a_final_error_in_the_middle_ends_the_run_and_loses_nothing(kind, tmp_path):
    from fade_lens._util.errors import JudgeError

    with FakeJudge(rule=rule, writer=writer) as server:
        whole = evaluated(server)
        asked = server.requests
        server.script = ["ok"] * 12 + [kind] * 100
        before = server.requests
        with pytest.raises(JudgeError, match="judge 'planted' at"):
            evaluated(server, tmp_path, concurrency=2)
        answered, server.script = 12, []
        assert server.requests - before <= answered + 2
        before = server.requests
        again = evaluated(server, tmp_path)
        assert again.items == whole.items
        assert server.requests - before == asked - answered, (
            "nothing is asked twice, and a run that goes on has no check"
        )


def test_what_came_empty_is_asked_again_by_the_next_run(tmp_path):
    with FakeJudge(rule=rule, writer=writer) as server:
        whole = evaluated(server, tmp_path / "whole")
    with FakeJudge(
        rule=rule, writer=writer, choose=lambda body: "empty" if TRUE[1] in str(body["messages"]) else None
    ) as server:
        poor = evaluated(server, tmp_path / "run")
        assert [result.clarity.value is None for result in poor] == [False, True, False]
        server.choose = None
        again = evaluated(server, tmp_path / "run")
        assert [result.clarity for result in again] == [result.clarity for result in whole]
        assert [result.purity for result in again] == [result.purity for result in whole]


def test_each_result_carries_what_it_cost():
    with FakeJudge(rule=rule, writer=writer) as server:
        results = evaluated(server, price=(10.0, 20.0))
        checks = server.requests - int(results.frame.judge_calls.sum())
        assert checks == 2
        one = (100 * 10.0 + 10 * 20.0) / 1e6
        for result in results:
            assert result.usage.cost == pytest.approx(one * result.usage.calls)
        assert results.frame.judge_cost.sum() + 2 * one == pytest.approx(results.run.usage.cost)
        unknown = evaluated(server)
        assert unknown.frame.judge_cost.isna().all() and unknown.run.usage.cost is None


def invoke(arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_costs_on_the_command_line(parts):
    folder, arguments, server = parts
    priced = [*arguments, "--price", "10,20", "--concurrency", "3", "--requests-per-minute", "60000"]
    done = invoke([*priced, "--dry-run"])
    assert "about $" in done.output and server.requests == 0
    assert "price unknown" in invoke([*arguments, "--dry-run"]).output
    from fade_lens.judge import BudgetReached

    for limit in (["--max-calls", "5"], ["--max-cost", "0.012"]):
        before = server.requests
        with pytest.raises(BudgetReached, match="run again to go on"):
            invoke([*priced, *limit])
        assert 0 < server.requests - before <= 10
    done = invoke([*priced, "--tokens-per-minute", "9000000"])
    assert "Judge:" in done.output and "answers that were there already" in done.output and "$0." in done.output
    assert server.peak <= 3
    table = pd.read_csv(folder / "run" / "results.csv")
    assert (table.judge_calls > 5).all() and (table.judge_cost > 0).all()
    log = invoke(["judge", "log", str(folder / "run"), "--json"])
    assert len(log.output.splitlines()) == table.judge_calls.sum()
    with pytest.raises(InputError, match="max_cost needs a price"):
        invoke([*arguments, "--max-cost", "1"])
    with pytest.raises(InputError, match="two numbers"):
        invoke([*arguments, "--price", "1"])


def test_other_judges_on_the_command_line(parts):
    folder, arguments, _ = parts
    (folder / "gold.csv").write_text(
        pd.DataFrame(
            [(TRUE[0], text, rule(TRUE[0], text)) for text in TEXTS[:40]], columns=["concept", "text", "rating"]
        ).to_csv()
    )
    with FakeJudge(rule=rule, writer=writer) as other:
        again = ["--writer", f"{other.base_url}#w", "--second-judge", f"{other.base_url}#s", "--repeats", "1"]
        shared = str(folder / "answers.sqlite")
        done = invoke([*arguments, *again, "--gold", str(folder / "gold.csv"), "--transcripts", shared])
        assert "Gold:   40 texts rated, sensitivity 1.00, specificity 1.00" in done.output
        assert "Agrees: with repeat 1 on 1.00 of 135 texts" in done.output and "Agrees: with s on 1.00" in done.output
        assert {body["model"] for body in other.bodies} == {"w", "s"}
        assert len(invoke(["judge", "log", shared, "--json"]).output.splitlines()) > 20
    with pytest.raises(InputError, match=r"'no\.csv' does not exist"):
        invoke([*arguments, "--gold", "no.csv"])


def test_batches_on_the_command_line(parts, monkeypatch):
    from fade_lens.llm import batch

    monkeypatch.setattr(batch, "GATHER_SECONDS", 0.1)
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    folder, arguments, _ = parts
    whole = invoke([*arguments, "--quiet"])
    assert whole.exit_code == 0
    table = pd.read_csv(folder / "run" / "results.csv")
    with FakeJudge(rule=rule, writer=writer, batches=True) as batched:
        at, spec = arguments.index("--judge") + 1, f"{batched.base_url}#planted"
        other = [
            *arguments[:at],
            spec,
            "--out",
            str(folder / "batched"),
            *arguments[at + 3 :],
            "--price",
            "10,20",
            "--batch",
        ]
        assert invoke(other).exit_code == 0
        assert batched.requests == 2, "the check at the start"
        found = pd.read_csv(folder / "batched" / "results.csv")
        assert found.judge_cost.sum() == pytest.approx(found.judge_calls.sum() * 0.5 * 0.0012)
        pd.testing.assert_frame_equal(found.drop(columns="judge_cost"), table.drop(columns="judge_cost"))
        assert json.loads(json.dumps(batched.batches.lines)) == found.judge_calls.sum()
