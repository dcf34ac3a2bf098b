"""Detection-style scores from the rated texts: best F1, IoU, correlation, balanced accuracy.

AUROC alone passes a description that names too little: it fails the missing-labels check of Oikarinen et al. (ICML 2025), which F1, IoU and
correlation pass. All are weighted by 1 / inclusion, so that they estimate the corpus and not the sample.
"""

from dataclasses import dataclass

import numpy as np

from fade_lens._util.brief import Brief
from fade_lens.metrics.labelled import LabelledTexts
from fade_lens.metrics.ranking import Ranked, balanced_accuracy, correlation, iou


@dataclass(frozen=True)
class Detection(Brief):
    """How well the activation tells the texts rated 2 from those rated 0 (partial ratings are left out, as in Responsiveness).

    Attributes:
        f1: largest F1 over thresholds "activation at least t"; chosen on the same texts, so a little high with few positives.
        threshold: that t, in units of activation.
        iou: texts at or above it that are rated 2, as a share of those that are either; F1 / (2 − F1).
        correlation: Pearson correlation of the activation with the rating.
        correlation_fires: the same with "the activation is above 0" in place of the activation.
        balanced_accuracy: mean of the share of texts rated 2 on which the feature fires (above 0) and of texts rated 0 on
            which it does not: what detection scoring reports.
        reason: why all are None.

    A value is None where it is undefined: all without a text rated 2 or one rated 0, correlations also where a side does not vary.
    """

    f1: float | None = None
    threshold: float | None = None
    iou: float | None = None
    correlation: float | None = None
    correlation_fires: float | None = None
    balanced_accuracy: float | None = None
    reason: str | None = None


def detection(texts: LabelledTexts) -> Detection:
    """Detection-style scores of one description's rated texts, all None with a reason where a rating, 2 or 0, is missing.

    >>> texts = LabelledTexts.of_ratings(np.array([4.0, 3.0, 2.0, 0.0, 0.0]), np.array([2, 0, 2, 0, 0]))
    >>> found = detection(texts)
    >>> found.f1, found.threshold, round(found.iou, 3), round(found.balanced_accuracy, 3)
    (0.8, 2.0, 0.667, 0.833)
    """
    if (rating := texts.one_sided) is not None:
        return Detection(reason=f"no text is rated {rating}")
    values, positive, weights = texts
    hits, alarms = Ranked(values, positive, weights[None]).cumulated()
    f1 = (2 * hits / (hits + alarms + hits[:, -1:]))[0]
    threshold = float(np.unique(values)[::-1][int(np.argmax(f1))])
    return Detection(
        f1=float(f1.max()),
        threshold=threshold,
        iou=iou(*texts, threshold=float(np.nextafter(threshold, -np.inf))),
        correlation=correlation(*texts),
        correlation_fires=correlation((values > 0).astype(np.float64), positive, weights),
        balanced_accuracy=balanced_accuracy(*texts),
    )
