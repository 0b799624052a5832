"""The trace of an own model's loss, the choice of its cases, and what is said without one."""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program import torch_trace
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference import own_loss
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.own_loss import trace_and_select, trace_loss
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.selection import KINK, OTHER_PATH, RAISES, Selection

PARAMS = {"w": np.array([0.5, 2.0])}


def trace(error: BaseException | None, **known: Any) -> Paths | str:
    def loss(p: Any, xp: Any) -> Any:
        if error is not None:
            raise error
        return xp.sum(p["w"] ** 2)

    with use_float64():
        return trace_loss(OwnModel(loss, (PARAMS,), 0, **known), PARAMS)


def test_a_loss_of_one_argument_may_be_written_in_jax_with_a_scan() -> None:
    x = jnp.linspace(-1, 1, 3)

    def loss(p: Any, xp: Any) -> Any:
        def step(h: Any, x_t: Any) -> tuple[Any, None]:
            return jnp.tanh(p["w"] * (h + x_t)), None

        return jax.lax.scan(step, jnp.zeros(2), x)[0].sum()

    with use_float64():
        paths = trace_loss(OwnModel(loss, (PARAMS,), 0, in_numpy=True), PARAMS)
        assert isinstance(paths, Paths)
        followed, known = paths.follow(PARAMS), float(loss(PARAMS, np))
    assert followed is not None
    assert float(followed[1]) == pytest.approx(known, rel=2.0**-48)  # some ten operations


def test_a_loss_that_takes_a_namespace_is_traced_in_that_of_jax_alone() -> None:
    namespaces = set[str]()

    def loss(p: Any, xp: Any) -> Any:
        namespaces.add(xp.__name__)
        return xp.sum(p["w"] ** 2)

    with use_float64():
        assert isinstance(trace_loss(OwnModel(loss, (PARAMS,), 0), PARAMS), Paths)
    assert namespaces == {"jax.numpy"}


def test_a_loss_that_jax_traces_and_cannot_differentiate_is_said_so() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return jax.lax.while_loop(lambda w: xp.sum(w) > 1, lambda w: w / 2, p["w"]).sum()

    with use_float64():
        said = trace_loss(OwnModel(loss, (PARAMS,), 0), PARAMS)
    assert isinstance(said, str)
    begin = "jax.grad of the loss raised ValueError: Reverse-mode differentiation"
    assert said.startswith(begin)
    assert " at `def loss(p: Any, xp: Any) -> Any:` (" in said


@pytest.mark.parametrize(
    ("error", "in_numpy", "begin", "end"),
    [
        (ValueError("no."), False, "loss(params, jax.numpy) raised ValueError: no. at `", ")."),
        (
            ValueError("no"),
            True,
            "loss(params) cannot be traced at `",
            ": it raised ValueError: no.",
        ),
        (UntraceableError("it prints"), True, "loss(params) cannot be traced at `", ": it prints."),
    ],
)
def test_why_a_loss_cannot_be_traced_is_said_with_the_place(
    error: BaseException, in_numpy: bool, begin: str, end: str
) -> None:
    said = trace(error, in_numpy=in_numpy)
    assert isinstance(said, str)
    assert said.startswith(begin)
    assert said.endswith(end)
    assert f"{__file__.rpartition('/')[2]}:" in said


def test_a_loss_of_torch_is_traced_as_its_operations_over_jax(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = list[Any]()

    def over_jax(loss: Any, point: Any) -> Any:
        points.append(point)
        return lambda values: loss(values, np)

    monkeypatch.setattr(torch_trace, "over_jax", over_jax)
    assert isinstance(trace(None, in_torch=True), Paths)
    assert points


def select(
    left_out: list[Counter[str]], cases: int, monkeypatch: pytest.MonkeyPatch, none: bool = False
) -> tuple[OwnModel, list[tuple[int, int]]]:
    """The model of settings whose draws are left out so, without a trace, and the progress."""
    told, waiting = list[tuple[int, int]](), iter(left_out)

    class Selector:
        def __init__(self, setting: Any) -> None:
            self.setting = setting

        def select(self, number: int, progress: Any) -> Selection:
            for place in range(number + 1):
                progress(place + 1)
            found = (Case("a case", PARAMS, Point(0, setting=self.setting.number), None),) * number
            found = () if none else found
            nothing: Any = frozenset()
            return Selection(
                found, next(waiting), None, Counter(), {}, nothing, (), nothing, damped=0, keeping=0
            )

    settings = (PARAMS,) * len(left_out)
    trees: Any = [SimpleNamespace(notes=(f"Data of setting {n}.",)) for n in range(len(left_out))]
    nothing = SimpleNamespace(operations=(), leaves={})
    paths = SimpleNamespace(places=(), known=(SimpleNamespace(program=nothing),))
    monkeypatch.setattr(own_loss, "trace_loss", lambda model, given: paths)
    monkeypatch.setattr(own_loss, "Selector", Selector)
    monkeypatch.setattr(own_loss, "confirm", lambda model: model)
    model = OwnModel(lambda p, xp: 0.0, settings, 0, trees=(*trees,))
    return trace_and_select(model, cases, lambda done, total: told.append((done, total))), told


def test_settings_share_the_cases_and_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = select([Counter(), Counter()], 5, monkeypatch)
    assert [case.point.setting for case in found.cases] == [0, 0, 0, 1, 1]
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (4, 5), (5, 5), (5, 5)]
    assert len(found.paths) == 2
    # All settings have the same data, which are named once.
    assert [note for note in found.notes if note.startswith("Data")] == ["Data of setting 0."]


