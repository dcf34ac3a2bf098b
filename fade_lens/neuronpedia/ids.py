"""Names of things on Neuronpedia: `{modelId}/{sourceId}`, such as `gpt2-small/8-res-jb`, and where they are kept."""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fade_lens._util.errors import InputError

SITE = "https://www.neuronpedia.org"
BUCKET = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
NAME = re.compile(r"(?!\.+$)[\w.+-]{1,128}", re.ASCII)
"""What a model, a source or a file may be called: nothing that leads out of a folder."""


@dataclass(frozen=True)
class Hosts:
    """Where Neuronpedia is; the environment variables FADE_LENS_NEURONPEDIA_SITE and FADE_LENS_NEURONPEDIA_BUCKET change it.

    Raises:
        InputError: an address that is not http or https.
    """

    site: str = field(default_factory=lambda: os.environ.get("FADE_LENS_NEURONPEDIA_SITE", SITE))
    bucket: str = field(default_factory=lambda: os.environ.get("FADE_LENS_NEURONPEDIA_BUCKET", BUCKET))

    def __post_init__(self) -> None:
        for name in ("site", "bucket"):
            address = str(getattr(self, name)).rstrip("/")
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise InputError(f"Neuronpedia's {name} is {address!r}; give an http or https address, such as {SITE}")
            object.__setattr__(self, name, address)


@dataclass(frozen=True)
class SourceId:
    """One set of features on Neuronpedia: a model there and a source of it, such as `8-res-jb` (a bare number: MLP neurons)."""

    model_id: str
    source_id: str

    def __post_init__(self) -> None:
        for name in ("model_id", "source_id"):
            if not NAME.fullmatch(getattr(self, name)):
                raise InputError(
                    f"Neuronpedia {name} {getattr(self, name)!r:.80} is not a name; an id is MODEL/SOURCE, as in gpt2-small/8-res-jb"
                )

    def __str__(self) -> str:
        return f"{self.model_id}/{self.source_id}"

    @classmethod
    def parse(cls, text: str) -> "SourceId":
        """From `gpt2-small/8-res-jb`, or the address of a page; the index of a feature after it is left out.

        Raises:
            InputError: no such form.

        >>> str(SourceId.parse("https://www.neuronpedia.org/gpt2-small/8-res-jb/204?embed=true"))
        'gpt2-small/8-res-jb'
        """
        path = urlsplit(text).path if "://" in text else text
        parts = [part for part in path.strip().strip("/").split("/") if part]
        if len(parts) == 3 and parts[2].isdigit():
            parts.pop()
        if len(parts) != 2:
            raise InputError(f"{text!r:.120} is not a Neuronpedia id; give MODEL/SOURCE, as in gpt2-small/8-res-jb")
        return cls(*parts)

    @classmethod
    def named(cls, model: str, source: str) -> "SourceId | None":
        """The source that data names; None where it names none, or one of which Neuronpedia has no page (a user's own table may)."""
        return cls(model, source) if NAME.fullmatch(model) and NAME.fullmatch(source) else None

    @property
    def layer(self) -> int | None:
        """The layer that the source names, None where it names none."""
        head = self.source_id.split("-", 1)[0]
        return int(head) if head.isdigit() else None

    @property
    def is_neurons(self) -> bool:
        """Whether these are MLP neurons, whose source is a bare layer number."""
        return self.source_id.isdigit()
