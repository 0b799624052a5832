"""The search for the mistakes that reproduce a submission's numbers.

Every mistake is a hypothesis: a wrong derivation, whose gradients can be computed. A mistake is
named only if, within the allowed error, it gives all of the submission's gradients at every case.
Mistakes of the way back through time are seen in every gradient that follows; those of single
gradients in one. The search asks, in this order, for

1. one mistake of single gradients, which several of them may share,
2. one mistake in the way back,
3. two mistakes of single gradients,
4. another forward pass, of which the submission's gradients are right,
5. one mistake in the way back and one of single gradients,
6. two mistakes in the way back,
7. more than two mistakes, each of single gradients,

and ends at the first that explains everything: no later one needs fewer. What a subject supplies
are its `Hypotheses`. To extend the search to another kind of mistake, yield it from one of their
methods; the order above needs no change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any, NamedTuple, Protocol

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.single_gradients import Finding, describe_finding
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake

FEW = 4  # cases on which a hypothesis is tried before it is on all


class Back(Protocol):
    """What one way back through time, right or wrong, leaves at one case."""

    def gradient(self, name: str) -> Array:
        """The gradient of this name that follows."""


class Hypotheses(Protocol):
    """What can be wrong in one subject."""

    @property
    def names(self) -> Sequence[str]:
        """The gradients, in the order of a report."""

    @property
    def single(self) -> Sequence[Any]:
        """Every mistake in the way back, the likely ones first."""

    @property
    def batch(self) -> int:
        """How many combinations of mistakes are tried at once."""

    def sweep_back(self, case: Evidence, made: Sequence[tuple[Any, ...]]) -> Sequence[Back]:
        """What the way back leaves with each of these combinations of mistakes."""

    def list_pairs(self, evidence: Sequence[Evidence]) -> Iterator[tuple[Any, Any]]:
        """Pairs of mistakes in the way back that may be made together, the likely ones first."""

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Any]
    ) -> Iterator[Finding]:
        """Every mistake that one gradient can make on its own, given a way back at each case."""

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """The difference in the forward pass with which the right way back explains everything."""

    def find_equation(self, name: str) -> str | None:
        """The equation of a gradient in docs/derivation.md, if it has one."""

    def describe(self, made: Any) -> Mistake:
        """What a report says of a mistake in the way back."""


def explain(known: Hypotheses, evidence: Sequence[Evidence]) -> tuple[Mistake, ...]:
    """The mistakes that reproduce every number of every case; empty if none do.

    The first case is a failing one.
    """
    right = try_mistakes(known, evidence, ())
    if not right.wrong:
        return ()  # so slightly wrong that it cannot be told from right here
    of_gradients = explain_single_gradients(known, evidence, right) or ()
    if len(of_gradients) == 1:
        return of_gradients
    for (made,) in select_explaining(known, evidence, ((each,) for each in known.single)):
        return (known.describe(made),)
    if len(of_gradients) == 2:
        return of_gradients
    return (
        known.find_other_forward_pass()
        or find_one_of_each(known, evidence)
        or next(
            (
                (known.describe(one), known.describe(other))
                for one, other in select_explaining(known, evidence, known.list_pairs(evidence))
            ),
            of_gradients,
        )
    )


class Trial(NamedTuple):
    """What a way back leaves at every case, and which gradients it does not explain."""

    backs: Sequence[Back]
    wrong: list[str]


def try_mistakes(known: Hypotheses, evidence: Sequence[Evidence], made: tuple[Any, ...]) -> Trial:
    """A combination of mistakes in the way back, on all of these cases."""
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
    """Those combinations of mistakes in the way back that explain every gradient of every case."""
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
    """How many gradients of a case each combination explains."""
    return [
        sum(case.explains(name, back.gradient(name)) for name in case.wanted)
        for start in range(0, len(made), known.batch)
        for back in known.sweep_back(case, made[start : start + known.batch])
    ]


def find_one_of_each(known: Hypotheses, evidence: Sequence[Evidence]) -> tuple[Mistake, ...]:
    """One mistake in the way back and one of single gradients, which explain everything together.

    Those in the way back come first that explain most by themselves.
    """
    single = [(each,) for each in known.single]
    counts = count_explained(known, evidence[0], single)
    for i in sorted(range(len(single)), key=lambda i: -counts[i]):
        found: tuple[Mistake, ...] | None = ()
        for cases in (evidence[:1], evidence[:FEW], evidence):
            found = explain_single_gradients(
                known, cases, try_mistakes(known, cases, single[i]), most=1
            )
            if found is None:
                break
        if found:
            return (known.describe(single[i][0]), *found)
    return ()


# Mistakes of single gradients, given a way back.


def explain_single_gradients(
    known: Hypotheses, evidence: Sequence[Evidence], trial: Trial, most: int | None = None
) -> tuple[Mistake, ...] | None:
    """The fewest mistakes of single gradients that explain what this way back leaves wrong.

    None where some gradient has none, or where more than `most` are needed. The same mistake in
    several gradients counts once.
    """
    possible: dict[str, list[Finding]] = {}
    shared: set[Any] | None = None  # the kinds that all gradients so far may have in common
    for name in sorted(trial.wrong, key=lambda name: evidence[0].reference[name].size):
        cases = [
            (case, back)
            for case, back in zip(evidence, trial.backs, strict=True)
            if name in case.wanted
        ]
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
    return tuple(
        describe_finding(finding, names, known.find_equation(names[0])) for finding, names in chosen
    )


def choose_fewest(possible: Mapping[str, Sequence[Finding]]) -> list[tuple[Finding, list[str]]]:
    """One or two findings that explain all gradients, if there are such, else one for each."""
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
