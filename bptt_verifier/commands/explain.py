"""The worked example as numbers beside the equations of docs/derivation.md."""

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bptt_verifier.console.terminal import verdict_text
from bptt_verifier.judge.builtin import Array, allowed, reference
from bptt_verifier.problems.problem import Problem
from bptt_verifier.tolerance.comparison import compare
from manual_bptt import activations, jacobian_sum, losses, rnn

OUTPUT_GRADIENT = {"mse": ("L2", "2 (ŷ − y) / (B O)"), "half_sse": ("L4", "ŷ − y")}
LOSS = {"mse": ("L1", "mean of (ŷ − y)²"), "half_sse": ("L3", "½ sum of (ŷ − y)²")}

HAVE_TERMS = ("W", "U", "b")  # a sum over all hidden states; V and c act at the output only
TOTAL = {
    "W": ("B5", "  sum over k"),
    "U": ("B4", "  sum over k"),
    "b": ("B7", "  sum over k"),
    "V": ("B6", " = ∂L/∂ŷ h_Tᵀ"),
    "c": ("B8", " = ∂L/∂ŷ"),
}


def vector(values: Array) -> str:
    """(0.12345, -1.23456, …)"""
    return "(" + ", ".join(f"{value:.5f}" for value in values) + ")"


def matrix(values: Array) -> str:
    """One line a row, columns aligned."""
    return "\n".join(" ".join(f"{value:10.6f}" for value in row) for row in np.atleast_2d(values))


def columns(*headings: str) -> Table:
    """A table without lines, whose first two columns are an equation's tag and its text."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True, vertical="top")
    return table


def weights(problem: Problem) -> Table:
    """The point at which everything is computed."""
    table = columns("", "shape", "value")
    named = problem.params._asdict() | {"h_0": problem.h0}
    for name, value in named.items():
        if value is not None:
            table.add_row(name, str(value.shape), matrix(value))
    if problem.h0 is None:
        table.add_row("h_0", "", "0")
    return table


def forward_pass(problem: Problem, names: list[str]) -> Table:
    """a_t, h_t, ŷ and L."""
    params, x, y, h0, activation, loss = problem
    prediction, trace = rnn.forward(params, x, h0, activation=activation)
    bias, output_bias = (
        (" + b" if params.b is not None else ""),
        (" + c" if params.c is not None else ""),
    )
    table = columns("", "forward", *names)
    for t in range(1, len(x) + 1):
        table.add_row("", f"x_{t}", *map(vector, x[t - 1]))
        table.add_row("(F1)", f"a_{t} = U x_{t} + W h_{t - 1}{bias}", *map(vector, trace.a[t - 1]))
        table.add_row("(F2)", f"h_{t} = {activation}(a_{t})", *map(vector, trace.h[t]))
    table.add_row("(F3)", f"ŷ = V h_{len(x)}{output_bias}", *map(vector, prediction))
    table.add_row("", "y", *map(vector, y))
    tag, formula = LOSS[loss]
    value = losses.find(loss).value(prediction, y)
    table.add_row(f"({tag})", f"L = {formula}", f"{value:.9f}")
    return table


def backward_pass(problem: Problem, names: list[str]) -> Table:
    """∂L/∂ŷ, and ∂L/∂h_t and δ_t from the last step to the first."""
    params, x, y, h0, activation, loss = problem
    prediction, trace = rnn.forward(params, x, h0, activation=activation)
    dy = losses.find(loss).gradient(prediction, y)
    found = rnn.backward(params, trace, dy)
    phi = activations.find(activation)
    T = len(x)
    table = columns("", "backward", *names)
    tag, formula = OUTPUT_GRADIENT[loss]
    table.add_row(f"({tag})", f"∂L/∂ŷ = {formula}", *map(vector, dy))
    table.add_row("(B1)", f"∂L/∂h_{T} = Vᵀ ∂L/∂ŷ", *map(vector, dy @ params.V))
    for t in range(T, 0, -1):
        slope = phi.derivative(trace.a[t - 1], trace.h[t])
        delta = found.adjoints[t - 1]
        table.add_row("", f"φ′(a_{t})", *map(vector, slope))
        table.add_row("(B2)", f"δ_{t} = ∂L/∂h_{t} ⊙ φ′(a_{t})", *map(vector, delta))
        table.add_row("(B3)", f"∂L/∂h_{t - 1} = Wᵀ δ_{t}", *map(vector, delta @ params.W))
    return table


def path(weight: str, k: int, T: int) -> str:
    """How the weight's use at step k reaches the output."""
    through = " → ".join(f"h_{t}" for t in range(k, T + 1))
    if k == T:
        return f"direct: {weight} acts on h_{T} directly"
    return f"indirect: {weight} acts on h_{k}, and on through {through}"


