"""The command line ``mlx-faceau``: one file a subcommand, each with HELP, add_arguments and run.

Exit status: 0 done; 1 a check or target failed; 2 bad input or usage; 130 interrupted.
"""

import argparse
import logging
import os
import sys
from importlib import import_module
from typing import Any

from mlx_faceau.errors import FaceauError

from .completion import SHELLS, PrintCompletion

# Subcommand -> module; the order is the order of --help.
COMMANDS = {
    "demo": "demo",
    "train": "train",
    "evaluate": "evaluate",
    "export": "export",
    "convert": "convert",
    "predict": "predict",
    "data": "data",
    "benchmark": "benchmark",
    "info": "info",
}


def build_parser() -> argparse.ArgumentParser:
    """The whole parser; the command line reference is generated from it."""
    parser = argparse.ArgumentParser(
        prog="mlx-faceau",
        description="Facial landmarks, head pose and action units: train, export, predict.",
    )
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show the program's version and exit"
    )
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script that completes commands and flags in the shell, and exit",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is decided and why")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module_name in COMMANDS.items():
        module = import_module(f".{module_name}", __package__)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


class _ShowVersion(argparse.Action):
    """Reads the version only when it is asked for: that alone takes longer than all the flags."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from mlx_faceau import __version__

        print(f"mlx-faceau {__version__}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; None takes ``sys.argv``.

    Returns:
        The exit status.
    """
    args = build_parser().parse_args(arguments)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (a pipe into head): nothing more to say, and no traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FaceauError, ValueError, OSError) as error:
        print(f"mlx-faceau: {one_line(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        print(
            f"mlx-faceau: out of memory ({one_line(error)[:200]}); close other programs, or train "
            "with a smaller --batch-size and as much larger --accumulate, which keeps the step",
            file=sys.stderr,
        )
        return 2


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is Python's, torch's or MLX's way of saying so."""
    text = str(error).lower()
    signs = ("out of memory", "metal::malloc", "bad_alloc", "allocate memory")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def one_line(error: BaseException) -> str:
    """An error's text on one line, with the file where the system names one."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
