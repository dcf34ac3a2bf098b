"""The tokens that features promote, as explainers are shown them: by the direction alone, and by what the model says when it is steered."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fade_lens._util.reasons import Reason
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers.base import FeatureEvidence

logger = logging.getLogger(__name__)


def with_tokens(
    evidence: Evidence, found: Mapping[int, FeatureEvidence], logits: int, changes: int
) -> Mapping[int, FeatureEvidence]:
    """What is shown of some features, with tokens that they promote and suppress.

    Args:
        evidence: of the run.
        found: what is shown of each feature so far.
        logits: how many tokens of each kind by the logit lens.
        changes: how many of each kind by steering at the feature's reference activation; a feature that never fires has none.
    """
    from fade_lens.subject.lens import promoted_tokens

    indices, subject = list(found), evidence.subject
    if logits and indices:
        tokens = promoted_tokens(subject.model, subject.features.select(indices), logits)
        if isinstance(tokens, Reason):
            logger.warning("promoted tokens are not shown: %s", tokens)
        else:
            found = {
                i: replace(one, promoted=named(of.promoted), suppressed=named(of.suppressed))
                for (i, one), of in zip(found.items(), tokens, strict=True)
            }
    if changes and indices:
        from fade_lens.generation.token_change import changes_on

        steered = changes_on(subject, indices, np.array(evidence.texts("show")), changes)
        found = {
            i: replace(one, likelier=named(of.promoted), unlikelier=named(of.suppressed))
            for (i, one), of in zip(found.items(), steered, strict=True)
        }
    return found


def named(pairs: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """The tokens alone."""
    return tuple(token for token, _ in pairs)
