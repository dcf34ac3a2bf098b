"""Runs whose judge is asked about several descriptions at once: the same numbers for fewer calls, or the run as it was."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from fade_lens import Fade, Judge, RatingEvaluator, Results, Settings, Subject
from fade_lens.cli import app
from fade_lens.descriptions import Description
from fade_lens.errors import InputError
from fade_lens.evaluators.sharing import trial_of
from fade_lens.judge import BudgetReached, prompts
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer
from tests.test_cli import parts

__all__ = ["parts"]  # a fixture

SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 10}
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts()
FEATURES = (0, 1, 2, 4)


def concept_of(description: str) -> str:
    return description.partition(": ")[2]


def own_rule(description: str, text: str) -> int:
    return rule(concept_of(description), text)


def own_writer(description: str, variation: int) -> list[str]:
    return writer(concept_of(description), variation)


DESCRIBED = pd.DataFrame(
    [(index, f"{index}{name}: {text}") for index in FEATURES for name, text in zip("xyz", TRUE.values(), strict=True)],
    columns=["index", "description"],
)
"""Each feature has three descriptions, of which one is true but for feature 4's; none has another's words."""
SAME = DESCRIBED.assign(description=[f"{i}{n}: {TRUE[i % 3]}" for i in FEATURES for n in "xyz"])
"""All descriptions are true but for feature 4's, so that several of a feature pass the gate."""


def fake(**options):
    return FakeJudge(rule=own_rule, writer=own_writer, **options)


def evaluated(server, described=DESCRIBED, at_once=3, store=None, settings=None, nulls=(), **options) -> Results:
    judge = Judge(
        "planted",
        base_url=server.base_url,
        api_key="sk-SECRET-planted-key",
        descriptions_per_request=at_once,
        **options,
    )
    with judge:
        fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **(SMALL | (settings or {})))
        return fade.evaluate(described, store=store, nulls=nulls, progress=False)


def asked_together(server) -> list[tuple[dict[str, str], dict[str, str]]]:
    return [read for body in server.bodies if (read := prompts.read_together(body["messages"])) is not None]


BILL = ["judge_calls", "judge_cost"]


@pytest.mark.parametrize("described", [DESCRIBED, SAME], ids=["one true", "all true"])
@pytest.mark.parametrize("options", [{}, {"interval_width": 0.6, "prompts": 30, "arms": ("other",), "gate": None}])
def test_the_same_numbers_for_fewer_calls(described, options):
    with fake() as server:
        alone = evaluated(server, described, 1, settings=options)
        separate, plain = server.requests, list(server.bodies)
        assert "together" not in alone.run and "descriptions_per_request" not in alone.run["judge"]
        shared = evaluated(server, described, 3, settings=options)
        requests, joint = server.requests - separate, asked_together(server)
    assert shared.run["together"]["used"] and shared.run["together"]["weighted"] == 1.0
    assert shared.items == alone.items
    pd.testing.assert_frame_equal(shared.frame.drop(columns=BILL), alone.frame.drop(columns=BILL))
    writing = sum(prompts.read_writing(body["messages"]) is not None for body in plain) + 1
    # Where rarer descriptions hold for few texts, two of the four features are rated both ways.
    assert requests - writing < (0.65 if described is SAME else 0.8) * (separate - writing)
    continued = [samples for _, samples in joint if not set(samples.values()) <= set(TEXTS)]
    assert bool(continued) == (described is SAME or options.get("gate", 0.5) is None)
    assert {len({concept[0] for concept in concepts.values()}) for concepts, _ in joint} == {1}, "of one feature each"
    paid = shared.run["usage"]["calls"]
    assert shared.frame.judge_calls.sum() == paid - 1 == requests - 1  # the check at the start apart


def test_a_judge_that_confuses_descriptions_changes_nothing(caplog):
    with fake(confuses=True) as server:
        alone = evaluated(server, SAME, 1)
        separate = server.requests
        tried = evaluated(server, DESCRIBED, 3)
        assert server.requests - separate > separate / 3
        refused = tried.run["together"]
        assert not refused["used"] and refused["weighted"] < 0.5 and len(refused["features"]) == 1
        assert len(asked_together(server)) == 4
        plain = evaluated(server, DESCRIBED, 1)
    assert tried.items == plain.items and alone.items != plain.items
    assert "texts are not rated for up to 3 descriptions a request" in caplog.text


def test_one_description_a_feature_is_as_it_was():
    with fake() as server:
        one = DESCRIBED.iloc[::3]
        alone = evaluated(server, one, 1)
        before = [body["messages"] for body in server.bodies]
        shared = evaluated(server, one, 5)
        assert sorted(map(str, (body["messages"] for body in server.bodies[len(before) :]))) == sorted(map(str, before))
    assert shared.items == alone.items and not shared.run["together"]["used"]


def test_null_arms_share_requests_with_what_they_stand_beside():
    described = DESCRIBED.iloc[[0, 4, 8, 9]]
    with fake() as server:
        alone = evaluated(server, described, 1, nulls=("shuffled", "generic"))
        separate = server.requests
        shared = evaluated(server, described, 2, nulls=("shuffled", "generic"))
        assert server.requests - separate < separate
    assert shared.items == alone.items and shared.nulls == alone.nulls
    assert shared.run["together"]["used"] and len(shared.run["together"]["features"]) == 2


