"""Of a mistake that shows at some sizes alone, the right sizes are those where it would show."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify
from bptt_verifier.mistakes.cells import can_tell, find_failing_sizes
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.problems.problem import Sizes
from manual_bptt import rnn

TRUE = np.array([1.0, 0.5])


def witness(factor: float, allowed: float, steps: int = 2, fails: bool = False) -> Witness:
    """A case with a gradient of W that is this many times the true one."""
    point: Any = SimpleNamespace(sizes=Sizes(steps, 1, 1, 1, 1), first={})
    limits = {"W": np.full(2, allowed), "U": np.full(2, allowed)}
    return Witness(point, {"W": factor * TRUE, "U": TRUE}, {"W": TRUE, "U": TRUE}, limits, fails)


@pytest.mark.parametrize(
    ("error", "allowed", "tells"),
    [(0.0625, 0.05, True), (0.0625, 0.0625, False), (0.0625, 0.2, False), (1.0, 0.2, True)],
)
def test_a_case_can_tell_if_an_error_as_large_as_elsewhere_exceeds_what_is_allowed(
    error: float, allowed: float, tells: bool
) -> None:
    failing = witness(1 + error, 1e-9, fails=True)
    larger = witness(1 + 2 * error, 1e-9, fails=True)
    right = witness(1.0, allowed)
    assert can_tell(right, [larger, failing, right]) is tells
    assert can_tell(right, [failing, larger, right]) is tells
    assert can_tell(right, [right])  # where no error is known to be larger than what is allowed


def test_sizes_at_which_rounding_hides_the_mistake_are_not_called_right() -> None:
    failing, clear, hidden = (
        witness(1.05, 1e-9, 3, True), witness(1.0, 1e-9, 4), witness(1.0, 0.2, 5)
    )  # fmt: skip
    (found,) = find_failing_sizes([failing, clear, hidden])
    assert "wrong with T=3 " in found.explanation
    assert "right with T=4 " in found.explanation
    assert "T=5" not in found.explanation
    assert find_failing_sizes([failing, hidden]) == ()


@pytest.mark.rest
def test_a_factor_in_half_precision_is_not_said_to_be_right_at_some_sizes() -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        _, found = rnn.value_and_grad(rnn.Params(*params), x, y, h0)
        with np.errstate(over="ignore"):
            named = {n: getattr(found, n).astype(np.float16) for n in ("U", "V")}
            return named | {"W": (1.05 * found.W).astype(np.float16)}

    (mistake,) = verify(gradients, examples=30).mistakes
    assert "right with" not in mistake.explanation
