"""The precision that a kernel evidently computes in, and what its noise leaves to be seen."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_formats import describe_formats
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.projections import Measurement
from bptt_verifier.tolerance.sizes import find_sizes, root_mean_square

MOST = 0.9  # of the entries have the resolution that is stated for a single one
TINY = 2.0**-1074  # no number of float64 is smaller, but zero


def describe_kernel_precision(
    every: Sequence[KernelCalls], found: Sequence[Found]
) -> Iterator[str]:
    """Describe what errors would have been seen, and the precision at work inside.

    The precision is that of a kernel that is right at all cases.
    """
    right = [each for each in found if not each.wrong]
    right = [each._replace(gradients=select_testable(each.gradients)) for each in right]
    right = [each for each in right if each.gradients]
    if not right:
        return
    # What is wrong elsewhere may scatter here as rounding in a coarser format does.
    all_right = not any(each.wrong for each in found)
    if all_right:
        yield from describe_formats(every, right)
    yield describe_resolution(right)
    if not all_right:
        return
    explained = dict.fromkeys(n for each in right for n, m in each.gradients.items() if m.explained)
    if explained:
        yield (
            f"Single parts of the gradients for {', '.join(explained)} err by more than rounding "
            "the results explains, and by no more than rounding every operation of the stated "
            "function to 16 bits does."
        )
    unsure = {n for each in right for n in each.unsure & {*each.gradients}}
    doubted = [name for name in explained if name in unsure]
    if doubted:
        yield (
            f"The kernel shows no such rounding elsewhere in the gradients for "
            f"{', '.join(doubted)}, or only another formula would lose these parts: they may be "
            "wrong."
        )
    ratios = [m.noise.of_rounding for each in right for m in each.gradients.values()]
    known = [ratio for ratio in ratios if ratio > 0]
    if known:
        yield (
            f"The errors of the gradients are {np.median(known):.2g} times those of rounding the "
            f"exact gradients once (root mean square; {min(known):.2g} to {max(known):.2g})."
        )


def select_testable(gradients: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Select the gradients that are not zero to rounding, whose noise says nothing."""
    return {name: each for name, each in gradients.items() if np.isfinite(each.resolution)}


def describe_resolution(found: Sequence[Found]) -> str:
    """Describe the errors of a gradient that would have been seen.

    An error in proportion to a gradient shows in its projection. In any other direction, one whose
    squares sum to more than those of all entries' limits exceeds the limit of an entry.
    """
    wholes, others, entries = dict[str, float](), dict[str, float](), dict[str, float]()
    hidden = 0.0
    for each in found:
        for name, measured in each.gradients.items():
            size = max(root_mean_square(each.exact[name]), TINY)
            hidden = max(hidden, measure_hidden(measured, each.exact[name]))
            for known, value in (
                (wholes, measured.resolution),
                (others, root_mean_square(measured.limit) / size),
                (entries, float(np.quantile(measured.limit, MOST)) / size),
            ):
                known[name] = min(known.get(name, np.inf), value)
    finite = {name: value for name, value in wholes.items() if np.isfinite(value)}
    if not finite:
        return "No error would have been seen: the gradients are zero."
    blind = [name for name, value in finite.items() if value >= 1]
    seen = {name: value for name, value in finite.items() if value < 1}
    said = []
    if seen:
        worst = max(seen, key=lambda name: seen[name])
        sharper = "; the others are sharper" if len(seen) > 1 else ""
        other, entry = (max(known[name] for name in seen) for known in (others, entries))
        said.append(
            "These errors would have been seen: one in proportion to a gradient, such as a factor "
            f"on all of it, above {format_share(seen[worst])} (of {worst}{sharper}); one in any "
            f"other direction {format_limit(other)}; and one of a single entry, in nine of ten, "
            f"{format_limit(entry)}, relative to its gradient (root mean square)."
        )
    if blind:
        said.append(
            f"No error of the gradient{'s'[: len(blind) > 1]} for {', '.join(blind)} as large as "
            "the gradient itself would have been seen."
        )
    if hidden:
        said.append(
            f"Up to {format_share(hidden)} of the entries of a gradient are so small beside the "
            "others that an error of their own size in one of them would not have been seen."
        )
    return " ".join(said)


def format_limit(value: float) -> str:
    """Format from which size an error is seen, relative to a gradient."""
    return f"above {format_share(value)}" if value < 1 else "only if it is as large as the gradient"


def measure_hidden(measured: Measurement, exact: Array) -> float:
    """Measure the share of entries, other than zeros, whose loss alone would not be seen."""
    sizes = find_sizes(exact)
    hidden = (measured.visible >= sizes)[sizes > 0]
    return float(hidden.mean()) if hidden.size else 0.0


def format_share(value: float) -> str:
    """Format a relative error, in per cent where that reads well."""
    return f"{float(f'{100 * value:.2g}'):g} %" if value >= 1e-4 else f"{value:.1e}"
