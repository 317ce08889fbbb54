"""``mlx-faceau train landmark-pose|au``: flags from the settings' fields, then one training."""

import argparse
import logging
import sys
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import counted
from mlx_faceau.train.config import BASIC, CHANGEABLE, TRAIN_CONFIGS, TrainConfig, read_settings
from mlx_faceau.train.option_fields import default_of, flag

if TYPE_CHECKING:
    from mlx_faceau.train.loop import TrainingLoop

OVERFIT_SHARE = 0.1  # of a constant predictor's loss, below which --overfit has succeeded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    nets = parser.add_subparsers(dest="net", metavar="landmark-pose|au", required=True)
    for training in TRAIN_CONFIGS:
        summary = (training.__doc__ or "").strip()
        changeable = map(flag, CHANGEABLE)
        net = nets.add_parser(
            training.model_name,
            usage="%(prog)s --data FILE [FILE ...] [options]",
            help=summary,
            description=summary,
            epilog=f"With --resume, these options may differ: {', '.join(changeable)}.",
        )
        basic = net.add_argument_group("basic options")
        advanced = net.add_argument_group("advanced options")
        for item in fields(training):
            _add_flag(basic if item.name in BASIC else advanced, item)
        basic.add_argument(
            "--config", metavar="FILE", help="JSON file of settings; flags override it"
        )
        start = basic.add_mutually_exclusive_group()
        start.add_argument(
            "--resume",
            metavar="CHECKPOINT|DIR",
            help="continue from a checkpoint or a folder's last one",
        )
        start.add_argument(
            "--dry-run",
            action="store_true",
            help="take ten steps, print speed and memory, write nothing",
        )
        net.set_defaults(training=training)


def _add_flag(group: argparse._ArgumentGroup, item: Field[Any]) -> None:
    """A flag that is absent from the result unless given: what is explicit must be known."""
    default, text = default_of(item), item.metadata["help"]
    if item.type is bool:
        group.add_argument(
            flag(item.name), action="store_true", default=argparse.SUPPRESS, help=text
        )
        return
    several = item.type == tuple[str, ...]
    metavar = "FILE" if several else item.name.rpartition("_")[2].upper()
    group.add_argument(
        flag(item.name),
        action="extend" if several else "store",
        nargs="+" if several else None,
        type=item.type if item.type in (int, float) else str,
        choices=item.metadata["choices"],
        default=argparse.SUPPRESS,
        metavar=None if item.metadata["choices"] else metavar,
        help=text if default in (None, MISSING, ()) else f"{text} (default: {default})",
    )


def run(args: argparse.Namespace) -> int:
    training: type[TrainConfig] = args.training
    logging.getLogger("mlx_faceau").setLevel(logging.INFO)
    from mlx_faceau.train.run import run_training

    given: dict[str, Any] = {} if args.config is None else read_settings(args.config)
    given |= {item.name: vars(args)[item.name] for item in fields(training) if item.name in args}
    if args.dry_run:
        _print_dry_run(training, given)
        return 0
    loop = run_training(training, given, args.resume, show_progress=sys.stderr.isatty())
    return 0 if loop.trainer.ranks.rank else _report(loop)  # one rank speaks for all


def _report(loop: "TrainingLoop") -> int:
    """Print how a training ended; the exit status."""
    from mlx_faceau.output.tables import action_unit_table

    if loop.stopped == "interrupted":
        print(
            f"interrupted and saved; continue with: mlx-faceau train {loop.config.model_name} "
            f"--resume {loop.folder.path}"
        )
        return 130
    best = loop.state.best
    if "aus" in best["metrics"]:
        print(action_unit_table({"net": best["metrics"]}).text())
    early = "stopped early: no better loss for a while"
    how = "finished" if loop.stopped == "finished" else early
    print(
        f"{how} after {counted(loop.state.epoch, 'epoch')}; best is epoch {best['epoch']} with "
        f"validation loss {best['validation']['loss']:.4f}, in {loop.folder.path}"
    )
    if not loop.config.overfit:
        return 0
    share = loop.overfit_share()
    print(
        f"the loss is {100 * share:.1f} % of a constant predictor's; "
        f"--overfit needs less than {100 * OVERFIT_SHARE:.0f} %"
    )
    return 0 if share < OVERFIT_SHARE else 1


def _print_dry_run(training: type[TrainConfig], given: dict[str, Any]) -> None:
    from mlx_faceau.train.dry_run import STEPS, dry_run

    print(f"taking {STEPS} steps of a training", file=sys.stderr)
    figures = dry_run(training, given)
    gib = {"process": figures.memory / 2**30, "GPU": figures.device_memory / 2**30}
    memory = ", ".join(f"{name} {size:.2f} GiB" for name, size in gib.items() if size)
    hours, minutes = divmod(round(figures.seconds / 60), 60)
    print(
        f"parameters  {figures.parameters:,}\n"
        f"faces       {figures.training} to train on, {figures.validation} to validate on\n"
        f"memory      {memory or 'unknown on this system'}\n"
        f"speed       {figures.images_per_second:.0f} images/s over {STEPS} steps\n"
        f"estimate    {hours} h {minutes:02d} min for {figures.steps} steps\n"
        "nothing was written"
    )
