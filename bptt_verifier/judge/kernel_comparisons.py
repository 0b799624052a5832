"""Comparisons of a kernel's outputs and gradients with the exact ones, at neighbours of a case."""

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.judge.kernel_calls import Answer, KernelCalls
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
    Neighbours,
    draw_neighbours,
    enlarge_cotangents,
)
from bptt_verifier.judge.kernel_noise import Measured, find_excessive_noise
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.reference.lost_numbers import norm
from bptt_verifier.reference.point_arrays import Pulled, name_outputs
from bptt_verifier.reference.pullbacks import Pullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_largest, find_unit, is_half
from bptt_verifier.tolerance.projections import (
    APPROXIMATE,
    Measurement,
    is_scaled,
    measure,
)
from bptt_verifier.tolerance.rounding_inside import choose_share, list_shares
from bptt_verifier.tolerance.scatter import IN_HALF
from bptt_verifier.tolerance.sizes import find_sizes, root_mean_square

# A mean error of so many times the scatter near the point is no rounding in a coarser format, of
# which at least every hundredth is drawn anew there.
BEYOND_ROUNDING = 64.0
WIDE = 2.0**17  # the range of formats beyond float16, in which no typical number overflows
NEAR_OVERFLOW = 16  # times smaller than a format's largest number may be what overflows inside
# Neighbours at which rounding is imitated. Its errors hardly change from one to another.
IMITATED = 4
HIDING = 2.0**500  # an error that hides every number, and whose multiples are finite
STEEPEST = 4  # the inverse of the largest slope of the logistic function
SMALL = 32, 64  # times smaller arguments saturate no function: tanh at 12 has no digit left
# Times as large is a gradient, at most, that does not grow with smaller arguments: between 1.11, of
# tanh at 12, and 2, of a normalisation.
SETTLED = 1.5
RESOLVED = 2.0**-4  # a gradient is not testable if rounding hides a larger factor on all of it
FAR_BEYOND = 2.0**12  # roundings of the outputs are more than the errors of a gradient are made of
OVERFLOW = "overflow"  # the detail of a result that may not be finite in its format


class ShownRounding(NamedTuple):
    """A gradient that only rounding every operation explains, which its case may not show.

    `shares` are those of rounding inside that the entries show which are asked, and
    `measure(share)` measures the errors again with one that is known.
    """

    shares: Array
    distance: float
    measure: Callable[[float], Measurement]


class Found(NamedTuple):
    """What was found at the neighbours of a case, by the names of gradients and of outputs.

    `submitted` and `exact` are stacked over the neighbours. `outputs` are the measured errors of
    the kernel's own outputs, none if it does not supply them. `unsure` are gradients whose errors
    are neither rounding nor certainly a mistake. `overflowing` are outputs of which entries are
    left out. `near` is what was found nearer to the point, if these neighbours are further away.
    `noisy` are gradients with noise that no rounding makes, and how far it is beyond its limit, and
    `doubts` those that only rounding every operation explains, or that were to be asked about it.
    The exact gradient `keeps_zeros` where autodiff gives NaN.
    """

    case: KernelCase
    submitted: dict[str, Array]
    exact: dict[str, Array]
    gradients: dict[str, Measurement]
    outputs: dict[str, Measurement]
    unsure: frozenset[str] = frozenset()
    overflowing: frozenset[str] = frozenset()
    near: Any = None
    noisy: Mapping[str, float] = MappingProxyType({})
    doubts: Mapping[str, ShownRounding] = MappingProxyType({})
    keeps_zeros: bool = False

    @property
    def nearest(self) -> "Found":
        """What was found nearest to the point, where names and places show best."""
        return self if self.near is None else self.near

    def measured(self, name: str) -> Measurement:
        """The measured errors of one gradient or output."""
        return self.gradients[name] if name in self.gradients else self.outputs[name]

    @property
    def wrong(self) -> list[str]:
        """The gradients and outputs that are wrong."""
        every = self.gradients | self.outputs
        return [name for name, each in every.items() if each.wrong or name in self.noisy]


