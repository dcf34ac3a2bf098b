"""The options on what is evaluated that commands share: the model and its features, and the natural texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fade_lens._util.errors import InputError
from fade_lens.cli.groups import Group
from fade_lens.cli.options import (
    DEMO,
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
    check_features,
    check_hook,
    check_subject,
    one_source,
    open_corpus,
    open_model,
    open_sae,
    open_tokenizer,
    width_of,
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
    dtype: Dtype = None

    def check_given(self, features: Sequence[int] | int | str | None = None) -> None:
        """Raise `InputError` unless one SAE or hook is given, or for features that an SAE in a folder does not have; torch is not there yet."""
        one_source(self.sae_release, self.sae_id, self.sae, self.hook)
        if features is not None and self.sae is not None:
            check_features(features, width_of(self.sae))

    def check(self, features: Sequence[int] | int | str | None = None) -> dict[str, Any]:
        """What the SAE's config asks of the model, for `open`; names, features, device and dtype are checked and no weights are read.

        Raises `InputError`.
        """
        found = check_subject(self.model, self.sae_release, self.sae_id, self.sae, self.hook, self.device, self.dtype)
        width = check_hook(self.model, self.hook, found)
        found |= {} if width is None else {"width": width}
        if features is not None:
            check_features(features, self.n_features(found))
        return found

    def n_features(self, published: dict[str, Any]) -> int | None:
        """How many latents the SAE has, or how wide the hook is, by what `check` found; None where that is not known yet."""
        if str(self.sae) == DEMO:
            return width_of(Path(DEMO))
        return published.get("d_sae", published.get("width"))

    def check_explainer(self, name: str, settings: Any) -> None:
        """Raise `InputError` for an explainer that the model's tokenizer tells to be of no use; no weights are read."""
        from fade_lens.explainers.base import explainer_of

        explainer_of(name)(settings).check_tokenizer(partial(open_tokenizer, self.model))

    def open(self, published: dict[str, Any]) -> tuple[Any, Any]:
        """The model, and the SAE or the hook name, as `Fade` takes them. Raises `InputError`."""
        model = open_model(self.model, self.device, self.dtype, published)
        return model, self.source(str(model.cfg.device))

    def source(self, device: str) -> Any:
        """The SAE, or the hook name. Raises `InputError`."""
        return self.hook or open_sae(self.sae_release, self.sae_id, self.sae, device)


@dataclass(frozen=True, kw_only=True)
class SubjectsOptions(Group):
    """A model and one or several of its SAEs and hooks."""

    model: Model
    sae_release: Release = None
    sae_id: Annotated[list[str] | None, typer.Option(help="SAE within the release; may be given several times.")] = None
    sae: Annotated[
        list[Path] | None,
        typer.Option("--sae", help="Folder of an SAE saved by SAELens, or `demo`; may be given several times."),
    ] = None
    hook: Annotated[
        list[str] | None, typer.Option(help="Hook name in place of an SAE, to see neurons; may be given several times.")
    ] = None
    device: Device = None
    dtype: Dtype = None

    @property
    def each(self) -> dict[str, SubjectOptions]:
        """The options of each of them, by what it is called."""
        one = partial(SubjectOptions, model=self.model, device=self.device, dtype=self.dtype)
        return {
            **{name: one(sae_release=self.sae_release, sae_id=name) for name in self.sae_id or ()},
            **{str(folder): one(sae=folder) for folder in self.sae or ()},
            **{name: one(hook=name) for name in self.hook or ()},
        }

    def check_given(self) -> None:
        """Raise `InputError` unless one or several are given; nothing is opened or looked up."""
        if bool(self.sae_release) != bool(self.sae_id):
            raise InputError("--sae-release and --sae-id go together; give both")
        if not self.each:
            raise InputError(
                "give --sae-release with --sae-id, --sae or --hook; each but the release may be given several times"
            )
        for one in self.each.values():
            one.check_given()

    def open(self) -> tuple[Any, dict[str, Any]]:
        """The model, and the SAEs and hook names, as `fade_lens.fires` takes them. Raises `InputError`, before the model is loaded if it can."""
        from fade_lens.subject.loading import asked_of_model

        published = {name: one.check() for name, one in self.each.items()}
        asked = [asked_of_model(found) for found in published.values() if found]
        if any(some != asked[0] for some in asked):
            raise InputError(
                f"{' and '.join(published)} ask for a model that is loaded in different ways; give them one by one"
            )
        first = next((found for found in published.values() if found), {})
        model = open_model(self.model, self.device, self.dtype, first)
        return model, {name: one.source(str(model.cfg.device)) for name, one in self.each.items()}


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
