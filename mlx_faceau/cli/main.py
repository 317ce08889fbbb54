"""The command line ``mlx-faceau``: one file a subcommand, each with add_arguments and run.

Exit status: 0 done; 1 a check or target failed; 2 bad input or usage; 130 interrupted.
"""

import argparse
import logging
import os
import sys
from importlib import import_module
from typing import Any

from mlx_faceau.errors import FaceauError, MissingDependency, printable

from .completion import SHELLS, PrintCompletion

# Subcommand, which is its module's name too -> what it does; the order is the order of --help.
COMMANDS = {
    "demo": "measure a portrait with the built-in pair; or, with --train, a tour of training",
    "train": "train a net on a file of labelled faces",
    "evaluate": "measure a net on a file of labelled faces, a constant predictor beside it",
    "export": "write a checkpoint as .onnx, .mlpackage or weights alone, checked against the net",
    "convert": "convert weights: the original tool's .pt to .safetensors, or back",
    "predict": "predict landmarks, pose and action units of faces in pictures, videos or a webcam",
    "data": "make, check, describe and look at training files",
    "benchmark": "time every backend on this machine, or verify MLX's kernels on its device",
    "info": "show what can run on this machine and why the rest cannot, or describe models",
}

# Libraries that whole commands need, by the extra that brings them. Where one is needed by chance,
# the code that needs it says so itself.
EXTRAS = {"h5py": "train", "matplotlib": "train", "tqdm": "train"}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; the command line reference is generated from it.

    Args:
        only: the one subcommand whose flags are wanted; the others are then known by name alone,
            and their files not read. None wants all.
    """
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
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if only in (None, name):
            module = import_module(f".{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _command_of(arguments: list[str]) -> str:
    """The subcommand of a command line, "" where there is none; no flag before it takes a value,
    but for one that ends the program."""
    words = (word for word in arguments if not word.startswith("-"))
    return next(words, "")


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
    given = sys.argv[1:] if arguments is None else arguments
    args = build_parser(_command_of(given)).parse_args(given)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        status = int(args.run(args))
        sys.stdout.flush()  # what is buffered can still meet a reader that went away
        return status
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
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"mlx-faceau: {MissingDependency(error.name, EXTRAS[error.name])}", file=sys.stderr)
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
    return printable(" ".join(str(error).split())) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
