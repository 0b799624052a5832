"""A submission that breaks its contract gets a verdict that says so, whatever it does."""

import json
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify, verify_own_model
from bptt_verifier.judge.submission import (
    Breach,
    Expected,
    TakenStates,
    Weights,
    find_states,
    read_results,
)
from manual_bptt import gru, lstm, rnn
from tests.support.derivations import derivation
from tests.support.right_derivations import column_vectors_one_sequence_at_a_time
from tests.support.square import W, right, square

# fmt: off
BREACHES = {
    "raises": (lambda p, x, y: 1 / 0, "raised", "ZeroDivisionError"),
    "exits": (lambda p, x, y: sys.exit(3), "raised", "SystemExit"),
    "returns None": (lambda p, x, y: None, "wrong-shape", "returned None"),
    "returns a string": (lambda p, x, y: "gradients", "wrong-shape", "str"),
    "returns strings": (lambda p, x, y: ("a", "b", "c"), "wrong-shape", "dtype <U1"),
    "returns objects": (lambda p, x, y: (object(), p.W, p.V), "wrong-shape", "found object"),
    "returns an array of objects": (lambda p, x, y: (p.U.astype(object), p.W, p.V), "wrong-shape", "found dtype object"),
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
        return params.U @ np.ones(10_000)  # a shape that does not fit

    report = verify(gradients, examples=4)
    line = gradients.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}: return params.U @ np.ones(10_000)" in str(report)
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


