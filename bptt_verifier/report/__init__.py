"""Reports: a verdict as data, and its renderings as text, HTML page and plain values."""

from bptt_verifier.report.findings import (
    Counterexample,
    Curve,
    Decision,
    Mistake,
    ParameterResult,
    Size,
    StepResult,
    nine_digits,
    shortest,
    write_count,
)
from bptt_verifier.report.report import DerivationError, Report

__all__ = [
    "Counterexample", "Curve", "Decision", "DerivationError", "Mistake", "ParameterResult",
    "Report", "Size", "StepResult", "nine_digits", "shortest", "write_count",
]  # fmt: skip
