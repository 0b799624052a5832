"""The cells as subjects: the RNN, the LSTM and the GRU."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, combinations, product, starmap
from typing import Any

import numpy as np

from bptt_verifier.judge.computed_ahead import LargeReferences, load_programs_of
from bptt_verifier.judge.first_states import TakenStates
from bptt_verifier.judge.neighbours import list_failing
from bptt_verifier.judge.shared_truths import share_truths
from bptt_verifier.judge.subject import Compared, Copy, Subject, Try
from bptt_verifier.judge.submission import Call, Expected
from bptt_verifier.judge.weights import NAMES, WEIGHTS, order_names, write_call
from bptt_verifier.problems.cached import cached_by_content
from bptt_verifier.problems.draws import round_values, with_values
from bptt_verifier.problems.extremes import (
    LARGE,
    LARGE_PROBLEMS,
    MODERATE,
    SMALL,
    draw_degenerate_problems,
    draw_padded_problem,
    draw_problem_with_all_sizes_large,
    draw_problems_of_large_sizes,
    draw_problems_of_large_values,
    draw_problems_of_sizes,
    draw_pulses,
    keep_states,
)
from bptt_verifier.problems.problem import (
    CELLS,
    GATES,
    LARGEST,
    LOSSES,
    OPTIONS,
    Problem,
    Sizes,
    list_shapes,
)
from bptt_verifier.program.attempt import copies
from bptt_verifier.reference import complex_step
from bptt_verifier.reference.autodiff import (
    find_values,
    fits_capacity,
    has_derived_bound,
    large_truth,
    measure_truth,
    prefetch_truths,
    start_large_reference,
    truth,
)
from bptt_verifier.reference.case import Case, FindTruth
from bptt_verifier.reference.exact_values import Computed
from bptt_verifier.reference.second_opinion import contradict_signs
from bptt_verifier.report import Mistake, Size
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.scatter import displace
from manual_bptt import activations, losses

PROBE = Sizes(T=30, B=1, D=30, H=5, O=2)
SPREADS = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)  # of W times √H: vanishing to exploding
TARGETS = (1.0, 10.0, 100.0)  # standard deviations of y in random problems
PROBES = 2  # of each spread and precision
TWICE = 4  # cases at which a submission is called twice
CONFIRMED = 12  # cases whose reference is compared with complex steps
# Sizes for the diagnosis: all different, with O = H, with a batch of one and D = H, and others.
FRESH = (
    Sizes(7, 3, 4, 5, 2),
    Sizes(5, 2, 6, 4, 3),
    Sizes(9, 4, 2, 3, 3),
    Sizes(4, 1, 5, 5, 4),
    Sizes(12, 2, 3, 6, 1),
)
LONG = SMALL._replace(T=120, B=1, D=33)  # for a mistake that may depend on T
READABLE = Sizes(4, 2, 2, 2, 2)  # the largest counterexample that a reader can follow
DECIMALS = (1, 2, None)  # of its numbers; the fewest that show the mistake at this size
# A submission that needs longer than this many seconds for `MODERATE`, and so much longer with many
# hidden units than with few, may need minutes where all sizes are large.
QUICK, GROWTH = 0.03, 5
FIRST, KINDS = 2, 4  # failing cases of any kind, and of others, that a name must explain
CHEAP = 20_000  # T B (D + H) of a problem on which every known mistake can be tried
PRINTED = 1_000  # numbers, at most, in a line that calls the submission


@dataclass(frozen=True)
class CellSubject(Subject):
    """The stated model of a submission, and the choice of problems."""

    cell: str
    option: str
    loss: str
    bias: bool
    states: TakenStates
    examples: int
    seed: int
    sizes: tuple[Sizes, ...] = ()  # that the user asks for
    workers: int = 1  # processes that compute the references of the random problems
    has_vanishing_steps = True
    omitted: list[str] = field(default_factory=list, compare=False)  # sentences, for the report

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Sentences on omitted problems."""
        return tuple(self.omitted)

    @property
    def stated(self) -> str:
        """The stated model."""
        names = [name for name in (self.option, self.loss) if name]
        return f"the stated model ({self.cell}, {', '.join(names)})"

    @property
    def total(self) -> int:
        """The number of random problems and probes."""
        drawn = self.examples + 4 * (self.cell == "rnn") + len(SPREADS) * PROBES * 2
        large = (LARGE_PROBLEMS + 3 * len(self.sizes)) * (2 if self.states.optional else 1)
        return drawn + len(self.small_extremes) + large

    def draw_problem(
        self, rng: np.random.Generator, sizes: Sizes, dtype: Any, **scales: Any
    ) -> Problem:
        """Draw a problem of the stated model, with the initial states that the submission takes."""
        problem = with_values(
            rng, sizes, cell=self.cell, option=self.option, dtype=dtype, loss=self.loss,
            bias=self.bias, initial_state=bool(self.states.all), **scales,
        )  # fmt: skip
        return problem._replace(first={name: problem.first[name] for name in self.states.all})

    def make_case(self, problem: Problem, known: FindTruth | None = None) -> Case:
        """Make the case of a problem; unless the truth is given, it is computed on demand."""
        if known is None:
            known = partial(truth if fits_capacity(problem) else measure_truth, problem)
        return Case(
            f"{problem.sizes}, {problem.x.dtype}",
            problem.weights | {"x": problem.x, "y": problem.y} | problem.first,
            problem,
            known,
        )

    def make_large_case(self, problem: Problem) -> Case:
        """Make the case of a problem of any size; errors of a large one are not measured."""
        case = self.make_case(problem)
        return (
            case if fits_capacity(problem) else case._replace(truth=partial(large_truth, problem))
        )

    def call(self, case: Case, copy: Copy = copies) -> Call:
        """Copy the parameters, x, y and the initial states for one call."""
        arrays, states = copy(case.arguments), self.states.select(case.point.first)
        weights = {name: arrays[name] for name in case.point.weights}
        in_order = [arrays[name] for name in ("x", "y", *states.in_order)]
        given = (WEIGHTS[len(weights)](**weights), *in_order)
        return Call(given, {name: arrays[name] for name in states.by_name}, lambda: arrays)

    def expect(self, case: Case) -> Expected:
        """Describe the gradients: by name, or in the order of the parameters."""
        names = tuple(case.point.weights)
        shapes = list_shapes(self.cell, case.point.sizes)
        optional = {*CELLS[self.cell].Gradients._fields, "prediction", "loss"}
        absent = {name for name in NAMES if name not in names}  # biases of a model without any
        known = {name: shape for name, shape in shapes.items() if name in optional - absent}
        return Expected(names, order_names(names), known, case.point.x.dtype)

    def draw_random_problems(self, cases: range) -> Iterator[Problem]:
        """Draw problems of all sizes within the capacity, in float64 and float32 by turns."""
        for case in cases:
            rng = np.random.default_rng([self.seed, case])
            sizes = Sizes(*(int(rng.integers(1, most + 1)) for most in LARGEST))
            dtype = np.float64 if case % 2 == 0 else np.float32
            spread, target_scale = rng.uniform(0.5, 1.5), TARGETS[rng.integers(len(TARGETS))]
            yield self.draw_problem(rng, sizes, dtype, spread=spread, target_scale=target_scale)

    def draw_contract_cases(self) -> Iterable[Case]:
        """Choose the first random problems."""
        return map(self.make_case, self.draw_random_problems(range(min(TWICE, self.examples))))

    def draw_cases(self) -> Iterator[Case]:
        """Draw random problems, then those in which ∂L/∂W separates the steps."""
        yield from starmap(self.make_case, self.find_truths())
        if self.cell == "rnn":
            yield from starmap(self.make_case, prefetch_truths(self.draw_state_probes()))

    def find_truths(self) -> Iterator[tuple[Problem, FindTruth]]:
        """Find the truths of all random problems, with the workers if there are any."""
        if self.workers == 1:
            return prefetch_truths(self.draw_random_problems(range(self.examples)))
        draw = replace(self, omitted=[]).draw_random_problems
        return share_truths(draw, self.examples, self.workers)

    def draw_state_probes(self) -> Iterator[Problem]:
        """Draw sequences whose states have one active unit each, so that ∂L/∂W separates the steps.

        Column j of Σ_t δ_t h_{t-1}ᵀ is then the δ_t of one step: the one after unit j was active. A
        wrong δ_t shows however small it is. Weights are small, so early steps vanish; U cancels the
        contribution of W. A sigmoid is never zero, so its states overlap. The inactive units of a
        relu are at −1, away from its kink.
        """
        H = LARGEST.H
        sizes = Sizes(T=H, B=1, D=H, H=H, O=2)
        phi = activations.find(self.option)
        for case, (spread, dtype) in enumerate(product((0.01, 0.3), (np.float64, np.float32))):
            rng = np.random.default_rng([self.seed, case, 4])
            problem = self.draw_problem(rng, sizes, dtype, spread=spread)
            W, b = problem.params.W, problem.params.b
            unit = np.eye(H, dtype=dtype)
            state = unit[0] / 2 if problem.first else np.zeros(H, dtype)
            first = dict.fromkeys(problem.first, state[None])
            U = np.empty((H, H), dtype)
            for t in range(1, H + 1):
                wanted = unit[t % H] - (1 - unit[t % H] if self.option == "relu" else 0)
                U[:, t - 1] = wanted - W @ state - (0 if b is None else b)
                state = phi.function(wanted)
            params = problem.params._replace(U=U)
            yield problem._replace(params=params, x=unit[:, None, :], first=first)

    def draw_probes(self) -> Iterable[Case]:
        """Draw long single sequences of one-hot inputs: column t of ∂L/∂U is δ_t. (B4)"""
        return starmap(self.make_case, prefetch_truths(self.draw_one_hot_problems()))

    def draw_one_hot_problems(self) -> Iterator[Problem]:
        """Draw the problems of the probes, whose gradients range from vanishing to exploding."""
        kinds = product(SPREADS, range(PROBES), (np.float64, np.float32))
        for case, (spread, _, dtype) in enumerate(kinds):
            rng = np.random.default_rng([self.seed, case, 1])
            problem = self.draw_problem(rng, PROBE, dtype, spread=spread)
            # The inputs are 0 or 1: U is drawn for them, so that it does not saturate the states.
            U = rng.normal(size=(GATES[self.cell] * PROBE.H, PROBE.D)).astype(dtype)
            x = np.eye(PROBE.T, dtype=dtype)[:, None, :]
            yield problem._replace(params=problem.params._replace(U=U), x=x)

    def displace(self, case: Case, number: int, distance: float) -> Case:
        """Move the parameters, x, y and the initial states by random parts of themselves."""
        rng = np.random.default_rng([self.seed, number, 5])
        problem = case.point.map_arrays(partial(displace, distance=distance, rng=rng))
        return self.make_case(problem)._replace(truth=partial(find_values, problem))

    @cached_property
    def small_extremes(self) -> tuple[Problem, ...]:
        """Degenerate problems, those of large values, and those without an optional state."""
        draw, rng = self.draw_problem, np.random.default_rng([self.seed, 10])
        problems = [*draw_degenerate_problems(draw, self.seed)]
        if self.cell != "rnn" or self.option != "relu":  # any slope of relu is right at zero
            problems.append(draw_padded_problem(draw, self.seed))
        problems += draw_problems_of_large_values(draw, self.seed)
        optional = self.states.optional
        for omitted in chain.from_iterable(combinations(optional, n + 1) for n in range(2)):
            for sizes, dtype in product(FRESH[:2], (np.float64, np.float32)):
                problem = draw(rng, sizes, dtype)
                problems.append(keep_states(problem, set(problem.first) - set(omitted)))
        return tuple(problems)

    def draw_extreme_cases(self) -> Iterator[Case]:
        """Draw extreme problems, small and large, and those of the sizes that the user asks for."""
        yield from starmap(self.make_case, prefetch_truths(self.small_extremes))
        draw, seed, seconds = self.draw_problem, self.seed, dict[Sizes, float]()
        every, whole = self.large_references.problems, Sizes(*LARGE)
        large = [problem for problem in every if problem.sizes != whole]
        for number, problem in enumerate(large):
            for each in large[number : number + 2]:  # JAX computes the next one meanwhile
                start_large_reference(each)
            start_large_reference(problem)()
            began = time.thread_time()
            yield self.make_large_case(problem)
            seconds[problem.sizes] = time.thread_time() - began
        duration = seconds[MODERATE]
        wide, narrow = SMALL._replace(H=LARGE.H), SMALL._replace(O=LARGE.O)
        if duration <= QUICK or seconds[wide] <= GROWTH * seconds[narrow]:
            yield from map(self.make_large_case, every[len(large) :])
        else:
            self.omitted.append(
                f"{whole} together were not tried, because your code needs {duration:.2g} "
                f"s with {MODERATE}. The option `sizes` tries them."
            )
        for sizes in self.sizes:
            asked = self.leave_states_out(draw_problems_of_sizes(draw, seed, sizes))
            yield from map(self.make_large_case, asked)

    @cached_property
    def large_references(self) -> LargeReferences:
        """References of problems with one large size, all moderate, and last all large."""
        draw, seed = self.draw_problem, self.seed
        found = draw_problems_of_large_sizes(draw, seed)
        every = chain(found, [draw_problem_with_all_sizes_large(draw, seed)])
        return LargeReferences((*self.leave_states_out(every),))

    def leave_states_out(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield each problem, and again without the states that a submission need not take."""
        for problem in problems:
            yield problem
            if self.states.optional:
                yield keep_states(problem, set(problem.first) - set(self.states.optional))

    def compute_ahead(self) -> None:
        """Let JAX compute the reference of a large problem, unless it still does."""
        self.large_references.advance()

    def load_programs(self) -> None:
        """Load the programs for all kinds of problems ahead."""
        random = next(self.draw_random_problems(range(1)))
        probe = next(self.draw_one_hot_problems())
        load_programs_of(random, probe, self.large_references.problems[0])

    def find_largest_sizes(self, cases: Iterable[Case]) -> dict[str, Size]:
        """Find the largest size of each kind in these cases, by its letter."""
        found = [case.point.sizes for case in cases]
        return {n: max(sizes[i] for sizes in found) for i, n in enumerate(Sizes._fields) if found}

    def contradict(self, number: int, case: Case) -> str | None:
        """Describe where complex steps contradict the reference, in the first cases."""
        if number >= CONFIRMED:
            return None
        doubt = find_contradiction(case.point)
        return None if doubt is None else f"With {case.label}, {doubt}"

    def name_model_of_loss(self, case: Case, value: float) -> str:
        """Name the option and loss whose value this is, if there are any."""
        at, module = case.point, CELLS[self.cell]
        for option, loss in product(OPTIONS[self.cell], LOSSES):
            options = dict.fromkeys(at.option, option)
            prediction = module.predict(at.params, at.x, **at.first, **options)
            other = float(losses.LOSSES[loss].value(prediction, at.y))
            stated = (option, loss) == (self.option, self.loss)
            if not stated and abs(other - value) <= 1e-6 * abs(other):
                named = ", ".join(f"{name} {option}" for name, option in options.items())
                return f" It is that of {named or self.cell} with loss {loss}."
        missing = [name for name in self.states.all if name not in at.first]
        return f" {' and '.join(missing)} was not given: it is zero." if missing else ""

    def describe_sizes(self, found: Compared) -> str:
        """Describe the sizes, the model and the dtype."""
        at = found.case.point
        names = [name for name in (self.cell, self.option, self.loss) if name]
        return f"{at.sizes}, {', '.join(names)}, {at.x.dtype}"

    def reproduce(self, found: Compared) -> str:
        """Write the line that calls the submission with these arrays."""
        if sum(value.size for value in found.case.arguments.values()) > PRINTED:
            chosen = {"rnn": {"activation": self.option}, "gru": {"reset": self.option}}
            options = {
                "model": self.cell, **chosen.get(self.cell, {}), "loss": self.loss,
                "bias": self.bias, "sizes": [found.case.point.sizes._asdict()], "seed": self.seed,
            }  # fmt: skip
            written = ", ".join(f"{name}={value!r}" for name, value in options.items())
            return f"from bptt_verifier import verify; print(verify(gradients, {written}))"
        return write_call(found.case.arguments, self.states.select(found.case.point.first).by_name)

    def shrink(self, attempt: Try, failing: Compared) -> Compared:
        """Find the smallest case that fails, with numbers of one digit if possible."""
        dtype, given = failing.case.point.x.dtype, failing.case.point.first
        # The errors of a gated cell are measured, which costs ten times the derived bound.
        numbers = 8 if has_derived_bound(failing.case.point) else 3

        def fails_with(sizes: Sizes, decimals: int | None = None) -> Compared | None:
            for number in range(numbers):
                rng = np.random.default_rng([self.seed, number, 2])
                problem = keep_states(self.draw_problem(rng, sizes, dtype), given)
                if decimals is not None:
                    problem = round_values(problem, decimals)
                found = attempt(self.make_case(problem))
                if found is not None and found.fails:
                    return found
            return None

        # If no problem of the largest small size fails, the smaller ones are not tried.
        decimals = next((n for n in DECIMALS if fails_with(READABLE, n) is not None), -1)
        if decimals != -1:
            small = (Sizes(*each) for each in product(*(range(1, most + 1) for most in READABLE)))
            for sizes in sorted(small, key=lambda s: (sum(s), s)):
                if (found := fails_with(sizes, decimals)) is not None:
                    return found
        if is_large(failing):
            return self.shrink_large(attempt, failing)
        best: Compared | None = failing
        while best is not None:
            failing, sizes = best, best.case.point.sizes
            larger = ((letter, size) for letter, size in sizes._asdict().items() if size > 1)
            smaller = (sizes._replace(**{letter: size - 1}) for letter, size in larger)
            best = next(filter(None, map(fails_with, smaller)), None)
        return failing

    def shrink_large(self, attempt: Try, failing: Compared) -> Compared:
        """Reduce one size of a large problem after the other, by bisection, while it fails."""
        sizes, dtype = failing.case.point.sizes, failing.case.point.x.dtype
        smallest = failing

        def fails_with(sizes: Sizes) -> Compared | None:
            for draw in (partial(draw_pulses, self.draw_problem), self.draw_problem):
                problem = draw(np.random.default_rng([self.seed, 11]), sizes, dtype)
                case = self.make_large_case(keep_states(problem, failing.case.point.first))
                found = attempt(case)
                if found is not None and found.fails:
                    return found
            return None

        for letter in Sizes._fields:
            low, high, middle = 0, getattr(sizes, letter), 1
            while high - low > 1:
                reduced = sizes._replace(**{letter: middle})
                found = fails_with(reduced)
                if found is None:
                    low = middle
                else:
                    sizes, high, smallest = reduced, middle, found
                middle = (low + high) // 2
        return smallest

    def diagnose(
        self, attempt: Try, cases: Sequence[Compared], probes: Sequence[Compared]
    ) -> tuple[Mistake, ...]:
        """Find the mistakes that explain failing cases, failing probes and fresh cases."""
        # A right derivation needs no catalogue of mistakes, which takes long to import.
        from bptt_verifier.mistakes.cells import diagnose  # noqa: PLC0415

        by_cost = sorted(cases, key=lambda each: is_large(each) and work(each))
        found = [*choose_kinds(by_cost), *choose_kinds(probes)]
        only_large = is_large(found[0])
        if only_large:
            small = found[0] if work(found[0]) <= CHEAP else self.shrink_large(attempt, found[0])
            # A name is given by numbers within measured errors, which take seconds here.
            measured = attempt(self.make_case(small.case.point))
            others = [each for each in found[1:] if work(each) <= CHEAP]
            found = [small if measured is None or not measured.fails else measured, *others]
        dtype = found[0].case.point.x.dtype  # in which something fails
        for sizes in FRESH:
            rng = np.random.default_rng([self.seed, 3, *sizes])
            fresh = attempt(self.make_case(self.draw_problem(rng, sizes, dtype, target_scale=10.0)))
            if fresh is not None:
                found.append(fresh)

        def find_mistakes() -> tuple[Mistake, ...]:
            witnesses = [each.witness(each.case.point, each.gradients) for each in found]
            return diagnose(witnesses, several=not only_large)

        mistakes = find_mistakes()
        if any(mistake.name == "truncated" for mistake in mistakes):
            # A state that is detached every k steps is a truncation at one length alone. After a
            # large failing case, pulses at every step show the number of steps.
            sizes = LONG._replace(D=LONG.T) if only_large else LONG
            rng = np.random.default_rng([self.seed, 12])
            long = self.make_large_case(draw_pulses(self.draw_problem, rng, sizes, dtype))
            longer = attempt(long)
            if longer is not None:
                found.append(longer)
                return find_mistakes()
        return mistakes

    def choose_for_exact_values(self, compared: Sequence[Compared]) -> Iterator[Computed]:
        """Choose all results, of the small problems first, in the format that judges them."""
        found = []
        for each in compared:
            gradients = {name: each.submitted[name] for name in each.gradients}
            dtype = max((each.dtypes[name] for name in gradients), key=find_unit)
            found.append(Computed(each.case.point, gradients, dtype))
        return iter(sorted(found, key=lambda computed: computed.size))


def choose_kinds(failing: Sequence[Compared]) -> list[Compared]:
    """Choose the first failing cases, and the first of each other kind.

    A mistake may show only without an initial state, at one size or in one gradient. Two mistakes
    would otherwise share the name of the one that the first cases show.
    """
    seen, chosen = set[Any](), list[Compared]()
    for number, each in enumerate(failing):
        point, wrong = each.case.point, frozenset(list_failing(each))
        beyond = tuple(size > most for size, most in zip(point.sizes, LARGEST, strict=True))
        kind = tuple(point.first), beyond, point.sizes.T == 1, wrong
        if number < FIRST or (kind not in seen and len(chosen) < FIRST + KINDS):
            chosen.append(each)
        seen.add(kind)
    return chosen


def is_large(found: Compared) -> bool:
    """Tell whether a case is beyond the capacity of small problems."""
    return not fits_capacity(found.case.point)


def work(found: Compared) -> int:
    """T B (D + H) of a case, to which the duration of a backward pass is proportional."""
    T, B, D, H, _ = found.case.point.sizes
    return int(T * B * (D + H))


@cached_by_content(8 * CONFIRMED)
def find_contradiction(problem: Problem) -> str | None:
    """Find a contradiction between complex steps and the reference of a problem."""
    point = complex_step.collect_point(problem)
    known = truth(problem, np.float64, ())
    asked = {name: value for name, value in point.items() if name in known.values}

    def loss(moved: Any) -> Any:
        return complex_step.evaluate_loss(problem, point | dict(moved))

    return contradict_signs(loss, asked, known, problem.sizes.T)
