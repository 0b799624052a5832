"""Further cases decide what the first ones leave open, for right kernels in 16 bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge import kernel_comparisons, kernel_path
from bptt_verifier.report import Mistake
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


@pytest.mark.rest
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


@pytest.mark.rest
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


@pytest.mark.parametrize("cases", [1, 3])
def test_a_gradient_is_looked_at_as_often_as_the_derivation_counts(
    cases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of N + 6 cases alone, and seven times all cases together."""

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = (np.asarray(each, np.float32) for each in arguments)
        slope = np.where(np.abs(x) > 2.3, 0, 1 / np.cosh(x) ** 2)
        return ((np.asarray(d, np.float32) * slope).astype(BFLOAT16),)

    looks = list[str]()
    for module, name in ((kernel_comparisons, "measure_at"), (kernel_path, "settle_doubts")):
        function = getattr(module, name)

        def count(*given: Any, function: Any = function, name: str = name, **options: Any) -> Any:
            looks.append(name)
            return function(*given, **options)

        monkeypatch.setattr(module, name, count)
    x = np.append(np.linspace(-1, 1, 20), 10 * [3.2]).astype(BFLOAT16)
    report = verify_vjp(backward, jnp.tanh, (x,), cases=cases)
    assert report.verdict is Verdict.INCONCLUSIVE, report
    assert (looks.count("measure_at"), looks.count("settle_doubts")) == (cases + 6, 7)


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


Further = tuple[Callable[..., Any], Any]


@pytest.fixture(scope="module")
def further() -> Further:
    """A right kernel that needs further cases, and a test of whether a point is one of these."""
    given, back, seen = draw(*ATTENTION, seed=0), backward_of(attend), list[Any]()

    def record(arguments: Any, d: Any) -> Any:
        seen.append(np.concatenate([np.ravel(np.asarray(x, np.float32)) for x in arguments]))
        return back(arguments, d)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_path, "FURTHER", 0)
        verify_vjp(record, attend, given)
    largest = np.max(seen, 0)
    seen.clear()
    assert verify_vjp(record, attend, given).cases > 3
    assert any((each > largest).any() for each in seen)

    def is_further(arguments: Any) -> bool:
        point = np.concatenate([np.ravel(np.asarray(x, np.float32)) for x in arguments])
        return bool((point > largest).any())

    return is_further, given


def refuse(arguments: Any) -> Any:
    raise RuntimeError("no memory")


@pytest.mark.parametrize(
    ("fail", "name"),
    [
        (lambda arguments: tuple(np.full_like(x, np.nan) for x in arguments), "not-finite"),
        (lambda arguments: None, "wrong-shape"),
        pytest.param(
            lambda arguments: (arguments[0][:1], *arguments[1:]), "wrong-shape", id="part"
        ),
        (refuse, "raised"),
    ],
)
def test_a_kernel_that_fails_at_a_further_case_disagrees(
    fail: Callable[[Any], Any], name: str, further: Further
) -> None:
    is_further, given = further
    right = backward_of(attend)

    def backward(arguments: Any, d: Any) -> Any:
        return fail(arguments) if is_further(arguments) else right(arguments, d)

    report = verify_vjp(backward, attend, given)
    assert report.verdict is Verdict.DISAGREES, report
    assert [mistake.name for mistake in report.mistakes] == [name]


def test_a_further_case_that_overflows_is_left_out_and_counted(
    further: Further, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, given = further
    compare = kernel_path.compare_kernel
    endless = Mistake("not-finite", "near overflow.", {kernel_comparisons.OVERFLOW: True})

    def compare_first(calls: Any, case: Any, *options: Any) -> Any:
        return endless if case.number > 2 else compare(calls, case, *options)

    monkeypatch.setattr(kernel_path, "compare_kernel", compare_first)
    report = verify_vjp(backward_of(attend), attend, given)
    assert report.verdict is Verdict.INCONCLUSIVE, report
    assert "Left out: case 4, case 5" in report.notes[0]
