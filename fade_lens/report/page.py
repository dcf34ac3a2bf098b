"""The HTML page of a run: one self-contained file, or of a large run a page with a folder of files that it reads when they are looked at.

Everything shown is hostile data. It goes through one of two gates: jinja2's autoescape, or `compact` JSON which the page's script
puts into text nodes. The page's policy (CSP) lets nothing run but that script, known by its hash, and nothing load but the files of its folder.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fade_lens._util.files import clean
from fade_lens._util.record import to_plain
from fade_lens._util.words import amount, clip, flat, plain, visible
from fade_lens.analysis.notes import Notes, Unscored
from fade_lens.report import overview
from fade_lens.report.answers import tables
from fade_lens.report.cards import DETAILS, Detail, bare_card, card, compact, fitted, least
from fade_lens.report.health_card import health_card
from fade_lens.report.matrix import heat_map
from fade_lens.report.recipe import recipe
from fade_lens.report.rows import Counted, Entry, added, entries, groups, packed, row, worst
from fade_lens.report.shards import ALLOWED, shards, write_beside
from fade_lens.runs.results import Results

SINGLE = 1000
"""Up to so many descriptions a page is one file."""
CARDS_BYTES = 8_000_000
"""What the cards of a page may take together: with the table of 1,000 descriptions the page stays under 10 MB."""
CARD_BYTES = 400_000
"""What one card may take."""
PAGE_ROWS, FOLDER_ROWS = 50, 20_000
"""Rows that the page lays out before it is asked for more: so many that what follows the table is near, or that no browser's largest height is met."""
FOLDER_CARD = 10_000
"""What one card of a folder may take; the first of `DETAILS` that is tried there nearly always does, since trying others takes longest of all."""
SHARD_ROWS, SHARD_CARDS = 5000, 100
"""Rows and cards in a file at most."""
SCRIPTS = ("base.js", "shards.js", "table.js", "card.js", "matrix.js", "dialog.js")


def write_page(results: Results, path: str | Path, notes: Notes | None = None) -> Path:
    """Write the page: one file, or with more than `SINGLE` descriptions a page with a folder; the results are read once, one at a time."""
    path, notes, counted = Path(path), notes or Notes(), Counted()
    if fits(results, notes):
        return write_beside(path, beside(path), (), lambda: page(results, notes))
    each = counted.each(entries(results, notes))
    rows = ((entry.rank, row(0, entry, results.specs), _card(entry, FOLDER_CARD, DETAILS[6:])) for entry in each)
    return write_folder(path, rows, lambda held: _rendered(results, notes, counted, rows=(), cards=(), held=held))


def beside(path: Path) -> str:
    """The name of the folder beside a page, as the page can hold it."""
    return f"{clean(path.stem)}_files"


def write_folder(
    path: Path, rows: Iterable[tuple[Any, dict[str, Any], dict[str, Any]]], page: Callable[[dict[str, Any]], str]
) -> Path:
    """Write a page whose rows and cards lie in a folder NAME_files beside it, in files of at most a megabyte.

    Args:
        path: of the page.
        rows: what each is sorted by, the row, its card. They are taken one at a time; of each its row is kept until all are sorted.
        page: makes the page; it is given what the page's script reads, the first rows among it.
    """
    ranked, starts = list[tuple[Any, str]](), {"cards": list[int](), "rows": list[int]()}

    def cards() -> Iterator[str]:
        for number, (rank, one, made) in enumerate(rows):
            ranked.append((rank, compact(packed(one, card=number))))
            yield compact(made)

    def files() -> Iterator[tuple[str, str]]:
        yield from ((f"cards/{name}", text) for name, text in shards("cards", cards(), starts["cards"], SHARD_CARDS))
        ranked.sort(key=itemgetter(0))
        texts = (text for _, text in ranked)
        yield from ((f"rows/{name}", text) for name, text in shards("rows", texts, starts["rows"], SHARD_ROWS))

    def whole_page() -> str:
        first = [json.loads(text) for _, text in ranked[:PAGE_ROWS]]
        return page({"of": len(ranked), "page": FOLDER_ROWS, "rows": first, "folder": beside(path), "starts": starts})

    return write_beside(path, beside(path), files(), whole_page)


