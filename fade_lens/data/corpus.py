"""Natural text, and where it comes from."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import kind_of, open_text, parse_json, readable, table_column

LIMIT = 10_000
FILE_KINDS = (".txt", ".jsonl", ".json", ".csv", ".parquet")
LISTS = re.compile(
    r"(?:\w+\()?[\[(]\s*(?:-?\d+(?:[\s,]+(?:-?\d+|\.{3}))*[\s,]*|(['\"]).*\1[\s,]*|\{\s*['\"](?:role|content|from|value)['\"]\s*:.*\}\s*)[\])](?:,[^\])]*)?\)?",
    re.S,
)
"""A list of token ids or of messages that was written out as a text."""
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Who speaks, in the words of conversations with `from` and `value`."""

Message = dict[str, Any]
Cell = str | tuple[int, ...] | tuple[Message, ...]
"""What a column may hold: a text, the token ids of one, or the messages of a conversation."""


@dataclass(frozen=True)
class Corpus:
    """Texts to find a feature's activations on: exactly one of `texts`, `tokens` and `conversations` is given.

    Of a document longer than the run's context only the beginning is read, unless `windows` cuts it into parts that are all read.
    Windows are better for few, long documents, and where a concept may stand anywhere in them; beginnings are better where there are
    many documents, for texts of one document are more alike than texts of different ones.

    Attributes:
        texts: the texts; None where the corpus was given otherwise.
        tokens: token ids a text; a BOS in front is not doubled.
        source: where they come from, for the record.
        conversations: chat messages, each with `role` and `content`, to be written out by the model's chat template.
        windows: cut documents longer than the context into windows of that many tokens, BOS in front of each where the features want it.
    """

    texts: tuple[str, ...] | None
    tokens: tuple[tuple[int, ...], ...] | None
    source: str
    conversations: tuple[tuple[Message, ...], ...] | None = None
    windows: bool = False

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.texts or self.tokens or self.conversations or ())

    def __repr__(self) -> str:
        return f"Corpus({len(self):,} texts from {self.source}{', in windows' if self.windows else ''})"

    @classmethod
    def from_texts(cls, texts: Iterable[Any], source: str = "a list of texts", *, windows: bool = False) -> "Corpus":
        """A corpus of the strings given, empty and missing ones included (they are counted, never scored).

        Args:
            texts: strings; or lists of token ids; or lists of chat messages (`role` and `content`, or `from` and `value`).
            source: where they come from, for the record.
            windows: see `Corpus`.

        Raises:
            InputError: no list of texts, no text, only empty texts, entries of several kinds or of one that is not read, lists
                that were written out as texts.
        """
        check_list(texts)
        return gathered(texts, source, windows)

    @classmethod
    def from_tokens(cls, tokens: Iterable[Any], source: str = "tokens", *, windows: bool = False) -> "Corpus":
        """A corpus of token ids of the subject model's own tokenizer; a BOS in front is recognized and not doubled.

        Args:
            tokens: a row a text: a list of ids, or a mapping with `input_ids`.
            source: where they come from, for the record.
            windows: see `Corpus`.

        Raises:
            InputError: no tokens, or a row that is no sequence of token ids.
        """
        rows = (row["input_ids"] if isinstance(row, Mapping) and "input_ids" in row else row for row in tokens)
        kept = [read_cell(row, f"tokens[{i}] of {source}") for i, row in enumerate(rows)]
        if (
            wrong := next((i for i, row in enumerate(kept) if cell_kind(row) not in ("", "token ids")), None)
        ) is not None:
            raise InputError(f"tokens[{wrong}] of {source} is no list of token ids; give a list of ids for each text")
        if not any(kept):
            raise InputError(f"{source} holds no tokens; give at least one sequence of token ids")
        return cls(None, tuple(cast(tuple[int, ...], row or ()) for row in kept), source, windows=windows)

    @classmethod
    def from_file(
        cls, path: str | Path, *, column: str = "text", limit: int | None = None, windows: bool = False
    ) -> "Corpus":
        """Texts from a file.

        Args:
            path: `.txt` (a text a line), `.jsonl` or `.json` (strings or objects with `column`), `.csv` or `.parquet` (their
                `column`); all but Parquet may be gzipped (`.gz`).
            column: where the texts stand; it may hold what `from_texts` takes.
            limit: read this many texts at most.
            windows: see `Corpus`.

        Raises:
            InputError: no such file, a kind of file that is not read, a damaged one, no such column, no text.
        """
        path = Path(path)
        check_limit(limit)
        if not path.is_file():
            raise InputError(f"corpus file {str(path)!r} does not exist")
        with readable(path):
            return gathered(islice(cells_of_file(path, column), limit), path.name, windows)

    @classmethod
    def from_hf(
        cls,
        name: str,
        *,
        config: str | None = None,
        split: str = "train",
        column: str = "text",
        limit: int = LIMIT,
        windows: bool = False,
    ) -> "Corpus":
        """The first texts of a Hugging Face dataset, streamed, so that no more is downloaded than is used.

        Args:
            name: on the hub, such as "NeelNanda/pile-10k".
            config: of a dataset that has several.
            split: of the dataset.
            column: where the texts stand; it may hold what `from_texts` takes.
            limit: how many.
            windows: see `Corpus`.

        Raises:
            InputError: the dataset cannot be opened, or has no such split or column.
        """
        from datasets import load_dataset

        check_limit(limit)
        try:
            rows = cast(Iterable[dict[str, Any]], load_dataset(name, config, split=split, streaming=True))
            cells = [row_cell(row, column, f"dataset {name}") for row in islice(rows, limit)]
        except InputError:
            raise
        except Exception as error:  # the hub's client raises a dozen unrelated types
            raise InputError(
                f"dataset {name!r} (split {split!r}) could not be read: {type(error).__name__}: {error}"
            ) from error
        return gathered(cells, f"hf:{name}" + (f":{config}" if config else "") + f"[{split}]", windows)

    @classmethod
    def parse(cls, spec: str, *, column: str = "text", limit: int | None = None, windows: bool = False) -> "Corpus":
        """A corpus from a command line's word: `hf:NAME` for a Hugging Face dataset (see `from_hf`), else a file's path (see `from_file`)."""
        if spec.startswith("hf:"):
            return cls.from_hf(spec.removeprefix("hf:"), column=column, limit=limit or LIMIT, windows=windows)
        return cls.from_file(spec, column=column, limit=limit, windows=windows)


