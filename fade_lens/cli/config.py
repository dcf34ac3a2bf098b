"""A run's options as a TOML file: read by every command with `--config`, left by every run in its folder."""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from inspect import Parameter
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from fade_lens._util.errors import InputError, suggest
from fade_lens._util.files import clean, toml_table, write_text
from fade_lens._util.words import clip

FILE = "run.toml"
CONFIG = f"TOML file with any of these options, such as the {FILE} that a run leaves in its folder; options given here win over it."
WORDS = ("demo", "neuronpedia")
"""What stands where a path may, and is none."""
LOCAL = "gguf:"
"""What comes before a path in a judge's spec."""
NOT_KEPT = ("dry_run", "config")


def options_of_file(path: Path, options: Mapping[str, Parameter], command: str) -> dict[str, Any]:
    """The options of a file by their parameters' names, in the form that the command line gives them; paths are relative to the file's folder.

    Raises:
        InputError: no TOML file, an unknown key, a value of the wrong type.
    """
    known, found = {key_of(one): one for one in options.values()}, {}
    for key, value in toml_table(path, "file of options").items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise InputError(f"{str(path)!r} has the key {key!r}, which is no option of `fade-lens {command}`{suggest(key, known)}")  # fmt: skip
        kind, declared = kinds_of(option)
        if not fits(value, kind, declared):
            given = "a table" if isinstance(value, dict) else clip(without_keys(json.dumps(value, default=str)), 80)
            raise InputError(f"{str(path)!r}: {key} is {given}; give {words_of(kind)}")
        if Path in members(kind):
            value = each(value, partial(moved, source=path.parent, target=Path(), sure=Path in members(declared)))
        # A setting is an option of text, of several values between commas.
        text = str in members(declared) and not several(declared) and not isinstance(value, bool | str)
        found[option.name] = (",".join(map(str, value)) if isinstance(value, list) else str(value)) if text else value
    return found


