"""Are the depthwise kernels right and fast on this very device? Run by ``benchmark --verify``.

Each piece of the depthwise convolution exists in several forms; here every form that the device
can run meets every shape of both nets, is compared with float64 NumPy, and is timed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mlx_faceau.core.architectures import CONFIGS, IMAGE_SIZE

from . import depthwise, mx

BATCH = 4
REPEATS = 5
TOLERANCE = 1e-5  # of the largest value: float32 sums of up to BATCH * 56 * 56 products

Shape = tuple[int, int, int]  # side, channels, stride


@dataclass
class FormReport:
    """One form of one piece over all shapes.

    Attributes:
        piece: ``"forward"``, ``"input_grad"`` or ``"weight_grad"``.
        form: ``"slices"``, ``"builtin"``, ``"mixed"`` or ``"metal kernel"``.
        chosen: whether this device uses it.
        error: largest difference from float64, relative to the largest value of its array.
        milliseconds: sum over all shapes of the median time.
    """

    piece: str
    form: str
    chosen: bool
    error: float = 0.0
    milliseconds: float = field(default=0.0)

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE


def verify_depthwise(shapes: list[Shape] | None = None) -> list[FormReport]:
    """Check and time every form on MLX's default device.

    Args:
        shapes: (side, channels, stride) to try; None: all of both nets at full width.
    """
    chosen = depthwise.PIECES[depthwise.device_name()]
    reports = []
    for piece, forms in _forms().items():
        for name, form in forms.items():
            report = FormReport(piece, name, getattr(chosen, piece) is form)
            for case in map(Case, shapes or list(shapes_of_both_nets())):
                case.measure(piece, form, report)
            reports.append(report)
    return reports


def shapes_of_both_nets() -> Iterator[Shape]:
    """(side, channels, stride) of every depthwise convolution, each once."""
    seen = set()
    for config_class in CONFIGS.values():
        side = IMAGE_SIZE // 2
        for block in config_class.backbone.blocks(1.0):
            seen.add((side, block.hidden, block.stride))
            side = -(-side // block.stride)
    yield from sorted(seen)


def _forms() -> dict[str, dict[str, Callable[..., mx.array]]]:
    forms: dict[str, dict[str, Callable[..., mx.array]]] = {
        "forward": {
            "slices": depthwise.forward_slices,
            "builtin": depthwise.forward_builtin,
        },
        "input_grad": {
            "slices": depthwise.input_grad_slices,
            "builtin": depthwise.input_grad_builtin,
            "mixed": depthwise.input_grad_mixed,
        },
        "weight_grad": {
            "slices": depthwise.weight_grad_slices,
            "builtin": depthwise.weight_grad_builtin,
        },
    }
    if depthwise.device_name() == "metal":
        forms["weight_grad"]["metal kernel"] = depthwise.weight_grad_metal
    return forms


class Case:
    """Random arrays of one shape, and what each piece should make of them."""

    def __init__(self, shape: Shape) -> None:
        side, channels, self.stride = shape
        rng = np.random.default_rng(shape)
        out = -(-side // self.stride)
        self.x = rng.standard_normal((BATCH, side, side, channels), np.float32)
        self.w = rng.standard_normal((channels, 3, 3, 1), np.float32)
        self.cotangent = rng.standard_normal((BATCH, out, out, channels), np.float32)

    def measure(self, piece: str, form: Callable[..., mx.array], report: FormReport) -> None:
        """Add this shape's error and time to a report."""
        x, w, cotangent = (mx.array(a) for a in (self.x, self.w, self.cotangent))
        arguments = {
            "forward": (x, w, self.stride),
            "input_grad": (cotangent, w, self.stride, x.shape),
            "weight_grad": (cotangent, x, self.stride),
        }[piece]
        result = np.array(form(*arguments))
        expected = getattr(self, piece)()
        error = float(np.abs(result - expected).max() / np.abs(expected).max())
        report.error = max(report.error, error)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            mx.eval(form(*arguments))
            times.append(time.perf_counter() - started)
        report.milliseconds += 1000 * float(np.median(times))

    def forward(self) -> np.ndarray:
        """What the convolution gives: (N, ceil(H / stride), ceil(W / stride), C) float64."""
        total = np.zeros(self.cotangent.shape)
        for i, j, view in self._views(self._padded()):
            total += view * self.w[:, i, j, 0]
        return total

    def input_grad(self) -> np.ndarray:
        """By ``x``, of the sum of outputs times ``cotangent``: (N, H, W, C) float64."""
        padded = np.zeros_like(self._padded())
        for i, j, view in self._views(padded):
            view += self.cotangent * np.float64(self.w[:, i, j, 0])
        return padded[:, 1:-1, 1:-1]

    def weight_grad(self) -> np.ndarray:
        """By ``w``, of the same sum: (C, 3, 3, 1) float64."""
        gradient = np.zeros(self.w.shape)
        for i, j, view in self._views(self._padded()):
            gradient[:, i, j, 0] = (view * self.cotangent).sum((0, 1, 2))
        return gradient

    def _padded(self) -> np.ndarray:
        return np.pad(self.x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])

    def _views(self, padded: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        rows, columns = self.cotangent.shape[1:3]
        step = self.stride
        for i in range(3):
            for j in range(3):
                window = padded[:, i : i + rows * step : step, j : j + columns * step : step]
                yield i, j, window[:, :rows, :columns]
