"""Which mistake makes somebody's numbers: hypotheses, tried until one gives all of them.

A mistake is named only where it reproduces every entry of every gradient on every failing case that
is put before it, within the error that rounding may cause. What no hypothesis reproduces is called
unknown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import Candidate, Changes, candidates
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import Program, backward, forward
from bptt_verifier.report.report import Mistake

Array = np.ndarray[Any, np.dtype[Any]]
Gradient = Mapping[str, Array]

ENTRIES = 2**23  # numbers that one sweep may hold for its largest array, over all candidates
PER_CHANGE = 20_000  # what altering one equation costs, in numbers computed
RIVALS = 40  # candidates that explain some gradients, tried together with a second mistake
PAIRS = 2**29  # numbers that may be computed in all for pairs of mistakes

OPERATIONS = {
    "dot_general": "matrix product",
    "mul": "product",
    "add": "sum",
    "sub": "difference",
    "div": "quotient",
    "broadcast_in_dim": "broadcast",
    "reduce_sum": "sum over an axis",
    "integer_pow": "power",
}


class Evidence(NamedTuple):
    """A case: where it was, the gradient found there, autodiff's, and the allowed error."""

    params: Gradient
    yours: Gradient
    reference: Gradient
    allowed: Gradient


def explained(item: Evidence, name: str, numbers: Array, base: Array | None = None) -> Any:
    """Whether these numbers, one array or a stack of them, are somebody's within the bound.

    A mistaken gradient may be larger than the true one, and its rounding errors with it.
    """
    yours, allowed = item.yours[name], item.allowed[name]
    true = np.max(np.abs(item.reference[name] if base is None else base), initial=0.0)
    axes = tuple(range(numbers.ndim - yours.ndim, numbers.ndim))
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(numbers), axis=axes, keepdims=True, initial=0.0)
        growth = np.where(largest > true, largest / true, 1.0) if true > 0 else 1.0
        floor = 2.0**-46 * largest
        return np.all(np.abs(numbers - yours) <= allowed * growth + floor, axis=axes)


def diagnose(program: Program, evidence: Sequence[Evidence]) -> tuple[Mistake, ...]:
    """The mistake, or the mistakes, that give these numbers. Call it with 64-bit JAX."""
    known = structure(program)
    trials = Trials(known, evidence)
    truth: list[Gradient] = [item.reference for item in evidence]
    wrong = [
        name
        for name in program.leaves
        if not all(explained(item, name, item.reference[name]) for item in evidence)
    ]
    of_leaves = leaf_mistakes(known, evidence, truth, wrong)
    if of_leaves and len(of_leaves) == 1:
        return of_leaves
    single = [(candidate,) for candidate in candidates(known)]
    right = trials.explained(0, single)
    for (candidate,), row in zip(single, right, strict=True):
        if row.all() and trials.confirmed((candidate,)):
            return (mistake(trials, candidate),)
    if of_leaves:
        return of_leaves
    before = trials.explained(0, [()])[0]
    gain = (right & ~before).sum(axis=1)
    order = sorted(range(len(single)), key=lambda i: (-int(right[i].sum()), i))
    rivals = [i for i in order if gain[i] > 0][:RIVALS]
    for i in rivals:
        left = [name for name, fits in zip(program.leaves, right[i], strict=True) if not fits]
        if len(left) <= 2:
            bases = [trials.gradients(case, [single[i]]) for case in range(len(evidence))]
            base = [{name: rows[name][0] for name in rows} for rows in bases]
            others = leaf_mistakes(known, evidence, base, left)
            if others and trials.confirmed(single[i], left):
                return (mistake(trials, *single[i]), *others)
    return pair(trials, [c for (c,) in single], rivals) or (unknown(wrong),)


