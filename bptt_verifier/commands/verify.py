"""`bptt verify`: compare a submission, or every built-in derivation, with autodiff."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from typer import Argument, Context, Exit, Option

from bptt_verifier.commands.child_process import Outcome, judge_file
from bptt_verifier.commands.collection import pausing_collection
from bptt_verifier.console.choices import Activation, Dtype, Loss, Model, Reset, parse_number
from bptt_verifier.console.files import (
    JsonFile,
    require_different,
    require_writable,
    text_beside_json,
    write_json,
)
from bptt_verifier.console.given_options import is_given, refuse_given, write_given
from bptt_verifier.console.interrupts import ending_by_exception
from bptt_verifier.console.locks import holding
from bptt_verifier.console.terminal import (
    print_paragraphs,
    print_uncut,
    progress_bar,
    reader_may_leave,
)
from bptt_verifier.report.versions import find_versions
from bptt_verifier.tolerance.comparison import Verdict

EXIT_CODES = {Verdict.AGREES: 0, Verdict.DISAGREES: 1, Verdict.INCONCLUSIVE: 3}
ENDED = 4  # the submission ended the process
RAISED = 5  # the submission raised an exception

# What an option applies to; --seed and --json apply to everything.
OF_DERIVATION = ("model", "reset", "activation", "loss", "bias", "sizes")
OF_FILE = (*OF_DERIVATION, "params", "case", "timeout", "html_file")
OF_PLACE = ("workers", "cluster", "checkpoint", "resume")  # where, which changes no report
OF_BUILTIN = ("dtype", "certified", "cluster", "checkpoint", "resume")
OF_CELL = {"activation": Model.RNN, "reset": Model.GRU}
YOURS, EVERY, OUTPUT = "Your code", "Every run", "Output"  # headings of the help
BUILTIN = "The built-in derivations"


def verify(
    context: Context,
    file: Annotated[
        str | None,
        Argument(
            metavar="FILE[:NAME]",
            help="Your code: a Python file or notebook, and the function or class in it. It is "
            "run. Without FILE, the derivations of this package are verified.",
        ),
    ] = None,
    own: Annotated[
        str | None,
        Option(
            metavar="FILE[:NAME]", rich_help_panel=YOURS,
            help="The same, if FILE must be taken for a model of your own: params, loss(params) "
            "and gradients(params), or NAME that returns the loss and the gradients.",
        ),
    ] = None,
    params: Annotated[
        str | None,
        Option(
            metavar="Wxh,Whh,…", rich_help_panel=YOURS,
            help="Names of the parameters of NAME, in the order of its gradients.",
        ),
    ] = None,
    model: Annotated[
        Model, Option(rich_help_panel=YOURS, help="Cell of your derivation.")
    ] = Model.RNN,
    reset: Annotated[
        Reset,
        Option(
            rich_help_panel=YOURS,
            help="Where the reset gate of a GRU acts: after or before the product.",
        ),
    ] = Reset.AFTER,
    activation: Annotated[
        Activation,
        Option(
            metavar="NAME", rich_help_panel=YOURS,
            help="Activation of an RNN: tanh, sigmoid, relu or identity.",
        ),
    ] = Activation.TANH,
    loss: Annotated[
        Loss, Option(rich_help_panel=YOURS, help="Loss of your derivation.")
    ] = Loss.MSE,
    bias: Annotated[
        bool, Option("--bias", rich_help_panel=YOURS, help="Your derivation has b and c.")
    ] = False,
    sizes: Annotated[
        list[str] | None,
        Option(
            metavar="T=…,B=…", rich_help_panel=YOURS,
            help="Sizes to try as well; may be given several times.",
        ),
    ] = None,
    case: Annotated[
        str | None,
        Option(
            metavar="CASE", rich_help_panel=YOURS,
            help="Compare at one case alone, such as 7,digits=1, which a report names.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        Option(
            min=0.1, rich_help_panel=YOURS,
            help="Seconds for one call of your code, and of processor time for its mistake's name.",
        ),
    ] = 20,
    dtype: Annotated[
        Dtype, Option(rich_help_panel=BUILTIN, help="Precision.")
    ] = Dtype.FLOAT64,
    certified: Annotated[
        bool,
        Option(
            "--certified", rich_help_panel=BUILTIN,
            help="Compare with guaranteed intervals around the exact gradient, on small problems.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        Option(
            min=1, rich_help_panel=EVERY,
            help="Number of processes that share the random problems: 1, or on a local cluster one "
            "for each processor. The report is the same for any.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        Option(
            metavar="ADDRESS", rich_help_panel=BUILTIN,
            help="Address of the scheduler of a Dask cluster that shares the random problems, or "
            "local for a cluster here.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        Option(
            metavar="FILE", rich_help_panel=BUILTIN,
            help="Save what has been compared so far to this file.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        Option(
            "--resume", rich_help_panel=BUILTIN,
            help="Continue from the file given as --checkpoint.",
        ),
    ] = False,
    examples: Annotated[
        int,
        Option(
            min=1, parser=parse_number, metavar="N", rich_help_panel=EVERY,
            help="Number of random problems, such as 1e6; a model of your own has its own number.",
        ),
    ] = 200,
    seed: Annotated[
        int, Option(min=0, rich_help_panel=EVERY, help="Seed of the random problems.")
    ] = 0,
    json_file: JsonFile = None,
    html_file: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:  # fmt: skip
    """Check your gradients against automatic differentiation, and name the mistake.

    Exit code: 0 agrees, 1 disagrees, 2 bad usage, 3 inconclusive, 4 your
    code ends its process, 5 it raises an exception.
    """
    refuse_inapplicable(context, file, own, model)
    require_writable("--json", json_file)
    require_writable("--html", html_file)
    given = file if own is None else own
    code = None if given is None else Path(split_name(given)[0])
    require_different(
        {"FILE": code, "--checkpoint": checkpoint, "--json": json_file, "--html": html_file}
    )
    if file is None and own is None:
        context.with_resource(holding("--checkpoint", checkpoint))
        outcome, stopped = verify_derivations(
            examples, (seed, str(dtype), certified), alone_on_stdout=json_file,
            workers=workers, cluster=cluster, checkpoint=checkpoint, resume=resume,
        )  # fmt: skip
        origin = {"versions": find_versions(), "command": write_command(context, None)}
        outcome = outcome._replace(plain=outcome.plain | origin)
        if stopped is not None:
            write_json(json_file, outcome.plain | {"stopped": stopped.why})
            print(f"bptt: {stopped.why}", file=sys.stderr)
            raise Exit(stopped.code)
    else:
        path, name = split_name(str(given))
        every: dict[str, Any] = {
            "model": model, "activation": activation, "reset": reset, "loss": loss, "bias": bias,
            "sizes": [parse_sizes(text) for text in sizes or ()], "examples": examples,
            "workers": workers,
        }  # fmt: skip
        console = Console()
        request = {
            "file": path, "function": name, "own": True if own is not None else None,
            "options": {key: value for key, value in every.items() if is_given(context, key)},
            "params": [] if params is None else parse_names(params),
            "seed": seed, "case": case, "html": html_file is not None,
            "command": write_command(context, file),
            "columns": console.width if console.is_terminal else None,
            "color_system": console.color_system,
        }  # fmt: skip
        printed: list[str] = []
        try:
            with ending_by_exception(), progress_bar("verifying", None) as progress:
                outcome = judge_file(request, timeout, progress, printed.append)
        finally:
            print(*printed, sep="\n", end="\n" if printed else "", file=sys.stderr)
        with reader_may_leave(), text_beside_json(json_file):
            print(outcome.text)
    write_json(json_file, outcome.plain)
    if html_file is not None:
        html_file.write_text(outcome.html, encoding="utf-8")
    ended = ENDED if outcome.ended else RAISED if outcome.raised else None
    raise Exit(EXIT_CODES[outcome.verdict] if ended is None else ended)


def write_command(context: Context, file: str | None) -> str:
    """Write the command that gives the same report again."""
    given = write_given(context, ("seed", "json_file", "html_file", "case", *OF_PLACE))
    files = [] if file is None else [file]
    return shlex.join(["bptt", "verify", *files, *given, "--seed", str(context.params["seed"])])


def refuse_inapplicable(context: Context, file: str | None, own: str | None, model: Model) -> None:
    """Refuse options that do not apply to what is verified. Raises ValueError for the first.

    Only once a file has been read is it known whether it is a derivation or an own model.
    """
    if file is not None and own is not None:
        raise ValueError("--own: expected it without FILE[:NAME], found both")
    found = file if own is None else own
    if found is None:
        expected = "expected a FILE to judge with it, found none"
        refuse_given(context, dict.fromkeys(OF_FILE, expected))
        return
    expected = f"expected bptt verify without FILE, found {found}"
    refuse_given(context, dict.fromkeys(OF_BUILTIN, expected))
    if own is not None:
        expected = "expected a derivation of this project's model, found --own"
        refuse_given(context, dict.fromkeys((*OF_DERIVATION, "examples", "workers"), expected))
    reasons = {
        name: f"expected --model {cell}, found {model}"
        for name, cell in OF_CELL.items()
        if cell is not model
    }
    refuse_given(context, reasons)


def split_name(text: str) -> tuple[str, str | None]:
    """Split FILE:NAME into the file and the name, which may be missing.

    The colon after the letter of a drive, as in `C:mine.py`, is a part of the file, and a name has
    no separators of folders. Raises ValueError where one of them is empty, and for an address of
    the network.
    """
    if not text:
        raise ValueError("FILE: expected a Python file, found an empty name")
    if re.match(r"[A-Za-z][\w+.-]+://", text) and not os.path.exists(text):
        found = f"found the address {text}; fetch the file first"
        raise ValueError(f"FILE: expected a file on this computer, {found}")
    path, colon, name = text.rpartition(":")
    drive = re.fullmatch("[A-Za-z]", path) and not os.path.isfile(path)
    if not colon or drive or re.search(r"[/\\]", name) or os.path.exists(text):
        return text, None
    if path.endswith(":"):
        one = f"{path.rstrip(':')}:{name}"
        raise ValueError(f"FILE: expected one colon before the name, found {text}; write {one}")
    if not path or not name:
        missing = "a file before the colon" if name else "a name after the colon"
        raise ValueError(f"FILE: expected {missing}, found none in {text}; write FILE or FILE:NAME")
    return path, name


def parse_names(text: str) -> list[str]:
    """Parse names such as Wxh,Whh. Raises ValueError where one is empty."""
    names = [each.strip() for each in text.split(",")]
    if not all(names):
        raise ValueError(f"--params: expected names such as Wxh,Whh, found {text!r}")
    return names


def parse_sizes(text: str) -> dict[str, int]:
    """Parse sizes such as T=500,B=64. Raises ValueError for another text, or a size given twice."""
    found = [each.partition("=") for each in text.split(",")]
    if not all(letter and size.strip().isdecimal() for letter, _, size in found):
        raise ValueError(f"--sizes: expected sizes such as T=500,B=64, found {text!r}")
    sizes = [(letter.strip(), int(size)) for letter, _, size in found]
    if len(dict(sizes)) < len(sizes):
        raise ValueError(f"--sizes: expected each size once, found {text}; give --sizes again")
    return dict(sizes)


def verify_derivations(
    examples: int, settings: tuple[int, str, bool], *, alone_on_stdout: Path | None, **place: Any
) -> tuple[Outcome, Any]:
    """Compare every built-in derivation on examples of a campaign with these settings; print it.

    Returns the outcome, and why the campaign ended early if it did.
    """
    # Importing JAX takes half a second, which judging a file does in its own process.
    with pausing_collection():
        from bptt_verifier.commands.campaign import compare_derivations  # noqa: PLC0415
        from bptt_verifier.commands.tables import builtin_table, summary  # noqa: PLC0415
        from bptt_verifier.judge.campaign import Campaign  # noqa: PLC0415

    report, stopped = compare_derivations(examples, Campaign(*settings), **place)
    with reader_may_leave(), text_beside_json(alone_on_stdout):
        print_uncut(builtin_table(report))
        print_paragraphs("", summary(report))
    return Outcome(report.verdict, "", report.to_dict(), ""), stopped
