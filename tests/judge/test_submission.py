"""How a submission is called, and how its results are read and compared with each other."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge import submission
from bptt_verifier.judge.comparisons import find_difference
from bptt_verifier.judge.submission import (
    SHOWN,
    Breach,
    Call,
    Expected,
    Submission,
    are_equal,
    ask,
    convert_results,
    make_breach,
    name_beside,
    name_results,
    read_in_order,
    read_results,
    split_loss,
)
from bptt_verifier.judge.weights import (
    BiasedWeights,
    GruBiasedWeights,
    Weights,
    order_names,
    write_call,
)
from bptt_verifier.program.attempt import USERS, Settings
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import Verdict

EXPECTED = Expected(("U", "W"), {}, {"U": (), "W": (2,)}, np.float64)


def call() -> Call:
    return Call((), {}, dict)


def answer() -> Any:
    return {"U": 1.0, "W": np.ones(2)}


def note(calls: list[Any], *inner: Any, **named: Any) -> None:
    calls.append((inner, named))


def test_the_line_that_calls_a_submission_gives_the_same_arrays() -> None:
    given = {n: np.full((1, 1), i, np.float32) for i, n in enumerate(("U", "W", "V", "x", "h0"))}
    for by_name in [(), ("h0",)]:
        calls: list[Any] = []
        written = write_call(given, by_name)
        exec(written, {"gradients": partial(note, calls)})
        ((inner, named),) = calls
        assert [*inner[0], *inner[1:], *named.values()] == [*given.values()]
        assert tuple(named) == by_name
        assert inner[0].U.dtype == np.float32


def test_weights_are_read_by_field_by_name_and_in_order() -> None:
    given = Weights(1, 2, 3)
    assert (given.W, given["W"], given[1], given[-1]) == (2, 2, 2, 3)
    assert Weights._fields == ("U", "W", "V")
    assert BiasedWeights._fields == ("U", "W", "V", "b", "c")
    assert GruBiasedWeights._fields == ("U", "W", "V", "b", "c", "b_n")


def test_a_weight_that_is_missing_is_named_and_a_bias_with_the_option_that_adds_it() -> None:
    remedy = "; `--bias` or bias=True judges a derivation with biases"
    for name, more in [("hidden", ""), ("b", remedy)]:
        with pytest.raises(AttributeError) as caught:
            Weights(1, 2, 3)[name]
        assert str(caught.value) == f"params has U, W, V, and no {name}{more}"


def test_every_call_is_counted() -> None:
    submission = Submission(answer)
    assert submission.calls == 0
    for number in (1, 2):
        ask(submission, call, EXPECTED, "this case")
        assert submission.calls == number


def test_an_error_under_the_users_settings_alone_is_noted() -> None:
    def warned() -> Any:
        np.log(np.zeros(1))
        return answer()

    def failing() -> Any:
        np.log(np.zeros(1))
        raise KeyError("U")

    token = USERS.set(Settings({"all": "raise"}))
    try:
        noted, failed = Submission(warned), Submission(failing)
        assert not isinstance(ask(noted, call, EXPECTED, "this case"), Breach)
        found = ask(failed, call, EXPECTED, "this case")
    finally:
        USERS.reset(token)
    (note,) = noted.notes
    assert (
        "raised FloatingPointError: divide by zero encountered in log at `np.log(np.zeros(1))` ("
        in note
    )
    assert f"({__file__}:{warned.__code__.co_firstlineno + 1}:9) with this case" in note
    assert isinstance(found, Breach)
    assert found.mistake.name == "raised"
    assert failed.notes == ()


@pytest.mark.parametrize("more", [0, 1])
def test_ten_results_of_unknown_names_are_named_and_the_others_counted(more: int) -> None:
    submission = Submission(answer)
    submission.select_known({f"g{i}": 0 for i in range(SHOWN + more)}, EXPECTED)
    (note,) = submission.notes
    listed = ", ".join(f"g{i}" for i in range(SHOWN))
    assert note.startswith(f"Not checked: {listed}{' and 1 others' if more else ''}. ")


def test_results_are_returned_under_known_names_as_arrays() -> None:
    submission = Submission(lambda: {"U": 1.0, "other": 7.0, "W": [1.0, 2.0]})
    found = ask(submission, call, EXPECTED, "this case")
    assert isinstance(found, dict)
    assert {name: value.tolist() for name, value in found.items()} == {"U": 1.0, "W": [1.0, 2.0]}
    said = "Not checked: other. Results of this model that can be compared have the names U, W."
    assert submission.notes == (said,)


@pytest.mark.parametrize("returned", [None, {"U": 1.0, "W": np.ones(3)}])
def test_results_that_cannot_be_compared_are_a_breach(returned: Any) -> None:
    found = ask(Submission(lambda: returned), call, EXPECTED, "this case")
    assert isinstance(found, Breach)
    assert found.mistake.name == "wrong-shape"


NAN = float("nan")


@pytest.mark.parametrize(
    ("now", "before", "same"),
    [
        (1.0, np.array(1.0), True),
        ([1.0, NAN], np.array([1.0, NAN]), True),
        ([0.0, NAN], np.array([-0.0, NAN]), True),  # other bytes, which are equal numbers
        (np.array([NAN * 1j]), np.array([NAN * 1j]), True),
        ([1.0, 2.0], np.array([1.0, 3.0]), False),
        (np.array([1.0]).view(np.int64), np.array([1.0]), False),  # the same bytes
        (np.ones((1, 2)), np.ones(2), False),
    ],
)
def test_arrays_are_equal_in_shape_and_numbers(now: Any, before: Any, same: bool) -> None:
    assert are_equal(now, before) is same


def test_an_order_is_stated_where_results_may_be_in_order() -> None:
    for in_order, ways in [({}, ""), ({2: ("U", "W")}, " or in the order U, W")]:
        found = name_results(7, EXPECTED._replace(in_order=in_order))
        assert isinstance(found, Breach)
        assert found.mistake.explanation.endswith(f"expected the gradients by name{ways}.")


ALLOWED = 0.25


def differ(first: list[float], second: list[float], true: float = 1.0) -> Breach | None:
    def find_truth() -> Any:
        return {"W": np.full(2, true)}, {"W": np.full(2, ALLOWED)}

    return find_difference({"W": np.array(first)}, {"W": np.array(second)}, find_truth)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([9.0, 9.0], [9.0, 9.0], True),
        ([9.0, 9.0], [9.25, 9.0], True),  # they differ by what is allowed
        ([-9.0, 9.0], [-9.25, 9.25], True),
        ([9.0, 9.0], [9.5, 9.0], False),
        ([9.0, 9.0], [9.5, 9.5], False),
        ([1.25, 1.0], [0.75, 1.0], True),  # both are right
        ([1.25, 1.0], [0.5, 1.0], False),
        ([0.5, 1.0], [1.25, 1.0], False),
        ([1.25, 9.0], [0.75, 9.0], True),  # one entry is right, and the other the same
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [1.0, 1.0], False),
    ],
)
def test_two_answers_are_the_same_if_each_entry_is_near_the_other_or_both_are_right(
    first: list[float], second: list[float], same: bool
) -> None:
    assert (differ(first, second) is None) is same
    opposite = [-x for x in first], [-x for x in second]
    assert (differ(*opposite, true=-1.0) is None) is same


def test_an_answer_that_lacks_a_result_of_the_other_differs() -> None:
    found = find_difference({"W": np.ones(2)}, {}, dict)  # type: ignore[arg-type]
    assert found is not None
    assert found.mistake.details == {"gradients": ["W"]}
    said = "your function returned two different results for W when called twice with the same"
    assert found.mistake.explanation == f"{said} arguments."


@pytest.mark.parametrize("array", [np.ones(2), np.array([1.0, np.nan]), np.array([1, 2])])
def test_an_argument_is_modified_if_any_of_its_numbers_is(array: Any) -> None:
    def ask_with(change: Any) -> Any:
        given = {"w": array.copy()}
        made = Call((given,), {}, lambda: given)
        return ask(Submission(change), lambda: made, EXPECTED, "this case")

    def modify(given: Any) -> Any:
        given["w"][0] = 7
        return answer()

    assert not isinstance(ask_with(lambda given: answer()), Breach)
    found = ask_with(modify)
    assert found.mistake.name == "inputs-modified"
    assert found.mistake.explanation == (
        "your function modified its argument w: expected the caller's arrays to be unchanged."
    )


def test_what_raises_when_it_is_read_is_a_breach() -> None:
    class Raising:
        def _asdict(self) -> Any:
            raise KeyError("U")

    found = read_results(Raising(), EXPECTED)
    assert isinstance(found, Breach)
    assert "Raising, cannot be read: KeyError: 'U'" in found.mistake.explanation
    (note,) = found.notes
    assert note.startswith("It was raised at `raise KeyError")
    other = read_results(7.0, EXPECTED)  # which the user's code does not raise
    assert isinstance(other, Breach)
    assert other.notes == ()


def test_an_answer_is_a_list_or_what_was_raised() -> None:
    made = Call((), {}, dict)
    assert Submission(lambda: (n for n in (1, 2))).answer(made, EXPECTED) == [1, 2]
    assert Submission(lambda: dict[str, int]()["W"]).answer(made, EXPECTED).exception == "KeyError"


@pytest.mark.parametrize("fails", [False, True])
def test_tensors_are_read_as_arrays_unless_that_fails(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_arrays(value: Any) -> Any:
        if value != "tensors":
            return value
        return dict[str, int]()["W"] if fails else answer()

    monkeypatch.setattr(submission, "to_arrays", to_arrays)
    found = ask(Submission(lambda: "tensors"), lambda: Call((), {}, dict), EXPECTED, "this case")
    assert isinstance(found, Breach) is fails
    if isinstance(found, Breach):
        assert (
            found.mistake.explanation
            == "your function returned str: expected the gradients by name."
        )


def test_a_loss_stands_before_one_gradient_or_so_many() -> None:
    three = (0.5, np.ones(2), np.ones(3))
    assert split_loss(three) == ({}, three)
    assert split_loss(three, 2) == ({"loss": 0.5}, three[1:])
    assert split_loss((0.5, {"W": 1.0})) == ({"loss": 0.5}, {"W": 1.0})


@pytest.mark.parametrize("states", [(), ("h0",), ("h0", "c0")])
@pytest.mark.parametrize("biases", [(), ("b", "c")])
@pytest.mark.parametrize("loss", [0.5, np.array(0.5), None])
def test_a_loss_stands_before_the_gradients_and_those_of_first_states_behind(
    states: tuple[str, ...], biases: tuple[str, ...], loss: Any
) -> None:
    names = ("U", "W", "V", *biases)
    shapes = {"U": (4, 3), "W": (4, 4), "V": (2, 4), "b": (4,), "c": (2,), "loss": ()}
    shapes |= {"h0": (5, 4)} | dict.fromkeys(states, (5, 4))
    known = Expected(names, order_names(names), shapes, np.float64)
    every = ("loss",) * (loss is not None) + names + states
    returned = tuple(loss if n == "loss" else np.ones(shapes[n]) for n in every)
    found = name_results(returned, known)
    assert isinstance(found, dict)
    assert [*found] == [*every]


@pytest.mark.parametrize("other", [np.ones(2), np.ones((4, 5)), [0.5], None, "more"])
def test_shapes_tell_a_loss_and_gradients_of_states_from_other_results(other: Any) -> None:
    shapes = {"U": (4, 3), "W": (4, 4), "V": (2, 4), "loss": (), "h0": (5, 4)}
    known = Expected(("U", "W", "V"), order_names(("U", "W", "V")), shapes, np.float64)
    three = tuple(np.ones(shapes[name]) for name in "UWV")
    assert name_beside((other, *three), known) == name_beside((*three, other), known) == ()
    assert name_beside(three, known) == ()
    assert name_beside((0.5, *three), known) == ("loss", "U", "W", "V")
    assert name_beside((0.5, *three, other), known) == ()
    assert name_beside((0.5, *three), known._replace(in_order={})) == ()
    assert isinstance(name_results((*three, other), known), Breach)


@pytest.mark.parametrize("loss", [2.0, np.array([2.0]), np.array(2.0)])
def test_a_pair_is_a_loss_and_gradients(loss: Any) -> None:
    for kind in (tuple, list):
        found = name_results(kind((loss, {"U": 1.0, "W": 2.0})), EXPECTED)
        assert isinstance(found, dict)
        assert found.pop("loss") is loss
        assert found == {"U": 1.0, "W": 2.0}
    in_order = EXPECTED._replace(in_order={2: ("U", "W")})
    pair = name_results((np.ones(2), np.zeros(2)), in_order)
    assert {*pair} == {"U", "W"}
    assert name_results((np.ones(2), 0.0), in_order).keys() == {"U", "W"}  # type: ignore[union-attr]
    breach = name_results((loss, {"U": 1.0}), EXPECTED)
    assert isinstance(breach, Breach)
    assert breach.mistake.details == {"missing": ["W"], "found": ["U"]}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (object(), "object"),
        ([[1.0], [1.0, 2.0]], "list"),
        (np.array([object(), object()]), "dtype object"),
        (np.array([1j, 2j]), "dtype complex128"),
        (np.complex64(1j), "dtype complex64"),
        ("abc", "dtype <U3"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_named(value: Any, found: str) -> None:
    breach = convert_results({"W": value}, EXPECTED)
    assert isinstance(breach, Breach)
    said = f"the gradient for W: expected an array of floats, found {found}."
    assert breach.mistake.explanation == said


@pytest.mark.parametrize("convert", [np.array, jnp.asarray])
def test_numbers_of_bfloat16_become_float32(convert: Any) -> None:
    found = convert_results({"W": convert(np.array([1.5, -3], jnp.bfloat16))}, EXPECTED)
    assert isinstance(found, dict)
    assert found["W"].dtype == np.float32
    assert found["W"].tolist() == [1.5, -3.0]


@pytest.mark.parametrize("convert", [np.array, jnp.asarray])
def test_floats_of_8_bits_are_no_mistake(convert: Any) -> None:
    breach = convert_results({"W": convert(np.ones(2, jnp.float8_e5m2))}, EXPECTED)
    assert isinstance(breach, Breach)
    assert (breach.verdict, breach.mistakes) == (Verdict.INCONCLUSIVE, ())
    (said,) = breach.sentences
    assert said == (
        "The gradient for W is in float8_e5m2, whose few digits would hide mistakes: compute and "
        "return it in float32."
    )


def test_a_loss_may_have_axes_and_a_gradient_has_its_own() -> None:
    expected = EXPECTED._replace(shapes={"loss": (), "U": (), "W": (2,), "x": (1, 1)})
    found = convert_results({"loss": np.ones((1, 1)), "W": [1, 2], "x": np.ones((1, 1))}, expected)
    assert isinstance(found, dict)
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {"loss": (), "W": (2,), "x": (1, 1)}
    for wrong in ({"U": np.ones(1)}, {"loss": np.ones(2)}):
        assert isinstance(convert_results(wrong, expected), Breach)


@pytest.mark.parametrize(
    ("shape", "name", "why"),
    [((2, 3), "transposed-gradient", ": it is transposed"), ((3, 3), "wrong-shape", "")],
)
def test_a_transposed_gradient_is_told_from_other_wrong_shapes(
    shape: tuple[int, ...], name: str, why: str
) -> None:
    found = convert_results({"W": np.ones(shape)}, EXPECTED._replace(shapes={"W": (3, 2)}))
    assert isinstance(found, Breach)
    assert found.mistake.name == name
    said = f"the gradient for W: expected shape (3, 2), found {shape}{why}."
    assert found.mistake.explanation == said


def test_floats_keep_their_format_and_integers_get_that_of_the_arguments() -> None:
    given = {"U": np.float32(1), "W": np.array([1, 2])}
    found = convert_results(given, EXPECTED._replace(dtype=np.float16))
    assert isinstance(found, dict)
    assert [str(found[name].dtype) for name in "UW"] == ["float32", "float16"]


def test_a_tuple_has_the_weights_or_all_with_the_biases_in_order() -> None:
    assert order_names("UWV") == {3: ("U", "W", "V"), 5: ("U", "W", "V", "b", "c")}
    six = ("U", "W", "V", "b", "c", "b_n")
    assert order_names(six) == {6: six}


class Returned(NamedTuple):
    W: Any
    b: Any


IN_ORDER = [np.ones((2, 3)), np.ones(2)]


@pytest.mark.parametrize(
    ("result", "paths", "read"),
    [
        (IN_ORDER, {"W": ("W",), "b": ("b",)}, True),
        ((1.5, IN_ORDER), {"W": ("W",), "b": ("b",)}, True),
        (IN_ORDER, {"W": ("W",), "b": ("layers", "b")}, False),  # no dict of arrays
        (IN_ORDER, {"W": (0,), "b": (1,)}, False),
        (IN_ORDER, {}, False),  # where nothing is known of the parameters
        (Returned(*IN_ORDER), {"W": ("W",), "b": ("b",)}, False),  # which has names
        ({"W": IN_ORDER[0]}, {"W": ("W",), "b": ("b",)}, False),
        ([np.ones((2, 3)), np.ones(3)], {"W": ("W",), "b": ("b",)}, False),
        (IN_ORDER[:1], {"W": ("W",), "b": ("b",)}, False),
    ],
)
def test_a_list_is_read_in_the_order_of_a_dict_where_every_shape_fits(
    result: Any, paths: Any, read: bool
) -> None:
    shapes = {"W": (2, 3), "b": (2,)}
    readings: dict[str, None] = {}
    expected = Expected(("W", "b"), {}, shapes, np.float64, paths=paths)
    found = read_in_order(result, expected, readings)
    assert (found is not None) is read
    assert bool(readings) is read
    if read:
        assert isinstance(found, dict)
        assert found["W"] is IN_ORDER[0]
        assert found["b"] is IN_ORDER[1]


def test_a_list_whose_shapes_fit_in_another_order_is_not_read() -> None:
    paths: Any = {"W": ("W",), "b": ("b",)}
    expected = Expected(("W", "b"), {}, {"W": (2, 3), "b": (2,)}, np.float64, paths=paths)
    found = read_in_order(IN_ORDER[::-1], expected, {})
    assert isinstance(found, Breach)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.mistakes == ()


def test_names_that_are_those_expected_are_not_said_to_be_read_in_another_way() -> None:
    def read(result: Any) -> Any:
        raise TypeError("not this structure")

    expected = Expected(("W", "b"), {}, {"W": (2, 3), "b": (2,)}, np.float64, read)
    readings: dict[str, None] = {}
    found = read_results(dict(zip("Wb", IN_ORDER, strict=True)), expected, readings)
    assert isinstance(found, dict)
    assert readings == {}


def test_a_breach_comes_of_values_or_settings_only_where_it_is_said() -> None:
    breach = make_breach("not-finite", "it is not finite", "a note", found=1)
    assert (breach.of_values, breach.by_settings, breach.unread) == (False, False, False)
    assert breach.mistake == Mistake("not-finite", "it is not finite", {"found": 1})
    assert breach.notes == ("a note",)