class Trials:
    """Candidates, tried on cases whose forward pass is done once."""

    def __init__(self, known: Structure, evidence: Sequence[Evidence]) -> None:
        self.known = known
        self.evidence = evidence
        self.values = [forward(known.program, item.params) for item in evidence]
        largest = max(value[0].size for value in self.values[0] if value is not None)
        self.rows = max(1, min(256, ENTRIES // max(1, largest)))

    def changes(self, case: int, combination: Sequence[Candidate]) -> Changes:
        """All changes of some candidates together."""
        result: Changes = {}
        for candidate in combination:
            result |= candidate.changes(self.values[case])
        return result

    def gradients(self, case: int, combinations: Sequence[Sequence[Candidate]]) -> Gradient:
        """The gradients that these combinations of mistakes give, one a row."""
        rows = [self.changes(case, combination) for combination in combinations]
        return backward(self.known.program, self.values[case], rows)

    def explained(self, case: int, combinations: Sequence[Sequence[Candidate]]) -> Any:
        """Which gradients (columns) each combination (row) reproduces on one case."""
        leaves, item, found = self.known.program.leaves, self.evidence[case], []
        for start in range(0, len(combinations), self.rows):
            rows = self.gradients(case, combinations[start : start + self.rows])
            found.append(np.stack([explained(item, name, rows[name]) for name in leaves], axis=1))
        return np.concatenate(found)

    def confirmed(self, combination: Sequence[Candidate], without: Sequence[str] = ()) -> bool:
        """Whether a combination reproduces all gradients, but for some, on every case."""
        looked = np.array([name not in without for name in self.known.program.leaves])
        return all(
            bool(self.explained(case, [combination])[0][looked].all())
            for case in range(len(self.evidence))
        )


def pair(trials: Trials, single: Sequence[Candidate], rivals: Sequence[int]) -> tuple[Mistake, ...]:
    """Two altered operations that together give the numbers; empty where none do."""
    values = trials.values[0]
    changes = [candidate.changes(values) for candidate in single]
    first = [*rivals, *(i for i in range(len(single)) if i not in set(rivals))]
    size = sum(value[0].size for value in values if value is not None)
    most = max(trials.rows, PAIRS // (size + PER_CHANGE * (sum(map(len, changes)) // len(changes))))

    def in_order() -> Iterator[tuple[Candidate, Candidate]]:
        before: set[int] = set()
        for i in first:
            before.add(i)
            for j, other in enumerate(single):
                if j not in before and not changes[i].keys() & changes[j].keys():
                    yield (single[i], other) if i < j else (other, single[i])

    combinations = islice(in_order(), most)
    while chunk := [*islice(combinations, trials.rows)]:
        for combination, row in zip(chunk, trials.explained(0, chunk), strict=True):
            if row.all() and trials.confirmed(combination):
                return tuple(mistake(trials, candidate) for candidate in combination)
    return ()


def mistake(trials: Trials, candidate: Candidate) -> Mistake:
    """What is said of a candidate that gives the numbers."""
    program = trials.known.program
    equation, changes = program.equations[candidate.equation], trials.changes(0, [candidate])
    operation = OPERATIONS.get(equation.name, equation.name)
    place = equation.where[0] if equation.where else None
    line = place.text if place else None
    where = f"the line `{line}` ({place})" if line else "an operation"
    # What is wrong in a function only where one line calls it is told with that line.
    chains = {program.equations[number].where for number, _ in changes}
    shared = {chain for chain in chains if chain[:1] == equation.where[:1]}
    if line and len(shared) == 1 and len(equation.where) > 1:
        where += f", called by `{equation.where[1].text}`,"
    details = dict(candidate.details) | {
        "line": line,
        "file_line": str(place) if place else None,
        "operation": operation,
        "alteration": candidate.alteration,
    }
    sentence = (
        f"{where} of your forward pass is differentiated wrongly: at the {operation}, "
        f"{candidate.alteration}."
    )
    return Mistake(candidate.name, sentence[0].upper() + sentence[1:], details)


def unknown(wrong: Sequence[str]) -> Mistake:
    """What is said where no hypothesis gives the numbers."""
    names = ", ".join(wrong)
    return Mistake(
        "unknown",
        f"No mistake that the judge knows, and no two of them, give your numbers for {names}.",
        {"gradients": list(wrong)},
    )


# Mistakes that belong to one parameter.


class Finding(NamedTuple):
    """A mistake in one gradient; equal findings of several gradients are one mistake."""

    name: str
    sentence: str
    details: tuple[tuple[str, Any], ...] = ()


def leaf_mistakes(
    known: Structure,
    evidence: Sequence[Evidence],
    bases: Sequence[Gradient],
    wrong: Sequence[str],
) -> tuple[Mistake, ...]:
    """Mistakes of single gradients, one where they share it; empty if there is one with none."""
    findings: dict[Finding, list[str]] = {}
    for shared in (True, False):
        found = {
            name: next(
                filter(None, (ask(known, evidence, bases, name, shared) for ask in HYPOTHESES)),
                None,
            )
            for name in wrong
        }
        findings = {}
        for name, finding in found.items():
            if finding is None:
                findings = {}
                break
            findings.setdefault(finding, []).append(name)
        if len(findings) == 1:
            break
    return tuple(
        Mistake(
            finding.name,
            f"{gradients(names, list(known.program.leaves))} is {finding.sentence}.",
            {"gradients": names, **dict(finding.details)},
        )
        for finding, names in findings.items()
    )


def gradients(names: Sequence[str], every: Sequence[str]) -> str:
    """Some gradients of all, as a sentence names them."""
    if len(names) == len(every) > 1:
        return "Every gradient"
    return ", ".join(f"∂L/∂{name}" for name in names)


Hypothesis = Callable[
    [Structure, Sequence[Evidence], Sequence[Gradient], str, bool], Finding | None
]


def everywhere(
    evidence: Sequence[Evidence],
    bases: Sequence[Gradient],
    name: str,
    numbers: Callable[[int], Array],
) -> bool:
    """Whether the numbers made for each case are somebody's on all of them."""
    return all(
        numbers(i).shape == item.yours[name].shape
        and bool(explained(item, name, numbers(i), bases[i][name]))
        for i, item in enumerate(evidence)
    )


def zero(
    known: Structure, evidence: Sequence[Evidence], bases: Sequence[Gradient], name: str, _: bool
) -> Finding | None:
    """Nothing but zeros."""
    if any(item.yours[name].any() for item in evidence):
        return None
    return Finding("zero-gradient", "all zeros")


def factor(
    known: Structure, evidence: Sequence[Evidence], bases: Sequence[Gradient], name: str, _: bool
) -> Finding | None:
    """The right gradient times a number, the same in every case."""
    true, yours = bases[0][name].ravel(), evidence[0].yours[name].ravel()
    norm = float(true @ true)
    if not norm > 0 or not np.isfinite(norm):
        return None
    measured, meaning = float(true @ yours) / norm, "measured"
    near = [
        (value, words)
        for value, words in numbers_with_a_meaning(known)
        if abs(measured - value) <= 1e-5 * abs(value)
    ]
    for value, words in [*near, (measured, meaning)]:
        scaled = [value * base[name] for base in bases]
        if value != 0 and everywhere(evidence, bases, name, scaled.__getitem__):
            measured, meaning = value, words
            break
    else:
        return None
    if measured == -1:
        return Finding("sign-flipped", "autodiff's with the opposite sign")
    is_what = "" if meaning in {"measured", f"{measured:g}"} else f", which is {meaning}"
    return Finding(
        "constant-factor",
        f"{measured:.9g} times autodiff's{is_what}",
        (("factor", float(f"{measured:.12g}")), ("meaning", meaning)),
    )


def numbers_with_a_meaning(known: Structure) -> list[tuple[float, str]]:
    """Factors that people forget or add, and what they are."""
    sizes = {known.steps: "the number of steps"} if known.steps > 1 else {}
    shapes = [
        *(equation.shapes[0] for equation in known.program.equations),
        *(value.shape for value in known.program.constants.values()),
    ]
    for shape in shapes:
        for size in (*shape, int(np.prod(shape))):
            sizes.setdefault(size, "a size in your forward pass")
    plain = [(-1.0, "-1"), (2.0, "2"), (0.5, "1/2")]
    for sign in (1.0, -1.0):
        for size, words in sizes.items():
            if size > 2:
                plain += [(sign * size, words), (sign / size, f"one over {words} ({size})")]
                plain += [(sign * 2 * size, f"twice {words}"), (sign * 2 / size, f"2/{size}")]
    return [*plain, (-2.0, "-2"), (-0.5, "-1/2"), (4.0, "4"), (0.25, "1/4")]


def transposed(
    known: Structure, evidence: Sequence[Evidence], bases: Sequence[Gradient], name: str, _: bool
) -> Finding | None:
    """The right gradient, transposed; a matrix that is not square was forced into its shape."""
    if bases[0][name].ndim < 2:
        return None
    shape = bases[0][name].shape
    for numbers in (
        lambda i: bases[i][name].swapaxes(-1, -2).reshape(shape),
        lambda i: bases[i][name].reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2),
    ):
        if everywhere(evidence, bases, name, numbers):
            return Finding("transposed-gradient", "autodiff's transposed")
    return None


def clipped(
    known: Structure,
    evidence: Sequence[Evidence],
    bases: Sequence[Gradient],
    name: str,
    shared: bool,
) -> Finding | None:
    """Entries beyond a value cut off, or the whole scaled down to a norm."""
    if shared:
        limit = max(float(np.max(np.abs(item.yours[n]))) for item in evidence for n in item.yours)
    else:
        limit = max(float(np.max(np.abs(item.yours[name]))) for item in evidence)
    limit = rounded(limit)
    if everywhere(evidence, bases, name, lambda i: np.clip(bases[i][name], -limit, limit)):
        return Finding("clipped", f"clipped to [−{limit:.6g}, {limit:.6g}]", (("value", limit),))

    def norm(gradient: Gradient) -> float:
        names = gradient if shared else [name]
        return float(np.sqrt(sum(np.sum(np.square(gradient[n])) for n in names)))

    limit = rounded(max(norm(item.yours) for item in evidence))
    if limit > 0 and everywhere(
        evidence,
        bases,
        name,
        lambda i: bases[i][name] * min(1.0, limit / max(norm(bases[i]), limit)),
    ):
        whole = "norm of all gradients together" if shared else "norm"
        return Finding(
            "clipped", f"scaled down so that the {whole} is at most {limit:.6g}", (("norm", limit),)
        )
    return None


def rounded(value: float) -> float:
    """The number that somebody would have written, if it is so near that rounding explains it."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 1e-9 * abs(value) else value


def another(
    known: Structure, evidence: Sequence[Evidence], bases: Sequence[Gradient], name: str, _: bool
) -> Finding | None:
    """The gradient of another parameter."""
    size = bases[0][name].size
    for other in known.program.leaves:
        if other != name and bases[0][other].size == size:
            shape = bases[0][name].shape
            for back in (False, True):
                numbers = [
                    (base[other].T if back else base[other]).reshape(shape) for base in bases
                ]
                if everywhere(evidence, bases, name, numbers.__getitem__):
                    return Finding("wrong-operand", f"autodiff's ∂L/∂{other}", (("other", other),))
    return None


HYPOTHESES: tuple[Hypothesis, ...] = (zero, factor, transposed, clipped, another)
