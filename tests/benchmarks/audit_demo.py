"""An audit of the demo's SAE whose faults are known: a bulk-format folder with planted ones, and what the audit makes of it.

python -m tests.benchmarks.audit_demo FOLDER     writes the folder, runs the audit on it with the embedded judge, says what it found
python -m tests.benchmarks.audit_demo --contexts computes tests/assets/demo_contexts.jsonl anew
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from fade_lens import demo
from tests.demo_rules import rule, writer
from tests.fake_judge import FakeJudge
from tests.planted_faults import CONTEXTS, ID, PLANTED, SECOND, build, misses


def contexts(n: int = 12) -> None:
    """Compute stored contexts of some latents in the plain way, from texts on which they fire."""
    import torch

    model, sae = demo.model(), demo.sae()
    tokenizer: Any = model.tokenizer
    wanted = [d.index for d in demo.descriptions()][:n]
    found: dict[int, dict[str, Any]] = {}
    for text in demo.corpus(800).texts or ():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:40]
        if len(ids) < 8:
            continue
        _, cache = model.run_with_cache(
            torch.tensor([[tokenizer.bos_token_id, *ids]]),
            names_filter=["blocks.9.hook_resid_post"],
            stop_at_layer=10,
            return_type=None,
        )
        with torch.no_grad():
            acts = sae.encode(cache["blocks.9.hook_resid_post"])[0, 1:, wanted]
        for column, index in enumerate(wanted):
            values = [round(v, 3) for v in acts[:, column].tolist()]
            if max(values) > max(found.get(index, {}).get("values", [0.5])):
                tokens = tokenizer.convert_ids_to_tokens(ids)
                found[index] = {
                    "index": str(index),
                    "modelId": ID[0],
                    "layer": ID[1],
                    "tokens": tokens,
                    "values": values,
                    "maxValue": max(values),
                }
    CONTEXTS.write_text("".join(json.dumps(found[index]) + "\n" for index in wanted if index in found))
    print(f"{len(found)} contexts")


SMALL = ["--corpus-limit", "600", "--rated-texts", "24", "--synthetic-texts", "6", "--no-faithfulness"]
RULED = ["--corpus-limit", "500", "--rated-texts", "60", "--synthetic-texts", "10", "--no-faithfulness"]


def main(folder: Path, judge: str = "demo") -> None:
    """Build, audit, compare."""
    started = time.monotonic()
    if judge == "rule":
        os.environ["FADE_LENS_API_KEY"] = "sk-made-up"
        with FakeJudge(rule=rule, writer=writer) as server:
            run(folder, f"{server.base_url}#rule", RULED)
    else:
        run(folder, judge, SMALL)
    table = pd.read_json(folder / "run" / "audit.jsonl", lines=True)
    missed = misses(table)
    planted = {index for indices in (*PLANTED.values(), SECOND) for index in indices}
    blamed = table[
        table["verdict"].isin(["swapped", "mislabelled", "fails", "unusable"]) & ~table["index"].isin(planted)
    ]
    print(
        f"{time.monotonic() - started:.0f} s; of {len(planted)} features with a planted fault {len(planted) - len(missed)} are named"
    )
    print(f"{len(blamed)} of {len(table) - len(planted)} others are blamed: {blamed['index'].tolist()}")
    print("\n".join(missed))


def run(folder: Path, judge: str, sizes: list[str]) -> None:
    """The command, as a user gives it."""
    from typer.testing import CliRunner

    from fade_lens.cli import app

    command = [
        "audit", "--model", "demo", "--sae", "demo", "--neuronpedia", str(build(folder / "bulk")), "--corpus", "demo",
        "--judge", judge, "--out", str(folder / "run"), *sizes,
    ]  # fmt: skip
    print(CliRunner().invoke(app, command, catch_exceptions=False).output)


if __name__ == "__main__":
    contexts() if sys.argv[1] == "--contexts" else main(Path(sys.argv[1]), *sys.argv[2:])
