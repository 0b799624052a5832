"""Options of the entry points, typed by name, for the functions that pass them on."""

from collections.abc import Iterable, Mapping
from typing import TypedDict

from bptt_verifier.judge.conclusion import Progress


class SharedOptions(TypedDict, total=False):
    """The options of both `verify` and `verify_own_model`."""

    seed: int
    timeout: float | None
    progress: Progress
    subject: str | None


class DerivationOptions(SharedOptions, total=False):
    """The options of `verify`."""

    model: str
    activation: str
    reset: str
    loss: str
    bias: bool
    sizes: Iterable[Mapping[str, int]]
    examples: int


class OwnModelOptions(SharedOptions, total=False):
    """The options of `verify_own_model`."""

    cases: int


class SessionOptions(DerivationOptions, OwnModelOptions, total=False):
    """The options of `verify_here`, which verifies either."""
