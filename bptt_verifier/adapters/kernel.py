"""A kernel: its backward, and its own forward values if it has them."""

from collections.abc import Callable
from typing import Any, NamedTuple


class UnwrittenOutputError(ValueError):
    """A kernel left entries of an output buffer unwritten."""


class SignatureError(ValueError):
    """A signature of a C function cannot be read, or does not fit the arrays."""


class Kernel(NamedTuple):
    """A kernel as `verify_vjp` takes it.

    `backward(arguments, cotangents)` returns the gradients in the structure of the arguments, and
    `values(arguments)` the kernel's own outputs, which are compared first. Reports have its `name`.
    """

    backward: Callable[[Any, Any], Any]
    values: Callable[[Any], Any] | None = None
    name: str = "your kernel"

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        """Pull cotangents back."""
        return self.backward(arguments, cotangents)
