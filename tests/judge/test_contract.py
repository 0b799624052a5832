"""A submission that breaks its contract gets a verdict that says so, whatever it does."""

import json
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify
from bptt_verifier.judge.first_states import TakenStates, find_states
from bptt_verifier.judge.submission import Breach, Expected, read_results
from bptt_verifier.judge.weights import Weights
from manual_bptt import gru, lstm, rnn
from tests.support.derivations import derivation
from tests.support.right_derivations import column_vectors_one_sequence_at_a_time

# fmt: off
BREACHES = {
    "raises": (lambda p, x, y: 1 / 0, "raised", "ZeroDivisionError"),
    "exits": (lambda p, x, y: sys.exit(3), "raised", "SystemExit"),
    "returns None": (lambda p, x, y: None, "wrong-shape", "returned None"),
    "returns a string": (lambda p, x, y: "gradients", "wrong-shape", "str"),
    "returns strings": (lambda p, x, y: ("a", "b", "c"), "wrong-shape", "dtype <U1"),
    "returns objects": (lambda p, x, y: (object(), p.W, p.V), "wrong-shape", "found object"),
    "returns an array of objects": (lambda p, x, y: (np.full(p.U.shape, None), p.W, p.V), "wrong-shape", "found dtype object"),
    "returns the loss last": (lambda p, x, y: (p._asdict(), 1.0), "wrong-shape", "tuple of 2 values"),
    "returns a loss that is NaN": (lambda p, x, y: (np.nan, p), "not-finite", "the loss: expected finite"),
    "has no argument y": (lambda p, x: p, "raised", "lambda p, x: p"),
    "returns two": (lambda p, x, y: (p.U, p.W), "wrong-shape", "2 values"),
    "returns a pair that is none": (lambda p, x, y: ([1, [2, 3]], {}), "wrong-shape", "cannot be read"),
    "returns one too few by name": (lambda p, x, y: {"U": p.U, "V": p.V}, "wrong-shape", "no gradient named W"),
    "returns scalars": (lambda p, x, y: (1.0, 2.0, 3.0), "wrong-shape", "found ()"),
    "returns transposed": (lambda p, x, y: (p.U.T.copy(), p.W, p.V), "transposed-gradient", "it is transposed"),
    "returns ragged lists": (lambda p, x, y: ([[1.0], [1.0, 2.0]], p.W, p.V), "wrong-shape", "list"),
    "returns NaN": (lambda p, x, y: (p.U * np.nan, p.W, p.V), "not-finite", "nan"),
    "returns random numbers": (lambda p, x, y: (np.random.default_rng().normal(size=p.U.shape), p.W, p.V), "not-deterministic", "two different"),
    "writes into x": (lambda p, x, y: (x.__iadd__(1), (p.U, p.W, p.V))[1], "inputs-modified", "argument x"),
    "writes into W": (lambda p, x, y: (p.W.__isub__(0.1), (p.U, p.W, p.V))[1], "inputs-modified", "argument W"),
    "writes into h0": (lambda p, x, y, h0: (h0.__iadd__(1), (p.U, p.W, p.V))[1], "inputs-modified", "argument h0"),
}
# fmt: on


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("breach", BREACHES)
def test_a_broken_contract_is_a_verdict_that_says_so(breach: str, model: str) -> None:
    gradients, name, piece = BREACHES[breach]
    report = verify(gradients, model=model, examples=8)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == [name]
    assert piece in str(report)
    json.dumps(report.to_dict())


def test_an_exception_is_shown_with_the_line_that_raised_it() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        return params.U + params.U @ np.ones(10_000)  # a shape that does not fit

    report = verify(gradients, examples=4)
    line = gradients.__code__.co_firstlineno + 1
    assert f"It was raised at `params.U @ np.ones(10_000)` ({__file__}:{line}:27)" in str(report)
    assert report.mistakes[0].details["file_line"] == f"{__file__}:{line}"


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WordlessError(), "your function raised WordlessError"),
        (ValueError("a\nb \x1b[31m \ud800"), r"ValueError: a b \x1b[31m \ud800"),
    ],
)
def test_an_exception_with_any_message_is_one_line(error: Exception, said: str) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        raise error

    (mistake,) = verify(gradients, examples=4).mistakes
    assert mistake.explanation.endswith(said)


