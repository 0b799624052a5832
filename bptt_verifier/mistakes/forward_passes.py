"""Forward passes other than the stated one, each as a changed problem.

If the gradients of a submission are right for one of these, its backward pass is right.
"""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.equations import FUNCTIONS
from bptt_verifier.problems.problem import ACTIVATIONS, Array, Problem
from bptt_verifier.report import Mistake

PACKED = {"U": 0, "W": 0, "b": 0, "adjoints": -1}  # gradients that hold all gates, along this axis


class OtherForwardPass(NamedTuple):
    """A forward pass as a problem, with its order of the gates.

    `gates` has the place of each gate's rows in the submission; `signs` multiply them. The
    gradients in `free` may have any value.
    """

    mistake: Mistake
    problem: Problem
    gates: tuple[int, ...]
    signs: tuple[int, ...]
    free: frozenset[str] = frozenset()

    def arrange(self, found: Mapping[str, Array], signed: bool = True) -> dict[str, Array]:
        """Arrange gradients in the order of this forward pass, without those that are free."""
        signs = self.signs if signed else (1,) * len(self.gates)
        return {
            name: arrange_blocks(v, self.gates, signs, PACKED[name]) if name in PACKED else v
            for name, v in found.items()
            if name not in self.free
        }


def list_forward_passes(problem: Problem) -> Iterator[OtherForwardPass]:
    """List every forward pass that is tried in place of a problem's own."""
    params = problem.params
    gates = tuple(range(len(FUNCTIONS[problem.cell])))
    signs = (1,) * len(gates)

    def other(
        said: str,
        changed: Problem,
        gates: tuple[int, ...] = gates,
        signs: tuple[int, ...] = signs,
        free: tuple[str, ...] = (),
        details: dict[str, Any] | None = None,
    ) -> OtherForwardPass:
        mistake = Mistake("forward-differs", f"your forward pass differs: {said}.", details or {})
        return OtherForwardPass(mistake, changed, gates, signs, frozenset(free))

    def with_weights(**changed: Array) -> Problem:
        return problem._replace(params=params._replace(**changed))

    if problem.cell == "rnn":
        for activation in ACTIVATIONS:
            if activation != problem.option["activation"]:
                option = {"activation": activation}
                changed = problem._replace(option=option)
                yield other(f"its activation is {activation}", changed, details=option)
        yield other("W is used transposed", with_weights(W=params.W.T))
    for name in problem.first:
        first = {state: value for state, value in problem.first.items() if state != name}
        said = f"{name} is ignored, and it starts at zero"
        yield other(said, problem._replace(first=first), free=(name,))
    for name in ("b", "c", "b_n"):
        if name in problem.weights:
            without = with_weights(**{name: np.zeros_like(problem.weights[name])})
            yield other(f"the bias {name} is left out", without)
    backwards = problem._replace(x=problem.x[::-1])
    yield other("the inputs are read backwards in time", backwards, free=("x", "adjoints"))
    if problem.cell == "gru":
        reset = {"after": "before", "before": "after"}[problem.option["reset"]]
        said = f"its reset gate acts {reset} the product with W_n"
        option = {"reset": reset}
        yield other(said, problem._replace(option=option), details=option)
        said = "it is h_t = z_t ⊙ n_t + (1 − z_t) ⊙ h_{t-1}, with z_t for 1 − z_t"
        negated = (1, -1, 1)  # 1 − σ(a) = σ(−a)
        yield other(said, rearrange(problem, gates, negated), signs=negated)
    for order in permutations(gates):
        if order != gates:
            packed = sorted(zip(order, FUNCTIONS[problem.cell], strict=True))
            letters = ", ".join(k for _, k in packed)
            said = f"its gates are packed in the order {letters}"
            changed = rearrange(problem, order, signs)
            yield other(said, changed, gates=order, details={"gates": letters})


def rearrange(problem: Problem, order: tuple[int, ...], signs: tuple[int, ...]) -> Problem:
    """Rearrange a problem: its k-th gate gets the rows of gate order[k], times a sign."""
    packed = {n: rows for n, rows in problem.weights.items() if n in PACKED}
    packed = {name: arrange_blocks(rows, order, signs) for name, rows in packed.items()}
    return problem._replace(params=problem.params._replace(**packed))


def arrange_blocks(
    packed: Array, order: tuple[int, ...], signs: tuple[int, ...], axis: int = 0
) -> Array:
    """Put the gates' blocks in another order, with signs."""
    blocks = np.split(packed, len(order), axis=axis)
    ordered = [sign * blocks[k] for k, sign in zip(order, signs, strict=True)]
    return np.concatenate(ordered, axis=axis)
