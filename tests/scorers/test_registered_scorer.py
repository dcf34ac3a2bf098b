"""A scorer registered here, in one class, appears wherever scores do; nothing else knows it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import Description, Fade, Results, Settings, compare
from fade_lens._util.errors import InputError, JudgeError, StoreError
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng, stream
from fade_lens.analysis import sanity
from fade_lens.cli import app
from fade_lens.judge import Estimate, Judge
from fade_lens.metrics.intervals import share_interval
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import balanced_accuracy
from fade_lens.report.page import page
from fade_lens.runs.store import read_transcripts
from fade_lens.scorers.base import REGISTRY, PlainScores, Scorer, ScoreSpec, scorer, specs_of
from fade_lens.subject.settings import SubjectSettings
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()
SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 20}
WHY = Reason("toy", "the toy has no depth")


@dataclass(frozen=True)
class ToySettings(SubjectSettings):
    toy_texts: int = option(30, "Natural texts that are rated for the toy.", least=1)


class Toy(Scorer):
    """The share of some texts on which the feature fires where the judge sees the concept; and a score that is never defined."""

    specs = (
        ScoreSpec(
            "toy_agreement",
            "Toy agreement",
            "Does the feature fire where the concept is?",
            chance=0.5,
            of_labels=lambda texts: balanced_accuracy(*texts),
        ),
        ScoreSpec("toy_depth", "Toy depth", "How deep is the toy?", (0.0, 9.0), needs=()),
    )
    Settings: ClassVar[type[SubjectSettings]] = ToySettings

    @classmethod
    def estimate(
        cls, judge: Judge, settings: SubjectSettings, descriptions: Sequence[Description], n_texts: int
    ) -> Estimate:
        return judge.estimate(0, min(ToySettings.of(settings).toy_texts, n_texts), n_concepts=len(descriptions))

    def ask(self, descriptions: Sequence[Description]) -> Any:
        subject, settings = self.scoring.subject, ToySettings.of(self.scoring.settings)
        n = min(settings.toy_texts, len(subject.tokens))
        chosen = rng(settings.seed, "toy texts").choice(len(subject.tokens), n, replace=False)
        texts = [subject.tokens.texts[i] for i in chosen]
        submit = self.scoring.judge.submit_rate
        return chosen, {d: submit(d.text, texts, seed=stream(settings.seed, "toy", d.id)) for d in descriptions}

    def measure(self, asked: Any) -> dict[Description, PlainScores]:
        chosen, answers = asked
        self.scoring.wait("judge: toy", answers.values())
        found: dict[Description, PlainScores] = {}
        for d, answer in answers.items():
            shows = np.array([rating.value == 2 for rating in answer.result()])
            same = int(((self.scoring.subject.natural(d.index)[chosen] > 0) == shows).sum())
            agreement = Metric(same / len(shows), None, share_interval(same, len(shows)), {"texts": len(shows)})
            found[d] = PlainScores({"toy_agreement": agreement, "toy_depth": Metric(None, WHY)})
        return found


@pytest.fixture(autouse=True)
def toy():
    scorer("toy")(Toy)
    yield Toy
    del REGISTRY["toy"]


@pytest.fixture
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


def test_its_scores_and_settings_are_those_of_any_other(server, tmp_path):
    fade = make(server, toy_texts=45)
    assert isinstance(fade.settings, Settings) and isinstance(fade.settings, ToySettings)
    alone, both = (fade.estimate(TRUE, scorers=names) for names in (("toy",), ("fade", "toy")))
    assert alone.calls == 3 * 3 and both.calls == alone.calls + fade.estimate(TRUE).calls
    results = fade.evaluate(TRUE, scorers=("fade", "toy"), nulls=("shuffled",), progress=False)
    assert results.run.settings["toy_texts"] == 45
    plain = make(server).evaluate(TRUE, nulls=("shuffled",), progress=False)
    shared = [name for name in plain.frame if not name.startswith("judge_")]
    pd.testing.assert_frame_equal(results.frame[shared], plain.frame[shared])
    assert "toy_texts" not in plain.run.settings
    row = results.frame.iloc[0]
    assert row.toy_agreement == 1.0 and row.toy_agreement_low < 1.0 and row.toy_depth_reason == WHY
    assert results.frame["toy_depth"].dtype == "float64"
    # The whole of it is read again by the scorer's own classes.
    read = Results.load(results.save(tmp_path / "r.sqlite"))
    assert read.items == results.items and read.nulls == results.nulls
    summary = results.summary().set_index(["null", "metric"])
    own = results.summary().set_index("metric")
    assert own.loc["toy_agreement", "mean"].iloc[0] == 1.0 and own.loc["toy_depth", "undefined"] == 1.0
    assert summary.loc[("shuffled", "toy_agreement"), "mean"] > 0
    html = page(results)
    for words in (
        "Toy agreement",
        "Toy depth",
        "Does the feature fire where the concept is?",
        "chance level 0.50",
        WHY,
    ):
        assert words in html, words
    assert "chance level 0.500" in html, "on the card, too"
    assert {trace.name for trace in results[0].plot().data} and len(results.plot().layout.annotations) >= 6
    assert "Toy agreement" in results._repr_html_() and "Toy depth" in results[0]._repr_html_()
    comparison = compare(results, plain)
    own = comparison.frame[comparison.frame["null"].isna()]
    rows = own.set_index(["metric", "run"])["mean"]
    assert rows["toy_agreement"].notna().tolist() == [True, False], "the other run has none"
    assert "Toy agreement" in comparison._repr_html_() and len(comparison.plot().layout.annotations) == 6
    checks = {check.metric for check in sanity.of_run(results)}
    assert "Toy agreement" in checks and "Toy depth" not in checks


def test_it_can_be_the_only_one(server):
    results = make(server).evaluate(TRUE, scorers=("toy",), progress=False)
    assert [spec.title for spec in results.specs] == ["Toy agreement", "Toy depth"]
    assert "clarity" not in results.frame and results[0].clarity.reason == "not among the run's scores"
    html = page(results)
    assert "none of the run" in html and "Toy agreement" in html and "Faithfulness" not in html.split("<script")[0]
    assert results.cross_scores is None and "Toy agreement" in results._repr_html_()


def test_a_run_that_stopped_asks_nothing_twice(server, tmp_path):
    whole = make(server).evaluate(TRUE, scorers=("toy",), progress=False)
    asked = server.requests
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=5, concurrency=1)
    store, some = tmp_path / "run", {"corpus": TEXTS, **SMALL}
    with pytest.raises(JudgeError):
        Fade(MODEL, SAE, judge=first, **some).evaluate(TRUE, scorers=("toy",), store=store, progress=False)
    kept = len(list(read_transcripts(store)))
    assert 0 < kept < asked
    before = server.requests
    resumed = make(server).evaluate(TRUE, scorers=("toy",), store=store, progress=False)
    assert resumed.run.usage.cached > 0 and server.requests - before < asked
    assert [r.metrics for r in resumed] == [r.metrics for r in whole]
    before = server.requests
    again = make(server).evaluate(TRUE, scorers=("toy",), store=store, progress=False)
    assert again.items == resumed.items and server.requests == before, "all is kept"
    # The same folder serves other scorers; what FADE's settings decide is still checked.
    more = make(server).evaluate(TRUE, scorers=("fade", "toy"), store=store, progress=False)
    assert [r.metric("toy_agreement") for r in more] == [r.metric("toy_agreement") for r in whole]
    with pytest.raises(StoreError, match="rated_texts"):
        make(server, rated_texts=60).evaluate(TRUE, scorers=("toy",), store=store, progress=False)


def test_the_command_line_takes_it(server, tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    monkeypatch.setenv("FADE_LENS_API_KEY", "sk-SECRET")
    monkeypatch.setenv("COLUMNS", "160")
    planted_sae().save_model(tmp_path / "sae")
    (tmp_path / "d.json").write_text(json.dumps(TRUE))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))

    def run(*more: str):
        return CliRunner().invoke(app, [
            "evaluate", "--model", "planted", "--sae", str(tmp_path / "sae"), "--descriptions", str(tmp_path / "d.json"),
            "--corpus", str(tmp_path / "c.jsonl"), "--judge", f"{server.base_url}#planted", *more,
        ])  # fmt: skip

    folders = [str(tmp_path / name) for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        done = run("--scorers", "toy", "--out", folder, "--seed", str(seed))
        assert done.exit_code == 0 and "Toy agreement" in done.output and WHY in done.output, done.output
    told = CliRunner().invoke(app, ["compare", *folders, "--out", str(tmp_path / "c")])
    assert told.exit_code == 0 and "Toy agreement" in told.output, told.output
    wrong = run("--scorers", "toys", "--out", str(tmp_path / "d"))
    assert isinstance(wrong.exception, InputError) and "did you mean 'toy'" in str(wrong.exception)


def test_names_that_are_taken_are_refused():
    def made(**changes: Any) -> type[Scorer]:
        return type("Other", (Toy,), changes)

    with pytest.raises(InputError, match="already registered as 'toy'"):
        scorer("toy")(made())
    with pytest.raises(InputError, match="'toy_agreement' of scorer 'other' is already one of 'toy'"):
        scorer("other")(made())

    @dataclass(frozen=True)
    class Mine(SubjectSettings):
        rated_texts: int = 3

    with pytest.raises(InputError, match="setting 'rated_texts'"):
        scorer("other")(made(specs=(ScoreSpec("other", "Other", "?"),), Settings=Mine))
    with pytest.raises(InputError, match="small letters"):
        scorer("other")(made(specs=(ScoreSpec("Other score", "Other", "?"),)))
    assert "other" not in REGISTRY and {"fade", "toy"} <= set(REGISTRY)


def test_an_installed_package_brings_its_own(monkeypatch):
    class Point:
        name, value = "late", "late_package:Late"

        def load(self) -> None:
            scorer("late")(type("Late", (Toy,), {"specs": (ScoreSpec("late", "Late", "Is it late?"),)}))

    class Broken(Point):
        def load(self) -> None:
            raise ImportError("no such module")

    monkeypatch.setattr(REGISTRY, "installed_loaded", False)
    monkeypatch.setattr("fade_lens._util.registry.entry_points", lambda group: [Broken(), Point()])
    assert specs_of(["late"])[0].title == "Late"
    del REGISTRY["late"]


def test_settings_that_cannot_be_used_are_told(server):
    with pytest.raises(InputError, match="toy_texts is 0; it must be at least 1"):
        make(server, toy_texts=0)
    with pytest.raises(InputError, match="toy_text is no setting; did you mean 'toy_texts'"):
        make(server, toy_text=1)
    with pytest.raises(InputError, match="give a tuple of at least one name"):
        make(server).evaluate(TRUE, scorers="toy")


class Firing(Scorer):
    """The share of texts on which the feature fires; nobody is asked."""

    specs = (ScoreSpec("firing", "Firing", "How often does it fire?", needs=()),)

    @classmethod
    def estimate(cls, judge, settings, descriptions, n_texts) -> Estimate:
        return Estimate(0, 0, 0, 0.0)

    def ask(self, descriptions):
        return descriptions

    def measure(self, asked):
        self.scoring.observe()
        subject = self.scoring.subject
        return {d: PlainScores({"firing": Metric(float((subject.natural(d.index) != 0).mean()))}) for d in asked}


def test_a_scorer_that_asks_nobody_needs_no_judge(tmp_path):
    scorer("firing")(Firing)
    try:
        fade = Fade(MODEL, SAE, corpus=TEXTS, **SMALL)
        assert fade.estimate(TRUE, scorers=("firing",)).calls == 0
        results = fade.evaluate(TRUE, scorers=("firing",), store=tmp_path / "run", progress=False)
        assert (results.frame["firing"] > 0).all() and results.run.usage.calls == 0
        with pytest.raises(InputError, match="gold asks a judge, and none was given"):
            fade.evaluate(TRUE, scorers=("firing",), gold=[], progress=False)
        with pytest.raises(InputError, match="scorer 'toy' asks a judge"):
            fade.evaluate(TRUE, scorers=("firing", "toy"), progress=False)
    finally:
        del REGISTRY["firing"]
