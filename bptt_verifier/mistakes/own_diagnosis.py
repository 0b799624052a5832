"""Diagnose a submission for the user's own model: a known mistake, or what is known of another."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bptt_verifier.mistakes.effort import find_effort
from bptt_verifier.mistakes.evidence import Evidence, Witness, make_evidence
from bptt_verifier.mistakes.guessed_lines import GUESS
from bptt_verifier.mistakes.in_conjugates import list_conjugate_mistakes
from bptt_verifier.mistakes.operation_mistakes import OperationMistake
from bptt_verifier.mistakes.own_models import OwnHypotheses
from bptt_verifier.mistakes.parts import describe_parts
from bptt_verifier.mistakes.places import list_places, measure_adjoints
from bptt_verifier.mistakes.search import explain, select_explaining, try_mistakes
from bptt_verifier.mistakes.single_gradients import GENERIC, join_symbols
from bptt_verifier.mistakes.softmaxes import detach_shifts
from bptt_verifier.mistakes.submitted_lines import Record
from bptt_verifier.mistakes.zero_gradients import describe_zeros
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.blas_threads import use_one_thread
from bptt_verifier.program.paths import leave_out_reshapes, prune
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import Program, forward
from bptt_verifier.report import Curve, Mistake
from bptt_verifier.tolerance.formats import find_unit

# Judges gradients that are stacked over some witnesses, by their numbers.
Fits = Callable[[Mapping[str, Array], Sequence[int]], bool]

# Two mistakes have one effect if their entries differ by less, in units of the largest true entry.
# It is the geometric mean of two unit roundoffs: float32's, in which effects are kept, and
# float16's, the finest format in which one mistake is judged for all of its group.
ALIKE = (find_unit(np.float32) * find_unit(np.float16)) ** 0.5


@use_one_thread()
def diagnose(
    program: Program, witnesses: Sequence[Witness], record: Record | None = None
) -> tuple[Mistake, ...]:
    """Find the mistakes that give the submission's numbers; empty where none do. Needs 64-bit JAX.

    The points of the witnesses are the parameters, in float64. `record` records the operations of
    the submission at such a point.
    """
    program = leave_out_reshapes(prune(program))
    evidence = collect_evidence(program, witnesses)
    known = OwnHypotheses(detach_shifts(program, evidence), evidence, record)
    if len(try_mistakes(known, evidence, ()).wrong) > 1:
        # Without a conjugate the gradients of all imaginary parts have the wrong sign.
        made = ((each,) for each in list_conjugate_mistakes(known.structure))
        for (one,) in select_explaining(known, evidence, made):
            return (known.describe(one),)
    found = explain(known, evidence)
    if not found:
        return describe_unknown(known, evidence)
    first, *others = map(known.add_line, found)
    wrong = try_mistakes(known, evidence, ()).wrong
    parts = describe_parts(known.structure, evidence, wrong)
    zeros = describe_zeros(known.structure, evidence, wrong)
    said = " ".join(filter(None, [first.explanation, parts, zeros]))
    others = [each for each in others if leave_out_guess(each) != leave_out_guess(first)]
    return first._replace(explanation=said), *others


def leave_out_guess(mistake: Mistake) -> str:
    """Leave out the guess at a line: two calls in one line make a mistake at two operations."""
    said, _, _ = mistake.explanation.partition(f" {GUESS}")
    return said


@use_one_thread()
def find_single_mistake(
    program: Program,
    witnesses: Sequence[Witness],
    holds: Callable[[OperationMistake], bool] = lambda made: True,
) -> tuple[Mistake, ...]:
    """Find the one mistake in an operation that gives all numbers of a submission, if there is one.

    It has to hold elsewhere, too. Needs 64-bit JAX.
    """
    program = leave_out_reshapes(prune(program))
    evidence = collect_evidence(program, witnesses)
    known = OwnHypotheses(program, evidence, holds=holds)
    return explain(known, evidence, several=False)


@use_one_thread()
def find_only_fit(
    program: Program,
    witnesses: Sequence[Witness],
    fits: Fits,
    holds: Callable[[OperationMistake], bool] = lambda made: True,
) -> tuple[Mistake, ...]:
    """Find the one mistake in an operation whose gradients fit, if no others do.

    `fits(gradients, chosen)` judges gradients that are stacked over the chosen witnesses: over the
    first alone, to leave most mistakes out quickly, and then over all. It has to hold elsewhere,
    too. Empty where mistakes of different gradients fit, and where the time of the effort ends
    before all are tried. Needs 64-bit JAX.
    """
    program = leave_out_reshapes(prune(program))
    evidence = collect_evidence(program, witnesses)
    known = OwnHypotheses(program, evidence, holds=holds)
    possible = list[tuple[OperationMistake, Array]]()
    for tier in known.tiers:
        for start in range(0, len(tier), known.batch):
            if not find_effort().goes_on():
                return ()
            chunk = tier[start : start + known.batch]
            rows = known.sweep_rows(evidence[0], [(made,) for made in chunk])
            rows = {name: rows[name] for name in evidence[0].wanted}
            joined = evidence[0].scale(rows)
            possible += [
                (made, joined[i])
                for i, made in enumerate(chunk)
                if fits({name: row[i][None] for name, row in rows.items()}, [0])
            ]
    fitting = list[list[OperationMistake]]()
    for group in group_by_effect(possible):
        if not find_effort().goes_on():
            return ()
        each = [known.sweep_back(case, [(group[0],)])[0] for case in evidence]
        stacked = {n: np.stack([back.gradient(n) for back in each]) for n in evidence[0].wanted}
        fitting += [group] if fits(stacked, range(len(evidence))) else []
    found = known.choose(iter(fitting[0]), None) if len(fitting) == 1 else None
    return () if found is None else (found,)


def group_by_effect(
    possible: Sequence[tuple[OperationMistake, Array]],
) -> list[list[OperationMistake]]:
    """Group mistakes that give the same gradients."""
    groups = list[tuple[Array, list[OperationMistake]]]()
    for made, effect in possible:
        for other, group in groups:
            if np.allclose(effect, other, 0, ALIKE):
                group.append(made)
                break
        else:
            groups.append((effect, [made]))
    return [group for _, group in groups]


def collect_evidence(program: Program, witnesses: Sequence[Witness]) -> list[Evidence]:
    """Collect the evidence of the witnesses for mistakes in a program."""
    steps, axes = structure(program).steps, dict.fromkeys(program.leaves)
    return [make_evidence(forward(program, w.point), steps, w, axes) for w in witnesses]


def chart_adjoints(program: Program, witness: Witness) -> tuple[Curve, ...]:
    """Chart the errors of the adjoints that a submission's gradients imply, step by step."""
    program = leave_out_reshapes(prune(program))
    (evidence,) = collect_evidence(program, [witness])
    return tuple(
        Curve(f"implied by {gradients}", tuple(e.relative for e in errors),
              tuple(e.allowed for e in errors))
        for gradients, errors in measure_adjoints(structure(program), evidence)
    )  # fmt: skip


