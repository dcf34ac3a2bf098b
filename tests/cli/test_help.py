"""Help fits a screen of 80 columns, names whole, by theme; shells are offered values."""

import re
import sys

import pytest
from typer.testing import CliRunner

from fade_lens.cli import COMMANDS, app, completion, main
from fade_lens.cli.completion import COMPLETIONS, saes


def help_of(*command: str, columns: int = 80) -> list[str]:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0
    return done.output.splitlines()


EVERY = [(), ("judge",), ("judge", "log"), *((one.__name__,) for one in COMMANDS)]


@pytest.mark.parametrize("command", EVERY)
def test_help_fits_80_columns_and_cuts_no_name(command):
    lines = help_of(*command)
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    # An option that a line ends within would end in a hyphen.
    assert not [line for line in lines if line.rstrip().endswith("-")]
    assert not re.search(r"<(list\[|\w+ range)", "\n".join(lines)), "kinds are in plain words"


def test_every_option_stands_in_help_under_a_theme():
    from fade_lens.cli import whole

    evaluate = next(one for one in COMMANDS if one.__name__ == "evaluate")
    lines, section, found = help_of("evaluate"), "", {}
    for line in lines:
        section = line if re.fullmatch(r"\S.*:", line) else section
        if name := re.match(r"  (?:-\w, )?(--[\w-]+)", line):
            found[name[1]] = section
    flags = {next(one for one in param.opts if one.startswith("--")) for param in whole(evaluate).params}
    assert flags <= found.keys()
    wanted = {"--model": "Subject:", "--corpus": "Natural texts:", "--descriptions": "Descriptions:", "--scorers": "Scores:", "--judge": "Judge:", "--max-cost": "Judge:", "--out": "Output:", "--dry-run": "Output:", "--config": "Output:", "--seed": "Settings: subject:", "--rated-texts": "Settings: rating:", "--fuzzing-mark": "Settings: fuzzing:"}  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert [name for name, title in found.items() if title == "Options:"] == ["--help"]


def test_a_narrow_or_wide_screen_has_help_too():
    assert max(map(len, help_of("evaluate", columns=300))) <= 80 and help_of("evaluate", columns=1)


def test_the_version_is_told():
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).output == f"fade-lens {version('fade-lens')}\n"


def completions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str) -> list[str]:
    """What bash is offered for what was typed."""
    monkeypatch.setattr(sys, "argv", ["fade-lens"])
    monkeypatch.setenv("_FADE_LENS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fade-lens eval", {"evaluate"}),
        ("fade-lens evaluate --sae-rel", {"--sae-release"}),
        ("fade-lens evaluate --scorers fade,fu", {"fade,fuzzing"}),
        ("fade-lens explain --explainer one", {"one-shot"}),
        ("fade-lens evaluate --preset pa", {"paper"}),
        ("fade-lens evaluate --baselines perm", {"permuted"}),
        ("fade-lens evaluate --mode cl", {"clamp"}),
        ("fade-lens evaluate --sae-release gpt2-small-res-jb-", {"gpt2-small-res-jb-feature-splitting"}),
        ("fade-lens release gpt2-small-res-jb-", {"gpt2-small-res-jb-feature-splitting"}),
    ],
)
def test_a_shell_is_offered_commands_options_and_values(monkeypatch, capsys, typed, offered):
    assert set(completions(monkeypatch, capsys, typed)) == offered


def test_the_saes_of_the_release_are_offered():
    class Given:
        params: dict = {"sae_release": "gpt2-small-res-jb"}  # noqa: RUF012

    assert saes(Given(), "blocks.7.") == ["blocks.7.hook_resid_pre"]
    Given.params = {}
    assert saes(Given(), "") == []


def test_without_sae_lens_no_release_is_offered(monkeypatch):
    monkeypatch.setattr("fade_lens.cli.completion.find_spec", lambda _: None)
    completion.listed.cache_clear()
    try:
        assert COMPLETIONS["sae_release"]("") == []
    finally:
        completion.listed.cache_clear()
