"""What an audit adds to the page: verdicts, severities, links, rows without metrics; the heat map; nothing of it is markup."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from fade_lens._util.errors import InputError
from fade_lens._util.words import visible
from fade_lens.analysis.notes import CardNotes, Notes, Unscored, is_link
from fade_lens.data.descriptions import Description, Provenance
from fade_lens.report.matrix import MOST, heat_map, quantized
from fade_lens.report.notebook import Table
from fade_lens.report.page import page
from fade_lens.report.recipe import recipe
from fade_lens.runs.record import FeaturesRecord, ModelRecord, RunRecord
from fade_lens.runs.results import Results
from fade_lens.runs.settings import Settings
from fade_lens.scorers.evidence import ClarityEvidence, SyntheticText
from tests.made_up import (
    HOSTILE,
    made_up_notes,
    made_up_result,
    made_up_results,
    made_up_run,
    with_cross,
    with_evidence,
)
from tests.report.test_page import Document


@pytest.fixture(scope="module")
def run() -> Results:
    return with_cross(made_up_results(8))


def cards(text: str) -> list[dict[str, object]]:
    return [card for card in Document(text).cards if "metrics" in card and "features" not in card]


def test_severity_orders_and_unscored_rows_are_there(run: Results) -> None:
    document = Document(page(run, made_up_notes(run)))
    rows = [a for a in document.all("tr") if "data-place" in a]
    severities = [float(a["data-severity"]) for a in rows if "data-severity" in a]  # type: ignore[arg-type]
    assert severities == [1.0, 0.95, 0.9, 0.55, 0.1]
    assert [a["data-standing"] for a in rows[:2]] == ["unscored", "unscored"] and len(rows) == 10
    assert [a.get("data-verdict") for a in rows[:5]] == ["missing", "unusable", "swapped", "rewrite", "keep"]
    assert "2 unscored" in document.text and "gpt2-small/8-res-jb" in document.text
    found = cards(page(run, made_up_notes(run)))
    assert [c["index"] for c in found[:3]] == [901, 902, 7] and found[0]["metrics"] == []
    assert found[2]["suggestion"] == "it fits feature 28 better"
    assert "duplicate_description: as feature 28" in found[2]["flags"]  # type: ignore[operator]


def test_a_page_without_notes_has_no_audit_column(run: Results) -> None:
    document = Document(page(run))
    assert "Audit" not in document.text and not any("data-verdict" in a for _, a in document.elements)


def test_hostile_notes_are_text() -> None:
    results = with_cross(made_up_results(12, hostile=True, n_rated=40))
    document = Document(page(results, made_up_notes(results, hostile=True)))
    assert visible(HOSTILE[0]) in document.text
    assert not {"img", "iframe", "object", "embed"} & {tag for tag, _ in document.elements}
    # One script that runs, one JSON a card, one for the rows, one for the heat map.
    assert len(document.scripts) == 1 + 14 + 1 + 1
    assert all(
        attributes.get("href", "#").startswith(("#", "https://www.neuronpedia.org/"))
        for attributes in document.all("a")
    )  # type: ignore[union-attr]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//x.invalid", "https:", "https://a b", "https://a\u202e", "HTTP", "http://[", ""])  # fmt: skip
def test_links_are_http_only(url: str) -> None:
    assert not is_link(url)
    with pytest.raises(InputError, match="give an http or https address"):
        CardNotes(links=(("x", url),))


def test_a_description_of_neuronpedia_links_to_its_page(run: Results) -> None:
    first = replace(
        run.items[0],
        description=Description(9, "x", Provenance("neuronpedia", "gpt2-small/8-res-jb", "gpt-4o-mini", "t")),
    )
    url = "https://www.neuronpedia.org/gpt2-small/8-res-jb/9"
    for notes in (None, Notes({first.description.words: CardNotes(links=(("its page", url),))})):
        text = page(Results((first,), run.run), notes)
        assert [a["href"] for a in Document(text).all("a")] == ["#table", url]
    assert first.dashboard().src == f"{url}?embed=true&embedexplanation=true&embedplots=true&embedactivations=true"
    recorded = Results(run.items, RunRecord(features=FeaturesRecord(neuronpedia_id="gemma-2-2b/20-gemmascope-res-16k")))
    assert (
        recorded[7]
        .dashboard(height=300)
        .src.startswith("https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/7?")
    )
    assert run[7].dashboard("gpt2-small/8-res-jb").src.startswith("https://www.neuronpedia.org/gpt2-small/8-res-jb/7?")
    with pytest.raises(InputError, match=r'give it, as in results\[7\]\.dashboard\("gpt2-small/8-res-jb"\)'):
        run[7].dashboard()


def test_what_the_sae_is_called_is_shown_and_linked(run: Results) -> None:
    names = {
        "release": "gpt2-small-res-jb",
        "sae_id": "blocks.8.hook_resid_pre",
        "neuronpedia_id": "gpt2-small/8-res-jb",
    }
    named = replace(run, run=replace(run.run, features=replace(run.run.features, **names)))
    document = Document(page(named))
    for name in names.values():
        assert name in document.text
    assert "sae = SAE.from_pretrained('gpt2-small-res-jb', 'blocks.8.hook_resid_pre')" in recipe(named.run)
    urls = [f"https://www.neuronpedia.org/gpt2-small/8-res-jb/{r.description.index}" for r in named]
    assert named.frame["dashboard_url"].tolist() == urls
    assert sorted(a["href"] for a in document.all("a"))[1:] == sorted(urls)
    assert run.frame["dashboard_url"].eq("").all()


def test_a_dead_feature_stands_apart() -> None:
    result = made_up_result("dead")
    assert result.standing == "dead" and result.standing.why == "the feature never fires on the corpus"
    written = ClarityEvidence(
        result.clarity, (SyntheticText("a", 3.0), SyntheticText("b", 0.0), SyntheticText("c", None))
    )
    assert with_evidence(result, clarity=written).standing.why.endswith(
        "but on 1 of 3 texts written for the description"
    )
    assert "1 dead" in Document(page(Results((result,)))).text


def test_cells_come_back_from_the_heat_map(run: Results) -> None:
    made = heat_map(run, {r.description.id: place for place, r in enumerate(run)})
    assert made is not None and run.cross_scores is not None
    assert json.loads(json.dumps(made))["features"] == list(run.cross_scores.features)
    for metric, name in zip(made["metrics"], ("clarity", "responsiveness", "purity"), strict=True):
        low, high = metric["range"]
        cells = np.frombuffer(base64.b64decode(metric["data"]), np.uint8).reshape(8, 8)
        matrix = getattr(run.cross_scores, name)
        assert np.array_equal(cells == 255, np.isnan(matrix))
        known = ~np.isnan(matrix)
        assert np.abs(low + cells[known] / 254 * (high - low) - matrix[known]).max() <= (high - low) / 254
    assert quantized(np.array([[np.nan, 7.0]]), 0, 1) == base64.b64encode(bytes([255, 254])).decode()


def test_large_runs_have_no_heat_map() -> None:
    results = with_cross(made_up_results(MOST + 1, n_rated=20, characters=20))
    assert heat_map(results, {}) is None
    assert 'id="heat-map"' not in page(replace(results, cross_scores=None))


def test_the_recipe_makes_the_settings_again() -> None:
    settings = Settings(seed=7, factors=(0.5, 2.0), outlier_factor=float("inf"))
    code = recipe(RunRecord(json.loads(json.dumps(settings.to_dict()))))
    made: dict[str, object] = {}
    exec(code, made)
    assert made["settings"] == settings
    hostile = recipe(RunRecord({"mode": "x\n'''import os", "made up": 1}, ModelRecord("a\nb")))
    assert hostile.count("\n") == 4 and "made up" not in hostile
    assert recipe(RunRecord()) == ""


def test_a_table_in_a_notebook_is_the_page_in_a_frame(run: Results) -> None:
    shown = run.table(height=500)
    assert isinstance(shown, Table)
    document = Document(shown._repr_html_())
    [frame] = document.all("iframe")
    assert [tag for tag, _ in document.elements] == ["style", "iframe"], (
        "the style turns the frame dark with the notebook"
    )
    assert frame["srcdoc"] == page(run, cards_bytes=1_500_000, table_only=True) and "allow-same-origin" not in str(
        frame["sandbox"]
    )
    assert "500px" in str(frame["style"])
    assert "Overview" not in Document(str(frame["srcdoc"])).text


def test_unscored_alone() -> None:
    document = Document(page(Results((), made_up_run()), Notes(unscored=(Unscored(3),))))
    assert "(no description)" in document.text and "1 unscored" in document.text
