"""Natural text: where it comes from, and how it becomes tokens for one model."""

import gzip
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int

from fade_lens.errors import InputError, MissingExtraError
from fade_lens.models import Model, model_name, special_tokens
from fade_lens.tables import clean

logger = logging.getLogger(__name__)

LIMIT = 10_000
CHUNK = 2**20
"""Characters (or token ids) in hand at once as Python objects; the rest is in arrays."""
CHARACTERS_A_TOKEN = 8
MARGIN = 64
"""A text is cut before it is tokenized only if this many tokens stand between the last one kept and the cut."""
FILE_KINDS = (".txt", ".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Corpus:
    """Texts to find a feature's activations on.

    Attributes:
        texts: the texts; None where the corpus was given as tokens.
        tokens: token ids a text, without BOS; None where the corpus was given as texts.
        source: where they come from, for the record.
    """

    texts: tuple[str, ...] | None
    tokens: tuple[tuple[int, ...], ...] | None
    source: str

    def __len__(self) -> int:
        return len(self.texts if self.texts is not None else self.tokens or ())

    def __repr__(self) -> str:
        return f"Corpus({len(self):,} texts from {self.source})"

    @classmethod
    def from_texts(cls, texts: Iterable[str], source: str = "a list of texts") -> "Corpus":
        """A corpus of the strings given, empty ones included (they are counted, never scored).

        Raises:
            InputError: no list of texts, no text, only empty texts, or an entry that is no string.
        """
        check_list(texts)
        kept = tuple(texts)
        for i, text in enumerate(kept):
            if not isinstance(text, str):
                raise InputError(f"texts[{i}] of {source} is {type(text).__name__}, not a string: {text!r:.60}")
        if not any(text.strip() for text in kept):
            raise InputError(
                f"{source} holds {'only empty texts' if kept else 'no text'}; give at least one text with words in it"
            )
        return cls(kept, None, source)

    @classmethod
    def from_tokens(cls, tokens: Iterable[Sequence[int]], source: str = "tokens") -> "Corpus":
        """A corpus of token ids of the subject model's own tokenizer; a BOS in front is recognized and not doubled."""
        kept = tuple(tuple(int(i) for i in row) for row in tokens)
        if not any(kept):
            raise InputError(f"{source} holds no tokens; give at least one sequence of token ids")
        return cls(None, kept, source)

    @classmethod
    def from_file(cls, path: str | Path, *, column: str = "text", limit: int | None = None) -> "Corpus":
        """Texts from a file: `.txt` (a text a line), `.jsonl` or `.json` (strings or objects with `column`),
        `.csv` or `.parquet` (their `column`); all but Parquet may be gzipped (`.gz`).

        Raises:
            InputError: no such file, a kind of file that is not read, a damaged one, no such column, no text.
        """
        path = Path(path)
        check_limit(limit)
        if not path.is_file():
            raise InputError(f"corpus file {str(path)!r} does not exist")
        with readable(path):
            texts = tuple(islice(texts_of_file(path, column), limit))
        return cls.from_texts(texts, source=path.name)

    @classmethod
    def from_hf(
        cls, name: str, *, config: str | None = None, split: str = "train", column: str = "text", limit: int = LIMIT
    ) -> "Corpus":
        """The first `limit` texts of a Hugging Face dataset, streamed, so that no more is downloaded than is used.

        Raises:
            InputError: the dataset cannot be opened, or has no such split or column.
        """
        from datasets import load_dataset

        check_limit(limit)
        try:
            rows = cast(Iterable[dict[str, Any]], load_dataset(name, config, split=split, streaming=True))
            texts = [row_text(row, column, f"dataset {name}") for row in islice(rows, limit)]
        except InputError:
            raise
        except Exception as error:  # the hub's client raises a dozen unrelated types
            raise InputError(
                f"dataset {name!r} (split {split!r}) could not be read: {type(error).__name__}: {error}"
            ) from error
        return cls.from_texts(texts, source=f"hf:{name}" + (f":{config}" if config else "") + f"[{split}]")

    @classmethod
    def parse(cls, spec: str, *, column: str = "text", limit: int | None = None) -> "Corpus":
        """A corpus from a command line's word: `hf:NAME` for a Hugging Face dataset, else a file's path."""
        if spec.startswith("hf:"):
            return cls.from_hf(spec.removeprefix("hf:"), column=column, limit=limit or LIMIT)
        return cls.from_file(spec, column=column, limit=limit)

    def tokenize(self, model: Model, *, context: int, prepend_bos: bool) -> "TokenizedTexts":
        """This corpus as the model's tokens (see `tokenize`)."""
        return tokenize(model, self.texts if self.texts is not None else self.tokens or (), context, prepend_bos)


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as one model's tokens, all in one flat array.

    Attributes:
        ids: token ids of all texts, one after another, int32, BOS included where the features want it.
        offsets: where each text begins in `ids`; one more entry than texts.
        special: which tokens are special (BOS, EOS, padding, ...): they never count as activations.
        texts: what each text reads after truncation: exactly what the model sees, and so what the judge gets.
        n_truncated: how many texts were longer than the context.
    """

    ids: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, " text_and_one"]
    special: Bool[np.ndarray, " token"]
    texts: tuple[str, ...]
    n_truncated: int

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
            n_truncated=0,
        )


def tokenize(
    model: Model, texts: Sequence[str] | Sequence[Sequence[int]], context: int, prepend_bos: bool
) -> TokenizedTexts:
    """Tokenize with the model's own tokenizer, BOS in front if wanted, cut to `context` tokens (BOS counted).

    Raises:
        InputError: the model has no tokenizer, no BOS where one is wanted, or a token id is not in its vocabulary.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InputError(f"{model_name(model)} has no tokenizer; set one with model.set_tokenizer(tokenizer)")
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        logger.info("%s has no BOS token; texts begin with their first token.", model_name(model))
    lead = [bos] if prepend_bos and bos is not None else []
    room = context - len(lead)
    specials = np.array(sorted(special_tokens(tokenizer)), dtype=np.int32)
    ids, special = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=bool)]
    shown: list[str] = []
    ends, n_truncated = [0], 0
    for chunk in chunks(texts, CHARACTERS_A_TOKEN * (room + MARGIN)):
        if isinstance(chunk[0], str):
            chunk = [clean(text) for text in chunk]
            rows = first_tokens(tokenizer, chunk, room)
        else:
            rows = [list(row[1:] if lead and len(row) and row[0] == bos else row) for row in chunk]
            check_vocabulary(rows, int(model.cfg.d_vocab), len(shown))
        for text, row in zip(chunk, rows, strict=True):
            long, row[room:] = len(row) > room, []
            shown.append(text if isinstance(text, str) and not long else str(tokenizer.decode(row)))
            ends.append(ends[-1] + len(lead) + len(row))
            n_truncated += long
        ids.append(np.fromiter((i for row in rows for i in (*lead, *row)), dtype=np.int32))
        special.append(np.isin(ids[-1], specials))
    return TokenizedTexts(
        np.concatenate(ids), np.array(ends, dtype=np.int64), np.concatenate(special), tuple(shown), n_truncated
    )


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
    rows = cast(list[list[int]], tokenizer(heads, add_special_tokens=False)["input_ids"])
    short = [i for i, row in enumerate(rows) if len(heads[i]) < len(texts[i]) and len(row) <= room + MARGIN]
    if short:
        whole = tokenizer([texts[i] for i in short], add_special_tokens=False)["input_ids"]
        for i, row in zip(short, cast(list[list[int]], whole), strict=True):
            rows[i] = row
    return rows


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
    if hasattr(texts, "columns"):
        raise InputError(f"texts is a {type(texts).__name__}; give one column of it, such as df['text']")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"texts is {type(texts).__name__}; give a list of strings")


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