def check_list(texts: Any) -> None:
    """Raise InputError for what is no list of texts; iterating a table or a dict would give its column names or keys."""
    if isinstance(texts, str):
        raise InputError("texts is one string; give a list of strings, or Corpus.from_file(path) for a file")
    if isinstance(texts, os.PathLike):
        raise InputError(f"texts is the path {str(texts)!r}; give Corpus.from_file(path)")
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise InputError(f"texts is a {type(texts).__name__}; give one column of it, such as df['text']")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"texts is {type(texts).__name__}; give a list of strings")


def gathered(cells: Iterable[Any], source: str, windows: bool) -> Corpus:
    """The corpus of a column's cells, all texts, all token ids or all conversations, but for missing and empty ones."""
    kept, first = list[Cell](), dict[str, int]()
    for number, cell in enumerate(cells):
        kept.append(read_cell(cell, f"texts[{number}] of {source}"))
        if kind := cell_kind(kept[-1]):
            first.setdefault(kind, number)
    if len(first) > 1:
        (one, at), (other, there) = list(first.items())[:2]
        raise InputError(f"{source} holds {one} (texts[{at}]) and {other} (texts[{there}]); give one kind of them")
    corpus = Corpus(None, None, source, windows=windows)
    if "token ids" in first:
        return replace(corpus, tokens=tuple(cell or () for cell in kept))
    if "messages" in first:
        return replace(corpus, conversations=tuple(cell or () for cell in kept))
    texts = [cell for cell in kept if isinstance(cell, str) and cell.strip()]
    if not texts:
        raise InputError(
            f"{source} holds {'only empty texts' if kept else 'no text'}; give at least one text with words in it"
        )
    if all(LISTS.fullmatch(text.strip()) for text in texts):
        raise InputError(
            f"every text of {source} is a list that was written out, such as {texts[0]!r:.60}; save the column as JSONL or Parquet, "
            "which keep lists, or give the lists to Corpus.from_tokens"
        )
    return replace(corpus, texts=tuple(cell or "" for cell in kept))


