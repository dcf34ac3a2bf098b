"""The page and the notebook fragments as documents: structure, escaping, size, order. What a browser makes of them is in test_browser."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens._util.record import from_plain, to_plain
from fade_lens._util.words import plain, visible
from fade_lens.judge.reliability import Agreement, GoldItem, gold_report
from fade_lens.llm.budget import Usage
from fade_lens.report import page as pages
from fade_lens.report.cards import DETAILS, card, choose, compact, evenly, fitted, least
from fade_lens.report.notebook import result_card, results_table
from fade_lens.report.overview import reasons
from fade_lens.report.page import page
from fade_lens.report.standing import concept_rates, worst_first
from fade_lens.runs.record import JudgeRecord, ModelRecord, RunRecord
from fade_lens.runs.results import Results
from fade_lens.scorers.evidence import ClarityEvidence, RatedText, SyntheticText
from fade_lens.subject.summary import TopText
from tests.made_up import (
    HOSTILE,
    KINDS,
    made_up_notes,
    made_up_result,
    made_up_results,
    made_up_run,
    with_cross,
    with_evidence,
)

VOID = {"meta", "input", "br", "img", "link", "hr", "path"}
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


class Document(HTMLParser):
    """A strict reading: every element closed in order; elements, attributes, texts and scripts kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.style = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def cards(self) -> list[dict[str, object]]:
        return [
            json.loads(text)
            for attributes, text in self.scripts
            if (attributes.get("id") or "rows-data") != "rows-data"
        ]


@pytest.fixture(scope="module")
def hostile() -> Results:
    return made_up_results(len(HOSTILE), hostile=True, n_rated=40)


@pytest.fixture(scope="module")
def plain_run() -> Results:
    return made_up_results(8)


def test_page_is_one_sound_document(plain_run: Results) -> None:
    document = Document(page(plain_run))
    ids = [a["id"] for _, a in document.elements if "id" in a]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    assert len(document.cards) == 8
    assert [a.get("lang") for a in document.all("html")] == ["en"]
    rows = [a for a in document.all("tr") if "data-place" in a]
    assert [a["data-place"] for a in rows] == [str(i) for i in range(8)]
    for name in ("Clarity", "Responsiveness", "Purity", "Faithfulness"):
        assert name in document.text
    for said in (
        "google/gemma-3-270m",
        "qwen2.5-coder-1.5b-instruct",
        "blocks.9.hook_resid_post",
        "7 min 12 s",
        "412,000 tokens read",
    ):
        assert said in document.text, said
    assert re.search(r"settings\.seed\s*7", document.text)


def test_controls_can_be_named_and_reached(plain_run: Results) -> None:
    text = page(plain_run)
    document = Document(text)
    labelled = set(re.findall(r"<label[^>]*>[^<]*<(?:select|input)[^>]*id=\"(\w+)\"", re.sub(r"\s+", " ", text)))
    for tag in ("input", "select"):
        for attributes in document.all(tag):
            assert attributes.get("aria-label") or attributes.get("id") in labelled, attributes
    assert all(a.get("type") in ("button", "reset") for a in document.all("button"))
    headings = [a for a in document.all("th") if a.get("scope") == "col" and "aria-sort" in a]
    assert Counter(a["aria-sort"] for a in headings) == {"none": 6, "ascending": 1}
    assert not any(a.get("tabindex") not in (None, "0", "-1") for _, a in document.elements)


