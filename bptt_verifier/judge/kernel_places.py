"""Places of a kernel's wrong numbers: by argument, and by index along each axis."""

from collections.abc import Sequence

from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.report import Mistake


def locate(found: Sequence[Found]) -> tuple[Mistake, ...]:
    """Describe where a kernel's gradients are wrong."""
    wrong = list(dict.fromkeys(n for each in found for n, m in each.gradients.items() if m.wrong))
    said = f"the gradients for {', '.join(wrong)} are wrong by more than rounding explains."
    return (Mistake("unknown", said, {"gradients": wrong}),)
