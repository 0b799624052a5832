"""Whether training would notice a wrong claim: the worked example, learned with both gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bptt_verifier.commands.colours import Encoding, inputs, targets
from bptt_verifier.docket.entry import Entry
from bptt_verifier.judge.published import DocketCase
from bptt_verifier.judge.submission import WEIGHTS
from bptt_verifier.problems.problem import CELLS, OPTION_NAMES

HIDDEN, RATE = 8, 0.5
STEPS = (10, 30, 100, 300)  # of gradient descent, after which the loss is taken


def list_options(entry: Entry) -> dict[str, Any]:
    """List the options of an entry's cell, as `value_and_grad` takes them."""
    chosen = {"activation": entry.activation, "reset": entry.reset}
    name = OPTION_NAMES.get(entry.model)
    return {name: chosen[name]} if name else {}


def train_with(gradients: Callable[..., Any], case: DocketCase) -> list[float]:
    """Learn the colours with these gradients, by gradient descent (T1); return losses at STEPS.

    The list ends early where the weights are no longer finite.
    """
    entry, x, y = case.entry, inputs(Encoding.ONE_HOT), targets()
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


def describe_training(case: DocketCase) -> str:
    """Describe the losses with the claim and with the gradient; empty for right claims.

    An own model has a loss of its own, and is not trained.
    """
    entry = case.entry
    if not entry.model or not entry.corrected:
        return ""
    cell: Any = CELLS[entry.model]

    def right(weights: Any, x: Any, y: Any) -> Any:
        params = cell.Params(**weights._asdict())
        found = cell.value_and_grad(params, x, y, **list_options(entry))[1]
        return {name: value for name, value in found._asdict().items() if value is not None}

    def describe(losses: list[float]) -> str:
        ends = [] if len(losses) == len(STEPS) else ["not finite"]
        return ", ".join([*(f"{loss:.1e}" for loss in losses), *ends])

    with np.errstate(all="ignore"):
        claimed, true = (describe(train_with(g, case)) for g in (case.module.gradients, right))
    return (
        f"Training on the three colours, loss after {', '.join(map(str, STEPS))} steps: "
        f"{claimed} with the claim; {true} with the gradient."
    )
