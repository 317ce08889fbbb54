"""Names of training settings in recipes and checkpoints of earlier versions."""

from collections.abc import Mapping
from typing import Any

_RENAMED = {
    "first_side": "initial_image_size",
    "mirror": "horizontal_flip",
    "relabel_mirrored": "relabel_flipped",
    "compose": "cutmix_faces",
    "save_minutes": "save_every_minutes",
}
# Settings that no longer exist, with the values that may be ignored.
_REMOVED = {
    "au_table": (False, True),
    "sync_bn": (False,),
    "cutmix_faces": (0,),
    "balance_aus": (False,),
}


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings of a recipe or a checkpoint under today's names.

    A removed setting that would change the result is left in place, to be refused as unknown.
    """
    return {
        _RENAMED.get(name, name): value
        for name, value in settings.items()
        if value not in _REMOVED.get(_RENAMED.get(name, name), ())
    }
