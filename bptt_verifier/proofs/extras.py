"""What only some features need, and how to install it."""

from importlib.util import find_spec


class MissingExtra(ImportError):  # noqa: N818 - what it is
    """A feature was asked for whose packages are not installed; the message says how."""


def require_flint() -> None:
    """Raises MissingExtra where python-flint, which only the certificates need, is missing."""
    require("flint", "python-flint")


def require_sympy() -> None:
    """Raises MissingExtra where SymPy, which only the certificates need, is missing."""
    require("sympy", "SymPy")


def require(module: str, name: str) -> None:
    """Raises MissingExtra, with one line that says how to install it."""
    if find_spec(module) is None:
        raise MissingExtra(
            f"certify: expected {name}, found none: pip install 'verified-bptt[certify]'"
        )
