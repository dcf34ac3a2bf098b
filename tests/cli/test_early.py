"""What cannot be used is told before a weight is read, and a dry run reads none."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fade_lens.cli import app
from fade_lens.cli.options import open_model
from fade_lens.runs.fade import Fade
from fade_lens.subject.features import hook_size
from fade_lens.subject.hooks import resolve_hook
from fade_lens.subject.loading import load_model
from fade_lens.subject.outline import outline, width_of_hook
from tests.cli.test_commands import told
from tests.fake_judge import FakeJudge
from tests.hub import gpt2_config, hub, publish_model, snapshot
from tests.planted import planted_sae
from tests.tiny import D_MODEL

__all__ = ["hub"]


@pytest.fixture
def unloaded(hub, tmp_path_factory, monkeypatch):
    """A folder with files for every command, a hub that has a model's config alone, and nothing that reads weights or asks."""
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    gpt2_config(architectures=["GPT2LMHeadModel"]).save_pretrained(snapshot(hub, "gpt2"))
    planted_sae().save_model(folder / "sae")
    for name, change in (("elsewhere", {"hook_name": "blocks.9.hook_resid_post"}), ("wide", {})):
        planted_sae().save_model(folder / name)
        config = json.loads((folder / name / "cfg.json").read_text())
        config["metadata"] |= change
        (folder / name / "cfg.json").write_text(json.dumps(config | ({"d_in": 999} if name == "wide" else {})))
    (folder / "empty").mkdir()
    (folder / "d.json").write_text(json.dumps({"0": "the word new", "1": "a tree"}))
    (folder / "c.txt").write_text("\n".join(f"text {i} of the corpus" for i in range(40)))
    for what in ("cli.subject.open_model", "cli.sanity.open_model", "cli.options.open_sae", "cli.subject.open_sae", "demo.model", "demo.sae", "subject.loading.load_model", "judge.Judge.check"):  # fmt: skip
        monkeypatch.setattr(f"fade_lens.{what}", lambda *_, **__: pytest.fail("a weight is read, or the judge asked"))
    return folder


JUDGED = ["--judge", "openai:gpt-4o-mini", "--corpus", "c.txt", "--out", "o"]
COMMANDS = {
    "evaluate": ["--descriptions", "d.json", *JUDGED],
    "explain": ["--features", "0:2", *JUDGED[:-1], "o.csv"],
    "audit": ["--neuronpedia", "d.json", *JUDGED],
    "look": ["--corpus", "c.txt", "--features", "0"],
    "fires": ["a text"],
    "steer": ["--feature", "0", "--prompt", "a", "--unit", "1"],
    "patchscopes": ["--features", "0"],
    "health": ["--corpus", "c.txt"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (["--model", "gpt2-smal", "--sae", "sae"], "--model 'gpt2-smal' could not be loaded"),
        (["--model", "gpt2", "--sae", "no"], "--sae 'no' does not exist; give the folder of an SAE"),
        (["--model", "gpt2", "--sae", "empty"], "--sae 'empty' holds no cfg.json"),
        (["--model", "gpt2", "--sae", "d.json"], "--sae 'd.json' is a file"),
        (["--model", "gpt2", "--sae", "elsewhere"], "the SAE's hook_name 'blocks.9.hook_resid_post' is not a hook point of gpt2"),
        (["--model", "gpt2", "--sae", "wide"], "The SAE's d_in is 999, but 'blocks.0.hook_resid_post' of gpt2 is 32 wide"),
        (["--model", "gpt2", "--hook", "blocks.1.mlp.hook_pots"], "did you mean 'blocks.1.mlp.hook_post'"),
        (["--model", "gpt2", "--sae-release", "gpt2-small-res-j", "--sae-id", "x"], "did you mean 'gpt2-small-res-jb'"),
        (["--model", "gpt2", "--sae-release", "gpt2-small-res-jb", "--sae-id", "blocks.7.hook_resid_pr"], "did you mean 'blocks.7.hook_resid_pre'"),
    ],
)  # fmt: skip
def test_a_wrong_model_sae_or_hook_is_told_first(unloaded, monkeypatch, capsys, command, subject, message):
    if command == "health" and "--hook" in subject:
        message = "only SAEs have health"
    code, said = told(monkeypatch, capsys, command, *COMMANDS[command], *subject)
    assert code == 2 and message in said, said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_or_dtype_that_is_none_is_told_without_torch(command, tmp_path):
    for option, value in (("device", "gpu"), ("dtype", "float17")):
        asked = [command, "--model", "gpt2", "--sae", "sae", *COMMANDS[command], f"--{option}", value]
        code = f"import sys; from fade_lens.cli import main; sys.argv[1:] = {asked!r}\ntry: main()\nfinally: assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and f"--{option} is '{value}'; give one of" in done.stderr, done.stderr


