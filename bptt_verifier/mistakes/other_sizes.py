"""A mistake that explains a submission at one size of its arguments, asked at another.

Many mistakes are alike at one size: of 17 steps, a gradient that is cut between chunks of 16 goes
back by the last step alone. What a report says has to be true at every size that was tried.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence, Witness
from bptt_verifier.mistakes.hypotheses import BackwardPass
from bptt_verifier.mistakes.known_factors import scale_path
from bptt_verifier.mistakes.operation_mistakes import OperationMistake
from bptt_verifier.mistakes.own_diagnosis import Fits, collect_evidence
from bptt_verifier.mistakes.own_models import CUTS, OwnHypotheses
from bptt_verifier.program.paths import prune
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import Program

NUMBER = re.compile(r"\d+(?:\.\d+)?")


class OtherSize:
    """A submission at another size, and the mistakes that explain it there.

    `fits` judges gradients as in `find_only_fit`; without it they are compared with the evidence.
    Where the submission `is_right`, a mistake explains it if none there says the same, as "chunks
    of 4 steps" says nothing of 4, or if it changes nothing.
    """

    def __init__(
        self,
        program: Program,
        witnesses: Sequence[Witness],
        fits: Fits | None = None,
        is_right: bool = False,
    ) -> None:
        self.program, self.fits, self.is_right = prune(program), fits, is_right
        self.evidence: list[Evidence] = collect_evidence(self.program, witnesses)
        self.known = OwnHypotheses(self.program, self.evidence)

    @cached_property
    def listed(self) -> dict[tuple[str, str], list[OperationMistake]]:
        """The mistakes in the operations, by what they say but for numbers."""
        found: dict[tuple[str, str], list[OperationMistake]] = {}
        for made in chain.from_iterable(self.known.tiers):
            found.setdefault(write_without_numbers(made), []).append(made)
        return found

    @cached_property
    def sizes(self) -> frozenset[float]:
        """The sizes of all axes of this program, and its number of steps."""
        return find_sizes(self.program)

    def list_alike(
        self, made: OperationMistake, sizes: frozenset[float]
    ) -> Iterator[OperationMistake]:
        """List the mistakes that say the same as one in a program of other sizes."""
        cuts = (cut for each in self.listed.values() for cut in each if cut.name in CUTS)
        by = made.details.get("factor")
        scaled = (scale_path(cut, by) for cut in cuts) if isinstance(by, float) else ()
        for each in chain(self.listed.get(write_without_numbers(made), ()), scaled):
            if say_the_same(made, sizes, each, self.sizes):
                yield each

    def explains(self, made: OperationMistake, sizes: frozenset[float]) -> bool:
        """Tell whether a mistake that says the same explains all numbers here."""
        alike = [*self.list_alike(made, sizes)]
        return (self.is_right and not alike) or any(map(self.gives_numbers, alike))

    def gives_numbers(self, made: OperationMistake) -> bool:
        """Tell whether a mistake in this program gives the submission's numbers."""
        backs = [self.known.sweep_back(case, [(made,)])[0] for case in self.evidence]
        if self.fits is None:
            return all(map(explains_all, self.evidence, backs))
        names = self.evidence[0].wanted
        stacked = {name: np.stack([back.gradient(name) for back in backs]) for name in names}
        return self.fits(stacked, range(len(backs)))


def explains_all(case: Evidence, back: BackwardPass) -> bool:
    """Tell whether a backward pass gives all gradients of a case."""
    return all(case.explains(name, back.gradient(name)) for name in case.wanted)


def find_sizes(program: Program) -> frozenset[float]:
    """Find the sizes of all axes of a program, and its number of steps."""
    shapes = (shape for each in program.operations for shape in each.shapes)
    every = chain(shapes, program.shapes.values())
    return frozenset({float(structure(program).steps), *map(float, chain.from_iterable(every))})


def write_without_numbers(made: OperationMistake) -> tuple[str, str]:
    """Write what a mistake is, without the numbers in it."""
    return made.name, NUMBER.sub("#", made.alteration)


def say_the_same(
    one: OperationMistake,
    sizes: frozenset[float],
    other: OperationMistake,
    other_sizes: frozenset[float],
) -> bool:
    """Tell whether two mistakes say the same, in programs of these sizes.

    Their numbers are equal, or sizes of their programs: "the last 2 of 5 steps" is said of 9, too.
    """
    if write_without_numbers(one) != write_without_numbers(other):
        return False
    pairs = zip(
        *(map(float, NUMBER.findall(each.alteration)) for each in (one, other)), strict=True
    )
    return all(a == b or (a in sizes and b in other_sizes) for a, b in pairs)


def hold_at(others: Iterable[OtherSize], program: Program) -> Callable[[OperationMistake], bool]:
    """Make the question whether a mistake in a program explains the others, too."""
    sizes, others = find_sizes(prune(program)), [*others]
    return lambda made: all(each.explains(made, sizes) for each in others)
