"""The device that MLX trains on."""

from mlx_faceau.errors import BackendError
from mlx_faceau.models import mx

DEVICES = {"cpu": mx.cpu, "gpu": mx.gpu}


def use_device(name: str) -> None:
    """Make the device that ``--device`` means MLX's default one.

    Raises:
        BackendError: if it is not there, or is a device of torch.
    """
    if name == "auto":
        return
    if name not in DEVICES:
        raise BackendError(
            f"--device {name} is one of torch's; with --framework mlx say cpu or gpu"
        )
    device = mx.Device(DEVICES[name])
    if not mx.is_available(device):
        raise BackendError("no gpu for MLX here; say --device cpu")
    mx.set_default_device(device)
