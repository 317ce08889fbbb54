"""``mlx-faceau train landmark-pose|au``: flags from the settings' fields, then one training."""

import argparse
import logging
import sys
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

from mlx_faceau.train.config import TRAININGS, TrainConfig, read_settings
from mlx_faceau.train.option_fields import default_of, flag

if TYPE_CHECKING:
    from mlx_faceau.train.run import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    nets = parser.add_subparsers(dest="net", metavar="landmark-pose|au", required=True)
    for training in TRAININGS:
        summary = (training.__doc__ or "").strip()
        net = nets.add_parser(training.model_name, help=summary, description=summary)
        for item in fields(training):
            _add_flag(net, item)
        start = net.add_mutually_exclusive_group()
        start.add_argument(
            "--resume",
            metavar="CHECKPOINT|DIR",
            help="go on from a checkpoint, or from a folder's last one; of the other flags only "
            f"these may then differ: {_changeable(training)}",
        )
        start.add_argument(
            "--dry-run",
            action="store_true",
            help="take ten steps, tell parameters, memory, speed and estimated time, write nothing",
        )
        net.add_argument("--config", metavar="FILE", help="JSON file of settings; flags win")
        net.set_defaults(training=training)


def _add_flag(parser: argparse.ArgumentParser, item: Field[Any]) -> None:
    """A flag that is absent from the result unless given: what is explicit must be known."""
    default, text = default_of(item), item.metadata["help"]
    if item.type is bool:
        parser.add_argument(
            flag(item.name), action="store_true", default=argparse.SUPPRESS, help=text
        )
        return
    several = item.type == tuple[str, ...]
    metavar = "FILE" if several else item.name.rpartition("_")[2].upper()
    parser.add_argument(
        flag(item.name),
        action="extend" if several else "store",
        nargs="+" if several else None,
        type=item.type if item.type in (int, float) else str,
        choices=item.metadata["choices"],
        default=argparse.SUPPRESS,
        metavar=None if item.metadata["choices"] else metavar,
        help=text if default in (None, MISSING, ()) else f"{text} (default: {default})",
    )


def _changeable(training: type[TrainConfig]) -> str:
    return ", ".join(flag(item.name) for item in fields(training) if item.metadata["may_change"])


def run(args: argparse.Namespace) -> int:
    training: type[TrainConfig] = args.training
    logging.getLogger("mlx_faceau").setLevel(logging.INFO)
    from mlx_faceau.train.run import run_training

    given: dict[str, Any] = {} if args.config is None else read_settings(args.config)
    given |= {item.name: vars(args)[item.name] for item in fields(training) if item.name in args}
    if args.dry_run:
        print(_rehearsal(training, given))
        return 0
    session = run_training(training, given, args.resume, show_progress=sys.stderr.isatty())
    return 0 if session.rank else _tell(session)


def _tell(session: "Session") -> int:
    """Print how a training ended; the exit status."""
    from mlx_faceau.output.tables import action_unit_table

    outcome = session.outcome
    if outcome.stopped == "interrupted":
        print(
            f"interrupted and saved; go on with: mlx-faceau train {session.config.model_name} "
            f"--resume {session.folder}"
        )
        return 130
    if "aus" in session.best["metrics"]:
        print(action_unit_table({"net": session.best["metrics"]}).text())
    reason = {"finished": "finished", "patience": "stopped early: no better loss for a while"}
    print(
        f"{reason[outcome.stopped]} after {outcome.epochs} epochs; best is epoch "
        f"{outcome.best_epoch} with validation loss {outcome.best_loss:.4f}, in {session.folder}"
    )
    return _learned_by_heart(session) if session.config.overfit else 0


def _learned_by_heart(session: "Session") -> int:
    """Exit status of a training on a few faces: 0 when they are learned by heart."""
    from mlx_faceau.train.run import OVERFIT_SHARE

    share = (session.outcome.best_loss or 0.0) / session.constant_loss
    print(
        f"the loss is {100 * share:.1f} % of a constant predictor's; "
        f"near zero is under {100 * OVERFIT_SHARE:.0f} %"
    )
    return 0 if session.learned_by_heart else 1


def _rehearsal(training: type[TrainConfig], given: dict[str, Any]) -> str:
    from mlx_faceau.train.dry_run import STEPS, rehearse

    figures = rehearse(training, given)
    gib = {"process": figures.memory / 2**30, "GPU": figures.device_memory / 2**30}
    memory = ", ".join(f"{name} {size:.2f} GiB" for name, size in gib.items() if size)
    hours, minutes = divmod(round(figures.seconds / 60), 60)
    return (
        f"parameters  {figures.parameters:,}\n"
        f"faces       {figures.training} to train on, {figures.validation} to validate on\n"
        f"memory      {memory or 'unknown on this system'}\n"
        f"speed       {figures.images_per_second:.0f} images/s over {STEPS} steps\n"
        f"estimate    {hours} h {minutes:02d} min for {figures.steps} steps\n"
        "nothing was written"
    )
