"""The search for the mistakes that reproduce a submission's numbers.

Every mistake is a hypothesis: a wrong derivation, whose gradients can be computed. It is named only
if, within the allowed error, it gives all of the submission's gradients in every case. To add a
kind of mistake, yield it from a method of a subject's `Hypotheses`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any, NamedTuple, Protocol

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.single_gradients import Finding, describe_finding
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake

FEW = 4  # cases on which a hypothesis is tried before it is tried on all


class Back(Protocol):
    """The result of one backward pass, right or wrong, at one case."""

    def gradient(self, name: str) -> Array:
        """Compute the gradient of this name from it."""


class Hypotheses(Protocol):
    """The mistakes that can be made in one subject."""

    @property
    def names(self) -> Sequence[str]:
        """The gradients, in the order of a report."""

    @property
    def single(self) -> Sequence[Any]:
        """All mistakes in the backward pass, the likely ones first."""

    @property
    def batch(self) -> int:
        """Number of combinations of mistakes that are tried at once."""

    def sweep_back(self, case: Evidence, made: Sequence[tuple[Any, ...]]) -> Sequence[Back]:
        """Run the backward pass with each of these combinations of mistakes."""

    def list_pairs(self, evidence: Sequence[Evidence]) -> Iterator[tuple[Any, Any]]:
        """List pairs of mistakes in the backward pass, the likely ones first."""

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Any]
    ) -> Iterator[Finding]:
        """List the mistakes in one gradient alone, given a backward pass at each case."""

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """Find a different forward pass whose correct gradients are the submission's."""

    def find_equation(self, name: str) -> str | None:
        """Find the tag of a gradient's equation in docs/derivation.md, if it has one."""

    def describe(self, made: Any) -> Mistake:
        """Describe a mistake in the backward pass as a report does."""


def explain(
    known: Hypotheses, evidence: Sequence[Evidence], *, several: bool = True
) -> tuple[Mistake, ...]:
    """Find the mistakes that reproduce every number of every case; empty if none do.

    The first case is a failing one. The order is: one mistake in single gradients, which several
    may share; one in the backward pass, which affects every gradient after it; two in
    single gradients; another forward pass; one in the backward pass and one in single gradients;
    two in the backward pass; more than two in single gradients. No later one needs fewer mistakes.
    Unless `several`, only the first two are tried.
    """
    right = try_mistakes(known, evidence, ())
    if not right.wrong:
        return ()  # within the slack of a hypothesis, the submission is right here
    of_gradients = explain_single_gradients(known, evidence, right) or ()
    if len(of_gradients) == 1:
        return of_gradients
    for (made,) in select_explaining(known, evidence, ((each,) for each in known.single)):
        return (known.describe(made),)
    if not several:
        return of_gradients
    if len(of_gradients) == 2:
        return of_gradients
    found = known.find_other_forward_pass() or find_one_of_each(known, evidence)
    if found:
        return found
    for one, other in select_explaining(known, evidence, known.list_pairs(evidence)):
        return known.describe(one), known.describe(other)
    return of_gradients


class Trial(NamedTuple):
    """A backward pass at every case, and the gradients that it does not explain."""

    backs: Sequence[Back]
    wrong: list[str]


def try_mistakes(known: Hypotheses, evidence: Sequence[Evidence], made: tuple[Any, ...]) -> Trial:
    """Try one combination of mistakes in the backward pass on all of these cases."""
    backs = [known.sweep_back(case, [made])[0] for case in evidence]
    wrong = {
        name
        for case, back in zip(evidence, backs, strict=True)
        for name in case.wanted
        if not case.explains(name, back.gradient(name))
    }
    return Trial(backs, [name for name in known.names if name in wrong])


def select_explaining(
    known: Hypotheses, evidence: Sequence[Evidence], made: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Select the combinations of mistakes that explain every gradient of every case."""
    combinations = iter(made)
    while chunk := [*islice(combinations, known.batch)]:
        for case in evidence:
            chunk = [
                each
                for each, back in zip(chunk, known.sweep_back(case, chunk), strict=True)
                if all(case.explains(name, back.gradient(name)) for name in case.cheapest_first)
            ]
            if not chunk:
                break
        yield from chunk


def count_explained(
    known: Hypotheses, case: Evidence, made: Sequence[tuple[Any, ...]]
) -> list[int]:
    """Count the gradients of a case that each combination explains."""
    return [
        sum(case.explains(name, back.gradient(name)) for name in case.wanted)
        for start in range(0, len(made), known.batch)
        for back in known.sweep_back(case, made[start : start + known.batch])
    ]


def find_one_of_each(known: Hypotheses, evidence: Sequence[Evidence]) -> tuple[Mistake, ...]:
    """Find one mistake in the backward pass and one in single gradients that explain everything.

    Mistakes in the backward pass that explain the most gradients by themselves come first.
    """
    single = [(each,) for each in known.single]
    counts = count_explained(known, evidence[0], single)
    for i in sorted(range(len(single)), key=lambda i: -counts[i]):
        found: tuple[Mistake, ...] | None = ()
        for cases in (evidence[:1], evidence[:FEW], evidence):
            trial = try_mistakes(known, cases, single[i])
            found = explain_single_gradients(known, cases, trial, most=1)
            if found is None:
                break
        if found:
            return (known.describe(single[i][0]), *found)
    return ()


def explain_single_gradients(
    known: Hypotheses, evidence: Sequence[Evidence], trial: Trial, most: int | None = None
) -> tuple[Mistake, ...] | None:
    """Explain the gradients that a backward pass leaves wrong by the fewest mistakes in them.

    None where no mistake explains a gradient, or where more than `most` are needed. The same
    mistake in several gradients counts once.
    """
    possible: dict[str, list[Finding]] = {}
    shared: set[Any] | None = None  # the kinds that all gradients so far may have in common
    for name in sorted(trial.wrong, key=lambda name: evidence[0].reference[name].size):
        every = zip(evidence, trial.backs, strict=True)
        cases = [(case, back) for case, back in every if name in case.wanted]
        having, backs = zip(*cases, strict=True)
        possible[name] = [
            finding
            for finding in known.list_findings(name, having, backs)
            if (most != 1 or shared is None or finding.kind in shared)
            and all(case.explains(name, finding.gradient(back)) for case, back in cases)
        ]
        if not possible[name]:
            return None
        kinds = {finding.kind for finding in possible[name]}
        shared = kinds if shared is None else shared & kinds
    chosen = choose_fewest({name: possible[name] for name in trial.wrong})
    if most is not None and len(chosen) > most:
        return None
    return tuple(describe_finding(f, names, known.find_equation(names[0])) for f, names in chosen)


def choose_fewest(possible: Mapping[str, Sequence[Finding]]) -> list[tuple[Finding, list[str]]]:
    """Choose one or two findings that explain all gradients, or else one for each gradient."""
    kinds = {each.kind: each for found in possible.values() for each in found}
    for count in (1, 2):
        for chosen in combinations(kinds, count):
            gradients = {
                kind: [name for name, found in possible.items() if kind in {f.kind for f in found}]
                for kind in chosen
            }
            if set().union(*gradients.values()) == possible.keys():
                return [(kinds[kind], names) for kind, names in gradients.items()]
    by_kind: dict[Any, list[str]] = {}
    for name, found in possible.items():
        by_kind.setdefault(found[0].kind, []).append(name)
    return [(kinds[kind], names) for kind, names in by_kind.items()]
