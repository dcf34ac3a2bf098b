"""The README's own shell command, word for word, on stand-ins for what it downloads and for OpenAI."""

from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from datasets.arrow_writer import ArrowWriter
from sae_lens import SAE, HookedSAETransformer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fade_lens.cli import app
from fade_lens.runs.results import Results
from tests.fake_judge import FakeJudge
from tests.families import official
from tests.hub import snapshot
from tests.planted import natural_texts
from tests.readme import shell_lines
from tests.releases import hub_cache, published
from tests.tiny import OTHERS, WORDS

KEY = "sk-SECRET-readme"


def readme_command() -> list[str]:
    """The README's `fade-lens evaluate`, as a shell splits it, without the program's name."""
    return next(line[1:] for line in shell_lines() if line[:2] == ["fade-lens", "evaluate"])


def cache_dataset(cache: Path, name: str, texts: list[str]) -> None:
    """A dataset as the library `datasets` keeps one that it has downloaded."""
    owner, short = name.split("/")
    files = cache / f"{owner}___{short}" / "default" / "0.0.0" / ("0" * 40)
    files.mkdir(parents=True)
    rows = datasets.Dataset.from_dict({"text": texts})
    with ArrowWriter(path=str(files / f"{short}-train.arrow"), features=rows.features) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    split = {"name": "train", "num_bytes": 1, "num_examples": len(texts), "dataset_name": short}
    names = {"builder_name": "parquet", "dataset_name": short, "config_name": "default", "version": "0.0.0"}
    datasets.DatasetInfo(features=rows.features, splits={"train": split}, **names).write_to_directory(str(files))


def activations(model: HookedSAETransformer, sae: SAE, text: str) -> torch.Tensor:
    """The largest activation of every latent on a text, by TransformerLens and SAELens alone."""
    _, cache = model.run_with_cache(text, prepend_bos=True, names_filter=sae.cfg.metadata.hook_name)
    return sae.encode(cache[sae.cfg.metadata.hook_name])[0, 1:].amax(dim=0)


def make_tokens_matter(hub: Path, model: str) -> None:
    """Scale a stand-in's embeddings, so that what is read in its middle depends on the token there more than on the rest."""
    path = snapshot(hub, official(model)) / "model.safetensors"
    weights = load_file(path)
    weights["transformer.wte.weight"] *= 100
    save_file(weights, path, metadata={"format": "pt"})


def labels(model: HookedSAETransformer, sae: SAE) -> dict[int, str]:
    """Three latents of random weights, and the words that they single out."""
    found = torch.stack([activations(model, sae, word) for word in WORDS])
    strongest, second = found.topk(2, dim=0).values
    words = {
        int(latent): WORDS[int(found[:, latent].argmax())] for latent in (strongest - second).argsort(descending=True)
    }
    chosen = [latent for latent, word in words.items() if word not in OTHERS][:3]
    return {latent: f"the word '{words[latent]}'" for latent in chosen}


def writer(concept: str, i: int) -> list[str]:
    """Ten texts with the concept's word."""
    word = concept.split()[-1].strip("'")
    return [f"{OTHERS[(i + at) % len(OTHERS)]} {word} {OTHERS[at]}" for at in range(10)]


def test_the_readmes_command_runs_as_it_stands(tmp_path, monkeypatch, caplog):
    """In an empty folder with a file of labels: exit code 0, activations of the model as the SAE asks for it, and no key."""
    arguments = readme_command()
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    cache_dataset(tmp_path / "datasets", given["--corpus"].removeprefix("hf:"), natural_texts())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    with (
        hub_cache(tmp_path / "hub", [published(given["--sae-release"], given["--sae-id"])]),
        FakeJudge(writer=writer, key=KEY) as openai,
        torch.no_grad(),
    ):
        make_tokens_matter(tmp_path / "hub", given["--model"])
        monkeypatch.setattr("fade_lens.llm.endpoint.OPENAI_URL", openai.base_url)
        sae = SAE.from_pretrained(given["--sae-release"], given["--sae-id"])
        asked = sae.cfg.metadata.model_from_pretrained_kwargs
        assert asked == {"center_writing_weights": True}
        model = HookedSAETransformer.from_pretrained_no_processing(given["--model"], device="cpu", **asked)
        described = labels(model, sae)
        table = pd.DataFrame({"index": described.keys(), "description": described.values()})
        table.to_csv(given["--descriptions"], index=False)
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        results = Results.load(work / given["--out"] / "results.sqlite")
        assert [(result.description.index, result.description.text) for result in results] == [*described.items()]
        for result in results:
            for rated in result.rated_evidence.texts[:20]:
                own = activations(model, sae, rated.text)[result.description.index]
                assert rated.activation == pytest.approx(float(own), rel=1e-4, abs=1e-4)
        assert any(result.faithfulness_evidence.continuations for result in results), (
            "one passes the gate and is steered"
        )
    assert "made for" not in caplog.text and "asks" not in caplog.text
    # A stand-in at another address than OpenAI's has no list price.
    assert "completion tokens, price unknown" in done.output and {body["model"] for body in openai.bodies} == {
        given["--judge"].removeprefix("openai:")
    }
    written = [path for path in (work / given["--out"]).rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"run.sqlite", "results.sqlite", "results.csv", "report.html"}
    assert not any(KEY.encode() in path.read_bytes() for path in written)
