"""Subjects and faces of data sets: names with several spellings, and one face under several names.

Splits keep a subject on one side. Files from several sources may spell one name in several ways, or
hold the same faces twice under other names. A fingerprint of a data set recognises its parts and
the sets that contain it.

Reference:
    Cohen and Kaplan, Summarizing data using bottom-k sketches, PODC 2007.
"""

import csv
import unicodedata
from collections.abc import Collection, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError

from .dataset import LabelledFaces

FINGERPRINT_SIZE = 256  # one part in 500,000 that is a twentieth of a set would hold none of these
_BATCH = 256  # images read together
_MAX_NAMES = 8  # what more names share is no face: a black image, labels of failed frames


def subject_key(name: str) -> str:
    """The common form of all spellings of a name.

    Case, Unicode form, invisible characters, and spaces, hyphens and underscores are ignored,
    unless these divide two numbers: ``Subj 01`` is ``subj_01``, but ``1-11`` is not ``11-1``.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kinds = [(character, unicodedata.category(character)) for character in folded]
    spaced = (" " if kind in ("Pd", "Pc", "Cc") else c for c, kind in kinds if kind != "Cf")
    key = ""
    for word in "".join(spaced).replace("\N{MINUS SIGN}", " ").split():
        key += " " * (key[-1:].isdigit() and word[0].isdigit()) + word
    return key or name


def _by_key(names: np.ndarray) -> dict[str, list[str]]:
    """All spellings of each name, sorted."""
    found: dict[str, list[str]] = {}
    for name in sorted(set(names.tolist())):
        found.setdefault(subject_key(name), []).append(name)
    return found


def unify_spellings(names: np.ndarray) -> np.ndarray:
    """(N,) names with one spelling for each subject."""
    written = _by_key(names)
    return np.array([written[subject_key(name)][0] for name in names.tolist()], object)


def spellings(names: np.ndarray | None) -> list[list[str]]:
    """The names that are written in several ways, each with its spellings."""
    found = {} if names is None else _by_key(names)
    return [written for written in found.values() if len(written) > 1]


def read_pairs(path: Path, columns: str) -> dict[int, tuple[str, str]]:
    """By its number each line of a CSV of two columns, such as ``"file,subject"``.

    It raises DatasetError if the file cannot be read, or a line does not hold two texts.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    pairs = {}
    for number, row in enumerate(lines, start=1):
        if not row:
            continue
        cells = [cell.strip() for cell in row]
        if len(cells) != 2 or not all(cells):
            raise DatasetError(f"{path}: line {number} is not {columns!r}")
        pairs[number] = (cells[0], cells[1])
    return pairs


def people_names(dataset: LabelledFaces, strict: bool = True) -> tuple[str, np.ndarray]:
    """``"subject"`` or ``"video"``, and (N,) names that a split keeps together.

    They are each sample's subject, or its video where that names none: empty for samples that have
    neither, which raise DatasetError where ``strict``. A sample without a subject, in a video where
    another one has a subject, is that subject's: a file of synthesised expressions may name videos
    alone. Spellings of a name are one subject, see :func:`subject_key`.
    """
    subjects, videos = (
        np.full(len(dataset), "", object) if names is None else unify_spellings(names)
        for names in (dataset.subjects, dataset.videos)
    )
    nameless = int(((subjects == "") & (videos == "")).sum())
    if nameless and strict:
        raise DatasetError(
            f"{nameless} of {len(dataset)} samples name neither subject nor video, so people "
            "cannot be kept on one side of a split; write 'metadata/video_names'"
        )
    pairs = list(zip(subjects.tolist(), videos.tolist(), strict=True))
    owners = {video: subject for subject, video in pairs if subject and video}
    by = "subject" if np.any(subjects != "") else "video"
    found = []
    for subject, video in pairs:
        subject = subject or owners.get(video, "")
        found.append(f"s:{subject}" if subject else f"v:{video}" if video else "")
    return by, np.array(found)


def shown_name(key: str) -> str:
    """The name in a value that :func:`people_names` returned."""
    return key.partition(":")[2]


def face_digests(faces: LabelledFaces) -> np.ndarray:
    """(N, 2) hexadecimal digests of each sample's image and of its labels; reads all images."""
    labels = [np.ascontiguousarray(faces.labels[name]) for name in sorted(faces.labels)]
    digests = []
    for start in range(0, len(labels[0]), _BATCH):
        rows = range(start, min(start + _BATCH, len(labels[0])))
        for row, image in zip(rows, faces.read_images(np.array(rows)), strict=True):
            label = blake2b(b"".join(column[row].tobytes() for column in labels), digest_size=8)
            digests.append(
                (blake2b(image.tobytes(), digest_size=16).hexdigest(), label.hexdigest())
            )
    return np.array(digests)


def duplicate_faces(digests: np.ndarray, names: np.ndarray) -> Iterator[np.ndarray]:
    """Rows (n,) int64 that hold one face under more than one name.

    First those of equal images, then of equal labels, by ``digests`` (N, 2) of
    :func:`face_digests`; a row may come twice. A row without a name counts as a subject of its own.
    """
    own = np.where(names == "", [f"row:{row}" for row in range(len(names))], names)
    for column in digests.T:
        _, face, counts = np.unique(column, return_inverse=True, return_counts=True)
        order = np.argsort(face, kind="stable")
        for rows in np.split(order, np.cumsum(counts)[:-1]):
            if len(rows) > 1 and 1 < len(set(own[rows].tolist())) <= _MAX_NAMES:
                yield rows


def merge_names(names: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """(N,) names, of which those that share a face have become one."""
    merged = {name: name for name in names.tolist()}

    def root(name: str) -> str:
        while merged[name] != name:
            name = merged[name]
        return name

    for rows in duplicate_faces(digests, names):
        roots = sorted({root(name) for name in names[rows].tolist() if name})
        merged.update(dict.fromkeys(roots[1:], roots[0]) if roots else {})
    return np.array([root(name) for name in names.tolist()], names.dtype)


def fingerprint(digests: np.ndarray) -> list[str]:
    """Of (N, 2) digests of faces the 256 smallest of the images, then of the labels, ascending."""
    return [d for column in digests.T for d in np.unique(column)[:FINGERPRINT_SIZE].tolist()]


def shares_faces(faces: LabelledFaces, known: Collection[str]) -> bool:
    """Whether a data set holds any face of a fingerprint; other texts in it are ignored."""
    return not set(known).isdisjoint(face_digests(faces).ravel().tolist())
