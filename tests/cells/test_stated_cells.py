"""Cells as stated functions: their states are those of the derivations by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import verify_vjp
from bptt_verifier.cells import gru, lstm, rnn
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import CELLS, Problem, Sizes

LENGTHS = np.array([4, 1, 3])
STATED: dict[str, Any] = {"rnn": rnn, "lstm": lstm, "gru": gru}


def drawn(cell: str, ragged: bool = False, **options: Any) -> Problem:
    problem = with_values(
        np.random.default_rng(4), Sizes(4, 3, 2, 3, 2), cell=cell, bias=True,
        initial_state=True, **options,
    )  # fmt: skip
    return problem._replace(lengths=LENGTHS) if ragged else problem


def pack(problem: Problem, layer: str = "l0") -> dict[str, Any]:
    """The weights by PyTorch's names; b is the input's, and b_n the state's in the third gate."""
    params = problem.params
    names = {"weight_ih": params.U, "weight_hh": params.W, "bias_ih": params.b}
    if problem.cell == "gru":
        zeros = np.zeros(2 * len(params.b_n))
        names["bias_hh"] = np.concatenate([zeros, params.b_n])
    return {f"{name}_{layer}": value for name, value in names.items()}


def states_by_hand(problem: Problem) -> tuple[Any, Any]:
    """All h_t and the last states, by the forward sweep of manual_bptt."""
    _, trace = CELLS[problem.cell].forward(
        problem.params, problem.x, **problem.first, **problem.batch
    )
    last = [trace.h[-1]] + ([trace.cells[-1]] if problem.cell == "lstm" else [])
    return trace.h[1:], last


def run(problem: Problem, weights: dict[str, Any], convert: Any = lambda array: array) -> Any:
    first = {name: convert(state[None]) for name, state in problem.first.items()}
    given = {name: convert(value) for name, value in weights.items()}
    output, last = STATED[problem.cell].forward(
        given, convert(problem.x), **first, lengths=problem.lengths
    )
    return output, list(last) if problem.cell == "lstm" else [last]


def near(found: Any, known: Any) -> bool:
    # Some tens of operations on numbers below 4, each rounded to 2⁻⁵³.
    return bool(np.abs(np.asarray(found) - known).max() <= 2.0**-44)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("cell", STATED)
def test_the_states_are_those_of_the_derivation_by_hand(cell: str, ragged: bool) -> None:
    problem = drawn(cell, ragged=ragged)
    h, last = states_by_hand(problem)
    if ragged:
        h = np.where((np.arange(1, 5)[:, None] <= LENGTHS)[..., None], h, 0)
    output, found = run(problem, pack(problem))
    assert near(output, h)
    assert all(near(each[0], known) for each, known in zip(found, last, strict=True))


@pytest.mark.parametrize("cell", STATED)
def test_on_arrays_of_jax_the_numbers_are_the_same(cell: str) -> None:
    problem = drawn(cell, ragged=True)
    with jax.enable_x64(True):
        found = run(problem, pack(problem), jnp.asarray)
    known = run(problem, pack(problem))
    for each, other in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
        assert isinstance(each, jax.Array)
        assert near(each, other)


def test_backward_directions_run_from_each_sequence_s_end_and_layers_on_top() -> None:
    problem = drawn("gru", ragged=True)
    forth, x, lengths = pack(problem), problem.x, LENGTHS
    back = {f"{name}_reverse": 0.5 * value for name, value in forth.items()}
    output, h_n = gru.forward(forth | back, x, lengths=lengths)
    alone, _ = gru.forward(forth, x, lengths=lengths)
    assert np.array_equal(output[..., :3], alone)
    for b, length in enumerate(lengths):
        turned = x[:length, b : b + 1][::-1]
        halved = {name.removesuffix("_reverse"): value for name, value in back.items()}
        by_itself, last = gru.forward(halved, turned)
        assert near(output[:length, b, 3:], by_itself[::-1, 0])
        assert near(h_n[1, b], last[0, 0])
    above = {name.replace("l0", "l1"): value for name, value in (forth | back).items()}
    for name in [n for n in above if n.startswith("weight_ih")]:
        above[name] = np.random.default_rng(0).normal(size=(9, 6))
    second, h_both = gru.forward(forth | back | above, x, lengths=lengths)
    as_first = {name.replace("l1", "l0"): value for name, value in above.items()}
    known, h_above = gru.forward(as_first, output, lengths=lengths)
    assert near(second, known)
    assert near(h_both, np.concatenate([h_n, h_above]))
    swapped, _ = gru.forward(forth, x.swapaxes(0, 1), lengths=lengths, batch_first=True)
    assert near(swapped, alone.swapaxes(0, 1))


def test_a_relu_network_has_another_nonlinearity() -> None:
    problem = drawn("rnn", option="relu")
    output, _ = rnn.forward(
        pack(problem), problem.x, problem.first["h0"][None], nonlinearity="relu"
    )
    assert near(output, states_by_hand(problem)[0])


def test_a_hand_written_step_back_is_judged_by_a_stated_cell() -> None:
    problem = drawn("lstm")
    by_hand = CELLS["lstm"]

    def stated(U: Any, W: Any, x: Any, h0: Any) -> Any:
        return lstm.forward({"weight_ih_l0": U, "weight_hh_l0": W}, x, h0[None])[0]

    def backward(arguments: Any, cotangents: Any) -> Any:
        U, W, x, h0 = arguments
        params = problem.params._replace(U=U, W=W, b=None, c=None)
        _, trace = by_hand.forward(params, x, h0)
        found = by_hand.backward_through_time(params, trace, cotangents)
        return found.U, found.W, found.x, found.h0

    arguments = problem.params.U, problem.params.W, problem.x, problem.first["h0"]
    assert verify_vjp(backward, stated, arguments, cases=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "weights: expected weight_hh_l0, found none"),
        ({"weight_hr_l0": np.ones((2, 3))}, "weight_hr_l0: expected no projection of h; multiply"),
        ({"W": np.ones((3, 3))}, "weights: expected names such as weight_ih_l0, found 'W'"),
        ({"weight_ih_l0": np.ones((3, 2))}, r"weight_ih_l0: expected shape \(12, 2\), found \(3, "),
        ({"bias_ih_l0": np.ones(3)}, r"bias_ih_l0: expected shape \(12,\), found \(3,\)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_in_one_sentence(change: Any, message: str) -> None:
    problem = drawn("lstm")
    weights = {n: w for n, w in (pack(problem) | change).items() if w is not None}
    with pytest.raises(ValueError, match=f"^{message}"):
        lstm.forward(weights, problem.x)
    with pytest.raises(ValueError, match=r"^x: expected shape \(T, B, D\), found \(4, 2\); x\["):
        lstm.forward(pack(problem), problem.x[:, 0])
    with pytest.raises(TypeError, match=r"^x: expected an array, found list"):
        lstm.forward(pack(problem), problem.x.tolist())
    for lengths, found in (([4, 0, 3], "0"), ([4, 1, 5], "5")):
        with pytest.raises(
            ValueError, match=f"^lengths: expected values from 1 to T = 4, found {found}"
        ):
            lstm.forward(pack(problem), problem.x, lengths=lengths)
    with pytest.raises(ValueError, match=r"^c0: expected shape \(1, 3, 3\), found \(3, 3\)"):
        lstm.forward(pack(problem), problem.x, None, problem.first["c0"])
    with pytest.raises(ValueError, match=r"^nonlinearity: expected tanh or relu, found 'sin'"):
        rnn.forward({}, problem.x, nonlinearity="sin")
