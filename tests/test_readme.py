"""The README: short, and nothing in it that the code does not have."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import fade_lens
from fade_lens.cli import app
from fade_lens.explainers import base as explainers
from fade_lens.scorers import base as scorers
from tests.readme import README, blocks, shell_lines

COMMANDS = [arguments for program, *arguments in shell_lines() if program == "fade-lens"]


def test_it_is_read_in_a_few_minutes():
    lines = README.read_text().splitlines()
    assert len(lines) <= 130 and max(map(len, lines)) <= 160


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_every_command_has_the_options_that_are_used_and_all_that_it_needs(arguments):
    group: Any = typer.main.get_command(app)
    _, command, rest = group.resolve_command(typer.Context(group), arguments)
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    used = {word for word in rest if word.startswith("-")}
    assert used <= set(options)
    assert all(used & set(p.opts) for p in command.params if p.required and p.param_type_name == "option")


def test_every_public_name_in_its_python_is_there():
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert {name.name for name in node.names} <= set(fade_lens.__all__)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"fade_lens": fade_lens, "fade": fade_lens.Fade, "Corpus": fade_lens.Corpus}.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("registry, what", [(scorers.REGISTRY, "--scorers"), (explainers.REGISTRY, "--explainer")])
def test_it_names_every_scorer_and_explainer(registry, what):
    (listed,) = re.findall(rf"\(`{what}`\): (.*?)(?=\*\*|\n\n|\n- )", README.read_text(), re.DOTALL)
    named = set(re.findall(r"`([a-z-]+)`", listed))
    registry.load_own()
    ours = {name for name, made in registry.items() if made.__module__.startswith(registry.package)}
    assert ours - {"fade"} == named


def test_every_file_that_it_links_is_there():
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert linked and all(Path(path).exists() for path in linked)
