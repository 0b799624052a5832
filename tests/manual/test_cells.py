"""The three cells with every loss, lengths, outputs at every step and truncation."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier.commands.explain import truncation_errors
from bptt_verifier.judge.builtin import AUTODIFF
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import (
    ALL_LOSSES,
    CELLS,
    GATES,
    OPTION_NAMES,
    OPTIONS,
    Problem,
    Sizes,
)
from bptt_verifier.reference.autodiff import measure_reference, name_arrays, reference
from bptt_verifier.strategies import cell_problems, problems
from bptt_verifier.tolerance.comparison import Verdict, compare
from jax_reference import gru as autodiff_gru
from jax_reference import lstm as autodiff_lstm
from jax_reference import padded
from jax_reference import rnn as autodiff_rnn
from manual_bptt.many_to_one import split_gates
from manual_bptt.sequences import pad
from tests.support.agreement import assert_cell_agrees, assert_right, same
from tests.support.profiles import by_turns

TWINS = {"rnn": autodiff_rnn, "lstm": autodiff_lstm, "gru": autodiff_gru}
EVERY_CELL = pytest.mark.parametrize("cell", CELLS)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def gradients(problem: Problem) -> tuple[Any, Any]:
    return CELLS[problem.cell].gradients(
        problem.params, problem.x, problem.y, **problem.first, **problem.options
    )


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "dtype"), by_turns([*CELLS], [np.float32, np.float64]))
@given(data=st.data())
def test_every_gradient_of_every_cell_agrees_with_autodiff(
    cell: str, dtype: type, data: st.DataObject
) -> None:
    assert_cell_agrees(CELLS[cell], data.draw(cell_problems(cell, dtype)))


# Each pair compiles, and the losses are the same code for all cells: every loss, and every cell with
# outputs at the last step and at every step.
@pytest.mark.table(12)
@pytest.mark.parametrize(
    ("cell", "option", "loss"),
    [
        *(("rnn", "tanh", loss) for loss in ALL_LOSSES),
        ("lstm", "", "mse"),
        ("lstm", "", "softmax_cross_entropy"),
        ("gru", "after", "half_sse"),
        ("gru", "after", "mae"),
        ("gru", "before", "huber"),
        ("gru", "before", "mae"),
    ],
)
def test_the_unpadded_autodiff_twin_equals_the_padded_one(
    cell: str, option: str, loss: str
) -> None:
    every = loss in ("mae", "softmax_cross_entropy")
    problem = with_values(
        np.random.default_rng(5), Sizes(5, 3, 2, 4, 2), cell=cell, option=option, loss=loss,
        outputs="every" if every else "last", ragged=True, truncation=2,
        bias=True, initial_state=True,
    )  # fmt: skip
    plain = TWINS[cell].derivatives(
        problem.params, problem.x, problem.y, **problem.first, **problem.options
    )
    assert_right(AUTODIFF.within_measured_error(problem), name_arrays(plain), problem)
    assert same(np.asarray(plain.adjoints) == 0, reference(problem).adjoints == 0)


@EVERY_CELL
@given(data=st.data())
def test_what_stands_in_the_padding_changes_not_one_bit(cell: str, data: st.DataObject) -> None:
    problem = data.draw(cell_problems(cell, ragged=st.just(True)))
    assert problem.lengths is not None
    padding = np.arange(1, len(problem.x) + 1)[:, None] > problem.lengths
    x, y = problem.x.copy(), problem.y.copy()
    x[padding] = data.draw(st.sampled_from([0.0, 1e300, np.inf]))
    if problem.outputs == "every":
        y[padding] = 7
    assert same(gradients(problem), gradients(problem._replace(x=x, y=y)))
    assert not gradients(problem)[1].adjoints[padding].any()
    assert not gradients(problem)[1].x[padding].any()


@pytest.mark.table(3)
@EVERY_CELL
@given(data=st.data())
def test_a_padded_batch_has_the_gradients_of_its_sequences_one_by_one(
    cell: str, data: st.DataObject
) -> None:
    problem = data.draw(cell_problems(cell, losses=("half_sse",), ragged=st.just(True)))
    assert problem.lengths is not None
    _, allowed = measure_reference(problem)
    whole, sums = gradients(problem)[1], dict[str, Any]()
    for b, length in enumerate(problem.lengths):
        one = problem._replace(
            x=problem.x[:length, [b]],
            y=problem.y[[b]] if problem.outputs == "last" else problem.y[:length, [b]],
            first={name: state[[b]] for name, state in problem.first.items()},
            lengths=None,
        )
        part = gradients(one)[1]
        for name in problem.params._fields:
            if getattr(part, name) is not None:
                sums[name] = sums.get(name, 0) + getattr(part, name)
        bound = 2 * allowed.adjoints[:length, b]
        assert (np.abs(whole.adjoints[:length, b] - part.adjoints[:, 0]) <= bound).all()
    for name, total in sums.items():
        assert compare(name, getattr(whole, name), total, 2 * getattr(allowed, name)).error <= 1


@EVERY_CELL
@given(data=st.data())
def test_the_bare_layer_is_the_sweep_without_the_output(cell: str, data: st.DataObject) -> None:
    problem = data.draw(cell_problems(cell, outputs=("every",), ragged=st.just(True)))
    assert problem.lengths is not None
    module, params = CELLS[cell], problem.params
    prediction, trace = module.forward(params, problem.x, **problem.first, **problem.batch)
    dy = np.random.default_rng(1).normal(size=prediction.shape)
    dy[np.arange(1, len(dy) + 1)[:, None] > problem.lengths] = 0
    whole = module.backward(params, trace, dy)
    entering = dy @ params.V
    entering[np.arange(1, len(dy) + 1)[:, None] > problem.lengths] = np.nan
    bare = module.backward_through_time(params, trace, entering)
    assert bare.V is None
    assert bare.c is None
    assert same(bare, whole._replace(V=None, c=None))


@EVERY_CELL
@given(data=st.data(), k=st.integers(1, 12))
def test_truncation_keeps_the_last_k_adjoints_and_no_other(
    cell: str, data: st.DataObject, k: int
) -> None:
    problem = data.draw(cell_problems(cell, outputs=("last",), truncated=False))
    full, cut = gradients(problem)[1], gradients(problem._replace(truncation=k))[1]
    T, B, _ = problem.x.shape
    ends = np.full(B, T) if problem.lengths is None else problem.lengths
    kept = np.arange(1, T + 1)[:, None] > ends - k
    assert same(cut.adjoints, np.where(kept[..., None], full.adjoints, 0))
    assert same(cut.V, full.V)
    if k >= T:
        assert same(cut, full)
    elif k < ends.min():
        assert not cut.h0.any()


@given(problem=problems())
def test_the_error_of_truncation_is_what_the_omitted_steps_add(problem: Problem) -> None:
    T = len(problem.x)
    assert set(truncation_errors(problem, T).values()) == {0.0}
    x, (_, full) = problem.x, gradients(problem)
    if T > 1 and full.U.any():
        missing = np.einsum("tbh,tbd->hd", full.adjoints[:-1], x[:-1])
        found = truncation_errors(problem, 1)["U"]
        size = np.linalg.norm(full.U)
        parts = np.einsum("tbh,tbd->hd", np.abs(full.adjoints), np.abs(x))
        rounding = 64 * np.finfo(float).eps * np.linalg.norm(parts) / size
        assert abs(found - np.linalg.norm(missing) / size) <= rounding * (1 + found)


@pytest.mark.parametrize(("back", "kept"), [(0, 1), (1, 2), (3, 4)])
def test_k_steps_back_from_the_output_is_a_truncation_of_k_plus_one(back: int, kept: int) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(2), Sizes(6, 2, 3, 4, 2))
    found = CELLS["rnn"].adjoints(params, x, y, truncation=kept)
    steps_with_a_gradient = np.flatnonzero(found.any(axis=(1, 2))) + 1
    assert list(steps_with_a_gradient) == list(range(6 - back, 7))


# Losses.


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("size", [1e4, -1e4, 700.0])
@DTYPES
def test_huge_logits_give_finite_values_and_gradients(loss: str, size: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    params = CELLS["rnn"].init(rng, 2, 3, 2, dtype=dtype, bias=True)
    params = params._replace(c=np.array([size, -size], dtype))
    x = rng.normal(size=(2, 2, 2)).astype(dtype)
    y = np.eye(2, dtype=dtype)
    for witness in (CELLS["rnn"], autodiff_rnn):
        value, found = witness.value_and_grad(params, x, y, loss=loss)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in found)
        wrong = abs(size) if loss == "softmax_cross_entropy" else abs(size) / 2
        assert float(value) == pytest.approx(wrong, rel=0.02)


@EVERY_CELL
@given(data=st.data())
def test_classes_and_one_hot_rows_are_the_same_targets(cell: str, data: st.DataObject) -> None:
    problem = data.draw(
        cell_problems(cell, losses=("softmax_cross_entropy",), ragged=st.just(False))
    )
    if np.issubdtype(problem.y.dtype, np.integer):
        other = np.eye(problem.sizes.O)[problem.y]
    else:
        other = problem.y.argmax(axis=-1)
    assert same(gradients(problem), gradients(problem._replace(y=other)))


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_a_loss_never_broadcasts(loss: str) -> None:
    from jax_reference import losses as autodiff  # noqa: PLC0415
    from manual_bptt import losses  # noqa: PLC0415

    prediction = np.zeros((4, 1))
    for wrong in (np.zeros(4), np.zeros((1, 1)), np.zeros((4, 4))):
        for function in losses.find(loss)[:2]:
            with pytest.raises(ValueError, match=r"y: expected shape \(4, 1\) as the prediction"):
                function(prediction, wrong)
        with pytest.raises(ValueError, match=r"y: expected shape \(4, 1\) as the prediction"):
            autodiff.find(loss)(prediction, wrong, np.ones((4, 1), bool))


def test_at_the_kink_the_mean_absolute_error_has_the_gradient_zero() -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(3), Sizes(2, 2, 2, 3, 2))
    params, exact = params._replace(V=np.zeros((2, 3))), np.zeros((2, 2))
    for witness in (CELLS["rnn"], autodiff_rnn):
        assert np.asarray(witness.value_and_grad(params, x, y, loss="mae")[1].V).any()
        assert not np.asarray(witness.value_and_grad(params, x, exact, loss="mae")[1].V).any()


# Any dtype: the same source with fifty digits.


class Real:
    """A number of fifty digits with the functions that a gate needs."""

    def __init__(self, value: Any) -> None:
        self.value = value if isinstance(value, Decimal) else Decimal(value)

    def __lt__(self, other: Any) -> bool:
        return self.value < number(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= number(other)

    def __neg__(self) -> "Real":
        return Real(-self.value)

    def __abs__(self) -> "Real":
        return Real(abs(self.value))

    def __pow__(self, exponent: int) -> "Real":
        return Real(self.value**exponent)

    def exp(self) -> "Real":
        return Real(self.value.exp())

    def tanh(self) -> "Real":
        decay = (-2 * abs(self.value)).exp()
        return Real(((1 - decay) / (1 + decay)).copy_sign(self.value))


def number(value: Any) -> Decimal:
    return value.value if isinstance(value, Real) else Decimal(value)


def operation(name: str) -> Callable[[Any, Any], Real]:
    return lambda left, right: Real(getattr(number(left), name)(number(right)))


for name in ("add", "sub", "mul", "truediv"):
    setattr(Real, f"__{name}__", operation(f"__{name}__"))
    setattr(Real, f"__r{name}__", operation(f"__r{name}__"))

TO_REAL = np.vectorize(lambda v: Real(float(v)), otypes=[object])
TO_FLOAT = np.vectorize(lambda v: float(number(v)), otypes=[float])


@pytest.mark.rest
@pytest.mark.parametrize(("cell", "option"), [(c, o) for c in ("lstm", "gru") for o in OPTIONS[c]])
def test_with_fifty_digits_the_gradient_is_the_difference_quotient(cell: str, option: str) -> None:
    problem = with_values(
        np.random.default_rng(4), Sizes(3, 2, 2, 2, 2), cell=cell, option=option,
        bias=True, initial_state=True,
    )  # fmt: skip
    module = CELLS[cell]
    with localcontext() as context:
        context.prec = 50
        exact = problem.map_arrays(TO_REAL)
        params = exact.params
        _, found = gradients(exact)
        step = Decimal(10) ** -15

        def loss_at(name: str, entry: tuple[int, ...], moved: Decimal) -> Decimal:
            weight = getattr(params, name).copy()
            weight[entry] = Real(weight[entry].value + moved)
            there = exact._replace(params=params._replace(**{name: weight}))
            value, _ = gradients(there)
            return number(value)

        for name in params._fields:
            gradient = getattr(found, name)
            for entry in [tuple(int(i) for i in e) for e in np.ndindex(gradient.shape)][::3]:
                quotient = (loss_at(name, entry, step) - loss_at(name, entry, -step)) / (2 * step)
                assert abs(number(gradient[entry]) - quotient) < Decimal(10) ** -26, (name, entry)
    digits = {name: TO_FLOAT(value) for name, value in found._asdict().items()}
    for compared in AUTODIFF.within_measured_error(problem)(digits):
        assert compared.verdict is Verdict.AGREES, str(compared)
    assert module.__name__.endswith(cell)


# Padding.


def test_sequences_are_padded_with_zeros_to_the_longest() -> None:
    x, lengths = pad([np.ones((2, 3)), 2 * np.ones((4, 3)), 3 * np.ones((1, 3))])
    assert x.shape == (4, 3, 3)
    assert list(lengths) == [2, 4, 1]
    assert x.sum() == 2 * 3 + 4 * 3 * 2 + 3 * 3
    assert not x[2:, 0].any()


@pytest.mark.parametrize(
    ("sequences", "exception", "message"),
    [
        (np.ones((2, 2, 2)), TypeError, "sequences: expected a list of arrays, found ndarray"),
        ([], ValueError, "sequences: expected at least one array, found none"),
        (
            [np.ones((2, 3)), np.ones((2, 4))],
            ValueError,
            "sequences[1]: expected shape (T, D) with D = 3 with T ≥ 1, found (2, 4)",
        ),
        ([np.ones(3)], ValueError, "sequences[0]: expected shape (T, D) with T ≥ 1, found (3,)"),
        (
            [np.ones((2, 3)), np.ones((2, 3), np.float32)],
            TypeError,
            "sequences[1]: expected dtype float64 as in sequences[0], found float32",
        ),
    ],
)
def test_what_cannot_be_padded_is_named(
    sequences: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception) as caught:
        pad(sequences)
    assert str(caught.value) == message


@pytest.mark.rest
@settings(max_examples=max(1, settings().max_examples // 5))
@given(seed=st.integers(0, 2**32 - 1))
def test_a_padded_batch_of_a_list_is_used_as_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, lengths = pad([rng.normal(size=(length, 2)) for length in rng.integers(1, 6, 3)])
    for cell, module in CELLS.items():
        params = module.init(rng, 2, 3, 1)
        y = np.zeros((3, 1))
        option = {OPTION_NAMES[cell]: OPTIONS[cell][0]} if cell in OPTION_NAMES else {}
        padded = Problem(cell, params, x, y, {}, option, "mse", lengths=lengths)
        _, allowed = measure_reference(padded)
        batch = module.predict(params, x, lengths=lengths)
        for b, length in enumerate(lengths):
            alone = module.predict(params, x[:length, [b]])
            # Both are as far from the exact prediction as rounding may take them.
            assert np.abs(batch[b] - alone[0]) <= 2 * allowed.states.prediction[b]


def modules() -> list[ModuleType]:
    return [*CELLS.values(), *TWINS.values()]


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"outputs": "all"}, ValueError, "outputs: expected one of last, every, found 'all'"),
        ({"outputs": 1}, TypeError, "outputs: expected a name, found int"),
        ({"outputs": "every"}, ValueError, "y: expected shape (T, B, O) = (3, 2, 2), found (2, 2)"),
        ({"lengths": [3]}, ValueError, "lengths: expected shape (B,) = (2,), found (1,)"),
        ({"lengths": [3, 0]}, ValueError, "lengths: expected values from 1 to T = 3, found 0 at (1,)"),
        ({"lengths": [4, 1]}, ValueError, "lengths: expected values from 1 to T = 3, found 4 at (0,)"),
        ({"lengths": [1.0, 2.0]}, TypeError, "lengths: expected an integer dtype, found float64"),
        ({"truncation": 0}, ValueError, "truncation: expected at least 1, found 0"),
        ({"truncation": 1.5}, TypeError, "truncation: expected an integer, found float"),
        ({"truncation": True}, TypeError, "truncation: expected an integer, found bool"),
        ({"outputs": "every", "y": np.ones((3, 2, 2)), "truncation": 2}, ValueError, "truncation: expected None with outputs='every', found 2"),
        ({"y": np.array([0, 2]), "loss": "softmax_cross_entropy"}, ValueError, "y: expected classes from 0 to O - 1 = 1, found 2 at (1,)"),
        ({"y": np.array([0, 1, 1]), "loss": "softmax_cross_entropy"}, ValueError, "y: expected shape (B,) = (2,), found (3,)"),
        ({"y": np.array([0, 1]), "loss": "mse"}, TypeError, "y: expected a floating dtype, found int64"),
        ({"y": np.full((2, 2), 0.5), "loss": "softmax_cross_entropy"}, ValueError, "y: expected one-hot rows, found [0.5, 0.5] at (0,)"),
        ({"y": np.array([[0.0, 1.5], [0, 0]]), "loss": "binary_cross_entropy"}, ValueError, "y: expected values from 0 to 1, found 1.5 at (0, 1)"),
        ({"x": np.full((3, 2, 2), np.nan), "lengths": [2, 3]}, ValueError, "x: expected finite values, found nan at (0, 0, 0)"),
    ],
)  # fmt: skip
def test_new_arguments_are_checked_by_both_witnesses_with_the_same_sentence(
    module: ModuleType, change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    manual = CELLS[module.__name__.rpartition(".")[2]]
    params = manual.init(np.random.default_rng(0), 2, 3, 2)
    good = {"params": params, "x": np.ones((3, 2, 2)), "y": np.ones((2, 2))}
    module.value_and_grad(**good)
    with pytest.raises(exception) as caught:
        module.value_and_grad(**(good | change))
    assert str(caught.value) == message


@pytest.mark.parametrize("module", modules()[1::3], ids=lambda m: m.__name__)
def test_packed_gates_are_checked(module: ModuleType) -> None:
    good = CELLS["lstm"].init(np.random.default_rng(0), 2, 3, 2, bias=True)
    x, y = np.ones((3, 2, 2)), np.ones((2, 2))
    for name, wrong, message in [
        ("U", good.U[:9], "U: expected shape (4H, D) with 4H = 12, found (9, 2)"),
        ("W", good.W.T, "W: expected shape (4H, H) = (12, 3), found (3, 12)"),
        ("b", np.ones(3), "b: expected shape (4H,) = (12,), found (3,)"),
    ]:
        with pytest.raises(ValueError, match=r"expected shape") as caught:
            module.value_and_grad(good._replace(**{name: wrong}), x, y)
        assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"c0: expected shape \(B, H\) = \(2, 3\), found \(1, 3\)"):
        module.predict(good, x, None, np.ones((1, 3)))


@EVERY_CELL
def test_biases_begin_at_zero_and_are_absent_unless_asked_for(cell: str) -> None:
    G = GATES[cell] * 3
    params = CELLS[cell].init(np.random.default_rng(0), 2, 3, 4, dtype=np.float32, bias=True)
    shapes = {"b": (G,), "c": (4,)} | ({"b_n": (3,)} if cell == "gru" else {})
    for name, shape in shapes.items():
        assert getattr(params, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(params, name), np.zeros(shape))
    without = CELLS[cell].init(np.random.default_rng(0), 2, 3, 4)
    assert {getattr(without, name) for name in shapes} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "gru", "reset": "between"}, "reset: expected one of after, before"),
        ({"cell": "rnn", "activation": "swish"}, "activation: expected one of tanh"),
        ({"cell": "cnn"}, "cell: expected one of rnn, lstm, gru"),
    ],
)
def test_the_padded_reference_refuses_what_is_no_cell_or_option(
    options: dict[str, str], message: str
) -> None:
    _, params, x, y, *_ = with_values(np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell="gru")
    with pytest.raises(ValueError, match=message):
        padded.derivatives(params, x, y, **options)


@pytest.mark.parametrize("module", modules()[2::3], ids=lambda m: m.__name__)
def test_the_placement_of_the_reset_gate_is_one_of_two(module: ModuleType) -> None:
    params = CELLS["gru"].init(np.random.default_rng(0), 2, 3, 2)
    with pytest.raises(ValueError, match="reset: expected one of after, before, found 'between'"):
        module.predict(params, np.ones((3, 2, 2)), reset="between")


@pytest.mark.parametrize("gates", [2, 3, 4])
def test_gates_are_split_into_views_of_what_is_packed(gates: int) -> None:
    packed = np.arange(6.0 * gates * 5).reshape(3, 2, gates * 5)
    for found, expected in zip(
        split_gates(packed, gates), np.split(packed, gates, axis=-1), strict=True
    ):
        assert np.array_equal(found, expected)
        assert np.shares_memory(found, packed)
