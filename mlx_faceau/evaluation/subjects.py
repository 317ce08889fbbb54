"""The subject of each face, as far as a file names it."""

import numpy as np

from mlx_faceau.data.format.identity import Named, people_names

BY_FACE = "face"


def subjects_of(dataset: Named) -> tuple[str, np.ndarray]:
    """What the bootstrap resamples.

    Returns:
        ``"subject"`` or ``"video"``, ``"face"`` where the file names neither; and (N,) names.
        A face without a name counts as a subject of its own.
    """
    by, names = people_names(dataset, strict=False)
    if not (names != "").any():
        by = BY_FACE
    own = [f"row:{row}" for row in range(len(dataset))]
    return by, np.where(names != "", names, own)