def test_nothing_is_loaded_and_only_our_script_may_run(plain_run: Results, hostile: Results) -> None:
    for results in (plain_run, hostile):
        document = Document(page(with_cross(results), made_up_notes(results, results is hostile)))
        policy = next(a["content"] for a in document.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        [script] = [text for attributes, text in document.scripts if "type" not in attributes]
        for kind, text in (("script", script), ("style", document.style)):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in str(policy)
        assert "default-src 'none'" in str(policy) and "unsafe" not in str(policy)
        for tag, attributes in document.elements:
            assert not {"src", "srcset", "style", "action", "data", "srcdoc"} & set(attributes), (tag, attributes)
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            link = attributes.get("href", "#table")
            assert link == "#table" or (str(link).startswith("https://") and attributes["rel"] == "noopener noreferrer")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
            assert word not in script


def test_a_page_may_run_several_scripts_and_ask_for_more_than_others():
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in ("1 < 2", "plot()")]
    plain_policy = pages.policy("p { }", "1 < 2", "plot()")
    assert f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'; style-src 'sha256-" in plain_policy
    laxer = pages.policy("p { }", "plot()", allowed={"style-src": "'unsafe-inline'", "img-src": "data:"})
    assert laxer.startswith(
        f"default-src 'none'; script-src 'sha256-{digests[1]}'; style-src 'unsafe-inline'; base-uri"
    )
    assert laxer.endswith("; img-src data:") and "script-src" not in pages.policy("p { }")


def test_hostile_texts_are_text(hostile: Results) -> None:
    text = page(hostile)
    text.encode("utf-8")
    assert UNSEEN.search(text) is None
    document = Document(text)
    assert len(document.scripts) == len(hostile) + 2  # the rows and the script itself
    assert not {"img", "iframe", "object", "embed", "link", "base"} & {tag for tag, _ in document.elements}
    assert len(document.all("a")) == 1
    for string in HOSTILE[:9]:
        shown = visible(string).strip()
        assert shown in document.text, string
        assert any(shown == str(c["text"]).strip() for c in document.cards), string
    first = next(c for c in document.cards if c["index"] == 0)
    assert first["top"][0]["tokens"][:11] == [visible(s) for s in HOSTILE[:11]]  # type: ignore[index]


@pytest.mark.parametrize("by", ["qwen2.5", HOSTILE[0]])
def test_how_far_the_judge_is_to_be_trusted_is_shown(plain_run: Results, by: str) -> None:
    agreed = Agreement.of(by, [0, 2, 2, 0], [0, 2, 0, 0])
    why = f"both intervals are no wider than 0.3{by}"
    first = plain_run.items[0]
    first = with_evidence(replace(first, agreement=(agreed,)), rated_texts=replace(first.rated_evidence, stopped=why))
    gold = gold_report([GoldItem("c", "t", 2), GoldItem("c", "u", 2), GoldItem("c", "v", 0)], [2, 0, 0])
    run = from_plain(
        RunRecord, json.loads(json.dumps(to_plain(replace(plain_run.run, gold=gold, agreement=(agreed,)))))
    )
    document = Document(page(replace(plain_run, items=(first, *plain_run.items[1:]), run=run)))
    assert "3 texts; sensitivity 0.50 [0.09, 0.91]; specificity 1.00 [0.21, 1.00]; weighted kappa" in document.text
    assert f"{visible(by)}: equal on 0.75 of 4 texts; kappa 0.50, weighted 0.50" in document.text
    assert f"1 of 8 descriptions: {visible(why)}" in document.text
    [shown] = [c["judge"] for c in document.cards if c["index"] == first.description.index]
    assert shown == [
        f"agreement with {visible(by)} on 4 texts: weighted kappa 0.50",
        f"rating stopped after {len(first.rated_evidence.texts)} texts: {visible(why)}",
    ]
    assert not {"img", "iframe", "object", "embed", "base"} & {tag for tag, _ in document.elements}