@contextmanager
def keeping(ctx: Any, command: str, options: Mapping[str, Parameter], given: Mapping[str, Any]) -> Generator[None]:  # fmt: skip
    """The time of a run, whose options are left beside what it writes: at its end, or where it stops and there is no such file yet."""
    out = given.get("out")
    if out is None or given.get("dry_run"):
        yield
        return
    file = out.with_suffix(".toml") if out.suffix == ".csv" else out / FILE
    chosen = {
        name: value
        for name, value in given.items()
        if name not in NOT_KEPT
        and (name == "out" or getattr(ctx.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT")
    }
    try:
        yield
    except InputError:
        raise
    except BaseException:
        if file.parent.is_dir() and not file.exists():
            write_text(file, as_file(command, options, chosen, file.parent))
        raise
    write_text(file, as_file(command, options, chosen, file.parent))


def as_file(command: str, options: Mapping[str, Parameter], given: Mapping[str, Any], folder: Path) -> str:
    """Options as the text of a file in this folder; no key of a judge is among them."""
    lines = [
        f"# fade-lens {version('fade-lens')}: `fade-lens {command} --config` with this file does it again; options given beside it win.",
        "# Paths are relative to this file's folder. API keys are not kept: they come from the environment or .env.",
    ]
    for name, value in given.items():
        kind, declared = kinds_of(options[name])
        plain = each(value, lambda one: str(one) if isinstance(one, Path) else one)
        if Path in members(kind):
            plain = each(plain, partial(moved, source=Path(), target=folder, sure=Path in members(declared)))
        plain = each(plain, lambda one: without_keys(one) if isinstance(one, str) else one)
        lines.append(f"{key_of(options[name])} = {as_toml(number_in(plain) if number_of(kind) else plain)}")
    return "\n".join(lines) + "\n"


def moved(text: str, source: Path, target: Path, sure: bool) -> str:
    """A path relative to one folder as one relative to another; links among its folders are followed, as they are when it is opened.

    Args:
        text: a value that is a path, or may be one: it is where there is such a file.
        source, target: the folders.
        sure: whether it is a path in any case, but for the words that may stand in its place.
    """
    scheme = LOCAL if text.startswith(LOCAL) else ""
    path = Path(os.path.expanduser(text.removeprefix(scheme)))  # noqa: PTH111, pathlib's fails where there is no such user
    there = source / path
    if not text or text in WORDS or not (sure or scheme or os.path.exists(there)):  # noqa: PTH110, and for what is too long
        return text
    if not path.is_absolute():
        real = Path(os.path.realpath(there.parent)) / there.name
        try:
            path = Path(os.path.relpath(real, os.path.realpath(target)))
        except ValueError:  # on another drive
            path = real
    return scheme + path.as_posix()


def without_keys(text: str) -> str:
    """A text without anything that looks like a judge's key."""
    from fade_lens.llm.endpoint import redact

    return redact(text, None)


def key_of(option: Parameter) -> str:
    """An option's name in a file: as on the command line, without dashes before it."""
    about = get_args(option.annotation)[1]  # in an annotation its first name stands where a default would
    names = [
        one for one in (about.default, *(about.param_decls or ())) if isinstance(one, str) and one.startswith("--")
    ]
    return (names[0].split("/")[0] if names else option.name.replace("_", "-")).lstrip("-")


def kinds_of(option: Parameter) -> tuple[Any, Any]:
    """The type of an option's value, and the type that the command line declares: a setting is declared as text, and so is what may be a path."""
    declared, _, *kind = get_args(option.annotation)
    return (kind or [declared])[0], declared


def members(kind: Any) -> tuple[Any, ...]:
    """The plain types of which a value is made, but for None.

    >>> members(list[Path] | None) == (Path,), members(tuple[float, ...])
    (True, (<class 'float'>,))
    """
    if get_origin(kind) is None:
        return () if kind in (NoneType, Ellipsis) else (kind,)
    return tuple(dict.fromkeys(one for part in get_args(kind) for one in ((type(part),) if isinstance(part, str) else members(part))))  # fmt: skip


def several(kind: Any) -> bool:
    """Whether it is several values."""
    return get_origin(kind) in (list, tuple) or any(several(one) for one in get_args(kind))


def number_of(kind: Any) -> type | None:
    """The type of number that a value is made of, if any."""
    return next((one for one in members(kind) if one in (int, float)), None)


def fits(value: Any, kind: Any, declared: Any) -> bool:
    """Whether a value of a file is of an option's type. What is declared as text may be text: a setting's value is read, and told, later."""
    if isinstance(value, list):
        return several(kind) and all(fits(one, *(members(part)[0] for part in (kind, declared))) for one in value)
    if several(declared):
        return False
    if isinstance(value, bool):
        return bool in members(kind)
    if isinstance(value, int | float):
        number = number_of(kind)
        return number is float or (number is int and isinstance(value, int))
    return isinstance(value, str) and not {str, Path}.isdisjoint(members(declared))


def words_of(kind: Any) -> str:
    """What a value of this type is called."""
    number = number_of(kind)
    one = "a text in quotes" if number is None else "a whole number" if number is int else "a number"
    return "true or false" if bool in members(kind) else f"{one}, or several in brackets" if several(kind) else one


def number_in(text: Any) -> Any:
    """The number that a text is, or the numbers between commas; the text itself where it is none.

    >>> number_in("200"), number_in("0.5,2"), number_in("none"), number_in("007")
    (200, [0.5, 2], 'none', '007')
    """
    if not isinstance(text, str):
        return text
    if "," in text:
        found = [number_in(part.strip()) for part in text.split(",") if part.strip()]
        return text if any(isinstance(one, str) for one in found) else found
    for kind in (int, float):
        try:
            if str(kind(text)) == text:
                return kind(text)
        except ValueError:
            pass
    return text


def each(value: Any, change: Any) -> Any:
    """A value changed, or each of several."""
    return [change(one) for one in value] if isinstance(value, list | tuple) else change(value)


def as_toml(value: Any) -> str:
    """A value as TOML has it; text that UTF-8 cannot hold is replaced.

    >>> as_toml([1.5, True, 'a "b"'])
    '[1.5, true, "a \\\\"b\\\\""]'
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(clean(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
