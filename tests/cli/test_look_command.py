"""`fade-lens look`, `fires`, `steer`, `patchscopes` and `search` on a planted model, in this process."""

import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens.cli import app
from tests.cli.test_commands import told
from tests.planted import TRUE, natural_texts, planted_model, planted_sae
from tests.tiny import word_tokenizer


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """The options of a planted model and its SAE, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    planted_sae().save_model(tmp_path / "sae")
    (tmp_path / "c.txt").write_text("\n".join(natural_texts(100)))
    return ["--model", "planted", "--sae", "sae"]


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_look_prints_a_table_and_writes_a_page(subject, tmp_path):
    done = run(
        "look", *subject, "--corpus", "c.txt", "--features", "0:2,3", "--top-texts", "4", "--changed-tokens", "3"
    )
    assert done.exit_code == 0 and "«" in done.output and "[dead: never fires on the corpus]" in done.output
    table = pd.read_csv(tmp_path / "fade-lens-look" / "look.csv")
    assert table["index"].tolist() == [0, 1, 3] and table["likelier"].str.count("',").tolist()[0] == 2
    page = (tmp_path / "fade-lens-look" / "look.html").read_text()
    assert "3 features of tiny" in page
    assert page.count('type="application/json"') == 4, "the rows, and each card"


def test_look_draws_features_at_random_and_says_nothing_when_quiet(subject, tmp_path):
    done = run("look", *subject, "--corpus", "c.txt", "--features", "random:5", "--out", "o", "-q")
    assert done.exit_code == 0 and done.output.strip() == ""
    assert len(pd.read_csv(tmp_path / "o" / "look.csv")) == 5


def test_fires_prints_latents_with_their_tokens(subject, tmp_path):
    done = run("fires", "the cat sees a red dog", *subject, "-k", "3", "--csv", "f/fires.csv")
    assert done.exit_code == 0 and re.search(r"0 .*(cat 4, dog 4|dog 4, cat 4) *│$", done.output, re.M), done.output
    assert set(pd.read_csv(tmp_path / "f" / "fires.csv").columns) == {"sae", "position", "token", "index", "activation"}


def test_fires_takes_several_saes_and_hooks(subject, tmp_path):
    planted_sae().save_model(tmp_path / "other")
    done = run("fires", "the cat sees a red dog", *subject, "--sae", "other", "--hook", "blocks.0.mlp.hook_post", "-k", "2", "--csv", "f.csv")  # fmt: skip
    table = pd.read_csv(tmp_path / "f.csv")
    assert done.exit_code == 0 and set(table["sae"]) == {"sae", "other", "blocks.0.mlp.hook_post"}, done.output
    one, other = (table[table["sae"] == name].drop(columns="sae").reset_index(drop=True) for name in ("sae", "other"))
    pd.testing.assert_frame_equal(one, other)
    assert re.search(r"│ other +│ +0 │", done.output), done.output


@pytest.mark.parametrize(
    "command",
    [
        ["look", "--features", "9"],
        ["explain", "--features", "0:9", "--judge", "openai:none", "--out", "o.csv"],
        ["evaluate", "--features", "3:99", "--explainer", "tfidf", "--judge", "openai:none", "--out", "o"],
        ["evaluate", "--descriptions", "d.csv", "--judge", "openai:none", "--out", "o"],
        ["steer", "--feature", "8", "--prompt", "a"],
    ],
)
def test_a_feature_that_the_sae_does_not_have_is_told_before_anything_is_opened(subject, tmp_path, monkeypatch, capsys, command):  # fmt: skip
    (tmp_path / "d.csv").write_text("index,description\n8,animals\n")
    for what in ("options.open_corpus", "subject.open_corpus", "subject.check_subject", "subject.open_model"):
        monkeypatch.setattr(f"fade_lens.cli.{what}", lambda *_: pytest.fail("opened"))
    code, said = told(monkeypatch, capsys, *command, *subject, "--corpus", "c.txt")
    assert code == 2 and "is out of range: there are 8 features, 0 to 7" in said, said


def test_steer_shows_the_unsteered_text_beside_the_others(subject, tmp_path):
    asked = ("steer", *subject, "--feature", "0", "--prompt", "the old", "--prompt", "a new", "--new-tokens", "4")
    done = run(*asked, "--factors", "2,4", "--corpus", "c.txt", "--csv", "s.csv")
    assert done.exit_code == 0 and done.output.count("unsteered") == 2 and "factor 1 is" in done.output
    assert pd.read_csv(tmp_path / "s.csv")["factor"].tolist() == [0, 2, 4] * 2
    assert "ablated" in run(*asked, "--mode", "ablate").output
    assert "factor 1 is 3" in run(*asked, "--unit", "3").output


def test_patchscopes_prints_what_the_model_says_by_scale(subject, tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens.cli.look.open_tokenizer", lambda _: None)
    asked = ("patchscopes", *subject, "--features", "0,2", "--scales", "0.5,2", "--new-tokens", "2", "--n-random", "4")
    done = run(*asked, "--ask", "the cat sees {x}", "--answer", "the {x}", "--csv", "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    assert done.exit_code == 0 and done.output.count(" 0.5 ") == 2, done.output
    assert table["index"].tolist() == [0, 0, 2, 2] and table["scale"].tolist() == [0.5, 2.0] * 2


@pytest.mark.parametrize("command", ["patchscopes", "explain"])
def test_a_base_model_is_told_by_its_tokenizer_before_it_is_loaded(subject, monkeypatch, capsys, command):
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: pytest.fail("opened"))
    for module in ("look", "subject"):
        monkeypatch.setattr(f"fade_lens.cli.{module}.open_tokenizer", lambda _: word_tokenizer())
    more = ["--explainer", "patchscopes", "--corpus", "c.txt", "--judge", "openai:none", "--out", "o.csv"]
    code, said = told(
        monkeypatch, capsys, command, *subject, "--features", "0", *(more if command == "explain" else [])
    )
    mend = "--patch-ask and --patch-answer" if command == "explain" else "--ask and --answer"
    assert code == 2 and f"give {mend} in words that it would continue" in said, said


def test_search_finds_descriptions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.Series(TRUE).rename_axis("index").rename("description").to_csv("labels.csv")
    done = run("search", "labels.csv", "colours", "--method", "words", "-k", "2")
    assert done.exit_code == 0 and "names of colours" in done.output and "verbs" not in done.output
    assert "No description shares a word" in run("search", "labels.csv", "rivers", "--method", "words").output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["look", "--features", "random:x", "--corpus", "c.txt"], "'random:x': give random:N"),
        (["look", "--features", "random:99", "--corpus", "c.txt"], "there are only 8 features"),
        (["look", "--features", "9", "--corpus", "c.txt"], "feature index 9 is out of range"),
        (["look", "--features", "0", "--corpus", "none.txt"], "'none.txt' does not exist"),
        (["look", "--corpus", "c.txt", "--out", "x.db"], "give a folder"),
        (["look"], "Missing option '--corpus'"),
        (
            ["look", "--features", "0", "--corpus", "c.txt", "--ray", "auot"],
            "--ray is 'auot'; give 'auto', 'local' or a cluster's address",
        ),
        (["look", "--features", "0", "--corpus", "c.txt", "--ray-gpus", "0.5"], "--ray-gpus needs --ray"),
        (["fires", " "], "give a text to read"),
        (["fires", "a", "-k", "0"], "Invalid value for"),
        (["patchscopes", "--features", "0", "--scales", "much"], "--scales is 'much'; give numbers"),
        (["patchscopes", "--features", "8"], "feature index 8 is out of range"),
        (["fires", "a", "--sae-id", "x"], "--sae-release and --sae-id go together"),
        (
            ["steer", "--feature", "0", "--prompt", "a"],
            "give --corpus (natural texts, whose strongest activations are the unit) or --unit",
        ),
        (["steer", "--feature", "0", "--prompt", "", "--unit", "1"], "--prompt[0] is ''; give a text"),
        (["steer", "--feature", "0", "--prompt", "a", "--factors", ","], "--factors is ','; give numbers"),
        (["steer", "--feature", "0", "--prompt", "a", "--unit", "1", "--mode", "push"], "give one of add, clamp"),
        (
            ["steer", "--feature", "3", "--prompt", "a", "--corpus", "c.txt"],
            "feature 3 never fires on c.txt, which leaves no unit for its factors; give --unit",
        ),
        (["steer", "--feature", "8", "--prompt", "a", "--unit", "1"], "feature index 8 is out of range"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(subject, monkeypatch, capsys, arguments, message):
    code, said = told(monkeypatch, capsys, *arguments, *subject)
    assert code == 2 and message in said and "Traceback" not in said, said


def test_the_help_lists_the_commands():
    said = run("--help").output
    assert all(re.search(rf"\b{name}\b", said) for name in ("look", "fires", "steer", "patchscopes", "search"))
