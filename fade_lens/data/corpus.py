"""Natural text: where it comes from, and how it becomes tokens for one model."""

import gzip
import hashlib
import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int

from fade_lens._util.errors import InputError, MissingExtraError
from fade_lens._util.tables import clean
from fade_lens.subject.hooks import Model, model_name, special_tokens
from fade_lens.subject.tokens import after_bos, cut, decode

logger = logging.getLogger(__name__)

LIMIT = 10_000
CHUNK = 2**20
"""Characters (or token ids) in hand at once as Python objects; the rest is in arrays."""
CHARACTERS_A_TOKEN = 8
MARGIN = 64
"""A text is cut before it is tokenized only if this many tokens stand between the last one kept and the cut."""
FILE_KINDS = (".txt", ".jsonl", ".json", ".csv", ".parquet")
LISTS = re.compile(
    r"(?:\w+\()?\[\s*(?:-?\d+(?:[\s,]+(?:-?\d+|\.{3}))+[\s,]*|\{\s*['\"](?:role|content|from|value)['\"]\s*:.*\}\s*)\][^\]]*",
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

        Lists of token ids, and lists of chat messages (`role` and `content`, or `from` and `value`), are read as such.

        Raises:
            InputError: no list of texts, no text, only empty texts, entries of several kinds or of one that is not read, lists
                that were written out as texts.
        """
        check_list(texts)
        return gathered(texts, source, windows)

    @classmethod
    def from_tokens(cls, tokens: Iterable[Any], source: str = "tokens", *, windows: bool = False) -> "Corpus":
        """A corpus of token ids of the subject model's own tokenizer; a BOS in front is recognized and not doubled.

        Raises:
            InputError: no tokens, or a row that is no sequence of token ids.
        """
        rows = (row["input_ids"] if isinstance(row, Mapping) and "input_ids" in row else row for row in tokens)
        kept = [read_cell(row, f"tokens[{i}] of {source}") for i, row in enumerate(rows)]
        if (
            wrong := next((i for i, row in enumerate(kept) if kind_of(row) not in ("", "token ids")), None)
        ) is not None:
            raise InputError(f"tokens[{wrong}] of {source} is no list of token ids; give a list of ids for each text")
        if not any(kept):
            raise InputError(f"{source} holds no tokens; give at least one sequence of token ids")
        return cls(None, tuple(cast(tuple[int, ...], row or ()) for row in kept), source, windows=windows)

    @classmethod
    def from_file(
        cls, path: str | Path, *, column: str = "text", limit: int | None = None, windows: bool = False
    ) -> "Corpus":
        """Texts from a file: `.txt` (a text a line), `.jsonl` or `.json` (strings or objects with `column`),
        `.csv` or `.parquet` (their `column`); all but Parquet may be gzipped (`.gz`). A column may hold what `from_texts` takes.

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
        """The first `limit` texts of a Hugging Face dataset, streamed, so that no more is downloaded than is used.

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
        """A corpus from a command line's word: `hf:NAME` for a Hugging Face dataset, else a file's path."""
        if spec.startswith("hf:"):
            return cls.from_hf(spec.removeprefix("hf:"), column=column, limit=limit or LIMIT, windows=windows)
        return cls.from_file(spec, column=column, limit=limit, windows=windows)

    def tokenize(self, model: Model, *, context: int, prepend_bos: bool) -> "TokenizedTexts":
        """This corpus as the model's tokens (see `tokenize`)."""
        rows = self.texts if self.texts is not None else self.tokens
        if rows is None:
            rows = written_out(model, self.conversations or (), self.source)
        return tokenize(model, rows, context, prepend_bos, windows=self.windows)


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as one model's tokens, all in one flat array.

    Attributes:
        ids: token ids of all texts, one after another, int32, BOS included where the features want it.
        offsets: where each text begins in `ids`; one more entry than texts.
        special: which tokens are special (BOS, EOS, padding, ...): they never count as activations.
        texts: what each text reads after truncation: exactly what the model sees, and so what the judge gets; a BOS that it was given
            with is left out, the marks of chat turns are not.
        documents: the number, in the corpus, of the document that each text is of: its own, or that of its window.
        n_truncated: how many texts were longer than the context and lost their ends.
        lost: share of all text, in characters (in token ids where those were given), that was lost so.
    """

    ids: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, " text_and_one"]
    special: Bool[np.ndarray, " token"]
    texts: tuple[str, ...]
    documents: Int[np.ndarray, " text"]
    n_truncated: int = 0
    lost: float = 0.0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> Int[np.ndarray, " pos"]:
        return self.ids[self.offsets[text] : self.offsets[text + 1]].astype(np.int64)

    def special_of(self, text: int) -> Bool[np.ndarray, " pos"]:
        """Which tokens of one text are special."""
        return self.special[self.offsets[text] : self.offsets[text + 1]]

    @property
    def lengths(self) -> Int[np.ndarray, " text"]:
        """Tokens in each text, BOS included."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """A short hash of all tokens and where texts begin."""
        digest = hashlib.sha256()
        for start in range(0, len(self.ids), CHUNK):
            digest.update(self.ids[start : start + CHUNK].astype("<i8").tobytes())
        digest.update(self.offsets.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def select(self, texts: Sequence[int]) -> "TokenizedTexts":
        """Some of the texts, in the order given."""
        rows = [self[i] for i in texts]
        return TokenizedTexts(
            ids=np.concatenate(rows) if rows else self.ids[:0],
            offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
            special=np.concatenate([self.special_of(i) for i in texts]) if rows else self.special[:0],
            texts=tuple(self.texts[i] for i in texts),
            documents=self.documents[list(texts)],
        )


def tokenize(
    model: Model,
    texts: Sequence[str] | Sequence[Sequence[int]],
    context: int,
    prepend_bos: bool,
    *,
    windows: bool = False,
) -> TokenizedTexts:
    """Tokenize with the model's own tokenizer, one BOS in front if wanted, cut to `context` tokens (BOS counted) or into windows of it.

    A BOS that a text begins with (a chat template writes one) is not doubled. No character is cut in two.

    Raises:
        InputError: the model has no tokenizer, no BOS where one is wanted, or a token id is not in its vocabulary.
    """
    tokenizer = tokenizer_of(model)
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        logger.info("%s has no BOS token; texts begin with their first token.", model_name(model))
    lead = [bos] if prepend_bos and bos is not None else []
    room = context - len(lead)
    specials = np.array(sorted(special_tokens(tokenizer)), dtype=np.int32)
    ids, special = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=bool)]
    shown, documents = list[str](), list[int]()
    ends, n_documents, n_truncated, lost, total = [0], 0, 0, 0, 0
    for chunk in chunks(texts, sys.maxsize if windows else CHARACTERS_A_TOKEN * (room + MARGIN)):
        if isinstance(chunk[0], str):
            mark = str(tokenizer.bos_token) if lead else ""
            chunk = [bare if mark and (bare := text.lstrip()).startswith(mark) else text for text in map(clean, chunk)]
            rows = whole_tokens(tokenizer, chunk) if windows else first_tokens(tokenizer, chunk, room)
        else:
            mark, rows = "", [list(row) for row in chunk]
            check_vocabulary(rows, int(model.cfg.d_vocab), n_documents)
        kept: list[Sequence[int]] = []
        for text, given in zip(chunk, rows, strict=True):
            row = after_bos(given, bos) if lead else given
            while mark and len(row) < len(given) and text.startswith(mark):
                text = text.removeprefix(mark)
            total += len(text)
            if len(row) <= room:
                kept.append(row)
                shown.append(text if isinstance(text, str) else decode(tokenizer, row))
            else:
                start = 0
                while start < len(row) and (windows or not start):
                    part, words = cut(tokenizer, row[start : start + room + 1], room)
                    start += len(part)
                    kept.append(part)
                    shown.append(words)
                if not windows:
                    n_truncated += 1
                    lost += max(len(text) - len(shown[-1] if isinstance(text, str) else kept[-1]), 0)
            documents += [n_documents] * (len(shown) - len(documents))
            n_documents += 1
        ends += (ends[-1] + np.cumsum([len(lead) + len(row) for row in kept])).tolist()
        ids.append(np.fromiter((i for row in kept for i in (*lead, *row)), dtype=np.int32))
        special.append(np.isin(ids[-1], specials))
    return TokenizedTexts(
        np.concatenate(ids),
        np.array(ends, dtype=np.int64),
        np.concatenate(special),
        tuple(shown),
        np.array(documents, dtype=np.int64),
        n_truncated,
        lost / max(total, 1),
    )


def tokenizer_of(model: Model) -> Any:
    """The model's tokenizer. Raises `InputError` where it has none."""
    if model.tokenizer is None:
        raise InputError(f"{model_name(model)} has no tokenizer; set one with model.set_tokenizer(tokenizer)")
    return model.tokenizer


def written_out(model: Model, conversations: Sequence[Sequence[Message]], source: str) -> list[str]:
    """Conversations as the texts that the model's chat template makes of them.

    Raises:
        InputError: the tokenizer has no chat template, or it refuses a conversation.
    """
    tokenizer = tokenizer_of(model)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{source} holds chat messages, and the tokenizer of {model_name(model)} has no chat template to write them out; "
            "set model.tokenizer.chat_template, or give the texts themselves"
        )
    texts: list[str] = []
    for number, messages in enumerate(conversations):
        try:
            texts.append(tokenizer.apply_chat_template(list(messages), tokenize=False) if messages else "")
        except Exception as error:  # a template is a program, and raises what it likes
            raise InputError(
                f"texts[{number}] of {source} does not fit the chat template of {model_name(model)} ({error}); mend it or leave it out"
            ) from error
    return texts


