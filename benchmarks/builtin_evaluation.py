"""Accuracy of a pair of nets, and of the open labeller whose labels they were trained on.

    python benchmarks/builtin_evaluation.py --label-model face_landmarker.task \
        --people faces_val.npz --posed posed_dev.npz --output benchmarks/results/builtin

Neither file holds people whom the pair was trained on. Posed photographs follow FACS criteria and
name the emotion, so that a unit is judged by the emotions that contain it. Agreement with OpenFace
is for information. How hard the posed faces are, MediaPipe's scores tell, read by their names.
Writes ``evaluation.json`` and ``evaluation.md``.
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau import load_au_predictor, load_predictor
from mlx_faceau.core import metrics
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import standard_crop_matrix, transform_points
from mlx_faceau.data.labels.face_mesh import FaceMesh, Pyramid
from mlx_faceau.data.labels.facs_reading import read_action_units
from mlx_faceau.data.labels.mediapipe import IBUG, find_faces
from mlx_faceau.evaluation.crops import jitter_matrices, warp_images
from mlx_faceau.output.openface_csv import PRESENCE_THRESHOLD, presence_thresholds
from mlx_faceau.output.tables import Table, number
from mlx_faceau.video.align import crop_frame
from mlx_faceau.weights.builtin import identity

UNITS = [name.removesuffix("_r") for name in AU_NAMES]
EMOTIONS = {  # the units that each posed emotion contains, by Ekman's criteria
    "sadness": ("AU01", "AU04", "AU15", "AU17"),
    "fear": ("AU01", "AU02", "AU04", "AU05", "AU20", "AU25"),
    "surprise": ("AU01", "AU02", "AU05", "AU25", "AU26"),
    "anger": ("AU04", "AU05", "AU07", "AU23"),
    "disgust": ("AU09", "AU10", "AU17"),
    "happiness": ("AU06", "AU12", "AU25"),
}
# Columns of MediaPipe's 52 scores that each of the 17 units reads as by their names, left and
# right: the reference that says how hard the posed faces are.
NAIVE = (
    (3,),  # AU01: browInnerUp
    (4, 5),  # AU02: browOuterUp
    (1, 2),  # AU04: browDown
    (21, 22),  # AU05: eyeWide
    (44, 45, 19, 20),  # AU06: mouthSmile, eyeSquint
    (19, 20),  # AU07: eyeSquint
    (50, 51),  # AU09: noseSneer
    (48, 49),  # AU10: mouthUpperUp
    (44, 45),  # AU12: mouthSmile
    (28, 29),  # AU14: mouthDimple
    (30, 31),  # AU15: mouthFrown
    (42,),  # AU17: mouthShrugLower
    (46, 47),  # AU20: mouthStretch
    (36, 37),  # AU23: mouthPress
    (34, 35, 25),  # AU25: mouthLowerDown, jawOpen
    (25,),  # AU26: jawOpen
    (9, 10),  # AU45: eyeBlink
)
MARGIN = 1.0  # of the image's longer side, replicated around it before it is labelled
RIDGE, LEARNING_RATE, STEPS = 0.03, 0.5, 300  # of the logistic regression on posed faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--label-model", required=True, help="face_landmarker.task")
    parser.add_argument("--people", required=True, help="crops labelled by OpenFace, as .npz")
    parser.add_argument("--posed", required=True, help="posed photographs, as .npz")
    parser.add_argument("--landmark-model", default="builtin")
    parser.add_argument("--au-model", default="builtin")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    mesh = FaceMesh(given.label_model)
    nets = (load_predictor(given.landmark_model), load_au_predictor(given.au_model))
    record = {
        "nets": [identity(net.describe()) for net in nets],
        "people": on_people(mesh, nets, np.load(given.people)),
        "posed": on_posed(mesh, nets[1], np.load(given.posed)),
    }
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "evaluation.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    text = f"{summary(record).markdown()}\n\n{unit_table(record).markdown()}\n"
    (given.output / "evaluation.md").write_text(text)
    print(text)


def labelled(net: FaceMesh, file: Any) -> dict[str, np.ndarray]:
    """What the labeller says of the largest face of each image.

    Returns:
        ``row`` (N,) of the file, ``crop``, landmarks in ``image`` and crop, ``scores`` (N, 52) and
        ``aus`` (N, 17).
    """
    names = ("row", "crop", "image", "landmarks", "scores", "aus")
    found, jpeg = [], file["jpeg"]
    for row, (start, end) in enumerate(itertools.pairwise(file["jpeg_offsets"])):
        image = cv2.imdecode(jpeg[start:end], cv2.IMREAD_COLOR)
        room = round(MARGIN * max(image.shape[:2]) / 2)
        wide = cv2.copyMakeBorder(image, room, room, room, room, cv2.BORDER_REPLICATE)
        if faces := find_faces(net, Pyramid(wide)):
            face = max(faces, key=lambda each: float(np.ptp(each.points[IBUG, 0])))
            landmarks, scores = face.points[IBUG, :2], net.scores(face)
            matrix = standard_crop_matrix(landmarks)
            crop, placed = crop_frame(wide, matrix), transform_points(matrix, landmarks)
            units = read_action_units(face.points.astype(np.float32), scores)[0]
            found.append((row, crop, landmarks - room, placed, scores, units))
    if not found:
        raise SystemExit("the labeller finds a face in none of the images")
    return dict(zip(names, map(np.array, zip(*found, strict=True)), strict=True))


def on_people(mesh: FaceMesh, nets: tuple[Any, Any], file: Any) -> dict[str, Any]:
    """Nets against the labeller, and both against OpenFace, on crops of other people."""
    faces = labelled(mesh, file)
    rows, aus, points = faces["row"], faces["aus"], faces["landmarks"]
    figures: dict[str, Any] = {
        "faces": len(rows),
        "missed": len(file["jpeg_offsets"]) - 1 - len(rows),
    }
    moves = jitter_matrices(len(rows), seed=0)
    moved = warp_images(moves, faces["crop"]), transform_points(moves, points)
    for name, (crops, truth) in {"": (faces["crop"], points), "jittered ": moved}.items():
        predicted = nets[0].predict_batch(crops)["landmarks"]
        units = nets[1].predict_batch(crops)["au_intensities"]
        found = {
            "landmark_mae_px": np.abs(predicted - truth).mean(),
            "landmark_error_px": np.linalg.norm(predicted - truth, axis=2).mean(),
            "nme": metrics.nme(truth, predicted).mean(),
            "au_mean_r": metrics.mean_au_correlation(aus, units),
            "au_mae": metrics.mean_absolute_error(aus, units).mean(),
        }
        figures |= {f"{name}{key}": float(value) for key, value in found.items()}
        figures[f"{name}au_r"] = by_unit(metrics.pearson(aus, units))
        if not name:
            figures["au_net_openface_r"] = by_unit(metrics.pearson(file["au"][rows], units))
            figures |= presence(nets[1], aus, units)
    figures["au_faces_above_1"] = by_unit(metrics.au_support(aus))
    offset = faces["image"] - file["landmarks"][rows]
    figures["labeller_openface_landmark_mae_px"] = float(np.abs(offset - offset.mean(0)).mean())
    figures["labeller_openface_r"] = by_unit(metrics.pearson(file["au"][rows], aus))
    return figures


def presence(net: Any, truth: np.ndarray, units: np.ndarray) -> dict[str, dict[str, float]]:
    """Whether a unit is present, by the net's thresholds, where the labeller reads at least 1."""
    levels = presence_thresholds(net.describe().get("metadata") or {})
    present, found = truth >= PRESENCE_THRESHOLD, units >= levels
    hits, count = (present & found).sum(0), present.sum(0)
    with np.errstate(invalid="ignore"):  # NaN where no face, or every one, shows the unit
        f1 = 2 * hits / (count + found.sum(0))
        sensitivity, specificity = hits / count, (~present & ~found).sum(0) / (~present).sum(0)
    return {
        "au_presence_threshold": by_unit(levels),
        "au_faces_present": by_unit(count),
        "au_f1": by_unit(f1),
        "au_balanced_accuracy": by_unit((sensitivity + specificity) / 2),
    }