def cell_kind(cell: Cell) -> str:
    """What a cell holds; "" for an empty one."""
    return (
        ""
        if not cell
        else "texts"
        if isinstance(cell, str)
        else "token ids"
        if isinstance(cell[0], int)
        else "messages"
    )


def read_cell(cell: Any, where: str) -> Cell:
    """One cell of a column as it is meant; a missing one is an empty text.

    Raises:
        InputError: it is neither a text nor a list of token ids or of messages; `where` tells people where it stands.
    """
    if isinstance(cell, str):
        return cell
    if hasattr(cell, "tolist"):  # of NumPy or torch
        cell = cell.tolist()
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, bytes | bytearray):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where} holds bytes that are no UTF-8; decode them, or give another column") from None
    if isinstance(cell, Mapping) and all(isinstance(part, list) for part in cell.values()):
        cell = [
            dict(zip(cell, parts, strict=False)) for parts in zip(*cell.values(), strict=False)
        ]  # as some datasets keep messages
    if isinstance(cell, list | tuple):
        parts = [part.tolist() if hasattr(part, "tolist") else part for part in cast(Sequence[Any], cell)]
        if all(type(part) is int for part in parts):
            return tuple(parts)
        if all(isinstance(part, Mapping) for part in parts):
            return tuple(message_of(part, where) for part in parts)
        kinds = " and ".join(dict.fromkeys(type(part).__name__ for part in parts))
        raise InputError(f"{where} is a list of {kinds}; give texts, or lists of token ids or of chat messages")
    raise InputError(f"{where} is {type(cell).__name__}, not a string: {cell!r:.60}")


def message_of(given: Mapping[str, Any], where: str) -> Message:
    """A chat message with `role` and `content`, of one with these or with `from` and `value`."""
    role, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
    if isinstance(content, list):  # parts, of which text can be read
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in cast(list[Any], content)]
        content = "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else content
    if not isinstance(role, str) or not isinstance(content, str | None):
        raise InputError(
            f"{where} holds {dict(given)!r:.80}, which is no chat message; give each a `role` and a text as its `content`"
        )
    more = {name: value for name, value in given.items() if name not in ("from", "value") and value is not None}
    return {**more, "role": ROLES.get(role, role), "content": content or ""}


def check_limit(limit: int | None) -> None:
    """Raise InputError for a number of texts that is not positive."""
    if limit is not None and limit < 1:
        raise InputError(Argument("limit"), f" is {limit}; read at least 1 text")


def cells_of_file(path: Path, column: str) -> Iterator[Any]:
    """The cells of a file, one by one where its kind allows it."""
    kind = kind_of(path)
    if kind not in FILE_KINDS:
        raise InputError(
            f"corpus file {path.name!r} is of a kind that is not read; give one of {', '.join(FILE_KINDS)} (or .gz)"
        )
    if kind in (".csv", ".parquet"):
        yield from table_column(path, column)
        return
    with open_text(path) as lines:
        if kind == ".txt":
            yield from (line.rstrip("\n") for line in lines)
        elif kind == ".json":
            rows = parse_json(lines.read(), path.name)
            if not isinstance(rows, list):
                raise InputError(
                    f"{path.name} is {type(rows).__name__}; it must hold a list of strings or of objects with {column!r}"
                )
            yield from (row_cell(row, column, path.name) for row in cast(list[Any], rows))
        else:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield row_cell(
                        parse_json(line, f"{path.name}, line {number}"), column, f"{path.name}, line {number}"
                    )


def row_cell(row: Any, column: str, where: str) -> Any:
    """The cell of one JSON value: itself if a string or a list, else its `column`."""
    if isinstance(row, str | list):
        return row
    if not isinstance(row, dict) or column not in row:
        keys = f"; it has {', '.join(map(str, cast(dict[str, Any], row)))}" if isinstance(row, dict) else ""
        raise InputError(f"{where} has no text under {column!r}{keys}; name one with ", Argument("column"))
    return cast(dict[str, Any], row)[column]
