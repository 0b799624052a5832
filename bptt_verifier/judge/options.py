"""Options of the entry points, typed by name, for the functions that pass them on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from bptt_verifier.judge.conclusion import Progress


class CommonOptions(TypedDict, total=False):
    """The options of all entry points."""

    seed: int
    subject: str | None


class SearchOptions(CommonOptions, total=False):
    """The options of the entry points that search for the name of a mistake for long."""

    timeout: float | None
    progress: Progress


class DerivationOptions(SearchOptions, total=False):
    """The options of `verify`."""

    model: str
    activation: str
    reset: str
    loss: str
    bias: bool
    sizes: Iterable[Mapping[str, int]]
    examples: int
    workers: int


class OwnModelOptions(SearchOptions, total=False):
    """The options of `verify_own_model`."""

    cases: int


class KernelOptions(CommonOptions, total=False):
    """The options of `verify_transpose`, and of all functions that verify a kernel."""

    cases: int


class PullbackOptions(KernelOptions, total=False):
    """The options of `verify_vjp`."""

    cotangents: Any
    reference: Callable[[Any, Any], Any] | None


class DirectionOptions(KernelOptions, total=False):
    """The options of `verify_jvp` and `verify_hvp`."""

    direction: Any


class SessionOptions(DerivationOptions, OwnModelOptions):
    """The options of `verify_here`, which verifies either."""
