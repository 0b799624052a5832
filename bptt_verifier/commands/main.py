"""The command line, `bptt`: verify, prove, accuracy, explain, flow, train.

Exit codes: 0 agrees (or learned), 1 disagrees (or not learned), 2 bad usage or input,
3 inconclusive, 130 ended by Ctrl-C, 141 the reader of the output left before there was a verdict.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console

from bptt_verifier.commands import colours
from bptt_verifier.commands.accuracy import accuracy
from bptt_verifier.commands.child_process import examine
from bptt_verifier.commands.explain import explanation
from bptt_verifier.commands.flow import flow
from bptt_verifier.commands.prove import prove
from bptt_verifier.commands.train import INTERRUPTED, Activation, Dtype, Model, train
from bptt_verifier.console.argument_errors import App
from bptt_verifier.console.terminal import (
    builtin_table,
    discard_output,
    print_uncut,
    progress_bar,
    reader_may_leave,
    require_writable,
    summary,
)
from bptt_verifier.judge.builtin import AUTODIFF, DERIVATIONS, VARIANTS, verify_builtin
from bptt_verifier.problems.problem import Problem
from bptt_verifier.proofs.extras import MissingExtra
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn

EXIT = {Verdict.AGREES: 0, Verdict.DISAGREES: 1, Verdict.INCONCLUSIVE: 3}
NO_READER = 141  # what a shell says of a process that wrote where nobody reads

app = App(
    help="Hand-derived backpropagation through time, verified against autodiff.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train)
app.command("flow")(flow)
app.command("prove")(prove)
app.command("accuracy")(accuracy)


class Reset(StrEnum):
    """The GRU's two forms."""

    AFTER = "after"
    BEFORE = "before"


class Loss(StrEnum):
    """The two losses."""

    MSE = "mse"
    HALF_SSE = "half_sse"


@app.command()
def verify(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE[:FUNCTION]]",
            help="Judge this derivation, a Python file with gradients(params, x, y[, h0]). "
            "Runs the code in it.",
        ),
    ] = None,
    own: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Judge a model of your own: a file with params, loss(params, xp) and "
            "gradients(params). Runs the code in it.",
        ),
    ] = None,
    model: Annotated[Model, typer.Option(help="What your derivation is of.")] = Model.RNN,
    reset: Annotated[Reset, typer.Option(help="Where a GRU's reset gate acts.")] = Reset.AFTER,
    activation: Annotated[Activation, typer.Option(help="φ of your derivation.")] = Activation.TANH,
    loss: Annotated[Loss, typer.Option(help="L of your derivation.")] = Loss.MSE,
    bias: Annotated[bool, typer.Option("--bias", help="Your derivation has b and c.")] = False,
    examples: Annotated[int, typer.Option(min=1, help="Random problems.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Which random problems.")] = 0,
    dtype: Annotated[
        Dtype, typer.Option(help="Precision of the built-in derivations.")
    ] = Dtype.FLOAT64,
    certified: Annotated[
        bool,
        typer.Option(
            "--certified",
            help="Compare the built-in derivations with enclosures of the exact values, on small "
            "problems, instead of autodiff.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one call of your code may take.")
    ] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results here, too.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Check a derivation of yours, or every built-in one, against autodiff on random problems."""
    require_writable("--json", json_file)
    require_writable("--html", html_file)
    if file is not None and own is not None:
        raise ValueError("--own: expected it without FILE[:FUNCTION], found both")
    if certified and (file is not None or own is not None):
        raise ValueError("--certified: expected it without a FILE to judge, found both")
    stated = {
        "--model": model is not Model.RNN,
        "--reset": reset is not Reset.AFTER,
        "--activation": activation is not Activation.TANH,
        "--loss": loss is not Loss.MSE,
        "--bias": bias,
    }
    if file is None and any(stated.values()):
        option = next(name for name, given in stated.items() if given)
        raise ValueError(f"{option}: expected a FILE to judge with it, found none")
    if file is not None or own is not None:
        options: dict[str, Any] = {"seed": seed}
        if file is not None:
            path, _, function = file.rpartition(":") if ":" in file else (file, "", "gradients")
            options |= {"activation": str(activation), "loss": str(loss), "bias": bias}
            options |= {"examples": examples, "model": str(model), "reset": str(reset)}
        else:
            path, function = str(own), "gradients"
        request = {"file": path, "function": function, "own": own is not None, "options": options}
        with ended_by_an_exception(), progress_bar("verifying", None) as progress:
            found = examine(request, timeout, progress)
        with reader_may_leave():
            print(found.text)
        plain, html, verdict = found.plain, found.html, found.verdict
    else:
        if html_file is not None:
            raise ValueError("--html: expected a FILE to judge with it, found none")
        oracle, derivations, variants = AUTODIFF, DERIVATIONS, VARIANTS
        if certified:
            from bptt_verifier.judge import certified as truth  # noqa: PLC0415 - needs an extra

            oracle = truth.CERTIFIED
            derivations = DERIVATIONS | truth.COMPILED_DERIVATIONS
            variants = VARIANTS | truth.COMPILED_VARIANTS
        with progress_bar("verifying", examples) as progress:
            report = verify_builtin(
                examples,
                seed=seed,
                dtype=np.dtype(str(dtype)),
                derivations=derivations,
                variants=variants,
                oracle=oracle,
                progress=lambda done: progress(done, examples),
            )
        with reader_may_leave():
            print_uncut(builtin_table(report))
            Console().print("", summary(report), sep="\n", soft_wrap=True)
        plain, html, verdict = report.to_dict(), "", report.verdict
    if json_file is not None:
        text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
        json_file.write_text(text, encoding="utf-8")
    if html_file is not None:
        html_file.write_text(html, encoding="utf-8")
    raise typer.Exit(EXIT[verdict])


@app.command()
def explain(
    encoding: Annotated[
        colours.Encoding, typer.Option(help="How a token is fed.")
    ] = colours.Encoding.INTEGER,
    initial_state: Annotated[
        colours.InitialState, typer.Option(help="The state before the first token.")
    ] = colours.InitialState.RANDOM,
    hidden_size: Annotated[int, typer.Option(min=1, max=8, help="Hidden units.")] = 2,
    activation: Annotated[Activation, typer.Option(help="φ.")] = Activation.TANH,
    loss: Annotated[Loss, typer.Option(help="L.")] = Loss.MSE,
    bias: Annotated[bool, typer.Option(help="With b and c, zero at the start.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which random weights.")] = 0,
    truncation: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Also what is missing after K steps back only."),
    ] = None,
) -> None:
    """Print the worked example's forward and backward pass beside the equations."""
    rng = np.random.default_rng(seed)
    x, y = colours.inputs(encoding), colours.targets()
    params = rnn.init(rng, x.shape[-1], hidden_size, y.shape[-1], bias=bias)
    h0 = colours.initial_state(initial_state, rng, hidden_size)
    problem = Problem(params, x, y, h0, str(activation), str(loss))
    print_uncut(explanation(problem, [phrase.text for phrase in colours.PHRASES], truncation))


