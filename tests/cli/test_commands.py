"""The command line as a user meets it, with its exit codes; where the process matters, in one of its own."""

import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens._util.errors import InputError, JudgeError
from fade_lens.cli import app, main
from fade_lens.cli.options import open_model, open_sae
from fade_lens.runs.results import Results
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from fade_lens.cli import main; sys.argv[0] = 'fade-lens'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a command run in this process, the errors on one line."""
    monkeypatch.setattr(sys, "argv", ["fade-lens", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), " ".join(capsys.readouterr().err.split())


EVALUATE = ["evaluate", "--model", "tiny", "--corpus", "c.txt", "--judge", "openai:x", "--out", "o"]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([*EVALUATE, "--descriptions", "no.csv", "--hook", "h"], 2, "'no.csv' does not exist"),
        ([*EVALUATE, "--descriptions", "d.json"], 2, "give one of --sae-release"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--sae", "s"], 2, "--sae and --hook"),
        ([*EVALUATE, "--descriptions", "d.json", "--sae-release", "r"], 2, "go together"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--features", "7:9"], 2, "names no feature"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--features", "0,7"], 2, "does not describe 7"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--corpus-limit", "-1"], 2, "--corpus-limit"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--factors", "1,x"], 2, "separated by commas"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--factors", ""], 2, "separated by commas"),
        (
            [*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--rated-texts", "0"],
            2,
            "--rated-texts is 0; it must",
        ),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--preset", "p"], 2, "--preset is 'p'; give one of"),
        (
            [*EVALUATE, "--descriptions", "d.json", "--hook", "h.5.mlp.act"],
            2,
            "--hook 'h.5.mlp.act' is a module's path",
        ),
        (
            [*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--no-faithfulness", "--controls", "other"],
            2,
            "give --factors or no --controls",
        ),
        (
            [*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--factors", "1,nan"],
            2,
            "--factors[1] is nan; give a number",
        ),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--nulls", "shufled"], 2, "--nulls holds 'shufled'"),
        (
            [*EVALUATE, "--features", "0:3", "--explainer", "tfidf", "--sae", "demo", "--baselines", "randm"],
            2,
            "--baselines holds 'randm'; give some of 'random'",
        ),
        (
            [*EVALUATE, "--descriptions", "d.json", "--hook", "h", "--controls", "shuffled"],
            2,
            "--controls holds 'shuffled'",
        ),
        ([*EVALUATE[:-4], "--judge", "what", "--out", "o", "--descriptions", "d.json", "--hook", "h"], 2, "openai:"),
        ([*EVALUATE, "--descriptions", "d.json", "--hook", "h"], 2, "'c.txt' does not exist"),
        ([*EVALUATE[:-1], "run.db", "--descriptions", "d.json", "--hook", "h"], 2, "give a folder for the run"),
        (["evaluate"], 2, "Missing option"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    (tmp_path / "d.json").write_text(json.dumps({"0": "x"}))
    ended, said = told(monkeypatch, capsys, *arguments)
    assert ended == code, said
    assert message in said and "Traceback" not in said


def test_bad_input_is_the_same_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*EVALUATE, "--descriptions", "no.csv", "--hook", "h")
    assert done.returncode == 2 and not done.stdout
    assert "'no.csv' does not exist" in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_a_missing_key_is_told_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fade_lens.cli.subject.check_subject", lambda *_: {})
    for name in ("OPENAI_API_KEY", "FADE_LENS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "d.json").write_text(json.dumps({"0": "x"}))
    (tmp_path / "c.txt").write_text("a text\n")
    code, said = told(monkeypatch, capsys, *EVALUATE, "--descriptions", "d.json", "--hook", "h")
    assert code in (2, 3) and "OPENAI_API_KEY" in said, said


def test_an_unknown_model_is_named_with_its_neighbours():
    with pytest.raises(InputError, match="did you mean 'gpt2'"):
        open_model("gpt-2", None, "float32")
    with pytest.raises(InputError, match="bfloat16"):
        open_model("gpt2", None, "int8")
    with pytest.raises(InputError, match="runs in float32 on the CPU, not in bfloat16"):
        open_model("demo", None, "bfloat16")


def test_a_damaged_sae_is_bad_input(tmp_path):
    planted_sae().save_model(tmp_path)
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match="could not be loaded"):
        open_sae(None, None, tmp_path, "cpu")


def test_help_is_for_newcomers():
    done = run("--help")
    assert done.returncode == 0
    assert "fade-lens demo" in done.stdout and "evaluate" in done.stdout and "Exit codes" in done.stdout


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Files for a run on the planted model, which stands in for what a hub would give."""
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    planted_sae().save_model(tmp_path / "sae")
    (tmp_path / "d.json").write_text(json.dumps(TRUE))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in natural_texts()))
    monkeypatch.setenv("FADE_LENS_API_KEY", "sk-SECRET")
    with FakeJudge(rule=rule, writer=writer) as server:
        yield tmp_path, [
            "evaluate", "--model", "planted", "--sae", str(tmp_path / "sae"), "--descriptions", str(tmp_path / "d.json"),
            "--corpus", str(tmp_path / "c.jsonl"), "--judge", f"{server.base_url}#planted", "--out", str(tmp_path / "run"),
            "--prompts", "10", "--rated-texts", "100", "--synthetic-texts", "10", "--factors", "1,2",
        ], server  # fmt: skip


