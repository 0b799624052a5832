"""The notes on the cases of an own model: what they could show, and what they lack."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import trace
from bptt_verifier.reference.coverage import (
    MISSED,
    VISIBLE,
    VISIBLE_SINGLE,
    describe_cases,
    describe_left_out,
    describe_places,
    find_coarsest_format,
    find_doubt,
)
from bptt_verifier.reference.selection import ENOUGH, VAGUE, Selection
from bptt_verifier.tolerance.bounds import RESOLVING
from tests.support.stated_cases import state_case

PARAMS = {"W": np.ones((2, 3)), "b": np.ones(3)}
CASE = state_case({}, {}, PARAMS)
NO_PATHS: Any = [SimpleNamespace(places=(), known=())]


def select(number: int = 6, **changed: Any) -> Any:
    """Cases of which all could show a mistake, except what a test changes."""
    known: dict[str, Any] = {
        "cases": (CASE,) * number, "left_out": Counter(), "given": None,
        "telling": Counter({"W": number, "b": number}), "resolution": {"W": 1e-9, "b": 1e-9},
        "zeros": frozenset(), "branches": (), "taken": frozenset(), "damped": 0,
        "keeping": 0,
    }  # fmt: skip
    return Selection(**(known | changed))


def describe(*selections: Any, params: Any = (PARAMS,), paths: Any = NO_PATHS) -> list[str]:
    return describe_cases(selections, params, paths)


def test_the_cases_that_could_show_a_mistake_in_every_gradient_are_counted() -> None:
    telling = Counter({"W": 5, "b": 3})
    assert describe(select(telling=telling)) == [
        "3 of 6 cases could have shown a mistake in every gradient."
    ]
    assert describe(select(1)) == []
    assert describe(select(2)) == ["2 of 2 cases could have shown a mistake in every gradient."]
    nothing, *_ = describe(select(zeros=frozenset("Wb")))
    assert nothing == "0 of 6 cases could have shown a mistake in every gradient."
    assert "3 draws were left out: a kink." in describe(select(left_out=Counter({"a kink": 3})))
    zero = select(telling=telling, zeros=frozenset({"b"}))
    assert describe(zero) == [
        "5 of 6 cases could have shown a mistake in every gradient.",
        "∂L/∂b is zero, to rounding, in every case, and yours must be, too.",
    ]


def test_several_settings_are_named_with_their_shapes() -> None:
    other = {"W": np.ones((4, 5)), "b": np.ones(5)}
    first, *_ = describe(select(), select(), params=[PARAMS, other], paths=NO_PATHS * 2)
    assert first == ("The cases are shared by 2 settings: W=(2, 3) b=(3,); W=(4, 5) b=(5,).")


@pytest.mark.parametrize(
    ("damped", "telling", "said"), [(0, 6, ""), (1, 6, "1 of 6 cases has"),
    (2, 6, "2 of 6 cases have"), (2, 0, "")],
)  # fmt: skip
def test_smaller_values_than_usual_are_said_where_they_show_something(
    damped: int, telling: int, said: str
) -> None:
    notes = describe(select(damped=damped, telling=Counter({"W": telling, "b": telling})))
    sentence = (
        " smaller values than usual: at larger ones the gradient is ill-conditioned, or float32 "
        "may overflow."
    )
    assert [note for note in notes if note.endswith(sentence)] == [said + sentence] * bool(said)


@pytest.mark.parametrize(
    ("resolution", "said"),
    [(VISIBLE, False), (2 * VISIBLE, True), (RESOLVING, True), (2 * RESOLVING, False)],
)
def test_errors_that_only_an_ill_conditioned_loss_hides_are_said(
    resolution: float, said: bool
) -> None:
    notes = describe(select(resolution={"W": resolution, "b": 1e-9}))
    found = [note for note in notes if note.startswith("The loss is ill-conditioned")]
    assert bool(found) is said
    if said:
        assert f"hides relative errors below {resolution:.1g} of ∂L/∂W." in found[0]
    better = select(resolution={"W": 1e-9, "b": 1e-9})  # of another setting
    notes = describe(select(resolution={"W": resolution, "b": 1e-9}), better)
    assert not any("ill-conditioned" in note for note in notes)


def test_visible_errors_are_a_millionth_and_in_float32_a_4096th() -> None:
    assert 0.9e-6 < VISIBLE < 1.1e-6
    assert 1 / 4100 < VISIBLE_SINGLE < 1 / 4000


@pytest.mark.parametrize(
    ("dtypes", "visible"), [(("f4", "f4"), VISIBLE_SINGLE), (("f4", "f8"), VISIBLE)]
)
def test_less_is_expected_to_be_seen_if_every_argument_is_float32(
    dtypes: tuple[str, str], visible: float
) -> None:
    given = {name: PARAMS[name].astype(dtype) for name, dtype in zip("Wb", dtypes, strict=True)}
    case = state_case({}, {}, given)
    for resolution, said in [(visible, False), (2 * visible, True)]:
        notes = describe(select(cases=(case,), resolution={"W": resolution, "b": 1e-9}))
        assert any("is ill-conditioned" in note for note in notes) is said


def trace_cast(*dtypes: Any) -> Any:
    """The program of a loss that converts its parameter to these formats, one after another."""

    def loss(p: Any, xp: Any) -> Any:
        w = p["w"]
        for dtype in dtypes:
            w = w.astype(dtype)
        return w.real.sum()

    with use_float64():
        return trace(loss, {"w": np.ones(2)})


@pytest.mark.parametrize(
    ("dtypes", "coarse"),
    [
        ((), False), ((jnp.float32,), True), ((jnp.bfloat16, jnp.float64), True),
        ((jnp.complex128,), False), ((jnp.int32, jnp.float64), False),
    ],
)  # fmt: skip
def test_a_loss_that_rounds_to_a_shorter_format_is_no_ill_conditioned_one(
    dtypes: tuple[Any, ...], coarse: bool
) -> None:
    program = trace_cast(*dtypes)
    assert (find_coarsest_format([program]) is not None) is coarse
    paths: Any = [SimpleNamespace(places=(), known=(SimpleNamespace(program=program),))]
    notes = describe(select(resolution={"W": 2 * VISIBLE, "b": 1e-9}), paths=paths)
    what = "computes in a format coarser than float64" if coarse else "is ill-conditioned"
    hides = f"The loss {what}, which hides relative errors below "
    assert notes[-1] == f"{hides}{2 * VISIBLE:.1g} of ∂L/∂W."
    notes = describe(select(resolution={"W": 2 * VISIBLE, "b": 3 * VISIBLE}), paths=paths)
    assert notes[-1] == f"{hides}{2 * VISIBLE:.1g} of ∂L/∂W and {3 * VISIBLE:.1g} of ∂L/∂b."


def test_the_coarsest_format_of_all_paths_is_found() -> None:
    single, brain, double = (trace_cast(each) for each in (jnp.float32, jnp.bfloat16, jnp.float64))
    assert find_coarsest_format([single, brain, double]) == "bfloat16"
    assert find_coarsest_format([double, single]) == "float32"
    assert find_coarsest_format([double]) is None
    assert find_coarsest_format([]) is None


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_loss_in_a_format_that_hides_mistakes_is_said_to_compute_in_it(dtype: Any) -> None:
    paths: Any = [SimpleNamespace(places=(), known=(SimpleNamespace(program=trace_cast(dtype)),))]
    name = np.dtype(dtype).name
    left_out: Counter[str] = Counter({VAGUE: 3, "a kink": 1})
    few = select(telling=Counter({"b": ENOUGH - 1}), left_out=left_out, given=VAGUE)
    assert describe(few, paths=paths) == [
        "0 of 6 cases could have shown a mistake in every gradient.",
        f"The parameters given were left out: rounding to {name} hides the gradient there.",
        f"3 draws were left out: rounding to {name} hides the gradient there.",
        "1 draw was left out: a kink.",
        f"The loss computes in {name}, whose rounding hides mistakes in ∂L/∂W and ∂L/∂b: state it "
        f"in float64. A backward pass that computes in {name} is judged by verify_vjp.",
    ]
    assert f"3 draws were left out: {VAGUE}." in describe(few)  # in float64
    enough = select(telling=Counter({"W": ENOUGH, "b": 6}), left_out=left_out)
    assert f"3 draws were left out: {VAGUE}." in describe(enough, paths=paths)
    assert not any("computes in" in note for note in describe(enough, paths=paths))
    one = describe(select(telling=Counter({"W": 6})), paths=paths)
    (said,) = (note for note in one if "The loss" in note)
    assert "mistakes in ∂L/∂b: state" in said


@pytest.mark.parametrize("keeping", [0, 2])
def test_cases_in_which_the_reference_keeps_zeros_are_counted(keeping: int) -> None:
    notes = describe(select(keeping=keeping), select(keeping=0), paths=NO_PATHS * 2)
    said = [note for note in notes if "jax.grad is NaN" in note]
    assert len(said) == bool(keeping)
    if keeping:
        assert said[0].startswith("In 2 of 12 cases jax.grad is NaN: ")
        assert said[0].endswith("The reference takes the product for zero.")


class Place:
    def __init__(self, number: int) -> None:
        self.expression, self.number = f"x > {number}", number

    def __str__(self) -> str:
        return f"loss.py:{self.number}"


@pytest.mark.parametrize("more", [0, 1])
def test_the_places_where_the_loss_branches_are_named_five_at_most(more: int) -> None:
    paths: Any = [
        SimpleNamespace(places=[Place(i) for i in range(MISSED + more)], known=()),
        SimpleNamespace(places=[Place(0)], known=()),
        *NO_PATHS,
    ]
    listed = "; ".join(f"`x > {i}` (loss.py:{i})" for i in range(MISSED))
    expected = f"{listed}{', and 1 more' if more else ''}"
    assert describe_places(paths) == expected
    note = f"Branches on values are followed as each point takes them: {expected}."
    assert note in describe(select(), paths=paths)
    assert not any("Branches on values" in each for each in describe(select()))


@pytest.mark.parametrize("more", [0, 1])
def test_branches_that_no_case_takes_are_named_five_at_most(more: int) -> None:
    branches: Any = tuple(f"branch {i}" for i in range(MISSED + 2 + more))
    first = select(branches=branches, taken=frozenset(branches[:1]))
    second = select(branches=branches, taken=frozenset(branches[1:2]))
    listed = "; ".join(branches[2 : 2 + MISSED]) + (", and 1 more" if more else "")
    assert describe(first, second)[-1] == f"No case takes these branches of the loss: {listed}."


@pytest.mark.parametrize(
    ("number", "what"), [(1, "1 draw was"), (2, "2 draws were"), (3, "3 draws were")]
)
def test_points_that_were_left_out_are_said_with_the_reason(number: int, what: str) -> None:
    found = describe_left_out([select(left_out=Counter({"a kink": number}), given="a pole")])
    assert found == ["The parameters given were left out: a pole.", f"{what} left out: a kink."]


def test_too_few_cases_are_a_doubt_unless_fewer_were_asked_for() -> None:
    few = select(ENOUGH, telling=Counter({"W": ENOUGH, "b": ENOUGH - 1}))
    said = f"Too few cases could have shown a mistake: {ENOUGH - 1} in ∂L/∂b."
    assert find_doubt([few], cases=50) == said
    assert find_doubt([few], cases=ENOUGH - 1) is None
    assert find_doubt([select(ENOUGH)], cases=50) is None
    assert find_doubt([few._replace(zeros=frozenset({"b"}))], cases=50) is None