def compare_kernel(
    calls: KernelCalls,
    case: KernelCase,
    tests: int,
    seed: int,
    doubtful: Container[str] = (),
) -> Found | Mistake:
    """Compare a kernel with the exact values at the neighbours of a case, its outputs first.

    Where cotangents are so small that numbers inside underflow, and it does not agree, it is asked
    at larger ones, at which it rounds alike, but loses nothing to underflow.
    """
    found, larger = compare_around(calls, case, tests, seed, doubtful), enlarge_cotangents(case)
    if larger is None or not isinstance(found, Found) or not (found.wrong or found.unsure):
        return found
    again = compare_around(calls, larger, tests, seed, doubtful)
    return again if isinstance(again, Found) else found


def compare_around(
    calls: KernelCalls,
    case: KernelCase,
    tests: int,
    seed: int,
    doubtful: Container[str] = (),
) -> Found | Mistake:
    """Compare a kernel with the exact values at the neighbours of a case, its outputs first.

    What is wrong near the point must be wrong further away as well: there, rounding in any format
    is drawn anew. `doubtful` gradients are asked whether they show rounding inside.
    """
    near = measure_at(calls, case, case.distance, tests, seed, doubtful=doubtful)
    if isinstance(near, Mistake):
        return near

    def measure_gradients(distance: float) -> Measured | None:
        found = measure_at(calls, case, distance, tests, seed)
        return None if isinstance(found, Mistake) else found.gradients

    noisy = find_excessive_noise(calls, case, near.gradients, measure_gradients, seed)
    if not near.wrong or case.distance == IN_HALF:
        return check_outputs(near._replace(noisy=noisy))
    far = measure_at(calls, case, IN_HALF, tests, seed, near)
    if isinstance(far, Mistake):
        return far
    right = [name for name in near.wrong if name not in far.wrong]
    vague = {n for n in right if is_mistake(near, n, far.measured(n).resolution)}
    near = near._replace(noisy=noisy)
    return check_outputs(far._replace(unsure=far.unsure | vague, near=near, noisy=noisy))


def is_mistake(found: Found, name: str, resolution: float) -> bool:
    """Tell whether errors are more than rounding in any format, or approximate functions, make.

    They are relative to the root mean square of the gradient, except beside the noise, which is
    that of each slice.
    """
    measured, exact = found.measured(name), found.exact[name]
    size = root_mean_square(exact)
    least = max(resolution, 2 * APPROXIMATE) * size
    errors = np.abs(measured.mean[measured.wrong_entries])
    if np.any(errors > max(least, BEYOND_ROUNDING * measured.noise.relative * size)):
        return True
    for slices in measured.slices:
        axis = slices.axis
        summed = tuple(i for i in range(exact.ndim) if axis is None or i != axis + 1)
        sizes = find_sizes(exact, summed).reshape(-1)
        factors = np.where(slices.wrong, np.abs(slices.factor), 0.0)
        beyond = factors > BEYOND_ROUNDING * measured.noise.relative
        if np.any(beyond & (factors * sizes > least)):
            return True
    return False


def check_outputs(found: Found) -> Found | Mistake:
    """Return what was found, or that the kernel's outputs are not those of the stated function."""
    wrong = [name for name, each in found.outputs.items() if each.wrong]
    if not wrong:
        return found
    name = wrong[0]
    with np.errstate(all="ignore"):
        errors = found.submitted[name].astype(np.float64) - found.exact[name]
    place = int(np.nanargmax(np.abs(errors)))
    k, *entry = map(int, np.unravel_index(place, errors.shape))
    where = f" at entry {entry}" if entry else ""
    yours, stated = float(found.submitted[name][(k, *entry)]), float(found.exact[name][(k, *entry)])
    said = (
        f"your forward pass differs: your {name} is {yours:.9g}{where}, and that of the stated "
        f"function is {stated:.9g}, with {found.case.label}. The gradients are not compared."
    )
    return Mistake("forward-differs", said, {"outputs": wrong, "yours": yours, "stated": stated})


