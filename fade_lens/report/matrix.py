"""The cross matrices of a run, small enough for a page: every feature against every description."""

import base64
from typing import Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.words import clip
from fade_lens.baselines.cross_scores import SPECS
from fade_lens.runs.results import Results

MOST = 200
"""Of more features or descriptions a cell is smaller than a dot, and the matrices are left out."""
UNDEFINED = 255


def heat_map(results: Results, places: dict[str, int]) -> dict[str, Any] | None:
    """The matrices as a JSON value, or None where the run has none or more than `MOST` rows or columns.

    `places` gives each description's row in the page's table by its key.
    """
    cross = getattr(results, "cross_scores", None)
    if cross is None or not cross.owners or max(len(cross.features), len(cross.owners)) > MOST:
        return None
    return {
        "features": list(cross.features),
        "columns": [
            [r.description.index, clip(r.description.text, 120), places[r.description.id]] for r in results.items
        ],
        "metrics": [
            {"name": spec.title, "range": spec.range, "data": quantized(getattr(cross, spec.name), *spec.range)}
            for spec in SPECS
        ],
    }


def quantized(matrix: Float[np.ndarray, "feature description"], low: float, high: float) -> str:
    """A byte a cell, row by row, in base64: 0 to 254 from `low` to `high`, 255 where undefined.

    >>> base64.b64decode(quantized(np.array([[-1.0, 0.0], [1.0, np.nan]]), -1, 1)).hex(" ")
    '00 7f fe ff'
    """
    share = np.clip((matrix - low) / (high - low), 0, 1)
    cells = np.where(np.isnan(matrix), UNDEFINED, np.round(np.nan_to_num(share) * 254))
    return base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
