"""What is wrong with a kernel's gradients: names for single gradients, places, and sizes."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_axes import is_time_axis
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_explanations import (
    contradicts,
    describe_changing_factor,
    explains,
    explains_numbers,
    is_one_number,
    list_explanations,
)
from bptt_verifier.judge.kernel_half_places import hides_place, list_half_places
from bptt_verifier.judge.kernel_places import (
    TILES,
    WrongIndices,
    describe_indices,
    find_beyond_length,
    list_places,
    select_telling,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.pullbacks import Pullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.sizes import root_mean_square

# Right and wrong settings differ by chance in whether 2 or 4 divides a size.
SMALLEST_TILE = 8
OF_WHOLE = frozenset("zero-gradient sign-flipped constant-factor transposed-gradient".split())


def diagnose_kernel(every: Sequence[KernelCalls], found: Sequence[Found]) -> tuple[Mistake, ...]:
    """Name what is wrong with a kernel's gradients, or say where it is wrong."""
    wrong = list(dict.fromkeys(name for each in found for name in each.wrong))
    mistakes: dict[tuple[str, str], list[str]] = {}
    for name in wrong:
        kind, said = name_gradient(name, separate_cases(name, found), every)
        if kind in OF_WHOLE and (where := describe_settings(name, found)):
            kind, said = "wrong-at-other-sizes", f"{said} in {where}"
        mistakes.setdefault((kind, said), []).append(name)
    sizes = find_wrong_sizes(every, found)
    named = (
        Mistake(kind, f"in the gradient{'s'[: len(names) > 1]} for {', '.join(names)}, {said}.",
                {"gradients": names})
        for (kind, said), names in mistakes.items()
    )  # fmt: skip
    return (*filter(None, [sizes]), *named)


class Cases(NamedTuple):
    """The cases of one gradient, at the neighbours nearest to each point.

    It is `wrong` in some, and not found wrong in `others` of the same settings. `further` are the
    neighbours further away of a wrong gradient of one number: near a point, any error is a factor.
    """

    wrong: Sequence[Found]
    others: Sequence[Found] = ()
    further: Sequence[Found] = ()


def separate_cases(name: str, found: Sequence[Found]) -> Cases:
    """Separate the cases in which a gradient is wrong from the others of these settings."""
    wrong = [each for each in found if name in each.wrong]
    settings = {each.case.setting for each in wrong}
    others = [
        each.nearest
        for each in found
        if each.case.setting in settings and name not in each.wrong and name in each.gradients
    ]
    further = [each for each in wrong if each.near is not None and is_one_number(each.exact[name])]
    return Cases([each.nearest for each in wrong], others, further)


def name_gradient(name: str, known: Cases, every: Sequence[KernelCalls]) -> tuple[str, str]:
    """Name what is wrong with one gradient in these cases: a name, and a sentence's end.

    `every` are the calls of all settings.
    """
    cases = known.wrong
    for kind, said, change in list_explanations(name, cases):
        if all(explains(each, name, change) for each in cases) and not any(
            contradicts(each, name, change) for each in (*known.others, *known.further)
        ):
            return kind, said
    noise = max(each.noisy.get(name, 0.0) for each in cases)
    if noise:
        return "noise-beyond-rounding", describe_noise(cases)
    changing = describe_changing_factor(name, cases, known.others)
    if changing:
        return "unknown", changing
    given = [every[each.case.setting].arguments for each in cases]
    arrays = [{**each.data, **each.leaves} for each in given]
    lengths = {find_beyond_length(*each, name) for each in zip(cases, arrays, strict=True)}
    if len(lengths) == 1 and "" not in lengths:
        return "wrong-beyond-length", f"entries beyond {lengths.pop()} alone are wrong"
    if is_one_number(cases[0].exact[name]):
        return "unknown", f"its one entry is wrong{describe_share(name, cases, [])}"
    for alike in group_by_shape(name, cases):
        places = find_common_places(name, alike) or find_half_places(name, alike)
        if places:
            kind = max(places, key=lambda each: ("tile" in each.name, len(each.indices) < 2)).name
            pullback = every[alike[0].case.setting].pullback
            where = " and ".join(
                each.said + describe_first(each, name, alike[0], pullback) for each in places
            )
            return kind, f"entries are wrong {where}{describe_share(name, alike, places)}"
        zeros = describe_misplaced_zeros(name, cases)
        if zeros:
            return "unknown", zeros
        empty = find_zero_indices(alike[0], name)
        if empty is not None:
            kind = empty.name if "tile" in empty.name else "unknown"
            return kind, f"entries are zero {empty.said}, and others are wrong as well"
    where = "at no place that stands out"
    if any(hides_place(name, alike) for alike in group_by_shape(name, cases)):
        where = "and 16 bits are too few to tell where"
    return "unknown", f"entries are wrong {where}{describe_share(name, cases, [])}"


