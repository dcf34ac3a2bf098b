"""`arithmetic="paper"` against the reference's own functions, on the same numbers.

    python tests/benchmarks/parity_metrics.py --python REFERENCE_ENV/bin/python     an environment with fade-language
    python tests/benchmarks/parity_metrics.py                                       makes one (pip, a temporary folder)

Prints the largest difference of each metric and fails above 1e-9. `--write` stores cases and reference values as
`tests/assets/reference_golden.json`, which `tests/metrics/test_metrics.py` reads.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from fade_lens.metrics.fade import clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness

GOLDEN = Path(__file__).parents[1] / "assets" / "reference_golden.json"
REFERENCE = "fade-language==0.1.2"
TOLERANCE = 1e-9

# Runs in the reference's environment: cases as JSON on stdin, its values as JSON on stdout.
WORKER = """
import json, sys
import torch
from fade.results import faithfulness_metric, gini_ap_metric

values = []
for case in json.load(sys.stdin):
    if case["kind"] == "clarity":
        natural, synthetic = (torch.tensor(case[key], dtype=torch.float64) for key in ("natural", "synthetic"))
        values.append({"clarity": gini_ap_metric(natural, synthetic)[0]})
    elif case["kind"] == "rated":
        activations, ratings = torch.tensor(case["activations"], dtype=torch.float64), torch.tensor(case["ratings"])
        gini, ap = gini_ap_metric(activations[ratings == 0], activations[ratings == 2])
        values.append({"responsiveness": gini, "purity": ap})
    else:
        rated = {float(f): {str(i): r for i, r in enumerate(row) if r >= 0} for f, row in case["ratings"].items()}
        values.append({"faithfulness": float(faithfulness_metric(rated)[0])})
json.dump(values, sys.stdout)
"""


def cases() -> list[dict]:
    """Seeded cases: continuous and tied values, mostly silent features, anti-aligned ones, few texts, unrated continuations."""
    rng = np.random.default_rng(0)

    def activations(kind: str, shift: np.ndarray) -> list[float]:
        noise = rng.normal(size=len(shift))
        value = {
            "dense": noise + shift,
            "silent": np.maximum(noise + shift - 1.5, 0),
            "tied": np.round(noise + shift),
            "anti": noise - shift,
            "constant": np.ones(len(shift)),
        }[kind]
        return value.round(6).tolist()

    out: list[dict] = []
    for kind in ("dense", "silent", "tied", "anti", "constant"):
        for positives, negatives in ((1, 1), (3, 40), (15, 60)):
            shift = np.repeat([1.0, 0.0], [positives, negatives])
            values = activations(kind, shift)
            out.append({"kind": "clarity", "synthetic": values[:positives], "natural": values[positives:]})
            ratings = np.concatenate([np.repeat([2, 0], [positives, negatives]), [1, 1, -1]])
            values = activations(kind, np.append(shift, [0.5, 0.5, 0.0]))
            order = rng.permutation(len(ratings))
            out.append(
                {"kind": "rated", "activations": np.array(values)[order].tolist(), "ratings": ratings[order].tolist()}
            )
    for expressing in (
        [0.0] * 7,
        [0.05] * 7,
        [0.1, 0.1, 0.2, 0.1, 0.4, 0.6, 0.9],
        [0.9, 0.8, 0.5, 0.2, 0.1, 0.0, 0.0],
        [0.0, 0.0, 1.0 / 3, 0, 0, 0, 0],
    ):
        for unrated in (0.0, 0.1):
            ratings = {}
            for factor, p in zip((-50, -10, -1, 0, 1, 10, 50), expressing, strict=True):
                row = np.where(rng.random(50) < p, 2, rng.integers(0, 2, 50))
                ratings[str(float(factor))] = np.where(rng.random(50) < unrated, -1, row).tolist()
            out.append({"kind": "faithfulness", "ratings": ratings})
    return out


def ours(case: dict) -> dict[str, float | None]:
    """The values of `arithmetic="paper"` for one case."""
    if case["kind"] == "clarity":
        synthetic, natural = (np.array(case[key], dtype=np.float64) for key in ("synthetic", "natural"))
        return {"clarity": clarity(synthetic, natural, arithmetic="paper").value}
    if case["kind"] == "rated":
        texts = np.array(case["activations"], dtype=np.float64), np.array(case["ratings"])
        return {
            "responsiveness": responsiveness(*texts, arithmetic="paper").value,
            "purity": purity(*texts, arithmetic="paper").value,
        }
    ratings = {float(factor): np.array(row) for factor, row in case["ratings"].items()}
    return {"faithfulness": faithfulness(ratings, arithmetic="paper").value}


def reference(python: Path, given: list[dict]) -> list[dict[str, float]]:
    """The reference's values, computed by its own functions in its own environment."""
    done = subprocess.run([python, "-c", WORKER], input=json.dumps(given), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the reference failed:\n{done.stderr}")
    return json.loads(done.stdout)


def environment(folder: str | Path, *packages: str) -> Path:
    """A fresh virtual environment; returns its interpreter.

    It holds the reference, or the packages that are named: these without their dependencies, which are taken from this environment.
    """
    venv.create(folder, with_pip=True)
    python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *(("--no-deps", *packages) if packages else (REFERENCE,))],
        check=True,
    )
    if packages:
        own = next(Path(folder).rglob("site-packages"))
        (own / "lent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that holds fade-language")
    parser.add_argument("--write", action="store_true", help=f"store the golden values in {GOLDEN.name}")
    arguments = parser.parse_args()
    given = cases()
    with tempfile.TemporaryDirectory() as folder:
        expected = reference(arguments.python or environment(folder), given)

    worst: dict[str, tuple[float, int]] = {}
    for case, theirs in zip(given, expected, strict=True):
        for name, value in ours(case).items():
            difference, n = worst.get(name, (0.0, 0))
            worst[name] = (max(difference, np.inf if value is None else abs(value - theirs[name])), n + 1)
    for name, (difference, n) in worst.items():
        print(f"{name:15} {n:3} cases   largest difference {difference:.1e}")
    if arguments.write:
        GOLDEN.parent.mkdir(exist_ok=True)
        records = [{"case": case, "reference": theirs} for case, theirs in zip(given, expected, strict=True)]
        GOLDEN.write_text(json.dumps({"source": REFERENCE, "records": records}, separators=(",", ":")) + "\n")
    if max(difference for difference, _ in worst.values()) > TOLERANCE:
        sys.exit(f"its arithmetic differs from the reference by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