def test_the_order_of_descriptions_decides_nothing():
    with fake() as server:
        first = evaluated(server, DESCRIBED, 2)
        before = {str(body["messages"]) for body in server.bodies}
        second = evaluated(server, DESCRIBED.iloc[::-1], 2)
        assert {str(body["messages"]) for body in server.bodies} == before
    assert {r.description: r for r in second} == {r.description: r for r in first}
    assert first.run["together"] == second.run["together"]


def test_nothing_is_asked_twice_whenever_a_run_breaks_off(tmp_path):
    with fake() as server:
        whole = evaluated(server, SAME)
        asked = server.requests
        for most in (10, 25, 20):  # while writing and rating, in and after the trial
            with pytest.raises(BudgetReached):
                evaluated(server, SAME, store=tmp_path, max_calls=most, concurrency=2)
        finished = evaluated(server, SAME, store=tmp_path)
        assert server.requests - asked <= asked
        assert finished.items == whole.items and finished.run["together"] == whole.run["together"]
        before = server.requests
        again = evaluated(server, SAME, store=tmp_path)
        assert server.requests == before
        assert again.items == finished.items and again.run["together"] == finished.run["together"]
        pd.testing.assert_frame_equal(again.frame, finished.frame)
        loaded = Results.load(again.save(tmp_path / "r.json.gz"))
        assert json.loads(json.dumps(loaded.run["together"])) == json.loads(json.dumps(again.run["together"]))


@pytest.mark.parametrize("confuses", [False, True])
def test_the_estimate_bounds_what_is_asked(confuses):
    with fake(confuses=confuses) as server:
        judge = Judge("planted", base_url=server.base_url, api_key="k", descriptions_per_request=3)
        alone = Judge("planted", base_url=server.base_url, api_key="k")
        estimates = [Fade(MODEL, SAE, corpus=TEXTS, judge=j, **SMALL).estimate(DESCRIBED) for j in (judge, alone)]
        assert server.requests == 0
        evaluated(server, DESCRIBED, 3)
        assert server.requests <= estimates[0].calls + 1
    # All four features may have to be measured: each 60 texts for three descriptions.
    assert estimates[0].calls - estimates[1].calls == 4 * 4
    assert estimates[0].prompt_tokens > estimates[1].prompt_tokens


def test_rating_alone_shares_requests_too():
    with fake() as server:
        subject = Subject(MODEL, SAE, TEXTS, list(FEATURES), Settings(**SMALL))
        alone, shared = (
            RatingEvaluator(subject, Judge("m", base_url=server.base_url, descriptions_per_request=n)).evaluate(
                DESCRIBED
            )
            for n in (1, 3)
        )
        assert shared == alone and asked_together(server)


def test_the_key_is_nowhere(tmp_path, caplog):
    with fake(plan={"error": 0.1}, echo_key=True) as server:
        results = evaluated(server, store=tmp_path)
    results.save(tmp_path / "results.json")
    results.to_html(tmp_path / "report.html")
    for path in tmp_path.iterdir():
        assert b"SECRET" not in path.read_bytes(), path
    assert "SECRET" not in caplog.text


def test_on_the_command_line(parts):
    folder, arguments, _ = parts
    described = str(folder / "several.json")
    rows = [{"index": i, "description": text} for i in FEATURES for text in TRUE.values()]
    (folder / "several.json").write_text(json.dumps(rows))
    arguments[arguments.index("--descriptions") + 1] = described
    with pytest.raises(InputError, match="descriptions_per_request is 11"):
        CliRunner().invoke(app, [*arguments, "--descriptions-per-request", "11"], catch_exceptions=False)
    with pytest.raises(InputError, match="'single'"):
        more = ["--descriptions-per-request", "3", "--rating", "single"]
        CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
    done = CliRunner().invoke(app, [*arguments, "--descriptions-per-request", "3"], catch_exceptions=False)
    assert done.exit_code == 0
    why = "weighted kappa 1.00 with one description a request, on 720 ratings, 1.00 without the most frequent description of each request"
    assert f"texts rated for several descriptions a request: {why}" in done.output
    page = (folder / "run" / "report.html").read_text()
    assert f"texts rated together: {why}" in page
    log = CliRunner().invoke(
        app, ["judge", "log", str(folder / "run"), "--kind", "rate together"], catch_exceptions=False
    )
    assert log.output.count("rate together · ") > 9 and " | " in log.output and "2 0 0" in log.output
    assert "0 gave less than was asked for" in log.output


def test_audits_and_evaluations_take_the_option():
    import inspect

    from fade_lens.cli.audit import audit
    from fade_lens.cli.evaluate import evaluate

    for command in (audit, evaluate):
        assert "descriptions_per_request" in inspect.signature(command).parameters


def test_features_with_most_descriptions_are_tried_first():
    judge = Judge("m", base_url="http://h/v1", descriptions_per_request=3)
    rows = [Description(i, f"{i}{n}") for i in range(8) for n in "wxyz"[: 2 + (i in (3, 6)) + 2 * (i == 5)]]
    orders = [
        [feature for step in trial_of(judge, given, Settings(seed=seed), 400).steps for feature in step.features]
        for given, seed in ((rows, 0), (rows[::-1], 0), (rows, 1))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert all(
        set(order[:2]) == {3, 6}  # the four of feature 5 go in two requests of two
        and set(order) == set(range(8))
        for order in orders
    )
    assert trial_of(Judge("m", base_url="http://h/v1"), rows, Settings(), 400) is None
