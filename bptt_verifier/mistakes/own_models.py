"""Hypotheses of mistakes in the user's own model, from the operations of its traced loss."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice, pairwise, zip_longest
from typing import Any

import numpy as np

from bptt_verifier.mistakes.backward_lines import Line
from bptt_verifier.mistakes.called_results import (
    find_called_result,
    find_inside_known,
    have_one_effect,
)
from bptt_verifier.mistakes.corrections import describe_correction
from bptt_verifier.mistakes.evidence import SLACK, Evidence
from bptt_verifier.mistakes.fitted_factors import list_fitting_factors
from bptt_verifier.mistakes.guessed_lines import Guess
from bptt_verifier.mistakes.hypotheses import BackwardPass, Match
from bptt_verifier.mistakes.identity import ByIdentity
from bptt_verifier.mistakes.in_operations import list_tiers
from bptt_verifier.mistakes.in_other_values import list_other_values
from bptt_verifier.mistakes.in_time import DROPPED
from bptt_verifier.mistakes.known_factors import (
    SMALLEST,
    find_share,
    list_factors,
    scale_path,
)
from bptt_verifier.mistakes.located_mistakes import locate_mistake
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    can_merge,
    merge,
)
from bptt_verifier.mistakes.other_names import (
    add_names,
    find_factor,
    leave_out_coincidences,
    put_place_first,
    select_statements,
)
from bptt_verifier.mistakes.pair_order import (
    PAIRS,
    measure_error,
    rank_by_count,
    rank_by_effect,
    rank_by_order,
    rank_by_row,
)
from bptt_verifier.mistakes.penalties import find_decay, list_partial_decays
from bptt_verifier.mistakes.restatements import restate
from bptt_verifier.mistakes.single_gradients import (
    GENERIC,
    Factor,
    Finding,
    list_clippings,
    list_common_findings,
    list_update_findings,
    restrict,
    shorten,
)
from bptt_verifier.mistakes.step_terms import chart_terms
from bptt_verifier.mistakes.submitted_lines import (
    Record,
    add_gradient_line,
    find_mistaken_line,
    record_operations,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.backward import backward
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.repeated_factors import find_repeated_factors
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import Program
from bptt_verifier.report import Mistake

ENTRIES = 2**23  # numbers in the largest array of all combinations that are tried together
IN_CACHE = 2**16  # numbers in the largest array of one sweep: beyond, memory takes most of its time
STORED_NUMBERS = 2**24  # numbers in the gradients that are stored of single mistakes, at most
SINGLE = 500  # single mistakes that are tried in any case
SINGLE_NUMBERS = 2**29  # numbers computed for all single mistakes, at most
OTHER_NUMBERS = 2**26  # numbers computed for other names, where one is found, at most
PAIR_NUMBERS = 2**23  # numbers computed for all pairs, at most
WHOLE_PAIRS = 64  # pairs with a mistake that has a sweep of its own for each, at most
FIRST_PARTNERS = 300  # mistakes that are tried beside each promising one first
DISTINCT = 2000  # mistakes of different effects whose pairs are ranked, at most

CUTS = frozenset(["zero-gradient", DROPPED])  # mistakes that cut paths


class OwnHypotheses:
    """The mistakes in the operations of a loss and in single gradients."""

    def __init__(
        self,
        program: Program,
        evidence: Sequence[Evidence],
        record: Record | None = None,
        holds: Callable[[OperationMistake], bool] = lambda made: True,
    ) -> None:
        self.program, self.record, self.evidence = program, record, evidence
        self.structure, self.names = structure(program), tuple(program.leaves)
        values = evidence[0].forward
        sizes = {slot: v[0].size for slot, v in enumerate(values) if v is not None}
        largest, self.size = max(sizes.values()), sum(sizes.values())
        self.holds = holds  # elsewhere, of a mistake that explains all numbers of this evidence
        self.batch = max(1, min(256, ENTRIES // max(1, largest)))
        # Constants have no cotangents, and that of a repeated factor is written once in a sweep.
        once = {*program.constants, *find_repeated_factors(program)}
        moving = max((size for slot, size in sizes.items() if slot not in once), default=1)
        self.at_once = max(1, IN_CACHE // max(1, moving))  # combinations in one sweep
        # Of single mistakes at the first case: what they change, their gradients as far as memory
        # allows, and the changes of those that are tried in pairs.
        self.effects = ByIdentity[OperationMistake, Array]()
        self.swept = ByIdentity[OperationMistake, BackwardPass]()
        self.pair_changes = ByIdentity[OperationMistake, Changes]()
        self.matches: list[Match] = []  # what they explain of the first case
        self.pairs = 0, 0  # pairs tried, of how many
        self.omitted = 0  # single mistakes that were not tried, since the model is large
        self.listed = 0  # single mistakes that were to be tried
        self.failures = ByIdentity[OperationMistake, Failure]()  # of those that raised exceptions
        self.decays: dict[str, float] = {}  # multiples of parameters that penalties give gradients

    @property
    def others(self) -> int:
        """Number of mistakes that are tried for another name, where one is found."""
        return int(max(self.batch, OTHER_NUMBERS // self.size))

    @property
    def tiers(self) -> Iterator[list[OperationMistake]]:
        """The mistakes in the operations, the common ones first, as many as time allows."""
        left = max(SINGLE, SINGLE_NUMBERS // self.size)
        for tier in list_tiers(self.structure):
            self.listed += len(tier[:left])
            yield tier[:left]
            self.omitted += len(tier) - len(tier[:left])
            left -= len(tier[:left])

    def changes(self, case: Evidence, made: Sequence[OperationMistake]) -> Changes:
        """Merge the changes of some mistakes at the point of a case."""
        stored = self.pair_changes if case is self.evidence[0] else ()
        return merge(
            [
                self.pair_changes[each] if each in stored else each.changes(case.forward)
                for each in made
            ]
        )

    def sweep_back(
        self, case: Evidence, made: Sequence[tuple[OperationMistake, ...]]
    ) -> list[BackwardPass]:
        """Compute the gradients with each of these combinations, in one sweep."""
        stored = self.swept if case is self.evidence[0] else ()
        known = [len(each) == 1 and each[0] in stored for each in made]
        fresh = [each for each, found in zip(made, known, strict=True) if not found]
        rows = self.sweep_rows(case, fresh) if fresh else {}
        swept = iter(self.split_rows(case, rows, len(fresh)))
        pairs = zip(made, known, strict=True)
        return [self.swept[each[0]] if found else next(swept) for each, found in pairs]

    def split_rows(
        self, case: Evidence, rows: Mapping[str, Array], count: int
    ) -> list[BackwardPass]:
        """Split rows of gradients into backward passes."""
        params = {name: case.forward[slot][0] for name, slot in self.program.leaves.items()}
        return [
            BackwardPass({name: found[i] for name, found in rows.items()}, params)
            for i in range(count)
        ]

    def sweep_rows(
        self, case: Evidence, made: Sequence[tuple[OperationMistake, ...]]
    ) -> dict[str, Array]:
        """Compute every gradient with each of these combinations, along a leading axis.

        One that makes no sense in this program, such as a factor of another shape, gives NaN: it
        explains nothing, and does not end the search. A sweep has as many as the cache holds.
        """
        found = attempt(self.sweep_all, case, made) if len(made) <= self.at_once else None
        if isinstance(found, dict):
            return found
        if len(made) > 1:
            half = len(made) // 2
            parts = [self.sweep_rows(case, some) for some in (made[:half], made[half:])]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self.note_failure(made[0], found)
        leaves = self.program.leaves.items()
        return {name: np.full_like(case.forward[slot], np.nan, float) for name, slot in leaves}

    def sweep_all(
        self, case: Evidence, made: Sequence[tuple[OperationMistake, ...]]
    ) -> dict[str, Array]:
        """Compute every gradient with each of these combinations, all of which make sense."""
        rows = backward(self.program, case.forward, [self.changes(case, each) for each in made])
        for i, each in enumerate(made):
            others = [one.changes for one in each if one.whole is None]
            for whole in [one.whole for one in each if one.whole is not None]:
                # In a program of another structure it may make no sense, and explains nothing.
                found = attempt(whole, case.forward, others)
                nothing = dict.fromkeys(rows, np.nan)
                self.note_failure(each, found)
                for name, value in (nothing if isinstance(found, Failure) else found).items():
                    rows[name][i] = value
        return rows

    def note_failure(self, made: tuple[OperationMistake, ...], found: Any) -> None:
        """Note the exception that a mistake raised by itself, if it is one."""
        if isinstance(found, Failure) and len(made) == 1:
            self.failures[made[0]] = found

    def match(
        self, case: Evidence, made: Sequence[tuple[OperationMistake, ...]]
    ) -> list[frozenset[str]]:
        """Find the gradients of a case that each of these combinations explains."""
        rows = self.sweep_rows(case, made)
        near = {n: wanted.select_near(rows[n], SLACK) for n, wanted in case.wanted.items()}
        if case is self.evidence[0]:
            joined = case.scale({name: rows[name] for name in case.wanted})
            backs = self.split_rows(case, rows, len(made))
            for effect, back, each in zip(joined, backs, made, strict=True):
                if each:
                    self.effects[each[0]] = effect
                if each and joined.shape[1] * len(self.effects) <= STORED_NUMBERS:
                    self.swept[each[0]] = back
        explained = [frozenset(n for n in near if near[n][i]) for i in range(len(made))]
        if self.wrong_zeros:
            scaling = [self.is_scaling(case, each) for each in made]
            pairs = zip(explained, scaling, strict=True)
            explained = [names - self.wrong_zeros if scales else names for names, scales in pairs]
        if case is self.evidence[0]:
            self.matches += [Match(m[0], e) for m, e in zip(made, explained, strict=True) if m]
        return explained

    @cached_property
    def wrong_zeros(self) -> frozenset[str]:
        """The wrong gradients, if all of them are zero to rounding in the first case.

        A factor explains none of them: where one of two paths that cancel has it, the rest is a
        multiple of either path.
        """
        case = self.evidence[0]
        wrong = {n for n in case.wanted if not case.explains(n, case.reference[n])}
        zero = all(case.is_zero(n, case.reference[n]) for n in wrong)
        return frozenset(wrong if zero else ())

    def is_scaling(self, case: Evidence, made: tuple[OperationMistake, ...]) -> bool:
        """Tell whether mistakes do no more than multiply what is passed back by a number."""
        if not made or any(each.whole for each in made):
            return False
        changes = attempt(self.changes, case, made)
        return not isinstance(changes, Failure) and find_factor(changes) not in (None, 0.0)

    def list_fitted(self, matches: Sequence[Match]) -> list[OperationMistake]:
        """List the factors on paths whose effect is the submission's error, but for a factor.

        So it is in most entries: others may be clipped. A factor in a step has powers as an effect:
        on carried states sizes are tried, as pairs have them, and any other one is fitted.
        """
        found, case = list[OperationMistake](), self.evidence[0]
        error, exact_error = self.find_error(case), case.join_exactly(case.submitted)
        for made, _ in matches:
            if made.name not in CUTS or made in self.failures:
                continue
            changes = made.changes(case.forward).values()
            if not all(isinstance(c.after, float) and c.after == 0 and not c.send for c in changes):
                continue
            effect = self.effects[made] - self.right
            share, fitting = find_share(error, effect)
            if not fitting.any():
                continue
            if made in self.swept:  # the effects are kept in float32
                exact = case.join_exactly(self.swept[made].values)[fitting]
                share = float(exact @ exact_error[fitting]) / float(exact @ exact)
            factors = dict.fromkeys([shorten(1 - share), 1 - share])
            found += [scale_path(made, by) for by in factors if by != 1 and abs(by) > SMALLEST]
        every = [m for m, _ in matches if m.name == DROPPED and m.details.get("path") == "all"]
        sizes = [each.value(None) for each in self.factors if self.structure.carried]
        found += [scale_path(cut, by) for cut in every for by in sizes]

        def join(made: Sequence[OperationMistake]) -> Array:
            backs = self.sweep_back(case, [(each,) for each in made])
            return np.stack([case.join_exactly(back.values) for back in backs])

        return [*found, *list_fitting_factors(self.structure, every, join, exact_error)]

    def list_rarest(self) -> list[OperationMistake]:
        """List other data, or any other value, in an operand's place, as many as time allows."""
        every = list(islice(list_other_values(self.structure, self.recorded), self.others + 1))
        self.omitted += len(every) > self.others
        self.listed += len(every[: self.others])
        return every[: self.others]

    @cached_property
    def right(self) -> Array:
        """The true gradients of the first case, scaled and joined."""
        case = self.evidence[0]
        rows = {name: case.reference[name][None] for name in case.wanted}
        (joined,) = case.scale(rows)
        return np.asarray(joined)

    def find_error(self, case: Evidence) -> Array:
        """Find the submission's error, scaled and joined."""
        submitted = {name: wanted.submitted[None] for name, wanted in case.wanted.items()}
        (joined,) = case.scale(submitted)
        return np.asarray(joined - self.right)

    def list_pairs(
        self, evidence: Sequence[Evidence], matches: Sequence[Match]
    ) -> Iterator[tuple[OperationMistake, OperationMistake]]:
        """List pairs of mistakes in different operands, at most `PAIRS` of them.

        Four orders take turns: pairs whose effects add up to the submission's error, or nearly;
        pairs with a mistake that explains more gradients than the right backward pass, or more of
        the error; pairs of the mistakes that are listed first; and, every other time, pairs of one
        that leaves little of the error, and each other one.
        """
        case = evidence[0]
        single, counts, effects = self.select_distinct(case, matches)
        changes = [each.changes(case.forward) for each in single]
        for each, change in zip(single, changes, strict=True):
            self.pair_changes[each] = change
        edges = [frozenset(each) for each in changes]
        total = len(single) * (len(single) - 1) // 2
        (before,) = map(len, self.match(case, [()]))
        sizes = np.cumsum([0, *(wanted.submitted.size for wanted in case.wanted.values())])
        parts = [slice(one, other) for one, other in pairwise(sizes.tolist())]
        alone, squared, together = measure_error(self.find_error(case), effects, parts)
        by_count = rank_by_count(counts, before, alone, FIRST_PARTNERS)
        by_effect = rank_by_effect(together)
        by_row = rank_by_row(alone, squared, together)
        orders = by_effect, by_row, by_count, by_row, rank_by_order(len(single)), by_row
        seen = set[tuple[int, int]]()
        self.pairs = 0, total
        most = max(self.batch, min(PAIRS, PAIR_NUMBERS // self.size))
        wholes = 0
        for pair in chain.from_iterable(zip_longest(*orders)):
            if pair is None or pair in seen:
                continue
            if edges[pair[0]] & edges[pair[1]] and not can_merge(*(changes[k] for k in pair)):
                continue
            whole = sum(single[k].whole is not None for k in pair)
            if whole > 1 or wholes + whole > WHOLE_PAIRS:
                continue
            wholes += whole
            if len(seen) == most:
                return
            seen.add(pair)
            self.pairs = len(seen), total
            yield single[pair[0]], single[pair[1]]

    def list_partners(
        self, made: OperationMistake, matches: Sequence[Match]
    ) -> Iterator[tuple[OperationMistake, OperationMistake]]:
        """List pairs of this mistake and another one in other operands, as other names allow."""
        values = self.evidence[0].forward
        edges = made.changes(values).keys()
        for other, _ in matches[: self.others if made.whole is None else 0]:
            alone = other.whole is None and other not in self.failures
            if alone and edges.isdisjoint(other.changes(values)):
                yield made, other

    def select_distinct(
        self, case: Evidence, matches: Sequence[Match]
    ) -> tuple[list[OperationMistake], list[int], Array]:
        """Select mistakes with different effects, with the number of gradients they explain.

        Of those with one effect, the first is chosen whose name does not fit many others.
        """
        chosen: dict[bytes, tuple[OperationMistake, int, Array]] = {}
        for made, names in matches:
            effect = self.effects[made] - self.right
            if np.isfinite(effect).all() and np.max(np.abs(effect)) > 1e-5:
                with np.errstate(over="ignore"):
                    key = np.round(effect, 4).tobytes()
                generic = key in chosen and chosen[key][0].name in GENERIC
                if key not in chosen or (generic and made.name not in GENERIC):
                    chosen[key] = made, len(names), effect
        listed = [*chosen.values()][:DISTINCT]
        effects = np.array([effect for _, _, effect in listed]).reshape(-1, self.right.size)
        return [made for made, _, _ in listed], [count for _, count, _ in listed], effects

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[BackwardPass]
    ) -> Iterator[Finding]:
        """List the mistakes in one gradient, given a backward pass at each case."""
        if name not in self.decays:  # a sweep of its own, and the same at every case
            self.decays[name] = find_decay(self.program, evidence[0].forward, name)
        decay, read = self.decays[name], self.read_parameter
        yield from list_update_findings(name, evidence[0], backs[0], read, decay)
        yield from list_partial_decays(name, evidence, backs, read)
        yield from list_common_findings(name, evidence, backs, self.factors, self.clippings[name])

    @cached_property
    def clippings(self) -> dict[str, list[Finding]]:
        """The limits that each gradient may be clipped to, as all cases together show them.

        At one case, the entries of a gradient beyond its limit may all be one number.
        """
        having = {name: [c for c in self.evidence if name in c.wanted] for name in self.names}
        return {
            name: [*list_clippings(name, cases, self.names)] if cases else []
            for name, cases in having.items()
        }

    def read_parameter(self, name: str, back: BackwardPass) -> Array:
        """Read the parameter of this name."""
        return back.params[name]

    @cached_property
    def factors(self) -> list[Factor]:
        """The factors that are often wrong."""
        return list_factors(self.structure)

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """Find none: the user's loss is the forward pass."""
        return ()

    def find_equation(self, name: str) -> str | None:
        """Find none: docs/derivation.md has no equations of the user's model."""
        return None

    def count_places(self, made: OperationMistake) -> int:
        """Count the places that a mistake is made at together."""
        return max(1, len(made.places))

    def is_generic(self, made: OperationMistake) -> bool:
        """Tell whether other mistakes of this effect are likelier, as of a generic name."""
        return made.name in GENERIC or made.equation in self.inside_known

    @cached_property
    def inside_known(self) -> frozenset[int]:
        """The operations inside of a called function that is a known activation."""
        return find_inside_known(self.structure)

    def choose(self, made: Iterator[OperationMistake], first: Mistake | None) -> Mistake | None:
        """Choose the first with a specific name, and state the other names that explain as much."""
        stated = (restate(self, self.evidence, each) for each in filter(self.holds, made))
        values = self.evidence[0].forward
        every = leave_out_coincidences(self.program, values, stated, first is not None)
        every.sort(key=self.is_generic)
        if first is None:
            if not every:
                return None
            chosen = every[0]
            if self.is_generic(chosen):  # one that is made at fewer places is likelier
                chosen = min(every, key=lambda each: (each.name in GENERIC, len(each.places)))
            first = self.describe(chosen)
        others = [self.describe(each) for each in select_statements(self.program, values, every)]
        return add_names(*put_place_first(first, others))

    def describe(self, made: OperationMistake, names: Sequence[str] = ()) -> Mistake:
        """Describe a mistake as a report does, with the line of the loss and the operation."""
        made = restate(self, self.evidence, made)
        changed = self.changes(self.evidence[0], [made])
        call = find_called_result(self.structure, made, changed)
        place = None
        if call is not None and have_one_effect(self, self.evidence, made, call.made):
            place, made = call
        said, details = locate_mistake(self.structure, made, changed, names, place)
        case, shown = self.evidence[0], names or self.names
        right = describe_correction(self.program, case.forward, made.name, changed)
        found = self.find_line(made)
        if found is not None:
            details["backward" if isinstance(found, Line) else "backward_guess"] = found.details
        said = " ".join(filter(None, (f"{said}{made.alteration}.", right, str(found or ""))))
        charted = attempt(chart_terms, self.structure, case, changed, shown)
        curves = () if made.whole or isinstance(charted, Failure) else charted
        return restrict(Mistake(made.name, said, details, curves=curves), names)

    @cached_property
    def recorded(self) -> list[Recorded]:
        """The operations of the submission at the first case; empty where they are unknown."""
        if self.record is None:
            return []
        return record_operations(self.program, self.evidence[0], self.record)

    def add_line(self, mistake: Mistake) -> Mistake:
        """Add where the submission probably computes the one gradient that a mistake is in."""
        return add_gradient_line(mistake, self.evidence[0].submitted, self.recorded)

    def find_line(self, made: OperationMistake) -> Line | Guess | None:
        """Find the expression of the submission that makes a mistake, or guess it."""
        if made.whole is not None or not self.recorded:
            return None
        changed = self.changes(self.evidence[0], [made])
        # A repeated index is a mistake where an entry is written.
        writes = made.name == "repeated-index"
        values = self.evidence[0].forward
        return find_mistaken_line(self.structure, values, changed, self.recorded, writes)
