"""`patchscopes`: a model's own words for the directions of its features."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from sae_lens import SAE

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Reason
from fade_lens.data.indices import chosen_indices
from fade_lens.generation.patchscopes import SCALES, answers, question
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.lens import in_residual_stream

if TYPE_CHECKING:
    import pandas as pd

Directions = Float[torch.Tensor, "direction d_model"]


def patchscopes(
    model: Model,
    source: SAE[Any] | str | Directions,
    indices: Sequence[int] | int | str | None = None,
    scales: Sequence[float] = SCALES,
    *,
    ask: str | None = None,
    answer: str | None = None,
    layer: int | None = None,
    new_tokens: int = 12,
    seed: int = 0,
) -> "pd.DataFrame":
    """Ask an instruction-tuned model what a placeholder means, whose residual stream is replaced by a feature's direction, at many strengths.

    No text of a corpus and no other model is needed. Which scale is right differs by feature: self-similarity and entropy help to choose.

    Args:
        model: instruction-tuned: a `HookedSAETransformer`, `HookedTransformer` or bridge whose tokenizer has a chat template.
        source: a `sae_lens` SAE or transcoder (of the base model, as a rule), a hook name for neurons, or directions of your own, a row each.
        indices: of the features, or of the rows: numbers, or words such as "0:20,512"; None for all rows.
        scales: norms of what is put in, in units of the residual stream's mean norm over the question at that layer.
        ask: the user's turn, with "{x}" for the placeholder; None for a question of our own.
        answer: how the model's turn begins, "{x}" in it too.
        layer: in front of which block the placeholder is replaced; None for the third.
        new_tokens: of an answer at most; it ends at the first quotation mark.
        seed: of the random directions.

    Returns:
        A row a feature and scale: index, scale, answer, self_similarity, entropy (nats), relevancy (see
        `fade_lens.generation.patchscopes.Answer`), random_answer and random_relevancy of a random direction of the same norm, and kept: whether
        the answer says something and owes more to the direction than that of the random one does.

    Raises:
        InputError: a base model, features whose directions do not reach the residual stream, an index that is not there, a wrong size.
    """
    d_model = int(model.cfg.d_model)
    if isinstance(source, torch.Tensor):
        if source.ndim != 2 or source.shape[1] != d_model:
            raise InputError(
                Argument("source"), f" has the shape {tuple(source.shape)}; give directions as [direction, {d_model}]"
            )
        wanted = chosen_indices(range(len(source)) if indices is None else indices, len(source), seed)
        rows: Directions | Reason = source[list(wanted)]
    else:
        if indices is None:
            raise InputError(Argument("indices"), " are missing; say which features, such as [0, 12] or '0:20'")
        wanted = chosen_indices(indices, features_of(model, source, [0]).n_features, seed)
        rows = in_residual_stream(model, features_of(model, source, wanted))
    if isinstance(rows, Reason):
        raise InputError(str(rows))
    found = answers(model, question(model, ask, answer, layer), rows, scales, new_tokens=new_tokens, seed=seed)
    return table_of(
        {
            "index": index,
            "scale": own.scale,
            "answer": own.text,
            "self_similarity": own.self_similarity,
            "entropy": own.entropy,
            "relevancy": own.relevancy,
            "random_answer": null.text,
            "random_relevancy": null.relevancy,
            "kept": own.says_more_than(null),
        }
        for index, both in zip(wanted, found, strict=True)
        for own, null in zip(*both, strict=True)
    )
