"""What plain NumPy code may do: each function is traced, with the derivative of its differences."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import decisions
from bptt_verifier.program.backward import backward
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.namespaces import settle_namespace, takes_namespace
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from tests.support import plain_numpy, plain_python, rarer_numpy  # noqa: F401
from tests.support.plain_numpy import TRACED, P


def differentiate(function: Callable[[Any], Any]) -> tuple[float, dict[str, Any]]:
    with use_float64():
        program = trace(lambda p, _: over_jax(function, P)(p), P)
        values = forward(program, P)
        found = {name: slope[0] for name, slope in backward(program, values).items()}
    return float(values[program.result][0]), found


def call(function: Callable[[Any], Any], moved: Any = 0.0) -> float:
    return float(function({name: value + moved * DIRECTION[name] for name, value in P.items()}))


DIRECTION = {name: np.random.default_rng(1).normal(size=value.shape) for name, value in P.items()}
ROUGH = {plain_numpy.keeps_states_in_float32, plain_numpy.names_dtypes}


@pytest.mark.table(5)
@pytest.mark.filterwarnings("ignore:Setting the shape")  # of NumPy from 2.5 on
@pytest.mark.parametrize("function", TRACED, ids=lambda function: function.__name__)
def test_plain_code_is_traced(function: Callable[[Any], Any]) -> None:
    loss, slopes = differentiate(function)
    expected = call(function)
    assert abs(loss - expected) <= 1e-12 * (1 + abs(expected))
    slope = sum(float(np.sum(slopes[name] * DIRECTION[name])) for name in P)
    step = 1e-2 if function in ROUGH else 1e-5
    wide, narrow = ((call(function, h) - call(function, -h)) / (2 * h) for h in (2 * step, step))
    allowed = 1e-4 if function in ROUGH else 1e-7
    assert abs((4 * narrow - wide) / 3 - slope) <= allowed * (1 + abs(slope))


def test_the_module_is_left_as_it_was() -> None:
    module = plain_numpy
    stored, instance = [*module.STORE["hist"]], dict(vars(module.INST))
    buffer = module.BUF.copy()
    differentiate(module.fills_a_buffer_of_the_module)
    differentiate(module.uses_an_instance_of_the_module)
    assert type(module.BUF) is np.ndarray
    assert np.array_equal(module.BUF, buffer)
    assert [id(entry) for entry in module.STORE["hist"]] == [id(entry) for entry in stored]
    assert vars(module.INST) == instance
    assert type(P["x"]) is np.ndarray


def test_nothing_of_a_trace_stays_in_caches() -> None:
    before = [*plain_python.CACHE["h"]], [*plain_python.DQ]
    differentiate(plain_python.caches_arrays)
    assert ([*plain_python.CACHE["h"]], [*plain_python.DQ]) == before
    assert type(plain_python.onehot(1)) is np.ndarray


def hands_numbers_to_bytes(p):
    return len(p["v"].tobytes()) + p["s"]


def calls_what_jax_lacks(p):
    return np.frompyfunc(lambda x: x, 1, 1)(p["v"]).sum()


def keeps_a_number_as_a_key(p):
    return {p["v"][0]: 1.0}[p["v"][0]]


def iterates_over_parts_of_an_array(p):
    return sum(part.sum() for part in np.nditer(p["x"].T, flags=["external_loop"], order="C"))


def asks_an_nditer_for_its_views(p):
    return np.nditer(p["v"]).itviews[0].sum()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (iterates_over_parts_of_an_array, "it calls np.nditer with external_loop on parts of"),
        (asks_an_nditer_for_its_views, "it uses itviews of np.nditer"),
        (hands_numbers_to_bytes, "it uses .tobytes of an array that depends on the parameters"),
        (calls_what_jax_lacks, "JAX has no counterpart"),
        (keeps_a_number_as_a_key, "it uses a number that depends on the parameters as a key"),
    ],
    ids=lambda value: getattr(value, "__name__", "said"),
)
def test_what_cannot_be_traced_is_said_with_its_place(
    function: Callable[[Any], Any], said: str
) -> None:
    with pytest.raises(UntraceableError, match=said) as caught:
        differentiate(function)
    assert caught.value.place is not None
    assert caught.value.place.file == __file__
    assert caught.value.place.expression in caught.value.place.text


def test_a_trace_that_becomes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def long(p: Any) -> Any:
        total = p["s"]
        while True:
            total = total * 0.5

    monkeypatch.setattr(decisions, "OPERATIONS", 20)
    with pytest.raises(UntraceableError, match="too many operations, 21 so far"):
        differentiate(long)


class Caller:
    """An object of the judge that calls the user's code on copies of arrays that it holds."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {"state": np.zeros(4), "again": ()}
        self.held["again"] = (self.held["state"],)

    def call(self, p: Any) -> Any:
        held = copy.deepcopy(self.held)
        held["state"][1:] = p["v"][1:]
        return (held["again"][0] ** 2).sum()


def test_arrays_that_the_judge_holds_for_the_users_code_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Caller, "__module__", "bptt_verifier.program.caller")
    caller = Caller()
    loss, slopes = differentiate(caller.call)
    assert loss == np.sum(P["v"][1:] ** 2)
    assert np.array_equal(slopes["v"], [0, *2 * P["v"][1:]])
    assert type(caller.held["state"]) is np.ndarray


def test_a_loss_of_one_argument_is_plain_numpy() -> None:
    assert not takes_namespace(lambda p: p)
    assert not takes_namespace(lambda p, scale=1.0: p)
    assert takes_namespace(lambda p, xp: p)
    assert takes_namespace(lambda p, xp=np: p)
    assert takes_namespace(lambda p, module=np: p)
    assert takes_namespace(lambda *everything: everything)
    assert not takes_namespace(lambda p, *, rate=0.1: p)


def decorate(loss: Any) -> Any:
    def inner(*arguments: Any, **named: Any) -> Any:
        return loss(*arguments, **named)

    return inner


class Nameless:
    """A loss whose signature Python cannot read."""

    __signature__ = "none"

    def __call__(self, p: Any) -> Any:
        return p


@pytest.mark.parametrize(
    ("loss", "takes"),
    [
        (decorate(lambda p: 2 * p), False),
        (decorate(lambda p, xp: xp.abs(p)), True),
        (decorate(lambda p, xp=np: xp.abs(p)), False),
        (Nameless(), False),
        (decorate(lambda p: 1 / 0), False),
    ],
    ids=["plain", "namespace", "with a default", "no signature", "it raises"],
)
def test_a_loss_inside_a_decorator_is_called_to_find_its_arguments(loss: Any, takes: bool) -> None:
    settled = settle_namespace(loss, lambda: 2.0)
    assert takes_namespace(settled) is takes
    assert settled.__module__ != __name__  # its globals are the package's


def test_a_loss_whose_arguments_are_known_is_not_called() -> None:
    def loss(p: Any) -> Any:
        raise AssertionError

    assert settle_namespace(loss, lambda: 2.0) is loss
