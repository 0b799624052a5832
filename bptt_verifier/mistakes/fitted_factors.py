"""Constant factors of a recurrence that are wrong by any amount, as the submitted numbers show it.

A gate of slope 1/6 that is differentiated with 1/5 has a wrong factor s at each step, and gradients
that are polynomials g(s). The factor is fitted by Gauss-Newton steps from s = 1: with the error
e = g − g(s) and the derivative J = g′(s), the step is J·e / J·J. It is named where g(s) are the
submission's numbers at every case, so that one unknown explains many numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand, quote_expression, write_expression
from bptt_verifier.mistakes.known_factors import SMALLEST, scale_path
from bptt_verifier.mistakes.operation_mistakes import Edge, OperationMistake, change_edges
from bptt_verifier.mistakes.single_gradients import shorten
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.structure import Structure

STEPS = 12  # steps of a fit, at most
LARGEST = 2.0  # the largest step of a fit: far from its root a polynomial asks for larger ones
FARTHEST = 100.0  # the largest factor that is fitted
NEAR = 1e-6  # relative distance of the points whose difference is the derivative
CLOSE = (
    1e-4  # error of a fit, as a share of that of the right gradients, beyond which it has failed
)
FEWEST = 3  # numbers that a factor has to explain
PIECES = frozenset("max min select_n clamp".split())
HOPS = 4  # sums between a factor and the limits of an activation, at most
ANOTHER = "activation-derivative-of-another-function"

Join = Callable[[Sequence[OperationMistake]], Array]  # what mistakes change, a row for each


class Scaled(NamedTuple):
    """A place that may have a wrong factor, with the constant that the loss has there.

    `make` makes the mistake of a factor. The constant is 1 where the loss has none; it may be what
    a quotient is `divided` by.
    """

    make: Callable[[float], OperationMistake]
    constant: float = 1.0
    divided: bool = False

    def list_likely(self, factor: float) -> Iterator[float]:
        """List a factor as a derivation has it, in which the constant is a short number, and it."""
        wrong = self.constant / factor if self.divided else self.constant * factor
        short = shorten(wrong)
        yield self.constant / short if self.divided else short / self.constant
        yield factor


def list_fitting_factors(
    known: Structure, cuts: Sequence[OperationMistake], join: Join, error: Array
) -> Iterator[OperationMistake]:
    """List constant factors that give the submission's error, as far as a fit finds them.

    `cuts` are paths that may have a factor, too.
    """
    wrong = np.abs(error) > CLOSE * np.max(np.abs(error), initial=0.0)
    if np.count_nonzero(wrong) < FEWEST:
        return
    places = [*list_constants(known), *(Scaled(partial(scale_path, cut)) for cut in cuts)]
    if not places:
        return
    effects = join([place.make(1 + NEAR) for place in places])
    # A factor explains no error where it has no effect.
    possible = [place for place, e in zip(places, effects, strict=True) if (e[wrong] != 0).all()]
    for place, factor in fit_factors(possible, join, error):
        if abs(factor) <= SMALLEST:
            continue
        for by in dict.fromkeys(place.list_likely(factor)):
            yield place.make(by)


def fit_factors(
    places: Sequence[Scaled], join: Join, error: Array
) -> Iterator[tuple[Scaled, float]]:
    """Fit the factor of each place to an error; leave out those that do not fit."""
    factors, left = np.ones(len(places)), [*range(len(places))]
    size = float(np.linalg.norm(error))
    for _ in range(STEPS):
        if not left:
            return
        made = [places[k].make(factors[k] + by) for k in left for by in (0.0, NEAR)]
        going = list[int]()
        for k, (here, beside) in zip(left, join(made).reshape(len(left), 2, -1), strict=True):
            with np.errstate(all="ignore"):
                slope, rest = (beside - here) / NEAR, error - here
                step = float(np.divide(slope @ rest, slope @ slope))
            if not np.isfinite(step) or abs(factors[k]) > FARTHEST:
                continue
            if abs(step) <= NEAR * abs(factors[k]):
                if float(np.linalg.norm(rest)) <= CLOSE * size:
                    yield places[k], float(factors[k] + step)
                continue
            factors[k] += np.clip(step, -LARGEST, LARGEST)
            going.append(k)
        left = going


def list_constants(known: Structure) -> Iterator[Scaled]:
    """List the products with one constant, and the quotients by one.

    The same constant in several places, such as the gates of a step, may be wrong in all.
    """
    operations, constants = known.program.operations, known.program.constants
    alike = dict[tuple[str, float, bool], list[Edge]]()
    for group in known.groups:
        name, active = operations[group[0]].name, known.active(*group)
        if name not in {"mul", "div"} or len(active) != 1 or (name == "div" and active == [1]):
            continue
        slots = {operations[number].inputs[1 - active[0]] for number in group}
        if not all(slot in constants and constants[slot].size == 1 for slot in slots):
            continue
        values = {complex(constants[slot].ravel()[0]) for slot in slots}
        value = values.pop()
        if not values and value.imag == 0 != value.real:
            edges = [(number, active[0]) for number in group]
            yield make_scaled(known, edges, value.real)
            kind = name, value.real, find_piece(known, group[-1]) is not None
            alike.setdefault(kind, []).extend(edges)
    for (_, constant, _), edges in alike.items():
        if len({known.group_of[number] for number, _ in edges}) > 1:
            yield make_scaled(known, edges, constant)


def make_scaled(known: Structure, edges: Sequence[Edge], constant: float) -> Scaled:
    """Make the place of a constant, which is at these operands."""
    divided = known.program.operations[edges[0][0]].name == "div"
    return Scaled(partial(scale_constant, known, edges, constant), constant, divided)


def scale_constant(
    known: Structure, edges: Sequence[Edge], constant: float, by: float
) -> OperationMistake:
    """Make the mistake of another constant in what products with one pass back."""
    number, _ = edges[-1]
    divided = known.program.operations[number].name == "div"
    wrong = constant / by if divided and by else constant * by
    done = "divided" if divided else "multiplied"
    piece = find_piece(known, number)
    through = "" if piece is not None else name_functions(known, edges)
    to = f"passed back {through}" if through else f"passed on to {name_operand(known, *edges[-1])}"
    said = (
        f"the gradient {to} is {done} by {wrong:.6g}, where it should be {done} by {constant:.6g}"
    )
    name = "constant-factor" if piece is None else ANOTHER
    said += f", in the slope of {quote_expression(known, piece)}" if piece is not None else ""
    several = len({known.group_of[n] for n, _ in edges}) > 1
    said += ", at all its places" if several and not through else ""
    changes = change_edges(edges, after=by)
    return OperationMistake(name, said, edges[0][0], changes, {"factor": by})


def name_functions(known: Structure, edges: Sequence[Edge]) -> str:
    """Name the functions that these operands are inside of, such as means; empty if one is not.

    What the mean divides is no value of the line that takes it.
    """
    lasts = {known.group_of[number]: (number, operand) for number, operand in edges}
    through = list[str]()
    for number, operand in lasts.values():
        equation = known.program.operations[number]
        source = known.producer.get(equation.inputs[operand], -1)
        inside = source >= 0 and known.program.operations[source].where == equation.where
        if not (inside and equation.where and write_expression(known, number)):
            return ""
        through.append(f"through {quote_expression(known, number)}")
    return " and ".join(dict.fromkeys(through))


def find_piece(known: Structure, number: int) -> int | None:
    """Find the maximum, minimum or selection that a factor leads to: it is the slope of a piece."""
    operations = known.program.operations
    for _ in range(HOPS):
        users = known.users.get(operations[number].outputs[0], [])
        if len(users) != 1:
            return None
        number = users[0][0]
        if operations[number].name in PIECES:
            return number
        if operations[number].name not in {"add", "sub"} or len(known.active(number)) != 1:
            return None
    return None
