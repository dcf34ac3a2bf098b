"""`causes`: which tokens of a text make a feature fire at later ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens.runs.ray import Ray, workers_of
from fade_lens.subject.activations import OutlierRule, token_activations
from fade_lens.subject.causes import causes_of
from fade_lens.subject.features import Source, features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.tokens import pieces, tokenize

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("index", "text", "position", "token", "activation", "cause")
MOST_TEXTS = 1000
"""A text costs half the square of its length."""


def causes(
    model: Model,
    source: Source,
    indices: Sequence[int] | int | str,
    texts: str | Sequence[str],
    *,
    silences: bool = False,
    ray: Ray = None,
) -> "pd.DataFrame":
    """What every token of some texts does to some features at the tokens behind it: each is left out in turn, and the rest runs again.

    Nothing is approximated. As in `fires`, tokens with massive activations count, for no corpus tells which they are.

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name for neurons.
        indices: of the features: numbers, or words such as "0:20,512".
        texts: one text, or several; a text longer than the model's context is cut.
        silences: also what a token does to later tokens at which the feature is silent (the column `silence`): below 0 it keeps it from firing.
        ray: as in `Fade.evaluate`.

    Returns:
        A row for every feature, text and token: index, text (its number), position (BOS being 0), token, activation (empty at special
        tokens), and cause: the sum over the later tokens at which the feature fires of its activation less that without this token, in units
        of activation; above 0 the token makes it fire, below 0 it holds it back. Empty for special tokens, which are never left out.

    Raises:
        InputError: no text or an empty one, more than a thousand, an SAE that does not fit the model, an unknown hook, an index that is not there.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given or len(given) > MOST_TEXTS:
        raise InputError(Argument("texts"), f" holds {len(given)} texts; give 1 to {MOST_TEXTS}")
    features = features_of(model, source, indices)
    tokens = tokenize(model, given, context=int(model.cfg.n_ctx), prepend_bos=features.prepend_bos)
    for text in range(len(tokens)):
        if tokens.special_of(text).all():
            raise InputError(Argument("texts"), f": {given[text][:40]!r} holds no token that counts")
    columns = [range(len(features))] * len(tokens)
    with workers_of(ray) as workers:
        seen = token_activations(model, features, tokens, OutlierRule(float("inf")), workers=workers)
        found = causes_of(model, features, tokens, seen, columns, silences=silences, workers=workers)
    rows: list[dict[str, Any]] = []
    for column, index in enumerate(features.indices):
        for text, (values, one) in enumerate(zip(seen, found, strict=True)):
            for position, token in enumerate(pieces(model.tokenizer, tokens[text].tolist())):
                at = position, column
                told = (index, text, position, token, float(values[at]), float(one.causes[at]))
                more = {} if one.silences is None else {"silence": float(one.silences[at])}
                rows.append(dict(zip(COLUMNS, told, strict=True)) | more)
    return table_of(rows)
