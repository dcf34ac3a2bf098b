"""All four metrics end to end against the reference: same model, SAE, texts and judge, greedy decoding, clamp steering.

    python -m tests.benchmarks.parity --python REFERENCE_ENV/bin/python     an environment with fade-language
    python -m tests.benchmarks.parity                                       makes one (pip, a temporary folder)

Both packages ask one server, which rates by a rule (`tests.fake_judge.mentions`) and writes a fixed list of texts. Fails above
1e-9. `--write` stores the reference's numbers in `tests/assets/parity_golden.json` beside the case they belong to (some of its
descriptions are wrong on purpose); `tests/runs/test_parity.py` reads them.

What makes the two comparable: here `preset="paper"`; all texts are rated and all are prompts; the latents are silent on BOS, which the
reference would count; the SAE stands in the reference's model with its error term; special tokens are never generated (see
`reference_run.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fade_lens import demo
from fade_lens.demo.parts import DATA, gemma_folder
from fade_lens.subject.hooks import Model, textless_tokens
from tests.benchmarks.parity_metrics import REFERENCE, environment
from tests.parity_case import GOLDEN, METRICS, Agreement, Record, judge, ours

TOLERANCE = 1e-9


def reference(python: Path, case: Record, model: Model, base_url: str) -> list[Record]:
    """What the reference finds for each description, in its own environment."""
    job = case | {
        "model": str(gemma_folder()),
        "sae": str(DATA / "gemma-3-270m-layer9-4k"),
        "layer": 9,
        "base_url": base_url,
        "never_generated": textless_tokens(model, int(model.cfg.d_vocab)).tolist(),
    }
    done = subprocess.run(
        [python, Path(__file__).with_name("reference_run.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        sys.exit(f"the reference failed:\n{done.stderr}")
    return json.loads(done.stdout)


def show(found: list[Record], expected: list[Record], agreements: list[Agreement]) -> None:
    """One table: each score as `here (difference)`."""
    print(f"{'latent':>6}  {'description':24}" + "".join(f"{name:>20}" for name in METRICS) + "   activations  texts")
    for one, agreement in zip(found, agreements, strict=True):
        cells = []
        for name in METRICS:
            value = "undefined" if one[name] is None else f"{one[name]:.6f}"
            cells.append(f"{value} ({agreement.scores[name]:.0e})")
        print(
            f"{one['latent']:6}  {one['concept']:24}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"   {agreement.activations:11.1e}  {agreement.identical}/{agreement.continuations}"
        )


def rounded(expected: list[Record]) -> list[Record]:
    """As stored: activations with the digits that two implementations share."""
    return [
        r
        | {"natural": [round(a, 2) for a in r["natural"]], "written": {t: round(a, 2) for t, a in r["written"].items()}}
        for r in expected
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that holds fade-language")
    parser.add_argument("--write", action="store_true", help=f"store the reference's numbers in {GOLDEN.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    case = json.loads(GOLDEN.read_text())["case"]
    model, sae = demo.model(), demo.sae()
    with tempfile.TemporaryDirectory() as folder, judge(case) as base_url:
        python = arguments.python or environment(folder)
        started = time.perf_counter()
        found = ours(case, model, sae, base_url)
        between = time.perf_counter()
        expected = reference(python, case, model, base_url)
    print(f"fade_lens {between - started:.0f} s, {REFERENCE} {time.perf_counter() - between:.0f} s (loading included)")
    agreements = [Agreement.of(*pair) for pair in zip(found, expected, strict=True)]
    show(found, expected, agreements)
    if arguments.write:
        golden = {"source": REFERENCE, "case": case, "reference": rounded(expected)}
        GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    if max(max(agreement.scores.values()) for agreement in agreements) > TOLERANCE:
        sys.exit(f"a score differs from the reference's by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