def describe_unknown(known: OwnHypotheses, evidence: Sequence[Evidence]) -> tuple[Mistake, ...]:
    """Describe a mistake without a name: what was tried, and where the gradients are wrong."""
    wrong = try_mistakes(known, evidence, ()).wrong
    if not wrong:
        return ()
    which, (tried, total), effort = join_symbols(wrong), known.pairs, find_effort()
    said = f"no known mistake reproduces your numbers for {which}"
    if known.omitted or len(known.effects) < known.listed:
        count = len(known.effects)
        said = f"no mistake among the {count} likeliest reproduces your numbers for {which}"
    if known.omitted:
        said += f" ({known.omitted} others were not tried, since the model is large)"
    if total:
        said += f", nor does any of the {tried} likeliest of {total} pairs of mistakes"
    if effort.ended:
        said += f"; the search ended after its limit of {effort.seconds:g} s of processor time"
    if known.failures:
        said += f"; {len(known.failures)} of the mistakes cannot be computed in this model"
    part = find_partial_explanation(known, evidence, wrong)
    parts = describe_parts(known.structure, evidence, wrong)
    zeros = describe_zeros(known.structure, evidence, wrong)
    added = describe_added_constants(evidence, wrong)
    places = [
        *filter(None, [zeros, added, part, parts]),
        *list_places(known.structure, evidence, wrong),
    ]
    reasons = list(dict.fromkeys(each.what for each in known.failures.values()))
    details = {"gradients": wrong, "pairs": [tried, total], "places": places}
    details |= {"not computed": reasons} if reasons else {}
    return (Mistake("unknown", " ".join([f"{said}.", *places]), details),)


def describe_added_constants(evidence: Sequence[Evidence], wrong: Sequence[str]) -> str:
    """Describe the gradients that differ from the true ones by the same numbers in every case.

    So does one that is added to a buffer which is never filled with zeros. Empty where none does.
    """
    found = list[str]()
    for name in wrong:
        cases = [case for case in evidence if name in case.wanted]
        off = [case.wanted[name].submitted - case.reference[name] for case in cases]
        with np.errstate(all="ignore"):
            alike = (
                np.abs(each - off[0])
                <= 2 * case.wanted[name].allowed + find_unit(float) * 8 * np.abs(off[0])
                for each, case in zip(off, cases, strict=True)
            )
            telling = len({case.reference[name].tobytes() for case in cases}) > 1
            finite = all(np.isfinite(each).all() for each in off)
            if telling and finite and all(each.all() for each in alike):
                found.append(name)
    if not found:
        return ""
    verb = "differs" if len(found) == 1 else "differ"
    return (
        f"Your {join_symbols(found)} {verb} from the true one by the same numbers in every case,"
        " as where a buffer that gradients are added to is not zero before."
    )


def find_partial_explanation(
    known: OwnHypotheses, evidence: Sequence[Evidence], wrong: Sequence[str]
) -> str:
    """Describe the one mistake that explains most wrong gradients and leaves the right ones right.

    Empty where none explains two of them and more than half, or where several do in other ways.
    """
    right = frozenset(evidence[0].wanted) - frozenset(wrong)
    plausible = [m for m in known.matches if right <= m.names and m.made.name not in GENERIC]
    most = max((len(m.names) for m in plausible), default=0)
    explained = most - len(right)
    if explained < 2 or 2 * explained <= len(wrong):
        return ""
    found: dict[bytes, OperationMistake] = {}
    for made, names in plausible:
        if len(names) == most and find_effort().goes_on():
            left = frozenset(try_mistakes(known, evidence, (made,)).wrong)
            if left.isdisjoint(names):
                key = np.round(known.effects[made] - known.right, 4).tobytes()
                found.setdefault(key, made)
    if len(found) != 1:
        return ""
    ((_, made),) = found.items()
    left = frozenset(try_mistakes(known, evidence, (made,)).wrong)
    rest = join_symbols([name for name in wrong if name in left])
    mistake = known.describe(made)
    return f"All but {rest} would be explained by {mistake.name}: {mistake.explanation}"
