"""How far a gradient that is stated in the place of autodiff's is from the true one."""

from collections.abc import Iterator, Sequence

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.reference.stated_pullbacks import StatedPullback


def describe_approximation(every: Sequence[KernelCalls], found: Sequence[Found]) -> Iterator[str]:
    """Describe the distance of a stated gradient from the true one, over all cases."""
    parts: dict[str, list[tuple[float, float, float]]] = {}
    for each in found:
        stated = every[each.case.setting].pullback
        if not isinstance(stated, StatedPullback):
            return
        at = [each.case.point], [each.case.cotangents]
        approximate, true = stated.pull_back(*at).gradients, stated.true.pull_back(*at).gradients
        for name, value in true.items():
            a, b = approximate[name].ravel(), value.ravel()
            parts.setdefault(name, []).append((float(a @ a), float(a @ b), float(b @ b)))
    sums = {name: np.sum(products, axis=0) for name, products in parts.items()}
    said = "; ".join(f"{name}: {describe_distance(*each)}" for name, each in sums.items())
    yield (
        "The submission is judged against the stated gradient. Compared with the true gradient, "
        f"the stated one has, for {said}."
    )


def describe_distance(square: float, product: float, true: float) -> str:
    """Describe a distance by the squares of both gradients and their product."""
    if true == 0:
        return "no measure, since the true gradient is zero"
    error = max(0.0, square - 2 * product + true) ** 0.5 / true**0.5
    cosine = product / (square * true) ** 0.5 if square > 0 else 0.0
    return f"relative error {error:.2g} and cosine {cosine:.3g}"
