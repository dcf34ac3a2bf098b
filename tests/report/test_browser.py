"""The page in a real browser: it sorts, filters, opens cards by mouse and keyboard, and says nothing to console or network."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fade_lens.comparing import compare
from tests.made_up import made_up_notes, made_up_results, with_cross
from tests.report.browser import Browser, chromium

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium or Chrome is installed; the page cannot be opened"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    made_up_results(8).to_html(folder / "plain.html")
    made_up_results(12, hostile=True, n_rated=40).to_html(folder / "hostile.html")
    made_up_results(150, n_rated=20, characters=20).to_html(folder / "many.html")
    run = with_cross(made_up_results(12, n_rated=20, characters=20))
    run.to_html(folder / "audit.html", made_up_notes(run))
    hostile = with_cross(made_up_results(12, hostile=True, n_rated=40))
    hostile.to_html(folder / "hostile-audit.html", made_up_notes(hostile, hostile=True))
    # A page of the same origin, so that the test can look inside; in a notebook the frame has none.
    frame = re.sub(' sandbox="[^"]*"', "", run.table()._repr_html_())
    (folder / "notebook.html").write_text(f"<!DOCTYPE html><title>a notebook</title>{frame}", encoding="utf-8")
    compare(run, replace(run, run=run.run | {"judge": {"model": "<script>window.hacked = 1</script>"}})).to_html(
        folder / "compare.html"
    )
    return folder


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened
        assert opened.complaints == []
        assert all(url.startswith("file:") for url in opened.requests)


SHOWN = "[...document.querySelectorAll('#rows tbody tr')].filter(r => r.checkVisibility())"
OPEN = "document.getElementById('card').open"


def test_sorts_both_ways_with_undefined_last(browser: Browser, files: Path) -> None:
    browser.open(files / "plain.html")
    heads = "Object.fromEntries([...document.querySelectorAll('th[aria-sort]')].map(t => [t.textContent, t.ariaSort]))"
    assert browser.run(heads)["Standing"] == "ascending"
    values = f"{SHOWN}.map(r => r.querySelector('[data-name=clarity]').dataset.value ?? null)"
    for order in ("ascending", "descending"):
        browser.run("document.querySelector('[data-sort=clarity]').click()")
        found = browser.run(values)
        numbers = [float(v) for v in found if v is not None]
        assert found[len(numbers) :] == [None] * (8 - len(numbers)) and len(numbers) < 8
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert browser.run(heads)["Clarity"] == order and browser.run(heads)["Standing"] == "none"


def test_filters_and_says_how_many(browser: Browser, files: Path) -> None:
    browser.open(files / "plain.html")

    def choose(**values: str) -> list[str]:
        for name, value in values.items():
            browser.run(f"document.getElementById('{name}').value = '{value}'")
        browser.run("document.getElementById('search').dispatchEvent(new Event('input', {bubbles: true}))")
        return browser.run(f"{SHOWN}.map(r => r.dataset.standing)")

    assert set(choose(standing="fails")) == {"fails"}
    assert browser.run("document.getElementById('shown').textContent") == "3 of 8"
    assert choose(standing="dead") == ["dead"]
    assert choose(standing="", search="wrong purpose") == ["fails"]
    assert choose(search="no such words") == []
    assert browser.run("document.getElementById('nothing').checkVisibility()")
    assert len(choose(search="", metric="clarity", test="undefined")) == 1
    assert len(choose(test="above")) + len(choose(test="below")) == 7
    browser.run("document.querySelector('[type=reset]').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run(f"{SHOWN}.length") == 8


def test_cards_by_keyboard(browser: Browser, files: Path) -> None:
    browser.open(files / "plain.html")
    browser.run("document.querySelectorAll('.open')[3].focus()")
    browser.key("Enter", 13)
    assert browser.run(OPEN)
    assert browser.run("location.hash") == "#d3"
    assert browser.run("document.activeElement.id") == "card-title"
    assert browser.run("document.getElementById('place').textContent") == "4 of 8"
    browser.run("document.getElementById('next').click()")
    assert browser.run("location.hash") == "#d4"
    assert browser.run("document.querySelectorAll('#card h3').length") == 5
    assert browser.run("document.querySelectorAll('#card svg[role=img]').length") == 2
    assert browser.run("document.querySelectorAll('#card mark').length") > 10
    # Escape closes, and the focus is on the row that was looked at last.
    browser.key("Escape", 27)
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert not browser.run(OPEN)
    assert browser.run("document.activeElement.closest('tr').dataset.place") == "4"


def test_a_card_holds_the_evidence(browser: Browser, files: Path) -> None:
    browser.open(files / "plain.html", "#d7")
    assert browser.run(OPEN)
    best = browser.run("JSON.parse(document.getElementById('data-7').textContent)")
    text = browser.run("document.getElementById('card-body').textContent")
    for part in (
        best["text"],
        best["why"],
        best["metrics"][0]["basis"],
        best["rated"]["texts"][0][3],
        best["synthetic"]["texts"][0][1],
    ):
        assert part in text
    assert browser.run("document.querySelectorAll('#card details').length") == 5
    assert browser.run(
        "[...document.querySelectorAll('#card mark.peak')].every(m => m.style.getPropertyValue('--share') > 10)"
    )
    rated = "[...document.querySelectorAll('#card [data-rating]')].filter(li => li.checkVisibility())"
    browser.run(
        "(s => { s.value = '2'; s.dispatchEvent(new Event('change')) })(document.querySelector('#card select'))"
    )
    assert set(browser.run(f"{rated}.map(li => li.dataset.rating)")) == {"2"}


def test_every_hostile_card_opens_and_nothing_runs(browser: Browser, files: Path) -> None:
    browser.open(files / "hostile.html")
    for place in range(12):
        browser.run(f"show({place})")
        assert browser.run("[...document.querySelectorAll('#card details')].map(d => d.open = true).length") in (0, 5)
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('img, iframe, #card a, #card script').length") == 0
    # What would run if it were let in is stopped by the page's policy as well.
    browser.run(
        "(s => { s.textContent = 'window.hacked = 1'; document.body.append(s) })(document.createElement('script'))"
    )
    assert browser.run("window.hacked") is None
    assert len(browser.complaints) == 1 and "Content Security Policy" in browser.complaints.pop()


def test_an_audit_sorts_filters_and_links(browser: Browser, files: Path) -> None:
    browser.open(files / "audit.html")
    heads = "Object.fromEntries([...document.querySelectorAll('th[aria-sort]')].map(t => [t.textContent, t.ariaSort]))"
    assert browser.run(heads)["Audit"] == "descending" and browser.run(heads)["Standing"] == "none"
    verdicts = f"{SHOWN}.map(r => r.dataset.verdict ?? '')"
    first = browser.run(verdicts)
    assert first[:5] == ["missing", "unusable", "swapped", "rewrite", "keep"]
    browser.run("document.querySelector('[data-sort=rank]').click()")
    standings = browser.run(f"{SHOWN}.map(r => r.dataset.standing)")
    assert standings == sorted(standings, key=["fails", "undecided", "dead", "holds", "unscored"].index)
    browser.run("document.querySelector('[data-sort=severity]').click()")
    assert browser.run(verdicts) == first
    browser.run(
        "(s => { s.value = 'swapped'; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.getElementById('verdict'))"
    )
    assert browser.run(verdicts) == ["swapped"]
    browser.run("document.querySelector('.open:not([hidden] *)').click()")
    link = browser.run("(a => [a.href, a.rel, a.target])(document.querySelector('#card a'))")
    assert link[0].startswith("https://www.neuronpedia.org/gpt2-small/8-res-jb/7?") and link[1:] == [
        "noopener noreferrer",
        "_blank",
    ]
    text = browser.run("document.getElementById('card-body').textContent")
    assert (
        "swapped, severity 0.9" in text
        and "it fits feature 28 better" in text
        and "Beside the other descriptions" in text
    )
    # A description without metrics has a card too.
    browser.run("show(0)")
    assert browser.run("document.getElementById('card-title').textContent") == "(no description)"


def test_the_heat_map_by_keyboard(browser: Browser, files: Path) -> None:
    browser.open(files / "audit.html")
    browser.run("document.getElementById('heat-map').focus()")
    said = "document.getElementById('heat-cell').textContent"
    for _ in range(2):
        browser.key("ArrowDown", 40)
    browser.key("ArrowRight", 39)
    assert "for its own feature 7" in browser.run(said) and "the end of a quotation" in browser.run(said)
    for _ in range(30):
        browser.key("ArrowDown", 40)
    assert "for feature 77 (it describes 7)" in browser.run(said)
    browser.key("Enter", 13)
    assert browser.run(OPEN) and "the end of a quotation" in browser.run(
        "document.getElementById('card-title').textContent"
    )
    pixels = "document.getElementById('heat-map').toDataURL()"
    before = browser.run(pixels)
    browser.run(
        "(s => { s.value = '1'; s.dispatchEvent(new Event('change')) })(document.getElementById('heat-metric'))"
    )
    assert len(before) > 1000 and browser.run(pixels) != before


def test_hostile_notes_do_nothing(browser: Browser, files: Path) -> None:
    browser.open(files / "hostile-audit.html")
    for place in range(14):
        browser.run(f"show({place})")
    assert browser.run("window.hacked") is None
    assert browser.run("[...document.querySelectorAll('a')].every(a => /^(https:|file:)/.test(a.href))")


def test_the_page_in_a_notebook_frame(browser: Browser, files: Path) -> None:
    browser.open(files / "notebook.html")
    inside = "document.querySelector('iframe').contentWindow"
    assert browser.run(f"{inside}.document.querySelectorAll('#rows tbody tr').length") == 12
    browser.run(f"{inside}.document.querySelector('.open').click()")
    assert browser.run(f"{inside}.document.getElementById('card').open")
    browser.run(f"{inside}.document.getElementById('close').click()")
    assert not browser.run(f"{inside}.document.getElementById('card').open")


@pytest.mark.parametrize("dark", [False, True])
def test_a_comparison_fits_a_phone(files: Path, dark: bool) -> None:
    with Browser(390, 844, dark=dark, mobile=True) as browser:
        browser.open(files / "compare.html")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("window.hacked") is None and browser.complaints == []


def test_long_tables_are_laid_out_in_parts(browser: Browser, files: Path) -> None:
    browser.open(files / "many.html")
    assert browser.run(f"{SHOWN}.length") == 50
    assert browser.run("document.getElementById('shown').textContent") == "150 of 150"
    browser.run("document.getElementById('more').click()")
    assert browser.run(f"{SHOWN}.length") == 150
    assert not browser.run("document.getElementById('more').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["plain.html", "hostile.html", "hostile-audit.html"])
def test_fits_a_phone_in_both_schemes(files: Path, name: str, dark: bool) -> None:
    with Browser(390, 844, dark=dark, mobile=True) as browser:
        browser.open(files / name)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.run("show(0)")
        assert browser.run("document.getElementById('card').scrollWidth") <= 390
        light = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light is not dark
        assert browser.complaints == []


@pytest.mark.benchmark
def test_a_thousand_open_in_two_seconds(tmp_path: Path) -> None:
    path = made_up_results(1000).to_html(tmp_path / "page.html")
    assert path.stat().st_size < 10_000_000
    with Browser() as browser:
        assert browser.open(path) < 2
        assert (
            browser.run(
                "(t => (sort('clarity', false), document.body.offsetHeight, performance.now() - t))(performance.now())"
            )
            < 1000
        )
