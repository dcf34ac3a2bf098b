"""A run leaves its options in a file that does it again; what is in the file is checked as what is typed."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fade_lens.cli import app
from fade_lens.cli.config import as_toml, moved, number_in
from fade_lens.runs.results import Results
from tests.cli.test_commands import parts, told

__all__ = ["parts"]

VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(exclude_categories=["Cs"]))
)


@given(st.one_of(VALUES, st.lists(VALUES, max_size=4)))
def test_what_is_written_is_read_again(value):
    assert tomllib.loads(f"x = {as_toml(value)}")["x"] == value


@given(st.text("0123456789.,e+-infa ", max_size=8))
def test_a_text_that_is_written_as_a_number_is_the_same_text_on_the_command_line(text):
    made = number_in(text)
    if isinstance(made, list):
        assert [str(one) for one in made] == [part.strip() for part in text.split(",") if part.strip()]
    else:
        assert str(made) == text


def kept(folder: Path) -> dict:
    return tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))


def test_a_run_leaves_its_options_which_do_it_again_from_anywhere(parts, tmp_path, monkeypatch):
    folder, arguments, server = parts
    monkeypatch.chdir(folder)
    relative = [one.replace(f"{folder}/", "") for one in arguments]
    assert "sae" in relative and "run" in relative
    more = [
        "--features",
        "0:2",
        "--bin-power",
        "0.5",
        "--scorers",
        "fade",
        "--quiet",
        "--prompts",
        "2",
        "--health-texts",
        "0",
    ]
    CliRunner().invoke(app, [*relative, *more], catch_exceptions=False)
    found = kept(folder / "run")
    assert found["sae"] == "../sae" and found["corpus"] == "../c.jsonl" and found["out"] == "."
    assert found["descriptions"] == "../d.json" and found["model"] == "planted" and found["judge"].startswith("http")
    assert found["rated-texts"] == 100 and found["factors"] == [1, 2] and found["bin-power"] == 0.5
    assert found["quiet"] is True and found["features"] == "0:2" and "dtype" not in found and "seed" not in found
    first = Results.load(folder / "run")
    server.close()  # all that is asked again is kept
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    done = CliRunner().invoke(app, ["evaluate", "--config", str(folder / "run" / "run.toml")], catch_exceptions=False)
    assert done.exit_code == 0 and kept(folder / "run") == found
    again = Results.load(folder / "run")
    assert again.frame.drop(columns=["judge_calls"]).equals(first.frame.drop(columns=["judge_calls"]))
    assert "sk-SECRET" not in (folder / "run" / "run.toml").read_text()
    # What is typed wins.
    CliRunner().invoke(app, ["evaluate", "--config", str(folder / "run" / "run.toml"), "--features", "1", "--no-held-out"], catch_exceptions=False)  # fmt: skip
    assert len(Results.load(folder / "run")) == 1
    assert kept(folder / "run") == found | {"features": "1", "held-out": False}


def test_a_dry_run_and_bad_input_leave_no_file(parts, monkeypatch, capsys):
    folder, arguments, _ = parts
    (folder / "run").mkdir()
    CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False)
    code, _ = told(monkeypatch, capsys, *arguments, "--features", "77")
    assert code == 2 and not list((folder / "run").iterdir())


def test_a_run_that_stops_leaves_its_options_unless_they_are_there(parts, monkeypatch, capsys):
    folder, arguments, _ = parts
    code, _ = told(monkeypatch, capsys, *arguments, "--max-calls", "3", "--quiet")
    assert code == 3 and kept(folder / "run")["max-calls"] == 3
    code, _ = told(monkeypatch, capsys, *arguments, "--max-calls", "4", "--seed", "1", "--quiet")
    assert code == 4 and kept(folder / "run")["max-calls"] == 3, "a refused run is not this folder's"


GOOD = {"model": "tiny", "hook": "h", "descriptions": "d.json", "corpus": "c.txt", "judge": "openai:x", "out": "o"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus_limits": 3}, "has the key 'corpus_limits', which is no option of `fade-lens evaluate`; did you mean 'corpus-limit'"),
        ({"api-key": "sk-abcdefghijkl"}, "has the key 'api-key', which is no option"),
        ({"judge": {"model": "x"}}, "judge is a table; give a text in quotes"),
        ({"corpus-limit": "many"}, 'corpus-limit is "many"; give a whole number'),
        ({"corpus-limit": 1.5}, "corpus-limit is 1.5; give a whole number"),
        ({"corpus-limit": True}, "corpus-limit is true; give a whole number"),
        ({"corpus-limit": 0}, "--corpus-limit"),
        ({"batch": 1}, "batch is 1; give true or false"),
        ({"judge": ["sk-abcdefghijkl" * 9]}, 'judge is ["***"]; give a text in quotes'),
        ({"corpus": 7}, "corpus is 7; give a text in quotes"),
        ({"rated-texts": 1.5}, "rated-texts is 1.5; give a whole number"),
        ({"rated-texts": True}, "rated-texts is true; give a whole number"),
        ({"rated-texts": 0}, "--rated-texts is 0; it must be at least 1"),
        ({"rated-texts": [1]}, "rated-texts is [1]; give a whole number"),
        ({"factors": [1, "x"]}, "--factors is '1,x'"),
        ({"factors": True}, "factors is true; give a number, or several in brackets"),
        ({"silent-apart": "yes"}, 'silent-apart is "yes"; give true or false'),
        ({}, "d.json' does not exist"),
        ({"hook": "h.5.mlp.act"}, "--hook 'h.5.mlp.act' is a module's path"),
    ],
)  # fmt: skip
def test_a_key_or_value_that_cannot_be_used_is_told(tmp_path, monkeypatch, capsys, changes, message):
    lines = [f"{k} = {as_toml(v)}" for k, v in (GOOD | changes).items() if not isinstance(v, dict)]
    lines += [f"[{k}]\nmodel = 'x'" for k, v in changes.items() if isinstance(v, dict)]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    if changes:
        (tmp_path / "d.json").write_text(json.dumps({"0": "x"}))
    code, said = told(monkeypatch, capsys, "evaluate", "--config", str(tmp_path / "run.toml"))
    assert code == 2 and message in said and "sk-abc" not in said, said


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"model = ", "is no TOML file in UTF-8"), (b"#" * (1 << 18) + b"#", "is larger than 256 KiB")],
)  # fmt: skip
def test_a_file_that_is_none_is_told(tmp_path, monkeypatch, capsys, content, message):
    if content is not None:
        (tmp_path / "x.toml").write_bytes(content)
    code, said = told(monkeypatch, capsys, "look", "--config", str(tmp_path / "x.toml"))
    assert code == 2 and message in said, said


def test_a_file_of_one_command_tells_what_another_does_not_know(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.toml").write_text('model = "demo"\nscorers = "fade"\n')
    code, said = told(monkeypatch, capsys, "health", "--config", str(tmp_path / "run.toml"))
    assert code == 2 and "has the key 'scorers', which is no option of `fade-lens health`" in said


def test_options_that_come_several_times_and_arguments_are_lists_and_texts(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.toml").write_text('release = "no-such"\nprompt = ["a", "b"]')
    code, said = told(monkeypatch, capsys, "health", "--config", str(tmp_path / "x.toml"))
    assert code == 2 and "has the key 'release'" in said
    (tmp_path / "x.toml").write_text('model = "m"\ncorpus = "c.txt"\nsae = "s"\nprompt = ["a", "b"]\nanswer = ["c"]')
    code, said = told(monkeypatch, capsys, "health", "--config", str(tmp_path / "x.toml"))
    assert code == 2 and 'sae is "s"; give a text in quotes, or several in brackets' in said, said
    (tmp_path / "x.toml").write_text('model = "m"\ncorpus = "c.txt"\nsae = ["s"]\nprompt = ["a", "b"]\nanswer = ["c"]')
    code, said = told(monkeypatch, capsys, "health", "--config", str(tmp_path / "x.toml"))
    assert code == 2 and "--prompt is given 2 times and --answer 1 times" in said, said
    (tmp_path / "x.toml").write_text('runs = ["a", "b"]\nby = "layer"')
    code, said = told(monkeypatch, capsys, "compare", "--config", str(tmp_path / "x.toml"))
    assert code == 2 and "results file" in said and f"{tmp_path.name}/a'" in said, "an argument, relative to the file"


def test_paths_are_relative_to_the_file_whatever_links_lead_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch" / "deep" / "runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "scratch" / "deep" / "runs")
    (tmp_path / "blob").write_text("a text")
    (tmp_path / "texts.txt").symlink_to(tmp_path / "blob")
    (folder := Path("runs/x")).mkdir()
    written = moved("texts.txt", Path(), folder, sure=False)
    assert (folder / written).read_text() == "a text" and written.endswith("texts.txt"), "a link by its own name"
    assert moved(written, folder, Path(), sure=True) == "texts.txt"
    assert moved("runs/x", Path(), folder, sure=True) == "." and moved("gguf:m.gguf", folder, Path(), sure=False).endswith("runs/x/m.gguf")  # fmt: skip
    absolute = str(tmp_path / "blob")
    assert moved(absolute, Path(), folder, sure=True) == moved(absolute, folder, Path(), sure=True) == absolute
    for word in ("demo", "neuronpedia", "hf:org/name", "gpt2", "openai:gpt-4o-mini", ""):
        assert moved(word, folder, Path(), sure=False) == word
    assert moved("demo", folder, Path(), sure=True) == "demo"
