"""The evaluators: Clarity; Responsiveness and Purity; Faithfulness. Each can be used alone on a `Subject` and a `Judge`."""

from fade_lens.scorers.clarity import ClarityEvaluator
from fade_lens.scorers.faithfulness import FaithfulnessEvaluator
from fade_lens.scorers.ratings import RatingEvaluator

__all__ = ["ClarityEvaluator", "FaithfulnessEvaluator", "RatingEvaluator"]
