"""The judge: compares derivations with autodiff, says where and why they differ.

Knows both witnesses; neither knows it. Also the command line, `bptt`, and a plugin of pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from manual_bptt import __version__

if TYPE_CHECKING:
    from bptt_verifier.judge.session import verify_here
    from bptt_verifier.judge.verify import (
        assert_own_model_verified,
        assert_verified,
        verify,
        verify_own_model,
    )
    from bptt_verifier.judge.vjp import assert_vjp_verified, verify_vjp
    from bptt_verifier.proofs.enclosures import certify
    from bptt_verifier.report import DerivationError, Report
    from bptt_verifier.tolerance.comparison import Verdict

# Public names, by the module that has them.
MODULES = {
    "judge.session": ("verify_here",),
    "judge.verify": (
        "assert_own_model_verified", "assert_verified", "verify", "verify_own_model",
    ),
    "judge.vjp": ("assert_vjp_verified", "verify_vjp"),
    "proofs.enclosures": ("certify",),
    "report": ("DerivationError", "Report"),
    "tolerance.comparison": ("Verdict",),
}  # fmt: skip

__all__ = [
    "DerivationError",
    "Report",
    "Verdict",
    "__version__",
    "assert_own_model_verified",
    "assert_verified",
    "assert_vjp_verified",
    "certify",
    "verify",
    "verify_here",
    "verify_own_model",
    "verify_vjp",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is asked for.

    pytest imports this package at every start for its plugin, JAX takes a second, and `certify`
    needs the extra of that name.
    """
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