def test_evaluate_writes_its_files_and_goes_on(parts):
    folder, arguments, server = parts
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "animals" in done.output
    table = pd.read_csv(folder / "run" / "results.csv")
    assert (table.clarity > 0.9).all() and table["index"].tolist() == [0, 1, 2]
    assert len(Results.load(folder / "run" / "results.sqlite")) == 3
    assert "names of animals" in (folder / "run" / "report.html").read_text()
    server.close()  # all that it was asked is kept
    again = CliRunner().invoke(app, [*arguments, "--quiet", "--features", "0:2"], catch_exceptions=False)
    assert again.exit_code == 0 and again.output.strip() == ""
    assert len(Results.load(folder / "run" / "results.sqlite")) == 2


def test_a_missing_extra_is_told_before_a_model_is_loaded(parts, monkeypatch, capsys):
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: pytest.fail("a model is loaded"))
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    for more in (["--likely-texts", "meaning"], ["--scorers", "embedding"]):
        code, said = told(monkeypatch, capsys, *parts[1], *more)
        assert code == 5 and "fade-lens[similarity]" in said and parts[2].requests == 0


def test_a_full_disk_is_told_in_a_sentence(parts, monkeypatch, capsys):
    arguments = parts[1]
    monkeypatch.setattr(Results, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, said = told(monkeypatch, capsys, *arguments)
    assert code == 1 and "No space left on device" in said and "is kept" in said and "Traceback" not in said


def test_an_interrupt_says_that_all_is_kept(parts, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fade_lens.runs.fade.Fade.evaluate", interrupted)
    monkeypatch.setattr(sys, "argv", ["fade-lens", *parts[1]])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130 and "run the same command again" in " ".join(capsys.readouterr().err.split())


def test_the_judge_is_checked_and_limited_as_told(parts, tmp_path):
    folder, arguments, server = parts
    (tmp_path / "gold.csv").write_text(
        "concept,text,rating\nnames of animals,the cat sleeps,2\nnames of animals,a tree,0\n"
    )
    arguments = [*arguments, "--interval-width", "0"]
    more = ["--repeats", "1", "--second-judge", f"{server.base_url}#other", "--gold", str(tmp_path / "gold.csv")]
    dry, dearer = (
        CliRunner().invoke(app, [*arguments, *some, "--dry-run", "--price", "1,2"], catch_exceptions=False).output
        for some in ([], more)
    )
    assert "about $" in dry and "price unknown" in dearer and server.requests == 0  # the other judge's
    with pytest.raises(JudgeError, match="max_calls=3"):
        CliRunner().invoke(app, [*arguments, *more, "--max-calls", "3", "--quiet"], catch_exceptions=False)
    done = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
    assert (
        "Gold:   2 texts rated" in done.output and "with other on" in done.output and "with repeat 1 on" in done.output
    )
    results = Results.load(folder / "run" / "results.sqlite")
    assert results.run.settings["interval_width"] is None
    assert all(len(r.rated_evidence.texts) == 100 and r.rated_evidence.stopped is None for r in results)


def test_null_arms_are_scored_and_summed_up(parts):
    folder, arguments, _ = parts
    dry = [
        CliRunner().invoke(app, [*arguments, "--dry-run", *more], catch_exceptions=False).output
        for more in ((), ("--nulls", "shuffled,generic"), ("--baselines", "permuted"))
    ]
    assert len(set(dry)) == 3, "the estimate counts them"
    done = CliRunner().invoke(
        app,
        [*arguments, "--nulls", "shuffled, generic", "--baselines", "permuted"],
        catch_exceptions=False,
        env={"COLUMNS": "160"},
    )
    assert done.exit_code == 0 and "Score minus that of null descriptions and baseline features" in done.output
    results = Results.load(folder / "run" / "results.sqlite")
    assert list(results.nulls) == ["shuffled", "generic"]
    clear = results.summary().set_index(["null", "metric"])["mean"]["shuffled", "clarity"]
    assert clear > 0.5
    line = next(line for line in done.output.splitlines() if "Clarity" in line and "shuffled" in line)
    assert f"{clear:+.2f}" in line
    beside = results.summary().set_index(["baseline", "metric"])["mean"]["permuted"]
    assert beside["clarity"] == beside["purity"] == 0 < 0.5 < beside["faithfulness"], (
        "another decoder writes something else"
    )


def test_sanity_of_a_run_that_evaluate_wrote(parts):
    folder, arguments, _ = parts
    CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    done = CliRunner().invoke(app, ["sanity", str(folder / "run"), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    found = {(check["metric"].split(" (")[0], check["test"]): check for check in json.loads(done.output)["run"]}
    assert {check["cases"] for check in found.values()} == {3}, "every planted latent"
    for score in ("average precision", "best F1", "IoU", "correlation"):
        assert found[score, "missing labels"]["passed"] and found[score, "extra labels"]["passed"]
    # A planted latent fires on its words alone, so what AUROC loses by dropped labels is the little that the design weights say.
    assert found["AUROC", "missing labels"]["fall"] < found["AUROC", "extra labels"]["fall"] / 3
    assert "This run's descriptions" in CliRunner().invoke(app, ["sanity", str(folder / "run")]).output


def test_dry_run_spends_nothing(parts):
    folder, arguments, server = parts
    done = CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0 and "3 descriptions" in done.output and "calls" in done.output
    assert server.requests == 0 and not (folder / "run").exists()


def test_exit_codes_of_judge_and_store(parts, monkeypatch, capsys):
    _, arguments, server = parts
    monkeypatch.setattr(sys, "argv", ["fade-lens", *arguments, "--quiet"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    monkeypatch.setattr(sys, "argv", ["fade-lens", *arguments, "--quiet", "--seed", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 4 and "settings.seed was 0, is 1" in " ".join(capsys.readouterr().err.split())
    server.close()
    gone = [a if not a.endswith("run") else a + "2" for a in arguments]
    monkeypatch.setattr(sys, "argv", ["fade-lens", *gone, "--quiet"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3


def test_a_command_names_its_own_options_and_where_to_look(parts, monkeypatch, capsys):
    folder, arguments, server = parts
    server.begins = {"<think>": -0.1, "Yes": -30.0}
    monkeypatch.setattr(sys, "argv", ["fade-lens", *arguments, "--quiet", "--rating", "single"])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 3 and "Give --rating batched" in told and "'<think>'" in told
    assert "rating=" not in told and server.requests == 2 and not (folder / "run").exists()


def test_the_demo_without_its_extra_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("fade_lens.demo.parts.find_spec", lambda package: None)
    monkeypatch.setattr(sys, "argv", ["fade-lens", "demo"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 5
    assert "pip install 'fade-lens[demo]'" in " ".join(capsys.readouterr().err.split())


def said_by(monkeypatch, encoding: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command whose output and errors go to a file or screen of this encoding."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["fade-lens", *arguments])
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    screen.flush()
    return code, screen.buffer.getvalue().decode(encoding)


def test_every_command_speaks_to_a_screen_that_is_not_in_utf_8(parts, monkeypatch):
    folder, arguments, _ = parts
    (folder / "d.json").write_text(json.dumps(TRUE | {3: "Wörter für 猫 😀 \ud800"}), encoding="utf-8")
    run, log = str(folder / "run"), ["judge", "log", str(folder / "run"), "--limit", "2"]
    code, said = said_by(monkeypatch, "ascii", *arguments, "--no-faithfulness")
    assert code == 0 and "W\\xf6rter f\\xfcr \\u732b" in said and "judge: rating natural texts" in said
    assert "0.9" in said and "\n - " in said.replace("\n- ", "\n - "), "dashes stand for no value"
    assert "Wörter für 猫" in (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "Wörter" in said_by(monkeypatch, "cp1252", *arguments, "--no-faithfulness")[1]
    results = Results.load(folder / "run" / "results.sqlite")
    other = str(replace(results, items=results.items[:-1]).save(folder / "other" / "results.sqlite").parent)
    for encoding in ("ascii", "cp932"):
        for command in (log, [*log, "--full"], ["sanity", run], ["compare", run, other, "--out", run], ["--help"]):
            code, said = said_by(monkeypatch, encoding, *command)
            assert code == 0 and len(said) > 100, (encoding, command)
        code, said = said_by(monkeypatch, encoding, "judge", "log", "né…\udce9")
        assert code == 4 and "holds no run store" in said


@pytest.mark.parametrize("width", ["0", "1", "20"])
def test_a_window_of_no_width_shows_its_tables(width, monkeypatch):
    from fade_lens._util.progress import Terminal

    monkeypatch.setenv("COLUMNS", width)
    screen = io.StringIO()
    Terminal(file=screen).print("a word")
    assert "".join(screen.getvalue().split()) == "aword"


def test_what_nobody_reads_stops_nothing():
    from fade_lens._util.progress import Terminal

    reader, writer_end = os.pipe()
    os.close(reader)
    with os.fdopen(writer_end, "w") as pipe:
        terminal = Terminal(file=pipe)
        for _ in range(3):
            terminal.print("nobody reads this")
        assert terminal.quiet


def test_what_a_library_prints_itself_is_not_printed_twice():
    from fade_lens.cli import unsaid

    record = logging.LogRecord("loud.part", logging.WARNING, "", 0, "words", (), None)
    assert unsaid(record)
    loud = logging.getLogger("loud")
    loud.addHandler(handler := logging.StreamHandler())
    assert not unsaid(record)
    loud.propagate = False
    loud.removeHandler(handler)
    assert unsaid(record)
