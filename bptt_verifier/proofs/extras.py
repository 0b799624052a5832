"""Optional packages, and the error that says how to install one that is missing."""

from importlib.util import find_spec


class MissingExtra(ImportError):  # noqa: N818 - names what is missing, not the error
    """A package that a feature needs is not installed; the message says how to install it."""


def require_flint() -> None:
    """Raise MissingExtra unless python-flint, which exact numbers need, is installed."""
    require("flint", "python-flint", feature="certify", extra="certify")


def require_sympy() -> None:
    """Raise MissingExtra unless SymPy, which symbolic proofs need, is installed."""
    require("sympy", "SymPy", feature="certify", extra="certify")


def require_hypothesis() -> None:
    """Raise MissingExtra unless Hypothesis, which the strategies need, is installed."""
    require("hypothesis", "Hypothesis", feature="strategies", extra="test")


def require(module: str, package: str, *, feature: str, extra: str) -> None:
    """Raise MissingExtra, in one line that names the extra to install, unless the module exists."""
    if find_spec(module) is None:
        raise MissingExtra(
            f"{feature}: expected {package}, found none: pip install 'verified-bptt[{extra}]'"
        )