def fits(results: Results, notes: Notes) -> bool:
    """Whether a page of all is one file."""
    return max(len(results), len(notes.unscored), len(results.without)) <= SINGLE


def page(
    results: Results, notes: Notes | None = None, *, cards_bytes: int | None = None, table_only: bool = False
) -> str:
    """One HTML file: the overview, the table with the worst descriptions first, and a card for each description.

    It needs no network and no other file. Of a large run the cards show less of the evidence (they say how much), so that the
    page stays small, and of more than `SINGLE` descriptions only the worst have a row; `Results.save` keeps all of it. `notes` add an
    audit's verdicts, suggestions and links; `cards_bytes` is what the cards may take together; `table_only` leaves out the record of the
    run and the overview.
    """
    notes = notes or Notes()
    counted = Counted(evidence=not table_only)
    ordered = worst(counted.each(entries(results, notes)), 3 * SINGLE if fits(results, notes) else SINGLE)
    budget = min((cards_bytes or CARDS_BYTES) // max(len(ordered), 1), CARD_BYTES)
    places = {
        entry.item.description.id: place for place, entry in enumerate(ordered) if not isinstance(entry.item, Unscored)
    }
    return _rendered(
        results,
        notes,
        counted,
        rows=[row(place, entry, results.specs) for place, entry in enumerate(ordered)],
        cards=[_card(entry, budget) for entry in ordered],
        table_only=table_only,
        heat=_heat(results, places),
    )


def _rendered(results: Results, notes: Notes, counted: Counted, *, rows: Sequence[dict[str, Any]], **more: Any) -> str:
    """The page with rows and cards, or with what is `held` of them in a folder."""
    deciding = [spec.title for spec in results.specs if spec.decides]
    large, left_out = not fits(results, notes), list[tuple[str, str]]()
    if large and counted.windowed:  # they take all answers at once
        left_out = [("Not on this page", "scores by kind of negatives and by number of rules: fade_lens.by_negative(results), fade_lens.polysemanticity(results)")]  # fmt: skip
    return rendered(
        kind="report",
        heading="Description",
        column="Description",
        caption="Descriptions with their scores; headings sort, descriptions open a card.",
        title=_title(results, counted.n),
        standings=groups(counted.standings, len(results) > 0, deciding, results.run.gate),
        order="severity" if counted.audited else "rank",
        order_words="worst first",
        facts=overview.facts(results, counted) + [(clip(n, 80), clip(v, 400)) for n, v in notes.facts] + left_out,
        panels=overview.panels(results) if len(results) else [],
        drawn=amount(overview.DRAWN) if len(results) > overview.DRAWN else "",
        reasons=overview.reasons(results),
        nulls=overview.against_others(results),
        tables=[] if large else tables(results),
        settings=flat({key: value for key, value in to_plain(results.run).items() if key != "health"}),
        health=None if (seen := results.run.health) is None else health_card(seen) | {"words": seen.words},
        recipe=recipe(results.run),
        metrics=[(spec.name, spec.title) for spec in results.specs],
        ranges={spec.name: spec.range for spec in results.specs},
        flags=sorted(counted.kinds),
        verdicts=sorted(counted.verdicts),
        audited=counted.audited,
        rows=rows,
        cut=f"{amount(len(rows))} of {amount(counted.n)} rows, the worst first: all are in results.frame, and results.to_html(path) writes a page of all." if 0 < len(rows) < counted.n else "",
        **more,
    )  # fmt: skip


def rendered(
    *, rows: Sequence[dict[str, Any]], cards: Sequence[Any], held: Mapping[str, Any] = {}, **shown: Any
) -> str:
    """The page's template; what is not shown is left out. `held` is what its script reads of rows that are not in the page."""
    absent: dict[str, Any] = {
        "panels": (),
        "drawn": "",
        "reasons": (),
        "nulls": (),
        "tables": (),
        "verdicts": (),
        "recipe": "",
        "heat": None,
        "health": None,
        "cut": "",
        "ranges": {},
    }
    known: dict[str, Any] = absent | {"audited": False, "table_only": False, "page_rows": PAGE_ROWS} | shown
    script = joined(*SCRIPTS)
    data: dict[str, Any] = {"of": len(rows), "page": PAGE_ROWS, "metrics": [(name, known["ranges"].get(name)) for name, _ in known["metrics"]]}  # fmt: skip
    data |= held or {"rows": [packed(row) for row in rows]}
    return whole(
        "page.html",
        script,
        allowed={"script-src": f"'{hash_of(script)}'{ALLOWED}"} if held else None,
        script=script,
        rows=rows,
        of=data["of"],
        beside=held.get("folder", ""),
        data=Markup(compact(data)),
        cards=[Markup(compact(card)) for card in cards],
        **known,
    )


def whole(template: str, *scripts: str, allowed: Mapping[str, str] | None = None, **shown: Any) -> str:
    """A page from a template that extends `base.html`, with the style of all pages and its content security policy.

    Args:
        template: its file.
        scripts: the text of each script that it runs.
        allowed: of a page that needs more, further directives of its policy or others in place of the usual, `{"img-src": "data:"}`.
        shown: what the template shows.
    """
    style = joined("page.css")
    return environment().get_template(template).render(style=style, policy=policy(style, *scripts, allowed=allowed), **shown)  # fmt: skip


def _card(entry: Entry, budget: int, details: Sequence[Detail] = DETAILS) -> dict[str, Any]:
    """A card with what was added to it."""
    flags = [clip(flag, 200) for flag in entry.flags]
    more = plain(added(entry.notes) | {"flags": flags, "standing": entry.standing, "why": entry.why})
    if isinstance(entry.item, Unscored):
        return bare_card(entry.item) | more
    item = entry.item
    size = budget - len(compact(more).encode())
    return fitted(lambda detail: card(item, detail), size, lambda detail: least(item, detail), details) | more


def _heat(results: Results, places: dict[str, int]) -> Markup | None:
    """The cross matrices as JSON, where there are any and they can be seen on a screen."""
    made = heat_map(results, places)
    return None if made is None else Markup(compact(plain(made)))


def _title(results: Results, rows: int) -> str:
    n = len(results) or rows
    name = results.run.model.name
    return f"{amount(n)} description{'' if n == 1 else 's'}" + (f" of {clip(name, 80)}" if name else "")


def policy(style: str, *scripts: str, allowed: Mapping[str, str] | None = None) -> str:
    """A page's content security policy: this style, these scripts, what else is `allowed` by directive, and nothing else."""
    hashes = " ".join(f"'{hash_of(script)}'" for script in scripts)
    usual = {"default-src": "'none'", "script-src": hashes, "style-src": f"'{hash_of(style)}'", "base-uri": "'none'", "form-action": "'none'"}  # fmt: skip
    return "; ".join(f"{name} {value}" for name, value in (usual | dict(allowed or {})).items() if value)


@cache
def environment() -> Environment:
    """The templates, escaping everything."""
    return Environment(
        loader=PackageLoader("fade_lens.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Unseen characters are shown by their codes wherever a string is printed; markup made here holds numbers only.
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )


@cache
def joined(*names: str) -> Markup:
    """Files of this package that go into the page as they are."""
    templates = environment()
    assert templates.loader is not None
    return Markup("\n".join(templates.loader.get_source(templates, name)[0] for name in names))


def hash_of(text: str) -> str:
    """A script or style as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
