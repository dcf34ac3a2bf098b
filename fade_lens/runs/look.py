"""`look`: features without a description, for people to see; no judge is asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.files import table_of, write_text
from fade_lens._util.progress import Stages
from fade_lens._util.reasons import Reason
from fade_lens.data.corpus import Corpus
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.ray import Ray, workers_of
from fade_lens.runs.record import RunRecord
from fade_lens.subject.features import Source
from fade_lens.subject.hooks import Model, model_name
from fade_lens.subject.look import FeatureLook, LookSettings, looks
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import Promoted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Look(Brief):
    """Features as `look` saw them, in the order asked for: cards in a notebook, `frame`, `to_html`.

    Attributes:
        items: what there is to see of each feature.
        run: what they are of: model, features, corpus, settings.
    """

    items: tuple[FeatureLook, ...]
    run: RunRecord

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[FeatureLook]:
        return iter(self.items)

    def __getitem__(self, index: int) -> "Look":
        """One feature, by its index in the SAE or hook: a card in a notebook. Raises `InputError` for one that was not looked at."""
        found = tuple(item for item in self.items if item.index == index)
        if not found:
            known = ", ".join(str(item.index) for item in self.items[:8])
            raise InputError(f"feature {index} was not looked at; these were: {known}{', …' if len(self) > 8 else ''}")
        return replace(self, items=found)

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a feature.

        `firing_rate` is the share of tokens, `density` that of texts on which it fires; `peak_tokens` are those at which its strongest texts
        peak, with how many do, and `peak_entropy` their entropy in bits: near 0 it fires for a word, near its largest value for a context.
        `token_entropy` is that of all its activation on these texts over the tokens of the vocabulary, in nats, `effective_tokens` its exponential.
        `likelier` and `unlikelier`, where they were asked for (`changed_tokens`), are tokens by steering. Neighbours have their likeness in brackets: the cosine of decoder directions, the share of texts on which both fire. Where tokens or
        nearest directions are not known, a reason says why.
        """
        return table_of(row_of(item) for item in self.items)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: a table, and a card for every feature."""
        from fade_lens.report.looking import look_page

        return write_text(path, look_page(self))

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import look_cards

        return look_cards(self)


def look(
    model: Model,
    source: Source,
    indices: Sequence[int] | int | str,
    corpus: Corpus | Sequence[str],
    *,
    settings: LookSettings | None = None,
    progress: bool = True,
    ray: Ray = None,
    **overrides: Any,
) -> Look:
    """See some latents of an SAE, or neurons of a hook: the texts on which they fire, the tokens they promote, the features that are like them.

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name such as "blocks.20.mlp.hook_post" for neurons.
        indices: of the features; or in words "0:20,512", or "random:50": so many of all, dead ones too, drawn with `seed`.
        corpus: natural texts: a `Corpus`, or a list of strings.
        settings: a `LookSettings`; any of its fields can also be given by name.
        progress: show a progress bar.
        ray: as in `Fade.evaluate`.

    Raises:
        InputError: an SAE that does not fit the model, an unknown hook, an index that is not there, an empty corpus, an unknown setting.
    """
    chosen = settings_with(settings or LookSettings(), overrides)
    subject, stages = Subject(model, source, corpus, indices, chosen), Stages(progress)
    with workers_of(ray) as subject.workers, stages.showing():
        subject.workers.start()
        seen = subject.observe(progress=stages.stage("model: natural texts", len(subject.tokens)))
        items = looks(subject, chosen)
        if n := chosen.changed_tokens:
            from fade_lens.generation.token_change import changes_on

            changes = changes_on(subject, subject.features.indices, np.arange(len(subject.tokens)), n, stages)
            items = tuple(replace(item, changed=one) for item, one in zip(items, changes, strict=True))
    names = {"model": model_name(model), "features": names_of(source)}
    left_out = {
        "n_outliers": seen.n_outliers,
        "n_truncated": subject.tokens.n_truncated,
        "text_lost": subject.tokens.lost,
    }
    return Look(items, RunRecord.of({**subject.identity(), "settings": chosen.to_dict()}, names, **left_out))


def settings_with(settings: LookSettings, overrides: Mapping[str, Any]) -> LookSettings:
    """Settings with some changed. Raises `InputError` for a name that is none of them."""
    known = sorted(field.name for field in fields(LookSettings))
    if unknown := set(overrides) - set(known):
        raise InputError(f"unknown setting {min(unknown)!r}; the settings are {', '.join(known)}")
    return replace(settings, **overrides)


def row_of(item: FeatureLook) -> dict[str, Any]:
    """One row of `Look.frame`."""
    feature, lens = item.feature, item.promoted
    near = item.nearest if isinstance(item.nearest, tuple) else ()
    up, down = (lens.promoted, lens.suppressed) if isinstance(lens, Promoted) else ((), ())
    return {
        "index": item.index,
        "firing_rate": feature.firing_rate,
        "density": feature.firing_texts / feature.n_texts if feature.n_texts else None,
        "firing_texts": feature.firing_texts,
        "largest_activation": feature.largest,
        "peak_tokens": ", ".join(f"{token!r} {n}" for token, n in item.peaks.most_common(5)),
        "peak_entropy": item.entropy,
        "token_entropy": feature.token_entropy,
        "effective_tokens": feature.effective_tokens,
        "promoted": quoted(up),
        "suppressed": quoted(down),
        **(
            {}
            if item.changed is None
            else {"likelier": quoted(item.changed.promoted), "unlikelier": quoted(item.changed.suppressed)}
        ),
        "promoted_reason": str(lens) if isinstance(lens, Reason) else None,
        "nearest": ", ".join(f"{index} ({cosine:.2f})" for index, cosine in near),
        "nearest_reason": str(item.nearest) if isinstance(item.nearest, Reason) else None,
        "together": ", ".join(f"{index} ({share:.2f})" for index, share in item.together),
        "strongest_text": feature.top[0].passage() if feature.top else "",
        "flags": "; ".join(item.feature.flags),
    }


def quoted(pairs: Sequence[tuple[str, float]]) -> str:
    """Tokens as one cell."""
    return ", ".join(repr(token) for token, _ in pairs)
