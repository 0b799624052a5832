"""The gallery: right kernels agree in every precision, and wrong ones are named or placed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from tests.support.kernel_gallery import GALLERY

DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": jnp.bfloat16}
MISTAKES = [(kernel, mistake) for kernel, each in GALLERY.items() for mistake in each.mistakes]


@pytest.mark.parametrize("kernel", GALLERY)
def test_a_right_kernel_agrees(kernel: str) -> None:
    exhibit = GALLERY[kernel]
    report = verify_vjp(exhibit.right(), exhibit.forward, exhibit.draw(np.float32), cases=1)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.parametrize(("kernel", "mistake"), MISTAKES, ids=[each for _, each in MISTAKES])
def test_a_wrong_kernel_is_named_or_placed(kernel: str, mistake: str) -> None:
    exhibit = GALLERY[kernel]
    backward = exhibit.wrong(mistake)
    report = verify_vjp(backward, exhibit.forward, exhibit.draw(np.float32), cases=1)
    assert report.verdict is Verdict.DISAGREES, str(report)
    assert exhibit.mistakes[mistake] in " ".join(each.explanation for each in report.mistakes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kernel", GALLERY)
def test_the_gallery_is_judged_in_every_precision(kernel: str, dtype: Any) -> None:
    exhibit, arguments = GALLERY[kernel], GALLERY[kernel].draw(dtype)
    assert verify_vjp(exhibit.right(), exhibit.forward, arguments)
    for mistake in exhibit.mistakes:
        report = verify_vjp(exhibit.wrong(mistake), exhibit.forward, arguments)
        assert report.verdict is Verdict.DISAGREES, f"{mistake}: {report}"
