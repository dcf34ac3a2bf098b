"""What stands in the README, for the tests that hold it to the code."""

import re
import shlex
from pathlib import Path

README = Path("README.md")


def blocks(language: str) -> list[str]:
    """The code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def shell_lines() -> list[list[str]]:
    """Its commands, as a shell splits them, those joined by && apart."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").replace("&&", "\n").splitlines()
    return [shlex.split(line, comments=True) for line in lines]