@pytest.mark.rest
def test_a_loss_of_one_entry_is_a_loss() -> None:
    right = column_vectors_one_sequence_at_a_time("tanh")

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        value, found = right(params, x, y, h0)
        return np.reshape(value, (1, 1)), found

    assert verify(gradients, examples=4)


def test_a_breach_at_some_sizes_is_told_with_them() -> None:
    def gradients(params, x, y, h0, c0):
        if len(x) == 1:
            raise ValueError("one step")
        return derivation(lstm, "lstm")(params, x, y, h0, c0)

    report = verify(gradients, model="lstm", bias=True)
    assert [m.name for m in report.mistakes] == ["raised"]
    assert "with T=1 B=" in " ".join(report.notes)


@pytest.mark.rest
def test_a_view_of_the_inputs_is_copied_before_it_can_change() -> None:
    right = column_vectors_one_sequence_at_a_time("tanh")
    buffer: dict[str, Any] = {}

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        _, (dU, dW, dV) = right(params, x, y, h0)
        if buffer.get("shape") == dU.shape:
            buffer["U"][...] = dU  # the array returned last time, used again
        else:
            buffer.update(shape=dU.shape, U=dU)
        return buffer["U"], dW, dV

    assert verify(gradients, examples=20)


@pytest.mark.rest
def test_a_submission_that_writes_into_what_it_is_given_spoils_no_later_verdict() -> None:
    right = derivation(lstm, "lstm")

    def careless(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        for array in (*params, x, y, h0, c0):
            array[...] = np.nan
        return found

    assert verify(right, model="lstm", examples=12)
    report = verify(careless, model="lstm", examples=12)
    assert [m.name for m in report.mistakes] == ["inputs-modified"]
    assert verify(right, model="lstm", examples=12)


@pytest.mark.rest
def test_sums_that_round_otherwise_at_each_call_are_deterministic_enough() -> None:
    right = derivation(lstm, "lstm")
    rng = np.random.default_rng(0)

    def jittery(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        off = rng.choice([-1, 0, 1], found["W"].shape) * np.finfo(x.dtype).eps
        return found | {"W": found["W"] * (1 + off).astype(x.dtype)}

    assert verify(jittery, model="lstm", examples=12)


@pytest.mark.rest
def test_zeros_that_are_integers_are_zeros() -> None:
    right = derivation(lstm, "lstm")

    def without_c0(params, x, y, h0, c0):
        return right(params, x, y, h0, c0) | {"c0": np.zeros(c0.shape, int)}

    report = verify(without_c0, model="lstm", bias=True, examples=12)
    assert [m.name for m in report.mistakes] == ["zero-gradient"]


# How a submission takes its first states.


def test_a_state_is_passed_in_its_place_or_by_its_name() -> None:
    def bound(params, x, y, bias, h0): ...

    for submission, expected in [
        (lambda params, x, y: 0, TakenStates()),
        (lambda params, x, y, start: 0, TakenStates(("h0",))),
        (lambda params, x, y, h0, c0: 0, TakenStates(("h0", "c0"))),
        (lambda params, x, y, c0: 0, TakenStates(("c0",))),
        (lambda params, x, y, *, h0=None, c0=None: 0, TakenStates((), ("h0", "c0"))),
        (partial(bound, bias=True), TakenStates((), ("h0",))),
        (lambda params, x, y, h0=None: 0, TakenStates(("h0",))),
        (lambda params, x, y, clip=None: 0, TakenStates()),
        (lambda params, x, y, bptt_truncate=100, verbose=False: 0, TakenStates()),
        (lambda params, x, y, start, verbose=False: 0, TakenStates(("h0",))),
        (lambda params, x, y, clip=None, h0=None: 0, TakenStates((), ("h0",))),
        (lambda params, x, y, h0, clip=None, c0=None: 0, TakenStates(("h0",), ("c0",))),
        (lambda params, x, y, *rest, **options: 0, TakenStates()),
    ]:
        assert find_states(submission, ("h0", "c0"))._replace(optional=()) == expected


@pytest.mark.slow
def test_every_state_arrives_under_its_own_name() -> None:
    right = derivation(lstm, "lstm")
    for submission in (
        right,
        lambda params, x, y, c0, h0: right(params, x, y, h0, c0),
        lambda params, x, y, *, c0, h0: right(params, x, y, h0, c0),
        lambda params, x, y, h0, *, c0: right(params, x, y, h0, c0),
        lambda params, x, y, c0: right(params, x, y, np.zeros_like(c0), c0),
    ):
        assert verify(submission, model="lstm", examples=6)


@pytest.mark.rest
def test_only_what_is_returned_is_compared() -> None:
    def weights_alone(params, x, y):
        found = lstm.gradients(lstm.Params(*params), x, y)[1]
        return found.U, found.W, found.V

    report = verify(weights_alone, model="lstm", examples=8)
    assert list(report.parameters) == ["U", "W", "V"]


def test_what_cannot_be_read_is_a_breach() -> None:
    class Odd:
        def _asdict(self) -> None:
            raise RuntimeError("no")

    expected = Expected(("W",), {}, {"W": (2,)}, np.float64)
    found = read_results(Odd(), expected)
    assert isinstance(found, Breach)
    assert "what your function returned, Odd, cannot be read" in found.mistake.explanation


@pytest.mark.table(3)
@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_an_option_with_a_default_keeps_it(model: str) -> None:
    module = {"rnn": rnn, "lstm": lstm, "gru": gru}[model]

    def gradients(params, x, y, clip=None, *, verbose=False):
        assert clip is None
        assert verbose is False
        found = module.value_and_grad(module.Params(*params), x, y)[1]
        return found.U, found.W, found.V

    assert verify(gradients, model=model, examples=6)


def test_results_of_unknown_names_are_reported_as_not_checked() -> None:
    def gradients(params, x, y, h0):
        found = rnn.value_and_grad(rnn.Params(*params), x, y, h0)[1]
        others = {f"other{i}": 0 for i in range(20)}
        return {**found._asdict(), "d_in": 0 * x, "dstate": 7 * h0, "predictions": y} | others

    report = verify(gradients, examples=4)
    assert report
    note = report.notes[-1]
    assert note.startswith("Not checked: d_in, dstate, predictions, other0")
    assert "and 13 others" in note
    assert "prediction, loss" in note
    assert note in report.to_dict()["notes"]


@pytest.mark.table(2)
@pytest.mark.parametrize("model", ["rnn", "gru"])
def test_gradients_of_biases_that_the_model_lacks_are_reported_as_not_checked(model: str) -> None:
    module = {"rnn": rnn, "gru": gru}[model]

    def gradients(params, x, y):
        found = module.value_and_grad(module.Params(*params), x, y)[1]
        return found.U, found.W, found.V, np.full(3, 7.0), np.full(3, 7.0)

    report = verify(gradients, model=model, examples=4)
    assert report
    assert list(report.parameters) == ["U", "W", "V"]
    assert "Not checked: b, c." in report.notes[-1]


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_a_returned_prediction_is_compared(model: str) -> None:
    module = {"rnn": rnn, "lstm": lstm, "gru": gru}[model]

    def gradients(params, x, y):
        found = module.value_and_grad(module.Params(*params), x, y)[1]
        return {"U": found.U, "W": found.W, "V": found.V, "prediction": 0 * y + 7}

    report = verify(gradients, model=model, examples=4)
    assert [m.name for m in report.mistakes] == ["forward-differs"]
    assert "your prediction is 7" in str(report)


def test_parameters_say_that_biases_need_an_option() -> None:
    params = Weights(1, 2, 3)
    with pytest.raises(AttributeError, match="and no b; `--bias` or bias=True judges"):
        _ = params.b
    with pytest.raises(AttributeError, match=r"has U, W, V, and no Q$"):
        _ = params["Q"]
    assert getattr(params, "c", None) is None
