"""Mistakes in one gradient of a cell alone: in the sums over time and in the gates.

Those of every kind of gradient are in `single_gradients`. Each table lists the name of a mistake,
its description, and the wrong gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations

import numpy as np

from bptt_verifier.mistakes.equations import (
    Operands,
    States,
    Sweep,
    find_operands,
    multiply,
    name_weight,
    outer,
    split_deltas,
    sum_for_b_n,
    sum_for_W,
)
from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.in_equations import FACTORS, MISSING, OFF, OPERAND, WRAPS
from bptt_verifier.mistakes.single_gradients import (
    Factor,
    Finding,
    list_clippings,
    list_common_findings,
    list_update_findings,
    transpose,
)
from bptt_verifier.problems.problem import Array, Sizes

NAMES = ("U", "W", "V", "b", "c", "b_n", "x", "h0", "c0", "adjoints")
WEIGHTS = NAMES[:6]


def make_factor(words: str, value: Callable[[Sizes], float]) -> Factor:
    """Make a factor that depends on the sizes."""
    return Factor(words, lambda s: value(s.states.sizes))


CELL_FACTORS = [make_factor(words, value) for words, value in FACTORS.items()]


def take_next(values: Array) -> Array:
    """Move the values of step t+1 to step t; zero at the end."""
    return np.concatenate([values[1:], np.zeros_like(values[:1])])


def take_previous(values: Array) -> Array:
    """Move the values of step t-1 to step t; zero at the beginning."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


FIRST_ONLY = "only the first sequence of the batch contributes"
LAST_ONLY = "only the last sequence of the batch contributes"

# fmt: off
OF_ANY_CELL: dict[str, list[tuple[str, str, Callable[[Sweep], Array]]]] = {
    "U": [
        ("input-off-by-one", "x_{t-1} is used where x_t belongs", lambda s: outer(s.adjoints[1:], s.states.x[:-1])),
        ("input-off-by-one", "x_{t+1} is used where x_t belongs", lambda s: outer(s.adjoints[:-1], s.states.x[1:])),
        (WRAPS, "x_{t-1} is used where x_t belongs, and the index −1 wraps around to the last input", lambda s: outer(s.adjoints, np.roll(s.states.x, 1, axis=0))),
    ],
    "V": [
        (OFF, "h_{T-1} is used where h_T belongs", lambda s: s.dy.T @ s.states.h[-2]),
        (OPERAND, "h_0 is used where h_T belongs", lambda s: s.dy.T @ s.states.h[0]),
        (OPERAND, "h_1 is used where h_T belongs", lambda s: s.dy.T @ s.states.h[1]),
        ("output-gradient-at-every-step", "∂L/∂ŷ h_tᵀ is summed over all steps, but only h_T is seen by the output", lambda s: s.dy.T @ s.states.h[1:].sum(axis=0)),
    ],
    "b": [("bias-part-missing", FIRST_ONLY, lambda s: s.adjoints[:, 0].sum(axis=0))],
    "c": [("bias-part-missing", FIRST_ONLY, lambda s: s.dy[0]), ("bias-part-missing", LAST_ONLY, lambda s: s.dy[-1])],
    "x": [
        ("input-off-by-one", "δ_{t+1} is used where δ_t belongs", lambda s: take_next(s.adjoints) @ s.states.params.U),
        ("input-off-by-one", "δ_{t-1} is used where δ_t belongs", lambda s: take_previous(s.adjoints) @ s.states.params.U),
    ],
    "h0": [(OPERAND, "∂L/∂h_1 is returned where ∂L/∂h_0 belongs", lambda s: s.dh[1])],
    "c0": [(OPERAND, "∂L/∂c_1 is returned where ∂L/∂c_0 belongs", lambda s: s.dc[1])],
    "adjoints": [
        ("first-step-skipped", "δ_1 is zero", lambda s: take_previous(take_next(s.adjoints))),
        ("last-step-skipped", "δ_T is zero", lambda s: take_next(take_previous(s.adjoints))),
        (OFF, "the adjoints are returned in reverse order of time", lambda s: s.adjoints[::-1]),
    ],
}
OF_THE_RNN: dict[str, list[tuple[str, str, Callable[[Sweep], Array]]]] = {
    "V": [(OPERAND, "the pre-activation a_T is used where the state h_T belongs", lambda s: s.dy.T @ s.states.values["a_t"][-1])],
    "x": [("untransposed-recurrent-weight", "U or W is applied untransposed", lambda s: s.adjoints @ transpose(s.states.params.U))],
    "h0": [
        (OPERAND, "δ_1 is returned where Wᵀ δ_1 belongs", lambda s: s.adjoints[0]),
        ("untransposed-recurrent-weight", "W is used where Wᵀ belongs", lambda s: s.adjoints[0] @ s.states.params.W.T),
    ],
    "adjoints": [(OPERAND, "∂L/∂h_t is returned where δ_t belongs", lambda s: s.dh[1:])],
}
# fmt: on


