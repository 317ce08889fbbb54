"""The table of exported files: what it answers, and that the docs show it."""

import itertools
import json

import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("torch")

from mlx_faceau.convert.variants import (
    FORMATS,
    INPUTS,
    PRECISIONS,
    Variant,
)
from mlx_faceau.errors import ExportError


def made(*asked) -> Variant | str:
    """The variant, or why there is none."""
    try:
        return Variant(*asked)
    except ExportError as error:
        return str(error)


def test_the_files_that_are_written_are_these_and_no_others():
    asked = itertools.product(FORMATS, PRECISIONS, INPUTS, (1, 4, "dynamic"), (None, 12, 17))
    variants = [v for v in (made(*a) for a in asked) if isinstance(v, Variant)]
    written = {(v.form, v.precision, v.input, v.batch, v.opset) for v in variants}
    batches = (1, 4, "dynamic")
    onnx = set(itertools.product(["onnx"], PRECISIONS, ("tensor", "uint8"), batches, (12, 17)))
    onnx -= {file for file in onnx if file[1] == "int8" and file[4] == 12}
    others = [precision for precision in PRECISIONS if precision != "float16-weights"]
    coreml = set(itertools.product(["coreml"], others, ["tensor"], (1, 4), [None]))
    coreml |= set(itertools.product(["coreml"], others, ["image"], [1], [None]))
    alone = ("float32", "float16-weights")
    weights = set(itertools.product(["safetensors"], alone, ["tensor"], ["dynamic"], [None]))
    assert written == onnx | coreml | weights


def test_a_refusal_names_the_file_and_the_reason():
    with pytest.raises(ExportError, match=r"no coreml file of float16, input uint8, batch 1: Core"):
        Variant("coreml", None, "uint8")
    with pytest.raises(ExportError, match=r"opset 12: scales per channel exist from opset 13 on"):
        Variant("onnx", "int8", opset=12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"form": "tflite"}, "form is 'tflite', expected one of onnx, coreml, safetensors"),
        ({"precision": "bfloat16"}, "precision is 'bfloat16'"),
        ({"input": "png"}, "input is 'png'"),
        ({"batch": 0}, "batch is 0, expected dynamic"),
        ({"batch": True}, "batch is True"),
        ({"opset": 22}, r"opset is 22, expected a whole number in \[12, 21\]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_values_that_no_format_knows_are_refused_by_name(asked, message):
    with pytest.raises(ValueError, match=message):
        Variant(**{"form": "onnx", **asked})


def test_numpy_s_whole_numbers_are_written_as_python_s():
    variant = Variant("onnx", batch=np.int64(4), opset=np.int32(18))
    assert variant == Variant("onnx", batch=4, opset=18)
    assert json.loads(json.dumps(variant.describe()))["batch"] == 4


def test_formats_have_their_own_defaults():
    assert Variant("onnx") == Variant("onnx", "float32", "tensor", "dynamic", 17)
    assert Variant("coreml") == Variant("coreml", "float16", "tensor", 1, None)


def test_the_docs_give_every_reason():
    page = (REPOSITORY / "docs" / "export.md").read_text()
    asked = itertools.product(FORMATS, PRECISIONS, INPUTS, (1, 4, "dynamic"), (None, 12, 17))
    refusals = [made(*a) for a in asked]
    reasons = {r.partition(": ")[2] for r in refusals if isinstance(r, str)}
    assert len(reasons) == 8
    assert all(reason in page for reason in reasons)
