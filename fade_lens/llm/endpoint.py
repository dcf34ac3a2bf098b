"""Where a judge is and which key it is shown: nothing goes to a host, and no key to a server, that the user did not choose."""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fade_lens._util.errors import InputError

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_URL = "http://localhost:11434/v1"
SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "openrouter": ("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "lmstudio": ("http://localhost:1234/v1", ()),
    "vllm": ("http://localhost:8000/v1", ()),
    "llamacpp": ("http://localhost:8080/v1", ()),
}
"""Servers that go by a name: where they are unless they were moved, and which of the environment's keys may be sent there."""
FORMS = (
    "'openai:gpt-4o-mini', 'azure:deployment', 'ollama:llama3.2', 'openrouter:org/model', 'vllm:model', 'lmstudio:model', "
    "'llamacpp:model', 'http://host:8000/v1#model' or 'gguf:/path/to/model.gguf'"
)

OWN = "own server"
"""What stands for the address of a server of the user's own: it changes from machine to machine, and the model is the same."""
_OWN_NAMES = re.compile(
    r".*\.(localhost|local|localdomain|lan|home|internal|intranet|corp|private|svc|home\.arpa|fritz\.box|mshome\.net|cluster|consul|test|ts\.net)"
)
"""Last parts of names that no public server has."""
_SHORTEST_KEY = 12
"""Anything shorter, such as "EMPTY", stands in for a key where a server wants none, and may be a word of an answer."""
_KEY_LIKE = re.compile(r"\bsk-[\w-]{6,}|(?<=Bearer )\S+")


class Secret:
    """A key that does not appear in representations, logs or pickles; only `reveal` gives it."""

    def __init__(self, value: str) -> None:
        self._reveal = lambda: value

    def reveal(self) -> str:
        """The key itself."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is never pickled")


@dataclass(frozen=True)
class Endpoint:
    """A server's address, what authenticates there, and how it is named in settings and transcripts."""

    base_url: str
    key: Secret | None = None
    key_header: str = "Authorization"
    query: Mapping[str, str] = field(default_factory=dict)
    needs_key: str = ""
    """Which environment variable to set, where the server cannot be asked without a key."""
    name: str = ""
    """What stands for the address where there is none before the server is started."""
    known_as: str = ""
    """What the user calls the server, wherever it is."""
    key_names: tuple[str, ...] = ()
    """Which of the environment's keys may be sent there."""

    @property
    def label(self) -> str:
        """The address as messages have it."""
        return self.name or self.base_url

    @property
    def identity(self) -> str:
        """What stored answers are kept under beside the model: the address, or the same words for all servers of the user's own."""
        return self.known_as or self.name or (OWN if self.own else _plain(self.base_url))

    def known(self, model: str) -> str:
        """A model's name as answers are stored under it: without Ollama's tag "latest"."""
        return model.removesuffix(":latest") if self.own else model

    @property
    def own(self) -> bool:
        """Whether the server is on this machine or a network of the user's, as its address tells."""
        host, address = self._place
        if address is None:
            return "." not in host or _OWN_NAMES.fullmatch(host) is not None
        return not address.is_global

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        host, address = self._place
        return host.split(".")[-1] == "localhost" if address is None else address.is_loopback

    @property
    def _place(self) -> tuple[str, IPv4Address | IPv6Address | None]:
        """The host, and its address where it is one."""
        host = (urlsplit(self.base_url).hostname or "").rstrip(".")
        with suppress(ValueError):
            address = ip_address(host)
            return host, getattr(address, "ipv4_mapped", None) or address
        return host, None

    @property
    def is_openai(self) -> bool:
        """Whether the server is OpenAI's own."""
        return self.base_url == OPENAI_URL

    def headers(self) -> dict[str, str]:
        """The headers that authenticate."""
        if self.key is None:
            return {}
        key = self.key.reveal()
        return {self.key_header: f"Bearer {key}" if self.key_header == "Authorization" else key}

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: no key. Raises `InputError` for a key that the environment does not give again."""
        found = find_key(None, self.key_names)
        if self.key is not None and (found is None or found.reveal() != self.key.reveal()):
            name = self.needs_key or next(iter(self.key_names), "FADE_LENS_API_KEY")
            raise InputError(
                f"the key for {self.label} was given as api_key, and a key is never pickled: set {name} in the environment "
                "(or in .env) of every process, and leave api_key out"
            )
        return {**vars(self), "key": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "key": find_key(None, state["key_names"])})


def endpoint(base_url: str | None, api_key: str | None) -> Endpoint:
    """A server and the key that it is shown.

    Args:
        base_url: its address; None is OpenAI's own.
        api_key: the key; None takes it from the environment or from `.env` in the working folder: `FADE_LENS_API_KEY` for any server,
            `OPENAI_API_KEY` for OpenAI alone.

    Raises:
        InputError: no usable address or key.
    """
    url = OPENAI_URL if base_url is None else checked_url(base_url)
    if url == OPENAI_URL:
        return keyed(url, api_key, ("FADE_LENS_API_KEY", "OPENAI_API_KEY"), needs_key="OPENAI_API_KEY")
    place = keyed(url, api_key, ("FADE_LENS_API_KEY",))
    if place.key is not None and url.startswith("http://") and not place.loopback:
        logger.warning("the key for %s goes over an unencrypted connection: use https where the server has it", url)
    return place


def keyed(url: str, api_key: str | None, names: tuple[str, ...], **more: Any) -> Endpoint:
    """An endpoint and its key.

    Args:
        url: an address that was checked.
        api_key: the key; None takes the first of `names` in the environment or `.env`.
        names: which of the environment's keys may be sent there.
        more: further fields of `Endpoint`.

    Raises:
        InputError: no usable key.
    """
    return Endpoint(url, find_key(api_key, names), key_names=names, **more)


def azure_endpoint(address: str, deployment: str, api_key: str | None, api_version: str) -> Endpoint:
    """A deployment's endpoint; an address that ends in /openai/v1 is the API without versions."""
    address = checked_url(address)
    name = "AZURE_OPENAI_API_KEY"
    more: dict[str, Any] = {"key_header": "api-key", "needs_key": name}
    if address.endswith("/openai/v1"):
        return keyed(address, api_key, (name,), **more)
    place = f"{address}/openai/deployments/{deployment}"
    return keyed(place, api_key, (name,), query={"api-version": api_version}, **more)


