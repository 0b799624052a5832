"""Optional packages, and the error that says how to install one that is missing."""

from functools import partial
from importlib.util import find_spec


class MissingExtra(ImportError):  # noqa: N818 - names what is missing, not the error
    """A package that a feature needs is not installed; the message says how to install it."""

    def __init__(self, feature: str, remedy: str) -> None:
        super().__init__(f"{feature}: {remedy}")
        self.feature, self.remedy = feature, remedy


def require(module: str, package: str, feature: str, extra: str) -> None:
    """Raise MissingExtra, in one line that names the extra to install, unless the module exists."""
    if find_spec(module) is None:
        remedy = f"expected {package}, found none: pip install 'verified-bptt[{extra}]'"
        raise MissingExtra(feature, remedy)


# Exact numbers need python-flint, symbolic proofs SymPy, and the strategies Hypothesis.
require_flint = partial(require, "flint", "python-flint", "certify", "certify")
require_sympy = partial(require, "sympy", "SymPy", "certify", "certify")
require_hypothesis = partial(require, "hypothesis", "Hypothesis", "strategies", "test")
