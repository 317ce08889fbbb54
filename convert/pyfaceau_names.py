"""The original tool's names of all weights, generated from the settings table.

The original (pyfaceau) builds blocks and heads as sequences, whose layers are numbered in order of
appearance, activations and dropout included: positions shift with expansion and squeeze.
"""

from mlx_faceau.core.architectures import ModelConfig, weight_shapes

_STEMS = {"landmark_pose": "first_conv", "au_prediction": "stem"}
_LASTS = {"landmark_pose": "last_conv", "au_prediction": "head"}
_HEADS = {"global_head": "global_params_head", "local_head": "local_params_head"}


def pyfaceau_names(config: ModelConfig) -> dict[str, str]:
    """The original's name of every weight, by ours, in the order of its state dict."""
    prefixes = {}  # the original's name of every layer that has weights, by ours

    def conv_norm(ours: str, theirs: str, position: int) -> None:
        prefixes[f"{ours}.conv"] = f"{theirs}.{position}"
        prefixes[f"{ours}.norm"] = f"{theirs}.{position + 1}"

    conv_norm("backbone.stem", f"backbone.{_STEMS[config.kind]}", 0)
    conv_norm("backbone.head", f"backbone.{_LASTS[config.kind]}", 0)
    for index, block in enumerate(config.backbone.blocks(config.width_mult)):
        ours, theirs = f"backbone.blocks.{index}", f"backbone.blocks.{index}.conv"
        position = 0
        for layer in ("expand", "depthwise") if block.expand else ("depthwise",):
            conv_norm(f"{ours}.{layer}", theirs, position)
            position += 3  # convolution, BatchNorm, activation
        if block.squeeze:
            prefixes[f"{ours}.squeeze.reduce"] = f"{theirs}.{position}.fc1"
            prefixes[f"{ours}.squeeze.excite"] = f"{theirs}.{position}.fc2"
            position += 1
        conv_norm(f"{ours}.project", theirs, position)
    for head in type(config)().heads:  # a dropout layer counts even where this net's rate is 0
        position = 0
        for index, dropout in enumerate((*head.dropouts, 0.0)):
            theirs = _HEADS.get(head.name, head.name)
            prefixes[f"{head.name}.layers.{index}"] = f"{theirs}.fc.{position}"
            position += 3 if dropout else 2  # linear, ReLU, perhaps dropout
    parts = ((ours, *ours.rsplit(".", 1)) for ours in weight_shapes(config))
    return {ours: f"{prefixes[layer]}.{part}" for ours, layer, part in parts}


def pyfaceau_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight in the original's names, order and layout (torch's)."""
    shapes = weight_shapes(config)
    torch_shapes = {
        ours: (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        for ours, shape in shapes.items()
    }
    return {theirs: torch_shapes[ours] for ours, theirs in pyfaceau_names(config).items()}
