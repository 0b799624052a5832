"""Preparation of the pull-back of a function at some arguments."""

from typing import Any

from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference.pullbacks import prepare_pullback


def prepare(forward: Any, *given: Any) -> Any:
    """Prepare the pull-back of a function at these arguments."""
    (setting,) = read_settings(given, forward)
    return prepare_pullback(forward, setting)