def list_findings(
    name: str, evidence: Sequence[Evidence], backs: Sequence[Sweep], longest: int
) -> Iterator[Finding]:
    """List the mistakes in one gradient of a cell alone."""
    states = backs[0].states
    weights = [name for name in WEIGHTS if name in evidence[0].wanted]
    if name in weights:
        yield from list_update_findings(name, evidence[0], backs[0], read_weight)
    clippings = list_clippings(name, evidence, weights)
    yield from list_common_findings(name, evidence, backs, CELL_FACTORS, clippings)
    of_the_rnn = OF_THE_RNN if states.problem.cell == "rnn" else {}
    for kind, said, gradient in (*OF_ANY_CELL.get(name, ()), *of_the_rnn.get(name, ())):
        yield Finding(kind, said, {}, gradient)
    if name in ("U", "W", "b", "b_n"):
        yield from list_sum_findings(name, longest)
    if name == "W":
        yield from list_operand_findings(states)
    if name == "x":
        yield from list_input_findings(states)
    if name in ("U", "W", "b", "adjoints") and len(states.gates) > 1:
        yield from list_gate_findings(states, name)
    yield from list_reset_findings(states, name)
    if name in ("U", "W", "b", "x") and states.problem.cell == "rnn":
        said = "∂L/∂h_t is used where δ_t belongs"
        yield Finding(MISSING, said, {}, lambda s: s._replace(adjoints=s.dh[1:]).gradient(name))


def read_weight(name: str, s: Sweep) -> Array:
    """Read a weight or bias of the problem."""
    return np.asarray(s.states.problem.weights[name], np.float64)


def list_sum_findings(name: str, longest: int) -> Iterator[Finding]:
    """List mistakes that leave steps out of the sum over time of a weight or bias."""

    def part(steps: slice) -> Callable[[Sweep], Array]:
        def gradient(s: Sweep) -> Array:
            kept = np.zeros_like(s.adjoints)
            kept[steps] = s.adjoints[steps]
            return s._replace(adjoints=kept).gradient(name)

        return gradient

    missing = "bias-part-missing" if name.startswith("b") else "missing-time-sum"
    for which, steps in (("last", slice(-1, None)), ("first", slice(0, 1))):
        said = f"the sum over time is missing: only the {which} step is kept"
        yield Finding(missing, said, {"kept": which}, part(steps))
    yield Finding("first-step-skipped", "the first step is left out", {}, part(slice(1, None)))
    yield Finding("last-step-skipped", "the last step is left out", {}, part(slice(0, -1)))
    for kept in range(2, longest):
        said = f"only the last {kept} steps are summed"
        yield Finding("truncated", said, {"steps": kept}, part(slice(-kept, None)))


def list_gate_findings(states: States, name: str) -> Iterator[Finding]:
    """List mistakes that exchange the gates' parts of a gradient, or transpose each."""
    axis, gates = (-1 if name == "adjoints" else 0), states.gates

    def parts(s: Sweep) -> list[Array]:
        return np.split(s.gradient(name), len(gates), axis=axis)

    def in_places(order: tuple[int, ...]) -> Callable[[Sweep], Array]:
        return lambda s: np.concatenate([parts(s)[k] for k in order], axis=axis)

    places = tuple(range(len(gates)))
    one_for_another = [
        tuple(k if place == i else place for place in places) for i, k in permutations(places, 2)
    ]
    for order in (*one_for_another, *list(permutations(places))[1:]):
        used = {gates[i]: gates[k] for i, k in enumerate(order) if i != k}
        said = (f"the part of {k} stands where that of {i} belongs" for i, k in used.items())
        yield Finding(OPERAND, ", ".join(said), {"used": used}, in_places(order))
    if name in "UW":
        words = "each gate's part is transposed; it shows where it is square"
        kind = "transposed-gradient"
        yield Finding(kind, words, {}, lambda s: np.concatenate([*map(transpose, parts(s))]))


