"""`patchscopes`: a model's own words for the directions of its features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Reason
from fade_lens.data.indices import checked_indices, chosen_indices
from fade_lens.generation.patchscopes import N_RANDOM, SCALES, SIGNALS, ByScale, answers, best, question, unusable
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model, model_name
from fade_lens.subject.lens import in_residual_stream

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Directions = Float[torch.Tensor, "direction d_model"]


@dataclass(frozen=True)
class SelfExplanations(Brief):
    """What a model says of its own directions, in the order asked for: a table in a notebook, `frame`, `best`, `plot`.

    Attributes:
        answers: of each feature, by its index; one a scale.
        random: of each random direction that was asked about beside them.
        model: its name.
    """

    answers: Mapping[int, ByScale]
    random: tuple[ByScale, ...]
    model: str = ""

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: int) -> ByScale:
        """The answers of one feature. Raises `InputError` for one that was not asked about."""
        if index not in self.answers:
            known = f"{', '.join(map(str, list(self.answers)[:8]))}{', …' if len(self) > 8 else ''}"
            raise InputError(f"feature {index} was not asked about; these were: {known}")
        return self.answers[index]

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """A row a feature and scale: index, scale, answer, self_similarity, entropy (nats), relevancy, score and kept.

        `fade_lens.generation.patchscopes.Answer` says what they are. random_answer is that of one random direction of the same norm,
        random_self_similarity, random_entropy, random_relevancy and random_score are means over all.
        """
        rows: list[dict[str, Any]] = []
        for index, own in self.answers.items():
            for one, *null in zip(own, *self.random, strict=True):
                row = {"index": index, "scale": one.scale, "answer": one.text}
                row |= {name: getattr(one, name) for name in (*SIGNALS, "score", "kept")} | {
                    "random_answer": null[0].text
                }
                rows.append(row | {f"random_{name}": float(np.mean([getattr(other, name) for other in null])) for name in (*SIGNALS, "score")})  # fmt: skip
        return table_of(rows)

    @cached_property
    def best(self) -> "pd.DataFrame":
        """A row a feature: index, answer (that of the largest score among those kept; empty where the model says nothing), its scale and score."""
        found = {index: best(own) for index, own in self.answers.items()}
        return table_of(
            {"index": index, "answer": one and one.text, "scale": one and one.scale, "score": one and one.score}
            for index, one in found.items()
        )

    def plot(self, index: int) -> "go.Figure":
        """Self-similarity, entropy, relevancy and score of a feature over scales, those of random directions beside them."""
        from fade_lens.report.scales import scales_figure

        return scales_figure(self, index)

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import self_explanations_table

        return self_explanations_table(self)


def patchscopes(
    model: Model,
    source: SAE[Any] | str | Directions | Float[np.ndarray, "direction d_model"],
    indices: Sequence[int] | int | str | None = None,
    scales: Sequence[float] = SCALES,
    *,
    ask: str | None = None,
    answer: str | None = None,
    layer: int | None = None,
    new_tokens: int = 8,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> SelfExplanations:
    """Ask an instruction-tuned model what a placeholder means, whose residual stream is replaced by a feature's direction, at many strengths.

    No text of a corpus and no other model is needed. Which scale is right differs by feature: three signals choose, each in units of what random
    directions do, and where no scale does more than these, the model says nothing of the feature.

    Args:
        model: instruction-tuned: a `HookedSAETransformer`, `HookedTransformer` or bridge whose tokenizer has a chat template.
        source: a `sae_lens` SAE or transcoder (of the base model, as a rule), a hook name for neurons, or directions of your own, a row each.
        indices: of the features, or of the rows: numbers, or words such as "0:20,512"; None for all rows.
        scales: norms of what is put in, in units of the residual stream's mean norm over the question at that layer.
        ask: the user's turn, with "{x}" for the placeholder; None for a question of our own.
        answer: how the model's turn begins, "{x}" in it too; a base model is asked only if this is given.
        layer: in front of which block the placeholder is replaced; None for the third.
        new_tokens: of an answer at most; it ends where the quotation ends that `answer` opens, else with its line.
        n_random: random directions that are asked about as well, to know what is said of any direction.
        seed: of these.

    Returns:
        Its `frame` has a row a feature and scale, its `best` one a feature; `plot(index)` shows the signals over scales.

    Raises:
        InputError: a base model, features whose directions do not reach the residual stream, an index that is not there, a wrong size.
    """
    d_model = int(model.cfg.d_model)
    source = torch.from_numpy(source) if isinstance(source, np.ndarray) else source
    if isinstance(source, torch.Tensor):
        if source.ndim != 2 or source.shape[1] != d_model:
            raise InputError(
                Argument("source"), f" has the shape {tuple(source.shape)}; give directions as [direction, {d_model}]"
            )
        wanted = chosen_indices(range(len(source)) if indices is None else indices, len(source), seed)
        wanted = checked_indices(wanted, len(source))
        rows: Directions | Reason = source[list(wanted)]
    else:
        if indices is None:
            raise InputError(Argument("indices"), " are missing; say which features, such as [0, 12] or '0:20'")
        features = features_of(model, source, indices, seed)
        wanted, rows = features.indices, in_residual_stream(model, features)
    if isinstance(rows, Reason):
        raise InputError(str(rows))
    if bad := unusable(rows):
        raise InputError(
            Argument("source"), f" gives feature {wanted[bad[0]]} a direction that is zero or no number; leave it out"
        )
    about = question(model, ask, answer, layer)
    own, random = answers(model, about, rows, scales, new_tokens=new_tokens, n_random=n_random, seed=seed)
    return SelfExplanations(dict(zip(wanted, own, strict=True)), tuple(random), model_name(model))