def describe_noise(cases: Sequence[Found]) -> str:
    """Describe noise of gradients that no rounding makes."""
    noise = max(each.gradients[name].noise.relative for each in cases for name in each.noisy)
    return (
        f"errors scatter by up to {noise:.2g} of its size (root mean square), and as much between "
        "arguments that differ in their last digits alone, where rounding scatters less in any "
        "format"
    )


def group_by_shape(name: str, cases: Sequence[Found]) -> list[list[Found]]:
    """Group cases by the shape of a gradient, the largest first, in which places show best."""
    groups: dict[tuple[int, ...], list[Found]] = {}
    for each in cases:
        groups.setdefault(each.exact[name].shape, []).append(each)
    return [groups[shape] for shape in sorted(groups, key=lambda shape: -prod(shape))]


def find_common_places(name: str, cases: Sequence[Found]) -> list[WrongIndices]:
    """Find the places at which a gradient is wrong in every case; all of them have one shape."""
    first, *others = ([*list_places(each.gradients[name])] for each in cases)
    common = [place for place in first if all(place in each for each in others)]
    return select_telling(common, cases[0].exact[name])


def find_half_places(name: str, cases: Sequence[Found]) -> list[WrongIndices]:
    """Find the places of a gradient in 16 bits as all cases together show them."""
    return select_telling(list_half_places(name, cases), cases[0].exact[name])


def describe_first(place: WrongIndices, name: str, found: Found, pullback: Pullback) -> str:
    """Describe which of the early steps a backward pass reaches first; empty for other places."""
    last = place.indices[-1]
    early = place.name == "wrong-range" and place.indices[0] == 0
    if not early or not is_time_axis(pullback, found.case, name, place.axis):
        return ""
    return f" (going backward, {last} is the first)"


def describe_settings(name: str, found: Sequence[Found]) -> str:
    """Describe the settings in which alone a gradient is wrong; empty if it is in all of them.

    Where it is zero to rounding, as that of W at T = 1, it is neither.
    """
    testable = [each for each in found if np.isfinite(each.gradients[name].resolution)]
    wrong = {each.case.setting for each in found if name in each.wrong}
    right = {each.case.setting for each in testable} - wrong
    if not right:
        return ""
    said = ("setting" if len(each) == 1 else "settings" for each in (wrong, right))
    of_wrong, of_right = (
        f"{word} {', '.join(str(k + 1) for k in sorted(each))}"
        for word, each in zip(said, (wrong, right), strict=True)
    )
    return f"{of_wrong}, and right in {of_right}"


def find_zero_indices(found: Found, name: str) -> WrongIndices | None:
    """Find indices on an axis at which a gradient is zero at all neighbours, and should not be."""
    submitted, exact = found.submitted[name] != 0, found.exact[name] != 0
    for axis in range(1, exact.ndim):
        others = tuple(i for i in range(exact.ndim) if i != axis)
        zero = ~submitted.any(axis=others) & exact.any(axis=others)
        indices = [int(i) for i in np.flatnonzero(zero)]
        if 0 < len(indices) < len(zero):
            kind, said = describe_indices(indices, len(zero))
            return WrongIndices(kind, f"{said} of axis {axis - 1}", axis - 1, tuple(indices))
    return None


