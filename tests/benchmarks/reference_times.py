"""The reference in a process of its own, in its own environment, timed part by part."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fade_lens.demo.parts import DATA, gemma_folder


class Reference:
    """Sends jobs to `reference_worker.py` and waits for their times."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def time(self, **job: Any) -> dict[str, float]:
        """Seconds that a job took, by part (see `reference_worker.py`)."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the reference failed: what it printed is above")
        return json.loads(answer)


@contextmanager
def reference(
    python: Path, model: Path | None = None, sae: Path = DATA / "gemma-3-270m-layer9-4k", layer: int = 9
) -> Iterator[Reference]:
    """The reference with the model and SAE in these folders, loaded once: Gemma 3 270M and the demo's SAE unless given."""
    worker = Path(__file__).with_name("reference_worker.py")
    process = subprocess.Popen(
        [python, worker, model or gemma_folder(), sae, str(layer), str(torch.get_num_threads())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        yield Reference(process)
    finally:
        assert process.stdin
        process.stdin.close()
        process.terminate()
        process.wait()