def test_what_was_not_recorded_of_the_judge_is_not_made_up(plain_run: Results) -> None:
    assert not any(words in page(plain_run) for words in ("gold set", "stopped early"))
    odd = replace(plain_run.run, gold=gold_report([], []), agreement=(Agreement.of("b", [0], [None]),))
    text = Document(page(replace(plain_run, run=odd))).text
    assert "0 texts; sensitivity undefined" in text and "b: equal on undefined of 0 texts; kappa undefined" in text


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_comes_back_from_json_and_cannot_leave_its_element(text: str) -> None:
    json_text = compact(plain({"text": text}))
    json_text.encode("utf-8")
    assert not set("<>&\u2028\u2029") & set(json_text)
    assert json.loads(json_text) == {"text": visible(text)}


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_visible_changes_only_what_is_unseen(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert UNSEEN.search(shown) is None
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text


def test_numbers_that_json_lacks() -> None:
    result = made_up_result()
    odd = (SyntheticText("a", math.nan), SyntheticText("b", math.inf), SyntheticText("c", None))
    made = card(with_evidence(result, clarity=ClarityEvidence(result.clarity, odd)))
    assert json.loads(compact(made))["synthetic"]["of"] == 3
    assert [value for value, _ in made["synthetic"]["texts"]] == [None, None, None]


def test_worst_first_and_marked() -> None:
    results = made_up_results(16)
    document = Document(page(results))
    standings = [a["data-standing"] for a in document.all("tr") if "data-place" in a]
    assert standings == sorted(standings, key=["fails", "open", "dead", "holds"].index)
    wrong = {c["index"] for c in document.cards if "wrong on purpose" in str(c["text"])}
    assert wrong and all(c["standing"] == "fails" for c in document.cards if c["index"] in wrong)
    weakest = [
        min(v for v in (r.clarity.value, r.responsiveness.value) if v is not None)
        for r in worst_first(results)
        if r.standing == "fails"
    ]
    assert weakest == sorted(weakest)


def test_standing_follows_the_gate() -> None:
    result = made_up_result("right")
    assert result.standing == "holds"
    run = replace(made_up_run(), settings={"gate": 0.99})
    results = Results((result,), run)
    document = Document(page(results))
    assert results[0].standing == results.frame["standing"][0] == document.cards[0]["standing"] == "fails"
    assert document.cards[0]["why"] == results.frame["standing_reason"][0] and "wholly below 0.99" in document.text


def test_reasons_that_differ_in_numbers_are_counted_together() -> None:
    results = made_up_results(16)
    rows = reasons(results)
    undefined = sum(m.value is None for r in results for m in r.metrics.values())
    assert sum(count for *_, count in rows) == undefined
    gate = [row for row in rows if row[1].startswith("gate not passed: Clarity is …")]
    assert len(gate) == 1 and gate[0][2] > 1


@pytest.mark.parametrize(
    "run",
    [
        RunRecord(),
        RunRecord(judge=JudgeRecord("gpt"), usage=Usage(cost=1.5)),
        RunRecord(settings={"gate": None}, model=ModelRecord()),
    ],
)
def test_page_of_whatever_was_recorded(run: RunRecord) -> None:
    for results in (
        Results((), run),
        Results((made_up_result("dead"),), run),
        Results((made_up_result(index=1),), run),
    ):
        document = Document(page(results))
        assert len(document.cards) == len(results)
        assert "Cost" not in document.text or "$1.50" in document.text
        Document(results_table(results))


def test_a_thousand_stay_under_ten_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same share of the budget for 48 descriptions, hostile and plain; what does not grow with them is small.
    n, size = 48, pages.CARDS_BYTES // 1000
    monkeypatch.setattr(pages, "CARDS_BYTES", n * size)
    for hostile in (False, True):
        text = page(made_up_results(n, hostile=hostile, n_rated=200))
        fixed = len(page(Results((), made_up_run())).encode())
        assert fixed + (len(text.encode()) - fixed) / n * 1000 < 10_000_000
        cards = Document(text).cards
        for made in cards:
            assert len(compact(made).encode()) <= size
            assert made["rated"]["of"] == 200 and len(made["rated"]["texts"]) >= 3  # type: ignore[index]


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_least_is_a_lower_bound(kind: str) -> None:
    for hostile in (False, True):
        result = made_up_result(kind, index=3, hostile=hostile)
        for detail in DETAILS:
            assert least(result, detail) <= len(compact(card(result, detail)).encode())


def test_a_small_run_shows_everything() -> None:
    result = made_up_result("right")
    made = fitted(lambda detail: card(result, detail), pages.CARD_BYTES)
    assert len(made["rated"]["texts"]) == 200 and len(made["synthetic"]["texts"]) == 30
    assert len(made["steering"]["texts"]) == made["steering"]["of"] == 150
    assert [t[4] for t in made["steering"]["rates"]] == [
        sum(c.rating == 2 for c in result.faithfulness_evidence.continuations if c.factor == f)
        for f in (0, 0.5, 1, 2, 3)
    ]


def test_disagreements_are_chosen_first() -> None:
    def rated(number: int, activation: float, rating: int | None) -> RatedText:
        return RatedText(number, "", activation, 1.0, rating)

    texts = [rated(i, float(i), 2 if i >= 50 else 0) for i in range(100)]
    texts += [rated(200, 300.0, 0), rated(201, 0.0, 2), rated(202, 1.0, None)]
    chosen = {t.number for t in choose(texts, 4)}
    assert {200, 201} <= chosen and len(chosen) == 4
    assert len(choose(texts, 1000)) == len(texts)


def test_window_holds_the_peak() -> None:
    for length in (0, 1, 5, 64):
        for peak in range(length):
            text = TopText(0, 9.0, tuple("x" * length), tuple(9.0 if i == peak else None for i in range(length)))
            for tokens in (1, 4, 16, 100):
                part = text.window(tokens)
                assert part.start <= peak < part.stop
                assert len(text.tokens[part]) == min(tokens, length)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_evenly_keeps_both_ends(values: list[int], n: int) -> None:
    kept = evenly(values, n)
    assert len(kept) == min(n, len(values))
    if len(values) > 1 and n > 1:
        assert (kept[0], kept[-1]) == (values[0], values[-1])


def test_unrated_continuations_stay_in_the_rate() -> None:
    result = made_up_result("right")
    rates = {r.factor: r for r in concept_rates(result.faithfulness_evidence.continuations)}
    assert rates[3.0].unrated == 1 and rates[3.0].n == 30
    assert result.faithfulness.details["rate_0"] == pytest.approx(rates[0.0].rate)


def test_causes_are_underlined_as_thick_as_they_are_large_and_told_in_words():
    values = (None, 2.0, -1.0, 0.01, 8.0)
    text = TopText(3, 4.0, ("<bos>", "a", "b", "c", "d"), (None, 0.0, 4.0, 0.0, None), values)
    made = made_up_result()
    shown = replace(made, feature=replace(made.feature, largest=4.0, top=(text,)))._repr_html_()
    spans = {
        token: f"{title} {style}"
        for title, style, token in re.findall(r'<span title="([^"]*)" style="([^"]*)">(.)</span>', shown)
    }
    assert spans.keys() == {"a", "b", "d"}  # the others do too little, or nothing
    assert "makes it fire, +2" in spans["a"] and "underline solid" in spans["a"] and "thickness:3.0px" in spans["a"]
    assert "holds it back, -1" in spans["b"] and "underline dashed" in spans["b"] and "background" in spans["b"]
    assert "makes it fire, +8" in spans["d"] and "thickness:5.0px" in spans["d"] and "background" not in spans["d"]


def test_notebook_fragments_run_nothing(hostile: Results) -> None:
    for text in (result_card(hostile.items[0]), results_table(hostile)):
        assert type(text) is str  # Markup would escape whatever is added to it
        assert UNSEEN.search(text) is None
        document = Document(text)
        assert not {"script", "img", "svg", "a", "iframe"} & {tag for tag, _ in document.elements}
        assert not any(name.startswith("on") or name in ("href", "src") for _, a in document.elements for name in a)
        assert visible(HOSTILE[0]) in document.text
    result = made_up_result("wrong", index=1)
    text = Document(result_card(result)).text
    assert "undefined" in text and str(result.responsiveness.reason) in text
    assert result.description.text in text and result._repr_html_() == result_card(result)


def test_long_tables_are_cut_in_a_notebook() -> None:
    results = made_up_results(130, n_rated=20, characters=20)
    document = Document(results_table(results))
    assert len(document.all("tr")) == 101
    assert "130 descriptions" in document.text and "100 shown" in document.text


def test_to_html_writes_what_page_gives(tmp_path: Path, hostile: Results) -> None:
    path = hostile.to_html(tmp_path / "deep" / "page.html")
    assert path.read_text(encoding="utf-8") == page(hostile)
