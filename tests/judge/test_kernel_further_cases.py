"""Further cases decide what the first ones leave open, for right kernels in 16 bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge import kernel_comparisons, kernel_path
from tests.support.kernels import backward_of

BFLOAT16: Any = jnp.bfloat16


def attend(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T, -1) @ v


def gate(x: Any, W: Any) -> Any:
    return jax.nn.sigmoid(x @ W) * jnp.tanh(x)


def draw(*shapes: tuple[int, int], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return tuple((3 * rng.normal(size=shape)).astype(BFLOAT16) for shape in shapes)


ATTENTION, GATE = ((6, 5),) * 3, ((4, 4),) * 2


@pytest.mark.parametrize("seed", [0, 2])
def test_a_steep_softmax_in_bfloat16_agrees_at_further_cases(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = draw(*ATTENTION, seed=seed)
    report = verify_vjp(backward_of(attend), attend, given, seed=seed)
    assert report.verdict is Verdict.AGREES, report
    assert report.cases > 3
    monkeypatch.setattr(kernel_path, "FURTHER", 0)
    report = verify_vjp(backward_of(attend), attend, given, seed=seed)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.cases == 3


def test_saturated_gates_show_rounding_inside_at_all_cases_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = draw(*GATE, seed=2)
    report = verify_vjp(backward_of(gate), gate, given, seed=2)
    assert report.verdict is Verdict.AGREES, report
    monkeypatch.setattr(kernel_path, "settle_doubts", lambda found: [*found])
    report = verify_vjp(backward_of(gate), gate, given, seed=2)
    assert report.verdict is Verdict.INCONCLUSIVE, report


@pytest.mark.parametrize("factor", [0, -1, 1.5])
def test_a_kernel_that_rounds_its_results_alone_is_not_excused_at_further_cases(
    factor: float,
) -> None:
    """A wrong slope where σ is saturated, which rounding every operation would explain."""

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = (np.asarray(each, np.float32) for each in arguments)
        slope = 1 / np.cosh(x) ** 2
        found = np.asarray(d, np.float32) * np.where(np.abs(x) > 2.3, factor * slope, slope)
        return (found.astype(BFLOAT16),)

    x = np.append(np.linspace(-1, 1, 20), [2.4, 2.6, -2.5]).astype(BFLOAT16)
    report = verify_vjp(backward, jnp.tanh, (x,))
    assert report.verdict is not Verdict.AGREES, report


def test_a_case_with_enough_evidence_settles_another(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: Any = type("Measured", (), {"wrong": False, "_replace": lambda self, **_: self})()

    def make(shares: Any) -> Any:
        doubt = kernel_comparisons.ShownRounding(np.array(shares), 2.0**-4, lambda share: measured)
        empty: Any = {}
        return kernel_comparisons.Found(
            empty, {}, {}, {"x": measured}, {}, frozenset("x"), doubts={"x": doubt}
        )

    few, more = make([0.5, 0.5]), make([0.5, 0.5, 0.5])
    assert [each.unsure for each in kernel_comparisons.settle_doubts([few])] == [{"x"}]
    settled = kernel_comparisons.settle_doubts([few, more])
    assert [each.unsure for each in settled] == [frozenset(), frozenset()]
    none = kernel_comparisons.settle_doubts([few, make([0, 0, 0.5])])
    assert [each.unsure for each in none] == [{"x"}, {"x"}]
