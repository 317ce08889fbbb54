"""AdamW in MLX as torch has it.

Reference:
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
"""

from mlx_faceau.models import mx, optim


class AdamW(optim.Adam):  # type: ignore[misc]
    """Bias-corrected Adam with decoupled decay of matrices and kernels only.

    Biases and BatchNorm have one dimension and do not decay.
    """

    def __init__(self, weight_decay: float) -> None:
        super().__init__(learning_rate=0.0, bias_correction=True)
        self.weight_decay = weight_decay

    def apply_single(
        self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]
    ) -> mx.array:
        """One parameter after the step; called by MLX."""
        if parameter.ndim > 1:
            parameter = parameter * (1 - self.learning_rate * self.weight_decay)
        updated: mx.array = super().apply_single(gradient, parameter, state)
        return updated