def on_posed(mesh: FaceMesh, net: Any, file: Any) -> dict[str, Any]:
    """Posed photographs: is each unit higher in the emotions that contain it?"""
    faces = labelled(mesh, file)
    emotion, performer = file["emotion"][faces["row"]], file["performer"][faces["row"]]
    read = {
        "naive": np.stack([faces["scores"][:, columns].mean(1) for columns in NAIVE], 1),
        "labeller": faces["aus"],
        "net": net.predict_batch(faces["crop"])["au_intensities"],
    }
    figures: dict[str, Any] = {"faces": len(emotion)}
    for name, units in read.items():
        areas = {}
        for unit, values in zip(UNITS, units.T, strict=True):
            if inside := [name for name, contained in EMOTIONS.items() if unit in contained]:
                areas[unit] = auc(values, np.isin(emotion, inside))
        figures[name] = {
            "auc": areas,
            "mean_auc": float(np.mean(list(areas.values()))),
            "emotion_accuracy": emotion_accuracy(units, emotion, performer),
            "mean_of_neutral_faces": by_unit(units[emotion == "neutral"].mean(0)),
        }
    return figures


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive lies above a negative, ties counting half."""
    differences = values[positive][:, None] - values[~positive][None]
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean())


def emotion_accuracy(units: np.ndarray, emotion: np.ndarray, performer: np.ndarray) -> float:
    """Accuracy of a logistic regression from units to emotions, on performers left out in turn."""
    names, correct = np.unique(emotion), 0
    for person in np.unique(performer):
        others = performer != person
        features = (units - units[others].mean(0)) / (units[others].std(0) + 1e-9)
        features = np.c_[np.ones(len(units)), features]
        seen, truth = features[others], (emotion[others][:, None] == names).astype(float)
        weights = np.zeros((features.shape[1], len(names)))
        for _ in range(STEPS):
            odds = np.exp(seen @ weights)
            error = odds / odds.sum(1, keepdims=True) - truth
            weights -= LEARNING_RATE * (seen.T @ error / len(seen) + RIDGE * weights)
        predicted = names[(features[~others] @ weights).argmax(1)]
        correct += int((predicted == emotion[~others]).sum())
    return correct / len(emotion)


def by_unit(values: Iterable[float]) -> dict[str, float]:
    return {unit: round(float(value), 4) for unit, value in zip(UNITS, values, strict=True)}


def summary(record: dict[str, Any]) -> Table:
    """The main figures."""
    people, posed = record["people"], record["posed"]

    def of_each(key: str) -> list[str]:
        return [f"{posed[name][key]:.3f}" for name in ("naive", "labeller", "net")]

    def on_both(key: str, unit: str = "", factor: float = 1.0) -> list[str]:
        """Of the nets, and the same on jittered crops."""
        still, moved = factor * people[key], factor * people[f"jittered {key}"]
        return ["", "", f"{still:.3f}{unit}, jittered {moved:.3f}{unit}"]

    openface = [people[f"{name}_openface_r"] for name in ("labeller", "au_net")]
    offset = people["labeller_openface_landmark_mae_px"]
    rows = {
        f"posed faces, mean AUC of {len(posed['net']['auc'])} action units": of_each("mean_auc"),
        "posed faces, accuracy of 7 emotions": of_each("emotion_accuracy"),
        "landmarks against the labeller, MAE": on_both("landmark_mae_px", " px"),
        "landmarks against the labeller, NME": on_both("nme", " %", 100),
        "action units against the labeller, mean r": on_both("au_mean_r"),
        "landmarks against OpenFace's, offset removed": ["", f"{offset:.3f} px", ""],
        "action units against OpenFace's, mean r": [
            "",
            *(f"{np.nanmean(list(each.values())):.3f}" for each in openface),
        ],
    }
    columns = ["figure", "scores read by name", "labeller", "nets"]
    return Table(columns, [[name, *cells] for name, cells in rows.items()])


def unit_table(record: dict[str, Any]) -> Table:
    """One row a unit."""
    people, labeller, net = record["people"], record["posed"]["labeller"], record["posed"]["net"]
    columns = (
        ("posed AUC: labeller", labeller["auc"], 2),
        ("net", net["auc"], 2),
        ("net against labeller, r", people["au_r"], 2),
        ("faces above 1", people["au_faces_above_1"], 0),
        ("OpenFace r: labeller", people["labeller_openface_r"], 2),
        ("net", people["au_net_openface_r"], 2),
        ("neutral mean: labeller", labeller["mean_of_neutral_faces"], 2),
        ("net", net["mean_of_neutral_faces"], 2),
    )
    rows = [
        [unit, *(number(values.get(unit), digits) for _, values, digits in columns)]
        for unit in UNITS
    ]
    return Table(["unit", *(heading for heading, *_ in columns)], rows)


if __name__ == "__main__":
    main()
