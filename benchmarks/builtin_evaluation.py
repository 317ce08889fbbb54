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
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import standard_crop_matrix, transform_points
from mlx_faceau.core.metrics import (
    au_support,
    mean_absolute_error,
    mean_au_correlation,
    nme,
    pearson,
)
from mlx_faceau.data.labels.face_mesh import FaceMesh, Pyramid
from mlx_faceau.data.labels.facs_reading import read_action_units
from mlx_faceau.data.labels.mediapipe import IBUG, find_faces
from mlx_faceau.evaluation.crops import jitter_matrices, warp_images
from mlx_faceau.output.openface_csv import PRESENCE_THRESHOLD, presence_thresholds
from mlx_faceau.output.tables import Table, number
from mlx_faceau.video.align import crop_frame
from mlx_faceau.weights.builtin import identity

UNITS = [name.removesuffix("_r") for name in AU_NAMES]
# Ekman's criteria of the posed emotions: the emotions that contain each unit.
CONTAINS = {
    "AU01": "sadness fear surprise",
    "AU02": "fear surprise",
    "AU04": "sadness anger fear",
    "AU05": "anger fear surprise",
    "AU06": "happiness",
    "AU07": "anger",
    "AU09": "disgust",
    "AU10": "disgust",
    "AU12": "happiness",
    "AU15": "sadness",
    "AU17": "sadness disgust",
    "AU20": "fear",
    "AU23": "anger",
    "AU25": "happiness fear surprise",
    "AU26": "surprise",
}
SCORES = (  # MediaPipe's 52, in its order
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
# MediaPipe's scores that a unit reads as by their names, left and right together: the reference
# that says how hard the posed faces are.
NAIVE = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUp",),
    "AU04": ("browDown",),
    "AU05": ("eyeWide",),
    "AU06": ("mouthSmile", "eyeSquint"),
    "AU07": ("eyeSquint",),
    "AU09": ("noseSneer",),
    "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",),
    "AU14": ("mouthDimple",),
    "AU15": ("mouthFrown",),
    "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretch",),
    "AU23": ("mouthPress",),
    "AU25": ("mouthLowerDown", "jawOpen"),
    "AU26": ("jawOpen",),
    "AU45": ("eyeBlink",),
}
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
    text = "\n\n".join(table.markdown() for table in tables(record)) + "\n"
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
        faces = find_faces(net, Pyramid(wide))
        if not faces:
            continue
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
    rows, truth, aus = faces["row"], faces["landmarks"], faces["aus"]
    moves = jitter_matrices(len(rows), seed=0)
    figures: dict[str, Any] = {
        "faces": len(rows),
        "missed": len(file["jpeg_offsets"]) - 1 - len(rows),
    }
    for name, crops, points in (
        ("", faces["crop"], truth),
        ("jittered ", warp_images(moves, faces["crop"]), transform_points(moves, truth)),
    ):
        predicted = nets[0].predict_batch(crops)["landmarks"]
        units = nets[1].predict_batch(crops)["au_intensities"]
        found = {
            "landmark_mae_px": np.abs(predicted - points).mean(),
            "landmark_error_px": np.linalg.norm(predicted - points, axis=2).mean(),
            "nme": nme(points, predicted).mean(),
            "au_mean_r": mean_au_correlation(aus, units),
            "au_mae": mean_absolute_error(aus, units).mean(),
        }
        figures |= {f"{name}{key}": float(value) for key, value in found.items()}
        figures[f"{name}au_r"] = by_unit(pearson(aus, units))
        if not name:
            figures["au_net_openface_r"] = by_unit(pearson(file["au"][rows], units))
            figures |= presence(nets[1], aus, units)
    figures["au_faces_above_1"] = by_unit(au_support(aus))
    offset = faces["image"] - file["landmarks"][rows]
    figures["labeller_openface_landmark_mae_px"] = float(np.abs(offset - offset.mean(0)).mean())
    figures["labeller_openface_r"] = by_unit(pearson(file["au"][rows], aus))
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
        "naive": naive_units(faces["scores"]),
        "labeller": faces["aus"],
        "net": net.predict_batch(faces["crop"])["au_intensities"],
    }
    figures: dict[str, Any] = {"faces": len(emotion)}
    for name, units in read.items():
        areas = {
            unit: auc(units[:, UNITS.index(unit)], np.isin(emotion, inside.split()))
            for unit, inside in CONTAINS.items()
        }
        figures[name] = {
            "auc": areas,
            "mean_auc": float(np.mean(list(areas.values()))),
            "emotion_accuracy": emotion_accuracy(units, emotion, performer),
            "mean_of_neutral_faces": by_unit(units[emotion == "neutral"].mean(0)),
        }
    return figures


def naive_units(scores: np.ndarray) -> np.ndarray:
    """(N, 17) means of the scores in `NAIVE` of (N, 52) scores."""
    names = [name.removesuffix("Left").removesuffix("Right") for name in SCORES]
    return np.stack([scores[:, np.isin(names, of)].mean(1) for of in NAIVE.values()], 1)


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


def tables(record: dict[str, Any]) -> list[Table]:
    """The main figures, and one row a unit."""
    people, posed = record["people"], record["posed"]
    both = [posed[name] for name in ("labeller", "net")]
    three = [posed["naive"], *both]
    openface = [people[f"{name}_openface_r"] for name in ("labeller", "au_net")]

    def on_both(name: str, unit: str = "", factor: float = 1.0) -> str:
        """A figure of the nets, and the same on jittered crops."""
        moved = factor * people[f"jittered {name}"]
        return f"{factor * people[name]:.3f}{unit}, jittered {moved:.3f}{unit}"

    main = [
        [
            f"posed faces, mean AUC of {len(CONTAINS)} action units",
            *(f"{each['mean_auc']:.3f}" for each in three),
        ],
        [
            "posed faces, accuracy of 7 emotions",
            *(f"{each['emotion_accuracy']:.3f}" for each in three),
        ],
        ["landmarks against the labeller, MAE", "", "", on_both("landmark_mae_px", " px")],
        ["landmarks against the labeller, NME", "", "", on_both("nme", " %", 100)],
        ["action units against the labeller, mean r", "", "", on_both("au_mean_r")],
        [
            "landmarks against OpenFace's, offset removed",
            "",
            f"{people['labeller_openface_landmark_mae_px']:.3f} px",
            "",
        ],
        [
            "action units against OpenFace's, mean r",
            "",
            *(f"{np.nanmean(list(each.values())):.3f}" for each in openface),
        ],
    ]
    columns = ["unit", "posed AUC: labeller", "net", "net against labeller, r", "faces above 1"]
    columns += ["OpenFace r: labeller", "net", "neutral mean: labeller", "net"]
    by_unit = [
        [
            unit,
            *(number(each["auc"].get(unit), 2) for each in both),
            number(people["au_r"][unit], 2),
            number(people["au_faces_above_1"][unit], 0),
            *(number(each[unit], 2) for each in openface),
            *(number(each["mean_of_neutral_faces"][unit], 2) for each in both),
        ]
        for unit in UNITS
    ]
    return [
        Table(["figure", "scores read by name", "labeller", "nets"], main),
        Table(columns, by_unit),
    ]


if __name__ == "__main__":
    main()