def sums(problem: Problem) -> Table:
    """Every term k of the sums for ∂L/∂W, ∂L/∂U and ∂L/∂b, all totals, and autodiff's beside."""
    params, x, y, h0, activation, loss = problem
    T = len(x)
    prediction, _ = rnn.forward(params, x, h0, activation=activation)
    dy = losses.find(loss).gradient(prediction, y)
    terms = jacobian_sum.terms(params, x, dy, h0, activation=activation)
    _, totals = rnn.value_and_grad(params, x, y, h0, activation=activation, loss=loss)
    truth = reference(problem)
    bound = allowed(problem, truth)
    table = columns("", "gradient, term by term", "by hand", "autodiff", "error ÷ bound")
    for name in ("W", "U", "b", "V", "c"):
        if getattr(params, name) is None:
            continue
        table.add_row()
        if name in HAVE_TERMS:
            for k in range(T, 0, -1):
                term = getattr(terms, name)[k - 1]
                note = "\nexactly zero" if not term.any() else ""
                table.add_row("(J5)", f"k = {k}  {path(name, k, T)}{note}", matrix(term))
        compared = compare(name, getattr(totals, name), getattr(truth, name), getattr(bound, name))
        tag, total = TOTAL[name]
        table.add_row(
            f"({tag})",
            Text(f"∂L/∂{name}{total}", style="bold"),
            Text(matrix(getattr(totals, name)), style="bold"),
            matrix(getattr(truth, name)),
            Text.assemble(f"{compared.error:.3f}  ", verdict_text(compared.verdict)),
        )
    return table


def truncation_errors(problem: Problem, truncation: int) -> dict[str, float]:
    """‖truncated − full‖ / ‖full‖ for ∂L/∂U, ∂L/∂W and ∂L/∂b; 0 where both are zero.

    `truncation` counts steps as in docs/derivation.md, section 11: the output's own step is the
    first. Raises TypeError or ValueError where it is no number of steps.
    """
    params, x, y, h0, activation, loss = problem
    _, full = rnn.value_and_grad(params, x, y, h0, activation=activation, loss=loss)
    _, kept = rnn.value_and_grad(
        params, x, y, h0, activation=activation, loss=loss, truncation=truncation
    )
    errors = {}
    for name in ("U", "W", "b"):
        if getattr(full, name) is not None:
            missing = float(np.linalg.norm(getattr(kept, name) - getattr(full, name)))
            size = float(np.linalg.norm(getattr(full, name)))
            errors[name] = missing / size if missing else 0.0
    return errors


def truncated(problem: Problem, truncation: int) -> Table:
    """The gradients through the last steps only, beside the full ones, and what is missing."""
    params, x, y, h0, activation, loss = problem
    named: dict[str, Any] = {"activation": activation, "loss": loss}
    _, full = rnn.value_and_grad(params, x, y, h0, **named)
    _, kept = rnn.value_and_grad(params, x, y, h0, **named, truncation=truncation)
    window = f"last {min(truncation, len(x))} of {len(x)} steps"
    table = columns("", "gradient", window, "full", "relative error")
    for name, error in truncation_errors(problem, truncation).items():
        by_step, whole = (matrix(getattr(gradient, name)) for gradient in (kept, full))
        table.add_row("(K1)", f"∂L/∂{name}", by_step, whole, f"{error:.3g}")
    return table


def explanation(
    problem: Problem, names: list[str], truncation: int | None = None
) -> RenderableType:
    """Forward pass, backward pass and the sums over all hidden states; `names` label the batch.

    With a truncation, also the error that it makes.
    """
    last = (
        ()
        if truncation is None
        else (Text("\nTruncated", style="bold underline"), truncated(problem, truncation))
    )
    return Group(
        Text("The weights", style="bold underline"),
        weights(problem),
        Text("\nForward, step by step", style="bold underline"),
        forward_pass(problem, names),
        Text("\nBackward, from the loss to the first step", style="bold underline"),
        backward_pass(problem, names),
        Text("\nThe sums over every hidden state, and what autodiff says", style="bold underline"),
        sums(problem),
        *last,
    )