@pytest.mark.parametrize(
    ("left_out", "too_many"),
    [
        ([{OTHER_PATH: 1}, {KINK: 3}], True),
        ([{}, {OTHER_PATH: 2}], True),
        ([{}, {RAISES: 2}], False),  # without a branch, no path is the reason
        ([{KINK: 9}, {}], False),
    ],
)
def test_too_few_cases_on_the_traced_paths_leave_a_loss_untraced(
    left_out: list[dict[str, int]], too_many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = select([*map(Counter, left_out)], 5, monkeypatch)
    assert found.doubt is not None  # no case tells anything here
    assert ((found.untraced or "").startswith("The loss takes too many paths")) is too_many


@pytest.mark.parametrize("left_out", [{KINK: 2}, {OTHER_PATH: 2}])
def test_without_any_case_there_is_no_verdict_and_what_was_left_out_is_said(
    left_out: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = select([Counter(left_out)], 5, monkeypatch, none=True)
    (why,) = left_out
    said = "The loss or its gradient is not finite or would overflow at all points tried."
    assert found.refusal == said
    assert found.notes == (f"2 draws were left out: {why}.",)
    begin = "The loss takes too many paths" if why == OTHER_PATH else found.refusal
    assert (found.untraced or "").startswith(begin)


def count(p: Any, xp: Any) -> Any:
    return 0.5 * xp.sum(xp.digitize(p["w"] ** 2, xp.linspace(0, 9, 300)))


def hold(p: Any, xp: Any) -> Any:
    return xp.sum(jax.lax.stop_gradient(p["w"]) ** 2)


def state(p: Any, xp: Any) -> Any:
    stated = jax.custom_vjp(lambda w: xp.sum(w**2))
    stated.defvjp(lambda w: (xp.sum(w**2), None), lambda _, c: (0 * c * xp.ones(2),))
    return stated(p["w"])


def give_one(p: Any, xp: Any) -> Any:
    return 1.0 + 0 * xp.sum(p["w"])


STEPS: dict[str, tuple[Callable[..., Any], str]] = {
    "round": (lambda p, xp: xp.round(xp.sum(p["w"] ** 2), 1), "it is rounded at `"),
    "more digits": (lambda p, xp: xp.round(xp.sum(p["w"] ** 2), 6), "it is rounded at `"),
    "quotient": (lambda p, xp: xp.sum(p["w"] // 1e-3), "it is rounded at `"),
    "count": (count, "it counts, or is rounded. Let it return what it rounds."),
    "smooth": (lambda p, xp: xp.sum(p["w"] ** 2), ""),
    "held": (hold, ""),
    "stated": (state, ""),
    "one": (give_one, ""),
}


@pytest.mark.table(2)
@pytest.mark.parametrize("name", STEPS)
def test_a_loss_that_is_rounded_or_counts_has_no_derivative(name: str) -> None:
    loss, said = STEPS[name]
    with use_float64():
        model = OwnModel(loss, (PARAMS,), 0, in_numpy=loss not in (hold, state))
        found = trace_and_select(model, 4, lambda done, total: None)
    assert bool(found.refusal) == bool(said), found.refusal
    if found.refusal:
        assert found.untraced == found.refusal
        begin = "The derivative of the loss is zero in all 4 cases, although the loss differs"
        assert found.refusal.startswith(begin)
        assert said in found.refusal


def test_what_is_rounded_beside_a_loss_is_no_reason_against_it() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["w"] ** 2) + xp.round(p["w"][0])

    with use_float64():
        model = OwnModel(loss, (PARAMS,), 0, in_numpy=True)
        assert trace_and_select(model, 2, lambda done, total: None).refusal is None
