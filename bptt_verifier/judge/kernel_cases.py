"""Cases of a kernel: the arguments given and values drawn near them, and their neighbours."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.problems.kernel_draws import displace, draw_cotangents, draw_near
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import convert_to_numpy, read_outputs
from bptt_verifier.program.trees import has_mapping
from bptt_verifier.tolerance.formats import find_smallest, find_unit, is_floating, is_half
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF, NEIGHBOURS


class KernelCase(NamedTuple):
    """A point with cotangents: number 0 is the arguments given, the others are drawn near them.

    `excluding` are the arguments that exclude scores by a number that stands for −∞. The cotangents
    are 2 to the power of `enlarged` times those given.
    """

    setting: int
    number: int
    point: dict[str, Array]
    cotangents: dict[str, Array]
    excluding: frozenset[str] = frozenset()
    enlarged: int = 0

    @property
    def label(self) -> str:
        """The case as messages name it."""
        where = f" of setting {self.setting + 1}" if self.setting else ""
        return f"the arguments given{where}" if not self.number else f"case {self.number}{where}"

    @property
    def distance(self) -> float:
        """How far neighbours are: many units in the last place of the coarsest argument."""
        return IN_HALF if any(is_half(v.dtype) for v in self.point.values()) else DISTANCE

    @property
    def neighbours(self) -> int:
        """The number of neighbours: twice as many in 16 bits, where rounding hides most."""
        return 2 * NEIGHBOURS if self.distance == IN_HALF else NEIGHBOURS


class Neighbours(NamedTuple):
    """Neighbours of a case: points, and the cotangents at each."""

    points: list[dict[str, Array]]
    cotangents: list[dict[str, Array]]


def enlarge_cotangents(case: KernelCase) -> KernelCase | None:
    """Multiply cotangents by a power of two where they are so small that numbers inside underflow.

    The largest is then between 1/2 and 1. That changes no rounding. None where they are larger, and
    in 16 bits.
    """
    arrays = [*case.point.values(), *case.cotangents.values()]
    if not case.cotangents or any(is_half(each.dtype) for each in arrays):
        return None
    coarsest = max((each.dtype for each in arrays), key=find_unit)
    largest = max(find_largest_entry(each) for each in case.cotangents.values())
    factor = min([1.0, *filter(None, map(find_largest_entry, case.point.values()))])
    limit = find_smallest(coarsest) / find_unit(coarsest) ** 2  # (V19)
    if not largest < limit / factor:
        return None
    power = -int(np.frexp(largest)[1])  # 0 for zeros
    larger = {name: np.ldexp(each, power) for name, each in case.cotangents.items()}
    return case._replace(cotangents=larger, enlarged=power) if power > 0 else None


def find_largest_entry(array: Array) -> float:
    """Find the size of the largest entry; 0.0 where there is none."""
    return float(np.max(np.abs(array.astype(np.float64)), initial=0.0))


def draw_cases(
    setting: int, calls: KernelCalls, cotangents: Mapping[str, Array], number: int, seed: int
) -> Iterator[KernelCase]:
    """Draw the cases of one setting. `cotangents` have the dtypes, and the values of the first."""
    leaves, excluding = calls.arguments.leaves, calls.pullback.excluding
    for k in range(number):
        rng = np.random.default_rng([seed, setting, k])
        point = {n: draw_near(v, rng, n in excluding) if k else v for n, v in leaves.items()}
        given = {
            n: draw_cotangents(v.shape, v.dtype, rng) if k else v for n, v in cotangents.items()
        }
        yield KernelCase(setting, k, point, given, excluding)


def draw_neighbours(case: KernelCase, distance: float, seed: int) -> Neighbours:
    """Draw the neighbours of a case."""
    points, cotangents = [], []
    for k in range(case.neighbours):
        rng = np.random.default_rng([seed, case.setting, case.number, k, int(1 / distance)])
        point = case.point.items()
        points.append({n: displace(v, distance, rng, n in case.excluding) for n, v in point})
        cotangents.append({n: displace(v, distance, rng) for n, v in case.cotangents.items()})
    return Neighbours(points, cotangents)


def prepare_cotangents(calls: KernelCalls, given: Any, seed: int) -> dict[str, Array]:
    """Read the cotangents given, or draw them in the dtypes of the outputs.

    These are the kernel's own, if it supplies its outputs, else the coarsest of the arguments.
    Raises ValueError, with one sentence, where the cotangents given do not fit the outputs.
    """
    outputs = calls.pullback.outputs
    if given is not None:
        read = {n: convert_to_numpy(each) for n, each in read_outputs(given).items()}
        if len(read) == len(outputs) and not has_mapping(given):  # in the order of the outputs
            read = dict(zip(outputs, read.values(), strict=True))
        unknown = [name for name in outputs if name not in read]
        if unknown:
            raise ValueError(
                f"cotangents: expected the structure of the outputs, {', '.join(outputs)}, found "
                f"{', '.join(read) or 'none'}"
            )
        for name, value in outputs.items():
            if read[name].shape != value.shape:
                raise ValueError(
                    f"cotangents: expected shape {value.shape} of {name}, found {read[name].shape}"
                )
            if not is_floating(read[name].dtype):
                raise ValueError(
                    f"cotangents: expected floating numbers for {name}, found {read[name].dtype}"
                )
        return {name: read[name] for name in outputs}
    coarsest = max((v.dtype for v in calls.arguments.leaves.values()), key=find_unit)
    own = None if calls.values is None else calls.compute_values(calls.arguments.leaves)
    dtypes = {n: v.dtype for n, v in own.items()} if isinstance(own, dict) else {}
    rng = np.random.default_rng([seed, 1])
    return {n: draw_cotangents(v.shape, dtypes.get(n, coarsest), rng) for n, v in outputs.items()}


def count_tests(calls: KernelCalls) -> int:
    """Count the entries and slices of all gradients of one setting."""
    return sum(v.size + sum(v.shape) + 1 for v in calls.results.values())
