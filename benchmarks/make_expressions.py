"""Make a training file of new expressions and head poses of photographs.

    python benchmarks/make_expressions.py faces_open.npz ict_facekit.npz \
        --label-model face_landmarker.task --output made.h5 --sources house senate sfhq_t2i

Faces are a folder of photographs or an ``.npz`` file of JPEG squares (``jpeg``, ``jpeg_offsets``,
``source``, ``subject``). The open labeller finds and measures each photograph's surest face; its
expression changes by ICT-FaceKit's shapes; landmarks are exact, action units are what the
photograph shows plus what was added, parameters are the open PDM's. The same arguments make the
same file.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.core.pdm import OPEN_PDM, OPEN_PDM_NOISE, PDM, fit_pdm, read_pdm
from mlx_faceau.data.format.columns import Block, checked_block
from mlx_faceau.data.format.identity import read_pairs
from mlx_faceau.data.format.label_provenance import GENERATION
from mlx_faceau.data.format.row_io import create_file
from mlx_faceau.data.labels.face_labels import is_photograph
from mlx_faceau.data.labels.face_mesh import FaceMesh, Pyramid
from mlx_faceau.data.labels.generate import VideoReport
from mlx_faceau.data.labels.mediapipe import LICENCE, find_faces
from mlx_faceau.data.labels.open_pdm import read_ict_facekit
from mlx_faceau.data.synthetic.expression_model import expression_model
from mlx_faceau.data.synthetic.expression_synthesis import LabelledFace, make_expressions
from mlx_faceau.errors import DatasetError

_TIGHT_TURN = 0.6  # of the angles, where a JPEG is no more than the crop
_CROP_SIDE = 112


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, help="a folder of photographs, or an .npz of JPEGs")
    parser.add_argument("ict", type=Path, help="ICT-FaceKit as .npz")
    parser.add_argument("--label-model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--sources", nargs="+", help="of an .npz file; all if not given")
    parser.add_argument("--subjects", type=Path, help="CSV of a folder: lines 'file,subject'")
    parser.add_argument("--each", type=int, default=3, help="faces made of a photograph, about")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    subjects = dict(read_pairs(args.subjects, "file,subject").values()) if args.subjects else {}
    mesh, pdm = FaceMesh(args.label_model), read_pdm(OPEN_PDM)
    model = expression_model(read_ict_facekit(args.ict))
    count, reports = 0, []
    identity = {"name": "open", "hash": pdm.hash}
    with create_file(args.output) as file:
        for row, (name, subject, image) in enumerate(photographs(args.faces, args.sources)):
            found = find_faces(mesh, Pyramid(image))
            made: list[LabelledFace] = []
            if found:
                generator = np.random.default_rng((args.seed, row))
                turn = _TIGHT_TURN if max(image.shape) <= _CROP_SIDE else 1.0
                points, scores = found[0].points, mesh.scores(found[0])
                rgb = image[..., ::-1].copy()
                made += make_expressions(rgb, points, scores, model, generator, args.each, turn)
            if made:
                file.append(block(made, name, subjects.get(name, subject), pdm))
            count += len(made)
            report = VideoReport(name, 1, 0, not found, len(made), pdm=identity)
            report.labeller, report.licence = "mediapipe", LICENCE
            reports.append(vars(report))
        file.write_text(GENERATION, json.dumps(reports))
    print(f"{count} faces of {len(reports)} photographs in {args.output}")


def photographs(
    faces: Path, sources: Sequence[str] | None
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, subject and image (H, W, 3) uint8 BGR of each photograph; DatasetError if none."""
    if faces.is_dir():
        paths = sorted(path for path in faces.iterdir() if is_photograph(path))
        encoded = [(path.name, path.stem, np.fromfile(path, np.uint8)) for path in paths]
    else:
        try:
            with np.load(faces) as file:
                jpeg, offsets, subjects = file["jpeg"], file["jpeg_offsets"], file["subject"]
                wanted = np.isin(file["source"], sources) if sources else subjects == subjects
        except (OSError, KeyError, ValueError) as error:
            raise DatasetError(f"{faces}: no folder and no .npz of faces: {error}") from None
        encoded = [
            (f"{faces.stem}/{row}", str(subjects[row]), jpeg[offsets[row] : offsets[row + 1]])
            for row in np.flatnonzero(wanted)
        ]
    if not encoded:
        raise DatasetError(f"{faces}: no photograph there; see --sources")
    for name, subject, data in encoded:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is not None:
            yield name, subject, image


def block(made: Sequence[LabelledFace], name: str, subject: str, pdm: PDM) -> Block:
    """Rows of a training file; boxes are the landmarks', in the crop, which has no frame."""
    landmarks = np.stack([each.face.landmarks for each in made])
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    fit = fit_pdm(pdm, landmarks, OPEN_PDM_NOISE)
    return checked_block(
        {
            "images": np.stack([each.face.image for each in made]),
            "landmarks": landmarks.astype(np.float32),
            "global_params": fit.global_params.astype(np.float32),
            "local_params": fit.local_params.astype(np.float32),
            "au_intensities": np.stack([each.au_intensities for each in made]),
            "bboxes": np.concatenate([low, high - low], axis=1).astype(np.float32),
            "warp_matrices": np.tile(np.eye(2, 3, dtype=np.float32), (len(made), 1, 1)),
            "video_names": [name] * len(made),
            "subjects": [subject] * len(made),
            "frame_indices": list(range(len(made))),
        }
    )


if __name__ == "__main__":
    main()
