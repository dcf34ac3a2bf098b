"""How long the report of a large run takes to write, to open, to sort, to filter and to search: python -m tests.benchmarks.large_report [N ...]

Each description has evidence of the size of a real run's (200 rated texts, 30 written ones, 150 continuations), shared by sixteen, so that the
evidence itself takes no room: what is measured is the writing of rows and cards, and what a browser makes of them.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.made_up import made_up_results, many_results
from tests.report.browser import launched, window

DONE = {
    "all rows": "reading",
    "sort": "sort('clarity', true)",
    "sort by text": "sort('text', false)",
    "filter": "byId('standing').value = 'open', filter()",
    "search": "byId('standing').value = '', byId('search').value = 'number 77', filter()",
    "search again": "byId('search').value = 'number 777', filter()",
}


def main() -> None:
    print(
        "| descriptions | written, s of processor | peak memory, MB | files | all of them, MB | page, kB | first screen, s | "
        + ", s | ".join(DONE)
        + ", s |"
    )
    print("|--:|" + "--:|" * (6 + len(DONE)))
    few = made_up_results(16).items
    for n in [int(word) for word in sys.argv[1:]] or [1000, 10_000, 100_000]:
        results = many_results(n, few)
        with tempfile.TemporaryDirectory() as folder, launched() as browser, window(browser) as opened:
            started = time.process_time()
            path = results.to_html(Path(folder) / "report.html")
            cells: list[object] = [f"{n:,}", f"{time.process_time() - started:.1f}"]
            files = [file for file in Path(folder).rglob("*") if file.is_file()]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            size = sum(file.stat().st_size for file in files) / 1e6
            cells += [
                f"{peak:.0f}",
                f"{len(files):,}",
                f"{size:.1f}",
                f"{path.stat().st_size / 1e3:.0f}",
                f"{opened.open(path):.2f}",
            ]
            for expression in DONE.values():
                started = time.perf_counter()
                opened.run(f"(async () => {{ await ({expression}); return document.body.offsetHeight }})()")
                cells.append(f"{time.perf_counter() - started:.2f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
