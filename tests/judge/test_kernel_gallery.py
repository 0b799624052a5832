"""The gallery: right kernels agree in every precision, and wrong ones are named or placed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.adapters import from_jax
from tests.support.kernel_gallery import GALLERY, make_custom_rnn
from tests.support.kernel_table import PRECISIONS, count_judged, share_cases
from tests.support.kernels import draw_rnn, rnn
from tests.support.tf32_arrays import TF32Array

DTYPES = {"bfloat16": jnp.bfloat16, "float64": np.float64, "float32": np.float32}
MISTAKES = [(kernel, mistake) for kernel, each in GALLERY.items() for mistake in each.mistakes]


@pytest.mark.table(3)
@pytest.mark.parametrize("kernel", GALLERY)
def test_a_right_kernel_agrees(kernel: str) -> None:
    exhibit = GALLERY[kernel]
    report = verify_vjp(exhibit.right(), exhibit.forward, exhibit.draw(np.float32), cases=1)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.table(10)
@pytest.mark.parametrize(("kernel", "mistake"), MISTAKES, ids=[each for _, each in MISTAKES])
def test_a_wrong_kernel_is_named_or_placed(kernel: str, mistake: str) -> None:
    exhibit = GALLERY[kernel]
    backward = exhibit.wrong(mistake)
    report = verify_vjp(backward, exhibit.forward, exhibit.draw(np.float32), cases=1)
    assert report.verdict is Verdict.DISAGREES, str(report)
    assert exhibit.mistakes[mistake] in " ".join(each.explanation for each in report.mistakes)


@pytest.mark.table(3)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_custom_vjp_rnn_is_right_and_its_mistakes_are_seen_in_three_precisions(
    dtype: Any,
) -> None:
    arguments = draw_rnn(dtype)
    states = lambda *given: rnn(*given)[0]  # noqa: E731
    for mistake in ("", "W is not transposed"):
        kernel = from_jax(make_custom_rnn(mistake), jit=True)
        assert bool(verify_vjp(kernel, states, arguments, cases=1)) is not bool(mistake)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kernel", GALLERY)
def test_the_gallery_is_judged_in_every_precision(kernel: str, dtype: Any) -> None:
    exhibit, arguments = GALLERY[kernel], GALLERY[kernel].draw(dtype)
    assert verify_vjp(exhibit.right(), exhibit.forward, arguments)
    for mistake in exhibit.mistakes:
        report = verify_vjp(exhibit.wrong(mistake), exhibit.forward, arguments)
        assert report.verdict is Verdict.DISAGREES, f"{mistake}: {report}"
        said = " ".join(each.explanation for each in report.mistakes)
        assert exhibit.mistakes[mistake] in said, f"{mistake}: {report}"


@pytest.mark.parametrize("cases", [4, 5, 1003])
def test_the_kernels_of_the_table_share_all_cases(cases: int) -> None:
    numbers = [number for _, number in share_cases(cases)]
    assert sum(numbers) == cases
    assert max(numbers) - min(numbers) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_right_case_of_a_thousand_is_called_wrong_and_one_per_cent_is_seen(
    precision: str,
) -> None:
    count = count_judged(PRECISIONS[precision], 1000)
    assert (count.alarms, count.right) == (0, 1000)
    if PRECISIONS[precision].kind is not TF32Array:  # whose resolution is about 1 %
        assert (count.seen, count.wrong) == (1000, 1000)


def test_products_of_arrays_in_tf32_round_their_factors_alone() -> None:
    a = np.array([[1 + 2.0**-12, 1]], np.float32).view(TF32Array)
    assert (a @ np.ones((2, 1), np.float32)).item() == 2
    assert (a * 1)[0, 0] == 1 + 2.0**-12
    assert isinstance(np.where(a > 0, a, 0), TF32Array)