def list_operand_findings(states: States) -> Iterator[Finding]:
    """List mistakes that use another operand than h_{t-1} in ∂L/∂W, for all gates or one."""
    right, every = find_operands(states), states.gates
    others = {
        "rnn": ("a_t", "a_{t-1} (h_0 at t = 1)"),
        "lstm": ("c_{t-1}", "c_t", "tanh(c_{t-1})"),
    }.get(states.problem.cell, ())
    substitutes = [
        *((OFF, other) for other in ("h_t", "h_{t-2}", "h_{t-2} (zero at t = 1)")),
        *((WRAPS, other) for other in ("h_{t-1} (at t = 1: h_T)", "h_{t-2} (at t = 1: h_T)")),
        *((OPERAND, other) for other in ("h_0", *others)),
    ]
    for gates in (every, *((k,) for k in every if len(every) > 1)):
        where = "" if gates == every else f" in the part of {name_weight(gates[0])}"
        for kind, other in substitutes:
            wrong: Operands = {
                k: (tuple(other if f == "h_{t-1}" else f for f in factors), beside)
                for k, (factors, beside) in right.items()
                if k in gates
            }
            said = f"{other} is used where h_{{t-1}} belongs{where}"
            yield Finding(kind, said, {"used": other}, partial(sum_for_W, operands=right | wrong))


def list_reset_findings(states: States, name: str) -> Iterator[Finding]:
    """List mistakes that omit r_t in the candidate's part, or multiply a wrong factor by it."""
    right = find_operands(states)
    if "n" not in right:
        return
    _, beside = right["n"]
    if name == "W":
        for said, other in (
            (f"r_t is forgotten beside {'δ_n' if beside else 'the state'}", (("h_{t-1}",), ())),
            ("r_t multiplies δ_n and not the state", (("h_{t-1}",), ("r_t",))),
            ("r_t multiplies the state and not δ_n", (("r_t", "h_{t-1}"), ())),
        ):
            if other != right["n"]:
                gradient = partial(sum_for_W, operands={**right, "n": other})
                yield Finding(OPERAND, said, {}, gradient)
    elif name == "b_n":
        said = "r_t is forgotten beside δ_n" if beside else "δ_n is multiplied by r_t"
        factors = () if beside else ("r_t",)
        yield Finding(OPERAND, said, {}, partial(sum_for_b_n, beside=factors))
    elif name in ("U", "b", "x", "adjoints"):

        def multiplied(s: Sweep) -> Array:
            deltas = split_deltas(s)
            return replace_deltas(s, deltas | {"n": multiply(s, deltas["n"], ("r_t",))}, name)

        said = "δ_n is multiplied by r_t, which acts beside W_n alone"
        yield Finding(OPERAND, said, {}, multiplied)


def replace_deltas(s: Sweep, deltas: dict[str, Array], name: str) -> Array:
    """Compute a gradient with other adjoints of the gates."""
    return s._replace(adjoints=np.concatenate([*deltas.values()], axis=-1)).gradient(name)


def list_input_findings(states: States) -> Iterator[Finding]:
    """List mistakes that compute ∂L/∂x through one gate only, or through all but one."""
    for k in states.gates if len(states.gates) > 1 else ():

        def through(s: Sweep, k: str = k) -> Array:
            alone = {gate: delta * (gate == k) for gate, delta in split_deltas(s).items()}
            return replace_deltas(s, alone, "x")

        def without(s: Sweep, through: Callable[[Sweep], Array] = through) -> Array:
            return s.gradient("x") - through(s)

        yield Finding(OPERAND, f"only δ_{k} contributes", {"kept": k}, through)
        yield Finding(OPERAND, f"δ_{k} does not contribute", {"missing": k}, without)
