"""The page of a large run, whose rows and cards lie in a folder beside it: what is written, and what a browser makes of it at 100,000 rows."""

import json
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from fade_lens import Results
from fade_lens.analysis.notes import CardNotes, Notes, Unscored
from fade_lens.report import page as pages
from fade_lens.report.page import page, rendered, write_folder
from fade_lens.report.rows import Group
from tests.made_up import HOSTILE, made_up_results, many_results, with_evidence
from tests.report.browser import Window, chromium, window
from tests.report.test_browser import OPEN
from tests.report.test_page import UNSEEN, Document

browsed = pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed; the page cannot be opened")
N = 1104


@pytest.fixture(scope="module")
def large() -> Results:
    """Descriptions of over 1,000, some hostile; the last two are of one feature."""
    results = many_results(N)
    first, last = made_up_results(1, hostile=True, n_rated=12).items[0], results.items[-1]
    again = replace(last, description=replace(last.description, index=N - 2))
    return replace(results, items=(first, *results.items[1:-1], again))


@pytest.fixture(scope="module")
def written(large: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large.to_html(tmp_path_factory.mktemp("large") / 'it\'s "100 %" #1.html')


def values(folder: Path, kind: str) -> list[Any]:
    """What lies in the files of a kind, in their order."""
    found: list[Any] = []
    for number, file in enumerate(sorted((folder / kind).iterdir())):
        text = file.read_text(encoding="utf-8")
        assert file.name == f"{number:04d}.js" and file.stat().st_size < 1_100_000
        assert not set("<>&\u2028\u2029") & set(text) and UNSEEN.search(text) is None
        found += json.loads(re.fullmatch(rf"fadeLens{kind.capitalize()}\({number},(\[.*\])\);\n", text)[1])  # type: ignore[index]
    return found


def beside(path: Path) -> dict[str, bytes]:
    """A page's files by their names."""
    folder = path.with_name(f"{path.stem}_files")
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_rows_and_cards_lie_in_files_of_a_megabyte_and_the_page_is_small(large: Results, written: Path) -> None:
    folder = written.with_name(f"{written.stem}_files")
    rows, cards = values(folder, "rows"), values(folder, "cards")
    assert len(rows) == len(cards) == N and written.stat().st_size < 400_000
    assert len(list((folder / "cards").iterdir())) == -(-N // 100)
    by_text = {card["text"]: card for card in cards}
    for row in rows[:: N // 10]:
        assert cards[row["card"]]["index"] == row["index"] and by_text[row["text"]]["standing"] == row["standing"]
    order = [row["standing"] for row in rows]
    assert order == sorted(order, key=["fails", "open", "dead", "holds"].index)
    text = written.read_text(encoding="utf-8")
    assert "1,000 are drawn" in text and f"{order.count('open'):,} open" in text
    [policy] = [a["content"] for a in Document(text).all("meta") if "http-equiv" in a]
    assert text.count("h0") < 5000 and re.search(r"script-src 'sha256-[^' ]+' 'self' file:;", str(policy)) and "unsafe" not in str(policy)  # fmt: skip


def test_what_is_written_is_the_same_each_time_and_an_earlier_report_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_folder(path, rows_of(1300), shown)
    (tmp_path / "report_files" / "mine.js").write_text("kept")
    write_folder(path, rows_of(900), shown)
    write_folder(tmp_path / "again" / "report.html", rows_of(900), shown)
    assert beside(path) == beside(tmp_path / "again" / "report.html") | {"mine.js": b"kept"}
    assert path.read_bytes() == (tmp_path / "again" / "report.html").read_bytes()
    small = many_results(3)
    small.to_html(path)
    assert path.read_text(encoding="utf-8") == page(small) and set(beside(path)) == {"mine.js"}


def rows_of(n: int) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Rows and cards of a made-up run with two scores, the second undefined for a third; "concept 7" is feature 7's, at place n - 8."""
    empty = {"origin": "", "flags": [], "kinds": "", "hints": [], "verdict": "", "suggestion": "", "severity": None, "links": []}  # fmt: skip
    why = {"value": None, "words": "undefined", "note": "", "reason": "never fires", "bad": False}
    for i in range(n):
        standing, value = ("fails", "open", "holds")[i * 3 // n], i * 7919 % n / n
        known = {"index": i, "text": f"concept {i} of a run", "standing": standing, "why": "as it is"}
        cell = {"value": value, "low": value, "high": value, "words": f"{value:.2f}", "note": "", "bad": value < 0.5}
        card = {"origin": "", "metrics": [], "flags": [], "links": [], "facts": [], "verdict": "", "suggestion": ""}
        yield -i, empty | known | {"cells": [cell, why if i % 3 else cell]}, card | known


def shown(held: dict[str, Any]) -> str:
    """The page of such rows."""
    return rendered(
        rows=(), cards=(), held=held, kind="report", heading="Description", column="Description", caption="", title="large",
        standings=[Group(name, 1, name, "") for name in ("fails", "open", "holds")], order="rank", order_words="worst first", facts=(), settings=(), flags=(),
        metrics=[("clarity", "Clarity"), ("purity", "Purity")], ranges={"clarity": (-1, 1), "purity": (0, 1)},
    )  # fmt: skip


def test_results_are_read_once_and_no_card_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, reads, each = many_results(30), [0], Results.__iter__
    monkeypatch.setattr(pages, "SINGLE", 20)

    def counted(self: Results) -> Iterator[Any]:
        reads[0] += 1
        return each(self)

    monkeypatch.setattr(Results, "__iter__", counted)
    assert len(results.frame) == 30
    reads[0] = 0
    results.summary()
    before = reads[0]
    results.to_html(tmp_path / "report.html")
    assert reads[0] == 2 * before + 1, "once for the rows and cards; means are the summary's"

    class Card(dict[str, Any]):
        __hash__ = object.__hash__  # type: ignore[assignment]

    alive: weakref.WeakSet[Card] = weakref.WeakSet()

    def rows() -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
        for rank, row, card in rows_of(300):
            made = Card(card)
            alive.add(made)
            assert len(alive) < 4
            yield rank, row, made

    write_folder(tmp_path / "kept.html", rows(), shown)
    assert len(values(tmp_path / "kept_files", "cards")) == 300


def test_a_write_that_ends_early_leaves_the_earlier_report_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_folder(path, rows_of(250), shown)
    before = path.read_bytes(), beside(path)

    def ends() -> Iterator[Any]:
        yield from rows_of(200)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(path, ends(), shown)
    assert (path.read_bytes(), beside(path)) == before and len(list(tmp_path.iterdir())) == 2

    def full(held: dict[str, Any]) -> str:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_folder(path, rows_of(200), full)
    assert (path.read_bytes(), beside(path)) == before and len(list(tmp_path.iterdir())) == 2


def test_a_notebook_shows_the_worst_and_says_where_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    results = many_results(64)
    assert "rows, the worst first" not in results.table()._repr_html_()
    monkeypatch.setattr(pages, "SINGLE", 20)
    document = Document(page(results, table_only=True))
    rows = [a for a in document.all("tr") if "data-place" in a]
    assert len(rows) == len(document.cards) == 20 and {a["data-standing"] for a in rows[:8]} == {"fails"}
    assert "20 of 64 rows, the worst first: all are in results.frame, and results.to_html(path) writes" in document.text
    assert "8 fail" in document.text and "results.to_html(path)" in results.table()._repr_html_()


def test_notes_and_rows_without_scores_are_on_a_large_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(pages, "SINGLE", 20)
    results = many_results(30)
    stopped = with_evidence(results.items[0], rated_texts=replace(results.items[0].rated_evidence, stopped="narrow"))
    results = replace(results, items=(stopped, *results.items[1:]))
    notes = Notes({results.items[9].description.words: CardNotes(f"swapped{HOSTILE[0]}", 0.5, "it fits another")}, (Unscored(900, "none", CardNotes("missing", 1.0)),))  # fmt: skip
    path = results.to_html(tmp_path / "audit.html", notes)
    rows, cards = values(tmp_path / "audit_files", "rows"), values(tmp_path / "audit_files", "cards")
    assert [row["index"] for row in rows[:2]] == [900, 9] and rows[0]["cells"] == [] and len(rows) == 31
    assert cards[rows[1]["card"]]["suggestion"] == "it fits another" and rows[1]["severity"] == 0.5
    text = Document(path.read_text(encoding="utf-8")).text
    assert "1 of 30 descriptions: narrow" in text and "30 descriptions of 30 features" in text and "missing" in text


ROWS = "[...document.querySelectorAll('#rows tbody tr')]"
TOLD = "document.getElementById('shown').textContent"
TITLE = "document.getElementById('card-title').textContent"
INDICES = f"{ROWS}.map(r => Number(r.dataset.index))"
SETTLED = "new Promise(done => setTimeout(done, 150))"


@pytest.mark.browser
@browsed
def test_a_large_page_sorts_filters_searches_and_opens_cards(browser: Window, written: Path) -> None:
    browser.open(written)
    browser.run("reading")
    assert browser.run(TOLD) == "1,104 of 1,104" and 50 < browser.run(f"{ROWS}.length") <= 300
    for order in ("ascending", "descending"):
        browser.page.click("[data-sort=clarity]")
        found = browser.run("list.map(r => r.cells[0][0])")
        known = [value for value in found if value is not None]
        assert known == sorted(known, reverse=order == "descending") and found[len(known) :] == [None] * (N - len(known))  # fmt: skip
        assert browser.run("document.querySelector('[data-sort=clarity]').parentElement.ariaSort") == order
        assert 0 < len(known) < N and browser.run(INDICES) == browser.run(f"list.map(r => r.index).slice(0, {ROWS}.length)")  # fmt: skip
    browser.page.select_option("#standing", "dead")
    dead = browser.run("list.length")
    assert browser.run(TOLD) == f"{dead} of 1,104" and set(browser.run(f"{ROWS}.map(r => r.dataset.standing)")) == {"dead"}  # fmt: skip
    browser.page.fill("#search", "number 1103")
    assert browser.run(INDICES) == [1102]
    browser.page.locator(".opens:visible").first.click()
    browser.run(SETTLED)
    assert browser.run(OPEN) and browser.run(TITLE).endswith("number 1103") and browser.run("document.getElementById('place').textContent") == "1 of 1"  # fmt: skip
    assert browser.requests[-1].endswith(f"/cards/{browser.run('held.starts.cards.length') - 1:04d}.js"), "the last"
    assert browser.run("document.querySelectorAll('#card h3').length") > 3
    browser.press("Escape")
    browser.page.click("[type=reset]")
    browser.run(SETTLED)
    assert browser.run(TOLD) == "1,104 of 1,104"
    # The hostile one is a text as any other.
    browser.page.fill("#search", "window.hacked")
    browser.page.locator(".opens:visible").first.click()
    browser.run(SETTLED)
    assert browser.run(TITLE).startswith("</script><script>") and browser.run("window.hacked") is None
    asked = [url.rsplit("_files/", 1)[1] for url in browser.requests if "_files/" in url]
    assert len(asked) == len(set(asked)), "each file is read once"


@pytest.mark.browser
@browsed
def test_a_link_opens_a_card_and_the_keyboard_goes_through_rows_far_away(browser: Window, written: Path) -> None:
    browser.open(written, "#1102")
    browser.run("reading")
    browser.run(SETTLED)
    assert browser.run(OPEN) and browser.run(TITLE).endswith("number 1102")
    place = browser.run("current")
    assert browser.run("location.hash") == f"#d{place}"
    browser.page.click("#previous")
    browser.run(SETTLED)
    assert browser.run("location.hash") == f"#d{place - 1}" and "number" in browser.run(TITLE)
    browser.press("Escape")
    browser.run(SETTLED)
    # The focus is on the row that was looked at last, though it was not there when the page was drawn; the next is one press away.
    focused = "document.activeElement.closest('tr')?.dataset.place"
    assert browser.run(focused) == str(place - 1)
    browser.press("Tab", 40)
    assert browser.run(focused) == str(place + 39) and browser.run(f"{ROWS}.length") <= 350
    tops = "(r => [r.top, r.bottom, innerHeight])(document.activeElement.getBoundingClientRect())"
    top, bottom, height = browser.run(tops)
    assert 0 < top < bottom < height
    browser.open(written, "#d1103")
    browser.run(SETTLED)
    assert browser.run(OPEN)


@pytest.mark.browser
@browsed
def test_a_large_page_fits_a_phone(chrome: Browser, written: Path) -> None:
    with window(chrome, 390, 844, phone=True) as browser:
        browser.open(written)
        browser.run("reading")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.run("box.scrollTop = 100000")
        browser.run(SETTLED)
        seen = f"{ROWS}.filter(r => (b => b.bottom > box.getBoundingClientRect().top && b.top < box.getBoundingClientRect().bottom)(r.getBoundingClientRect())).length"
        assert browser.run(seen) >= 1 and browser.run(f"{ROWS}.length") <= 300
        browser.page.select_option("#order", "purity")
        assert browser.run("box.scrollTop") == 0 and browser.run("list[0].cells[2][0]") is not None


@pytest.mark.browser
@browsed
def test_a_missing_folder_is_told(browser: Window, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "report.html", rows_of(120), shown)
    (tmp_path / "report_files").rename(tmp_path / "gone")
    browser.open(path)
    browser.run(SETTLED)
    assert "report_files/rows beside this page, which is not there" in browser.run(TOLD)
    assert browser.run(f"{ROWS}.length") == 50
    browser.page.locator(".opens").first.click()
    browser.run(SETTLED)
    assert "report_files/cards" in browser.run(TOLD) and not browser.run(OPEN)
    browser.complaints[:] = [said for said in browser.complaints if "ERR_FILE_NOT_FOUND" not in said]


@pytest.mark.browser
@browsed
def test_a_hundred_thousand_rows_are_sorted_filtered_and_searched(browser: Window, tmp_path: Path) -> None:
    n = 100_000
    path = write_folder(tmp_path / "report.html", rows_of(n), shown)
    assert path.stat().st_size < 200_000
    browser.open(path)
    assert browser.run(INDICES)[:2] == [n - 1, n - 2], "before the files are read"
    browser.run("reading")
    assert browser.run(TOLD) == "100,000 of 100,000"
    browser.page.click("[data-sort=purity]")
    assert (
        browser.run("list.slice(0, 2).map(r => r.cells[1][0])") == sorted(i * 7919 % n / n for i in range(0, n, 3))[:2]
    )
    assert browser.run("list.at(-1).cells[1][0]") is None and browser.run(f"{ROWS}.length") <= 300
    browser.page.fill("#search", "concept 77777")
    assert browser.run(INDICES) == [77777] and browser.run(TOLD) == "1 of 100,000"
    browser.page.fill("#search", "")
    browser.page.select_option("#standing", "holds")
    browser.page.select_option("#metric", "purity")
    browser.page.select_option("#test", "undefined")
    assert browser.run(TOLD) == f"{browser.run('list.length'):,} of 100,000" and browser.run("list.length") > 20_000
    assert browser.run("document.getElementById('more').checkVisibility()")
    browser.page.click("#more")
    browser.run("box.scrollTop = box.scrollHeight")
    browser.run(SETTLED)
    assert browser.run(f"{INDICES}.at(-1) === list.at(-1).index") and browser.run(f"{ROWS}.length") <= 300
