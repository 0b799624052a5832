"""The command line, `bptt`: verify, explain, train.

Exit codes: 0 agrees (or learned), 1 disagrees (or not learned), 2 bad usage or input,
3 inconclusive.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.measure import Measurement

from bptt_verifier import colours
from bptt_verifier.builtin import verify_builtin
from bptt_verifier.comparison import Verdict
from bptt_verifier.examination import examine
from bptt_verifier.explain import explanation
from bptt_verifier.problems import Problem
from bptt_verifier.terminal import builtin_table, progress_bar, require_writable, summary
from bptt_verifier.train_command import train
from manual_bptt import rnn

EXIT = {Verdict.AGREES: 0, Verdict.DISAGREES: 1, Verdict.INCONCLUSIVE: 3}

app = typer.Typer(
    help="Hand-derived backpropagation through time, verified against autodiff.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train)


class Dtype(StrEnum):
    """The precision of the derivations under test."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Activation(StrEnum):
    """The four activations."""

    TANH = "tanh"
    RELU = "relu"
    SIGMOID = "sigmoid"
    IDENTITY = "identity"


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
    activation: Annotated[Activation, typer.Option(help="φ of your derivation.")] = Activation.TANH,
    loss: Annotated[Loss, typer.Option(help="L of your derivation.")] = Loss.MSE,
    bias: Annotated[bool, typer.Option("--bias", help="Your derivation has b and c.")] = False,
    examples: Annotated[int, typer.Option(min=1, help="Random problems.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Which random problems.")] = 0,
    dtype: Annotated[
        Dtype, typer.Option(help="Precision of the built-in derivations.")
    ] = Dtype.FLOAT64,
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
    if file is not None or own is not None:
        options: dict[str, Any] = {"seed": seed}
        if file is not None:
            path, _, function = file.rpartition(":") if ":" in file else (file, "", "gradients")
            options |= {"activation": str(activation), "loss": str(loss), "bias": bias}
            options["examples"] = examples
        else:
            path, function = str(own), "gradients"
        request = {"file": path, "function": function, "own": own is not None, "options": options}
        with progress_bar("verifying", None) as progress:
            found = examine(request, timeout, progress)
        print(found.text)
        plain, html, verdict = found.plain, found.html, found.verdict
    else:
        if html_file is not None:
            raise ValueError("--html: expected a FILE to judge with it, found none")
        with progress_bar("verifying", examples) as progress:
            report = verify_builtin(
                examples,
                seed=seed,
                dtype=np.dtype(str(dtype)),
                progress=lambda done: progress(done, examples),
            )
        console = Console()
        console.print(builtin_table(report))
        console.print()
        console.print(summary(report), soft_wrap=True)
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
) -> None:
    """Print the worked example's forward and backward pass beside the equations."""
    rng = np.random.default_rng(seed)
    x, y = colours.inputs(encoding), colours.targets()
    params = rnn.init(rng, x.shape[-1], hidden_size, y.shape[-1], bias=bias)
    h0 = colours.initial_state(initial_state, rng, hidden_size)
    problem = Problem(params, x, y, h0, str(activation), str(loss))
    shown = explanation(problem, [phrase.text for phrase in colours.PHRASES])
    console = Console()
    # Numbers that are cut off would be worse than lines that the terminal wraps.
    needed = Measurement.get(console, console.options.update(width=1000), shown).maximum
    Console(width=max(console.width, needed)).print(shown)


def main() -> None:
    """Run the command line; what the user got wrong is said in one line, with exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"bptt: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
