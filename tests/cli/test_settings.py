"""Every setting is an option, made of its dataclass: name, help, default, how None and tuples are written."""

import re
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
import typer
from typer.testing import CliRunner

from fade_lens import Settings
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import option
from fade_lens.cli import app, as_option, whole
from fade_lens.cli.audit import audit
from fade_lens.cli.evaluate import evaluate
from fade_lens.cli.explain import explain
from fade_lens.cli.settings import RunSettings
from fade_lens.runs.settings import every_setting
from fade_lens.scorers.base import REGISTRY, Scorer, scorer
from fade_lens.subject.settings import SubjectSettings


def flags_of(command) -> dict[str, typer.core.TyperOption]:
    return {option: parameter for parameter in whole(command).params for option in parameter.opts}


def given(**options) -> dict:
    """What the settings of `evaluate` come to where these texts follow their flags."""
    parameters = {p.name: p.default for p in RunSettings.options()}
    assert set(options) <= set(parameters)
    return RunSettings.of(parameters | options).given


@pytest.mark.parametrize("command", [evaluate, audit])
def test_every_setting_has_a_flag(command):
    flags = flags_of(command)
    for setting in fields(every_setting(installed=True)):
        flag = flags[f"--{setting.name.replace('_', '-')}"]
        first = setting.metadata["help"].split(". ")[0].rstrip(".")
        assert flag.help is not None and flag.help.startswith(first) and flag.show_default
    assert {f"--{setting.name.replace('_', '-')}" for setting in fields(Settings)} <= set(flags)


def test_explain_has_the_settings_of_the_subject_and_of_explainers_alone():
    flags = flags_of(explain)
    assert {"--seed", "--context", "--showing"} <= set(flags) and not {"--gate", "--rated-texts", "--preset"} & set(
        flags
    )


def test_a_default_stands_in_help_as_one_would_write_it():
    shown = {setting.name: str(flags_of(evaluate)[f"--{setting.name.replace('_', '-')}"].show_default) for setting in fields(Settings)}  # fmt: skip
    assert (shown["rated_texts"], shown["interval_width"], shown["controls"]) == ("200", "0.3", "none")
    for setting in fields(Settings):
        if not isinstance(setting.default, bool):
            assert given(**{setting.name: shown[setting.name]})[setting.name] == setting.default, setting.name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rated_texts", "7", 7),
        ("outlier_factor", "inf", float("inf")),
        ("factors", "-50, 0,1.5", (-50.0, 0.0, 1.5)),
        ("factors", "none", ()),
        ("controls", "ablate,other", ("ablate", "other")),
        ("controls", "", ()),
        ("interval_width", "0", None),
        ("interval_width", "none", None),
        ("gate", "-1.0", None),
        ("gate", "-0.5", -0.5),
        ("prompt_tokens", "None", None),
        ("silent_apart", False, False),
    ],
)
def test_values_are_read_as_they_are_written(name, text, value):
    assert given(**{name: text}) == {"preset": "default", name: value}


@pytest.mark.parametrize(
    ("name", "text"),
    [("rated_texts", "1.5"), ("rated_texts", "none"), ("factors", ""), ("factors", "1,x"), ("gate", "")],
)
def test_what_is_no_number_is_told_by_its_field(name, text):
    with pytest.raises(InputError, match=rf"{name} is '{re.escape(text)}'; give ") as caught:
        given(**{name: text})
    assert caught.value.field == name


def test_what_is_not_given_is_the_presets_and_what_is_given_stays():
    assert given() == {"preset": "default"}
    settings = RunSettings.of({**dict.fromkeys(("rated_texts",), "200"), "preset": "paper"}).settings()
    assert (settings.rated_texts, settings.prompts, settings.mode) == (200, 50, "clamp")
    assert RunSettings.of({"preset": "paper"}).settings(neurons=True).mode == "scale"
    assert given(faithfulness=False, factors="1,2")["factors"] == ()


def test_a_setting_of_a_scorer_that_is_registered_is_an_option():
    @dataclass(frozen=True)
    class ToySettings(SubjectSettings):
        toy_texts: int = option(4, "Texts of the toy. More words.", least=1)
        model: int = option(1, "What the command has an option for.")

    class Toy(Scorer):
        specs: ClassVar[tuple] = ()
        Settings: ClassVar[type[SubjectSettings]] = ToySettings

    scorer("a-toy")(Toy)
    try:
        shown = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
        assert "--toy-texts" in shown and "Texts of the toy." in shown and "More words" not in shown
        assert given(toy_texts="9")["toy_texts"] == 9
        assert flags_of(evaluate)["--model"].help == flags_of(explain)["--model"].help, "the command's own option stays"
    finally:
        del REGISTRY["a-toy"]


def test_an_error_carries_its_argument_and_a_command_shows_its_option():
    with pytest.raises(InputError) as caught:
        Settings(rated_texts=0)
    error, flags = (
        caught.value,
        {"rated_texts": "--rated-texts", "judge_name": "--judge-name", "max_calls": "--max-calls"},
    )
    assert error.field == "rated_texts" and str(error) == "rated_texts is 0; it must be at least 1"
    assert error.told(lambda one: as_option(one, flags)) == "--rated-texts is 0; it must be at least 1"
    assert as_option(Argument("name", "http://a b/v1"), flags) == "--judge-name 'http://a b/v1'"
    assert (
        as_option(Argument("max_calls", 5), flags) == "--max-calls 5" and as_option(Argument("texts"), flags) == "texts"
    )
    assert InputError("no argument in it").field is None
