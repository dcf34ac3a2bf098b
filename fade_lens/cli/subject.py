"""The options on what is evaluated that commands share: the model and its features, and the natural texts."""

from dataclasses import dataclass
from typing import Any

from fade_lens.cli.groups import Group
from fade_lens.cli.options import (
    Column,
    Device,
    Dtype,
    Hook,
    Limit,
    Model,
    Release,
    SaeFolder,
    SaeId,
    Texts,
    Windows,
    check_subject,
    one_source,
    open_corpus,
    open_model,
    open_sae,
)


@dataclass(frozen=True, kw_only=True)
class SubjectOptions(Group):
    """A model and some of its features: SAE latents, or neurons at a hook."""

    model: Model
    sae_release: Release = None
    sae_id: SaeId = None
    sae: SaeFolder = None
    hook: Hook = None
    device: Device = None
    dtype: Dtype = "float32"

    def check_given(self) -> None:
        """Raise `InputError` unless one SAE or hook is given; nothing is opened or looked up."""
        one_source(self.sae_release, self.sae_id, self.sae, self.hook)

    def check(self) -> dict[str, Any]:
        """What the SAE's config asks of the model, for `open`; names, device and dtype are checked and no weights are read.

        Raises `InputError`.
        """
        return check_subject(self.model, self.sae_release, self.sae_id, self.sae, self.hook, self.device, self.dtype)

    def open(self, published: dict[str, Any]) -> tuple[Any, Any]:
        """The model, and the SAE or the hook name, as `Fade` takes them. Raises `InputError`."""
        model = open_model(self.model, self.device, self.dtype, published)
        return model, self.hook or open_sae(self.sae_release, self.sae_id, self.sae, str(model.cfg.device))


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(Group):
    """Natural texts."""

    corpus: Texts
    corpus_column: Column = "text"
    corpus_limit: Limit = None
    corpus_windows: Windows = False

    def open(self) -> Any:
        """The corpus. Raises `InputError`."""
        return open_corpus(self.corpus, self.corpus_column, self.corpus_limit, self.corpus_windows)
