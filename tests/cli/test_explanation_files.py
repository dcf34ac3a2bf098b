"""`labels.csv` as `explain` writes it, changed by hand or not, given to `evaluate` and `audit`; all in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import Explanations, Fade, InputError, Results
from fade_lens.cli import app
from fade_lens.data.descriptions import is_explained
from tests.cli.test_commands import told
from tests.explainers.test_explainers import names_marked
from tests.fake_judge import FakeJudge
from tests.planted import natural_texts, planted_model, planted_sae, rule

FAST = ["--scorers", "detection", "--detection-texts", "16"]


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1), says=names_marked) as running:
        yield running


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeJudge) -> list[str]:
    """The options of a planted model, its SAE, a corpus and a judge, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    planted_sae().save_model(tmp_path / "sae")
    (tmp_path / "c.txt").write_text("\n".join(natural_texts(400)))
    return ["--model", "planted", "--sae", "sae", "--corpus", "c.txt", "--judge", f"{server.base_url}#planted", "-q"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_explained_features_are_scored_and_audited_on_texts_that_no_explainer_saw(
    subject: list[str], tmp_path: Path, server: FakeJudge
) -> None:
    run("explain", *subject, "--features", "0:4", "--least-texts", "1", "--out", "labels.csv")
    run("evaluate", *subject, "--descriptions", "labels.csv", "--out", "o", *FAST)
    results, table = Results.load(tmp_path / "o" / "results.sqlite"), pd.read_csv(tmp_path / "o" / "results.csv")
    assert [r.description.index for r in results] == [0, 1, 2] and results.run.held_out
    assert [(row.index, row.reason and row.reason.code) for row in results.without] == [(3, "silent")]
    assert table["index"].tolist() == [0, 1, 2, 3] and table["no_description"].notna().tolist() == [False] * 3 + [True]
    shown = {place[0] for r in results for place in r.description.provenance.shown}
    for r in results:
        assert r.shown and {text.number for text in r.shown} <= shown and r.shown[0].activation > 1
        assert not {text.number for text in r.evidence["detection"].texts} & shown  # pyright: ignore[reportAttributeAccessIssue]
    run("evaluate", *subject, "--descriptions", "labels.csv", "--features", "1,3", "--out", "p", *FAST)
    assert pd.read_csv(tmp_path / "p" / "results.csv")["index"].tolist() == [1, 3]
    asked = server.requests
    run(
        "evaluate",
        *subject,
        "--features",
        "random:8",
        "--explainer",
        "one-shot",
        "--least-texts",
        "99",
        "--dry-run",
        "--out",
        "q",
    )
    assert server.requests == asked
    run(
        "audit",
        *subject,
        "--neuronpedia",
        "labels.csv",
        "--out",
        "a",
        "--synthetic-texts",
        "4",
        "--rated-texts",
        "12",
        "--prompts",
        "2",
    )
    record = (tmp_path / "a" / "report.html").read_text()
    assert "that no explainer saw" in record


def test_an_audit_of_a_feature_that_the_sae_does_not_have_is_told_before_labels_are_read(
    subject: list[str], server: FakeJudge
) -> None:
    with pytest.raises(InputError, match="99999"):
        run("audit", *subject, "--neuronpedia", "absent", "--features", "0,99999", "--out", "a")
    assert not server.requests and not Path("a").exists()


def changed(folder: Path, column: str, value: Any) -> None:
    """A table with one cell of its first row changed, or without a column."""
    rows = pd.DataFrame(
        {
            "index": [0, 1, 3], "description": ["names of animals", "names of colours", None], "rules": ["", '[["names of colours", 5]]', ""],
            "reason": [None, None, "never fires"], "reason_code": [None, None, "silent"], "explainer": "one-shot", "model": "planted",
            "prompt_version": 2, "evidence": "0:a7063d2ff051f4f8", "shown": ["5:1-9", "8:1-4", ""], "dropped_rules": 0, "judge_calls": 1, "judge_cost": 0.1,
        }
    ).astype(object)  # fmt: skip
    if column == "without":
        rows = rows.drop(columns=value)
    else:
        rows.loc[0, column] = value
    rows.to_csv(folder / "labels.csv", index=False)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rules", "[[cats, 5]]", "labels.csv, feature 0: 'rules' is not valid JSON"),
        ("rules", '[["cats", 9]]', "give a whole number from 0 (hardly) to 5"),
        ("rules", '{"cats": 5}', "give a list of rules"),
        ("rules", "7", "give a list of rules"),
        ("shown", "everything", "labels.csv, feature 0: shown is 'everything'; leave it as"),
        ("shown", "1:9-5", "shown is '1:9-5'"),
        ("judge_cost", "free", "labels.csv, feature 0: judge_cost is 'free'; give a number, or nothing"),
        ("search_candidates", "many", "labels.csv, feature 0: search_candidates is 'many'; give a number"),
        ("index", "0.5", "feature index '0.5' is not a whole number"),
        ("index", 8, "feature index 8 is out of range: there are 8 features"),
        ("evidence", "7:CORPUS", "give --seed 7, or explain it again"),
        ("without", ["description", "rules"], "has no column 'description'"),
    ],
)
def test_a_table_changed_so_that_it_cannot_be_read_is_one_sentence_before_anything_is_opened(
    subject: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, column: str, value: Any, message: str
) -> None:  # fmt: skip
    if "CORPUS" in str(value):
        from fade_lens.data.corpus import Corpus
        from fade_lens.evidence.roles import evidence_id, marks_of

        value = evidence_id(marks_of(Corpus.parse("c.txt")), 7)
    changed(tmp_path, column, value)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr("fade_lens.judge.Judge.check", lambda *_, **__: pytest.fail("asked"))
    code, said = told(monkeypatch, capsys, "evaluate", *subject, "--descriptions", "labels.csv", "--out", "o")
    assert code == 2 and message in " ".join(said.split()), said


@pytest.mark.parametrize("missing", [["shown"], ["rules", "model"], ["reason", "reason_code"], ["evidence"], ["judge_cost", "judge_calls", "prompt_version"]])  # fmt: skip
def test_a_table_without_some_columns_is_still_one_of_explanations(tmp_path: Path, missing: list[str]) -> None:
    changed(tmp_path, "without", missing)
    found = Explanations.read(tmp_path / "labels.csv")
    assert found is not None and len(found) == 2 and len(found.without) == 1
    assert all(d.provenance.kind == "explained" for d in found), "so that it is scored on other texts"
    assert Explanations.read(pd.read_csv(tmp_path / "labels.csv")) == found
    assert not is_explained(pd.DataFrame({"index": [0], "description": ["a"], "explainer": ["me"]}))


@pytest.mark.parametrize("out", ["labels", "sae", "labels.json"])
def test_a_table_that_could_not_be_written_is_told_before_anything_is_paid(
    subject: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, server: FakeJudge, out: str
) -> None:
    code, said = told(monkeypatch, capsys, "explain", *subject, "--features", "0", "--out", out)
    assert code == 2 and f"--out is '{out}'; give a CSV file" in said and not server.requests, said


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([True], "True is not a whole number"),
        ("0:x", "'0:x' is neither a number nor START:END"),
        ([], "no feature index was given"),
    ],
)
def test_what_names_no_features_is_told_before_anything_is_asked(
    features: Any, message: str, server: FakeJudge
) -> None:
    fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(20), judge=f"{server.base_url}#planted")
    with pytest.raises(InputError, match=message):
        fade.explain(features)
    assert not server.requests