def measure_at(
    calls: KernelCalls,
    case: KernelCase,
    distance: float,
    tests: int,
    seed: int,
    nearer: Found | None = None,
    doubtful: Container[str] = (),
) -> Found | Mistake:
    """Measure a kernel's errors at the neighbours of a case, beside those at nearer ones."""
    near = draw_neighbours(case, distance, seed)
    exact = calls.pullback.confirm(*near, calls.pullback.pull_back(*near))
    endless = [name for name, g in exact.gradients.items() if not np.isfinite(g).all()]
    if endless:
        said = f"the exact gradient for {endless[0]} is not finite near {case.label}."
        return Mistake("not-finite", said, {"gradients": endless, OVERFLOW: True})
    # The exact gradient is linear in the cotangents; times three, every rounding in it is another.
    thrice = calls.pullback.pull_back(near.points, [scale(each, 3.0) for each in near.cotangents])
    doubt = {n: np.abs(thrice.gradients[n] / 3.0 - g) for n, g in exact.gradients.items()}
    outputs = {} if calls.values is None else ask_each(near, lambda p, c: calls.compute_values(p))
    if isinstance(outputs, Mistake):
        return outputs
    other = outputs.keys() != exact.outputs.keys()
    if calls.values is not None and (other or any(
        outputs[n].shape != x.shape for n, x in exact.outputs.items()
    )):  # fmt: skip
        found = {name: each.shape[1:] for name, each in outputs.items()}
        stated = {name: each.shape[1:] for name, each in exact.outputs.items()}
        said = f"your forward pass differs: it returns {found}, and the stated function {stated}."
        return Mistake("forward-differs", said, {})
    gradients = ask_each(near, calls.ask)
    if isinstance(gradients, Mistake):
        said = f"{gradients.explanation} With {case.label}."
        return gradients._replace(explanation=said)
    own = name_outputs(outputs, gradients)
    submitted, true = gradients | own, exact.named
    reached = find_not_finite(submitted, own, true, near, case, calls.pullback)
    if isinstance(reached, Mistake):
        return reached
    submitted, true = (leave_out(each, reached) for each in (submitted, true))
    dtypes = {n: find_result_dtype(n, values, case) for n, values in submitted.items()}
    errors = {n: values.astype(np.float64) - true[n] for n, values in submitted.items()}

    def measure_result(
        name: str,
        imitated: Mapping[str, Array],
        share: float | None = None,
        terms: float | None = None,
    ) -> Measurement:
        before = None if nearer is None else nearer.measured(name)
        own = doubt.get(name, 0.0), before, imitated.get(name), share, terms
        return measure(errors[name], true[name], dtypes[name], tests, *own)

    measured = {name: measure_result(name, {}) for name in submitted}
    halves = {name for name in measured if is_half(dtypes[name])}
    wrong = [
        n
        for n, each in measured.items()
        if each.wrong and (n in halves or may_be_rounding(n, errors[n], dtypes[n], near, exact))
    ]
    asked = wrong + [n for n in halves if n in doubtful and n not in wrong]
    imitated = imitate_rounding(calls.pullback, near, dtypes) if asked else {}
    unsure, doubts = set[str](), dict[str, ShownRounding]()
    for name in asked if imitated else ():
        known = errors[name], true[name], imitated[name], tests, dtypes[name]
        again = partial(measure_result, name, imitated)
        doubts[name] = ShownRounding(list_shares(*known), distance, again)
    for name in wrong if imitated else ():
        measured[name] = measure_result(name, imitated)
        if not measured[name].wrong:
            share = choose_share(doubts[name].shares, distance)
            by_share = None
            if share or name not in halves:  # there, entries without a legible digit are lost
                by_share = measure_result(name, imitated, share)
            if by_share is None or by_share.wrong:
                unsure.add(name)
            else:
                measured[name] = by_share
            measured[name] = measured[name]._replace(explained=True)
            continue
        if is_scaled(errors[name], true[name], dtypes[name]):
            continue
        terms = find_largest_terms(name, true[name], near, calls.pullback)
        by_another = measure_result(name, imitated, terms=terms)
        if not by_another.wrong:
            measured[name] = by_another._replace(explained=True)
            unsure.add(name)
    of_gradients, of_outputs = ({n: measured[n] for n in each} for each in (gradients, own))
    left_out = frozenset(reached)
    return Found(
        case, submitted, true, of_gradients, of_outputs, frozenset(unsure), left_out,
        doubts=doubts, keeps_zeros=bool(exact.kept),
    )  # fmt: skip


