"""One self-contained HTML page of a run.

Everything shown is hostile data. It goes through one of two gates: jinja2's autoescape, or `compact` JSON which the page's script
puts into text nodes. The page's policy (CSP) lets nothing run but that script, known by its hash, and nothing load.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fade_lens._util.record import to_plain
from fade_lens._util.words import amount, clip, flat, plain, visible
from fade_lens.analysis.notes import Notes, Unscored
from fade_lens.report import overview
from fade_lens.report.answers import tables
from fade_lens.report.cards import bare_card, card, compact, fitted, least
from fade_lens.report.health_card import health_card
from fade_lens.report.matrix import heat_map
from fade_lens.report.recipe import recipe
from fade_lens.report.rows import Entry, added, entries, groups, kinds, row
from fade_lens.runs.results import Results

CARDS_BYTES = 8_000_000
"""What the cards of a page may take together: with the table of 1,000 descriptions the page stays under 10 MB."""
CARD_BYTES = 400_000
"""What one card may take."""
PAGE_ROWS = 50
"""Rows that the page lays out before it is asked for more."""
SCRIPTS = ("base.js", "table.js", "card.js", "matrix.js", "dialog.js")


def page(
    results: Results, notes: Notes | None = None, *, cards_bytes: int | None = None, table_only: bool = False
) -> str:
    """One HTML file: the overview, the table with the worst descriptions first, and a card for each description.

    It needs no network and no other file. Of a large run the cards show less of the evidence (they say how much), so that the
    page stays small; `Results.save` keeps all of it. `notes` add an audit's verdicts, suggestions and links; `cards_bytes` is what
    the cards may take together; `table_only` leaves out the record of the run and the overview.
    """
    notes = notes or Notes()
    ordered = entries(results, notes)
    budget = min((cards_bytes or CARDS_BYTES) // max(len(ordered), 1), CARD_BYTES)
    places = {
        entry.item.description.id: place for place, entry in enumerate(ordered) if not isinstance(entry.item, Unscored)
    }
    audited = any(e.notes.verdict or e.notes.severity is not None or e.notes.suggestion for e in ordered)
    deciding = [spec.title for spec in results.specs if spec.decides]
    return rendered(
        kind="report",
        heading="Description",
        column="Description",
        caption="Descriptions with their scores; headings sort, descriptions open a card.",
        title=_title(results, len(ordered)),
        standings=groups(ordered, len(results) > 0, deciding, results.run.gate),
        order="severity" if audited else "rank",
        order_words="worst first",
        table_only=table_only,
        facts=overview.facts(results) + [(clip(n, 80), clip(v, 400)) for n, v in notes.facts],
        panels=overview.panels(results) if len(results) else [],
        reasons=overview.reasons(results),
        nulls=overview.against_others(results),
        tables=tables(results),
        settings=flat({key: value for key, value in to_plain(results.run).items() if key != "health"}),
        health=None if (seen := results.run.health) is None else health_card(seen) | {"words": seen.words},
        recipe=recipe(results.run),
        metrics=[(spec.name, spec.title) for spec in results.specs],
        rows=[row(place, entry, results.specs) for place, entry in enumerate(ordered)],
        flags=kinds(flag for entry in ordered for flag in entry.flags),
        verdicts=sorted({clip(e.notes.verdict, 40) for e in ordered} - {""}),
        audited=audited,
        cards=[_card(entry, budget) for entry in ordered],
        heat=_heat(results, places),
    )


def rendered(*, cards: Sequence[Any], **shown: Any) -> str:
    """The page's template; what is not shown is left out."""
    absent: dict[str, Any] = {
        "panels": (),
        "reasons": (),
        "nulls": (),
        "tables": (),
        "verdicts": (),
        "recipe": "",
        "heat": None,
        "health": None,
    }
    known: dict[str, Any] = absent | {"audited": False, "table_only": False, "page_rows": PAGE_ROWS} | shown
    script = joined(*SCRIPTS)
    return whole("page.html", script, script=script, cards=[Markup(compact(card)) for card in cards], **known)


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


def _card(entry: Entry, budget: int) -> dict[str, Any]:
    """A card with what was added to it."""
    flags = [clip(flag, 200) for flag in entry.flags]
    more = plain(added(entry.notes) | {"flags": flags, "standing": entry.standing, "why": entry.why})
    if isinstance(entry.item, Unscored):
        return bare_card(entry.item) | more
    item = entry.item
    size = budget - len(compact(more).encode())
    return fitted(lambda detail: card(item, detail), size, lambda detail: least(item, detail)) | more


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
