"""Tokenizers that cut characters into bytes, as GPT-2's and as Llama's do, and a chat template."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}<turn>{{ message['role'] }}\n{{ message['content'] }}<end>{% endfor %}"
)
TEXTS = (
    "the cat sees 猫 and 黒猫です。",
    "สวัสดี ภาษาไทย",
    "👩🏽‍💻 writes 🇫🇷 code",
    "cafe\u0301 naïve الكتاب",
    " two  spaces\n\tand lines ",
    "a real \ufffd stands here",
    "",
)


def byte_level(bos: str = "<|endoftext|>", *, chat: bool = False, **options) -> PreTrainedTokenizerFast:
    """Byte-level BPE over single bytes and a few merges; with one special token, BOS and EOS in one, or a chat's."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t")]
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = {"bos_token": bos, "eos_token": "<eos>" if chat else bos, "pad_token": bos}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **special, **options)
    if chat:  # as DeepSeek's: what the template writes around turns is not marked as special
        made.add_tokens(["<turn>", "<end>", "<table>"])
        made.chat_template = TEMPLATE
    return made


def with_fallback() -> PreTrainedTokenizerFast:
    """Words with "▁" for blanks, anything else as bytes such as "<0xE2>"; decoding strips the first blank, as Llama's does."""
    words = ["<unk>", "<s>", "</s>", "▁", "▁the", "▁cat", "the", "s", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1) if chr(c) != "s"]
    vocabulary = {word: i for i, word in enumerate([*words, *letters])}
    merges = []
    for word in ("▁the", "▁cat"):
        for n in range(1, len(word)):
            merges.append((word[:n], word[n]))
            vocabulary.setdefault(word[: n + 1], len(vocabulary))
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
