"""The page in a real browser: it sorts, filters, opens cards by mouse and keyboard, and says nothing to console or network."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from fade_lens.analysis.compare import compare
from fade_lens.report.page import page
from fade_lens.runs.look import look
from fade_lens.runs.record import JudgeRecord
from tests.explained import made_up_explained, made_up_explanations
from tests.made_up import made_up_notes, made_up_results, with_cross
from tests.planted import natural_texts, planted_model, planted_sae
from tests.report.browser import Window, chromium, window
from tests.tiny import ANIMALS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed; the page cannot be opened"),
]


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
    viewport = '<meta name="viewport" content="width=device-width">'
    fragments = run._repr_html_() + run.items[0]._repr_html_() + "".join(r._repr_html_() for r in made_up_explained())
    (folder / "static.html").write_text(f"<!DOCTYPE html><title>cells</title>{viewport}{fragments}", encoding="utf-8")
    judged = replace(run.run, judge=JudgeRecord("<script>window.hacked = 1</script>"))
    compare(run, replace(run, run=judged)).to_html(folder / "compare.html")
    hidden = planted_model(), planted_sae(), range(8), natural_texts(200)
    look(*hidden, progress=False).to_html(folder / "look.html")
    made_up_explained().to_html(folder / "explained.html")
    made_up_explained(hostile=True).to_html(folder / "hostile-explained.html")
    made_up_explanations(hostile=True).to_html(folder / "explanations.html")
    return folder


SHOWN = "[...document.querySelectorAll('#rows tbody tr')].filter(r => r.checkVisibility())"
OPEN = "document.getElementById('card').open"


def test_sorts_both_ways_with_undefined_last(browser: Window, files: Path) -> None:
    browser.open(files / "plain.html")
    heads = "Object.fromEntries([...document.querySelectorAll('th[aria-sort]')].map(t => [t.textContent, t.ariaSort]))"
    assert browser.run(heads)["Standing"] == "ascending"
    values = f"{SHOWN}.map(r => r.querySelector('[data-name=clarity]').dataset.value ?? null)"
    for order in ("ascending", "descending"):
        browser.page.click("[data-sort=clarity]")
        found = browser.run(values)
        numbers = [float(v) for v in found if v is not None]
        assert found[len(numbers) :] == [None] * (8 - len(numbers)) and len(numbers) < 8
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert browser.run(heads)["Clarity"] == order and browser.run(heads)["Standing"] == "none"


def test_filters_and_says_how_many(browser: Window, files: Path) -> None:
    browser.open(files / "plain.html")

    def choose(**values: str) -> list[str]:
        for name, value in values.items():
            (browser.page.fill if name == "search" else browser.page.select_option)(f"#{name}", value)
        return browser.run(f"{SHOWN}.map(r => r.dataset.standing)")

    assert set(choose(standing="fails")) == {"fails"}
    assert browser.run("document.getElementById('shown').textContent") == "2 of 8"
    assert choose(standing="dead") == ["dead"]
    assert choose(standing="", search="wrong purpose") == ["fails"]
    assert choose(search="no such words") == []
    assert browser.run("document.getElementById('nothing').checkVisibility()")
    assert len(choose(search="", metric="clarity", test="undefined")) == 1
    assert len(choose(test="above")) + len(choose(test="below")) == 7
    browser.page.click("[type=reset]")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run(f"{SHOWN}.length") == 8


def test_cards_by_keyboard(browser: Window, files: Path) -> None:
    browser.open(files / "plain.html")
    browser.page.locator(".opens").nth(3).focus()
    browser.press("Enter")
    assert browser.run(OPEN)
    assert browser.run("location.hash") == "#d3"
    assert browser.run("document.activeElement.id") == "card-title"
    assert browser.run("document.getElementById('place').textContent") == "4 of 8"
    browser.page.click("#next")
    assert browser.run("location.hash") == "#d4"
    assert browser.run("document.querySelectorAll('#card h3').length") == 7
    assert browser.run("document.querySelectorAll('#card svg[role=img]').length") == 2
    assert browser.run("document.querySelectorAll('#card mark').length") > 10
    # Escape closes, and the focus is on the row that was looked at last.
    browser.press("Escape")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert not browser.run(OPEN)
    assert browser.run("document.activeElement.closest('tr').dataset.place") == "4"


def test_what_tokens_cause_is_underlined_beside_the_shade_and_tokens_stand_in_a_card(
    browser: Window, files: Path
) -> None:
    browser.open(files / "plain.html", "#d7")
    style = (
        "[getComputedStyle(e).textDecorationStyle, parseFloat(getComputedStyle(e).textDecorationThickness), e.title]"
    )
    found = browser.run(f"[...document.querySelectorAll('#card .raises, #card .lowers')].map(e => {style})")
    for kind, words in (("solid", "makes it fire, +"), ("dashed", "holds it back, −")):
        widths = [width for style, width, title in found if style == kind and words in title]
        assert len(widths) > 5 and 1 < min(widths) < max(widths) <= 5
    assert {style for style, *_ in found} == {"solid", "dashed"}
    told = browser.run("document.querySelector('#card section[aria-label^=Texts]').textContent")
    assert "found by leaving it out" in told
    assert (
        browser.run("document.querySelector('#card section[aria-label=Tokens]').textContent").count("Suppressed") == 1
    )


def test_a_card_holds_the_evidence(browser: Window, files: Path) -> None:
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
    browser.page.locator("#card select").first.select_option("2")
    assert set(browser.run(f"{rated}.map(li => li.dataset.rating)")) == {"2"}


def test_every_hostile_card_opens_and_nothing_runs(browser: Window, files: Path) -> None:
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


def test_an_audit_sorts_filters_and_links(browser: Window, files: Path) -> None:
    browser.open(files / "audit.html")
    heads = "Object.fromEntries([...document.querySelectorAll('th[aria-sort]')].map(t => [t.textContent, t.ariaSort]))"
    assert browser.run(heads)["Audit"] == "descending" and browser.run(heads)["Standing"] == "none"
    verdicts = f"{SHOWN}.map(r => r.dataset.verdict ?? '')"
    first = browser.run(verdicts)
    assert first[:5] == ["missing", "unusable", "swapped", "rewrite", "keep"]
    browser.page.click("[data-sort=rank]")
    standings = browser.run(f"{SHOWN}.map(r => r.dataset.standing)")
    assert standings == sorted(standings, key=["fails", "open", "dead", "holds", "unscored"].index)
    browser.page.click("[data-sort=severity]")
    assert browser.run(verdicts) == first
    browser.page.select_option("#verdict", "swapped")
    assert browser.run(verdicts) == ["swapped"]
    browser.page.locator(".opens:visible").first.click()
    link = browser.run("(a => [a.href, a.rel, a.target])(document.querySelector('#card a'))")
    assert link[0].startswith("https://www.neuronpedia.org/gpt2-small/8-res-jb/7?") and link[1:] == [
        "noopener noreferrer",
        "_blank",
    ]
    text = browser.run("document.getElementById('card-body').textContent")
    assert "swapped" in text and "it fits feature 28 better" in text and "Beside the other descriptions" in text
    # A description without metrics has a card too.
    browser.run("show(0)")
    assert browser.run("document.getElementById('card-title').textContent") == "(no description)"


def test_the_heat_map_by_keyboard(browser: Window, files: Path) -> None:
    browser.open(files / "audit.html")
    browser.page.focus("#heat-map")
    said = "document.getElementById('heat-cell').textContent"
    browser.press("ArrowDown", 2)
    browser.press("ArrowRight")
    assert "for its own feature 7" in browser.run(said) and "the end of a quotation" in browser.run(said)
    browser.press("ArrowDown", 30)
    assert "for feature 77 (it describes 7)" in browser.run(said)
    browser.press("Enter")
    assert browser.run(OPEN) and "the end of a quotation" in browser.run(
        "document.getElementById('card-title').textContent"
    )
    pixels = "document.getElementById('heat-map').toDataURL()"
    before = browser.run(pixels)
    browser.page.select_option("#heat-metric", "1")
    assert len(before) > 1000 and browser.run(pixels) != before


def test_hostile_notes_do_nothing(browser: Window, files: Path) -> None:
    browser.open(files / "hostile-audit.html")
    for place in range(14):
        browser.run(f"show({place})")
    assert browser.run("window.hacked") is None
    assert browser.run("[...document.querySelectorAll('a')].every(a => /^(https:|file:)/.test(a.href))")


def test_the_page_in_a_notebook_frame(browser: Window, files: Path) -> None:
    browser.open(files / "notebook.html")
    inside = browser.page.frame_locator("iframe")
    assert inside.locator("#rows tbody tr").count() == 12
    inside.locator(".opens").first.click()
    assert inside.locator("#card").is_visible()
    inside.locator("#close").click()
    assert inside.locator("#card").is_hidden()


@pytest.mark.parametrize("dark", [False, True])
def test_a_comparison_fits_a_phone(chrome: Browser, files: Path, dark: bool) -> None:
    with window(chrome, 390, 844, dark=dark, phone=True) as browser:
        browser.open(files / "compare.html")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("window.hacked") is None


def test_long_tables_are_laid_out_in_parts(browser: Window, files: Path) -> None:
    browser.open(files / "many.html")
    assert browser.run(f"{SHOWN}.length") == 50
    assert browser.run("document.getElementById('shown').textContent") == "150 of 150"
    browser.page.click("#more")
    assert browser.run(f"{SHOWN}.length") == 150
    assert not browser.run("document.getElementById('more').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["plain.html", "hostile.html", "hostile-audit.html"])
def test_fits_a_phone_in_both_schemes(chrome: Browser, files: Path, name: str, dark: bool) -> None:
    with window(chrome, 390, 844, dark=dark, phone=True) as browser:
        browser.open(files / name)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.run("show(0)")
        assert browser.run("document.getElementById('card').scrollWidth") <= 390
        light = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light is not dark


BROKEN = """
[...document.querySelectorAll("th, thead button")].filter(h => h.checkVisibility()).flatMap(head => {
  const walk = document.createTreeWalker(head, NodeFilter.SHOW_TEXT), found = [];
  for (let node; (node = walk.nextNode());) for (const word of node.data.matchAll(/[^\\s-]+/g)) {
    const range = document.createRange();
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) found.push(word[0]);
  }
  return found;
})"""
"""Words of the heads of tables that stand on several lines."""
CLIPPED = """
[...document.querySelectorAll("svg[viewBox]")].filter(s => s.checkVisibility()).flatMap(drawn => {
  const [, , width, height] = drawn.getAttribute("viewBox").split(" ").map(Number);
  return [...drawn.querySelectorAll(".dot, .points, .rate-dot")].flatMap(path => {
    const radius = parseFloat(getComputedStyle(path).strokeWidth) / 2;
    return [...(path.getAttribute("d") || "").matchAll(/M([-\\d.]+) ([-\\d.]+)h0/g)].map(([, x, y]) => [Number(x), Number(y)])
      .filter(([x, y]) => x < radius || x > width - radius || y < radius || y > height - radius).map(at => [path.getAttribute("class"), ...at]);
  });
})"""
"""Dots of which part lies outside of their drawing."""


@pytest.mark.parametrize("name", ["plain", "audit", "compare", "static", "look", "explained"])
def test_on_a_phone_a_description_is_near_no_word_of_a_head_is_broken_and_no_dot_is_clipped(
    chrome: Browser, files: Path, name: str
) -> None:
    with window(chrome, 390, 844, phone=True) as browser:
        browser.open(files / f"{name}.html")
        if browser.run("!!document.querySelector('#rows .opens')"):
            near = "(r => [r.top, r.bottom, r.right])(document.querySelector('#rows .opens').getBoundingClientRect())"
            top, bottom, right = browser.run(near)
            assert 0 < top < bottom < 2 * 844 and right <= 390
        assert browser.run(BROKEN) == [] and browser.run(CLIPPED) == []
        if name in ("plain", "audit"):
            browser.run("show(4)")
            assert browser.run(BROKEN) == [] and browser.run(CLIPPED) == []


def test_dots_are_whole_on_a_desk_too(browser: Window, files: Path) -> None:
    for fragment in ("", "#d7"):
        browser.open(files / "plain.html", fragment)
        assert browser.run("document.querySelectorAll('.dot').length") > 20 and browser.run(CLIPPED) == []


@pytest.mark.parametrize(
    ("theme", "dark"),
    [
        ('<body data-jp-theme-light="false">', (True, True)),
        ('<body data-jp-theme-light="true">', (False, False)),
        ('<body class="vscode-dark">', (True, True)),
        ('<body class="vscode-high-contrast vscode-high-contrast-light">', (False, False)),
        ('<html theme="dark"><body>', (True, True)),
        ("<body>", (False, True)),
    ],
)
def test_a_table_in_a_notebook_has_the_colours_of_its_theme(chrome: Browser, tmp_path: Path, theme: str, dark: tuple[bool, bool]) -> None:  # fmt: skip
    made = made_up_results(2, n_rated=12, characters=20).table()._repr_html_()
    (tmp_path / "cell.html").write_text(f"<!DOCTYPE html><title>cell</title>{theme}{made}", encoding="utf-8")
    for system, wanted in zip((False, True), dark, strict=True):
        with window(chrome, dark=system) as browser:
            browser.open(tmp_path / "cell.html")
            turned = browser.run("getComputedStyle(document.querySelector('iframe')).filter") != "none"
            inside = browser.page.frames[1].evaluate("getComputedStyle(document.body).backgroundColor")
            assert inside == "rgb(255, 255, 255)" and turned is wanted


def test_a_table_is_read_without_scripts(chrome: Browser, tmp_path: Path) -> None:
    results = made_up_results(8, n_rated=12, characters=20)
    (tmp_path / "inside.html").write_text(page(results, table_only=True), encoding="utf-8")
    context = chrome.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((tmp_path / "inside.html").as_uri())
    seen = opened.locator("#rows").inner_text()
    context.close()
    for result in results:
        assert result.description.text in seen and result.standing in seen
    assert "Responsiveness" in seen and " to 1.00" in seen


@pytest.mark.benchmark
def test_a_thousand_open_in_two_seconds(chrome: Browser, tmp_path: Path) -> None:
    path = made_up_results(1000).to_html(tmp_path / "page.html")
    assert path.stat().st_size < 10_000_000
    with window(chrome) as browser:
        assert browser.open(path) < 2
        assert (
            browser.run(
                "(t => (sort('clarity', false), document.body.offsetHeight, performance.now() - t))(performance.now())"
            )
            < 1000
        )


def test_features_without_a_description_have_cards_with_shaded_texts(browser: Window, files: Path) -> None:
    browser.open(files / "look.html")
    assert browser.run(f"{SHOWN}.map(r => r.dataset.index)") == [str(i) for i in range(8)]
    browser.page.locator(".opens").first.click()
    headings = browser.run("[...document.querySelectorAll('#card h3')].map(h => h.textContent)")
    assert headings == ["Activations", "Texts that activate it most", "Texts of every strength", "Tokens", "Neighbours"]
    peaks = "[...document.querySelectorAll('#card mark.peak')].map(m => [m.textContent.trim(), m.style.getPropertyValue('--share') > 10])"
    assert browser.run(f"{peaks}.length") > 10 and all(word in ANIMALS and dark for word, dark in browser.run(peaks))
    assert browser.run("document.querySelectorAll('#card svg[role=img] path.bars').length") >= 1
    # A neighbour that is on the page opens its own card; the dead feature says so.
    browser.page.locator("#card .words button").first.click()
    assert browser.run("document.getElementById('card-title').textContent") != "Feature 0"
    browser.open(files / "look.html", "#d3")
    assert "None: the feature never fires" in browser.run("document.getElementById('card-body').textContent")
    browser.press("Escape")
    browser.page.select_option("#standing", "dead")
    assert browser.run(f"{SHOWN}.map(r => r.dataset.index)") == ["3"]


def test_a_card_shows_the_explanation_and_the_decisions_behind_scores(browser: Window, files: Path) -> None:
    browser.open(files / "explained.html", "#d0")
    section = "document.querySelector('section[aria-label={}]')"
    shown = "".join(browser.run(f"{section.format(name)}.innerText") for name in ("Rules", "Explanation"))
    assert all(
        text in shown for text in ("structured (prompts 3)", "$0.0012", "names of animals", "2 of 3 shown", " fox")
    )
    detection = section.format("Detection")
    browser.run(f"{detection}.querySelector('details').open = true")
    visible = f"[...{detection}.querySelectorAll('li')].filter(li => li.checkVisibility()).map(li => li.innerText)"
    assert len(browser.run(visible)) == 4
    browser.page.select_option("section[aria-label=Detection] select", "wrong")
    (wrong,) = browser.run(visible)
    assert "wrong: no" in wrong and "second" in wrong
    browser.page.select_option("section[aria-label=Detection] select", "unanswered")
    assert "nothing readable" in browser.run(visible)[0]
    assert browser.run(f"{section.format('Fuzzing')}.querySelector('mark.set').textContent") == "the"
    assert browser.run(f"{section.format('Simulation')}.querySelectorAll('.beside').length") == 3
    assert browser.run("document.documentElement.scrollWidth") <= 1280
    places = {file: len(browser.run("rows.map(r => r.place)")) for file in ("hostile-explained", "explanations") if browser.open(files / f"{file}.html")}  # fmt: skip
    for file, n in places.items():
        for place in range(n):
            browser.open(files / f"{file}.html", f"#d{place}")
            assert browser.run(OPEN) and not browser.run("'hacked' in window")
