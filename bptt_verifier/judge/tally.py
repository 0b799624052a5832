"""Comparisons of many examples, added up: the same sums whatever their order.

A row holds what a report says of one gradient: how many cases, how many could have shown a mistake,
and the worst. Two rows of different examples add up to one, so parts of a run may be computed
anywhere, in any order, and need not be kept.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

from bptt_verifier.problems.problem import ALL_LOSSES, Problem, Sizes
from bptt_verifier.reference.autodiff import COMPARED
from bptt_verifier.tolerance.comparison import Comparison, Verdict, name_tangents

Key = tuple[str, str, str]  # derivation, gradient, loss


class Worst(NamedTuple):
    """The comparison with the largest error, and the number of its example."""

    case: int
    comparison: Comparison


class Row(NamedTuple):
    """One gradient of one derivation, over all problems, or over those with one loss."""

    derivation: str
    gradient: str
    cases: int
    conclusive: int
    worst: Worst
    largest: Sizes
    loss: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Disagrees if any case does; agrees if none does and at least one could have."""
        if self.worst.comparison.verdict is Verdict.DISAGREES:
            return Verdict.DISAGREES
        return Verdict.AGREES if self.conclusive else Verdict.INCONCLUSIVE

    def add(self, other: "Row") -> "Row":
        """Add a row of other examples. Of two equal errors that of the earlier one counts."""
        return self._replace(
            cases=self.cases + other.cases,
            conclusive=self.conclusive + other.conclusive,
            worst=min(self.worst, other.worst, key=lambda w: (-w.comparison.error, w.case)),
            largest=max(self.largest, other.largest, key=lambda sizes: (prod(sizes), sizes)),
        )  # fmt: skip

    def to_dict(self, reference: str) -> dict[str, Any]:
        """Plain values, for JSON; `reference` names the reference."""
        case, worst = self.worst
        return {
            "derivation": self.derivation,
            "gradient": self.gradient,
            **({} if self.loss is None else {"loss": self.loss}),
            "verdict": str(self.verdict),
            "cases": self.cases,
            "conclusive_cases": self.conclusive,
            "worst_error_over_bound": worst.error,
            "worst": {
                "case": case,
                "entry": list(worst.entry),
                "by_hand": worst.yours,
                reference: worst.reference,
                "bound": worst.allowed,
            },
            "largest_shape": self.largest._asdict(),
        }


class Tally:
    """The comparisons of some examples, added up by derivation, gradient and loss.

    `shapes` has the sizes of the examples by number, unless the tally is too large to list them.
    """

    def __init__(
        self, rows: Iterable[Row] = (), shapes: dict[int, Sizes] | None = None, cases: int = 0
    ) -> None:
        self.rows = {(row.derivation, row.gradient, str(row.loss)): row for row in rows}
        self.shapes = {} if shapes is None else shapes
        self.cases = cases

    def count(self, case: int, sizes: Sizes) -> None:
        """Count one example."""
        self.cases += 1
        self.shapes[case] = sizes

    def add(self, name: str, case: int, problem: Problem, comparison: Comparison) -> None:
        """Add one comparison of a derivation."""
        self.put(
            Row(
                name, comparison.name, 1, int(comparison.conclusive), Worst(case, comparison),
                problem.sizes, problem.loss,
            )
        )  # fmt: skip

    def put(self, row: Row) -> None:
        """Add a row of other examples."""
        key = row.derivation, row.gradient, str(row.loss)
        before = self.rows.get(key)
        self.rows[key] = row if before is None else before.add(row)

    def merged(self, other: "Tally") -> "Tally":
        """The tally of both. This one stays as it is, but for its shapes, which both share.

        So where an exception ends the sum, `shapes` has examples that this tally does not count.
        """
        self.shapes.update(other.shapes)
        both = Tally(self.rows.values(), self.shapes, self.cases + other.cases)
        for row in other.rows.values():
            both.put(row)
        return both

    def list_rows(self, names: Iterable[str]) -> Iterator[Row]:
        """Yield a row for each gradient of the derivations, over all losses."""
        gradients = (*COMPARED, *name_tangents(dict.fromkeys(COMPARED)))
        for name, gradient in product(names, gradients):
            found = list(self.list_losses(name, gradient))
            if found:
                whole = found[0]
                for row in found[1:]:
                    whole = whole.add(row)
                yield whole._replace(loss=None)

    def list_losses(self, name: str, gradient: str) -> Iterator[Row]:
        """Yield a row for each loss of one gradient of a derivation."""
        for loss in ALL_LOSSES:
            if (name, gradient, loss) in self.rows:
                yield self.rows[name, gradient, loss]