def may_be_rounding(name: str, errors: Array, dtype: Any, near: Neighbours, exact: Pulled) -> bool:
    """Tell whether errors of a gradient in 32 or 64 bits may be rounding of what it is made of.

    The argument times its gradient is a change of the outputs times their cotangents, and rounding
    in these is in units of their size. This saves the time to imitate it where it cannot be.
    """
    if name not in near.points[0]:
        return True  # a tangent, or an output
    changes = [norm(e * x[name]) for e, x in zip(errors, near.points, strict=True)]
    sizes = [
        norm(*(c * exact.outputs[n][k] for n, c in each.items()))
        for k, each in enumerate(near.cotangents)
    ]
    return not max(changes) > FAR_BEYOND * find_unit(dtype) * max(sizes)


def settle_doubts(found: Sequence[Found]) -> list[Found]:
    """Settle doubts about rounding inside by what a gradient shows at all cases together.

    A kernel rounds inside at one case as it does at another. What another formula alone explains
    stays in doubt.
    """
    pooled: dict[str, list[Array]] = {}
    for each in found:
        for name, doubt in each.doubts.items():
            pooled.setdefault(name, []).append(doubt.shares)
    settled = []
    for each in found:
        known, left = dict(each.gradients), set(each.unsure)
        for name in each.unsure & {*each.doubts} & {*known}:
            doubt = each.doubts[name]
            share = choose_share(np.concatenate(pooled[name]), doubt.distance)
            by_share = doubt.measure(share) if share else None
            if by_share is not None and not by_share.wrong:
                known[name] = by_share._replace(explained=True)
                left.remove(name)
        settled.append(each._replace(gradients=known, unsure=frozenset(left)))
    return settled


def find_largest_terms(name: str, exact: Array, near: Neighbours, pullback: Pullback) -> float:
    """Find how large the terms may be that cancel in another formula of the same function.

    They are those of the gradient where the slopes are largest, which is where the argument is
    small, unless the gradient grows on and on there, as behind a normalisation.
    """
    largest, point = float(np.abs(exact).max(initial=0.0)), near.points[0]
    if name in point:
        small = [dict(point) | {name: point[name].astype(np.float64) / by} for by in SMALL]
        found = attempt(pullback.pull_back, small, [near.cotangents[0]] * len(small))
        if not isinstance(found, Failure):
            smaller, smallest = (float(np.abs(g).max(initial=0)) for g in found.gradients[name])
            largest = max(largest, smallest) if smallest < SETTLED * smaller else largest
    return STEEPEST * largest


def imitate_rounding(
    pullback: Pullback, near: Neighbours, dtypes: Mapping[str, Any]
) -> Mapping[str, Array]:
    """Imitate rounding in the stated function and its pull-back; empty where that fails.

    Of an entry for which a number inside overflows by it, nothing can be told: all is rounding.
    """
    first = near.points[:IMITATED], near.cotangents[:IMITATED]
    found = attempt(pullback.imitate_rounding, *first, max(dtypes.values(), key=find_unit))
    if isinstance(found, Failure):
        return {}
    return {n: np.where(np.isfinite(e), e, HIDING) for n, e in found.named.items()}


def ask_each(
    near: Neighbours, ask: Callable[[dict[str, Array], dict[str, Array]], Answer]
) -> Answer:
    """Ask a kernel at each neighbour; return its results stacked."""
    answers = []
    for point, cotangents in zip(near.points, near.cotangents, strict=True):
        answer = ask(point, cotangents)
        if isinstance(answer, Mistake):
            return answer
        answers.append(answer)
    return {name: np.stack([each[name] for each in answers]) for name in answers[0]}


