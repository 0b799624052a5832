"""Names of what is wrong with a kernel's gradients."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge import kernel_operations, vjp
from bptt_verifier.report import Mistake
from tests.support.kernel_gallery import GALLERY
from tests.support.kernels import backward_of, draw_rnn, rnn, within


def change_W(change: Any) -> Any:
    """Change the gradient of W."""
    return lambda found: [*found[:2], change(found[2])]


def without(place: Any) -> Any:
    """Change the gradient of x: zeros at a place."""

    def change(found: Any) -> Any:
        found[0][place] = 0
        return found

    return change


WRONG = {
    "zero": (change_W(np.zeros_like), "zero-gradient", "every entry is zero"),
    "sign": (change_W(np.negative), "sign-flipped", "the sign is wrong"),
    "factor": (change_W(lambda g: 1.5 * g), "constant-factor", "1.5 times what it should be"),
    "transposed": (change_W(np.transpose), "transposed-gradient", "it is transposed"),
    "early steps": (without(slice(0, 2)), "wrong-range", "at indices 0 to 1"),
    "one sequence": (without((slice(None), 2)), "wrong-index", "at index 2, the last of axis 1"),
}


@pytest.mark.table(12)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("change", "name", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_one_gradient_is_named_or_placed(
    change: Any, name: str, said: str, dtype: Any
) -> None:
    backward = backward_of(within(rnn, np.float32), change)
    report = verify_vjp(backward, rnn, draw_rnn(dtype), cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == name, report
    assert said in mistake.explanation


def test_entries_beyond_the_lengths_are_told_from_steps() -> None:
    lengths = np.array([4, 2, 3])

    def forward(x: Any, lengths: Any) -> Any:
        inside = jnp.arange(4)[:, None] < lengths
        return jnp.where(inside[:, :, None], jnp.sin(x), 0)

    def backward(arguments: Any, d: Any) -> Any:
        return d * np.cos(arguments[0]), None

    x = draw_rnn(np.float32)[0]
    report = verify_vjp(backward, forward, [(x, lengths), (x, np.array([1, 4, 2]))], cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "wrong-beyond-length"
    assert "beyond lengths" in mistake.explanation


def test_sizes_that_no_tile_divides_are_named() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        found = d * np.cos(arguments[0])
        found[len(found) // 16 * 16 :] = 0
        return (found,)

    settings = [(np.linspace(1, 2, n),) for n in (16, 19, 32)]
    sizes, place = verify_vjp(backward, jnp.sin, settings, cases=1).mistakes
    assert sizes.name == "wrong-at-other-sizes"
    assert "multiple of 16 (16, 32), and wrong where it is not (19)" in sizes.explanation
    assert place.name == "wrong-last-tile"


def test_the_report_shows_the_worst_row_and_a_map() -> None:
    backward = backward_of(rnn, without((1, 2)))
    report = verify_vjp(backward, rnn, draw_rnn(np.float32), cases=1)
    example = report.counterexample
    assert example is not None
    assert "row [1, 2] of x" in example.sizes
    assert example.yours == [0, 0]
    assert np.argwhere(np.array(example.error_over_bound) > 1).tolist() == [[1, 2]]
    assert 'class="heat-' in report.to_html()
    assert "Reproduce: verify_vjp" in str(report)


@pytest.mark.rest
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_a_state_off_by_one_step_is_no_factor_although_the_states_are_alike(dtype: Any) -> None:
    exhibit = GALLERY["a linear recurrence in chunks"]
    given = tuple(each[:6] for each in exhibit.draw(dtype))

    def backward(arguments: Any, d: Any) -> Any:
        a, x = (each.astype(np.float64) for each in arguments)
        dx = np.asarray(exhibit.right()((a, x), d.astype(np.float64))[1])
        h = [x[0]]
        for t in range(1, len(x)):
            h.append(a[t] * h[-1] + x[t])
        return (dx * np.stack(h)).astype(dtype), dx.astype(dtype)

    report = verify_vjp(backward, exhibit.forward, given, cases=1)
    (mistake,) = report.mistakes
    assert mistake.name == "hidden-state-off-by-one"


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_a_mistake_in_an_operation_is_named_in_16_bits(dtype: Any) -> None:
    def forward(x: Any, w: Any) -> Any:
        return jnp.tanh(x * w) + x

    def backward(arguments: Any, d: Any) -> Any:
        x, w, d = (each.astype(np.float32) for each in (*arguments, d))
        return (d * w + d).astype(dtype), (d * x).astype(dtype)

    rng = np.random.default_rng(0)
    given = tuple(rng.uniform(0.5, 1.5, 12).astype(dtype) for _ in range(2))
    (mistake,) = verify_vjp(backward, forward, given, cases=1).mistakes
    assert mistake.name == "activation-derivative-missing"
    assert "`jnp.tanh(x * w)`" in mistake.explanation


def test_no_operation_of_the_judges_own_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        return (d * np.cos(arguments[0]) ** 3,)

    for file, name in ((kernel_operations.__file__, "unknown"), ("mine.py", "factor-missing")):
        found = (Mistake("factor-missing", "at a product.", {"file_line": f"{file}:1"}),)
        monkeypatch.setattr(kernel_operations, "find_single_mistake", lambda *_, f=found: f)
        report = verify_vjp(backward, jnp.sin, (draw_rnn(np.float64)[0],), cases=1)
        assert report.mistakes[0].name == name


@pytest.mark.parametrize(
    ("seconds", "name"), [(10.0, "activation-derivative-missing"), (0.0, "unknown")]
)
def test_the_report_says_where_the_search_for_a_name_was_cut_short(
    monkeypatch: pytest.MonkeyPatch, seconds: float, name: str
) -> None:
    monkeypatch.setattr(vjp, "SECONDS", seconds)
    prepared, prepare = list[Any](), kernel_operations.prepare_search

    def note(*given: Any) -> Any:
        prepared.append(given)
        return prepare(*given)

    monkeypatch.setattr(kernel_operations, "prepare_search", note)

    def backward(arguments: Any, d: Any) -> Any:
        a, b = arguments
        return b * d, a * d  # without the slope of the sine

    rng = np.random.default_rng(0)
    given = tuple(rng.normal(size=5) for _ in range(2))
    report = verify_vjp(backward, lambda a, b: jnp.sin(a * b), given, cases=1)
    assert report.verdict is Verdict.DISAGREES
    assert {mistake.name for mistake in report.mistakes} == {name}
    said = [each for each in report.notes if "ended after its limit of 0 s" in each]
    assert len(said) == (name == "unknown")
    assert len(prepared) == 2 * (name != "unknown")  # that takes time as well
