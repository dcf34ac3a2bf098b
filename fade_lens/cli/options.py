"""What the commands' options mean: how each is explained, and what is opened from it. Heavy imports wait until a command runs."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import names, within
from fade_lens.subject.settings import DEVICES, DTYPES

if TYPE_CHECKING:
    from fade_lens.data.descriptions import Description
    from fade_lens.explainers.table import Explanations
    from fade_lens.judge import Judge

DEMO = "demo"
NEURONPEDIA = "neuronpedia"
SAE_CONFIG = "cfg.json"
"""In the folder of an SAE that SAELens saved."""

Model = Annotated[
    str,
    typer.Option(help="Subject model, by its TransformerLens name (gpt2-small, google/gemma-2-2b), or `demo`."),
    Path,
]
Release = Annotated[str | None, typer.Option(help="SAELens release, such as gpt2-small-res-jb.")]
SaeId = Annotated[str | None, typer.Option(help="SAE within the release, such as blocks.7.hook_resid_pre.")]
SaeFolder = Annotated[Path | None, typer.Option("--sae", help="Folder of an SAE saved by SAELens, or `demo`.")]
Hook = Annotated[
    str | None, typer.Option(help="Hook name in place of an SAE, to score neurons: blocks.3.mlp.hook_post.")
]
Described = Annotated[
    Path | None,
    typer.Option(
        help="CSV, JSON or JSONL with `index` and `description`, or `neuronpedia`: what Neuronpedia has of the SAE's features."
    ),
]
Explain = Annotated[
    str,
    typer.Option(
        help="Who explains: one-shot, or the name of another explainer, such as one that an installed package brings."
    ),
]
Only = Annotated[str | None, typer.Option(help="Only these features of the file, such as 0:200,512.")]
Texts = Annotated[
    str, typer.Option(help="Natural texts: hf:DATASET, a .txt/.jsonl/.json/.csv/.parquet file, or `demo`."), Path
]
Column = Annotated[str, typer.Option(help="Column of the corpus that holds the text.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Read at most this many texts (10,000 of a dataset unless given).")
]
Windows = Annotated[
    bool,
    typer.Option(
        "--corpus-windows", help="Cut texts longer than the context into windows, so that all of them is read."
    ),
]
JudgeSpec = Annotated[
    str,
    typer.Option(
        help="openai:MODEL, ollama:MODEL, http://HOST:PORT/v1#MODEL, gguf:PATH, or `demo`. Keys come from the environment or .env."
    ),
    Path,
]


def run_folder(out: Path) -> Path:
    """A folder for a run. Raises `InputError` for what names a file."""
    from fade_lens.runs.store import SUFFIXES

    if out.suffix in SUFFIXES or out.is_file():
        raise InputError(f"--out is {str(out)!r}, which names a file; give a folder for the run")
    return out


def csv_file(out: Path) -> Path:
    """A file for a table. Raises `InputError` for anything else, before something is paid that could not be written."""
    if out.suffix != ".csv" or out.is_dir():
        raise InputError(f"--out is {str(out)!r}; give a CSV file, such as labels.csv")
    return out


def quiet_libraries(quiet: bool) -> bool:
    """With --quiet, Hugging Face's libraries, which read this when they are imported, show no bars either."""
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet


def known_device(device: str | None) -> str | None:
    """A device of a known kind. Raises `InputError` for another, before torch is imported."""
    if device is not None:
        within("device", device.partition(":")[0], choices=DEVICES)
    return device


