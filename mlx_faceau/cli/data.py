"""``mlx-faceau data``: make, check, describe and look at training files."""

import argparse

from . import data_generate, data_inspect, data_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    data_generate.add_actions(actions)
    data_inspect.add_actions(actions)
    data_write.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    return int(args.act(args))