def texts_of_file(path: Path, column: str) -> Iterator[str]:
    """The texts of a file, one by one where its kind allows it."""
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
            yield from (row_text(row, column, path.name) for row in cast(list[Any], rows))
        else:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield row_text(
                        parse_json(line, f"{path.name}, line {number}"), column, f"{path.name}, line {number}"
                    )


def table_column(path: Path, kind: str, column: str) -> Iterator[str]:
    """One column of a CSV or Parquet file, a part of the file at a time, missing values as empty texts."""
    names, parts = csv_parts(path, column) if kind == ".csv" else parquet_parts(path, column)
    if column not in names:
        raise InputError(f"{path.name} has no column {column!r}; its columns are {', '.join(names)}")
    for part in parts:
        yield from ("" if value is None or value != value else str(value) for value in part)


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


def row_text(row: Any, column: str, where: str) -> str:
    """The text of one JSON value: itself if a string, else its `column`."""
    if isinstance(row, str):
        return row
    if not isinstance(row, dict) or column not in row:
        keys = f"; it has {', '.join(map(str, cast(dict[str, Any], row)))}" if isinstance(row, dict) else ""
        raise InputError(f"{where} has no text under {column!r}{keys}")
    value = cast(dict[str, Any], row)[column]
    return "" if value is None else str(value)


def parse_json(text: str, where: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON, or an InputError that says where it is broken; `pairs_hook` makes the objects of their pairs."""
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
