"""Releases: many SAEs drawn from, scored and set side by side; those that cannot be scored are told, and the others go on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE
from typer.testing import CliRunner

from fade_lens import Corpus, InputError, Judge, JudgeError, Results, compare, read_descriptions, release
from fade_lens.analysis.release import SEEN_TEXTS
from fade_lens.cli import app
from fade_lens.runs.health import drawn
from fade_lens.subject.reconstruction import Reconstruction, statistics
from fade_lens.subject.subject import Subject
from tests.explainers.test_explainers import names_marked
from tests.fake_judge import FakeJudge
from tests.hub import gpt2_config, hub, publish_model, publish_sae  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.neuronpedia.conftest import site  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.neuronpedia.fake_site import FakeSite, explanation
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule
from tests.runs.ray_work import Sized
from tests.tiny import HOOK, tiny_sae

FAST: dict[str, Any] = {"scorers": ("detection",), "detection_texts": 16, "progress": False}
QUICK = FAST | {"health_texts": 0}
CORPUS = Corpus.from_texts(natural_texts(400))


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1), says=names_marked) as running:
        yield running


def shuffled(sae: SAE[Any]) -> SAE[Any]:
    """The same latents under other indices, so that descriptions fit them no more."""
    with torch.no_grad():
        order = torch.tensor([1, 2, 0, *range(3, 8)])
        sae.W_enc.copy_(sae.W_enc[:, order].clone())
        sae.W_dec.copy_(sae.W_dec[order].clone())
    return sae


def test_saes_are_scored_side_by_side_and_the_worse_one_is_named(server: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    read: list[Any] = []
    monkeypatch.setattr("fade_lens.analysis.release.read_descriptions", lambda some: read.append(some) or read_descriptions(some))  # fmt: skip
    saes = {"right": planted_sae(), "wrong": shuffled(planted_sae())}
    found = release(saes, model=planted_model(), corpus=CORPUS, judge=judge_of(server), folder=tmp_path, descriptions={"right": TRUE, "wrong": TRUE}, reference="wrong", **FAST)  # fmt: skip
    frame: Any = found.frame.set_index("sae")
    assert frame.loc["right", "detection"] > 0.9 > 0.6 > frame.loc["wrong", "detection"]
    assert (
        frame["latents"].tolist() == [3, 3] and frame["described"].tolist() == [1, 1] and frame["failed"].isna().all()
    )
    assert 0.3 < frame.loc["right", "alive"] < 1, "latent 3 never fires"
    assert len(read) == 2, "once an SAE"
    (row,) = found.comparison.differences.to_dict("records")
    assert (row["a"], row["b"]) == ("wrong", "right") and row["difference"] < -0.3
    page = found.to_html(tmp_path / "release.html").read_text()
    assert 'href="right/report.html"' in page and (tmp_path / "right" / "report.html").is_file()
    assert Results.load(tmp_path / "wrong" / "results.sqlite") == found.results["wrong"]


def test_the_scores_minus_those_of_baseline_features_stand_beside_each_sae(server: FakeJudge, tmp_path: Path) -> None:
    found = release({"right": planted_sae()}, model=planted_model(), corpus=CORPUS, judge=judge_of(server), folder=tmp_path, descriptions={"right": TRUE}, baselines=("permuted",), **FAST)  # fmt: skip
    row = found.frame.to_dict("records")[0]
    assert row["detection"] > 0.9 and row["detection_minus_permuted"] == 0, "what they fire on is the same"
    assert "SAE scored" in found.to_html(tmp_path / "release.html").read_text()


def graded() -> SAE[Any]:
    """A few latents that fire on the rare names of animals, and many that fire on ever more of the common words."""
    sae = tiny_sae("jumprelu", d_sae=40, hook=HOOK)
    with torch.no_grad():
        sae.b_enc.zero_()
        sae.b_dec.zero_()
        sae.threshold.fill_(1.0)
        sae.W_enc.zero_()
        sae.W_enc[0, :6] = 1.0
        for latent in range(6, 40):
            sae.W_enc[8 : 8 + latent // 4, latent] = 1.0
    return sae


def test_latents_drawn_by_strata_of_density_give_the_means_of_all_that_fire(server: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    about: dict[str, Any] = {"model": planted_model(), "corpus": CORPUS, "folder": tmp_path, "latents": 10, "strata": 2}
    about |= {"descriptions": {name: dict.fromkeys(range(40), TRUE[0]) for name in "ab"}} | QUICK
    found = release({"a": graded(), "b": graded()}, judge=judge_of(server), ray=(workers := Sized(2)), **about)
    assert workers.given.count("maxima") == 3, "a first look at each, and one pass for both"
    seen = statistics(Reconstruction(planted_model(), graded()), drawn(Subject(planted_model(), graded(), CORPUS, [0]).tokens, SEEN_TEXTS, 0))  # fmt: skip
    assert found.drawn["a"].n_tokens == seen.n and found.drawn["a"].density == tuple(seen.density[list(found.drawn["a"].indices)])  # fmt: skip
    latents: Any = found.latents[found.latents["sae"] == "a"]
    row: Any = found.frame.set_index("sae").loc["a"]
    n_alive = found.drawn["a"].n_alive
    assert n_alive and latents["weight"].sum() == pytest.approx(n_alive) and n_alive == 40
    assert latents["density"].between(0, 1, inclusive="neither").all() and latents["weight"].nunique() > 1
    scored = latents[latents["detection"].notna()]
    mean = np.average(scored["detection"], weights=scored["weight"])
    assert row["detection"] == pytest.approx(mean) and abs(mean - scored["detection"].mean()) > 0.02
    assert row["detection_low"] < mean < row["detection_high"]
    assert found.comparison.differences["mean_a"].iloc[0] == pytest.approx(mean)
    page = found.to_html(tmp_path / "release.html").read_text()
    assert "each counts for as many as it stands for" in page and "; each stands for " in page
    assert "by how many it stands for" in (tmp_path / "a" / "report.html").read_text()
    # What is in the folder tells as much: whole runs, the table of latents, and where a run goes on.
    again = compare(tmp_path / "a", tmp_path / "b")
    assert again.frame["mean"].iloc[0] == pytest.approx(mean) and again.frame["low"].iloc[0] == row["detection_low"]
    assert pd.read_csv(tmp_path / "a" / "results.csv")["weight"].tolist() == pytest.approx(latents["weight"].tolist())
    table = pd.read_csv(found.to_csv(tmp_path / "release.csv").with_name("release-latents.csv"))
    assert table["weight"].tolist() == pytest.approx(found.latents["weight"].tolist()) and len(table) == 20
    asked = server.requests
    monkeypatch.setattr("fade_lens.analysis.release.max_activations", None)  # how often latents fire is in the folder
    about["descriptions"] = {"a": about["descriptions"]["a"]}
    assert release({"a": graded()}, judge=judge_of(server), **about).drawn == {"a": found.drawn["a"]}
    assert server.requests == asked


def test_a_release_that_is_run_again_asks_nothing_and_draws_the_same(server: FakeJudge, tmp_path: Path) -> None:
    about: dict[str, Any] = {
        "model": planted_model(),
        "corpus": CORPUS,
        "folder": tmp_path,
        "latents": 2,
        "explainer": "one-shot",
    }
    about |= FAST | {"least_texts": 1}
    first = release({"a": planted_sae(), "b": planted_sae()}, judge=judge_of(server), **about)
    asked = server.requests
    assert asked and all(len(one.indices) == 2 for one in first.drawn.values())
    again = release({"a": planted_sae(), "b": planted_sae()}, judge=judge_of(server), **about)
    assert server.requests == asked and again.drawn == first.drawn
    assert again.frame["detection"].tolist() == first.frame["detection"].tolist()


def test_an_sae_that_cannot_be_scored_is_told_and_the_others_go_on(server: FakeJudge, tmp_path: Path) -> None:
    dead: Any = planted_sae()
    narrow = tiny_sae("standard", d_in=8, d_sae=8, hook="blocks.0.hook_resid_post")
    with torch.no_grad():
        dead.threshold.fill_(1e9)
    told: list[str] = []
    saes = {"narrow": narrow, "dead": dead, "right": planted_sae(), "bare": planted_sae()}
    found = release(saes, model=planted_model(), corpus=CORPUS, judge=judge_of(server), folder=tmp_path, descriptions={"right": TRUE, "dead": TRUE, "narrow": TRUE}, told=lambda name, _: told.append(name), reference="dead", **FAST)  # fmt: skip
    assert list(found.results) == ["right"] and set(told) == set(saes)
    assert "fires" in found.failed["dead"] and "description" in found.failed["bare"] and "narrow" in found.failed
    page = found.to_html(tmp_path / "release.html").read_text()
    assert "Not scored" in page and "narrow" in page
    assert sum(map(bool, found.frame["failed"].fillna("").tolist())) == 3


def on_neuronpedia(**sources: str) -> dict[str, SAE[Any]]:
    """SAEs by name, each with its id there; "" for one that has none."""
    saes = {name: planted_sae() for name in sources}
    for name, source in sources.items():
        saes[name].cfg.metadata.neuronpedia_id = f"gpt2-small/{source}" if source else None
    return saes


def test_descriptions_come_from_neuronpedia_and_an_sae_that_has_none_there_is_told(
    server: FakeJudge, site: FakeSite, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    site.add("batch-0.jsonl.gz", [*(explanation(i, text) for i, text in TRUE.items()), explanation(3, "a dead latent")])
    site.add("batch-0.jsonl.gz", [explanation(1, TRUE[1], layer="7-res-jb")], source="7-res-jb")
    site.add("batch-0.jsonl.gz", [explanation(3, "a dead latent", layer="8-res-jb")], source="8-res-jb")
    saes = on_neuronpedia(labelled="6-res-jb", few="7-res-jb", dead="8-res-jb", absent="9-res-jb", unnamed="")
    about: dict[str, Any] = {
        "model": planted_model(),
        "corpus": CORPUS,
        "folder": tmp_path,
        "descriptions": "neuronpedia",
    }
    found = release(saes, judge=judge_of(server), **about, **QUICK)
    assert {name: [r.description.index for r in run] for name, run in found.results.items()} == {"labelled": [0, 1, 2], "few": [1]}  # fmt: skip
    frame: Any = found.frame.set_index("sae")
    n = found.drawn["few"].n_alive
    assert n and frame.loc["labelled", "described"] == 3 / n and frame.loc["few", "described"] == 1 / n
    assert found.latents["detection"].notna().sum() == 4 and len(found.latents) == 2 * n
    assert "none of the" in found.failed["dead"] and "neuronpedia_id" in found.failed["unnamed"]
    assert "gpt2-small/9-res-jb" in found.failed["absent"]
    origins = {r.description.provenance.kind for run in found.results.values() for r in run}
    assert origins == {"neuronpedia"} and found.results["few"].run.features.neuronpedia_id == "gpt2-small/7-res-jb"
    assert "gpt2-small/7-res-jb/1" in (tmp_path / "few" / "report.html").read_text()
    asked = server.requests
    assert release(saes, judge=judge_of(server), **about, **QUICK).drawn == found.drawn and server.requests == asked


def test_latents_that_neuronpedia_does_not_describe_are_explained_where_somebody_does(
    server: FakeJudge, site: FakeSite, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    site.add("batch-0.jsonl.gz", [explanation(0, "an animal, as Neuronpedia says")])
    found = release(on_neuronpedia(labelled="6-res-jb", absent="9-res-jb", unnamed=""), model=planted_model(), corpus=CORPUS, judge=judge_of(server), folder=tmp_path, descriptions="neuronpedia", explainer="one-shot", least_texts=1, **QUICK)  # fmt: skip
    kinds = {
        name: {r.description.index: r.description.provenance.kind for r in run} for name, run in found.results.items()
    }
    assert kinds["labelled"].pop(0) == "neuronpedia" and not found.failed
    assert {kind for known in kinds.values() for kind in known.values()} == {"explained"}
    assert 0 in kinds["unnamed"] and kinds["unnamed"] == kinds["absent"]


def test_a_budget_that_is_used_up_ends_the_whole_run_and_more_goes_on(server: FakeJudge, tmp_path: Path) -> None:
    about: dict[str, Any] = {
        "model": planted_model(),
        "corpus": CORPUS,
        "folder": tmp_path,
        "descriptions": {"a": TRUE, "b": TRUE},
    }
    with pytest.raises(JudgeError, match="max_calls"):
        release(
            {"a": planted_sae(), "b": planted_sae()},
            judge=Judge("planted", base_url=server.base_url, max_calls=5),
            **about,
            **FAST,
        )
    assert server.requests == 5
    whole = release({"a": planted_sae(), "b": planted_sae()}, judge=judge_of(server), **about, **FAST)
    assert sum(one.run.usage.calls for one in whole.results.values() if one.run.usage) == server.requests - 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"descriptions": None}, "descriptions"),
        ({"latents": 0}, "latents is 0"),
        ({"strata": -1}, "strata is -1"),
        ({"latents": 9, "strata": 2}, "at least 5 a stratum, 10"),
        ({"saes": {"right": planted_sae(), "neurons": "blocks.0.mlp.hook_post"}, "strata": 2}, "'neurons' has neurons"),
        ({"descriptions": {"wright": TRUE}}, "did you mean 'right'"),
        ({"scorers": ("detetcion",)}, "detection"),
        ({"reference": "wright"}, "reference is 'wright', which is none of those compared; did you mean 'right'"),
        ({"saes": "gpt2-small-res-jb", "reference": "blocks.99.hook_resid_pre"}, "none of those compared"),
        ({"model": "gpt2"}, "model"),
        ({"saes": {}}, "no SAE"),
        ({"descriptions": "absent.csv"}, "absent.csv"),
        ({"descriptions": pd.DataFrame({"index": [0], "description": ["a"]})}, "column 'sae'"),
        ({"descriptions": "empty.csv"}, "is empty"),
        ({"judge": None}, "asks a judge, and none was given"),
        ({"saes": "gpt2-small-res-jp"}, "gpt2-small-res-jb"),
        ({"saes": "gpt2-small-res-jb", "sae_ids": "blocks.99.*"}, "matches none"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_told_before_anything_is_asked(changed: dict[str, Any], message: str, server: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("")
    about: dict[str, Any] = {
        "judge": judge_of(server),
        "saes": {"right": planted_sae()},
        "model": planted_model(),
        "descriptions": {"right": TRUE},
    }
    with pytest.raises(InputError, match=message):
        release(corpus=CORPUS, folder=tmp_path / "out", **FAST | about | changed)
    assert not server.requests and not (tmp_path / "out").exists()


def test_saes_of_different_models_are_refused(server: FakeJudge, tmp_path: Path) -> None:
    saes = {"one": planted_sae(), "other": planted_sae()}
    saes["one"].cfg.metadata.model_name, saes["other"].cfg.metadata.model_name = "gpt2-small", "pythia-70m"
    with pytest.raises(InputError, match=r"'one' is an SAE of 'gpt2-small', 'other' of 'pythia-70m'"):
        release(saes, model=planted_model(), corpus=CORPUS, judge=judge_of(server), folder=tmp_path, descriptions={"one": TRUE}, **FAST)  # fmt: skip


def test_a_published_release_goes_through_the_command_end_to_end(
    hub: Path, server: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    server.says = lambda body: names_marked(body) and '{"description": "names of animals"}'
    publish_model(hub, "gpt2", gpt2_config())
    for layer in (0, 1):
        sae = tiny_sae("standard", d_sae=16, hook=f"blocks.{layer}.hook_resid_pre")
        sae.cfg.metadata.model_name = "gpt2-small"
        publish_sae(hub, "gpt2-small-res-jb", f"blocks.{layer}.hook_resid_pre", sae)
    Path("c.txt").write_text("\n".join(natural_texts(300)))
    command = [
        "release", "gpt2-small-res-jb", "--sae-ids", "blocks.[012].hook_resid_pre", "--latents", "3", "--explainer", "one-shot", "--scorers", "detection",
        "--detection-texts", "16", "--least-texts", "1", "--corpus", "c.txt", "--judge", f"{server.base_url}#planted", "--out", "out", "--device", "cpu",
        "--reference", "blocks.1.hook_resid_pre",
    ]  # fmt: skip
    dry = CliRunner().invoke(app, [*command, "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0 and "3 SAEs" in dry.output and not server.requests and not Path("out").exists()
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "against blocks.1.hook_resid_pre" in done.output
    table: Any = pd.read_csv("out/release.csv").set_index("sae")
    assert table["latents"].tolist()[:2] == [3, 3] and table["layer"].tolist()[:2] == [0, 1]
    assert "blocks.2.hook_resid_pre" in table.index[table["failed"].notna()]
    assert (Path("out") / "release.html").is_file() and (
        Path("out") / "blocks.1.hook_resid_pre" / "run.sqlite"
    ).is_file()
    asked = server.requests
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0 and server.requests == asked
