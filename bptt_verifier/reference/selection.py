"""Selection of an own model's cases: away from kinks, well conditioned, and some of them large.

A point is left out where the loss is not finite, has a kink or is ill-conditioned, or where float32
overflows: right code may differ from autodiff there. docs/derivation.md, section 10, has the rules.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.branches import Branch, find_taken, list_branches, rounds_off
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.paths import Followed, Paths, find_only
from bptt_verifier.program.trace import Program, forward
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.overflows import EXPONENT, MASKED, find_largest_exponent
from bptt_verifier.reference.points import SCALE, Point, draw_parameters
from bptt_verifier.reference.zeros import find_zeros
from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import find_coarsest_dtype

ENOUGH = 4  # cases that must be able to show a mistake in each gradient
MORE = 8  # draws, in units of the cases asked for, where too few can show a mistake
LARGE = 6  # cases scaled up, at most, and at most a quarter of all
ZEROED = 6  # cases in which some parameters are zero, at most, and at most a quarter of all
CANDIDATES = 50  # points from which those are chosen; fewer of a long loss
LONG = 1000  # operations
SCALES_OF_DRAWS = 2.0**-4, 2.0**-6, 2.0**-8  # times the values, where the data are large
FACTORS = (3.0, 8.0, 24.0, 64.0, 512.0)
GRADIENTS = (8.0, 64.0, 2048.0)  # sizes beyond which a clipped gradient shows
VALUES = (8.0, 64.0)  # sizes of a parameter beyond which what it is multiplied with may be clipped
LOSS = 16.0
SATURATED = 7.5, 12.0  # where a slope is small, but not yet lost in the sum with others
FAR_OUT = 15.0, 24.0  # where that of tanh is lost, and that of an exponential is not
# Beyond these operands a slope is lost in the sum with 1, and right code may divide by it; or its
# exp(a) overflows in float32.
SATURATING = {"tanh": 18.0, "logistic": 36.0, "exp": 36.0}

# Steps to the neighbours of a point, in units of the roundoff; a smooth difference shrinks with
# their ratio, and that across a kink does not.
NARROW, BROAD = 2.0**6, 2.0**14
CONDITION = {np.dtype(np.float64): 2.0**20, np.dtype(np.float32): 2.0**10}

NOT_FINITE = "the loss or its gradient is not finite there"
KINK = "the loss has a kink there"
OVERFLOW = "float32 may overflow there"
ROUNDED_OFF = "a branch there stands for a formula that differs by less than 2⁻²⁶ of its value"
VAGUE = "the gradient is ill-conditioned there"
OTHER_PATH = "the loss takes a path through its branches there that was not traced"
RAISES = "the loss raises an exception there"


class Setting(NamedTuple):
    """Parameters of some shapes, and their traced loss; `make_case` measures allowed errors.

    `raises` tells of drawn parameters whether the loss raises an exception there untraced.
    """

    params: dict[str, Array]
    paths: Paths
    make_case: Callable[[dict[str, Array], Followed, Point], Case]
    number: int
    seed: int
    raises: Callable[[dict[str, Array]], bool] = lambda params: False

    def draw(self, point: Point) -> dict[str, Array]:
        """Draw the parameters of a point."""
        number, near, factors = point.number, point.near, point.factors
        options: Any = {"seed": self.seed, "case": number, "near": near, "factors": factors}
        return dict(draw_parameters(self.params, **options))


class Selection(NamedTuple):
    """The cases of one setting, and what is known of them.

    `left_out` counts the draws left out, by reason; `given` is the reason why the parameters given
    are left out. `telling` counts the cases that could show a mistake, by gradient. `zeros` are
    gradients that are zero whatever the parameters are. `damped` counts the cases with values
    scaled down, and `keeping` those where jax.grad is not finite and the reference is (N8). The
    loss raises an exception at the draws in `raising`.
    """

    cases: tuple[Case, ...]
    left_out: Counter[str]
    given: str | None
    telling: Counter[str]
    resolution: dict[str, float]
    zeros: frozenset[str]
    branches: tuple[Branch, ...]
    taken: frozenset[Branch]
    damped: int
    keeping: int
    raising: tuple[Point, ...] = ()


class Examined(NamedTuple):
    """A point that is no case yet: its values, gradients and the slots of the program there."""

    point: Point
    params: dict[str, Array]
    followed: Followed
    slots: list[Any]
    features: frozenset[Any]

    @property
    def program(self) -> Program:
        """The program of the path that the loss takes there."""
        return self.followed.path.program

    @property
    def slopes(self) -> dict[str, Array]:
        """The gradients there."""
        return self.followed.slopes


class Selector:
    """Selects the cases of one setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.left_out: Counter[str] = Counter()
        self.raising: list[Point] = []
        # The gradient's condition at the parameters given, whether numbers there are too large, and
        # the exponent up to which no formula overflows.
        self.condition, self.exceeds_float32, self.exponent = 0.0, False, EXPONENT
        self.kept: list[tuple[Case, Examined]] = []
        self.vague: list[tuple[Case, Examined]] = []

    def select(self, number: int, progress: Callable[[int], None]) -> Selection:
        """Select `number` cases: the parameters given, draws, and draws that are scaled up."""
        given = self.try_point(Point(0, setting=self.setting.number))
        # Numbers at which formulas overflow are the user's own only where they are compared.
        self.exponent = EXPONENT if given else self.exponent
        progress(1)
        large = min(LARGE, number // 4)
        zeroed = min(ZEROED, number // 4) if number > ENOUGH + 1 else 0  # others are needed first
        draws = self.draw_ordinary(number)
        self.extend(islice(draws, number - large - zeroed - len(self.kept)), progress)
        self.extend(self.draw_zeroed(zeroed), progress)
        self.extend(islice(self.draw_large(), large), progress)
        self.extend(islice(draws, max(0, number - len(self.kept))), progress)
        left_out = self.left_out - Counter({given: 1} if given else {})
        found = self.kept or self.vague[:number]
        cases = tuple(case for case, _ in found)
        zeros = find_zeros([(each.program, each.slots) for _, each in found], cases)
        paths = [path.program for path in self.setting.paths.known]
        telling = Counter(name for case in cases for name in list_telling(case))
        resolution: dict[str, float] = {}
        for case in cases:
            for name, each in resolve(case).items():
                # A case where the gradient is zero, which has NaN, hides none of the others.
                resolution[name] = float(np.fmin(each, resolution.get(name, np.inf)))
        return Selection(
            cases, left_out, given, telling, resolution,
            zeros, tuple(dict.fromkeys(b for path in paths for b in list_branches(path))),
            frozenset(b for _, e in found for b in e.features if isinstance(b, Branch)),
            sum(any(0 < f < 1 for f in case.point.factors.values()) for case in cases),
            sum(each.followed.keeps_zeros for _, each in found),
            (*self.raising,),
        )  # fmt: skip

    def extend(self, cases: Iterator[Any], progress: Callable[[int], None]) -> None:
        """Draw cases, and report progress."""
        for _ in cases:
            progress(len(self.kept))

    def draw_ordinary(self, number: int) -> Iterator[None]:
        """Draw cases without end, or until too many draws in a row are left out."""
        names, setting = self.setting.params, self.setting.number
        smaller: Sequence[float] = ()
        for i in count(1):
            few = len(self.kept) < min(ENOUGH, number)
            if i > ENOUGH and len(self.kept) <= 1 and self.left_out[OVERFLOW]:
                smaller = SCALES_OF_DRAWS
                self.exponent = np.inf if i >= MORE else self.exponent
            if i > (MORE if few else 2) * number + ENOUGH or (i > MORE and not self.kept):
                return
            halves = [Point(i, False, dict.fromkeys(names, f), setting) for f in (0.5, 0.25)]
            chain = [Point(i, setting=setting), *halves, Point(i, near=True, setting=setting)]
            if i % 4 == 2:
                chain = chain[::-1]
            chain += [Point(i, False, dict.fromkeys(names, f), setting) for f in smaller]
            if any(self.try_point(point) is None for point in chain):
                yield

    def draw_zeroed(self, most: int) -> Iterator[None]:
        """Draw cases in which parameters are zero, in turns, of those that are not zero as given.

        Code may have a formula of its own there, and a mask may be made of what is zero.
        """
        names = [name for name, value in self.setting.params.items() if np.any(value)]
        if not names:
            return
        first = most * self.setting.number % len(names)  # each in some setting
        names = names[first:] + names[:first]
        apart = most if most > 2 else len(names)  # too many zeros at once hide each other
        for k in range(min(most, len(names))):
            which = dict.fromkeys(names[k::apart], 0.0)
            for near in (False, True):
                # A multiple of 12 is drawn in float64.
                point = Point(12 * (2000 + k), near, which, self.setting.number)
                examined = self.examine(point, first=False)
                if isinstance(examined, Examined) and self.keep(examined) is None:
                    yield
                    break

    def draw_large(self) -> Iterator[None]:
        """Draw cases that show what the others do not: large gradients, saturation, branches."""
        names, setting = [*self.setting.params], self.setting.number
        rng = np.random.default_rng([self.setting.seed, len(names)])
        scaled = [names, *([str(name)] for name in rng.permutation(names))]
        programs = [path.program for path in self.setting.paths.known]
        longer = 1 + max((len(each.operations) for each in programs), default=0) // LONG
        sets = CANDIDATES // len(FACTORS) // longer
        most = max(3, sets)
        scaled = scaled[:1] if len(names) == 1 else scaled[:most]
        scaled *= max(1, sets // len(scaled))  # other values, of which some have larger gradients
        candidates = []
        for j, (which, factor) in enumerate((s, f) for s in scaled for f in FACTORS):
            number = 12 * (1000 + j)  # drawn in float64
            point = Point(number, False, dict.fromkeys(which, factor), setting)
            examined = self.examine(point, first=False)
            if isinstance(examined, Examined) and not self.overflows(examined):
                candidates.append(examined)
        covered = set().union(*(each.features for _, each in self.kept))
        while candidates:
            best = max(candidates, key=lambda each: len(each.features - covered))
            candidates.remove(best)
            if not best.features - covered:
                return
            if self.keep(best) is None:
                covered |= best.features
                yield

    def try_point(self, point: Point) -> str | None:
        """Make a point a case, or return the reason why it is left out."""
        examined = self.examine(point)
        flaw = examined if isinstance(examined, str) else self.keep(examined)
        self.left_out[flaw or ""] += flaw is not None
        self.raising += [point] * (flaw == RAISES)
        return flaw

    def examine(self, point: Point, first: bool = True) -> Examined | str:
        """Evaluate the loss at a point; return why that is no case, if it is none.

        Where `first` is false, a point at which zeros would be kept for the first time is no case.
        """
        params = self.setting.draw(point)
        wide = {name: value.astype(np.float64) for name, value in params.items()}
        followed = self.follow(wide, first)
        if isinstance(followed, str):
            return followed
        loss, slopes, program = float(followed.loss), followed.slopes, followed.path.program
        if not (np.isfinite(loss) and all(np.isfinite(v).all() for v in slopes.values())):
            return NOT_FINITE
        slots = forward(program, wide)
        within, single = (
            is_within_float32(program, slots, slopes),
            find_coarsest_dtype(*params.values()) == np.float32,
        )
        if point.number == 0 and not single:
            self.exceeds_float32 = not within
        elif not within and (single or not self.exceeds_float32):
            return OVERFLOW  # a submission may compute in float32 what is given in float64
        exponent = find_largest_exponent(program, slots)
        if point.number == 0:
            self.exponent = max(EXPONENT, exponent)
        elif exponent > self.exponent:
            return OVERFLOW  # so may another formula
        if rounds_off(program, slots):
            return ROUNDED_OFF
        features: set[Any] = {*find_taken(program, slots)}
        if abs(loss) > LOSS:
            features.add(("loss", float(np.sign(loss))))
        for name, value in slopes.items():
            largest = np.max(np.abs(value))
            features |= {(name, size) for size in GRADIENTS if largest > size}
        for name, value in wide.items():
            largest = np.max(np.abs(value), initial=0.0)
            features |= {("value", name, size) for size in VALUES if largest > size}
        for name, place, operand in list_saturating(program, slots):
            if any_between(np.abs(operand), *SATURATED):
                features.add(("saturated", place))
            if name != "tanh" and any_between(np.abs(operand), *FAR_OUT):
                features.add(("far out", place))
        return Examined(point, params, followed, slots, frozenset(features))

    def follow(self, wide: dict[str, Array], first: bool = True) -> Followed | str:
        """Compute the loss and its gradient; why there is none on a path that is not traced."""
        paths = self.setting.paths
        # A path that is not known runs the user's code; without a decision, there is only one.
        follow = partial(paths.follow, first=first)
        found = follow(wide) if find_only(paths.known) else attempt(follow, wide)
        if isinstance(found, Failure) and found.exception != UntraceableError.__name__:
            return RAISES
        if found is None or isinstance(found, Failure):
            return OTHER_PATH
        slopes = {name: np.asarray(found.slopes[name]) for name in wide}
        result: Followed = found._replace(slopes=slopes)
        return result

    def overflows(self, examined: Examined) -> bool:
        """Tell whether right code may overflow at a point that is scaled up."""
        return any(
            ((np.abs(x) > SATURATING[name]) & (np.real(x) > MASKED)).any()
            for name, _, x in list_saturating(examined.program, examined.slots)
        )

    def keep(self, examined: Examined) -> str | None:
        """Make a point a case unless it has a kink or is ill-conditioned; return that reason.

        Nor is one a case at which the loss raises an exception, but for the parameters given.
        """
        params = examined.params
        if examined.point.number != 0 and self.setting.raises(params):
            return RAISES
        dtype = find_coarsest_dtype(*params.values())
        unit = float(np.finfo(dtype).eps) / 2
        narrow, broad = (self.differ(examined, step * unit) for step in (NARROW, BROAD))
        if not narrow:
            return KINK  # the edge of where the loss is defined
        sizes = {name: float(np.max(np.abs(value))) for name, value in examined.slopes.items()}
        least = max(sizes.values()) * 2.0**-40
        condition = max(
            (
                float(np.max(broad[name])) / (size * BROAD * unit)
                for name, size in sizes.items()
                if name in broad and size > least
            ),
            default=0.0,
        )
        if examined.point.number == 0:
            self.condition = condition
        vague = condition > max(CONDITION[dtype], 4 * self.condition)
        if vague and self.vague:
            return VAGUE  # one of them is enough
        case = self.setting.make_case(params, examined.followed, examined.point)
        assert case.truth is not None
        allowed = case.truth(dtype, ()).allowed
        for name, change in narrow.items():
            shrinks = name in broad and np.max(change) <= np.max(broad[name]) / 16
            rounding = NARROW * unit * sizes[name]
            if not shrinks and (change > allowed[name] + rounding).any():
                return KINK
        if vague or not is_telling(case):
            self.vague.append((case, examined))
            return VAGUE
        self.kept.append((case, examined))
        return None

    def differ(self, examined: Examined, step: float) -> dict[str, Array]:
        """Measure how the gradient changes at two opposite neighbours; empty if not finite."""
        rng = np.random.default_rng(examined.point.number)
        found = {name: np.zeros(value.shape) for name, value in examined.slopes.items()}
        moves = {}
        for name, value in examined.params.items():
            wide = value.astype(np.float64)
            size = float(np.sqrt(np.mean(wide**2))) or SCALE
            moves[name] = np.where(wide == 0, size, wide) * rng.uniform(0.5, 1.0, wide.shape)
        for sign in (step, -step):
            neighbour = {n: value + sign * moves[n] for n, value in examined.params.items()}
            followed = self.follow(neighbour)
            if isinstance(followed, str):
                return {}
            for name, value in followed.slopes.items():
                if not np.isfinite(value).all():
                    return {}
                found[name] = np.maximum(found[name], np.abs(value - examined.slopes[name]))
        return found


def count_left_out(number: int) -> str:
    """Write how many draws were left out."""
    return f"{number} {'draw was' if number == 1 else 'draws were'} left out"


def any_between(values: Array, low: float, high: float) -> bool:
    """Tell whether any value is between two others."""
    return bool(((low < values) & (values < high)).any())


def list_saturating(program: Program, slots: Sequence[Any]) -> Iterator[tuple[str, str, Array]]:
    """List the saturating functions, with the place and operand of each."""
    for operation in program.operations:
        if operation.name in SATURATING:
            place = str(operation.where[0]) if operation.where else operation.name
            yield operation.name, place, slots[operation.inputs[0]]


def is_within_float32(program: Program, slots: Sequence[Any], slopes: Mapping[str, Array]) -> bool:
    """Tell whether the numbers of the loss and gradient fit float32.

    What is infinite is a mask, and so are numbers below half of float32's smallest where one is a
    constant, as in `where(mask, scores, finfo(float32).min)`: a maximum less than that stays there.
    """
    largest = float(np.finfo(np.float32).max) / 2
    numbers = [x for x in slots if x is not None and x.dtype.kind == "f"]
    masked = any((slots[each] < -largest).any() for each in program.constants)
    smallest = -np.inf if masked else -largest

    def fit(x: Array) -> bool:
        return not (np.isfinite(x) & ((x > largest) | (x < smallest))).any()

    return all(map(fit, numbers)) and all((np.abs(x) <= largest).all() for x in slopes.values())


def resolve(case: Case) -> dict[str, float]:
    """Find the smallest relative error of each gradient that would be seen; of zeros, NaN."""
    assert case.truth is not None
    known = case.truth(find_coarsest_dtype(*case.arguments.values()), ())
    found = {}
    for name in case.arguments:
        value, allowed = np.abs(known.values[name]), known.allowed[name]
        resolution = np.max(allowed) / np.max(value) if value.any() else np.inf
        zero = (value <= allowed).all() and np.isfinite(allowed).all()
        found[name] = (
            np.nan if zero else float(np.nan_to_num(resolution, nan=np.inf, posinf=np.inf))
        )
    return found


def list_telling(case: Case) -> list[str]:
    """List the gradients in which the case could show a mistake."""
    return [name for name, resolution in resolve(case).items() if resolution <= RESOLVING]


def is_telling(case: Case) -> bool:
    """Tell whether the case could show a mistake in every gradient that is not zero."""
    found = [x for x in resolve(case).values() if not np.isnan(x)]
    return bool(found) and all(resolution <= RESOLVING for resolution in found)
