"""Number formats at work inside a kernel, as its errors show them: docs/derivation.md, section 17.

Rounding inside scatters around zero, in nearly all entries, by as much as the format's unit makes.
Errors of another kind are said to be that: they may be a mistake that is smaller than what is seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import Neighbours, draw_neighbours
from bptt_verifier.judge.kernel_comparisons import (
    IMITATED,
    Found,
    find_result_dtype,
    measure_at,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.tolerance.formats import (
    SIGNIFICANDS,
    find_unit,
    is_half,
    round_once,
    round_significand,
)
from bptt_verifier.tolerance.projections import COARSE
from bptt_verifier.tolerance.scatter import IN_HALF
from bptt_verifier.tolerance.sizes import find_deviations, find_sizes, root_mean_square

# The noise of a format is that of rounding the arguments to it, between these parts of it: a sum at
# the end makes less, factors of all products the same, and rounding every operation more.
LEAST, MOST = 0.25, 4.0
ONCE = 0.41  # units: the error of rounding once, if mantissas are as frequent from 1 to 2
ONE_MORE = 3.0  # times one rounding of the result: several roundings of the same size
# The square of the mean of K errors is a K-th of their variance in expectation. Even if all entries
# have one error in common, it is more than eight times that with a probability of 1.3 %: an F of
# 1 and 15 degrees of freedom.
STAYING = 8.0
NEARLY_ALL = 0.9  # of the entries, which rounding inside reaches
# Times one rounding of the result that the errors of an entry are with another one of its size.
AND_ANOTHER = 2.0**0.5

NAMES = {"bfloat16": "bfloat16", "TF32": "TF32 or float16", "float32": "float32"}
BOTH = "TF32, bfloat16 or float16"
ALIKE = "are alike at neighbouring points"
STAY = f"they {ALIKE}"
SOME = "they are at some entries alone"
OTHER_FORMAT = "they are of another size than rounding to these formats makes"
OTHER_SIZE = "they are larger than rounding every operation makes"


class Roundings(NamedTuple):
    """The gradients with errors of one kind: the words for it, and errors ÷ one rounding."""

    said: str
    names: list[str]
    ratios: list[float]

    @property
    def of(self) -> str:
        """The gradients, as sentences name them."""
        return f"gradient{'s'[: len(self.names) > 1]} for {', '.join(self.names)}"

    @property
    def size(self) -> str:
        """How large the errors are, in units of one rounding."""
        least, most = (f"{pick(self.ratios):.2g}" for pick in (min, max))
        return least if least == most else f"{least} to {most}"


def describe_formats(every: Sequence[KernelCalls], found: Sequence[Found]) -> Iterator[str]:
    """Describe the formats at work inside a kernel that is right at all cases."""
    for kind in group_gradients(every, found, describe_coarse_noise):
        if kind.said in {*NAMES.values(), BOTH}:
            yield (
                f"Factors or sums are evidently rounded to {kind.said} inside: the errors of the "
                f"{kind.of} are {kind.size} times those of rounding the exact gradient once, as "
                "rounding to such a format makes them."
            )
        else:
            yield (
                f"The errors of the {kind.of} are {kind.size} times those of rounding the exact "
                f"gradient once, and not evidently rounding to fewer bits inside: {kind.said}. "
                "Truncation in the place of rounding may do that, and so may an approximation of a "
                "function such as tanh in that format, or a mistake that is smaller than what is "
                "stated here to be seen."
            )
    for kind in group_gradients(every, found, describe_half_noise):
        if not kind.said:
            yield (
                "Sums or states inside are evidently rounded to 16 bits: the errors of the "
                f"{kind.of} are {kind.size} times those of rounding the exact gradient once; "
                "random errors of this size cannot be told from that."
            )
        else:
            yield (
                f"The errors of the {kind.of} are {kind.size} times those of rounding the exact "
                f"gradient once, and not evidently rounding of sums or states: {kind.said}. Digits "
                "that cancel may do that, and so may a mistake that is smaller than what is stated "
                "here to be seen."
            )


def group_gradients(
    every: Sequence[KernelCalls], found: Sequence[Found], describe: Any
) -> Iterator[Roundings]:
    """Group gradients by the kind of their errors, in the case where they are largest."""
    largest: dict[str, tuple[float, Found]] = {}
    for each in found:
        for name, measured in each.gradients.items():
            noise = measured.noise  # the exact gradient is one of float64
            ratio = noise.of_rounding or noise.relative / (ONCE * noise.unit)
            if name not in largest or ratio > largest[name][0]:
                largest[name] = ratio, each
    by_case: dict[int, tuple[Found, list[str]]] = {}
    for name, (_, each) in largest.items():
        by_case.setdefault(id(each), (each, []))[1].append(name)
    kinds: dict[str, Roundings] = {}
    for each, names in by_case.values():
        for name, said in describe(every[each.case.setting], each, names).items():
            kind = kinds.setdefault(said, Roundings(said, [], []))
            kind.names.append(name)
            kind.ratios.append(largest[name][0])
    yield from kinds.values()


def describe_coarse_noise(calls: KernelCalls, found: Found, names: Sequence[str]) -> dict[str, str]:
    """Describe the errors of gradients in 32 or 64 bits with the noise of a coarser format.

    They are measured at neighbours between which rounding to any format is another.
    """
    coarse = [
        name
        for name in names
        for noise in [found.gradients[name].noise]
        if noise.relative > COARSE * noise.unit and not is_half(find_dtype(found, name))
    ]
    if not coarse:
        return {}
    far = measure_at(calls, found.case, IN_HALF, 1, 0)
    if not isinstance(far, Found):
        return {}
    near = draw_neighbours(found.case, IN_HALF, 0)
    responses = measure_responses(calls, near, far.exact)
    described = {}
    for name in coarse:
        errors, exact = far.submitted[name].astype(np.float64) - far.exact[name], far.exact[name]
        own = COARSE * find_unit(find_dtype(far, name))
        least = max(own, root_mean_square(errors) / root_mean_square(exact) / COARSE)
        said = describe_scatter(errors, least * find_sizes(exact))
        sizes = {form: response[name] for form, response in responses.items()}
        form = name_format(root_mean_square(errors - errors.mean(axis=0)), sizes)
        if said == STAY and form:
            said = f"they scatter as rounding to {form} does, and {ALIKE} as well"
        described[name] = said or form or OTHER_FORMAT
    return described


def name_format(scatter: float, responses: Mapping[str, float]) -> str:
    """Name the format whose rounding explains how much errors scatter; empty if none does."""
    fitting = [
        form for form, size in responses.items() if LEAST * size <= scatter <= MOST * size and size
    ]
    if not fitting:
        return ""
    return BOTH if {"bfloat16", "TF32"} <= {*fitting} else NAMES[fitting[0]]


def measure_responses(
    calls: KernelCalls, near: Neighbours, exact: Mapping[str, Array]
) -> dict[str, dict[str, float]]:
    """Measure how much gradients change with arguments that are rounded to each format."""
    responses = {}
    for form in NAMES:
        at = round_arguments(near, SIGNIFICANDS[form])
        rounded = calls.pullback.pull_back(*at).gradients
        responses[form] = {n: root_mean_square(g - exact[n]) for n, g in rounded.items()}
    return responses


def describe_half_noise(calls: KernelCalls, found: Found, names: Sequence[str]) -> dict[str, str]:
    """Describe the errors of gradients in 16 bits that are several roundings; empty for rounding.

    The errors of rounding every operation bound those of rounding sums and states.
    """
    several = [
        name
        for name in names
        if found.gradients[name].noise.of_rounding >= ONE_MORE and is_half(find_dtype(found, name))
    ]
    described, alike = {}, list[str]()
    for name in several:
        dtype, exact = find_dtype(found, name), found.exact[name]
        errors = found.submitted[name].astype(np.float64) - exact
        rounding = AND_ANOTHER * find_sizes(round_once(exact, dtype) - exact)
        described[name] = describe_scatter(errors, rounding)
        alike += [] if described[name] else [name]
    if alike:
        near = draw_neighbours(found.case, found.case.distance, 0)
        first = near.points[:IMITATED], near.cotangents[:IMITATED]
        dtype = max((find_dtype(found, name) for name in alike), key=find_unit)
        imitated = attempt(calls.pullback.imitate_rounding, *first, dtype)
        for name in alike if not isinstance(imitated, Failure) else ():
            errors = found.submitted[name].astype(np.float64) - found.exact[name]
            if root_mean_square(errors) > root_mean_square(imitated.gradients[name]):
                described[name] = OTHER_SIZE
    return described


def describe_scatter(errors: Array, rounding: Array) -> str:
    """Describe how errors (K, …) are not those of rounding inside; empty where they may be.

    Those scatter around zero, and in nearly all entries beyond the `rounding` of each.
    """
    common, scatter = (root_mean_square(x) for x in (errors.mean(axis=0), find_deviations(errors)))
    if len(errors) ** 0.5 * common > STAYING**0.5 * scatter:  # (V14)
        return STAY
    beyond = (find_sizes(errors) > rounding)[rounding > 0]
    return SOME if beyond.size and beyond.mean() < NEARLY_ALL else ""


def find_dtype(found: Found, name: str) -> Any:
    """Find the coarser dtype of a gradient and its argument."""
    return jnp.dtype(find_result_dtype(name, found.submitted[name], found.case))


def round_arguments(near: Neighbours, bits: int) -> Neighbours:
    """Round all arguments and cotangents to so many bits."""

    def round_each(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: round_significand(value, bits) for name, value in arrays.items()}

    return Neighbours(*([round_each(arrays) for arrays in part] for part in near))