def test_sums_that_round_otherwise_at_each_call_are_deterministic_enough() -> None:
    right = derivation(lstm, "lstm")
    rng = np.random.default_rng(0)

    def jittery(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        off = rng.choice([-1, 0, 1], found["W"].shape) * np.finfo(x.dtype).eps
        return found | {"W": found["W"] * (1 + off).astype(x.dtype)}

    assert verify(jittery, model="lstm", examples=12)


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
        return {**found._asdict(), "dx": 0 * x, "dh0": 7 * h0, "predictions": y} | others

    report = verify(gradients, examples=4)
    assert report
    (note,) = report.notes
    assert note.startswith("Not checked: dx, dh0, predictions, other0")
    assert "and 13 others" in note
    assert "prediction, loss" in note
    assert note in report.to_dict()["notes"]


@pytest.mark.parametrize("model", ["rnn", "gru"])
def test_gradients_of_biases_that_the_model_lacks_are_reported_as_not_checked(model: str) -> None:
    module = {"rnn": rnn, "gru": gru}[model]

    def gradients(params, x, y):
        found = module.value_and_grad(module.Params(*params), x, y)[1]
        return found.U, found.W, found.V, np.full(3, 7.0), np.full(3, 7.0)

    report = verify(gradients, model=model, examples=4)
    assert report
    assert list(report.parameters) == ["U", "W", "V"]
    assert "Not checked: b, c." in report.notes[0]


def test_a_name_that_an_own_model_lacks_is_reported_as_not_checked() -> None:
    report = verify_own_model(lambda p: right(p) | {"prediction": 3, "dW": 1}, square, W, cases=4)
    assert report
    assert "Not checked: prediction, dW." in " ".join(report.notes)


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_a_returned_prediction_is_compared(model: str) -> None:
    module = {"rnn": rnn, "lstm": lstm, "gru": gru}[model]

    def gradients(params, x, y):
        found = module.value_and_grad(module.Params(*params), x, y)[1]
        return {"U": found.U, "W": found.W, "V": found.V, "prediction": 0 * y + 7}

    report = verify(gradients, model=model, examples=4)
    assert [m.name for m in report.mistakes] == ["forward-differs"]
    assert "your prediction is 7" in str(report)


# Hostile objects.


class Raising:
    """An object of which everything raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("can't call numpy() on a tensor that requires grad")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


class RaisingMapping(dict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no keys")

    items = keys = values = __iter__


class RaisingName:
    __str__ = __repr__ = Raising.__repr__

    def __hash__(self) -> int:
        return 1


class Unsaid(BaseException):
    def __str__(self) -> str:
        raise SystemExit("no words")

    __repr__ = __str__


class SubmissionInterrupt(KeyboardInterrupt):
    """A user's own exception; Ctrl-C raises KeyboardInterrupt itself."""


def raising(error: BaseException) -> Any:
    raise error


HOSTILE = {
    "array": (lambda p, x, y: (Raising(), p.W, p.V), "wrong-shape"),
    "object": (lambda p, x, y: Raising(), "wrong-shape"),
    "mapping": (lambda p, x, y: RaisingMapping(U=p.U), "wrong-shape"),
    "name": (lambda p, x, y: {RaisingName(): p.U}, "wrong-shape"),
    "words": (lambda p, x, y: raising(Unsaid()), "raised"),
    "interrupt": (lambda p, x, y: raising(SubmissionInterrupt()), "raised"),
    "generator exit": (lambda p, x, y: raising(GeneratorExit()), "raised"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_object_ends_in_a_verdict(case: str) -> None:
    gradients, name = HOSTILE[case]
    for report in (
        verify(gradients, examples=4),
        verify_own_model(lambda p: gradients(rnn.Params(p["U"], p["U"], p["U"]), 0, 0),
                         lambda p, xp: xp.sum(p["U"] ** 2), {"U": np.eye(2)}, cases=2),
    ):  # fmt: skip
        assert [mistake.name for mistake in report.mistakes] == [name]
        json.dumps(report.to_dict())
        str(report)


def test_parameters_that_cannot_be_read_are_refused_in_one_sentence() -> None:
    for params, sentence in (
        ({"W": Raising()}, r"params\['W'\]: expected an array, found RuntimeError: no __array"),
        (RaisingMapping(W=W["W"]), "params: expected a dict of float arrays, .*: no keys"),
    ):
        with pytest.raises(ValueError, match=sentence):
            verify_own_model(right, square, params)


class Nameless:
    """A callable without a signature, whose name raises."""

    @property
    def __name__(self) -> str:
        raise RuntimeError("no name")

    @property
    def __signature__(self) -> Any:
        raise RuntimeError("no signature")

    @property
    def __wrapped__(self) -> Any:
        raise RuntimeError("nothing wrapped")

    def __call__(self, params: Any, x: Any, y: Any) -> Any:
        if self.fails:
            raise ValueError("here")
        return tuple(rnn.value_and_grad(rnn.Params(*params), x, y)[1][:3])

    fails = False


def test_a_callable_without_name_and_signature_is_judged() -> None:
    assert verify(Nameless(), examples=4)
    failing = Nameless()
    failing.fails = True
    (mistake,) = verify(failing, examples=4).mistakes
    assert mistake.explanation == "your function raised ValueError: here"
    line = Nameless.__call__.__code__.co_firstlineno + 2
    assert mistake.details["file_line"] == f"{__file__}:{line}"


# The user's settings for floating-point errors and warnings.


def with_settings(p, x, y):
    np.exp(np.float32(1000))  # overflows
    return tuple(rnn.value_and_grad(rnn.Params(*p), x, y)[1][:3])


@pytest.mark.parametrize("kind", ["errors", "warnings"])
def test_the_users_settings_hold_for_the_users_code_alone(kind: str) -> None:
    seen = []

    def gradients(p, x, y):
        seen.append((np.geterr()["over"], warnings.filters[0][0]))
        return with_settings(p, x, y)

    def verified() -> Any:
        report = verify(gradients, examples=4)
        own = verify_own_model(
            lambda p: right(p) | {"loss": float(square(p, np)) + min(0, np.exp(-1e3 * p["W"][0, 0]))},
            lambda p, xp: xp.sum(xp.tanh(p["W"]) ** 2), W, cases=8,
        )  # fmt: skip
        assert own, str(own)
        return report

    with warnings.catch_warnings(), np.errstate(all="raise" if kind == "errors" else "warn"):
        warnings.simplefilter("error" if kind == "warnings" else "ignore")
        report = verified()
        assert np.geterr()["over"] == ("raise" if kind == "errors" else "warn")
    assert seen[0] == ("raise", "ignore") if kind == "errors" else ("warn", "error")
    assert report
    assert "your function raised" in report.notes[0]
    line = with_settings.__code__.co_firstlineno + 1
    assert "under your settings" in report.notes[0]
    assert str(line) in report.notes[0] or "test_contract" in report.notes[0]


def test_settings_that_a_call_makes_end_with_it() -> None:
    def gradients(p, x, y):
        np.seterr(all="raise")
        warnings.simplefilter("error")
        return tuple(rnn.value_and_grad(rnn.Params(*p), x, y)[1][:3])

    before = np.geterr(), list(warnings.filters)
    assert verify(gradients, examples=4)
    assert (np.geterr(), list(warnings.filters)) == before


# The contract of an own model.


def modifying(p: Any) -> Any:
    found = right(p)
    p["W"] -= 0.1 * found["W"]
    return found


def removing(p: Any) -> Any:
    return {"W": right(p)["W"] + 0 * p.pop("W")}


def leaving(p: Any) -> Any:
    raise SystemExit(3)


def failing(p: Any) -> Any:
    return {"W": p["W"] @ p["missing"]}


def not_a_number(p: Any) -> Any:
    return {"W": right(p)["W"] * np.array([[1, np.nan], [1, 1]])}


noise = np.random.default_rng(0)

OWN_BREACHES = {
    "returns nothing": (lambda p: None, "wrong-shape", "returned None: expected the gradients by"),
    "returns a list": (lambda p: [1.0], "wrong-shape", "returned list of 1 values: expected"),
    "other names": (lambda p: {"w": p["W"]}, "wrong-shape", "named W: expected W, found w"),
    "other shape": (
        lambda p: {"W": p["W"][0]},
        "wrong-shape",
        "expected shape (2, 2), found (2,)",
    ),
    "strings": (lambda p: {"W": "abc"}, "wrong-shape", "expected an array of floats, found dtype"),
    "objects": (lambda p: {"W": object()}, "wrong-shape", "array of floats, found object"),
    "complex": (lambda p: {"W": 1j * p["W"]}, "wrong-shape", "found dtype complex128"),
    "ragged": (lambda p: {"W": [[1.0], [1.0, 2.0]]}, "wrong-shape", "array of floats, found list"),
    "modifies": (modifying, "inputs-modified", "modified its argument W"),
    "removes": (removing, "inputs-modified", "modified its argument W"),
    "random": (lambda p: {"W": noise.normal(size=(2, 2))}, "not-deterministic", "called twice"),
    "exits": (leaving, "raised", "SystemExit: 3"),
    "raises": (failing, "raised", "KeyError: 'missing'"),
    "NaN": (not_a_number, "not-finite", "found nan at entry [0, 1]"),
    "other loss": (lambda p: right(p) | {"loss": 0.0}, "forward-differs", "your loss is 0"),
}


@pytest.mark.parametrize("case", OWN_BREACHES)
def test_a_breach_of_an_own_model_is_a_verdict(case: str) -> None:
    gradients, name, sentence = OWN_BREACHES[case]
    report = verify_own_model(gradients, square, W, cases=3)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == [name]
    assert sentence in report.mistakes[0].explanation
    json.dumps(report.to_dict())
    str(report)


def test_gradients_that_are_no_function_are_refused_for_every_kind_of_model() -> None:
    with pytest.raises(TypeError, match="gradients: expected a function, found int"):
        verify_own_model(3, square, W)


def test_an_exception_of_an_own_model_is_shown_with_its_line() -> None:
    report = verify_own_model(failing, square, W, cases=1)
    line = failing.__code__.co_firstlineno + 1
    assert report.notes[0].startswith(f"{__file__}:{line}: return")
    assert Path(__file__).name in str(report)


def test_parameters_say_that_biases_need_an_option() -> None:
    params = Weights(1, 2, 3)
    with pytest.raises(AttributeError, match="and no b; `--bias` or bias=True judges"):
        _ = params.b
    with pytest.raises(AttributeError, match=r"has U, W, V, and no Q$"):
        _ = params["Q"]
    assert getattr(params, "c", None) is None
