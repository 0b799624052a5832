"""The paths of a loss: which one a point takes, and where zeros are kept in its gradient."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import paths
from bptt_verifier.program.jax_gradients import LONG
from bptt_verifier.program.paths import (
    LONGEST,
    MOST,
    OPERATIONS,
    Followed,
    Path,
    Paths,
    find_only,
    keep_finite,
)

KEEPING = "keeping zeros"


def at(*decisions: Any, slope: float = 1.0, kept: float = 2.0) -> Any:
    """A point whose decisions are these, and its gradients: jax.grad's, and the one of (N8)."""
    return {"w": SimpleNamespace(decisions=decisions, slope=slope, kept=kept)}


class Loss:
    """A loss with decisions that each point states, and what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, operations: int = 1) -> None:
        self.asked, self.forgotten, self.traced = list[Any](), 0, list[Any]()
        self.made: Any = ()
        self.operations = operations

        def trace(loss: Any, point: Any, decisions: Any) -> Any:
            self.traced.append((loss(point, None), decisions))
            self.made = point["w"].decisions
            return SimpleNamespace(
                outcomes=self.made, decided=tuple(range(len(self.made))),
                deciding=[f"place {k}" for k in self.made], operations=[None] * self.operations,
            )  # fmt: skip

        def compile_gradient(scalar: Any, *args: Any, **options: Any) -> Any:
            of_zeros, outcomes = KEEPING in args, self.made

            def gradient(point: Any, again: bool) -> Any:
                self.asked.append((of_zeros, again))
                values = point["w"]
                slopes = {"w": np.array(values.kept if of_zeros else values.slope)}
                # What follows another decision is none of the point's.
                decided = [*self.find_outcomes(outcomes, point), *[None] * len(outcomes)]
                return 0.5, slopes, decided[: len(outcomes)]

            gradient.options = options  # type: ignore[attr-defined]
            return gradient

        monkeypatch.setattr(paths, "trace", trace)
        monkeypatch.setattr(paths, "prune", lambda program: program)
        monkeypatch.setattr(paths, "compile_gradient", compile_gradient)
        monkeypatch.setattr(paths, "keep_zeros", KEEPING)
        monkeypatch.setattr(paths, "keep_zeros_of", lambda program: program)
        monkeypatch.setattr(paths, "find_outcomes", self.look_up)

    def find_outcomes(self, outcomes: Any, point: Any) -> Any:
        """Find a point's decisions up to the first one that is not a path's."""
        made = point["w"].decisions
        same = [a == b for a, b in zip(made, outcomes, strict=False)]
        return made[: 1 + same.index(False)] if False in same else made[: len(outcomes)]

    def look_up(self, program: Any, point: Any) -> Any:
        self.asked.append("outcomes")
        return self.find_outcomes(program.outcomes, point)

    def forget(self) -> None:
        self.forgotten += 1

    def make(self, **limits: int) -> Paths:
        return Paths(lambda point: lambda values: ("scalar", values), self.forget, **limits)


def test_the_numbers_of_paths_are_those_of_the_documentation() -> None:
    assert (MOST, OPERATIONS, LONGEST) == (12, 30_000, 3 * LONG)
    known = Paths(lambda point: lambda values: 0.0)
    assert (known.most, known.operations, known.keeps_zeros) == (12, 30_000, False)
    assert not Path(None, None).interpreted  # type: ignore[arg-type]
    assert not Followed(None, 0.0, {}).keeps_zeros  # type: ignore[arg-type]


def test_a_point_takes_the_path_that_is_known_of_its_decisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = Loss(monkeypatch)
    known = loss.make()
    points = [at(1, 2), at(1, 3), at(4, 2), at(1, 3), at(1, 2), at(1, 5)]
    taken = [known.follow(point) for point in points]
    numbers = [known.known.index(each.path) for each in taken if each]
    assert numbers == [0, 1, 2, 1, 0, 3]
    assert len(loss.traced) == loss.forgotten == 4
    assert [each.slopes["w"] for each in taken if each] == [1.0] * 6
    assert [*map(str, known.places)] == [f"place {k}" for k in (1, 2, 3, 4, 5)]


def test_a_path_of_which_a_decision_is_known_to_differ_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = Loss(monkeypatch)
    known = loss.make()
    for point in (at(1, 2), at(1, 3), at(4, 2), at(1, 5)):
        known.follow(point)
    for point, number in [(at(4, 2), 2), (at(1, 5), 2), (at(1, 2), 1)]:
        loss.asked.clear()
        known.follow(point)
        # 4 leaves the first path and with it the second; 5 is the decision of the last one alone.
        assert loss.asked == [(False, False)] * number


def test_a_path_with_fewer_decisions_than_are_known_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = Loss(monkeypatch)
    known = loss.make()
    for point in (at(1, 2, 3), at(1, 4), at(1, 2, 5)):
        known.follow(point)
    second: Any = known.known[1].program
    second.outcomes = (1,)
    loss.asked.clear()
    known.follow(at(1, 2, 5))
    assert len(loss.asked) == 2


@pytest.mark.parametrize("operations", [LONG + 1, LONG, 3 * LONG + 1, 3 * LONG])
@pytest.mark.parametrize("decisions", [(1,), ()])  # of the first path
def test_a_long_path_with_decisions_is_interpreted(
    operations: int, decisions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Loss(monkeypatch, operations)
    known = loss.make(operations=10**9)
    known.trace(at(*decisions))
    known.trace(at(2))
    first, second = known.known
    assert first.interpreted is (bool(decisions) and operations > 3 * LONG)
    assert second.interpreted is (operations > LONG)
    for path in known.known:
        options: Any = path.gradient
        assert options.options["interpreted"] is path.interpreted
        assert options.options["forget"] == loss.forget


def test_the_decisions_of_an_interpreted_path_are_found_before_its_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = Loss(monkeypatch, 3 * LONG + 1)
    known = loss.make(operations=10**9)
    for point in (at(1, 2), at(1, 3), at(4, 2)):
        known.follow(point)
    assert all(path.interpreted for path in known.known)
    loss.asked.clear()
    found: Any = known.follow(at(1, 3))
    assert found.path is known.known[1]
    assert loss.asked == ["outcomes", "outcomes", (False, False)]
    loss.asked.clear()
    found = known.follow(at(4, 2))
    assert found.path is known.known[2]
    assert loss.asked == ["outcomes", "outcomes", (False, False)]  # nothing at the second


@pytest.mark.parametrize(
    ("limits", "operations", "paths_known"),
    [
        ({"most": 2}, 1, 2),
        ({"operations": 3}, 2, 2),  # of all but the last path
        ({"operations": 4}, 2, 3),
        ({}, 1, 5),
    ],
)
def test_points_on_too_many_paths_are_left_out_unless_they_are_asked_for(
    limits: dict[str, int], operations: int, paths_known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Loss(monkeypatch, operations)
    known = loss.make(**limits)
    found = [known.follow(at(number)) for number in range(5)]
    assert [each is not None for each in found] == [number < paths_known for number in range(5)]
    assert known.follow(at(0)) is not None
    another = known.follow(at(7), limited=False)
    assert another is not None
    assert another.path is known.known[-1]
    assert len(known.known) == paths_known + 1


def test_a_program_is_traced_anew_by_other_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Loss(monkeypatch)
    known, point = loss.make(), at(1)
    program: Any = known.retrace(point, decisions="other")  # type: ignore[arg-type]
    assert program.outcomes == (1,)
    known.retrace(point, lambda values: "given")
    assert loss.traced == [(("scalar", point), "other"), ("given", None)]
    assert (loss.forgotten, known.known) == (2, [])


# Zeros that stay zero.


def test_zeros_are_kept_where_the_first_point_or_one_before_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = Loss(monkeypatch)
    known = loss.make()
    infinite = at(1, slope=np.inf)
    later: Any = known.follow(infinite, first=False)
    assert (later.slopes["w"], later.keeps_zeros, known.keeps_zeros) == (np.inf, False, False)
    first: Any = known.follow(infinite)
    assert (first.slopes["w"], first.keeps_zeros, known.keeps_zeros) == (2.0, True, True)
    finite: Any = known.follow(at(1))
    assert (finite.slopes["w"], finite.keeps_zeros, known.keeps_zeros) == (1.0, False, True)
    later = known.follow(infinite, first=False)
    assert (later.slopes["w"], later.keeps_zeros) == (2.0, True)


@pytest.mark.parametrize(
    ("value", "slopes", "asked", "found"),
    [
        (0.5, [1.0], "", 1.0),
        (np.inf, [np.inf], "", np.inf),  # the loss is not finite
        (0.5, [np.inf, 3.0], "k", 3.0),
        (0.5, [np.inf, np.nan, 4.0], "kp", 4.0),
        (0.5, [np.inf, np.nan, np.inf, 5.0], "kpk", 5.0),
        (0.5, [np.inf, np.nan, np.inf, np.nan], "kpk", np.inf),
    ],
)
def test_zeros_are_kept_by_what_gives_a_finite_gradient(
    value: float, slopes: list[float], asked: str, found: float
) -> None:
    answers, order = iter(slopes[1:]), list[tuple[str, bool]]()

    def make(name: str) -> Any:
        def gradient(point: Any, again: bool) -> Any:
            order.append((name, again))
            return value, {"w": np.array([1.0, next(answers)])}, []

        return gradient

    keeping = Path("kept", make("k"))  # type: ignore[arg-type]
    path = Path("plain", make("p"), keeping)  # type: ignore[arg-type]
    given = Followed(path, value, {"w": np.array([1.0, slopes[0]])})
    result = keep_finite(given, {})
    assert result.slopes["w"][1] == found
    assert "".join(name for name, _ in order) == asked
    assert [again for _, again in order] == [False, True, True][: len(asked)]
    finite = bool(np.isfinite(found)) and bool(asked)
    assert result.path is (keeping if finite and asked[-1] == "k" else path)
    assert result.keeps_zeros is (finite and asked[-1] == "k")
    alone = given._replace(path=path._replace(keeping=None))
    assert keep_finite(alone, {}) is alone


@pytest.mark.parametrize(
    ("outcomes", "only"), [([()], True), ([(1,)], False), ([(), ()], False), ([], False)]
)
def test_every_point_takes_the_only_path_without_decisions(outcomes: list[Any], only: bool) -> None:
    known: list[Any] = [Path(SimpleNamespace(outcomes=each), None) for each in outcomes]  # type: ignore[arg-type]
    assert find_only(known) is (known[0] if only else None)