def describe_misplaced_zeros(name: str, cases: Sequence[Found]) -> str:
    """Describe zeros that alone are wrong: those that are missing, or where none should be.

    Empty where others are wrong as well, or where there are none. They are counted in the first
    case, at any of its neighbours.
    """
    if not all(each.exact[name].any() for each in cases):
        return ""
    submitted, exact = cases[0].submitted[name], cases[0].exact[name]
    first = f"of {exact[0].size} entries"
    if all(explains_numbers(c, name, keep_where(c, name, c.exact[name] == 0)) for c in cases):
        number = np.count_nonzero(np.any((submitted != 0) & (exact == 0), axis=0))
        return f"{number} {first} are not zero and should be, and the others are right"
    if all(explains_numbers(c, name, keep_where(c, name, c.submitted[name] == 0)) for c in cases):
        number = np.count_nonzero(np.any((submitted == 0) & (exact != 0), axis=0))
        return f"{number} {first} are zero and should not be, and the others are right"
    return ""


def keep_where(found: Found, name: str, kept: Array) -> Array:
    """Keep the submitted numbers where told to; the others are exact."""
    return np.where(kept, found.submitted[name].astype(np.float64), found.exact[name])


def describe_share(name: str, cases: Sequence[Found], places: Sequence[WrongIndices]) -> str:
    """Describe how wrong a gradient is, where all places meet or in all."""
    found = cases[0]
    submitted, exact = found.submitted[name].astype(np.float64), found.exact[name]
    here = np.ones(exact.shape, bool)
    for place in places:
        indices = np.isin(np.arange(exact.shape[place.axis + 1]), place.indices)
        here &= indices.reshape([-1 if i == place.axis + 1 else 1 for i in range(exact.ndim)])
    if not submitted[here].any():
        return ": they are zero" if places else ""
    size, error = root_mean_square(exact[here]), root_mean_square((submitted - exact)[here])
    they, their = ("it", "its") if is_one_number(exact) else ("they", "their")
    return f", by {error / size:.2g} of {their} size" if size > 0 else f": {they} should be zero"


def find_wrong_sizes(every: Sequence[KernelCalls], found: Sequence[Found]) -> Mistake | None:
    """Find the one axis whose size tells wrong settings from right ones: no tile divides it."""
    wrong = {each.case.setting for each in found if each.wrong}
    right = {each.case.setting for each in found} - wrong
    if not wrong or not right:
        return None
    sizes: dict[tuple[str, int], list[int]] = {}
    for calls in every:
        for name, value in calls.arguments.leaves.items():
            for axis, size in enumerate(value.shape):
                sizes.setdefault((name, axis), []).append(size)
    fitting = dict[tuple[int, ...], tuple[str, int, int]]()  # axes of equal sizes are one
    for (name, axis), known in sizes.items():
        for tile in (*TILES, SMALLEST_TILE):
            if len(known) == len(every) and tells_apart(known, tile, right, wrong):
                fitting.setdefault(tuple(known), (name, axis, tile))
    if len(fitting) != 1:
        return None
    ((every_size, (name, axis, tile)),) = fitting.items()
    of_right, of_wrong = (", ".join(str(every_size[k]) for k in sorted(s)) for s in (right, wrong))
    said = (
        f"the gradients are right where the size of axis {axis} of {name} is a multiple of {tile} "
        f"({of_right}), and wrong where it is not ({of_wrong})."
    )
    return Mistake("wrong-at-other-sizes", said, {"argument": name, "axis": axis, "tile": tile})


def tells_apart(sizes: Sequence[int], tile: int, right: set[int], wrong: set[int]) -> bool:
    """Tell whether a tile divides the sizes of all right settings, and of no wrong one."""
    return not any(sizes[k] % tile for k in right) and all(sizes[k] % tile for k in wrong)
