"""A run looks at its SAE before anything is scored: what it saw stands in its record, its report and a comparison, and in its store."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sae_lens import SAE

from fade_lens import Fade, InputError, Results, compare
from fade_lens.runs import health as module
from fade_lens.runs.store import RunStore
from fade_lens.subject import health
from tests.fake_judge import FakeJudge
from tests.healthy import circular_texts, healthy_model, healthy_sae
from tests.planted import judge_of

MODEL, TEXTS = healthy_model(), circular_texts(500)
EARLY = "blocks.0.hook_resid_post"


@pytest.fixture
def server():
    with FakeJudge(rule=lambda concept, text: 2 if concept in text.split() else 0) as running:
        yield running


def run(server, sae: SAE[Any] | str, store: Path | None = None, *, texts: Any = TEXTS, **settings: Any) -> Results:
    small: dict[str, Any] = {"neighbour_texts": 10, "neighbour_latents": 1, "window_tokens": 8}
    fade = Fade(MODEL, sae, corpus=texts, judge=judge_of(server), **(small | settings))
    return fade.evaluate({0: "the"}, scorers=("neighbours",), store=store, progress=False)


def test_a_run_of_a_sick_sae_says_so_and_keeps_what_it_saw(server, tmp_path, monkeypatch, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        found = run(server, healthy_sae(hook_name=EARLY), tmp_path / "run")
    seen = found.run.health
    assert seen is not None and [one.cause for one in seen.warnings] == ["layer"]
    assert "The SAE is likely of another layer" in caplog.text
    assert (seen.texts, seen.loss_texts) == (50, 12), "a tenth of the corpus, and a quarter of that"
    assert Results.load(found.save(tmp_path / "r.sqlite")).run.health == seen
    page = found.to_html(tmp_path / "r.html").read_text()
    assert "The SAE is likely of another layer" in page and "health.metrics" not in page
    monkeypatch.setattr(module, "statistics", lambda *_, **__: pytest.fail("computed twice"))
    caplog.clear()
    assert run(server, healthy_sae(hook_name=EARLY), tmp_path / "run").run.health == seen
    assert "The SAE is likely of another layer" in caplog.text, "told again, for the run goes on"


def test_it_binds_no_store(server, tmp_path) -> None:
    """A store of an earlier version, or of another number of texts, goes on."""
    assert run(server, healthy_sae(), tmp_path, health_texts=0).run.health is None
    with RunStore(tmp_path) as store:
        assert "health_texts" not in store.get_meta("identity")["settings"]
    found = run(server, healthy_sae(), tmp_path)
    assert found.run.health is not None and not found.run.health.warnings
    assert "health_texts" not in found.run.settings


def test_it_is_left_out_for_neurons_and_small_corpora(server) -> None:
    assert run(server, healthy_sae(), texts=TEXTS[:499]).run.health is None
    assert run(server, healthy_sae(), health_texts=49).run.health is None


def test_a_comparison_shows_it_and_takes_the_l0_that_was_measured(server, tmp_path) -> None:
    right, early = (run(server, healthy_sae(**more)) for more in ({}, {"hook_name": EARLY}))
    unseen, other = (replace(one, run=replace(one.run, health=None)) for one in (right, early))
    found = compare(right, early, unseen, names=["right", "early", "unseen"])
    assert [fact.l0_from for fact in found.runs] == ["measured", "measured", "estimate"]
    assert found.runs[0].l0 == 1 and found.frame.set_index("run")["health"]["early"].endswith("; warning: layer")
    page = found.to_html(tmp_path / "c.html").read_text()
    assert "Health of the SAE" in page and "no warning" in page and "not seen" in page
    both = compare(right, early, names=["right", "early"])
    assert "loss recovered by the SAE" in both.to_html(tmp_path / "b.html").read_text()
    assert "Health of the SAE" not in compare(unseen, other, names=["a", "b"]).to_html(tmp_path / "u.html").read_text()


def test_an_sae_that_cannot_be_looked_at_stops_no_run(server, monkeypatch, caplog) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "statistics", fails)
    with caplog.at_level(logging.WARNING):
        assert run(server, healthy_sae()).run.health is None
    assert "health could not be seen, and the run goes on without: out of memory" in caplog.text


def test_an_evaluation_has_it_at_hand() -> None:
    found = Fade(MODEL, healthy_sae(), corpus=TEXTS, seed=3, context=9).health(texts=20, loss_texts=10, progress=False)
    assert (found.items[0].context, found.items[0].texts, found.corpus) == (9, 20, "a list of texts")


def test_a_bad_number_of_texts_is_told() -> None:
    with pytest.raises(InputError, match="health_texts is -1"):
        Fade(MODEL, healthy_sae(), corpus=TEXTS, health_texts=-1)
    assert health.L0_APART == 2 and health.LEAST_RECOVERED == 0.7
