"""Frames of whole runs, kept before a change of the code's shape and compared exactly after it.

    python -m tests.benchmarks.golden FOLDER          # keep, or compare with what FOLDER has
    python -m tests.benchmarks.golden FOLDER --real   # with the demo's model and SAE too (some minutes)

A rule-based judge, a tiny model with planted features (and the demo's SAE); every metric, controls, null descriptions, both presets,
several descriptions a feature, an audit and a comparison. Numbers are compared to the last bit, so both must be run on one machine.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fade_lens import Fade, Judge, Results, compare
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, natural_texts, planted_model, planted_sae, rule, writer

PAPER: dict[str, Any] = {"arithmetic": "paper", "interval_width": None, "reference_quantile": 1.0, "fluency_prompts": 0}
SMALL: dict[str, Any] = {
    "prompts": 12,
    "prompt_tokens": 4,
    "new_tokens": 6,
    "rated_texts": 120,
    "synthetic_texts": 20,
}
LEFT_OUT = ("judge_cost",)


def frames_of(name: str, results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Everything of a run that is a table."""
    yield f"{name}.frame", results.frame.drop(columns=[c for c in LEFT_OUT if c in results.frame])
    yield f"{name}.summary", named(results.summary())
    for result in results:
        evidence = {
            "rated": [[t.number, t.activation, t.inclusion, t.rating] for t in result.rated_evidence.texts],
            "synthetic": [[t.text, t.activation] for t in result.clarity_evidence.texts],
            "steered": [[c.factor, c.text, c.rating] for c in result.faithfulness_evidence.continuations],
        }
        for kind, rows in evidence.items():
            yield f"{name}.{result.description.id}.{kind}", pd.DataFrame(rows)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """A summary with the null description in the metric's name, as it was when the folder was kept."""
    null, _ = frame.pop("null"), frame.pop("baseline")
    frame["metric"] = [
        m if kind is None else f"{m} - null:{kind}" for m, kind in zip(frame["metric"], null, strict=True)
    ]
    return frame


def tiny() -> Iterator[tuple[str, pd.DataFrame]]:
    """Planted features of a tiny model."""
    model, sae, texts = planted_model(), planted_sae(), natural_texts()
    several = pd.DataFrame({"index": [0, 0, 1, 2], "description": [TRUE[0], "river names", TRUE[1], TRUE[2]]})
    with FakeJudge(rule=rule, writer=writer) as server, tempfile.TemporaryDirectory() as folder:
        judge = Judge("planted", base_url=server.base_url, api_key="sk-made-up")
        nulls = ("shuffled", "random", "generic")
        plain = Fade(model, sae, corpus=texts, judge=judge, controls=("ablate", "random_direction", "other"), **SMALL)
        found = {
            "several": plain.evaluate(several, nulls=nulls, repeats=1, progress=False, store=Path(folder) / "a"),
            "shuffled": plain.evaluate(SHUFFLED, progress=False),
            "paper": Fade(model, sae, corpus=texts, judge=judge, **PAPER, **SMALL).evaluate(TRUE, progress=False),
            "clamp": Fade(model, sae, corpus=texts, judge=judge, mode="clamp", **SMALL).evaluate(TRUE, progress=False),
            "neurons": Fade(model, "blocks.0.mlp.hook_post", corpus=texts, judge=judge, gate=None, **SMALL).evaluate(
                TRUE, progress=False
            ),
        }
        judge.close()
    for name, results in found.items():
        yield from frames_of(name, results)
    comparison = compare(found["several"], found["shuffled"])
    yield "comparison.frame", named(comparison.frame)
    yield "comparison.paired", comparison.paired.drop(columns=["paired", "n_b", "further"]).rename(columns={"n_a": "n"})


def real() -> Iterator[tuple[str, pd.DataFrame]]:
    """Six latents of the demo's SAE, one of them described wrongly, and an audit of 48 labels."""
    from typer.testing import CliRunner

    from fade_lens import demo
    from fade_lens.cli import app
    from tests import demo_rules
    from tests.benchmarks.audit_demo import build

    described = {d.index: d.text for d in demo.descriptions()[:6]} | {951: 'the word "here"'}
    with (
        FakeJudge(rule=demo_rules.rule, writer=demo_rules.writer) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name)
        judge = Judge("rules", base_url=server.base_url, api_key="sk-made-up")
        settings = SMALL | {"new_tokens": 16, "prompt_tokens": 12}
        fade = Fade(demo.model(), demo.sae(), corpus=demo.corpus(600), judge=judge, **settings)
        yield from frames_of("real", fade.evaluate(described, progress=False, nulls=("shuffled",)))
        judge.close()
        command = [
            "audit", "--model", "demo", "--sae", "demo", "--neuronpedia", str(build(folder / "bulk")), "--corpus", "demo",
            "--corpus-limit", "500", "--judge", f"{server.base_url}#rule", "--out", str(folder / "run"), "--rated-texts", "60",
            "--synthetic-texts", "10", "--no-faithfulness", "--quiet",
        ]  # fmt: skip
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        yield "audit", pd.read_parquet(folder / "run" / "audit.parquet").drop(columns=list(LEFT_OUT), errors="ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept, differ = 0, 0
    for made in (tiny, *((real,) if options.real else ())):
        for name, frame in made():
            now = json.loads(json.dumps(frame.astype(object).where(frame.notna(), None).to_dict("list"), default=str))
            path = options.folder / f"{name.replace('/', '_')}.json"
            if not path.exists():
                path.write_text(json.dumps(now), encoding="utf-8")
                kept += 1
                continue
            before = json.loads(path.read_text(encoding="utf-8"))
            for column in sorted({*before, *now}):
                if before.get(column) != now.get(column):
                    differ += 1
                    print(f"{name}: {column}: was {str(before.get(column))[:300]}, is {str(now.get(column))[:300]}")
    print(f"{kept} frames kept" if kept else f"{differ} columns differ")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
