"""Texts as one model's tokens, and tokens as people read them: whole characters, and the text that a row of tokens makes."""

import hashlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import clean
from fade_lens.data.corpus import Corpus, Message
from fade_lens.subject.hooks import Model, model_name, special_tokens

logger = logging.getLogger(__name__)

CHUNK = 2**20
"""Characters (or token ids) in hand at once as Python objects; the rest is in arrays."""
CHARACTERS_A_TOKEN = 8
MARGIN = 64
"""A text is cut before it is tokenized only if this many tokens stand between the last one kept and the cut."""

HALF = "\ufffd"
"""What a tokenizer shows for bytes that are no whole character."""
_BRACKETED = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]")
_CUT_OFF = re.compile(f"(?<!{HALF}){HALF}{{1,3}}$")


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of some tokens, special ones included, no space cleaned away: what the model reads."""
    return str(tokenizer.decode([int(i) for i in ids], clean_up_tokenization_spaces=False))


def pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """What each token adds to the text of all: joined they are `decode(tokenizer, ids)`.

    A character of several tokens stands whole at the last of them; the others are empty.
    """
    whole = decode(tokenizer, ids)
    single = tuple(decode(tokenizer, [i]) for i in ids)
    if HALF not in whole and "".join(single) == whole:  # as nearly always
        return single
    ends = accumulate((_shared(decode(tokenizer, ids[:n]), whole) for n in range(1, len(ids))), max)
    return tuple(whole[start:end] for start, end in pairwise([0, *ends, len(whole)])) if len(ids) else ()


def continued(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that `ids` add to a prompt, the half of a character at its end left out."""
    whole = decode(tokenizer, [*prompt, *ids])
    return _CUT_OFF.sub("", whole[_shared(decode(tokenizer, prompt), whole) :])


def cut(tokenizer: Any, ids: Sequence[int], most: int) -> tuple[Sequence[int], str]:
    """The first `most` tokens and their text; up to three tokens fewer where the last character would be cut in two."""
    text = decode(tokenizer, ids[:most])
    for end in range(most, max(most - 4, 0), -1) if len(ids) > most else ():
        if not (shorter := decode(tokenizer, ids[:end])).endswith(HALF):
            return ids[:end], shorter
    return ids[:most], text


def after_bos(ids: Sequence[int], bos: int | None) -> Sequence[int]:
    """The tokens without the BOS tokens at their beginning."""
    return ids[next((at for at, token in enumerate(ids) if token != bos), len(ids)) :]


def _shared(text: str, whole: str) -> int:
    """How many characters two texts begin with together; a character that is half there does not count."""
    known = text if whole.startswith(text) else text.rstrip(HALF)
    return (
        len(known)
        if whole.startswith(known)
        else sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(known, whole, strict=False)))
    )