def chunks(texts: Sequence[str] | Sequence[Sequence[int]], longest: int) -> Iterator[list[Any]]:
    """The texts in order, a few at a time: up to about `CHUNK` characters, of a long text only `longest` being counted."""
    chunk: list[Any] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += min(len(text), longest)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def first_tokens(tokenizer: Any, texts: list[str], room: int) -> list[list[int]]:
    """Token ids of each text, at least the first `room` + 1 where it has more.

    Only the beginning of a long text is tokenized, to well behind the last token that is kept, so that the cut cannot
    change it; where that gave too few tokens (long runs of spaces), the whole text is.
    """
    heads = [text[: CHARACTERS_A_TOKEN * (room + MARGIN)] for text in texts]
    rows = whole_tokens(tokenizer, heads)
    short = [i for i, row in enumerate(rows) if len(heads[i]) < len(texts[i]) and len(row) <= room + MARGIN]
    for i, row in zip(short, whole_tokens(tokenizer, [texts[i] for i in short]) if short else (), strict=True):
        rows[i] = row
    return rows


def whole_tokens(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, nothing put before or behind it."""
    return cast(list[list[int]], tokenizer(texts, add_special_tokens=False, truncation=False)["input_ids"])


def check_vocabulary(rows: Sequence[Sequence[int]], d_vocab: int, first: int = 0) -> None:
    """Raise InputError for the first token id that the model does not have; `first` is the number of the first row."""
    for i, row in enumerate(rows, start=first):
        for token in row:
            if not 0 <= token < d_vocab:
                raise InputError(f"tokens[{i}] holds id {token}, but the model's vocabulary has {d_vocab} entries")


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
        if kind := kind_of(kept[-1]):
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


def kind_of(cell: Cell) -> str:
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
        InputError: what is neither a text nor a list of token ids or of messages, by `where` it stands.
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
        raise InputError(f"limit is {limit}; read at least 1 text")


@contextmanager
def readable(path: Path) -> Generator[None, None, None]:
    """What a damaged file, or one that is not in UTF-8, raises while it is read, as an InputError."""
    try:
        yield
    except InputError:
        raise
    # The errors of pandas, pyarrow and of decoding are ValueErrors, those of gzip OSErrors.
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{path.name} cannot be read ({why}); mend it if it is damaged, and save it as UTF-8 if it is text"
        ) from error


def cells_of_file(path: Path, column: str) -> Iterator[Any]:
    """The cells of a file, one by one where its kind allows it."""
    name = path.name.removesuffix(".gz")
    kind = Path(name).suffix.lower()
    if kind not in FILE_KINDS:
        raise InputError(
            f"corpus file {path.name!r} is of a kind that is not read; give one of {', '.join(FILE_KINDS)} (or .gz)"
        )
    if kind in (".csv", ".parquet"):
        yield from table_column(path, kind, column)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
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


def table_column(path: Path, kind: str, column: str) -> Iterator[Any]:
    """One column of a CSV or Parquet file, a part of the file at a time."""
    names, parts = csv_parts(path, column) if kind == ".csv" else parquet_parts(path, column)
    if column not in names:
        raise InputError(f"{path.name} has no column {column!r}; its columns are {', '.join(names)}")
    for part in parts:
        yield from part


def csv_parts(path: Path, column: str) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns of a CSV file, and one of them in parts."""
    import pandas as pd

    names = [str(name) for name in pd.read_csv(path, nrows=0).columns]

    def parts() -> Iterator[list[Any]]:
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "usecols": [column]}
        reader: Any = pd.read_csv(path, chunksize=10_000, **options)
        with reader:
            for part in reader:
                yield part[column].tolist()

    return names, parts()


def parquet_parts(path: Path, column: str) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns of a Parquet file, and one of them in parts."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "Reading Parquet") from None
    file: Any = ParquetFile(path)
    found = (batch.column(0).to_pylist() for batch in file.iter_batches(10_000, columns=[column]))
    return list(file.schema_arrow.names), found


def row_cell(row: Any, column: str, where: str) -> Any:
    """The cell of one JSON value: itself if a string or a list, else its `column`."""
    if isinstance(row, str | list):
        return row
    if not isinstance(row, dict) or column not in row:
        keys = f"; it has {', '.join(map(str, cast(dict[str, Any], row)))}" if isinstance(row, dict) else ""
        raise InputError(f"{where} has no text under {column!r}{keys}")
    return cast(dict[str, Any], row)[column]


def parse_json(text: str, where: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON, or an InputError that says where it is broken; `pairs_hook` makes the objects of their pairs."""
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
