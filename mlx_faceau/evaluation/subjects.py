"""Who is on each face, as far as a file says."""

import numpy as np

from mlx_faceau.data.loading.validation_split import Named, people_names

BY_FACE = "face"


def people_of(dataset: Named) -> tuple[str, np.ndarray]:
    """What is resampled together.

    Returns:
        ``"subject"`` or ``"video"``, ``"face"`` where the file names neither; and (N,) names.
        A face without a name is taken for a person of its own.
    """
    by, names = people_names(dataset, strict=False)
    if not (names != "").any():
        by = BY_FACE
    own = [f"row:{row}" for row in range(len(dataset))]
    return by, np.where(names != "", names, own)
