"""What a page shows and is too much for one file: script files in a folder beside it, each read when it is first asked for.

A script that calls a function is read from a disk as from a server; `fetch` reads from a server alone. `templates/shards.js` reads them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fade_lens._util.files import whole_file, write_text

BYTES = 1_000_000
"""What a file may take; one value alone may take more."""
ALLOWED = " 'self' file:"
"""What a page's policy must let it run beside its own scripts."""
_NAME = re.compile(r"\d{4,}\.js")


def shards(kind: str, values: Iterable[str], starts: list[int], most: int) -> Iterator[tuple[str, str]]:
    """JSON values in files of at most `most` values and `BYTES`: name and text of each, made as the values come.

    Args:
        kind: what the values are, such as "rows".
        values: JSON that may stand in a script.
        starts: gets the number of each file's first value.
        most: values in a file.
    """
    held, size, number = list[str](), 0, 0

    def file() -> tuple[str, str]:
        starts.append(number - len(held))
        place = len(starts) - 1
        return f"{place:04d}.js", f"fadeLens{kind.capitalize()}({place},[{','.join(held)}]);\n"

    for value in values:
        if held and (len(held) == most or size + len(value.encode()) > BYTES):
            yield file()
            held, size = [], 0
        held.append(value)
        size += len(value.encode()) + 1
        number += 1
    if held:
        yield file()


def write_beside(path: str | Path, folder: str, files: Iterable[tuple[str, str]], page: Callable[[], str]) -> Path:
    """Write a page with the files that it reads; a write that ends early leaves an earlier page as it was, or none.

    Args:
        path: of the page.
        folder: the name of the folder beside it; it is not made without files, and loses those of an earlier page.
        files: name in the folder and text of each, written as they come.
        page: makes the page when all files are written.
    """
    path = Path(path)
    old, new = path.with_name(folder), path.with_name(f"{folder}.partial")
    cleared(new)
    try:
        names = [write_text(new / name, text).relative_to(new) for name, text in files]
        text = page()
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
            if (names or old.exists()) and path.is_file():
                path.resolve().unlink()  # no page may name files that are gone, or another's
            cleared(old)
            for name in names:
                (old / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).replace(old / name)
        return path
    finally:
        cleared(new)


def cleared(folder: Path) -> None:
    """Remove the files of an earlier page, and the folders that are empty then; what others put there stays."""
    for file in folder.rglob("*.js"):
        if _NAME.fullmatch(file.name):
            file.unlink()
    for place in sorted((*folder.glob("*/"), folder), reverse=True):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
