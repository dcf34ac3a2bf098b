"""A folder of descriptions of the demo's SAE in Neuronpedia's bulk format, with known faults among them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd

from fade_lens import demo

ID = ("gemma-3-270m", "9-fade-lens-demo-4k")
CONTEXTS = Path(__file__).parent / "assets" / "demo_contexts.jsonl"

SWAPPED = ((4005, 951), (98, 3450), (3361, 417))
WRONG = {
    2141: "recipes and cooking instructions",
    148: "names of chemical elements",
    3521: "legal contracts",
    2329: "mentions of dogs",
}
LEAKED = {
    216: "The user wants a short phrase. MAX_ACTIVATING_TOKENS are mostly dashes. Self-correction: no quotation marks",
    3647: "Okay, let's look at the texts: they all mention the U.S. government",
    1658: "<think>The top activating texts all hold a title</think> Mr.",
}
MISSING = (3906, 418)
EMPTY = {2992: "", 1245: "N/A"}
DUPLICATES = {
    3609: "C preprocessor #include lines in Python files",
    611: "C preprocessor #include lines in Python files",
}
SECOND = {625: "mentions of dogs"}
"""A second, worse description of a latent that has a good one."""
PLANTED: dict[str, tuple[int, ...]] = {
    "swapped": tuple(index for pair in SWAPPED for index in pair),
    "wrong": tuple(WRONG),
    "prompt_leak": tuple(LEAKED),
    "missing": MISSING,
    "empty": tuple(EMPTY),
    "duplicate_description": tuple(DUPLICATES),
}


def labels() -> list[tuple[int, str]]:
    """Index and text of every description in the folder."""
    true = {d.index: d.text for d in demo.descriptions()}
    for one, other in SWAPPED:
        true[one], true[other] = true[other], true[one]
    true |= WRONG | LEAKED | EMPTY | DUPLICATES
    return [*((index, text) for index, text in true.items() if index not in MISSING), *SECOND.items()]


def build(folder: Path) -> Path:
    """Write the folder: explanations, features, activations and source.jsonl as the bulk data has them."""
    rows = [
        {
            "id": f"demo-{n}",
            "modelId": ID[0],
            "layer": ID[1],
            "index": str(index),
            "authorId": "demo",
            "description": text,
            "embedding": "[0.0,0.1]",
            "typeName": "oai_token-act-pair",
            "explanationModelName": "gpt-4o-mini" if n % 7 else "gemini-2.0-flash",
        }
        for n, (index, text) in enumerate(labels())
    ]
    indices = sorted({row["index"] for row in rows} | set(map(str, MISSING)))
    write(folder / "explanations" / "batch-0.jsonl.gz", rows[::2])
    write(folder / "explanations" / "batch-10.jsonl.gz", rows[1::2])
    write(folder / "features" / "batch-0.jsonl.gz", [{"modelId": ID[0], "layer": ID[1], "index": i} for i in indices])
    write(folder / "activations" / "batch-0.jsonl.gz", [json.loads(line) for line in CONTEXTS.read_text().splitlines()])
    config = {"d_in": 640, "d_sae": 4096, "hook_name": "blocks.9.hook_resid_post"}
    (folder / "source.jsonl").write_text(
        json.dumps({"modelId": ID[0], "id": ID[1], "saelensConfig": json.dumps(config)}) + "\n"
    )
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))


def misses(table: pd.DataFrame) -> list[str]:
    """What was planted and is not named by an audit's table."""
    found: list[str] = []

    def check(index: int, good: bool, what: str) -> None:
        if not good:
            rows = table[table["index"] == index][["verdict", "clarity", "better_feature", "flags"]].to_dict("records")
            found.append(f"{index} is not named as {what}: {rows}")

    by_index = {int(row["index"]): row for row in table.to_dict("records") if row["explanation_id"] != second_id(table)}
    for kind, indices in PLANTED.items():
        for index in indices:
            row = by_index[index]
            flags = str(row["flags"])
            if kind == "swapped":
                partner = next(b if a == index else a for a, b in SWAPPED if index in (a, b))
                check(
                    index, row["verdict"] == "swapped" and row["better_feature"] == partner, f"swapped with {partner}"
                )
            elif kind == "wrong":
                check(index, row["verdict"] in ("fails", "mislabelled"), "wrong")
            else:
                check(index, kind in flags, kind)
    for index in SECOND:
        best = {str(name) for name in table[table["index"] == index]["suggested_best_explanation_id"]}
        good = str(by_index[index]["explanation_id"])
        check(index, best == {good}, f"best described by {good}")
    return found


def second_id(table: pd.DataFrame) -> str:
    """The id of the planted second description."""
    second = table[table["description"].isin(list(SECOND.values())) & table["index"].isin(list(SECOND))]
    return str(second["explanation_id"].iloc[0])
