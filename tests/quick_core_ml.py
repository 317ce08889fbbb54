"""Conversions to Core ML in half the time, for tests of what is done with the packages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mlx_faceau.convert import export_coreml
from mlx_faceau.convert.mil import load_coremltools


@contextmanager
def quick_conversion() -> Iterator[None]:
    """Without coremltools' checks of its program after each of its hundred passes.

    They change nothing: test_export_coreml.py compares the bytes. What is written is checked.
    """
    load_coremltools()
    from coremltools.converters.mil.mil import Program

    convert = export_coreml._convert

    def quick(*asked: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Program, "validate", lambda *_, **__: None)
            return convert(*asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_coreml, "_convert", quick)
        yield
