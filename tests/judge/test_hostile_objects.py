"""Objects that raise whatever is asked of them end in a verdict or in one sentence."""

import json
import re
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify, verify_own_model, verify_vjp
from bptt_verifier.program.attempt import CodeRaisedError
from manual_bptt import rnn
from tests.support.square import W, right, square


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


class Unsized(RaisingMapping):
    """A mapping whose keys are there, and no values."""

    def keys(self) -> Any:
        return [*W]

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("store closed")


class RaisingItems:
    """A sequence, of which NumPy hides what it raises."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        raise OSError("device lost")


class RaisingArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("first")


class RaisingShape:
    @property
    def shape(self) -> Any:
        raise OSError("no shape")


class RaisingFloat:
    def __float__(self) -> float:
        raise ValueError("no float")


def refuse_type(value: Any) -> Any:
    raise ValueError("no type")


RaisingType = type("RaisingType", (), {"__class__": property(refuse_type)})


class InterruptingArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("returned", "said", "line"),
    [
        (lambda: {"W": RaisingArray()}, "the gradient for W: expected an array of floats, found "
         "RaisingArray, which raised TypeError: first.", "first"),
        (lambda: {"W": RaisingItems()}, "the gradient for W: expected an array of floats, found "
         "RaisingItems, which raised OSError: device lost.", "device lost"),
        (lambda: {"W": RaisingShape()}, "the gradient for W: expected an array of floats, found "
         "RaisingShape, which raised OSError: no shape.", "no shape"),
        (RaisingMapping, "what your function returned, RaisingMapping, cannot be read: "
         "RuntimeError: no keys", "no keys"),
        (Unsized, "what your function returned, Unsized, cannot be read: "
         "RuntimeError: store closed", "store closed"),
        (lambda: [RaisingArray()], "what your function returned, list, cannot be read: "
         "TypeError: first", "first"),
        (lambda: (1.0, [RaisingArray()]), "what your function returned, tuple, cannot be read: "
         "TypeError: first", "first"),
        (RaisingArray, "what your function returned, RaisingArray, cannot be read: "
         "TypeError: first", "first"),
        (lambda: {"W": [[RaisingFloat()] * 2] * 2}, "the gradient for W: expected an array of "
         "floats, found list, which raised ValueError: no float.", "no float"),
        (lambda: {"W": RaisingType()}, "what your function returned, a value, cannot be read: "
         "ValueError: no type", "no type"),
        (lambda: {"W": InterruptingArray()}, "the gradient for W: expected an array of floats, "
         "found InterruptingArray, which raised KeyboardInterrupt.", "raise KeyboardInterrupt"),
    ],
)  # fmt: skip
def test_what_a_returned_object_raises_is_reported_with_its_line(
    returned: Any, said: str, line: str
) -> None:
    report = verify_own_model(lambda p: returned(), square, W, cases=2)
    (mistake,) = report.mistakes
    assert (mistake.name, mistake.explanation[: len(said)]) == ("wrong-shape", said)
    (note,) = [note for note in report.notes if note.startswith("It was raised at `raise ")]
    assert line in note
    assert __file__ in note


def test_what_the_gradient_of_a_kernel_raises_is_reported_with_its_line() -> None:
    (mistake,) = verify_vjp(
        lambda arguments, cotangents: [RaisingArray()], lambda x: x * x, (np.ones(2),)
    ).mistakes
    assert "found RaisingArray, which raised TypeError: first at `raise" in mistake.explanation
    assert f"({__file__}:" in mistake.explanation


def test_objects_that_raise_nothing_are_named_by_their_type() -> None:
    for value in (object(), iter([])):

        def gradients(p: Any, value: Any = value) -> Any:
            return {"W": value}

        (mistake,) = verify_own_model(gradients, square, W, cases=2).mistakes
        kind = type(value).__name__
        assert mistake.explanation == (
            f"the gradient for W: expected an array of floats, found {kind}."
        )


def test_parameters_that_cannot_be_read_are_refused_in_one_sentence() -> None:
    for params, sentence in (
        ({"W": Raising()}, r"params\['W'\]: expected an array, found RuntimeError: no __array"),
        (RaisingMapping(W=W["W"]), "params: expected a dict of float arrays, .*: no keys"),
        ({**W, "b": RaisingArray()}, r"params\['b'\]: expected an array, found TypeError: first"),
        ([RaisingArray()], r"params\[0\]: expected an array, found TypeError: first"),
    ):
        with pytest.raises(CodeRaisedError, match=sentence) as raised:
            verify_own_model(right, square, params)
        assert re.search(rf" at `raise .*` \({re.escape(__file__)}:\d+:9\)$", str(raised.value))


def test_an_object_that_is_no_sequence_of_numbers_stays_data() -> None:
    assert verify_own_model(right, square, {**W, "words": RaisingItems()}, cases=2)


@pytest.mark.parametrize("error", [RuntimeError("pool is empty"), KeyboardInterrupt()])
@pytest.mark.parametrize("calls", [1, 3, 5])
def test_what_a_later_call_raises_is_reported_with_its_line(
    error: BaseException, calls: int
) -> None:
    left = [None] * calls

    def gradients(p: Any) -> Any:
        if not left:
            raise error
        left.pop()
        return right(p)

    report = verify_own_model(gradients, square, W, cases=2)
    line = gradients.__code__.co_firstlineno + 2
    assert report.verdict is Verdict.DISAGREES
    assert f"`raise error` ({__file__}:{line}:13)" in " ".join(str(report).split())


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
