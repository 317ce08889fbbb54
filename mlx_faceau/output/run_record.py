"""What made a result: models with their hashes, detector, settings, date, versions."""

import platform
import time
from collections.abc import Mapping
from typing import Any

from mlx_faceau.core.libraries import OPENCV, installed_version, package_version

_NETS = {"landmark_model": "landmark model", "au_model": "action unit model"}
_LIBRARIES = {
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "torch": ("torch",),
    "mlx": ("mlx",),
    "coreml": ("coremltools",),
    "dlib": ("dlib", "dlib-bin"),
    "vision": ("pyobjc-framework-Vision",),
}


def run_record(description: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run with some options, as JSON values.

    ``description`` is :meth:`mlx_faceau.video.pipeline.FacePipeline.describe`'s, or the like.
    ``models`` of the record hold by role ``name``, ``hash`` (the checkpoint's), ``backend``.
    """
    models = {
        role: {**description[role]["model"], "backend": description[role]["backend"]}
        for role in _NETS
        if role in description
    }
    running = [*(m["backend"] for m in models.values()), description.get("detector")]
    runtimes = [name for part in running for name in _LIBRARIES.get(part, ())]
    versions = {"python": platform.python_version()}
    for name in ("numpy", *OPENCV, "av", *runtimes):
        if (version := installed_version(name)) is not None:
            versions[name] = version
    return {
        "package_version": package_version(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "models": models,
        **({"detector": description["detector"]} if "detector" in description else {}),
        "settings": dict(settings),
        "versions": versions,
    }


def as_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The record for a report's table: a title and a line of text each."""
    settings = (f"{name} {value}" for name, value in record["settings"].items())
    versions = (f"{name} {version}" for name, version in record["versions"].items())
    return {
        **{
            _NETS[role]: f"{m['name']}, SHA-256 {m['hash'] or 'unknown'}, run by {m['backend']}"
            for role, m in record["models"].items()
        },
        "face detector": record.get("detector", "none"),
        "settings": ", ".join(settings) or "defaults",
        "made with": f"mlx-faceau {record['package_version']} on {record['date'][:10]}",
        "libraries": ", ".join(versions),
    }
