"""Whether training would notice a wrong claim: the colours, learned with both gradients.

Each phrase of the worked example is followed by its first token several times, so that the word
that decides the colour is as many steps away from the output.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.commands.colours import Encoding, inputs, targets
from bptt_verifier.docket.entry import Entry
from bptt_verifier.judge.published import DocketCase, differentiate_first, take_complex_steps
from bptt_verifier.judge.weights import WEIGHTS
from bptt_verifier.problems.problem import CELLS, OPTION_NAMES, Array

HIDDEN, RATE = 8, 0.5
FILLERS = 4, 2, 0  # times that the first token follows; the first number with which the gradient
LEARNED = 1e-3  # reaches this loss is taken
OWN_STEPS, OWN_RATES = 60, (0.1, 0.03, 0.01, 0.003)  # of the descent of an own model
EVERY = 4  # of these steps, a bar
STEPS = range(20, 301, 20)  # of gradient descent, after which the loss is taken
BARS = "▁▂▃▄▅▆▇█"  # losses below 10⁻⁶, then one bar for each power of ten, and the last from 1 on


def list_options(entry: Entry) -> dict[str, Any]:
    """List the options of an entry's cell, as `value_and_grad` takes them."""
    chosen = {"activation": entry.activation, "reset": entry.reset}
    name = OPTION_NAMES.get(entry.model)
    return {name: chosen[name]} if name else {}


def extend_phrases(fillers: int) -> Array:
    """Extend the phrases by their first token, one-hot: x (2 + fillers, 3, 4)."""
    x: Array = inputs(Encoding.ONE_HOT)
    return np.concatenate([x, *[x[:1]] * fillers])


def draw_curve(losses: list[float]) -> str:
    """Draw losses as bars, on a logarithmic scale."""
    exponents = [np.floor(np.log10(loss)) if loss else -np.inf for loss in losses]
    return "".join(BARS[int(np.clip(exponent + 7, 0, 7))] for exponent in exponents)


def draw_descent(losses: list[float], first: float, lowest: float) -> str:
    """Draw every fourth loss as a bar between the lowest and the first; larger ones are full."""
    shares = [(loss - lowest) / (first - lowest) for loss in losses[EVERY - 1 :: EVERY]]
    return "".join(BARS[int(np.clip(8 * share, 0, 7))] for share in shares)


def train_with(gradients: Callable[..., Any], case: DocketCase, x: Array) -> list[float]:
    """Learn the colours with these gradients, by gradient descent (T1); return losses at STEPS.

    The list ends early where the weights are no longer finite.
    """
    entry, y = case.entry, targets()
    cell: Any = CELLS[entry.model]
    sizes = x.shape[-1], HIDDEN, y.shape[-1]
    first = cell.init(np.random.default_rng(0), *sizes, bias=entry.bias)
    weights = {name: value for name, value in first._asdict().items() if value is not None}
    losses: list[float] = []
    for step in range(1, max(STEPS) + 1):
        found = gradients(WEIGHTS[len(weights)](**weights), x, y)
        if not isinstance(found, Mapping):
            found = dict(zip(weights, found, strict=True))
        weights = {name: value - RATE * found[name] for name, value in weights.items()}
        if not all(np.isfinite(value).all() for value in weights.values()):
            return losses
        if step in STEPS:
            value, _ = cell.value_and_grad(first._replace(**weights), x, y, **list_options(entry))
            losses.append(float(value))
    return losses


def describe_losses(losses: list[float]) -> str:
    """Describe losses at STEPS as a curve and the last number."""
    last = f"{losses[-1]:.1e}" if len(losses) == len(STEPS) else "not finite"
    return f"{draw_curve(losses)} {last}".strip()


def descend(gradients: Callable[..., Any], case: DocketCase, rate: float) -> list[float]:
    """Descend on an own model's loss from its parameters (T1); return the loss before each step.

    The list ends early where the loss is no longer finite.
    """
    weights = {name: np.asarray(value) for name, value in case.module.params.items()}
    losses: list[float] = []
    for _ in range(OWN_STEPS):
        losses.append(float(case.module.loss(weights)))
        if not np.isfinite(losses[-1]):
            return losses[:-1]
        found = gradients(dict(weights))
        weights = {name: value - rate * found[name] for name, value in weights.items()}
    return losses


def describe_descent(case: DocketCase) -> str:
    """Describe the descent on an own model's loss.

    The rate is the largest with which the gradient ends at the lowest loss that it reaches.
    """
    loss = case.module.loss
    differentiate_first(loss, {name: np.asarray(v) for name, v in case.module.params.items()})
    with np.errstate(all="ignore"):
        for rate in OWN_RATES:
            true = descend(partial(take_complex_steps, loss), case, rate)
            if len(true) == OWN_STEPS and true[-1] == min(true):
                break
        claimed = descend(case.module.gradients, case, rate)
    ends = [
        f"{each[-1]:.2g}" if len(each) == OWN_STEPS else "not finite" for each in (claimed, true)
    ]
    curves = [draw_descent(each, true[0], min(true)) for each in (claimed, true)]
    return (
        f"Descent on the loss of the entry, {OWN_STEPS} steps from {true[0]:.2g}: "
        f"{curves[0]} {ends[0]} with the claim; {curves[1]} {ends[1]} with the gradient."
    )


def describe_training(case: DocketCase) -> str:
    """Describe the losses with the claim and with the gradient; empty for right claims.

    A cell learns the colours; an own model descends on its entry's loss.
    """
    entry = case.entry
    if not entry.corrected:
        return ""
    if not entry.model:
        return describe_descent(case)
    cell: Any = CELLS[entry.model]

    def right(weights: Any, x: Any, y: Any) -> Any:
        params = cell.Params(**weights._asdict())
        found = cell.value_and_grad(params, x, y, **list_options(entry))[1]
        return {name: value for name, value in found._asdict().items() if value is not None}

    with np.errstate(all="ignore"):
        for x in map(extend_phrases, FILLERS):
            true = train_with(right, case, x)
            if true[-1] < LEARNED:
                break
        claimed = train_with(case.module.gradients, case, x)
    return (
        f"Training on the colours, {len(x)} words each: {describe_losses(claimed)} with the claim; "
        f"{describe_losses(true)} with the gradient."
    )
