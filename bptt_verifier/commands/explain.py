"""`bptt explain`: the worked example as numbers beside the equations of docs/derivation.md."""

from typing import Annotated, Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import Option

from bptt_verifier.commands import colours
from bptt_verifier.commands.tables import empty_table, verdict_text
from bptt_verifier.console.choices import Activation, Loss
from bptt_verifier.console.terminal import print_uncut
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.reference.autodiff import truth
from bptt_verifier.tolerance.comparison import compare
from manual_bptt import activations, jacobian_sum, losses, rnn

LOSS = {"mse": ("L1", "mean of (ŷ − y)²"), "half_sse": ("L3", "½ sum of (ŷ − y)²")}
OUTPUT_GRADIENT = {"mse": ("L2", "2 (ŷ − y) / (B O)"), "half_sse": ("L4", "ŷ − y")}

HAVE_TERMS = ("W", "U", "b")  # a sum over all hidden states; V and c act at the output only
TOTAL = {
    "W": ("B5", "  sum over k"), "U": ("B4", "  sum over k"), "b": ("B7", "  sum over k"),
    "V": ("B6", " = ∂L/∂ŷ h_Tᵀ"), "c": ("B8", " = ∂L/∂ŷ"),
}  # fmt: skip


def explain(
    encoding: Annotated[
        colours.Encoding, Option(help="Tokens as one number (D = 1), or one-hot (D = 4).")
    ] = colours.Encoding.INTEGER,
    initial_state: Annotated[
        colours.InitialState, Option(help="h_0 = 0, or one random vector.")
    ] = colours.InitialState.RANDOM,
    hidden_size: Annotated[int, Option(min=1, max=8, help="H, the size of the state.")] = 2,
    activation: Annotated[
        Activation,
        Option(metavar="NAME", help="φ in h_t = φ(a_t): tanh, sigmoid, relu or identity."),
    ] = Activation.TANH,
    loss: Annotated[Loss, Option(help="The loss L.")] = Loss.MSE,
    bias: Annotated[bool, Option(help="Add the biases b and c, initially zero.")] = False,
    seed: Annotated[int, Option(min=0, help="Seed of the weights and the random h_0.")] = 0,
    truncation: Annotated[
        int | None,
        Option(min=1, metavar="K", help="Also truncate the gradients to the last K steps."),
    ] = None,
) -> None:
    """Print the worked example's forward and backward pass beside the equations."""
    rng = np.random.default_rng(seed)
    x, y = colours.inputs(encoding), colours.targets()
    params = rnn.init(rng, x.shape[-1], hidden_size, y.shape[-1], bias=bias)
    h0 = colours.initial_state(initial_state, rng, hidden_size)
    problem = Problem("rnn", params, x, y, {"h0": h0}, {"activation": str(activation)}, str(loss))
    print_uncut(explanation(problem, [phrase.text for phrase in colours.PHRASES], truncation))


class Passes(NamedTuple):
    """The forward and the backward pass of the plain RNN at one problem."""

    prediction: Array
    trace: rnn.Trace
    output_gradient: Array
    gradients: rnn.Gradients


def explanation(
    problem: Problem, names: list[str], truncation: int | None = None
) -> RenderableType:
    """The forward pass, the backward pass and the sums over all hidden states.

    `names` label the batch. With a truncation, the truncated gradients and their errors follow.
    """
    options: dict[str, Any] = problem.option
    prediction, trace = rnn.forward(problem.params, problem.x, problem.h0, **options)
    dy = losses.find(problem.loss).gradient(prediction, problem.y)
    passes = Passes(prediction, trace, dy, rnn.backward(problem.params, trace, dy))
    parts = {
        "The weights": weights_table(problem),
        "Forward, step by step": forward_table(problem, passes, names),
        "Backward, from the loss to the first step": backward_table(problem, passes, names),
        "The sums over every hidden state, beside autodiff": sums_table(problem, passes),
    }
    if truncation is not None:
        parts["Truncated"] = truncation_table(problem, truncation)
    lines: list[RenderableType] = []
    for heading, table in parts.items():
        space = "\n" if lines else ""
        lines += [Text(space + heading, style="bold underline"), table]
    return Group(*lines)


def weights_table(problem: Problem) -> Table:
    """The weights and the initial state."""
    table = empty_table("", "shape", "value")
    for name, value in (problem.weights | {"h_0": problem.h0}).items():
        cells = ("", "0") if value is None else (str(value.shape), format_matrix(value))
        table.add_row(name, *cells)
    return table


def forward_table(problem: Problem, passes: Passes, names: list[str]) -> Table:
    """a_t and h_t from the first step to the last, ŷ and L."""
    params, x, trace = problem.params, problem.x, passes.trace
    bias, output_bias = (
        "" if b is None else f" + {name}" for name, b in (("b", params.b), ("c", params.c))
    )
    table = empty_table("", "forward", *names)
    for t in range(1, len(x) + 1):
        add_row(table, "", f"x_{t}", x[t - 1])
        add_row(table, "(F1)", f"a_{t} = U x_{t} + W h_{t - 1}{bias}", trace.a[t - 1])
        add_row(table, "(F2)", f"h_{t} = {problem.option['activation']}(a_{t})", trace.h[t])
    add_row(table, "(F3)", f"ŷ = V h_{len(x)}{output_bias}", passes.prediction)
    add_row(table, "", "y", problem.y)
    tag, formula = LOSS[problem.loss]
    value = losses.find(problem.loss).value(passes.prediction, problem.y)
    table.add_row(f"({tag})", f"L = {formula}", f"{value:.9f}")
    return table


