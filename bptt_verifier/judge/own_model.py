"""The user's own model as a subject: any loss, any layout of the parameters."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from inspect import unwrap
from typing import Any

import numpy as np

from bptt_verifier.judge.after_loss import follow_loss
from bptt_verifier.judge.neighbours import list_failing
from bptt_verifier.judge.subject import Compared, Copy, Subject, Try
from bptt_verifier.judge.submission import Breach, Call, Expected, Submission
from bptt_verifier.judge.undecided import count_cases
from bptt_verifier.judge.unguarded import is_special
from bptt_verifier.mistakes.black_box import diagnose_black_box
from bptt_verifier.mistakes.own_diagnosis import chart_adjoints, diagnose
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import CodeRaisedError, Failure, attempt, copies
from bptt_verifier.program.fixed_points import (
    Iteration,
    Limit,
    contains,
    find_iterations,
    find_limit,
    find_place,
)
from bptt_verifier.program.guards import (
    describe_place,
    differentiate_unguarded,
    find_guards,
)
from bptt_verifier.program.leaves import Tree
from bptt_verifier.program.paths import are_finite, find_only
from bptt_verifier.program.precision import isolate_float64
from bptt_verifier.program.recording import Recorded, record
from bptt_verifier.program.roundings import describe_last, differentiate_unrounded
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.stopped_loops import Longer, Site, continue_loops
from bptt_verifier.program.torch_losses import over_arrays
from bptt_verifier.program.trace import Program
from bptt_verifier.reference.case import Case, Loss
from bptt_verifier.reference.differences import is_rough
from bptt_verifier.reference.own_cases import widen
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.special_sets import SpecialSet, find_sets
from bptt_verifier.report import Curve, Mistake
from bptt_verifier.tolerance.comparison import find_symbol

OF_CALLS = "of_parameters"  # an attribute of functions that call the user's in their own order
WITNESSES = 4  # failing cases that a named mistake must reproduce
SIMPLE = {
    1: 20,
    2: 5,
}  # cases by the decimals of their values, among which one that fails is sought
TRIED = 2  # points of a path of the loss at which loops that decisions end are sought in vain
ROUGH = 2  # cases at which it is asked whether the loss is smooth
# What a solver may leave of a gradient, relative to it, in a loss that cannot be traced. A residual
# of 1e-5, as SciPy's minimisers leave by default, times the condition of what is solved may be much
# more; but then the loss jumps where another step ends the solver.
LEFT, LEFT_ROUGHLY = 2.0**-20, 2.0**-10
FAR = 2**4, 2**8, 2**12, 2**16  # times the values of a case, where a formula may overflow
IN_SETS = (1, 3, 4, 6, 7, 9, 10, 12)  # draws in special sets, of which none is in float32
SHOWN = 6  # gradients whose largest entries are listed
SETTINGS = 2  # smaller settings in which that is tried


def choose_witnesses(failing: Sequence[Compared]) -> list[Compared]:
    """Choose the first failing cases, and those that show wrong gradients which the others do not.

    Otherwise a name might explain one of two mistakes, and leave the other's gradients unexplained.
    """
    shown, first, others = set[str](), list[int](), list[int]()
    for number, each in enumerate(failing):
        wrong = {name for name in list_failing(each) if name in each.case.arguments}
        (others if wrong <= shown else first).append(number)
        shown |= wrong
    return [failing[number] for number in sorted([*first, *others][:WITNESSES])]


class OwnSubject(Subject):
    """A model whose loss has been traced and differentiated."""

    stated = "loss(params)"

    def __init__(
        self,
        model: OwnModel,
        gradients: Callable[[Any], Any] | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.gradients, self.loss = gradients, loss
        self.model, self.notes, self.refusal = model, model.notes, model.refusal
        self.doubt, self.zeros, self.raised = model.doubt, model.zeros, model.loss_raised
        given = [value.dtype for params in model.params for value in params.values()]
        self.precision = np.dtype(np.float32) if model.narrow else None
        # By the number of a program, which lives as long as the model: one path has one program.
        self.iterations = dict[int, list[Iteration]]()
        self.iterated = set[tuple[Place, ...]]()  # the places of all of them
        self.limits = dict[int, tuple[Case, Limit]]()  # by the identity of the case
        self.longer = dict[int, list[Longer]]()  # by the number of a program, too
        self.without = Counter[int]()  # points of a path at which no loop has taken further steps
        self.endings = dict[Site, bool]()  # of the loops that have
        self.patient = False  # whether several endings in a row end them
        self.format_given = min(given, key=lambda dtype: np.finfo(dtype).eps, default=None)

    def may_leave(self, cases: Sequence[Case], error: float) -> bool:
        """Tell whether a solver in a loss without a trace may leave this error."""
        box = self.model.black_box
        if box is None or not error <= LEFT_ROUGHLY:
            return False
        points = (widen(case.arguments) for case in cases[:ROUGH])
        return error <= LEFT or any(attempt(is_rough, box.loss, each) is True for each in points)

    @property
    def total(self) -> int:
        """The number of cases."""
        return len(self.model.cases)

    def call(self, case: Case, copy: Copy = copies) -> Call:
        """Copy the parameters into a new structure."""
        tree = self.model.trees[case.point.setting]
        params = tree.rebuild(copy(case.arguments))
        return Call((params,), {}, lambda: tree.find_leaves(params))

    def expect(self, case: Case) -> Expected:
        """Describe the gradients, by the names of the parameters, and the optional loss."""
        shapes = case.shapes
        dtype = max((v.dtype for v in case.arguments.values()), key=lambda d: np.finfo(d).precision)
        tree, known = self.model.trees[case.point.setting], {"loss": (), **shapes}
        read = partial(read_unused, tree.read, shapes) if self.model.in_torch else tree.read
        numbers = () if tree.arrays else tree.numbers
        return Expected(tuple(shapes), {}, known, dtype, read, tree.paths, self.zeros, numbers)

    def draw_contract_cases(self) -> Iterable[Case]:
        """Choose the parameters given."""
        model = self.model
        given = next((case for case in model.cases if case.point.number == 0), None)
        if given is None or (model.refusal and not model.losses_differ):
            return [Case("the parameters given", model.params[0], Point(0), None)]
        return [given]

    def draw_cases(self) -> Iterable[Case]:
        """Return the parameters given, then random ones."""
        return self.model.cases

    def displace(self, case: Case, number: int, distance: float) -> Case:
        """Move the parameters by random parts of themselves."""
        return self.model.displaced_case(case, number, distance)

    def scale_values(self, case: Case, factors: Sequence[float]) -> Iterable[Case]:
        """Scale all parameters of a drawn case; the parameters given are never excused."""
        if case.point.number == 0:
            return ()
        values = case.arguments.items()
        return [
            case._replace(arguments={n: v * v.dtype.type(f) for n, v in values}) for f in factors
        ]

    def follow_loss(
        self, submission: Submission, case: Case, answer: dict[str, Array] | Breach
    ) -> Submission | None:
        """Find the submission that calls the user's loss as it stands before each of its calls."""
        if self.loss is None or not self.model.in_numpy or hasattr(self.gradients, OF_CALLS):
            return None
        return follow_loss(submission, self, self.loss, case, answer)

    def may_be_outside(self, case: Case) -> bool:
        """Tell of any but the parameters given that a submission may refuse them."""
        return bool(case.point.number != 0)

    def draws_zeros(self, case: Case) -> bool:
        """Tell whether parameters of a drawn case are scaled by zero."""
        return bool(case.point.has_zeros)

    def is_extreme(self, case: Case) -> bool:
        """Tell whether parameters of a drawn case are scaled."""
        return bool(case.point.factors)

    def widen(self, case: Case) -> Case | None:
        """Convert what was drawn in float32 to the format of the parameters given."""
        given = self.model.params[case.point.setting]
        wide = {name: value.astype(given[name].dtype) for name, value in case.arguments.items()}
        same = all(wide[name].dtype == value.dtype for name, value in case.arguments.items())
        return None if same else case._replace(arguments=wide)

    def describe_unseen(self, compared: Sequence[Compared]) -> Iterable[str]:
        """Describe the only shapes, and from which limit on clipping would not have been seen.

        Where rounding hides a mistake in a gradient, it hides a clip, too.
        """
        if len(self.model.params) == 1 and compared:
            yield "No other shapes were tried: a list of settings as params tries them."
        largest = dict[str, float]()
        for found in compared:
            for each in found.comparisons:
                if each.conclusive and each.name in found.gradients:
                    here = float(np.max(np.abs(found.values[each.name])))
                    largest[each.name] = max(largest.get(each.name, 0.0), here)
        sizes = sorted(((size, name) for name, size in largest.items() if size), reverse=True)
        if not sizes:
            return
        ends = sizes if len(sizes) <= SHOWN else [sizes[0], sizes[-1]]
        said = [f"{size:.2g} in {find_symbol(name)}" for size, name in ends]
        between = " down to " if len(sizes) > SHOWN else " and "
        every = ", ".join(said[:-1]) + between + said[-1] if said[1:] else said[0]
        yield (
            f"The entries compared are at most {every}: a clip of a gradient to a larger limit "
            "would not have been seen."
        )

    def draw_far_cases(self, case: Case) -> Iterator[tuple[int, Case]]:
        """Scale a case up where autodiff's gradient stays finite, of a loss with one path alone."""
        if self.model.black_box is not None:
            return
        only = find_only(self.model.paths[case.point.setting].known)
        if only is None:
            return
        for factor in FAR:
            far = {name: value * factor for name, value in case.arguments.items()}
            with isolate_float64(self.model.loss):
                followed = attempt(only.gradient, widen(far), again=False)
            if isinstance(followed, Failure) or not are_finite({"": followed[0], **followed[1]}):
                return
            yield factor, case._replace(arguments=far)

    def draw_in_sets(self, case: Case) -> tuple[str, Iterator[Case]]:
        """Draw near the parameters given, in the sets that those are in."""
        sets = find_sets(case.arguments)
        said = " and ".join(f"{name} is {each.said}" for name, each in sets.items())
        return said, self.draw_projected(case.point, sets) if sets else iter(())

    def draw_projected(self, given: Point, sets: Mapping[str, SpecialSet]) -> Iterator[Case]:
        """Draw cases in sets where the loss is finite and raises no exception."""
        for number in IN_SETS:
            point = given._replace(number=number, near=True)
            drawn = self.model.draw(point)
            drawn |= {name: each.project(drawn[name]) for name, each in sets.items()}
            with isolate_float64(self.model.loss):
                case = attempt(self.model.make_case_of, drawn, point)
            if not isinstance(case, Failure) and are_finite(case.truth(np.float64, ()).values):
                yield case

    def draw_raising(self, case: Case) -> Iterator[Case]:
        """Draw the points of the same setting that were left out since the loss raises there."""
        for point in self.model.raising:
            if point.setting == case.point.setting:
                yield case._replace(arguments=self.model.draw(point))

    def describe_failing(self, compared: Sequence[Compared]) -> Iterable[str]:
        """Say so where the submission agrees at the parameters given, and near them or not.

        A gradient may hold only for some parameters, as that of an iteration that converges there,
        or for those of a set, as of symmetric matrices, of which the judge draws none.
        """
        home = [each for each in compared if each.case.point.number == 0 or each.case.point.near]
        given = [each for each in home if each.case.point.number == 0]
        failing = [each for each in compared if each.fails]
        if not given or not failing or not all(each.agrees for each in given):
            return
        if all(each.agrees for each in home):
            near = sum(each.case.point.near for each in home)
            also = f" and at the {count_cases(near)} drawn near them" if near else ""
            yield (
                f"Your gradients agree at the parameters given{also}. They disagree at "
                f"{len(failing)} of {len(compared) - len(home)} cases that are drawn further away. "
                "If they are meant to hold near the parameters given alone, as where an iteration "
                "of the loss converges, judge them there: --case 0."
            )
        elif any(each.fails for each in home):
            yield (
                "Your gradients agree at the parameters given, and disagree at "
                f"{len(failing)} of {len(compared) - len(given)} other cases, also near them. "
                "A mistake may not show where parameters are special, as zeros, a symmetric matrix "
                "or a vector of length 1. If yours always are, judge them there alone: --case 0."
            )

    def doubt_far(self, compared: Sequence[Compared]) -> list[str]:
        """Say so where gradients agree at the parameters given and near them alone.

        A loss without a trace may have a solver or an iteration that converges there alone.
        """
        near = [each for each in compared if each.case.point.near]
        if self.model.black_box is None or not near or not all(each.agrees for each in near):
            return []
        return [*self.describe_failing(compared)]

    def differentiate_traced(self, case: Case) -> dict[str, Array]:
        """Differentiate by jax.grad where differences are the reference; empty without a trace."""
        if self.model.black_box is None or not self.model.paths:
            return {}
        with isolate_float64(self.model.loss):
            followed = attempt(self.model.follow, case.arguments, case.point.setting)
        if isinstance(followed, Failure):
            return {}
        return {name: np.asarray(slope) for name, slope in followed.slopes.items()}

    def find_limits(self, case: Case) -> Iterator[Limit]:
        """Find the gradients of the fixed points that the loss iterates to, by kinds of loops."""
        program, iterations = self.find_iterations(case)
        if program is not None and iterations:
            if id(case) not in self.limits:
                with isolate_float64(self.model.loss):
                    limit = find_limit(program, iterations, widen(case.arguments))
                self.limits[id(case)] = case, limit
            yield self.limits[id(case)][1]
        if program is not None and program.decided:
            with isolate_float64(self.model.loss):
                further = self.find_further(program, case)
            if further is not None:
                yield further

    def find_further(self, program: Program, case: Case) -> Limit | None:
        """Find the gradients where the loops that decisions end take further steps."""
        params, known = widen(case.arguments), self.longer.setdefault(id(program), [])
        for each in known:
            if each.has_path(params):
                return each.find_limit(params)
        if self.without[id(program)] >= TRIED:
            return None
        trace = partial(self.model.retrace, params, case.point.setting)
        found = continue_loops(trace, params, self.endings, patient=self.patient)
        if found is None:
            self.without[id(program)] += 1
            return None
        known.append(found)
        self.endings |= found.endings
        self.patient = found.patient
        self.iterated |= found.added
        return found.find_limit(params)

    def find_iterated(self, case: Case) -> frozenset[Any]:
        """Find the places of the operations in iterations of the loss, on its path at a case.

        Where none repeats a step there, those that stand where iterations do on other paths.
        """
        program, iterations = self.find_iterations(case)
        if program is None:
            return frozenset()
        runs = [program.operations[each.start : each.end] for each in iterations]
        longer = [each.added for each in self.longer.get(id(program), [])]
        if runs or longer:
            repeated = frozenset(each.where for run in runs for each in run if each.where)
            return repeated.union(*longer)
        return frozenset(each.where for each in program.operations) & self.iterated

    def describe_iteration(self, case: Case) -> str:
        """Describe the line at which a step of an iteration ends, of one that contains no other."""
        program, iterations = self.find_iterations(case)
        inner = [each for each in iterations if not any(contains(each, o) for o in iterations)]
        places = find_place(program, inner[-1]) if program and inner else ()
        sites = [site for each in self.longer.get(id(program), []) for site in each.endings]
        place = next(iter([*places, *(site[0] for site in sites if site)]), None)
        return f" at `{place.text}` ({place})" if place else ""

    def find_iterations(self, case: Case) -> tuple[Program | None, list[Iteration]]:
        """Find the program of the path that the loss takes at a case, and its iterations."""
        with isolate_float64(self.model.loss):
            program = self.model.find_program(case.arguments, case.point.setting)
        if program is None:
            return None, []
        known = self.iterations.get(id(program))
        if known is None:
            known = self.iterations[id(program)] = find_iterations(program)
            for each in known:
                self.iterated |= {
                    o.where for o in program.operations[each.start : each.end] if o.where
                }
        return program, known

    def differentiate_unguarded(self, case: Case) -> list[dict[str, Array]]:
        """Differentiate the loss without its guards, in two ways; empty where it has none."""
        with isolate_float64(self.model.loss):
            program = self.model.find_program(case.arguments, case.point.setting)
            guards = [] if program is None else find_guards(program)
            if program is None or not guards:
                return []
            return differentiate_unguarded(program, guards, widen(case.arguments))

    def describe_guard(self, case: Case) -> str:
        """Describe the line of the last guard."""
        with isolate_float64(self.model.loss):
            program = self.model.find_program(case.arguments, case.point.setting)
        assert program is not None  # whose guards have been found
        return describe_place(program, find_guards(program)[-1])

    def differentiate_unrounded(self, case: Case) -> tuple[dict[str, Array], str]:
        """Differentiate what the loss rounds, and describe where it last does; empty if nowhere."""
        with isolate_float64(self.model.loss):
            program = self.model.find_program(case.arguments, case.point.setting)
            if program is None:
                return {}, ""
            unrounded = attempt(differentiate_unrounded, program, widen(case.arguments))
            return {} if isinstance(unrounded, Failure) else unrounded, describe_last(program)

    def describe_sizes(self, found: Compared) -> str:
        """Describe the case and the shapes of the parameters."""
        shapes = " ".join(f"{name}={v.shape}" for name, v in found.case.arguments.items())
        return f"{found.case.label}, {shapes}"

    def reproduce(self, found: Compared) -> str:
        """Write the line that compares at this case again."""
        case = self.write_case(found)
        call = f"compare_case(gradients, loss, params, {case!r}, seed={self.model.seed})"
        return f"from bptt_verifier import compare_case; print({call})"

    def write_case(self, found: Compared) -> str:
        """Write the point, as `compare_case` and `--case` take it."""
        return str(found.case.point.write())

    def shrink(self, attempt: Try, failing: Compared) -> Compared:
        """Find a failing case with few entries and values of one or two decimals.

        Another setting than that of the failing case is tried if it has fewer entries.
        """
        sizes = [sum(value.size for value in params.values()) for params in self.model.params]
        own = failing.case.point.setting
        smaller = (k for k, size in enumerate(sizes) if size < sizes[own])
        settings = [*sorted(smaller, key=sizes.__getitem__)[:SETTINGS], own]
        points = (
            Point(number, setting=setting, digits=digits)
            for setting in settings
            for digits, most in SIMPLE.items()
            for number in range(most)
        )
        for point in points:
            with suppress(CodeRaisedError):  # the loss may be defined elsewhere alone
                found = attempt(self.model.make_case(point))
                if found is not None and found.fails:
                    return found
        return failing

    def diagnose(
        self, attempt: Try, cases: Sequence[Compared], probes: Sequence[Compared]
    ) -> tuple[Mistake, ...]:
        """Find the mistakes that explain the first failing cases."""
        # The parameters given come last: they may be small, and small values hide mistakes.
        chosen = sorted(cases, key=lambda found: (found.case.single, found.case.point.number == 0))
        setting = chosen[0].case.point.setting
        chosen = [found for found in chosen if found.case.point.setting == setting]
        with isolate_float64(self.model.loss):
            programs = [self.model.find_program(each.case.arguments, setting) for each in chosen]
            pairs = zip(chosen, programs, strict=True)
            chosen = [each for each, program in pairs if program is programs[0]]
            # Where the loss has another derivative than derivations have, a mistake is hidden.
            clear = [each for each in chosen if not is_special(self, each)]
            chosen = clear or chosen
            points = [(each, each.case.arguments) for each in choose_witnesses(chosen)]
            witnesses = [each.witness(widen(params), params) for each, params in points]
            if programs[0] is None:
                return diagnose_black_box(witnesses)
            return diagnose(programs[0], witnesses, partial(self.record, setting))

    def chart_steps(self, cases: Sequence[Compared]) -> tuple[Curve, ...]:
        """Chart the adjoints that the gradients imply in the first failing case in float64."""
        first = min(cases, key=lambda found: (found.case.single, found.case.point.number == 0))
        params = first.case.arguments
        with isolate_float64(self.model.loss):
            program = self.model.find_program(params, first.case.point.setting)
            if program is None:
                return ()
            return chart_adjoints(program, first.witness(widen(params), params))

    def record(self, setting: int, params: Mapping[str, Array]) -> list[Recorded]:
        """Record the operations of the submission at a point; none where there is no function."""
        if self.gradients is None:
            return []
        return record_submission(self.gradients, self.model.trees[setting], params)


def read_unused(
    read: Callable[[Any], Any], shapes: Mapping[str, tuple[int, ...]], result: Any
) -> Any:
    """Read gradients, of which None is zero: torch.autograd's for a parameter without use."""
    found = read(result)
    if isinstance(found, tuple) and len(found) == 2:
        return found[0], read_unused(lambda named: named, shapes, found[1])
    if not isinstance(found, Mapping):
        return found
    return {n: np.zeros(shapes[n]) if v is None and n in shapes else v for n, v in found.items()}


def record_submission(
    gradients: Callable[[Any], Any], tree: Tree, params: Mapping[str, Array]
) -> list[Recorded]:
    """Record the operations of a submission, without the judge's functions around it."""
    # Of the user's code as it stands, it is the function of parameters, not the user's own.
    function = getattr(gradients, OF_CALLS, None) or unwrap(gradients)
    if tree.tensors:
        return record(over_arrays(function, [tree]), params)
    return record(lambda arrays: function(tree.rebuild(arrays)), params)
