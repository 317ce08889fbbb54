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


def check_precision(precision: str, sync_bn: bool) -> None:
    """See that MLX can compute as asked on its default device, and gains by it.

    Raises:
        BackendError: naming what can.
    """
    if sync_bn:
        raise BackendError("--sync-bn is one of torch's; say --framework torch, or leave it out")
    if precision == "float16":
        raise BackendError(
            "--precision float16 needs a scaled loss, which torch has; with MLX say bfloat16"
        )
    if precision != "float32" and mx.default_device() == mx.Device(mx.cpu):
        raise BackendError(
            f"--precision {precision} needs a GPU: MLX's fast ways on a CPU are float32's"
        )
