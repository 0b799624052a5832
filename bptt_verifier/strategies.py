"""Hypothesis strategies: random problems, problems of small integers, and arguments to refuse.

Needs Hypothesis, which is in the extra `test`.
"""

from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import (
    ACTIVATIONS,
    ALL_LOSSES,
    DRAWN_OPTIONS,
    LARGEST,
    LOSSES,
    Array,
    Problem,
    Sizes,
)
from bptt_verifier.proofs.extras import require_hypothesis
from jax_reference.padded import Capacity
from manual_bptt.rnn import Params

require_hypothesis()

from hypothesis import strategies as st  # noqa: E402 - after the check


def sizes(largest: Capacity = LARGEST, smallest: int = 1) -> st.SearchStrategy[Sizes]:
    """Independent steps, batch, inputs, hidden units and outputs, from `smallest` on."""
    return st.builds(Sizes, *(st.integers(smallest, most) for most in largest))


def problems(
    dtype: Any = np.float64,
    *,
    sizes: st.SearchStrategy[Sizes] = sizes(),  # noqa: B008 - strategies are immutable
    activations: tuple[str, ...] = ACTIVATIONS,
    losses: tuple[str, ...] = LOSSES,
) -> st.SearchStrategy[Problem]:
    """Problems of the plain RNN that have a derived bound, with and without biases and h0.

    The values are normal, neither tiny nor symmetric. Shrinks to small sizes and the first
    activation and loss.
    """
    return problems_of(
        "rnn",
        dtype,
        sizes,
        option=st.sampled_from(activations),
        loss=st.sampled_from(losses),
        target_scale=st.sampled_from([1.0, 10.0]),
    )


def cell_problems(
    cell: str,
    dtype: Any = np.float64,
    *,
    sizes: st.SearchStrategy[Sizes] = sizes(),  # noqa: B008 - strategies are immutable
    losses: tuple[str, ...] = ALL_LOSSES,
    outputs: tuple[str, ...] = ("last", "every"),
    ragged: st.SearchStrategy[bool] = st.booleans(),  # noqa: B008
    truncated: bool = True,
) -> st.SearchStrategy[Problem]:
    """Problems of a cell with any loss, outputs, lengths and truncation; NaN in the padding.

    Shrinks to small sizes, the first loss, full lengths, one output and the full gradient.
    """
    # Windows shorter than most sequences, so that most truncations have an effect.
    windows = st.integers(1, LARGEST.T // 3) if truncated else st.nothing()
    return problems_of(
        cell,
        dtype,
        sizes,
        option=st.sampled_from(DRAWN_OPTIONS[cell]),
        loss=st.sampled_from(losses),
        outputs=st.sampled_from(outputs),
        ragged=ragged,
        truncation=st.none() | windows,
        classes=st.booleans(),
    )


def problems_of(
    cell: str, dtype: Any, sizes: st.SearchStrategy[Sizes], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Problem]:
    """Problems of a cell with random values; `options` are strategies for `with_values`."""
    return st.builds(
        with_values,
        st.integers(0, 2**32 - 1).map(np.random.default_rng),
        sizes,
        cell=st.just(cell),
        dtype=st.just(dtype),
        bias=st.booleans(),
        initial_state=st.booleans(),
        spread=st.floats(0.5, 1.5),
        **options,
    )


@st.composite
def integer_problems(
    draw: st.DrawFn,
    dtype: Any = np.float64,
    *,
    sizes: st.SearchStrategy[Sizes] = sizes(Capacity(T=3, B=2, D=2, H=2, O=2)),  # noqa: B008
    activations: tuple[str, ...] = ("identity", "relu"),
) -> Problem:
    """Problems of small integers, small enough that no sum or product is ever rounded.

    With entries of at most 2, T ≤ 3 and all other sizes ≤ 2, |a_t| ≤ 8 + 4 |h_{t-1}| + 2 gives
    |h_3| ≤ 338, |ŷ − y| ≤ 1 356, |δ_1| ≤ 86 784, an entry of ∂L/∂W at most 2 017 728 and a sum of
    squares of at most 7 354 944: all below 2²⁴, above which float32 does not hold every integer.
    """
    T, B, D, H, O = draw(sizes)

    def integers(*shape: int) -> Array:
        count = int(np.prod(shape))
        values = draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count))
        return np.array(values, dtype=dtype).reshape(shape)

    bias, initial_state = draw(st.booleans()), draw(st.booleans())
    params = Params(
        U=integers(H, D),
        W=integers(H, H),
        V=integers(O, H),
        b=integers(H) if bias else None,
        c=integers(O) if bias else None,
    )
    x, y = integers(T, B, D), integers(B, O)
    first = {"h0": integers(B, H)} if initial_state else {}
    option = {"activation": draw(st.sampled_from(activations))}
    return Problem("rnn", params, x, y, first, option, "half_sse")


class Refused(NamedTuple):
    """Arguments to refuse, the name of the argument at fault, and the exception to raise."""

    arguments: dict[str, Any]
    at_fault: str
    exception: type[Exception]


@st.composite
def refused_arguments(draw: st.DrawFn) -> Refused:
    """Arguments of `value_and_grad`, correct but for one fault.

    The fault is a wrong rank, a size that disagrees or is zero, an integer, complex or different
    dtype, NaN or infinity, something that is not an array, or an unknown name.
    """
    problem = draw(problems(sizes=sizes(Capacity(3, 3, 3, 3, 3))))
    _, B, _, H, O = problem.sizes
    params = problem.params._replace(b=np.zeros(H), c=np.zeros(O))
    arguments = {
        "params": params, "x": problem.x, "y": problem.y,
        **problem.simple_options, "h0": np.zeros((B, H)),
    }  # fmt: skip
    name = draw(st.sampled_from(["U", "W", "V", "b", "c", "x", "y", "h0", "activation", "loss"]))
    if name in ("activation", "loss"):
        unknown = draw(st.text(max_size=5).filter(lambda s: s not in ACTIVATIONS + ALL_LOSSES))
        wrong, exception = draw(st.sampled_from([(unknown, ValueError), (3.5, TypeError)]))
        return Refused(arguments | {name: wrong}, name, exception)

    right = getattr(params, name) if name in "UWVbc" else arguments[name]
    axis = draw(st.integers(0, right.ndim - 1))
    where = draw(st.sampled_from(list(np.ndindex(right.shape))))
    unfit = right.copy()
    unfit[where] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    faults: list[tuple[Any, type[Exception]]] = [
        (right[None], ValueError),
        (right[0], ValueError),
        (np.take(right, [], axis=axis), ValueError),
        (unfit, ValueError),
        (np.ones_like(right, dtype=draw(st.sampled_from([int, bool, complex]))), TypeError),
        ("text", TypeError),
        (object(), TypeError),
    ]
    # A size of U, V or x may define a letter; then another argument is the one that disagrees.
    if name in ("W", "b", "c", "y", "h0"):
        faults.append((np.concatenate([right, right], axis=axis), ValueError))
    if name != "U":  # U sets the dtype
        faults.append((right.astype(np.float32), TypeError))
    wrong, exception = draw(st.sampled_from(faults))
    change = {"params": params._replace(**{name: wrong})} if name in "UWVbc" else {name: wrong}
    return Refused(arguments | change, name, exception)
