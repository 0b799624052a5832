"""Reports: a verdict as data, and its renderings as text, page and plain values."""

from bptt_verifier.report.report import (
    Counterexample,
    Curve,
    Decision,
    DerivationError,
    Mistake,
    ParameterResult,
    Report,
    StepResult,
    nine_digits,
)

__all__ = [
    "Counterexample",
    "Curve",
    "Decision",
    "DerivationError",
    "Mistake",
    "ParameterResult",
    "Report",
    "StepResult",
    "nine_digits",
]
