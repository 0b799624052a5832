"""What the report says of a kernel's precision: the resolution, and the formats inside."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import verify_vjp
from bptt_verifier.judge.kernel_precision import format_share
from tests.support.kernels import (
    backward_of,
    draw_rnn,
    rnn,
    rnn_in_tf32,
    rnn_of_rounded_tanh,
    within,
)

SIXTEEN = "Sums or states inside are evidently rounded to 16 bits"
KERNELS = {
    "float64": (rnn, np.float64, ""),
    "float32": (rnn, np.float32, ""),
    "TF32 inside": (rnn_in_tf32, np.float32, "rounded to TF32 or float16 inside"),
    "bfloat16 inside": (within(rnn, jnp.bfloat16), np.float32, "rounded to bfloat16 inside"),
    "float32 inside": (
        within(rnn_of_rounded_tanh, np.float32),
        np.float64,
        "rounded to float32 inside",
    ),
    "sums in float32": (within(rnn, np.float32), jnp.bfloat16, ""),
    "bfloat16 throughout": (rnn, jnp.bfloat16, SIXTEEN),
    "float16 throughout": (rnn, np.float16, SIXTEEN),
}


@pytest.mark.table(4)
@pytest.mark.parametrize(("kernel", "dtype", "said"), KERNELS.values(), ids=KERNELS)
def test_the_precision_inside_is_stated_where_it_is_evident(
    kernel: Any, dtype: Any, said: str
) -> None:
    report = verify_vjp(backward_of(kernel), rnn, draw_rnn(dtype), cases=1)
    evident = [note for note in report.notes if "evidently" in note]
    assert len(evident) == bool(said), report
    assert report.notes[0].startswith(("Factors", "Sums") if said else "These errors")
    assert said in report.notes[0]
    assert "would have been seen" in report.notes[bool(said)]


def test_the_share_of_entries_that_are_too_small_to_be_judged_is_stated() -> None:
    scales = np.array([1e-3, 1e-3, 1, 1, 1, 1, 1, 1])

    def backward(arguments: Any, d: Any) -> Any:
        found = d.astype(np.float64) * scales * (np.arange(8) >= hidden)
        return (found.astype(jnp.bfloat16),)

    def forward(x: Any) -> Any:
        return x * scales

    x = np.linspace(1, 2, 8).astype(jnp.bfloat16)
    hidden = 2
    report = verify_vjp(backward, forward, (x,), cases=1)
    assert report, report
    assert "Up to 25 % of the entries of a gradient are so small" in " ".join(report.notes)
    hidden = 3
    assert not verify_vjp(backward, forward, (x,), cases=1)


def test_a_relative_error_reads_in_per_cent_or_as_a_power() -> None:
    assert [format_share(x) for x in (0.004, 1.2e-6)] == ["0.4 %", "1.2e-06"]
