"""`bptt verify`: compare a submission, or every built-in derivation, with autodiff."""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from typer import Argument, Exit, Option

from bptt_verifier.commands.child_process import Outcome, judge_file
from bptt_verifier.commands.tables import builtin_table, summary
from bptt_verifier.console.choices import Activation, Dtype, Loss, Model, Reset
from bptt_verifier.console.files import JsonFile, require_writable, write_json
from bptt_verifier.console.interrupts import ending_by_exception
from bptt_verifier.console.terminal import print_uncut, progress_bar, reader_may_leave
from bptt_verifier.judge import builtin
from bptt_verifier.tolerance.comparison import Verdict

EXIT_CODES = {Verdict.AGREES: 0, Verdict.DISAGREES: 1, Verdict.INCONCLUSIVE: 3}
ENDED = 4  # the submission ended the process


def verify(
    file: Annotated[
        str | None,
        Argument(
            metavar="[FILE[:NAME]]",
            help="Your derivation, a Python file with gradients(params, x, y[, h0]), or your own "
            "model, which is recognised by what FILE defines. Its code is run.",
        ),
    ] = None,
    own: Annotated[
        str | None,
        Option(
            metavar="FILE[:NAME]",
            help="Your own model: a Python file with params, loss(params) in NumPy "
            "or loss(params, xp), and gradients(params), or NAME, a function that returns the loss "
            "and the gradients, or a class with forward and backward. Its code is run.",
        ),
    ] = None,
    params: Annotated[
        str | None,
        Option(
            metavar="Wxh,Whh,…",
            help="Names of the parameters of NAME, in the order of the gradients.",
        ),
    ] = None,
    model: Annotated[Model, Option(help="Cell of your derivation.")] = Model.RNN,
    reset: Annotated[
        Reset, Option(help="Where the GRU's reset gate acts: after or before the product.")
    ] = Reset.AFTER,
    activation: Annotated[Activation, Option(help="φ of your derivation.")] = Activation.TANH,
    loss: Annotated[Loss, Option(help="L of your derivation.")] = Loss.MSE,
    bias: Annotated[bool, Option("--bias", help="Your derivation has b and c.")] = False,
    examples: Annotated[int, Option(min=1, help="Number of random problems.")] = 200,
    seed: Annotated[int, Option(min=0, help="Seed of the random problems.")] = 0,
    sizes: Annotated[
        list[str] | None,
        Option(metavar="T=…,B=…", help="Sizes to try as well; may be given several times."),
    ] = None,
    dtype: Annotated[Dtype, Option(help="Precision of the built-in derivations.")] = Dtype.FLOAT64,
    certified: Annotated[
        bool,
        Option(
            "--certified",
            help="Compare the built-in derivations on small problems with enclosures of the exact "
            "values instead of autodiff.",
        ),
    ] = False,
    timeout: Annotated[
        float,
        Option(
            min=0.1,
            help="Time limit for one call of your code, and for naming the mistake, in seconds.",
        ),
    ] = 20,
    json_file: JsonFile = None,
    html_file: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Compare your derivation, or every built-in one, with autodiff on random problems.

    Exit code: 0 agrees, 1 disagrees, 3 inconclusive, 4 your code ended the process.
    """
    require_writable("--json", json_file)
    require_writable("--html", html_file)
    if file is not None and own is not None:
        raise ValueError("--own: expected it without FILE[:FUNCTION], found both")
    if certified and (file is not None or own is not None):
        raise ValueError("--certified: expected it without a FILE to judge, found both")
    needs_file = {
        "--model": model is not Model.RNN, "--reset": reset is not Reset.AFTER,
        "--activation": activation is not Activation.TANH, "--loss": loss is not Loss.MSE,
        "--bias": bias, "--sizes": sizes, "--html": html_file is not None and own is None,
        "--params": params is not None and own is None,
    }  # fmt: skip
    for option, given in needs_file.items():
        if given and file is None:
            raise ValueError(f"{option}: expected a FILE to judge with it, found none")

    if file is None and own is None:
        report = verify_derivations(examples, seed, dtype, certified=certified)
        with reader_may_leave():
            print_uncut(builtin_table(report))
            Console().print("", summary(report), sep="\n", soft_wrap=True)
        outcome = Outcome(report.verdict, "", report.to_dict(), "")
    else:
        path, name = split_name(str(file if own is None else own))
        options: dict[str, Any] = {} if own is not None else {
            "model": model, "activation": activation, "reset": reset, "loss": loss, "bias": bias,
            "sizes": [parse_sizes(text) for text in sizes or ()],
        }  # fmt: skip
        ordinary = {"model": Model.RNN, "activation": Activation.TANH, "reset": Reset.AFTER,
                    "loss": Loss.MSE, "bias": False, "sizes": []}  # fmt: skip
        request = {
            "file": path, "function": name, "own": True if own is not None else None,
            "options": {key: value for key, value in options.items() if value != ordinary[key]},
            "params": [each.strip() for each in params.split(",")] if params else [],
            "examples": examples, "seed": seed,
        }  # fmt: skip
        printed: list[str] = []
        try:
            with ending_by_exception(), progress_bar("verifying", None) as progress:
                outcome = judge_file(request, timeout, progress, printed.append)
        finally:
            print(*printed, sep="\n", end="\n" if printed else "", file=sys.stderr)
        with reader_may_leave():
            print(outcome.text)
    write_json(json_file, outcome.plain)
    if html_file is not None:
        html_file.write_text(outcome.html, encoding="utf-8")
    raise Exit(ENDED if outcome.ended else EXIT_CODES[outcome.verdict])


def split_name(text: str) -> tuple[str, str | None]:
    """Split FILE:NAME into the file and the name, which may be missing."""
    path, colon, name = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, None
    return path, name or None


def parse_sizes(text: str) -> dict[str, int]:
    """Parse sizes such as T=500,B=64. Raises ValueError where the text is none."""
    found = [each.partition("=") for each in text.split(",")]
    if not all(letter and size.strip().isdecimal() for letter, _, size in found):
        raise ValueError(f"--sizes: expected sizes such as T=500,B=64, found {text!r}")
    return {letter.strip(): int(size) for letter, _, size in found}


def verify_derivations(
    examples: int, seed: int, dtype: Dtype, *, certified: bool
) -> builtin.BuiltinReport:
    """The report on every built-in derivation, compared with autodiff or with exact values."""
    derivations, cell_derivations = builtin.DERIVATIONS, builtin.CELL_DERIVATIONS
    yardstick = builtin.AUTODIFF
    if certified:
        from bptt_verifier.judge import certified as exact  # noqa: PLC0415 - needs an extra

        derivations = derivations | exact.COMPILED_DERIVATIONS
        cell_derivations = cell_derivations | exact.COMPILED_CELL_DERIVATIONS
        yardstick = exact.CERTIFIED
    with progress_bar("verifying", examples) as progress:
        return builtin.verify_builtin(
            examples, seed=seed, dtype=np.dtype(dtype), derivations=derivations,
            cell_derivations=cell_derivations, yardstick=yardstick,
            progress=lambda done: progress(done, examples),
        )  # fmt: skip
