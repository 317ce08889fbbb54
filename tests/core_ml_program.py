"""A Core ML program of two operations, put together from its protocol buffers by hand."""

from typing import Any

FLOAT32, INT32, BOOL = 11, 23, 1  # of MIL.proto's DataType
_ARRAY_FLOAT32 = 65568  # of FeatureTypes.proto's ArrayDataType


def tiny_model(blob: bool) -> Any:
    """The crop's means through one matrix: a ``Model_pb2.Model`` that is a whole ML program.

    Args:
        blob: keep the matrix in the weights' file, at byte 64; else in place.
    """
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model(specificationVersion=7)
    _describe(model.description.input.add(), "image", (1, 3, 112, 112))
    _describe(model.description.output.add(), "au_intensities", (1, 17))
    main = model.mlProgram.functions["main"]
    model.mlProgram.version = 1
    image = main.inputs.add(name="image")
    _set_type(image.type, FLOAT32, (1, 3, 112, 112))
    main.opset = "CoreML6"
    block = main.block_specializations["CoreML6"]
    _constant(block, "axes", INT32, (2,), ints=[2, 3])
    _constant(block, "keep", BOOL, (), bools=[False])
    _constant(block, "weight", FLOAT32, (17, 3), floats=None if blob else [0.1] * 51)
    _constant(block, "bias", FLOAT32, (17,), floats=[0.0] * 17)
    _operation(block, "reduce_mean", "means", (1, 3), x="image", axes="axes", keep_dims="keep")
    arguments = {"x": "means", "weight": "weight", "bias": "bias"}
    _operation(block, "linear", "au_intensities", (1, 17), **arguments)
    block.outputs.append("au_intensities")
    return model


def _describe(feature: Any, name: str, shape: tuple[int, ...]) -> None:
    feature.name = name
    feature.type.multiArrayType.shape.extend(shape)
    feature.type.multiArrayType.dataType = _ARRAY_FLOAT32


def _set_type(value_type: Any, dtype: int, shape: tuple[int, ...]) -> None:
    tensor = value_type.tensorType
    tensor.dataType, tensor.rank = dtype, len(shape)
    for size in shape:
        tensor.dimensions.add().constant.size = size


def _constant(block: Any, name: str, dtype: int, shape: tuple[int, ...], **values: Any) -> None:
    """One constant; without values its bytes are those of the weights' file."""
    operation = block.operations.add(type="const")
    output = operation.outputs.add(name=name)
    _set_type(output.type, dtype, shape)
    value = operation.attributes["val"]
    _set_type(value.type, dtype, shape)
    ((kind, numbers),) = values.items()
    if numbers is None:
        value.blobFileValue.fileName = "@model_path/weights/weight.bin"
        value.blobFileValue.offset = 64
    else:
        getattr(value.immediateValue.tensor, kind).values.extend(numbers)


def _operation(block: Any, kind: str, name: str, shape: tuple[int, ...], **arguments: str) -> None:
    operation = block.operations.add(type=kind)
    for parameter, argument in arguments.items():
        operation.inputs[parameter].arguments.add(name=argument)
    _set_type(operation.outputs.add(name=name).type, FLOAT32, shape)
