"""The application `bptt`: verify, prove, accuracy, explain, flow, train, docket."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

from typer import Exit, Option

from bptt_verifier.commands.collection import pausing_collection
from bptt_verifier.console.argument_errors import App
from bptt_verifier.console.interrupts import end_at_once, reasons
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.proofs.extras import MissingExtra
from manual_bptt import __version__

BAD_USAGE = 2
CODE_RAISED = 5
NO_READER = 141  # as a shell reports a process whose output lost its reader

COMMANDS = ("verify", "prove", "accuracy", "explain", "flow", "train", "docket")


def find_command(name: str) -> Callable[..., None]:
    """Import a command where it is asked for: most need JAX, which takes half a second."""
    module: Any
    match name:
        case "verify":
            from bptt_verifier.commands import verify as module  # noqa: PLC0415
        case "prove":
            from bptt_verifier.commands import prove as module  # noqa: PLC0415
        case "accuracy":
            from bptt_verifier.commands import accuracy as module  # noqa: PLC0415
        case "explain":
            from bptt_verifier.commands import explain as module  # noqa: PLC0415
        case "flow":
            from bptt_verifier.commands import flow as module  # noqa: PLC0415
        case "train":
            from bptt_verifier.commands import train as module  # noqa: PLC0415
        case "docket":
            from bptt_verifier.commands import docket as module  # noqa: PLC0415
        case _:
            raise ValueError(f"name: expected one of {', '.join(COMMANDS)}, found {name}")
    command: Callable[..., None] = getattr(module, name)
    return command


def print_version(given: bool) -> None:
    """Print the version and end, if that is asked for."""
    if given:
        print(f"bptt {__version__}")
        raise Exit


def describe(
    version: Annotated[
        bool,
        Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def make_app(names: Sequence[str]) -> App:
    """Make the application of these commands."""
    app = App(
        help="Check a hand-written gradient against automatic differentiation.",
        no_args_is_help=True, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    for name in names:
        app.command(name)(find_command(name))
    app.callback()(describe)
    return app


def choose_app(arguments: Sequence[str]) -> App:
    """Choose the application of the command in the arguments, or of all; of all if it is there."""
    whole: App | None = globals().get("app")
    if whole is not None:
        return whole
    return make_app(arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS)


def __getattr__(name: str) -> App:
    """Make `app`, the application of all commands, where it is asked for."""
    if name == "app":
        made: App = globals().setdefault("app", make_app(COMMANDS))
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run() -> Any:
    """Run the command of the arguments; return its exit code. Bad usage is one line of text."""
    try:
        with pausing_collection():
            chosen = choose_app(sys.argv[1:])
        chosen(prog_name="bptt")
    except SystemExit as ended:
        causes = tuple(reasons(ended))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            end_at_once()
        no_reader = any(isinstance(cause, BrokenPipeError) for cause in causes)
        return NO_READER if no_reader else ended.code
    except KeyboardInterrupt:
        end_at_once()
    except MemoryError as error:
        return complain(f"memory: expected enough for these sizes, found too little: {error}")
    except CodeRaisedError as error:
        return complain(str(error), CODE_RAISED)
    except MissingExtra as error:
        of_option = error.feature.startswith("--")
        return complain(f"{error.feature if of_option else sys.argv[1]}: {error.remedy}")
    except (ValueError, OSError) as error:
        return complain(str(error))
    return 0


def complain(sentence: str, code: int = BAD_USAGE) -> int:
    """Print what is wrong with the usage or input; return the exit code for it."""
    with suppress(OSError):
        print(f"bptt: {sentence}", file=sys.stderr)
    return code
