"""An explainer registered here, in one class, appears wherever explainers do; nothing else knows it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import Description, Fade, Request, Results, Subject, compare, read_descriptions
from fade_lens._util.errors import InputError, JudgeError
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens.cli import app
from fade_lens.explainers.base import REGISTRY, Explainer, ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.asking import Questions
from fade_lens.report.page import page
from fade_lens.runs.store import read_transcripts
from fade_lens.scorers.base import REGISTRY as SCORERS
from fade_lens.subject.settings import SubjectSettings
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(800)
SMALL: dict[str, Any] = {
    "prompts": 4,
    "prompt_tokens": 4,
    "new_tokens": 2,
    "factors": (),
    "rated_texts": 60,
    "synthetic_texts": 10,
}
SILENT = 3
"""A latent that never fires."""


@dataclass(frozen=True)
class ToySettings(ExplainerSettings):
    toy_words: int = option(5, "Words that the toy asks about.", least=1)


class Toy(Explainer):
    """Asks what the words at the peaks are."""

    Settings: ClassVar[type[ExplainerSettings]] = ToySettings
    version = "7"

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        return judge.estimate_ask(question(0, ["word"] * ToySettings.of(settings).toy_words)) * n_features

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        windows = evidence.active[: ToySettings.of(self.settings).toy_words]
        words = [window.tokens[window.peak].strip() for window in windows]
        found = await questions.ask(question(evidence.index, words), lambda answer: answer.content)
        if isinstance(found, Reason):
            return Explanation.of(evidence, reason=found, shown=windows)
        return Explanation.of(evidence, found, rules=[(found, 5)], shown=windows)


def question(index: int, words: list[str]) -> Request:
    return Request("explain", f"feature {index}", [{"role": "user", "content": " ".join(["toy", *words])}], {}, 5)


def says(body: dict[str, Any]) -> str | None:
    """Which class the words are of."""
    mark, *words = body["messages"][-1]["content"].split()
    named = (TRUE[index] for index, members in CLASSES.items() if words and set(words) <= set(members))
    return next(named, "other words") if mark == "toy" else None


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    explainer("toy")(Toy)
    yield
    del REGISTRY["toy"]


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, writer=writer, says=says) as running:
        yield running


def make(server: FakeJudge, **settings: Any) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


def test_its_descriptions_are_scored_reported_and_compared(server: FakeJudge, tmp_path: Any) -> None:
    fade, indices = make(server, toy_words=4), [0, 1, 2, SILENT]
    alone = fade.estimate(indices, explainer="toy", scorers=())
    assert alone.calls == 4 and fade.estimate(indices, explainer="toy").calls > alone.calls
    made = fade.explain(indices, explainer="toy", progress=False)
    assert {d.index: d.text for d in made} == TRUE and len(made) == 3 and made.reasons == {"silent": 1}
    assert made[SILENT].reason == "never fires on the 800 texts of the corpus" and "3 of 4" in repr(made)
    row: Any = made.frame.iloc[0]
    assert [row[n] for n in ("explainer", "model", "prompt_version", "judge_calls")] == ["toy", "planted", "7", 1]
    assert len(made[0].shown) == 4 == len(str(row["shown"]).split()) and made.run["settings"]["toy_words"] == 4
    assert made[0].description is not None and made[0].description.rules == ((TRUE[0], 5),)
    read = read_descriptions(made.to_csv(tmp_path / "labels.csv"))
    assert read == read_descriptions(made) == read_descriptions(made.frame)
    assert [d.provenance.shown for d in read] == [d.provenance.shown for d in made]
    assert str(read[0].provenance) == "planted (toy)"

    results = fade.evaluate(made, progress=False)
    assert results.run.explained["described"] == 3 and results.run.held_out
    assert [r.clarity.value is not None and r.clarity.value > 0.9 for r in results] == [True] * 3
    assert results.frame["origin"].dropna().tolist() == ["planted (toy)"] * 3 and "planted (toy)" in page(results)
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items
    given = fade.evaluate(TRUE, held_out=True, progress=False)
    comparison = compare(results, given, by="explainer")
    assert set(comparison.frame["group"]) == {"planted (toy)", "a dict"}
    assert set(comparison.paired["difference"].dropna().tolist()) == {0.0}, "the same words on the same texts"


def test_features_without_a_description_are_explained_first(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    fade, passes = make(server), list[int]()
    observe = Subject.observe_each
    monkeypatch.setattr(Subject, "observe_each", lambda *a, **k: passes.append(1) or observe(*a, **k))
    results = fade.evaluate({0: "names of colours", 1: None, 2: "  "}, explainer="toy", progress=False)
    assert {r.description.index: r.description.text for r in results} == {**TRUE, 0: "names of colours"}
    assert len(passes) == 1, "one pass over the corpus serves both"
    assert results[1].description.provenance.kind == "explained" and results.run.explained["features"] == 2
    with pytest.raises(InputError, match="every feature has a description"):
        fade.evaluate(TRUE, explainer="toy", progress=False)
    with pytest.raises(InputError, match=r"none of 1 features has a description \(1 silent\)"):
        fade.evaluate([SILENT], explainer="toy", progress=False)
    before = server.requests
    bad: tuple[dict[str, Any], ...] = ({"nulls": ("shuffle",)}, {"gold": "none.csv"}, {"scorers": ("fad",)})
    for wrong in bad:
        with pytest.raises(InputError):
            fade.evaluate([0], explainer="toy", progress=False, **wrong)
    assert server.requests == before, "told before an explainer is paid for"


def test_scores_rest_on_texts_that_no_explainer_has_seen(server: FakeJudge) -> None:
    fade = make(server)
    made = fade.explain([0], explainer="toy", progress=False)
    shown = {TEXTS[text] for text, _, _ in made[0].shown}
    rated = fade.evaluate(made, progress=False)[0].rated_evidence.texts
    held_out = {text.text for text in rated}
    assert held_out and shown and not held_out & shown
    everything = {text.text for text in fade.evaluate({0: TRUE[0]}, progress=False)[0].rated_evidence.texts}
    assert everything & shown, "a run without an explainer uses all texts"
    for other in ({}, {"context": 16}):
        with pytest.raises(InputError, match="seed 0, which is 1 now"):
            make(server, seed=1, **other).evaluate(made, progress=False)


def test_a_run_that_stopped_asks_nothing_twice(server: FakeJudge, tmp_path: Any) -> None:
    indices = [0, 1, 2, SILENT, 4, 5, 6, 7]
    whole = make(server, least_texts=1).explain(indices, explainer="toy", progress=False)
    asked = server.requests
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=2, concurrency=1)
    store = tmp_path / "run"
    some: dict[str, Any] = {"corpus": TEXTS, "least_texts": 1, **SMALL}
    with pytest.raises(JudgeError):
        Fade(MODEL, SAE, judge=first, **some).explain(indices, explainer="toy", store=store, progress=False)
    kept = {json.dumps(request["messages"]) for request, _ in read_transcripts(store)}
    assert 0 < len(kept) < asked
    before = server.requests
    resumed = make(server, least_texts=1).explain(indices, explainer="toy", store=store, progress=False)
    sent = {json.dumps(body["messages"]) for body in server.bodies[before:]}
    assert not sent & kept and resumed.rows == whole.rows
    before = server.requests
    again = make(server, least_texts=1).explain(indices, explainer="toy", store=store, progress=False)
    assert again.rows == whole.rows and [r.usage for r in again.rows] == [r.usage for r in whole.rows]
    assert server.requests == before
    # The same folder serves the scores, of explained and of given descriptions.
    steered = make(server, least_texts=1, factors=(1.0,))
    store = tmp_path / "scored"
    scored = steered.evaluate(again, store=store, progress=False)
    given = steered.evaluate(TRUE, store=store, progress=False)
    assert scored[0].faithfulness_evidence != given[0].faithfulness_evidence, "each has continuations of its own"
    before = server.requests
    assert steered.evaluate(again, store=store, progress=False).items == scored.items
    assert server.requests == before


def test_one_feature_that_cannot_be_explained_has_its_reason(server: FakeJudge) -> None:
    def refused(body: dict[str, Any]) -> str | None:
        words = body["messages"][-1]["content"].split()
        return "refuse" if words[0] == "toy" and set(words[1:]) & set(CLASSES[1]) else None

    server.choose = refused
    made = make(server).explain([0, 1, 2], explainer="toy", progress=False)
    assert [row.description is None for row in made.rows] == [False, True, False]
    assert made.reasons == {"refused": 1} and "cannot help" in str(made[1].reason) and made[1].shown
    assert made.frame["reason_code"].tolist()[1] == "refused"
    few = make(server, least_texts=500).explain([0], explainer="toy", progress=False)
    assert few.reasons == {"too_few_texts": 1} and "fewer than 500" in str(few[0].reason)


def test_the_command_line_takes_it(server: FakeJudge, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.cli.options.check_model", lambda *_: None)
    monkeypatch.setattr("fade_lens.cli.subject.open_model", lambda *_: planted_model())
    monkeypatch.setenv("FADE_LENS_API_KEY", "sk-SECRET")
    monkeypatch.setenv("COLUMNS", "160")
    planted_sae().save_model(tmp_path / "sae")
    (tmp_path / "d.csv").write_text("index,description\n0,names of colours\n")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))

    def run(command: str, *more: str) -> Any:
        return CliRunner().invoke(app, [
            command, "--model", "planted", "--sae", str(tmp_path / "sae"), "--corpus", str(tmp_path / "c.jsonl"),
            "--judge", f"{server.base_url}#planted", "--explainer", "toy", *more,
        ])  # fmt: skip

    told = run("explain", "--features", "0:4", "--out", str(tmp_path / "labels.csv"), "--dry-run", "--toy-words", "3")
    assert told.exit_code == 0 and "4 calls" in told.output and not server.requests, told.output
    done = run("explain", "--features", "0:4", "--out", str(tmp_path / "labels.csv"))
    assert done.exit_code == 0 and TRUE[1] in done.output and "never fires" in done.output, done.output
    assert {d.index: d.text for d in read_descriptions(tmp_path / "labels.csv")} == TRUE
    own = ("--features", "0:3", "--out", str(tmp_path / "run"), "--no-faithfulness", "--rated-texts", "60")
    scored = run("evaluate", "--descriptions", str(tmp_path / "d.csv"), *own)
    assert scored.exit_code == 0 and TRUE[1] in scored.output and "names of colours" in scored.output, scored.output
    wrong = run("explain", "--features", "0:4", "--out", str(tmp_path / "w.csv"), "--explainer", "toys")
    with monkeypatch.context() as patched:
        patched.setattr("fade_lens.cli.subject.open_model", lambda *_: pytest.fail("a model is loaded for nobody"))
        gone = run(
            "explain", "--features", "0:4", "--out", str(tmp_path / "g.csv"), "--judge", "http://127.0.0.1:9/v1#m"
        )
        assert isinstance(gone.exception, JudgeError) and not (tmp_path / "g").exists()
    assert isinstance(wrong.exception, InputError) and "did you mean 'toy'" in str(wrong.exception)


def test_names_that_are_taken_are_refused() -> None:
    def made(**changes: Any) -> type[Explainer]:
        return type("Other", (Toy,), changes)

    with pytest.raises(InputError, match="an explainer is already registered as 'toy'"):
        explainer("toy")(made())

    @dataclass(frozen=True)
    class Mine(ExplainerSettings):
        rated_texts: int = 3

    SCORERS.load_own()
    with pytest.raises(InputError, match="setting 'rated_texts' of explainer 'other' is already one of scorer 'fade'"):
        explainer("other")(made(Settings=Mine))


def test_a_table_that_was_changed_by_hand_is_told(server: FakeJudge, tmp_path: Any) -> None:
    made = make(server).explain([0, SILENT], explainer="toy", progress=False)
    broken = made.frame.assign(rules='[["x"]]')
    with pytest.raises(InputError, match=r"feature 0: rule 1 is \[.x.\]; give its text and its strength"):
        read_descriptions(broken)
    with pytest.raises(InputError, match="none of the 1 features of the table has a description \\(1 silent\\)"):
        read_descriptions(made.frame[made.frame["description"].isna()])
    kept = pd.DataFrame({"index": [0], "description": ["x"], "explainer": ["y"]})
    assert read_descriptions(kept) == (Description(0, "x", "a DataFrame"),), "any other table with such a column"
