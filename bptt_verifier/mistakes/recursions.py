"""Mistakes as derivations: what somebody's numbers would be if they had made this one.

The adjoint recursion is taken apart into the places where people go wrong (`Recursion`); a mistake
in it puts something else in one place, and is seen in every gradient that follows. The names are
stable. Mistakes in putting one gradient together are in `leaf_mistakes`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array
from manual_bptt import activations, losses, rnn
from manual_bptt.activations import Activation
from manual_bptt.rnn import Params


class States(NamedTuple):
    """The forward pass in float64, as docs/derivation.md names it: a[t-1] is a_t, h[t] is h_t."""

    params: Params
    x: Array
    a: Array
    h: Array
    phi: Activation
    dy: Array

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.x)


class Swept(NamedTuple):
    """What the way back leaves: ∂L/∂ŷ, ∂L/∂h_t at index t, δ_t at index t-1."""

    states: States
    dy: Array
    dh: Array
    adjoints: Array


def slope_at(s: States, t: int) -> Array:
    """φ′(a_t)."""
    return s.phi.derivative(s.a[t - 1], s.h[t])


class Recursion(NamedTuple):
    """(B1) to (B3), place by place; as it stands, the right way back."""

    output: Callable[[States], Array] = lambda s: s.dy
    output_weight: Callable[[States], Array] = lambda s: s.params.V
    slope: Callable[[States, int], Array] = slope_at
    adjoint: Callable[[States, int, Array], Array] = lambda s, t, delta: delta
    multiplied: Callable[[States, int, Array], Array] = lambda s, t, delta: delta
    weight: Callable[[States], Array] = lambda s: s.params.W
    carried: Callable[[States, int, Array, Array, Array], Array] = lambda s, t, above, dh, last: (
        above
    )
    left: Callable[[States, Array], Array] = lambda s, adjoints: adjoints


RIGHT = Recursion()


def forward(problem: Problem) -> States:
    """The states of the problem, and ∂L/∂ŷ, in float64 whatever its dtype."""

    def wide(value: Array | None) -> Any:
        return None if value is None else value.astype(np.float64)

    params = Params(*(wide(w) for w in problem.params))
    prediction, trace = rnn.forward(
        params, wide(problem.x), wide(problem.h0), activation=problem.activation
    )
    dy = losses.find(problem.loss).gradient(prediction, wide(problem.y))
    return States(params, *trace[:3], activations.find(problem.activation), dy)


def sweep(s: States, way: Recursion) -> Swept:
    """Back through time, this way."""
    dy, W = way.output(s), way.weight(s)
    last = dy @ way.output_weight(s)
    dh, adjoints = np.zeros_like(s.h), np.zeros_like(s.a)
    above = last
    for t in range(s.T, 0, -1):
        dh[t] = above
        adjoints[t - 1] = way.adjoint(s, t, above * way.slope(s, t))
        product = way.multiplied(s, t, adjoints[t - 1]) @ W
        above = way.carried(s, t, product, dh[t], last)
    dh[0] = above
    return Swept(s, dy, dh, way.left(s, adjoints))


class Candidate(NamedTuple):
    """A mistake, and what stands in the places of the way back where it is made."""

    mistake: Mistake
    changes: dict[Any, Any]

    def put_into(self, way: Recursion) -> Recursion | None:
        """The way back with this mistake as well, or None where another one is in its place."""
        if any(getattr(way, place) is not getattr(RIGHT, place) for place in self.changes):
            return None
        return way._replace(**self.changes)


# Factors that a gradient may be off by, as functions of the sizes.
FACTORS: dict[str, Callable[[Sizes], float]] = {
    "2": lambda n: 2.0,
    "1/2": lambda n: 0.5,
    "B": lambda n: n.B,
    "1/B": lambda n: 1 / n.B,
    "O": lambda n: n.O,
    "1/O": lambda n: 1 / n.O,
    "B O": lambda n: n.B * n.O,
    "1/(B O)": lambda n: 1 / (n.B * n.O),
    "B/2": lambda n: n.B / 2,
    "O/2": lambda n: n.O / 2,
    "B O/2": lambda n: n.B * n.O / 2,
    "2/B": lambda n: 2 / n.B,
    "2/O": lambda n: 2 / n.O,
    "2/(B O)": lambda n: 2 / (n.B * n.O),
    "T": lambda n: n.T,
    "1/T": lambda n: 1 / n.T,
    "H": lambda n: n.H,
    "1/H": lambda n: 1 / n.H,
}


def sizes_of(s: States) -> Sizes:
    """The five sizes."""
    (T, B, D), (O, H) = s.x.shape, s.params.V.shape
    return Sizes(T, B, D, H, O)


def activated_value_slope(s: States, t: int) -> Array:
    """φ′(h_t), where φ′(a_t) belongs."""
    return s.phi.derivative(s.h[t], s.phi.function(s.h[t]))


def slope_before_product(s: States, t: int) -> Array:
    """No slope after the matrix product, except at the last step."""
    return slope_at(s, t) if t == s.T else np.ones_like(s.a[t - 1])


def recursions(sizes: Sizes, longest: int) -> Iterator[Candidate]:
    """Every single mistake in the way back, commonest first; truncation up to `longest` steps."""

    def candidate(
        name: str, explanation: str, equation: str, changes: dict[str, Any], **details: Any
    ) -> Candidate:
        return Candidate(Mistake(name, explanation, details, equation), changes)

    yield candidate(
        "recurrent-path-dropped",
        "the adjoint is not carried back through W: only the last step contributes, as if h_T did "
        "not depend on h_{T-1}.",
        "B3",
        {"carried": lambda s, t, g, dh, last: np.zeros_like(g)},
    )
    yield candidate(
        "untransposed-recurrent-weight",
        "W is used where Wᵀ belongs when the adjoint is carried from step t to step t-1.",
        "B3",
        {"weight": lambda s: s.params.W.T},
    )
    yield candidate(
        "activation-derivative-missing",
        "φ′(a_t) is missing: ∂L/∂h_t is used where δ_t = ∂L/∂h_t ⊙ φ′(a_t) belongs.",
        "B2",
        {"slope": lambda s, t: np.ones_like(s.a[t - 1])},
        steps="all",
    )
    yield candidate(
        "activation-derivative-missing",
        "φ′(a_T) is missing at the last step only.",
        "B2",
        {"slope": lambda s, t: np.ones_like(s.a[t - 1]) if t == s.T else slope_at(s, t)},
        steps="last",
    )
    yield candidate(
        "activation-derivative-missing",
        "φ′(a_t) is missing at every step but the last.",
        "B2",
        {"slope": slope_before_product},
        steps="all but the last",
    )
    yield candidate(
        "activation-derivative-of-activated-value",
        "φ′ is taken at h_t, the activated value, where it belongs at a_t.",
        "B2",
        {"slope": activated_value_slope},
    )
    for name, factor in FACTORS.items():
        yield candidate(
            "constant-factor",
            f"every gradient is {name} times what it should be: ∂L/∂ŷ and the stated loss differ "
            "by that factor.",
            "L2",
            {"output": lambda s, factor=factor: s.dy * factor(sizes_of(s))},
            factor=name,
            value=factor(sizes),
        )
    yield candidate(
        "sign-flipped",
        "every gradient has the wrong sign: ∂L/∂ŷ is taken as y − ŷ.",
        "L2",
        {"output": lambda s: -s.dy},
    )
    yield candidate(
        "output-gradient-at-every-step",
        "∂L/∂ŷ enters at every step, but the loss sees the last state only.",
        "B1",
        {"carried": lambda s, t, g, dh, last: g + last},
    )
    yield candidate(
        "output-gradient-at-wrong-step",
        "∂L/∂ŷ enters one step too early in time: ∂L/∂h_{T-1} = Vᵀ ∂L/∂ŷ is set, and nothing is "
        "carried from step T.",
        "B1",
        {"carried": lambda s, t, g, dh, last: last if t == s.T else g},
    )
    yield candidate(
        "path-counted-twice",
        "∂L/∂h_t itself is added to Wᵀ δ_t: the path through h_t is counted twice.",
        "B3",
        {"carried": lambda s, t, g, dh, last: g + dh},
    )
    yield candidate(
        "path-counted-twice",
        "Wᵀ δ_t is added twice at every step.",
        "B3",
        {"carried": lambda s, t, g, dh, last: 2 * g},
    )
    yield candidate(
        "first-step-skipped",
        "δ_1 is zero: the sweep ends one step early.",
        "B2",
        {"adjoint": lambda s, t, d: np.zeros_like(d) if t == 1 else d},
    )
    yield candidate(
        "first-step-skipped",
        "δ_1 is left out of every sum, although it is carried on to ∂L/∂h_0.",
        "B4",
        {"left": lambda s, adjoints: np.concatenate([0 * adjoints[:1], adjoints[1:]])},
    )
    yield candidate(
        "last-step-skipped",
        "δ_T is left out of every sum, although it is carried back.",
        "B4",
        {"left": lambda s, adjoints: np.concatenate([adjoints[:-1], 0 * adjoints[-1:]])},
    )
    yield candidate(
        "last-step-skipped",
        "the sweep begins at step T-1: δ_T is zero, and ∂L/∂h_T is taken for ∂L/∂h_{T-1}.",
        "B2",
        {
            "adjoint": lambda s, t, d: np.zeros_like(d) if t == s.T else d,
            "carried": lambda s, t, g, dh, last: last if t == s.T else g,
        },
    )
    yield candidate(
        "activation-derivative-before-matrix-product",
        "δ_t is multiplied by φ′(a_{t-1}) before the product with Wᵀ; the Hadamard product comes "
        "after it.",
        "B2",
        {
            "slope": slope_before_product,
            "multiplied": lambda s, t, d: d * slope_at(s, t - 1) if t > 1 else d,
        },
    )
    yield candidate(
        "hidden-state-off-by-one",
        "φ′ is taken at step t-1 where it belongs at step t.",
        "B2",
        {"slope": lambda s, t: slope_at(s, max(t - 1, 1))},
    )
    yield candidate(
        "hidden-state-off-by-one",
        "φ′ is taken at step t+1 where it belongs at step t.",
        "B2",
        {"slope": lambda s, t: slope_at(s, min(t + 1, s.T))},
    )
    yield candidate(
        "negative-index-wraps-around",
        "φ′ is taken at step t-1, and at t = 1 the index −1 wraps around to the last step.",
        "B2",
        {"slope": lambda s, t: slope_at(s, t - 1 if t > 1 else s.T)},
    )
    yield candidate(
        "untransposed-output-weight",
        "V is used where Vᵀ belongs when the output gradient enters; it shows where O = H.",
        "B1",
        {
            "output_weight": lambda s: (
                s.params.V.T if s.params.V.shape[0] == s.params.V.shape[1] else s.params.V
            )
        },
    )
    for kept in range(2, longest):
        yield candidate(
            "truncated",
            f"the sweep stops after {kept} steps: earlier steps contribute nothing.",
            "B3",
            {
                "carried": lambda s, t, g, dh, last, kept=kept: (
                    g if s.T - t + 1 < kept else np.zeros_like(g)
                )
            },
            steps=kept,
        )
    for limit in (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0):
        yield candidate(
            "clipped",
            f"∂L/∂h_t is clipped to ±{limit:g} inside the sweep; clip what is returned, not what "
            "is derived.",
            "B3",
            {"carried": lambda s, t, g, dh, last, limit=limit: np.clip(g, -limit, limit)},
            value=limit,
        )


def other_forward_passes(problem: Problem) -> Iterator[tuple[Mistake, Problem]]:
    """Forward passes that are not the stated one, each as the problem that they would be."""
    params = problem.params

    def differs(explanation: str, **details: Any) -> Mistake:
        return Mistake("forward-differs", f"your forward pass differs: {explanation}.", details)

    for activation in activations.ACTIVATIONS:
        if activation != problem.activation:
            found = differs(f"its activation is {activation}", activation=activation)
            yield found, problem._replace(activation=activation)
    if problem.h0 is not None:
        yield differs("h0 is ignored, and it starts at zero"), problem._replace(h0=None)
    for name in ("b", "c"):
        value = getattr(params, name)
        if value is not None:
            without = params._replace(**{name: np.zeros_like(value)})
            yield differs(f"the bias {name} is left out"), problem._replace(params=without)
    yield differs("W is used transposed"), problem._replace(params=params._replace(W=params.W.T))
    yield differs("the inputs are read backwards in time"), problem._replace(x=problem.x[::-1])