@dataclass(frozen=True)
class TokenizedTexts(Brief):
    """Texts as one model's tokens, all in one flat array.

    Attributes:
        ids: token ids of all texts, one after another, int32, BOS included where the features want it.
        offsets: where each text begins in `ids`; one more entry than texts.
        special: which tokens are special (BOS, EOS, padding, ...): they never count as activations.
        texts: what each text reads after truncation: exactly what the model sees, and so what the judge gets. A BOS that it was given
            with is left out, and so are written-out special tokens (see `WrittenSpecials`); the marks of chat turns are not.
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
    model: Model, given: Corpus | Sequence[str] | Sequence[Sequence[int]], *, context: int, prepend_bos: bool
) -> TokenizedTexts:
    """Texts as tokens of the model's own tokenizer, cut to the context or, where the corpus asks for it, into windows of it.

    A BOS that a text begins with (a chat template writes one) is not doubled. No character is cut in two. Special tokens that are written
    out in a text, such as "<start_of_image>", are no text: neither the model nor the judge gets them (see `WrittenSpecials`).

    Args:
        given: a corpus, texts, or token ids.
        context: most tokens of a text, BOS included.
        prepend_bos: whether a BOS stands in front of each text.

    Raises:
        InputError: the model has no tokenizer, or no chat template where the corpus holds conversations; a token id is not in its
            vocabulary; a context without room for a token.
    """
    if isinstance(given, Corpus):
        windows, texts = given.windows, given.texts if given.texts is not None else given.tokens
        if from_chat := texts is None:
            texts = written_out(model, given.conversations or (), given.source)
    else:
        windows, texts, from_chat = False, given, False
    tokenizer = tokenizer_of(model)
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        logger.info("%s has no BOS token; texts begin with their first token.", model_name(model))
    lead = [bos] if prepend_bos and bos is not None else []
    if (room := context - len(lead)) < 1:
        raise InputError(
            Argument("context"), f" is {context}, which leaves no token beside BOS; give at least {len(lead) + 1}"
        )
    specials = np.array(sorted(special_tokens(tokenizer)), dtype=np.int32)
    written = WrittenSpecials.of(tokenizer)
    ids, special = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=bool)]
    shown, documents = list[str](), list[int]()
    ends, n_documents, n_truncated, lost, total = [0], 0, 0, 0, 0
    for chunk in chunks(texts, sys.maxsize if windows else CHARACTERS_A_TOKEN * (room + MARGIN)):
        if isinstance(chunk[0], str):
            mark = str(tokenizer.bos_token) if lead else ""
            chunk = chunk if from_chat else [written.out_of(text) for text in chunk]
            chunk = [bare if mark and (bare := text.lstrip()).startswith(mark) else text for text in map(clean, chunk)]
            rows = whole_tokens(tokenizer, chunk) if windows else first_tokens(tokenizer, chunk, room)
        else:
            mark, rows = "", [list(row) for row in chunk]
            check_vocabulary(rows, int(model.cfg.d_vocab), n_documents)
        kept: list[Sequence[int]] = []
        for text, ids_given in zip(chunk, rows, strict=True):
            row = after_bos(ids_given, bos) if lead else ids_given
            while mark and len(row) < len(ids_given) and text.startswith(mark):
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


@dataclass(frozen=True)
class WrittenSpecials:
    """Special tokens that, written out in a text, are left out of it: markers of images, reserved tokens, padding.

    Those that part documents (BOS, EOS) or the turns of the tokenizer's chat template stay, for they tell the model something, and UNK,
    which stands for a word. Token ids that are given, and what the template itself writes, stay as they are.
    """

    names: frozenset[str]
    finder: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: Any) -> "WrittenSpecials":
        """Those of a tokenizer."""
        turns = [{"role": role, "content": "a"} for role in ("user", "assistant")]
        template = getattr(tokenizer, "chat_template", None)
        try:
            chat = str(tokenizer.apply_chat_template(turns, tokenize=False)) if template else ""
        except Exception:  # a template is a program, and raises what it likes
            chat = str(template)
        parting = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token)
        known = map(str, tokenizer.convert_ids_to_tokens(sorted(special_tokens(tokenizer))))
        names = {name for name in known if name and name not in parting and name not in chat}
        # Thousands are reserved in some vocabularies: what is written as such tokens are is found, and then looked up.
        others = sorted((name for name in names if not _BRACKETED.fullmatch(name)), key=len, reverse=True)
        return cls(frozenset(names), re.compile("|".join([*map(re.escape, others), _BRACKETED.pattern])))

    def out_of(self, text: str) -> str:
        """The text without them."""
        return self.finder.sub(lambda found: "" if found[0] in self.names else found[0], text) if self.names else text


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
    texts, written = list[str](), WrittenSpecials.of(tokenizer)
    for number, messages in enumerate(conversations):
        try:
            spoken = [
                one | {"content": written.out_of(said) if isinstance(said := one.get("content"), str) else said}
                for one in messages
            ]
            texts.append(tokenizer.apply_chat_template(spoken, tokenize=False) if messages else "")
        except Exception as error:  # a template is a program, and raises what it likes
            raise InputError(
                f"texts[{number}] of {source} does not fit the chat template of {model_name(model)} ({error}); mend it or leave it out"
            ) from error
    return texts


def chunks(texts: Sequence[str] | Sequence[Sequence[int]], longest: int) -> Iterator[list[Any]]:
    """The texts in order, a few at a time: about `CHUNK` characters, of a long text only the first `longest` being counted."""
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

    Only the beginning of a long text is tokenized, up to well behind the last token that is kept, so that the cut cannot
    change that token. Where this gives too few tokens (long runs of spaces), the whole text is tokenized.
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