def backward_table(problem: Problem, passes: Passes, names: list[str]) -> Table:
    """∂L/∂ŷ, and ∂L/∂h_t and δ_t from the last step to the first."""
    params, trace, dy = problem.params, passes.trace, passes.output_gradient
    phi, T = activations.find(problem.option["activation"]), len(problem.x)
    table = empty_table("", "backward", *names)
    tag, formula = OUTPUT_GRADIENT[problem.loss]
    add_row(table, f"({tag})", f"∂L/∂ŷ = {formula}", dy)
    add_row(table, "(B1)", f"∂L/∂h_{T} = Vᵀ ∂L/∂ŷ", dy @ params.V)
    for t in range(T, 0, -1):
        delta = passes.gradients.adjoints[t - 1]
        add_row(table, "", f"φ′(a_{t})", phi.derivative(trace.a[t - 1], trace.h[t]))
        add_row(table, "(B2)", f"δ_{t} = ∂L/∂h_{t} ⊙ φ′(a_{t})", delta)
        add_row(table, "(B3)", f"∂L/∂h_{t - 1} = Wᵀ δ_{t}", delta @ params.W)
    return table


def sums_table(problem: Problem, passes: Passes) -> Table:
    """Every term k of the sums for ∂L/∂W, ∂L/∂U and ∂L/∂b, and all totals beside autodiff's."""
    T = len(problem.x)
    terms = jacobian_sum.terms(
        problem.params, problem.x, passes.output_gradient, problem.h0, **problem.option
    )
    reference = truth(problem, problem.x.dtype)
    table = empty_table("", "gradient, term by term", "by hand", "autodiff", "error ÷ bound")
    for name, (tag, total) in TOTAL.items():
        if name not in problem.weights:
            continue
        table.add_row()
        if name in HAVE_TERMS:
            for k in range(T, 0, -1):
                term = getattr(terms, name)[k - 1]
                note = "" if term.any() else "\nexactly zero"
                path = describe_path(name, k, T)
                table.add_row("(J5)", f"k = {k}  {path}{note}", format_matrix(term))
        by_hand, autodiff = getattr(passes.gradients, name), reference.values[name]
        compared = compare(name, by_hand, autodiff, reference.allowed[name])
        bold = (Text(cell, "bold") for cell in (f"∂L/∂{name}{total}", format_matrix(by_hand)))
        error = Text.assemble(f"{compared.error:.3f}  ", verdict_text(compared.verdict))
        table.add_row(f"({tag})", *bold, format_matrix(autodiff), error)
    return table


def add_row(table: Table, tag: str, formula: str, values: Array) -> None:
    """Add a row with a vector for each sequence of the batch."""
    table.add_row(tag, formula, *("(" + ", ".join(f"{v:.5f}" for v in row) + ")" for row in values))


def describe_path(weight: str, k: int, T: int) -> str:
    """The path by which the weight's use at step k reaches the output."""
    if k == T:
        return f"direct: {weight} acts on h_{T} directly"
    through = " → ".join(f"h_{t}" for t in range(k, T + 1))
    return f"indirect: {weight} acts on h_{k}, and on through {through}"


def truncation_table(problem: Problem, truncation: int) -> Table:
    """The gradients through the last steps only, beside the full ones, with relative errors."""
    full, kept = full_and_truncated(problem, truncation)
    window = f"last {min(truncation, len(problem.x))} of {len(problem.x)} steps"
    table = empty_table("", "gradient", window, "full", "relative error")
    for name, error in truncation_errors(problem, truncation).items():
        values = (format_matrix(getattr(gradients, name)) for gradients in (kept, full))
        table.add_row("(K1)", f"∂L/∂{name}", *values, f"{error:.3g}")
    return table


def truncation_errors(problem: Problem, truncation: int) -> dict[str, float]:
    """‖truncated − full‖ / ‖full‖ for ∂L/∂U, ∂L/∂W and ∂L/∂b; 0 where both are zero.

    `truncation` counts steps as in docs/derivation.md, section 11: the output's own step is the
    first. Raises TypeError or ValueError where it is no number of steps.
    """
    full, kept = full_and_truncated(problem, truncation)
    errors = {}
    for name in ("U", "W", "b"):
        if (whole := getattr(full, name)) is not None:
            missing = float(np.linalg.norm(getattr(kept, name) - whole))
            errors[name] = missing / float(np.linalg.norm(whole)) if missing else 0.0
    return errors


def full_and_truncated(problem: Problem, truncation: int) -> tuple[rnn.Params, rnn.Params]:
    """The gradients through all steps, and those through the last steps only."""
    point, options = (problem.params, problem.x, problem.y), problem.simple_options
    kept = rnn.value_and_grad(*point, **options, truncation=truncation)[1]
    return rnn.value_and_grad(*point, **options)[1], kept


def format_matrix(values: Array) -> str:
    """Format one row a line, columns aligned."""
    return "\n".join(" ".join(f"{value:10.6f}" for value in row) for row in np.atleast_2d(values))
