"""`fade-lens health` on a model of known health, in this process."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens.cli import app
from tests.cli.test_commands import told
from tests.healthy import WORDS, circular_texts, healthy_model, healthy_sae


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """The options of the model with a healthy SAE and one of another layer, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: healthy_model())
    healthy_sae().save_model(tmp_path / "right")
    healthy_sae(hook_name="blocks.0.hook_resid_post").save_model(tmp_path / "early")
    (tmp_path / "c.txt").write_text("\n".join(circular_texts()))
    return ["--model", "tiny", "--corpus", "c.txt"]


def test_health_prints_a_table_and_warnings_and_writes_a_page(subject, tmp_path):
    asked = ["--sae", "right", "--sae", "early", "--prompt", " ".join(WORDS[:4]), "--answer", WORDS[4], "--texts", "40", "--loss-texts", "20"]  # fmt: skip
    done = CliRunner().invoke(app, ["health", *subject, *asked], catch_exceptions=False)
    assert done.exit_code == 0 and "WARNING early: only 0.00 of the loss is recovered" in done.output, done.output
    assert f"right, sae: '{WORDS[4]}' is number 1" in done.output and "WARNING right" not in done.output
    folder = tmp_path / "fade-lens-health"
    table = pd.read_csv(folder / "health.csv")
    assert table["sae"].tolist() == ["right", "early"] and table["texts"].tolist() == [40, 40] and table["loss_texts"].tolist() == [20, 20]  # fmt: skip
    assert len(pd.read_csv(folder / "health-prompts.csv")) == 8 and (folder / "health.html").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--sae", "right", "--prompt", "the"], "--prompt is given 1 times and --answer 0 times"),
        (["--hook", "blocks.0.hook_resid_post"], "--hook names neurons, which reconstruct nothing"),
        ([], "give --sae-release with --sae-id"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_opened(subject, monkeypatch, capsys, more, words):
    for what in ("options.open_corpus", "subject.open_corpus", "subject.open_model"):
        monkeypatch.setattr(f"fade_lens.cli.{what}", lambda *_: pytest.fail("opened"))
    code, said = told(monkeypatch, capsys, "health", *subject, *more)
    assert code == 2 and words in said, said