def end_at_once(*_: Any) -> NoReturn:
    """What Ctrl-C does: one sentence, and the end of the process, wherever it was.

    An exception could be swallowed by a callback of the garbage collector, and an interpreter that
    shuts down while JAX compiles may crash.
    """
    visible = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # no remains of a bar, and the cursor
    with suppress(OSError):
        os.write(2, f"{visible}bptt: interrupted\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def ended_by_an_exception() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, so that what was started is ended.

    Where that is swallowed, it is raised again a second later.
    """
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    repeats = hasattr(signal, "setitimer")

    def interrupt(*_: Any) -> NoReturn:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 1)
        raise KeyboardInterrupt

    if repeats:
        signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if repeats:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, end_at_once)


def reasons(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, the one that it was raised for, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def complain(sentence: str) -> int:
    """Say what the user got wrong, and return the exit code for it."""
    with suppress(OSError):
        print(f"bptt: {sentence}", file=sys.stderr)
    return 2


def main() -> None:
    """Run the command line; what the user got wrong is said in one line, with exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    before = signal.getsignal(signal.SIGINT)
    # `train` has something to save, and who ignores Ctrl-C goes on ignoring it.
    if before is signal.default_int_handler and sys.argv[1:2] != ["train"]:
        signal.signal(signal.SIGINT, end_at_once)
    code: Any = 0
    try:
        app()
    except SystemExit as ended:
        causes = tuple(reasons(ended))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            end_at_once()
        no_reader = any(isinstance(cause, BrokenPipeError) for cause in causes)
        code = NO_READER if no_reader else ended.code
    except KeyboardInterrupt:
        end_at_once()
    except MemoryError as error:
        code = complain(f"memory: expected enough for these sizes, found too little: {error}")
    except (ValueError, OSError, MissingExtra) as error:
        code = complain(str(error))
    finally:
        if signal.getsignal(signal.SIGINT) is end_at_once:
            signal.signal(signal.SIGINT, before)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
