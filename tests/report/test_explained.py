"""What a reader sees of explanations: cards with the evidence that explainers were shown, and the decisions behind every score."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fade_lens import Explanations, Results
from fade_lens.report.cards import DETAILS, card
from fade_lens.report.decisions import first, parts
from fade_lens.report.explaining import explanations_page
from fade_lens.report.page import page
from fade_lens.scorers.base import Decision
from tests.explained import made_up_explained, made_up_explanations

RUN = made_up_explained()
CARD = card(RUN.items[0])


def test_a_card_says_who_explained_how_at_what_cost_and_shows_the_windows() -> None:
    found = CARD["explained"]
    facts = dict(found["facts"])
    assert facts == {
        "Explainer": "structured (prompts 3)",
        "Model": "gpt-made-up",
        "Cost": "$0.0012",
        "Shown": "3 windows",
    }
    assert (
        CARD["rules"] == {"names": [], "rows": [["names of animals", 5, []], ["the end", 2, []]]} and found["of"] == 3
    )
    assert found["windows"][0]["tokens"][2] == " fox" and found["windows"][0]["values"] == [0, 0.2, 3, None]
    assert card(RUN.items[0], DETAILS[-1])["explained"]["windows"], "the least detailed card has a few too"


def by_title() -> dict[str, Any]:
    return {group["title"]: group for group in CARD["decided"]}


def test_every_scorer_shows_wrong_and_right_decisions_and_counts_the_unanswered() -> None:
    found = by_title()
    assert list(found) == ["Detection", "Fuzzing", "Embedding", "Intruder", "Simulation"]
    detection = found["Detection"]
    assert detection["kinds"] == [["fires", 2, 1, 1, 0], ["random silent", 1, 1, 0, 0], ["token silent", 1, 0, 0, 1]]
    assert detection["unanswered"] == 1 and detection["items"][0]["reason"] == "nothing readable"
    assert [one["right"] for one in detection["items"]] == [None, False, True, True], "what needs a look comes first"
    assert [one["said"] for one in detection["items"]] == ["", "no", "yes", "no"]
    wrong = found["Fuzzing"]["items"][0]
    assert (wrong["kind"], wrong["said"]) == ("wrong marks", "yes")
    assert wrong["texts"] == [["", [["see ", False], ["the", True], [" fox run", False]]]]
    assert [one["score"] for one in found["Embedding"]["items"]] == [0.7, 0.4] and not found["Embedding"]["judged"]
    round_ = next(one for one in found["Intruder"]["items"] if not one["reason"])
    assert [label for label, _ in round_["texts"]] == ["named", "intruder", "", "", ""] and round_["right"] is False
    simulated = next(one for one in found["Simulation"]["items"] if not one["reason"])
    assert simulated["activations"] == [0, 0, 4, None] and simulated["predicted"] == [0, 0, 0, 10]
    assert found["Simulation"]["largest"] == [4, 10] and found["Simulation"]["unanswered"] == 1


def test_features_without_a_description_are_counted_in_report_and_frame_and_kept(tmp_path: Path) -> None:
    html = page(RUN)
    assert "Without a description" in html and "1 nothing common" in html and "no description: nothing readable" in html
    cards = [json.loads(text) for text in re.findall(r'<script type="application/json" id="data-\d+">(.*?)</script>', html)]  # fmt: skip
    (bare,) = [one for one in cards if one["index"] == 9]
    assert bare["explained"]["windows"] and bare["standing"] == "unscored" and not bare["metrics"]
    frame = RUN.frame
    assert len(frame) == 3 and len(RUN) == 2 and frame["index"].tolist()[-1] == 9
    assert frame["no_description"].dropna().tolist() == ["nothing readable"] and frame["clarity"].isna().tolist()[-1]
    read = Results.load(RUN.save(tmp_path / "r.sqlite"))
    assert read.without == RUN.without and read.without[0].windows == RUN.without[0].windows
    assert read.items == RUN.items and read.items[0].shown == RUN.items[0].shown


def test_explanations_have_a_page_a_table_and_a_card_each(tmp_path: Path) -> None:
    found = made_up_explanations()
    html = found.to_html(tmp_path / "explained.html").read_text(encoding="utf-8")
    assert "2 of 3 features described" in html and "1 nothing_common" in html and "$0.0012" in html
    assert html.count('type="application/json" id="data-') == 3 and "by gpt-made-up (structured)" in html
    table, one = found._repr_html_(), found[9]._repr_html_()
    assert all(text in table for text in ("names of animals", "no description: nothing readable", "structured"))
    assert "no description" in one and "What its explainer was shown (1 of 3 windows)" in one and " fox" in one


def test_a_notebook_card_has_them_too_and_hostile_texts_stay_text() -> None:
    for hostile in (False, True):
        run = made_up_explained(hostile)
        shown = run.items[0]._repr_html_() + made_up_explanations(hostile)._repr_html_()
        assert "What its explainer was shown" in shown and "Fuzzing: 2 of 2" in shown and "predicted:" in shown
        assert not re.search(r"<(script|img|svg)", shown, re.I) and "\u202e" not in shown
        assert not re.search(r"<(img|svg onload)|</script><script>window", page(run), re.I)


def test_the_furthest_from_the_truth_of_every_kind_is_chosen_first() -> None:
    some = [Decision(kind, right=right, off=off) for kind in "ab" for right in (True, False) for off in (0.1, 0.9, 0.5)]
    assert [(one.kind, one.right, one.off) for one in first(some, 4)] == [("a", False, 0.9), ("b", False, 0.9), ("a", True, 0.9), ("b", True, 0.9)]  # fmt: skip


@pytest.mark.parametrize("characters", [0, 1, 3, 5, 8, 100])
def test_a_clipped_text_keeps_its_marks(characters: int) -> None:
    shown = "".join(text for text, _ in parts("one ⟦two⟧ three", ("⟦", "⟧"), characters))
    assert "⟦" not in shown and len(shown) <= characters


def test_a_page_of_explanations_flags_those_that_share_a_description() -> None:
    shared = explanations_page(Explanations.of({3: "animals", 7: "Animals.", 9: "colours"}))
    assert shared.count("collides: with 7") >= 2, "in the table and on the card"
    assert shared.count('data-kinds="collides"') == 2, "so that they can be filtered"
    assert "collides:" not in explanations_page(Explanations.of({3: "animals", 9: "colours"}))