def test_what_libraries_print_while_they_load_is_no_part_of_the_output(monkeypatch, capsys):
    monkeypatch.setattr("fade_lens.demo.model", lambda: sys.stdout.write("Loaded\n"))
    open_model("demo", None, None)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Loaded\n")


def test_quiet_is_known_to_libraries_that_have_bars_of_their_own(unloaded, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    told(monkeypatch, capsys, "look", "--quiet", *COMMANDS["look"], "--model", "gpt2", "--sae", "no")
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"


def test_the_nearest_name_is_offered_first_and_no_list_is_quoted(unloaded, monkeypatch, capsys):
    _, said = told(
        monkeypatch, capsys, "look", "--model", "gpt2-smal", "--corpus", "c.txt", "--sae", "sae", "--features", "0"
    )
    assert "did you mean 'gpt2-small'" in said and len(said) < 300


def test_features_beyond_a_hook_are_told_by_its_width(unloaded, monkeypatch, capsys):
    hook = ["--model", "gpt2", "--hook", "blocks.1.mlp.hook_post"]
    code, said = told(monkeypatch, capsys, "look", "--corpus", "c.txt", *hook, "--features", "128")
    assert code == 2 and "128" in said and "127" in said, said


@pytest.mark.parametrize("subject", [["--sae", "sae"], ["--hook", "blocks.1.mlp.hook_post"]])
def test_a_dry_run_reads_no_weights_and_tells_what_a_run_would(unloaded, subject):
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--model", "gpt2", *subject, "--dry-run"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    assert said("evaluate", *COMMANDS["evaluate"]).startswith("2 descriptions: ")
    assert said("explain", *COMMANDS["explain"]).startswith("2 features: ")
    nulls = said("evaluate", *COMMANDS["evaluate"], "--nulls", "shuffled")
    assert nulls != said("evaluate", *COMMANDS["evaluate"])
    assert "to score: " in said("audit", *COMMANDS["audit"])
    assert not (unloaded / "o").exists()


def test_the_demos_dry_run_reads_no_weights(unloaded, monkeypatch):
    monkeypatch.setattr("fade_lens.demo.parts.check_extra", lambda: None)
    with FakeJudge() as server:
        done = CliRunner().invoke(app, ["demo", "--dry-run", "--judge", f"{server.base_url}#m"], catch_exceptions=False)
        assert "4 descriptions: " in done.output and server.requests == 0
    assert not (unloaded / "fade-lens-demo").exists()


@pytest.mark.parametrize("name", ["gpt2", "org/some-qwen3"])
def test_a_model_without_weights_has_the_hooks_and_widths_of_the_model(hub, name):
    from transformers import Qwen3Config

    from tests.hub import SIZES

    publish_model(hub, name, gpt2_config() if name == "gpt2" else Qwen3Config(**SIZES))
    known, made = load_model(name, device="cpu"), outline(name)
    assert made is not None and {*made.hook_dict} == {*known.hook_dict}
    assert {parameter.device.type for parameter in made.parameters()} == {"meta"}
    hooks = ["hook_resid_pre", "attn.hook_z", "hook_mlp_in", "mlp.hook_in", "hook_attn_out", "mlp.hook_post"]
    widths = {hook: width_of_hook(made, f"blocks.1.{hook}") for hook in hooks}
    assert widths == {hook: hook_size(known, resolve_hook(known, f"blocks.1.{hook}")) for hook in hooks}
    assert widths["hook_resid_pre"] == D_MODEL


def test_a_model_whose_config_cannot_be_read_is_told_when_it_is_loaded(hub):
    assert outline("gpt2") is None and outline("org/none") is None


def test_an_estimate_is_the_same_with_and_without_the_model():
    from fade_lens import Corpus, Judge, Settings
    from fade_lens.runs.estimating import estimate_run
    from tests.planted import TRUE, planted_model

    with FakeJudge() as server:
        judge, texts = Judge("m", base_url=server.base_url), Corpus.from_texts([f"text {i}" for i in range(50)])
        fade = Fade(planted_model(), planted_sae(), corpus=texts, judge=judge)
        for asked in ({}, {"nulls": ("random",)}, {"explainer": "one-shot", "baselines": ("permuted", "random")}):
            given = "0:3" if "explainer" in asked else TRUE
            chosen = [0, 1, 2] if "explainer" in asked else TRUE
            without = estimate_run(judge, Settings(), texts, chosen, fade.n_features, **asked)
            assert str(fade.estimate(given, **asked)) == str(without)
