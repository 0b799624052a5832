"""Gradients in containers without indices: generators, views of a dict, pairs with names."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.listed_results import list_items, read_pairs, take_listed
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn

X = np.linspace(-1, 1, 6).reshape(2, 3)
PARAMS = {"W": np.full((4, 2), 0.3), "b": np.linspace(-1, 1, 3)}


def loss(p: Any) -> Any:
    return np.sum((p["W"] @ X + p["b"]) ** 2)


def right(p: Any) -> dict[str, Any]:
    d = 2 * (p["W"] @ X + p["b"])
    return {"W": d @ X.T, "b": d.sum(0)}


def yield_right(p: Any) -> Iterator[Any]:
    yield from right(p).values()


def yield_none(p: Any) -> Iterator[Any]:
    yield right(p)["W"]
    raise OSError("gone")


FORMS: dict[str, Any] = {
    "values": lambda p: right(p).values(),
    "generator": yield_right,
    "map": lambda p: map(np.copy, right(p).values()),
    "pairs": lambda p: [*right(p).items()],
    "lists": lambda p: [[name, value] for name, value in reversed(right(p).items())],
    "items": lambda p: right(p).items(),
    "zip": lambda p: zip(reversed(p), reversed(right(p).values()), strict=True),
    "loss and items": lambda p: (loss(p), right(p).items()),
    "loss and generator": lambda p: (loss(p), yield_right(p)),
    "names of gradients": lambda p: [("d" + name, value) for name, value in right(p).items()],
}


def test_an_iterator_is_listed_beside_a_loss_alone() -> None:
    beside = np.ones(2), iter([np.ones(3)])
    assert list_items(beside, 2) is beside
    assert list_items((1.0, iter([2.0])), 2) == (1.0, [2.0])


@pytest.mark.parametrize("form", FORMS)
def test_right_gradients_agree_in_any_container_and_wrong_ones_do_not(form: str) -> None:
    assert verify_own_model(FORMS[form], loss, PARAMS, cases=4).verdict is Verdict.AGREES

    def wrong(p: Any) -> Any:
        return FORMS[form]({"W": p["W"] * 1.01, "b": p["b"]})

    assert verify_own_model(wrong, loss, PARAMS, cases=4).verdict is Verdict.DISAGREES


def test_a_generator_of_a_derivation_is_read_in_its_order() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Iterator[Any]:
        yield from rnn.value_and_grad(rnn.Params(*params), x, y)[1][:3]

    assert verify(gradients, examples=8).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("gradients", "said"),
    [
        (lambda p: repeat(p["W"]), "your function returned repeat: expected the gradients by name"),
        (lambda p: iter([p["W"]]), "your function returned list of 1 values: expected the gradi"),
        (lambda p: [("W", p["W"]), ("c", p["b"])], "your function returned no gradient named b"),
        (yield_none, "your function raised OSError: gone"),
    ],
)
def test_what_does_not_fit_ends_in_one_sentence(gradients: Any, said: str) -> None:
    report = verify_own_model(gradients, loss, PARAMS, cases=2)
    (mistake,) = report.mistakes
    assert mistake.explanation.startswith(said)
    assert report.verdict is Verdict.DISAGREES


def test_the_line_is_said_at_which_a_generator_raises() -> None:
    (mistake,) = verify_own_model(yield_none, loss, PARAMS, cases=2).mistakes
    line = yield_none.__code__.co_firstlineno + 2
    assert mistake.details["file_line"] == f"{__file__}:{line}"


def test_values_in_another_order_are_not_read() -> None:
    report = verify_own_model(lambda p: reversed(right(p).values()), loss, PARAMS, cases=2)
    assert report.verdict is Verdict.INCONCLUSIVE


def test_no_more_items_are_taken_than_gradients_and_what_may_be_beside_them() -> None:
    assert list_items(iter("abcde"), 2) == [*"abcde"]
    endless = iter("abcdefgh")
    assert list_items(endless, 2) is endless
    assert next(endless) == "g"
    for other in ([1], {"a": 1}, "text", np.ones(2).flat, (iter("a"), iter("b"))):
        assert list_items(other, 2) is other


def test_pairs_of_nested_parameters_have_the_names_of_all_gradients_or_parts() -> None:
    paths: Any = {"a.W": ("a", "W"), "b[0]": ("b", 0)}
    for pairs in ([("a", 1), ("b", 2)], [("a.W", 1), ("b[0]", 2), ("loss", 3)]):
        assert read_pairs(pairs, paths, paths) == dict(pairs)
        assert read_pairs((0.5, pairs), paths, paths) == (0.5, dict(pairs))
    for others in ([("a", 1), ("c", 2)], [("a", 1)], [], [("a", 1), ("a", 2), ("b", 3)], [(1, 2)]):
        assert read_pairs(others, paths, paths) is others


def test_a_file_may_yield_its_gradients_inside_of_the_call_that_is_announced(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "import numpy as np\nparams = {'w': np.ones(2)}\n"
        "def loss(p):\n    return np.sum(p['w'] ** 2)\n"
        "def gradients(p):\n    yield 2 * p['w']\n"
    )
    told = list[Any]()

    def announce(function: Any, what: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            told.append(function(*given, **named))
            return told[-1]

        return call

    found = read_file(file, None, None, {}, announce=announce)
    found.gradients(found.params)
    assert isinstance(told[-1], list)


def test_the_number_of_items_is_bounded_where_the_parameters_are_unknown() -> None:
    assert len(take_listed(lambda p: iter(range(103)), None)(None)) == 103
    assert not isinstance(take_listed(lambda p: iter(range(104)), None)(None), list)
