"""The judge: compares derivations with autodiff, says where and why they differ.

Knows both witnesses; neither knows it. Also the command line, `bptt`.
"""

from typing import Any

from bptt_verifier.judge.directions import (
    assert_hvp_verified,
    assert_jvp_verified,
    verify_hvp,
    verify_jvp,
)
from bptt_verifier.judge.session import verify_here
from bptt_verifier.judge.transposes import assert_transpose_verified, verify_transpose
from bptt_verifier.judge.verify import (
    assert_own_model_verified,
    assert_verified,
    verify,
    verify_own_model,
)
from bptt_verifier.judge.vjp import assert_vjp_verified, verify_vjp
from bptt_verifier.report import DerivationError, Report
from bptt_verifier.tolerance.comparison import Verdict

__all__ = [
    "DerivationError",
    "Report",
    "Verdict",
    "assert_hvp_verified",
    "assert_jvp_verified",
    "assert_own_model_verified",
    "assert_transpose_verified",
    "assert_verified",
    "assert_vjp_verified",
    "certify",
    "verify",
    "verify_here",
    "verify_hvp",
    "verify_jvp",
    "verify_own_model",
    "verify_transpose",
    "verify_vjp",
]


def __getattr__(name: str) -> Any:
    """`certify`, which needs the extra of that name, and is imported where it is asked for."""
    if name == "certify":
        from bptt_verifier.proofs.enclosures import certify  # noqa: PLC0415

        return certify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
