"""Cases whose true values and allowed errors a test states, programs and a subject likewise."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Breach, Call, Expected
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import compare


def state_case(
    values: dict[str, Any], allowed: dict[str, Any], arguments: dict[str, Any] | None = None
) -> Case:
    """A case with these true values and allowed errors in every format."""
    known = Truth(*({n: np.asarray(v) for n, v in each.items()} for each in (values, allowed)))
    given = {"w": np.ones(2)} if arguments is None else arguments
    return Case("a case", given, 0, lambda dtype, names: known)


def state_operation(
    name: str, inputs: tuple[int, ...] = (0,), outputs: tuple[int, ...] = (1,)
) -> Any:
    """An operation of this name, from slots to slots."""
    return SimpleNamespace(name=name, inputs=inputs, outputs=outputs, where=())


def state_program(*operations: Any, constants: Any = (), result: int = 1) -> Any:
    """A program whose parameter `w` is slot 0, with these slots as constants and loss."""
    return SimpleNamespace(
        operations=operations, leaves={"w": 0}, constants=dict.fromkeys(constants), result=result,
        decided=(),
    )  # fmt: skip


def state_subject(case: Case, **more: Any) -> Any:
    """A subject that calls `gradients(w)` and reads the results that the case has."""
    assert case.truth is not None
    shapes = {n: v.shape for n, v in case.truth(np.float64, ()).values.items()}

    def call(case: Case, copy: Any = None) -> Call:
        given = {name: value.copy() for name, value in case.arguments.items()}
        return Call((given["w"],), {}, lambda: given)

    def name_model_of_loss(case: Case, value: float) -> str:
        return f" It is the loss {value}."

    return SimpleNamespace(
        call=call, expect=lambda case: Expected((), {}, shapes, np.float64), refusal="it differs",
        stated="the model", name_model_of_loss=name_model_of_loss, has_vanishing_steps=False,
        widen=lambda case: None, **more,
    )  # fmt: skip


def state_compared(
    submitted: dict[str, Any], values: dict[str, Any], allowed: dict[str, Any], dtype: Any = float
) -> Compared:
    """The comparison of these results with these true values and allowed errors."""
    arrays: list[dict[str, Array]] = [
        {name: np.asarray(value) for name, value in each.items()}
        for each in (submitted, values, allowed)
    ]
    found, true, limits = arrays
    comparisons = [compare(name, found[name], true[name], limits[name]) for name in found]
    case = state_case(values, allowed)
    return Compared(case, found, dict.fromkeys(found, np.dtype(dtype)), true, limits, comparisons)


def state_overflow(dtype: Any, label: str, *notes: str) -> Breach:
    """A breach by a result in this format that is not finite at the case of this label."""
    return Breach(Mistake("not-finite", label, {}), (f"With {label}.", *notes), dtype)


FACTOR = Mistake(
    "constant-factor", "in ∂L/∂a, every entry is 1.5 times what it should be.",
    {"gradients": ["a"], "factor": "1.5", "value": 1.5},
)  # fmt: skip

CASE_OF_ONES = state_case({"w": np.ones(2)}, {"w": np.ones(2)})


def subject_with_neighbours() -> Any:
    """A subject whose neighbours have their number and distance as the point."""
    return state_subject(CASE_OF_ONES, displace=lambda case, i, far: case._replace(point=(i, far)))


def attempt_with(
    near: Callable[[int, float], Any], here: Any, allowed: Any, dtype: Any = float
) -> Callable[..., Compared]:
    """A call whose true results are ones, and whose errors are these at neighbours and here."""
    ones = {"w": np.ones(np.shape(here))}

    def attempt(case: Any) -> Compared:
        error = here if case.point == 0 else near(*case.point)
        return state_compared({"w": 1 + error}, ones, {"w": allowed}, dtype)

    return attempt