def leave_out(arrays: Mapping[str, Array], entries: Mapping[str, Array]) -> dict[str, Array]:
    """Set entries to zero, at all neighbours if they are left out at one."""
    return {
        name: np.where(entries[name].any(axis=0), value.dtype.type(0), value)
        if name in entries
        else value
        for name, value in arrays.items()
    }


def scale(arrays: Mapping[str, Array], factor: float) -> dict[str, Array]:
    """Multiply arrays, in float64."""
    return {name: factor * value.astype(np.float64) for name, value in arrays.items()}


def find_result_dtype(name: str, values: Array, case: KernelCase) -> Any:
    """Find the coarser dtype of a result and of the argument that it belongs to."""
    like = case.point.get(name, values)
    return max((values.dtype, like.dtype), key=find_unit)


def find_not_finite(
    submitted: Mapping[str, Array],
    outputs: Container[str],
    true: Mapping[str, Array],
    near: Neighbours,
    case: KernelCase,
    pullback: Pullback,
) -> Mistake | dict[str, Array]:
    """Find a result that is not finite where the exact one is, or which outputs may overflow.

    A gradient of which each such entry may overflow leaves the case out. Of an output, those
    entries that may overflow are returned, by name, since its gradient may be finite. A zero of it
    that should be none counts as well where it may be 1 / ∞.
    """
    excused, left_out = {}, None
    for name, values in submitted.items():
        exact = true[name]
        bad = ~np.isfinite(values.astype(np.float64)) & np.isfinite(exact)
        vanished = find_vanished(values, exact) & (name in outputs)
        if not bad.any() and not vanished.any():
            continue
        dtypes = values.dtype, case.point.get(name, values).dtype
        reached = find_reached(name, exact, near, pullback, min(map(find_largest, dtypes)))
        bad |= vanished & reached
        if not bad.any():
            continue
        if name in outputs and reached[bad].all():
            excused[name] = reached
            continue
        missed = bad & ~reached if np.any(bad & ~reached) else bad
        k, *entry = map(int, np.argwhere(missed)[0])
        yours, stated = float(values[(k, *entry)]), exact[(k, *entry)]
        if name in outputs:
            said = (
                f"your forward pass differs: your {name} is {yours} at entry {entry}, and that of "
                f"the stated function is {stated:.9g}, with {case.label}."
            )
            return Mistake("forward-differs", said, {"outputs": [name], "entry": entry})
        said = (
            f"the gradient for {name}: expected finite numbers, found {yours} at entry {entry}, "
            f"where autodiff gives {stated:.6g}, with {case.label}."
        )
        details = {"gradients": [name], "entry": entry, OVERFLOW: missed is bad}
        mistake = Mistake("not-finite", said, details)
        if missed is not bad:
            return mistake
        left_out = left_out or mistake
    return left_out or excused


def find_vanished(values: Array, exact: Array) -> Array:
    """Find zeros in the place of numbers of a format with a small range: 1 / ∞ is 0.

    A number within rounding of the largest may vanish in a difference as well.
    """
    describe: Any = jnp.finfo
    if find_largest(values.dtype) > WIDE or not exact.size:
        return np.zeros(values.shape, bool)
    finfo = describe(values.dtype)
    least = max(float(finfo.tiny), float(finfo.eps) * float(np.max(np.abs(exact))))
    return np.asarray((values == 0) & (np.abs(exact) > least))


def find_reached(
    name: str, exact: Array, near: Neighbours, pullback: Pullback, largest: float
) -> Array:
    """Find the entries that may overflow a format, themselves or in what they are computed from.

    Of a function whose operations are unknown, one number that is too large may reach all entries.
    """
    own: Array = np.abs(exact) > largest / NEAR_OVERFLOW
    found = attempt(pullback.find_overflows, *near, largest / NEAR_OVERFLOW)
    if isinstance(found, Failure):
        return np.full(own.shape, own.any())
    reached: Array = own | found.named[name]
    return reached