def checked_url(base_url: str) -> str:
    """`base_url` without a trailing slash. Raises `InputError` for what is no plain http(s) address."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or half a bracket
        parts, usable = None, False
    if parts is not None and (parts.username or parts.password):
        raise InputError("base_url holds a user name or password: give the address alone, and the key as api_key")
    if parts is None or not usable or re.search(r"\s", base_url):
        raise InputError(
            f"base_url {shown(base_url)!r} is no address of a server: give one such as 'http://localhost:8000/v1'"
        )
    if parts.query or parts.fragment:
        raise InputError(
            f"base_url {shown(base_url)!r} goes on with a query or fragment: give the address alone, and the key as api_key"
        )
    return base_url.rstrip("/")


def _plain(address: str) -> str:
    """An address in its usual form: host in small letters, without the protocol's own port.

    >>> _plain("https://API.Example.com:443/v1")
    'https://api.example.com/v1'
    """
    parts = urlsplit(address)
    host = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    return f"{parts.scheme}://{host}{parts.path}"


def shown(address: str) -> str:
    """`address` as a message may have it: without user name, password, query and fragment, which may be keys.

    >>> shown("http://user:password@host/v1?key=secret")
    'http://host/v1'
    """
    place = re.sub(r"(?s)^(\w+://)?.*@", r"\1", address)  # to the last @: a password may hold any sign
    return redact(re.split("[?#]", place)[0], None)


def find_key(given: str | None, names: tuple[str, ...]) -> Secret | None:
    """The key given, or the first of `names` in the environment, then in `.env` in the working folder; None where there is none.

    Raises:
        InputError: a key that is empty or holds characters that no key has.
    """
    if given is not None:
        if not given.strip() or not given.strip().isprintable() or not given.isascii():
            raise InputError("api_key is empty or holds characters that no key has: give the key alone, or None")
        return Secret(given.strip())
    sources: list[Mapping[str, str | None]] = [os.environ]
    if Path(".env").is_file():
        from dotenv import dotenv_values

        sources.append(dotenv_values(".env"))
    for source in sources:
        for name in names:
            if value := (source.get(name) or "").strip():
                return Secret(value)
    return None


def redact(text: str, key: Secret | None) -> str:
    """`text` without the key and without anything that looks like one."""
    if key is not None:
        text = text.replace(key.reveal(), "***")
    return _KEY_LIKE.sub("***", text)


def without_key(answer: str, key: Secret | None) -> str:
    """A model's own words without the key, should a server repeat it there; all else in them is kept."""
    if key is None or len(key.reveal()) < _SHORTEST_KEY:
        return answer
    return answer.replace(key.reveal(), "***")


def parse_spec(spec: str) -> tuple[str, str, str | None]:
    """A judge's spec in its parts.

    Args:
        spec: such as "openai:gpt-4o-mini" or "http://host:8000/v1#model" (see `Judge.parse`).

    Returns:
        Its kind ("url", or what stands before the colon), the model or path, and the server's address where the spec tells it.

    Raises:
        InputError: any other form; the message lists the accepted ones.

    Example:
        >>> parse_spec("http://host:8000/v1#llama")
        ('url', 'llama', 'http://host:8000/v1')
    """
    kind, _, rest = spec.partition(":")
    if kind in ("openai", "azure", "ollama", "gguf", *SERVERS) and rest.strip():
        return kind, rest.strip(), SERVERS[kind][0] if kind in SERVERS else None
    if kind in ("http", "https"):
        url, _, model = spec.partition("#")
        address = checked_url(url)
        if model:
            return "url", model, address
        raise InputError(f"judge {address!r} names no model: add it after '#', as in '{address}#model'")
    raise InputError(f"judge {shown(spec)!r} is not understood: give {FORMS}")
