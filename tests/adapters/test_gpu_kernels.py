"""Kernels that run on a GPU, right and wrong; without a GPU that PyTorch can use, none is run."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from bptt_verifier import Verdict
from tests.support.gpu_kernels import OnGpu, judge, list_kernels


def has_gpu() -> bool:
    """Tell whether PyTorch finds a GPU."""
    torch: Any = import_module("torch") if find_spec("torch") else None
    return torch is not None and torch.cuda.is_available()


KERNELS = [*list_kernels()] if has_gpu() else []


@pytest.mark.skipif(not KERNELS, reason="there is no GPU here")
@pytest.mark.parametrize("each", KERNELS, ids=lambda k: f"{k.kernel} {k.precision} {k.mistake}")
def test_a_kernel_of_a_gpu_is_judged_in_its_precision(each: OnGpu) -> None:
    report = judge(each)
    if not each.mistake:
        assert report.verdict is Verdict.AGREES, report
    else:
        assert report.verdict is not Verdict.AGREES, report
        names = {mistake.name for mistake in report.mistakes}
        assert each.mistake in names or report.verdict is Verdict.INCONCLUSIVE
