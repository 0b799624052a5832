"""The judge: compares derivations with autodiff, says where and why they differ.

Knows both witnesses; neither knows it. Also the command line, `bptt`, and a plugin of pytest.
"""

import os
import sys


def leave_folder() -> None:
    """Import nothing more from the current folder where `python -m bptt_verifier` starts here.

    Python puts that folder first on its path, and a `random.py` in it would replace the standard
    library's. It stays where the packages themselves are in it, and is not there with `-P`.
    """
    started = sys.argv[:1] == ["-m"] and any(
        each.removeprefix("-m").partition(".")[0] == __name__ for each in sys.orig_argv
    )
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if started and not sys.flags.safe_path and os.path.abspath(sys.path[0]) != own:
        del sys.path[0]


leave_folder()

from typing import TYPE_CHECKING, Any  # noqa: E402  # which a file of the user's may be called

from manual_bptt import __version__  # noqa: E402

if TYPE_CHECKING:
    from bptt_verifier.judge.directions import (
        assert_hvp_verified,
        assert_jvp_verified,
        verify_hvp,
        verify_jvp,
    )
    from bptt_verifier.judge.one_case import compare_case
    from bptt_verifier.judge.session import verify_here
    from bptt_verifier.judge.transposes import assert_transpose_verified, verify_transpose
    from bptt_verifier.judge.verify import (
        assert_own_model_verified,
        assert_verified,
        verify,
        verify_own_model,
    )
    from bptt_verifier.judge.vjp import assert_vjp_verified, verify_vjp
    from bptt_verifier.judge.weights import BiasedWeights, GruBiasedWeights, Weights
    from bptt_verifier.proofs.enclosures import certify
    from bptt_verifier.report import DerivationError, Report
    from bptt_verifier.tolerance.comparison import Verdict

__all__ = [
    "BiasedWeights",
    "DerivationError",
    "GruBiasedWeights",
    "Report",
    "Verdict",
    "Weights",
    "__version__",
    "assert_hvp_verified",
    "assert_jvp_verified",
    "assert_own_model_verified",
    "assert_transpose_verified",
    "assert_verified",
    "assert_vjp_verified",
    "certify",
    "compare_case",
    "verify",
    "verify_here",
    "verify_hvp",
    "verify_jvp",
    "verify_own_model",
    "verify_transpose",
    "verify_vjp",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is asked for.

    pytest imports this package at every start for its plugin, JAX takes a second, and `certify`
    needs the extra of that name.
    """
    module: Any
    match name:
        case "DerivationError" | "Report":
            from bptt_verifier import report as module  # noqa: PLC0415
        case "Verdict":
            from bptt_verifier.tolerance import comparison as module  # noqa: PLC0415
        case "certify":
            from bptt_verifier.proofs import enclosures as module  # noqa: PLC0415
        case "compare_case":
            from bptt_verifier.judge import one_case as module  # noqa: PLC0415
        case "BiasedWeights" | "GruBiasedWeights" | "Weights":
            from bptt_verifier.judge import weights as module  # noqa: PLC0415
        case "verify_here":
            from bptt_verifier.judge import session as module  # noqa: PLC0415
        case "assert_vjp_verified" | "verify_vjp":
            from bptt_verifier.judge import vjp as module  # noqa: PLC0415
        case "assert_hvp_verified" | "assert_jvp_verified" | "verify_hvp" | "verify_jvp":
            from bptt_verifier.judge import directions as module  # noqa: PLC0415
        case "assert_transpose_verified" | "verify_transpose":
            from bptt_verifier.judge import transposes as module  # noqa: PLC0415
        case _ if name in __all__:
            from bptt_verifier.judge import verify as module  # noqa: PLC0415
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
