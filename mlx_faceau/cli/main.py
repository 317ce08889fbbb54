"""The command line ``mlx-faceau``: one file a subcommand, each with add_arguments and run.

Exit status: 0 done; 1 a check, a target or a part of the work failed, or a defect of this package;
2 bad input or usage; 130 interrupted.
"""

import argparse
import io
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from mlx_faceau.core.libraries import import_library, library_error, package_version
from mlx_faceau.errors import CheckpointError, FaceauError, FunctionError, printable

# Subcommand, which is its module's name too -> what it does; the order is the order of --help.
COMMANDS = {
    "demo": "measure a portrait with the built-in pair",
    "train": "train a net on a file of labelled faces",
    "evaluate": "measure a net on a file of labelled faces, with a constant predictor as reference",
    "export": "write a checkpoint as .onnx, .mlpackage or weights alone, checked against the net",
    "convert": "convert weights: the original tool's .pt to .safetensors, or back",
    "predict": "predict landmarks, pose and action units of faces in images, videos or a webcam",
    "data": "make, check, describe and preview training files",
    "benchmark": "time every backend on this machine, or verify MLX's results on its device",
    "info": "show what can run on this machine and why the rest cannot, or describe models",
}

REPORT = "please report it as an issue of the mlx-faceau repository"


class Parser(argparse.ArgumentParser):
    """A parser, of subcommands too, with the flags of every command and suggestions for typos."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,  # a subcommand's default would undo the flag before it
            help="log decisions and their reasons; show the traceback of internal errors",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Unknown flags are refused by the subcommand's own parser, which knows its flags."""
        self._words = list(args or ())
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """End the program with usage and message, and the nearest flag or choice of a typo."""
        choices = [str(c) for action in self._actions for c in action.choices or ()]
        words = [*self._option_string_actions, *choices]
        if "arguments are required" in message:  # argparse does not look for typos then
            flags = [w.partition("=")[0] for w in self._words if w[:2] == "--" != w]
            unknown = [f for f in flags if not any(word.startswith(f) for word in words)]
            message += "".join(f"; unknown {f}{_did_you_mean(f, words)}" for f in unknown)
        if found := re.search(r"(?:unrecognized arguments: |invalid choice: ')([^'= ]+)", message):
            hint = _did_you_mean(found[1], words)
            is_input = found[1].partition(":")[0] == "webcam" or Path(found[1]).exists()
            if not hint and "argument COMMAND" in message and is_input:
                hint = f"; did you mean predict {found[1]}?"
            elif not hint and found[0].startswith("unrec") and not found[1].startswith("-"):
                hint = "; name all inputs side by side, and no value after a flag that takes none"
            message += hint
        super().error(message)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word; a shared ending alone makes no two file names alike."""
    stem = Path(word).stem
    alike = [name for name in known if get_close_matches(stem, [Path(name).stem], cutoff=0.65)]
    near = get_close_matches(word, alike, n=1, cutoff=0.65)
    return f"; did you mean {near[0]}?" if near and near[0] != word else ""  # a link to nothing


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; the command line reference is generated from it.

    Where the flags of only one subcommand are wanted, the files of the others are not read.
    """
    parser = Parser(
        prog="mlx-faceau",
        description="Facial landmarks, head pose and action units: train, export, predict.",
    )
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show the program's version and exit"
    )
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print a script that completes commands and flags in the shell, and exit",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if only in (None, name):
            module = import_module(f".{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


class _ShowVersion(argparse.Action):
    """Reads the version only when it is asked for: that alone takes longer than all the flags."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"mlx-faceau {package_version()}")
        parser.exit()


class _PrintCompletion(argparse.Action):
    """Prints a completion script for the shell that is named, of all subcommands."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        shtab = import_library("shtab", "completion")
        whole = build_parser()
        _complete_files(whole, shtab.FILE)
        print(shtab.complete(whole, shell))
        parser.exit()


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    """Let free text be completed as names of files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type in (None, str) and action.choices is None and action.nargs != 0:
            action.complete = files  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None) -> int:
    """Run one command line, by default the program's own; the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        build_parser("").print_help(sys.stderr)
        sys.exit(2)
    verbose = False
    _replace_closed_streams()
    try:
        # No flag before the subcommand takes a value, but for one that ends the program.
        command = next((word for word in given if not word.startswith("-")), "")
        args = build_parser(command).parse_args(given)
        if arguments is None and command != "train":  # which saves, or is one of several ranks
            _end_as_ctrl_c()
        verbose = hasattr(args, "verbose")
        level = logging.INFO if verbose else logging.WARNING
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have letters that it cannot write
            sys.stdout.reconfigure(errors="backslashreplace")
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
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
    except Exception as error:
        status, text = explain(error)
        if verbose and (status == 1 or isinstance(error, FunctionError)):
            traceback.print_exception(error)
        print(f"mlx-faceau: {text}", file=sys.stderr)
        return status


def _end_as_ctrl_c() -> None:
    """Let what ends the program (a shutdown, a closed terminal) leave no temporary files either."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has one of them
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, signal.default_int_handler)


def _replace_closed_streams() -> None:
    """Put the null device in the place of standard streams that are closed, as a service's may be.

    A result's file would else get the number of one, and with it what libraries write there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8"))


def explain(error: Exception) -> tuple[int, str]:
    """The exit status (1 for a defect of this package) and line that an error ends it with."""
    if library := library_error(error):
        return 2, one_line(library)
    if isinstance(error, (FaceauError, OSError)):
        text = one_line(error)
        path = Path(text.partition(": ")[0])
        if "no such file" in text.lower() and path.name and path.parent.is_dir():
            models = ["builtin"] if isinstance(error, CheckpointError) else []
            text += _did_you_mean(path.name, [*models, *(p.name for p in path.parent.iterdir())])
        return 2, text
    text = str(error).lower()
    signs = ("out of memory", "metal::malloc", "bad_alloc", "allocate memory")  # torch's, MLX's
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        return 2, (
            f"out of memory ({one_line(error)[:200]}); close other programs, or train with a "
            "smaller --batch-size and as much larger --accumulate, which keeps the step"
        )
    place = traceback.extract_tb(error.__traceback__)[-1]
    return 1, (
        f"internal error: {type(error).__name__}: {one_line(error)} ({Path(place.filename).name}, "
        f"line {place.lineno}); {REPORT}; run with -v for the traceback"
    )


def one_line(error: BaseException) -> str:
    """An error's text on one line, with the file where the system names one."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return printable(" ".join(str(error).split())) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
