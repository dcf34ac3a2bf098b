"""The audit: verdicts, files, the command on a planted model, and on the real one with planted faults."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import neuronpedia
from fade_lens._util.errors import InputError, JudgeError
from fade_lens._util.reasons import Flag
from fade_lens.analysis.audit import agreement_of, audit, to_score
from fade_lens.analysis.relabelling import relabelled
from fade_lens.analysis.verdicts import SEVERITY, best_of, partners, verdict_of
from fade_lens.cli import app
from fade_lens.neuronpedia.frames import frame
from fade_lens.neuronpedia.records import Imported, Row, Score
from fade_lens.runs.results import Results
from tests.demo_rules import rule as demo_rule
from tests.demo_rules import writer as demo_writer
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer
from tests.planted_faults import PLANTED, build, misses

ID = neuronpedia.SourceId("tiny-model", "0-planted")


def row(**changes):
    return {
        "state": "described",
        "flags": (),
        "scored": True,
        "index": 1,
        "better_feature": None,
        "standing": "open",
    } | changes


@pytest.mark.parametrize(
    "changes, word",
    [
        *(({"standing": word}, word) for word in ("holds", "open", "fails", "dead")),
        ({"standing": "fails", "better_feature": 7}, "mislabelled"),
        ({"standing": "holds", "better_feature": 7}, "mislabelled"),
        ({"scored": False}, "unscored"),
        ({"flags": (Flag("prompt_leak", "x"),), "clarity": 0.9}, "unusable"),
        ({"state": "none", "scored": False}, "missing"),
        ({"state": "unknown", "scored": False}, "not looked up"),
        ({"state": "none", "scored": False, "flags": (Flag("index_out_of_range", "x"),)}, "unusable"),
    ],
)
def test_verdicts(changes, word):
    verdict = verdict_of(row(**changes))
    assert verdict.word == word and 0 <= verdict.severity <= 1


def test_severity_ranks_verdicts_then_metrics_then_flags():
    worst = [w for w in SEVERITY if w not in ("unscored", "not looked up", "missing", "dead", "unusable")]
    assert worst == ["swapped", "mislabelled", "fails", "open", "holds"]
    good, better = (verdict_of(row(standing="holds", clarity=c)).severity for c in (0.6, 0.95))
    flagged = row(standing="holds", clarity=0.95, flags=(Flag("generic", "x"),))
    assert good > better and verdict_of(flagged).severity > better
    assert all(verdict_of(row(standing="fails", clarity=c)).severity > good for c in (-1.0, 0.0, 0.2))


def test_partners_and_the_best_of_several():
    rows = [
        row(index=1, better_feature=2),
        row(index=2, better_feature=1),
        row(index=3, better_feature=1),
        row(index=4),
    ]
    assert partners(rows) == {(1, 2), (2, 1)}
    assert [verdict_of(rows[0], swapped=True).word, verdict_of(rows[2]).word] == ["swapped", "mislabelled"]
    assert "of feature 2 are swapped: exchange them" in verdict_of(rows[0], swapped=True).suggestion
    assert "feature 1 of this run" in verdict_of(rows[2]).suggestion
    two = [row(index=5, better_feature=7), row(index=5, better_feature=9), row(index=9, better_feature=5)]
    assert partners(two) == {(5, 9), (9, 5)}  # the first description of 5 is no part of the swap
    several = [row(clarity=0.9, purity=None), row(clarity=0.5, purity=1.0), row(clarity=0.95, purity=0.0, scored=False)]
    assert best_of(several) is several[0]  # by what is defined for both
    assert best_of([row(scored=False)]) is None


def test_existing_scores_are_compared_by_rank():
    table = pd.DataFrame(
        {"score_eleuther_fuzz": [1, 2, 3, 4, 5, 9.0], "clarity": [0.1, 0.2, 0.3, 0.4, 0.9, None], "purity": 1.0}
    )
    table[["responsiveness", "faithfulness"]] = np.nan
    found = agreement_of(table).set_index(["score", "metric"])
    assert (
        found.loc[("eleuther_fuzz", "clarity"), "rho"] == pytest.approx(1)
        and found.loc[("eleuther_fuzz", "clarity"), "n"] == 5
    )
    assert pd.isna(found.loc[("eleuther_fuzz", "purity"), "rho"])  # all the same
    assert len(agreement_of(pd.DataFrame({"clarity": [1]}))) == 0


def test_flags_alone_write_their_files(tmp_path):
    rows = (
        Row(0, TRUE[0], "tiny-model", "0-planted", "a", "t", "m", scores=(Score("recall_alt", 0.0), Score("eleuther_fuzz", 0.7, detailed=True))),
        Row(0, "various words", "tiny-model", "0-planted", "b", "t", "m"),
        Row(1, "The user wants a label", "tiny-model", "0-planted", "c", "t", "m"),
        Row(2, "=cmd|'/C calc'!A0 <script>alert(1)</script>", "tiny-model", "0-planted", "d", "t", "m"),
    )  # fmt: skip
    table = neuronpedia.flags(frame(Imported(ID, rows, complete=True), [0, 1, 2, 3]))
    with pytest.raises(InputError, match="no column 'flags'"):
        audit(table.drop(columns="flags"))
    done = audit(table)
    assert done.counts == {"unusable": 1, "missing": 1, "unscored": 3} and done.frame["index"].tolist()[:2] == [1, 3]
    assert to_score(table)["explanation_id"].tolist() == ["a", "b", "d"]
    written = done.save(tmp_path)
    assert set(written) == {"csv", "jsonl", "parquet", "quick lists", "list bodies", "import rows", "outdated ids", "to describe", "report"}  # fmt: skip
    page = written["report"].read_text()
    assert "5 descriptions" in page and "flags only" in page and "<script>alert" not in page
    assert "https://www.neuronpedia.org/tiny-model/0-planted/3" in page
    with pytest.raises(InputError, match="nothing to audit"):
        audit(table.iloc[:0])
    back = pd.read_parquet(written["parquet"])
    assert back["verdict"].tolist() == pd.read_csv(written["csv"])["verdict"].tolist() and len(back) == 5
    lines = [json.loads(line) for line in written["jsonl"].read_text().splitlines()]
    assert lines[1]["description"] is None and lines[0]["flags"][0].startswith("prompt_leak: ")
    scores = {line["explanation_id"]: line["score_eleuther_fuzz"] for line in lines}
    assert scores["a"] == 0.7 and scores["b"] is None and "score_recall_alt" not in lines[0]  # 0 without details
    assert (
        written["quick lists"]
        .read_text()
        .startswith("https://www.neuronpedia.org/quick-list/?name=fade-lens%20audit&features=")
    )
    bodies = json.loads(written["list bodies"].read_text())
    assert [f["index"] for f in bodies[0]["features"]] == [1, 3] and bodies[0]["features"][1]["description"].startswith(
        "missing"
    )
    imported = neuronpedia.descriptions(written["import rows"])
    assert sorted(imported["explanation_id"]) == ["a", "b", "d"]  # the leaked one is to be written anew
    assert json.loads(imported["notes"][0])["verdict"] == "unscored"
    assert written["outdated ids"].read_text() == "c\n"
    anew = [json.loads(line) for line in written["to describe"].read_text().splitlines()]
    assert [(one["index"], one["verdicts"], one["top_texts"]) for one in anew] == [(1, ["unusable"], []), (3, ["missing"], [])]  # fmt: skip
    notes = done.notes()
    assert [u.index for u in notes.unscored[:2]] == [1, 3] and notes.unscored[1].text == ""


def told(index, text, verdict, better=None, name="", **scores):
    """A row of an audit."""
    return {"index": index, "description": text, "explanation_id": name or f"{index}{text}", "verdict": verdict, "better_feature": better, "flags": (), "scored": True, "state": "described", "type_name": "", "explanation_model_name": "m", "dashboard_url": ""} | scores  # fmt: skip


def test_what_each_feature_should_be_called():
    rows = [
        told(1, "dogs", "swapped", 2), told(2, "cats", "swapped", 1),
        told(3, "c", "mislabelled", 4), told(4, "d", "mislabelled", 5), told(5, "e", "mislabelled", 3),  # three in a ring
        told(6, "old", "fails", clarity=0.1), told(6, "new", "holds", clarity=0.8), told(6, "newest", "holds", clarity=0.9),
        told(7, "cats", "mislabelled", 6), told(8, "perhaps", "open", clarity=0.4), told(8, "no", "fails", clarity=0.1),
        told(9, "leaked", "unusable", scored=False), told(9, "pigs", "fails"), told(9, "PIGS", "mislabelled", 10),
        told(10, "PIGS", "fails", name="mine"), told(11, None, "missing", state="none"), told(12, None, "not looked up", state="unknown"),
        told(13, "x", "unusable", flags=(Flag("index_out_of_range", "x"),)), told(14, "a", "unscored", scored=False), told(14, "b", "unscored", scored=False),
    ]  # fmt: skip
    found = relabelled(rows)
    assert {(row["index"], row["description"], row["explanation_id"]) for row in found.rows} == {
        (1, "cats", ""), (2, "dogs", ""), (3, "e", ""), (4, "c", ""), (5, "d", ""), (6, "newest", "6newest"),
        (8, "perhaps", "8perhaps"), (10, "PIGS", "mine"), (14, "a", "14a"), (14, "b", "14b"),
    }  # fmt: skip
    assert [index for index, _ in found.undescribed] == [7, 9, 11]
    assert {"1dogs", "6old", "7cats", "9leaked"} <= set(found.outdated) and "mine" not in found.outdated
    lines = list(neuronpedia.links.import_rows(ID, found.rows))
    assert len({line["id"] for line in lines}) == len(lines) and lines[0]["typeName"] is None
    again = list(neuronpedia.links.import_rows(ID, reversed(found.rows)))
    assert {line["id"] for line in again} == {line["id"] for line in lines}, "imported twice they are there once"


def test_a_page_shows_the_worst_thousand_of_what_has_no_metrics(tmp_path):
    rows = tuple(Row(i, "The user wants cats" if i == 1400 else f"names of cats {i}") for i in range(1500))
    done = audit(neuronpedia.flags(frame(Imported(rows=rows))))
    notes = done.notes()
    assert len(notes.unscored) == 1000 and notes.unscored[0].index == 1400
    assert dict(notes.facts)["Not on this page"].startswith("500 of the rows")
    assert done.save(tmp_path)["report"].stat().st_size < 3_000_000 and len(pd.read_csv(tmp_path / "audit.csv")) == 1500


HOSTILE_TEXTS = ("half \ud800 a character", "nul \x00 and escape \x1b]0;title\x07", "\u202edesrever\u200f", "[/bold] [red", "x" * 1_000_000, "<img src=x onerror=alert(1)>")  # fmt: skip


def test_hostile_texts_through_every_way_out(tmp_path):
    folder = tmp_path / "bulk" / "explanations"
    folder.mkdir(parents=True)
    records = [
        {"modelId": ID.model_id, "layer": ID.source_id, "index": n, "id": f"{n} {text[:40]}", "description": text,
         "typeName": text[:40], "explanationModelName": text[:40], "notes": text,
         "scores": [{"value": 0.1 * n, "explanationScoreTypeName": text[:40], "jsonDetails": "x"}]}
        for n, text in enumerate(HOSTILE_TEXTS)
    ]  # fmt: skip
    (folder / "batch-0.jsonl").write_text("\n".join(map(json.dumps, records)))
    command = ["audit", "--flags-only", "--neuronpedia", str(tmp_path / "bulk"), "--out", str(tmp_path / "[out]")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "\x1b" not in done.output and "\u202e" not in done.output
    out = tmp_path / "[out]"
    assert "[out]" in done.output
    back = pd.read_parquet(out / "audit.parquet").set_index("index")
    assert len(back) == len(pd.read_csv(out / "audit.csv")) == len(HOSTILE_TEXTS)
    assert back.loc[0, "description"] == "half ? a character" and back.loc[2, "description"] == HOSTILE_TEXTS[2]
    lines = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    assert {line["description"] for line in lines} >= set(HOSTILE_TEXTS[1:])
    page = (out / "report.html").read_text()
    assert len(page) < 2_000_000 and "<img src=x" not in page and "\x1b" not in page and "\u202e" not in page
    again = neuronpedia.descriptions(out / "import_rows.jsonl")
    assert sorted(map(len, again["description"])) == sorted(map(len, HOSTILE_TEXTS))


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A bulk folder for the planted model: two labels swapped, one leaked, one missing, one of a dead feature."""
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    monkeypatch.setenv("FADE_LENS_API_KEY", "sk-SECRET")
    sae = planted_sae()
    sae.cfg.metadata.neuronpedia_id = str(ID)
    sae.save_model(tmp_path / "sae")
    labels = [(0, TRUE[0]), (0, TRUE[1]), (1, TRUE[2]), (2, TRUE[1]), (3, "verbs"), (4, "MAX_ACTIVATING_TOKENS: the")]
    rows = [{"modelId": ID.model_id, "layer": ID.source_id, "index": str(i), "id": f"x{n}", "description": text, "typeName": "t", "explanationModelName": "m"} for n, (i, text) in enumerate(labels)]  # fmt: skip
    folder = tmp_path / "bulk" / "explanations"
    folder.mkdir(parents=True)
    (folder / "batch-0.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in natural_texts()))
    model = planted_model()
    contexts = [contexts_of(model, sae, text, n % 3) for n, text in enumerate(natural_texts(60, seed=5))]
    (tmp_path / "bulk" / "activations").mkdir()
    (tmp_path / "bulk" / "activations" / "batch-0.jsonl").write_text("\n".join(map(json.dumps, contexts)))
    with FakeJudge(rule=rule, writer=writer) as server:
        yield SimpleNamespace(
            folder=tmp_path,
            server=server,
            arguments=[
                "audit", "--model", "planted", "--sae", str(tmp_path / "sae"), "--neuronpedia", str(tmp_path / "bulk"),
                "--corpus", str(tmp_path / "c.jsonl"), "--judge", f"{server.base_url}#planted", "--out", str(tmp_path / "run"),
                "--rated-texts", "100", "--synthetic-texts", "10", "--features", "0:6", "--no-faithfulness",
            ],
        )  # fmt: skip


def contexts_of(model, sae, text, index):
    """A stored context as Neuronpedia has it, computed in the plain way."""
    tokens = model.tokenizer.tokenize(text)
    ids = [model.tokenizer.bos_token_id, *model.tokenizer.convert_tokens_to_ids(tokens)]
    import torch

    _, cache = model.run_with_cache(torch.tensor([ids]), prepend_bos=False)
    with torch.no_grad():
        values = sae.encode(cache[sae.cfg.metadata.hook_name])[0, 1:, index]
    return {
        "index": index,
        "modelId": ID.model_id,
        "layer": ID.source_id,
        "tokens": tokens,
        "values": [round(v, 3) for v in values.tolist()],
    }


def test_one_command_names_what_was_planted(parts):
    done = CliRunner().invoke(app, parts.arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(parts.folder / "run" / "audit.parquet").set_index("explanation_id")
    assert table.loc["x5", "verdict"] == "unusable" and "prompt_leak" in table.loc["x5", "flags"]
    assert table[table["state"] == "none"]["index"].tolist() == [5]
    assert (
        table.loc["x0", "verdict"] == table.loc["x0", "standing"] == "holds"
        and table.loc["x0", "suggested_best_explanation_id"] == "x0"
    )
    assert table.loc["x1", "suggested_best_explanation_id"] == "x0" and table.loc["x1", "verdict"] in (
        "fails",
        "swapped",
    )
    assert table.loc["x2", "verdict"] in ("fails", "mislabelled", "swapped") and table.loc["x3", "verdict"] in (
        "fails",
        "mislabelled",
        "swapped",
    )
    assert table.loc["x0", "mapping_check"].startswith("passed on") and table.loc["x0", "judge"]
    assert table.loc["x0", "dashboard_url"] == f"https://www.neuronpedia.org/{ID}/0"
    assert not table["faithfulness"].notna().any()
    page = (parts.folder / "run" / "report.html").read_text()
    assert "Mapping check" in page and "prompt_leak" in page
    asked = parts.server.requests
    again = CliRunner().invoke(app, [*parts.arguments, "--quiet"], catch_exceptions=False)
    assert again.exit_code == 0 and parts.server.requests <= asked + 1


def test_what_an_audit_says_to_import_is_better_than_what_it_was_given(parts):
    run = CliRunner().invoke
    labels = [(0, TRUE[1]), (1, TRUE[2]), (1, "names of colours and more"), (2, TRUE[0]), (3, "verbs"), (4, "MAX_ACTIVATING_TOKENS: the")]  # fmt: skip
    rows = [{"modelId": ID.model_id, "layer": ID.source_id, "index": str(i), "id": f"x{n}", "description": text} for n, (i, text) in enumerate(labels)]  # fmt: skip
    batch = parts.folder / "bulk" / "explanations" / "batch-0.jsonl"
    batch.write_text("\n".join(map(json.dumps, rows)))
    assert run(app, [*parts.arguments, "--quiet"], catch_exceptions=False).exit_code == 0
    before = pd.read_parquet(parts.folder / "run" / "audit.parquet")
    imported = [json.loads(line) for line in (parts.folder / "run" / "import_rows.jsonl").read_text().splitlines()]
    anew = [json.loads(line) for line in (parts.folder / "run" / "to_describe.jsonl").read_text().splitlines()]
    outdated = (parts.folder / "run" / "outdated_ids.txt").read_text().split()
    assert imported and "x5" in outdated and not {row["id"] for row in imported} & set(outdated)
    assert {4, 5} <= {one["index"] for one in anew} and all(one["index"] in (3, 4) or one["top_texts"] for one in anew)
    batch.write_text("\n".join(map(json.dumps, imported)))
    arguments = [*parts.arguments, "--quiet", "--force"]
    arguments[arguments.index("--out") + 1] = str(parts.folder / "again")
    assert run(app, arguments, catch_exceptions=False).exit_code == 0
    after = pd.read_parquet(parts.folder / "again" / "audit.parquet")
    assert not after["verdict"].isin(["swapped", "mislabelled", "fails", "unusable"]).any()
    assert after["clarity"].mean() > before["clarity"].mean()


def test_an_audit_takes_the_options_on_the_judge(parts):
    more = ["--repeats", "1", "--second-judge", f"{parts.server.base_url}#other"]
    dry = CliRunner().invoke(app, [*parts.arguments, "--price", "1,2", "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0 and "to score: " in dry.output and "about $" in dry.output
    assert parts.server.requests == 0 and not (parts.folder / "run").exists()
    with pytest.raises(JudgeError, match="max_calls=4"):
        CliRunner().invoke(app, [*parts.arguments, *more, "--max-calls", "4", "--quiet"], catch_exceptions=False)
    with pytest.raises(InputError, match=r"none\.csv"):
        CliRunner().invoke(app, [*parts.arguments, "--gold", "none.csv"], catch_exceptions=False)
    with pytest.raises(InputError, match="max_cost needs a price"):
        CliRunner().invoke(app, [*parts.arguments, "--max-cost", "1"], catch_exceptions=False)
    done = CliRunner().invoke(app, [*parts.arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0 and "with repeat 1 on" in done.output and "with other on" in done.output
    asked = parts.server.requests
    elsewhere = [*parts.arguments, "--transcripts", str(parts.folder / "run"), "--quiet"]
    elsewhere[elsewhere.index("--out") + 1] = str(parts.folder / "other")
    shared = CliRunner().invoke(app, elsewhere, catch_exceptions=False)
    assert shared.exit_code == 0 and parts.server.requests <= asked + 2, "another run's answers are used"


def test_a_failed_mapping_check_stops_before_anything_is_spent(parts):
    path = parts.folder / "bulk" / "activations" / "batch-0.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({**row, "values": [3 * v for v in row["values"]]}) for row in rows))
    with pytest.raises(InputError, match="another variant of this SAE"):
        CliRunner().invoke(app, parts.arguments, catch_exceptions=False)
    asked = [json.dumps(body) for body in parts.server.bodies]
    assert len(asked) <= 2 and not any(label in text for text in asked for label in TRUE.values()), (
        "the judge's check alone"
    )
    forced = CliRunner().invoke(app, [*parts.arguments, "--force", "--quiet"], catch_exceptions=False)
    assert forced.exit_code == 0
    assert pd.read_parquet(parts.folder / "run" / "audit.parquet")["mapping_check"].str.startswith("failed").all()


def test_where_nothing_is_worth_scoring_the_flags_stand(parts):
    done = CliRunner().invoke(app, [*parts.arguments, "--features", "4:6"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(parts.folder / "run" / "audit.parquet")
    assert dict(zip(table["index"], table["verdict"], strict=True)) == {4: "unusable", 5: "missing"}
    assert (parts.folder / "run" / "report.html").is_file()


def test_tokens_of_another_model_stop_an_audit_unless_it_is_forced(parts):
    path = parts.folder / "bulk" / "activations" / "batch-0.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({**row, "tokens": ["⟨what⟩"] * len(row["tokens"])}) for row in rows))
    with pytest.raises(InputError, match="it is another model; --force scores anyway"):
        CliRunner().invoke(app, parts.arguments, catch_exceptions=False)
    forced = CliRunner().invoke(app, [*parts.arguments, "--force", "--quiet"], catch_exceptions=False)
    assert forced.exit_code == 0 and len(pd.read_parquet(parts.folder / "run" / "audit.parquet"))


def test_flags_only_needs_neither_model_nor_judge(parts):
    out = str(parts.folder / "flags")
    done = CliRunner().invoke(
        app,
        ["audit", "--flags-only", "--neuronpedia", str(parts.folder / "bulk"), "--out", out],
        catch_exceptions=False,
    )
    assert done.exit_code == 0 and "prompt_leak" in done.output and parts.server.requests == 0
    assert len(pd.read_parquet(parts.folder / "flags" / "audit.parquet")) == 6
    (parts.folder / "bulk" / "source.jsonl").write_text(json.dumps({"saelensConfig": {"d_sae": 8}}))
    command = ["audit", "--flags-only", "-q", "--neuronpedia", str(parts.folder / "bulk"), "--out", out]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    table = pd.read_parquet(parts.folder / "flags" / "audit.parquet")
    assert table[table["state"] == "none"]["index"].tolist() == [5, 6, 7]  # the source tells how many there are
    with pytest.raises(InputError, match="give --judge, or --flags-only"):
        CliRunner().invoke(app, ["audit", "--model", "m", "--corpus", "c", "--out", out], catch_exceptions=False)


def test_evaluate_takes_descriptions_from_neuronpedia(parts, tmp_path, monkeypatch):
    from tests.neuronpedia.fake_site import FakeSite, packed

    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    monkeypatch.setenv("FADE_LENS_CACHE", str(tmp_path / "cache"))
    with FakeSite() as site:
        site.files[f"v1/{ID}/explanations/batch-0.jsonl.gz"] = packed([
            {"index": str(i), "modelId": ID.model_id, "layer": ID.source_id, "description": text} for i, text in TRUE.items()
        ])  # fmt: skip
        monkeypatch.setenv("FADE_LENS_NEURONPEDIA_BUCKET", site.url)
        command = [
            "evaluate",
            *parts.arguments[1:5],
            *parts.arguments[7:-3],
            "--descriptions",
            "neuronpedia",
            "--features",
            "0:9",
            "--gate",
            "2",
        ]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(parts.folder / "run" / "results.csv")
    assert table["index"].tolist() == [0, 1, 2] and table["origin"].str.startswith(f"Neuronpedia {ID}").all()
    assert table["dashboard_url"].tolist() == [f"https://www.neuronpedia.org/{ID}/{i}" for i in range(3)]
    results = Results.load(parts.folder / "run" / "results.sqlite")
    assert results.run.features.neuronpedia_id == str(ID)
    assert f"https://www.neuronpedia.org/{ID}/2" in (parts.folder / "run" / "report.html").read_text()


@pytest.mark.real
@pytest.mark.slow
def test_the_planted_faults_of_forty_real_descriptions_are_named(gemma, tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: gemma)
    monkeypatch.setenv("FADE_LENS_API_KEY", "sk-made-up")
    folder = build(tmp_path / "bulk")
    with FakeJudge(rule=demo_rule, writer=demo_writer) as server:
        arguments = [
            "audit", "--model", "demo", "--sae", "demo", "--neuronpedia", str(folder), "--corpus", "demo", "--corpus-limit", "200",
            "--judge", f"{server.base_url}#rule", "--out", str(tmp_path / "run"),
            "--rated-texts", "60", "--synthetic-texts", "10", "--no-faithfulness", "--context", "32",
            "--health-texts", "0", "--promoted-tokens", "0",
        ]  # fmt: skip
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(tmp_path / "run" / "audit.parquet")
    assert (table["state"] == "described").sum() >= 40 and sum(map(len, PLANTED.values())) >= 12
    assert misses(table) == []
    assert table["verdict"].isin(["holds", "open"]).sum() >= 25 and (table["verdict"] == "holds").any()