def known_dtype(dtype: str | None) -> str | None:
    """A dtype that models are run in. Raises `InputError` for another, before torch is imported."""
    if dtype is not None:
        within("dtype", dtype, choices=DTYPES)
    return dtype


Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the run: run it again with the same folder to go on where it stopped.", callback=run_folder
    ),
]
Rating = Annotated[
    str,
    typer.Option(help="How texts are rated: batched (strong models), single (small ones) or auto."),
]
Writer = Annotated[
    str | None,
    typer.Option(help="Another judge, given likewise, that writes the texts."),
    Path,
]
Concurrency = Annotated[int | None, typer.Option(help="Most requests in flight at once (16; 4 for Ollama and GGUF).")]
RequestsPerMinute = Annotated[float | None, typer.Option(help="Most requests a minute; no limit unless given.")]
TokensPerMinute = Annotated[float | None, typer.Option(help="Most tokens a minute; no limit unless given.")]
MaxCalls = Annotated[
    int | None,
    typer.Option(help="Stop after so many requests; the same command with more goes on."),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        help="Stop before more US dollars than this are spent; the same command with more goes on.",
    ),
]
Price = Annotated[
    str | None,
    typer.Option(
        help="US dollars a million prompt and completion tokens, such as 0.15,0.60; OpenAI's list price unless given.",
    ),
]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="Ask through the server's Batch API: half the price, within a day."),
]
JudgeName = Annotated[
    str | None,
    typer.Option(
        help="What to know the judge by in place of its address: tells two servers apart, or says that they are the same judge.",
    ),
]
JudgePrompts = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with words of your own for the judge: rating, writing, single and others (see `fade_lens.Prompts`).",
    ),
]
SecondJudge = Annotated[
    str | None,
    typer.Option(help="Another judge, given likewise, that rates some texts too: reports Cohen's kappa."),
    Path,
]
Repeats = Annotated[int, typer.Option(help="Times that some texts are rated again: reports Cohen's kappa.")]
Gold = Annotated[
    Path | None,
    typer.Option(help="CSV with concept, text, rating (0, 1, 2): reports how often the judge errs."),
]
Transcripts = Annotated[
    Path | None,
    typer.Option(help="File, or another run's folder, whose judge answers are shared with this run."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; the best there is unless given.", callback=known_device)
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Of the model: float32, bfloat16 or float16; what the SAE asks for, else float32.", callback=known_dtype
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no table.", callback=quiet_libraries)]


def chosen_descriptions(
    path: Path, features: str | None, release: str | None = None, sae_id: str | None = None, folder: Path | None = None
) -> "tuple[Description, ...] | Explanations":
    """The file's descriptions, or Neuronpedia's of the SAE's features, of the features asked for."""
    from fade_lens.data.descriptions import parse_indices, read_descriptions
    from fade_lens.explainers.table import Explanations

    if str(path) == NEURONPEDIA:
        from fade_lens.neuronpedia import descriptions

        indices = None if features is None else parse_indices(features)
        return read_descriptions(descriptions(neuronpedia_source(release, sae_id, folder), indices))
    # A table of explanations has features without a description, too, whose reasons are shown; one that has no other is told.
    found = Explanations.read(path) or read_descriptions(path)
    if features is None:
        return found
    wanted = set(parse_indices(features))
    kept = found.among(wanted) if isinstance(found, Explanations) else tuple(d for d in found if d.index in wanted)
    if not kept:
        raise InputError(f"--features {features!r} names no feature of {path.name}, which describes {len(found)}")
    # A range is a filter and may have gaps; a feature that is named is meant.
    named = ",".join(part for part in features.split(",") if ":" not in part)
    rows = kept.rows if isinstance(kept, Explanations) else kept
    if missing := sorted(set(parse_indices(named) if named else ()) - {row.index for row in rows}):
        raise InputError(
            f"--features {features!r}: {path.name} does not describe {', '.join(map(str, missing))}; "
            "leave them out or describe them"
        )
    return kept


def neuronpedia_source(release: str | None, sae_id: str | None, folder: Path | None) -> str:
    """The Neuronpedia id of the SAE that the options name."""
    from fade_lens.neuronpedia import resolve

    if release and sae_id:
        return str(resolve(release=release, sae_id=sae_id))
    if folder is None:
        raise InputError(
            "which features on Neuronpedia these are is told by an SAE: give --sae-release with --sae-id, or --sae"
        )
    return str(resolve(open_sae(None, None, folder, "cpu")))


def known_ratings(gold: Path | None) -> Any:
    """The gold set of a file, read before anything costly begins."""
    if gold is None:
        return None
    from fade_lens.judge.reliability import read_gold

    return read_gold(gold)


def one_source(release: str | None, sae_id: str | None, folder: Path | None, hook: str | None) -> None:
    """Check that exactly one of SAE release, SAE folder and hook was given, that the hook is no module's path, and that the folder holds an SAE."""
    given = [name for name, value in (("--sae-release", release), ("--sae", folder), ("--hook", hook)) if value]
    if len(given) != 1:
        raise InputError(
            f"give one of --sae-release with --sae-id, --sae or --hook; got {' and '.join(given) or 'none'}"
        )
    if bool(release) != bool(sae_id):
        raise InputError("--sae-release and --sae-id go together; give both")
    if hook:
        from fade_lens.subject.module_paths import check_no_module

        check_no_module(hook)
    if folder is not None and str(folder) != DEMO and not (folder / SAE_CONFIG).is_file():
        what = f"holds no {SAE_CONFIG}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise InputError(f"--sae {str(folder)!r} {what}; give the folder of an SAE that SAELens saved")


def open_judge(spec: str, *, price: str | None = None, **options: Any) -> "Judge":
    """The judge of a spec, `demo` being the embedded one; options that are None are the judge's own."""
    from fade_lens.judge import Judge

    options = {name: value for name, value in options.items() if value is not None}
    if price is not None:
        options["price"] = prices(price)

    if spec == DEMO:
        from fade_lens import demo as parts
        from fade_lens.demo.parts import require

        require("xllamacpp", "The embedded judge")
        return Judge.local(parts.judge_gguf(), **options)
    return Judge.parse(spec, **options)


def open_corpus(spec: str, column: str, limit: int | None, windows: bool) -> Any:
    """The corpus of a spec, `demo` being the demo's."""
    from fade_lens.data.corpus import Corpus

    if spec == DEMO:
        from fade_lens import demo as parts

        return replace(parts.corpus(limit), windows=windows)
    return Corpus.parse(spec, column=column, limit=limit, windows=windows)


def check_subject(
    model: str,
    release: str | None,
    sae_id: str | None,
    folder: Path | None,
    hook: str | None,
    device: str | None,
    dtype: str | None,
) -> dict[str, Any]:
    """What the SAE's config asks of the model, every name, the device and the dtype checked: before weights and before a judge is asked."""
    check_model(model, device, dtype)
    if hook is not None or str(folder) == DEMO:
        return {}
    from fade_lens.subject.loading import read_config

    return read_config(release, sae_id, folder)


def check_hook(model: str, hook: str | None, published: dict[str, Any]) -> int | None:
    """How wide a hook is, or None where an SAE reads it or that cannot be told without weights.

    Raises `InputError` for a hook that the model has not, the SAE's too, or one of another width than the SAE's.
    """
    from fade_lens.subject.outline import check_fits, outline, width_of_hook

    if hook is None and not published.get("hook_name"):
        return None
    if model == DEMO:
        from fade_lens.demo.parts import MODEL_NAME, gemma_folder

        made = outline(MODEL_NAME, gemma_folder())
    else:
        made = outline(model)
    if made is None:
        return None
    check_fits(made, published)
    return None if hook is None else width_of_hook(made, hook)


def check_model(name: str, device: str | None, dtype: str | None) -> None:
    """Raise `InputError` for a model, device or dtype that cannot be, `demo` being the demo's model."""
    if name != DEMO:
        from fade_lens.subject import loading

        loading.check_model(name, device, dtype)
    elif device not in (None, "cpu") or dtype not in (None, "float32"):
        raise InputError(
            f"--model demo runs in float32 on the CPU, not in {dtype or 'float32'} on {device or 'cpu'}; leave out --device and --dtype"
        )


def open_model(name: str, device: str | None, dtype: str | None, published: dict[str, Any] | None = None) -> Any:
    """The subject model, `demo` being the demo's, loaded as an SAE's config asks."""
    check_model(name, device, dtype)
    with redirect_stdout(sys.stderr):  # TransformerLens prints that it has loaded a model, and commands print JSON
        if name == DEMO:
            from fade_lens import demo as parts

            return parts.model()
        from fade_lens.subject.loading import load_model

        return load_model(name, published, device=device, dtype=dtype)


def open_tokenizer(name: str) -> Any:
    """The subject model's tokenizer without its weights, or None where it cannot be read by itself."""
    from fade_lens.subject.loading import load_tokenizer

    if name == DEMO:
        from fade_lens.demo.parts import gemma_folder

        name = str(gemma_folder())
    return load_tokenizer(name)


def check_features(features: Sequence[int] | int | str, n: int | None) -> None:
    """Raise `InputError` for features that an SAE of this width does not have; nothing is checked where the width is not known."""
    if n is not None:
        from fade_lens.data.indices import checked_indices, chosen_indices

        checked_indices(dict.fromkeys(chosen_indices(features, n, 0)), n)


def width_of(folder: Path) -> int | None:
    """How many latents an SAE in a folder has, by its config; None where that cannot be read, as will be told when it is loaded."""
    if str(folder) == DEMO:
        from fade_lens.demo.parts import SAE_FOLDER as folder
    try:
        width = json.loads((folder / SAE_CONFIG).read_text(encoding="utf-8"))["d_sae"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return width if type(width) is int else None


def open_sae(release: str | None, sae_id: str | None, folder: Path | None, device: str) -> Any:
    """The SAE of a release or folder."""
    if str(folder) == DEMO:
        from fade_lens import demo as parts

        return parts.sae()
    from fade_lens.subject.loading import load_sae

    return load_sae(release, sae_id, folder, device=device)


def prices(text: str) -> tuple[float, float]:
    """Prompt and completion price a million tokens.

    >>> prices("0.15,0.60")
    (0.15, 0.6)
    """
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--price {text!r} must be two numbers, prompt and completion, such as 0.15,0.60") from None
    if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
        raise InputError(f"--price {text!r} must not be negative or infinite")
    return prompt, completion


def numbers(name: str, text: str) -> tuple[float, ...]:
    """The numbers of an argument, separated by commas, at least one."""
    try:
        found = tuple(float(part) for part in names(text))
    except ValueError:
        found = ()
    if not found:
        raise InputError(Argument(name), f" is {text!r}; give numbers separated by commas, such as 0.5,1,2")
    return found
