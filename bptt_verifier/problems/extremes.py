"""Extreme problems: degenerate ones, large values and large sizes.

Code can be wrong in a special case alone: without an initial state, where a buffer is too small,
beyond a truncation, or where a gradient is large enough to be clipped. Random problems of small
sizes and values do not show it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array, Problem, Sizes
from jax_reference.padded import Capacity
from manual_bptt import lstm
from manual_bptt.inputs import require_at_least

SMALL = Sizes(T=5, B=2, D=3, H=4, O=2)  # all sizes that are not large
ONES, MORE_ONES = Sizes(1, 1, 1, 1, 1), 2  # in one problem the only unit may be saturated
LARGE = Capacity(T=200, B=33, D=33, H=65, O=33)
MODERATE = Sizes(T=96, B=16, D=16, H=32, O=16)  # its duration predicts that of all sizes large
LARGE_PROBLEMS = 13  # pulses, each size large alone in two formats, all moderate, all large
BIASES = frozenset({"b", "c", "b_n"})
REMEMBERED = 64  # steps in which a cell state grows by almost 1 each
FAR = 1e4  # a target far from every prediction

# draw(rng, sizes, dtype, spread=…, target_scale=…) of the stated model
Draw = Callable[..., Problem]


def complete_sizes(given: Mapping[str, Any]) -> Sizes:
    """Complete some sizes by small ones. Raises ValueError or TypeError where one is no size."""
    if not isinstance(given, Mapping) or not given:
        raise TypeError(f"sizes: expected a mapping such as {{'T': 500}}, found {given!r}")
    for letter, size in given.items():
        if letter not in Sizes._fields:
            letters = ", ".join(Sizes._fields)
            raise ValueError(f"sizes: expected one of {letters}, found {letter!r}")
        require_at_least(1, f"sizes: {letter}", size)
    return SMALL._replace(**{letter: int(size) for letter, size in given.items()})


def replace_arrays(problem: Problem, new: Mapping[str, Array]) -> Problem:
    """Replace parameters, x, y or initial states by name, where the problem has them."""
    params = {name: new[name] for name in problem.weights if name in new}
    return problem._replace(
        params=problem.params._replace(**params),
        x=new.get("x", problem.x),
        y=new.get("y", problem.y),
        first={name: new.get(name, state) for name, state in problem.first.items()},
    )


def keep_states(problem: Problem, given: Collection[str]) -> Problem:
    """Keep these initial states of a problem; the others are zero."""
    return problem._replace(first={n: s for n, s in problem.first.items() if n in given})


def draw_degenerate_problems(draw: Draw, seed: int) -> Iterator[Problem]:
    """Draw problems with sizes of one, equal sizes, zeros and equal sequences."""
    rng = np.random.default_rng([seed, 5])
    one_step = Sizes(T=1, B=3, D=4, H=5, O=2)
    for sizes in (ONES, Sizes(2, 2, 2, 2, 2), Sizes(4, 4, 4, 4, 4), one_step):
        yield draw(rng, sizes, np.float64)
    zero = [("U",), ("W",), ("V",), ("U", "W", "V"), ("x",), ("y",), ("h0", "c0")]
    for names in (*zero, tuple(BIASES)):
        problem = draw(rng, SMALL, np.float64)
        values = problem.weights | problem.first | {"x": problem.x, "y": problem.y}
        absent = {name: np.zeros_like(values[name]) for name in names if name in values}
        if absent:
            yield replace_arrays(problem, absent)
    for t in (SMALL.T // 2, -1):  # the last, as where sequences are padded at their end
        problem = draw(rng, SMALL, np.float64)
        problem.x[t] = 0
        yield problem
    problem = draw(rng, SMALL, np.float64)
    yield problem._replace(x=np.repeat(problem.x[:1], SMALL.T, axis=0))  # one input at every step
    problem = draw(rng, SMALL, np.float64)
    equal = {"x": np.repeat(problem.x[:, :1], SMALL.B, axis=1)}
    equal |= {name: np.repeat(state[:1], SMALL.B, axis=0) for name, state in problem.first.items()}
    yield replace_arrays(problem, equal)
    yield replace_arrays(problem, equal | {"y": np.repeat(problem.y[..., :1, :], SMALL.B, axis=-2)})
    for _ in range(MORE_ONES):
        yield draw(rng, ONES, np.float64)


def draw_padded_problem(draw: Draw, seed: int) -> Problem:
    """Draw a sequence after padding, without biases and states: a_t is exactly zero at first."""
    problem = draw(np.random.default_rng([seed, 13]), SMALL, np.float64)
    problem.x[: SMALL.T // 2] = 0
    zeros = {name: np.zeros_like(problem.weights[name]) for name in BIASES & {*problem.weights}}
    zeros |= {name: np.zeros_like(state) for name, state in problem.first.items()}
    return replace_arrays(problem, zeros)


def draw_problems_of_large_values(draw: Draw, seed: int) -> Iterator[Problem]:
    """Draw problems with large gradients, an outlier or saturated units."""
    rng = np.random.default_rng([seed, 6])
    single = SMALL._replace(B=1, O=1)  # nothing is divided by B O, and nothing cancels
    for dtype in (np.float64, np.float32):
        for sizes in (SMALL, single):
            yield draw(rng, sizes, dtype, target_scale=FAR)
            problem = draw(rng, sizes, dtype, target_scale=FAR)
            yield replace_arrays(problem, {"V": 100 * problem.params.V})
        problem = draw(rng, SMALL, dtype)
        problem.y[-1, -1] = FAR
        yield problem
        yield draw(rng, SMALL, dtype, spread=5.0)
    for scale in (4.0, 8.0, 12.0):
        yield draw_pulses(draw, rng, Sizes(T=6, B=1, D=6, H=6, O=4), np.float64, scale=scale)
    yield from draw_large_cell_states(draw, rng)


def draw_large_cell_states(draw: Draw, rng: np.random.Generator) -> Iterator[Problem]:
    """Draw an LSTM whose cell states grow with every step, and shrink to about 1 at the last one.

    Saturated they would not show in h_T. The first input opens the gates, and closes them at last:
    without biases, nothing else is the same at every step.
    """
    sizes = Sizes(T=REMEMBERED, B=1, D=3, H=4, O=2)
    problem = draw(rng, sizes, np.float64)
    if len(problem.params.W) != lstm.GATES * sizes.H:
        return
    signs = np.where(np.arange(sizes.H) % 2, 1.0, -1.0)  # of c
    ones = np.ones(sizes.H)
    small = {name: value / 16 for name, value in problem.weights.items() if name not in "Vc"}
    x = problem.x.copy()
    small["U"][:, 0] = np.concatenate([4 * ones, 6 * ones, 2 * signs, signs / 2])  # i, f, g, o
    x[:-1, :, 0], x[-1, :, 0] = 1, -2 / 3
    yield replace_arrays(problem, {"x": x, **small})


def draw_pulses(
    draw: Draw, rng: np.random.Generator, sizes: Sizes, dtype: Any, scale: float = 0.5
) -> Problem:
    """Draw a sequence of zeros with one pulse in each input: column k of ∂L/∂U is one δ_t. (B4)

    The first pulse is at the first step, and the others are spread over the sequence. `scale` is
    the standard deviation of U.
    """
    problem = draw(rng, sizes, dtype)
    T, B, D, _, _ = sizes
    x = np.zeros((T, B, D), dtype)
    steps = np.unique(np.linspace(0, T - 1, D).round().astype(int))
    x[steps, :, np.arange(len(steps))] = 1
    U = (scale * rng.normal(size=problem.params.U.shape)).astype(dtype)
    return replace_arrays(problem, {"x": x, "U": U})


def draw_problems_of_large_sizes(draw: Draw, seed: int) -> Iterator[Problem]:
    """Draw problems within the capacity `LARGE`: each size large alone, then all moderately.

    Of long sequences, pulses come first, because they show every step.
    """
    rng = np.random.default_rng([seed, 7])
    for letter in "BDHO":
        yield draw(rng, SMALL._replace(**{letter: getattr(LARGE, letter)}), np.float64)
    yield draw_pulses(draw, rng, SMALL._replace(T=LARGE.T, B=1, D=LARGE.D), np.float64)
    yield draw(rng, SMALL._replace(T=LARGE.T), np.float64)
    for letter in "BDHOT":
        yield draw(rng, SMALL._replace(**{letter: getattr(LARGE, letter)}), np.float32)
    yield draw(rng, MODERATE, np.float64, spread=0.5)


def draw_problem_with_all_sizes_large(draw: Draw, seed: int) -> Problem:
    """Draw a problem as large as the capacity `LARGE`."""
    return draw(np.random.default_rng([seed, 8]), Sizes(*LARGE), np.float64, spread=0.5)


def draw_problems_of_sizes(draw: Draw, seed: int, sizes: Sizes) -> Iterator[Problem]:
    """Draw problems of these sizes: normal values in both precisions, and pulses."""
    rng = np.random.default_rng([seed, 9, *sizes])
    for dtype in (np.float64, np.float32):
        yield draw(rng, sizes, dtype)
    yield draw_pulses(draw, rng, sizes, np.float64)
