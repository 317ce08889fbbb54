"""``mlx-faceau train landmark-pose|au``: flags from the settings' fields, then one training."""

import argparse
import logging
import sys
from dataclasses import MISSING, Field, fields
from typing import Any

from mlx_faceau.errors import MissingDependency
from mlx_faceau.train.config import TRAININGS, TrainConfig, default_of, flag, read_settings

HELP = "train a net on a file of labelled faces"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    nets = parser.add_subparsers(dest="net", metavar="landmark-pose|au", required=True)
    for training in TRAININGS:
        summary = (training.__doc__ or "").strip()
        net = nets.add_parser(training.model_name, help=summary, description=summary)
        for item in fields(training):
            _add_flag(net, item)
        net.add_argument(
            "--resume",
            metavar="CHECKPOINT|DIR",
            help="go on from a checkpoint, or from a folder's last one; of the other flags only "
            f"these may then differ: {_changeable(training)}",
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
    parser.add_argument(
        flag(item.name),
        type=item.type if item.type in (int, float) else str,
        choices=item.metadata["choices"],
        default=argparse.SUPPRESS,
        metavar=None if item.metadata["choices"] else item.name.rpartition("_")[2].upper(),
        help=text if default in (None, MISSING) else f"{text} (default: {default})",
    )


def _changeable(training: type[TrainConfig]) -> str:
    return ", ".join(flag(item.name) for item in fields(training) if item.metadata["may_change"])


def run(args: argparse.Namespace) -> int:
    training: type[TrainConfig] = args.training
    logging.getLogger("mlx_faceau").setLevel(logging.INFO)
    try:
        from mlx_faceau.train.session import run_training
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise MissingDependency("h5py", extra="train") from None
    given: dict[str, Any] = {} if args.config is None else read_settings(args.config)
    given |= {item.name: vars(args)[item.name] for item in fields(training) if item.name in args}
    session = run_training(training, given, args.resume, show_progress=sys.stderr.isatty())
    outcome = session.outcome
    if outcome.stopped == "interrupted":
        print(
            f"interrupted and saved; go on with: mlx-faceau train {training.model_name} "
            f"--resume {session.folder}"
        )
        return 130
    reason = {"finished": "finished", "patience": "stopped early: no better loss for a while"}
    print(
        f"{reason[outcome.stopped]} after {outcome.epochs} epochs; best is epoch "
        f"{outcome.best_epoch} with validation loss {outcome.best_loss:.4f}, in {session.folder}"
    )
    return 0
