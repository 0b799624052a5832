"""Mistakes without a name, in the adjoints of further models, and the places that the judge claims.

`python -m tests.support.unnamed_mistakes 100` counts the places that are right, and the mistakes
for which none is claimed.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.evidence import Witness, make_evidence
from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.places import list_places
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.paths import prune
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import forward
from tests.support import further_models, own_models, wrong_derivations
from tests.support.diagnosis import trace_points

MODELS = own_models.MODELS | further_models.MODELS | wrong_derivations.MODELS


class Unnamed(NamedTuple):
    """An edge of a model's backward pass that is multiplied by random factors."""

    model: str
    known: Structure
    points: list[Any]
    number: int
    operand: int
    factors: Any


def draw_unnamed(seed: int) -> Iterator[Unnamed]:
    """Draw edges and factors without end."""
    rng, kept = np.random.default_rng(seed), dict[str, Any]()
    while True:
        name = [*MODELS][rng.integers(len(MODELS))]
        if name not in kept:
            model = MODELS[name]
            shapes = tuple((n, np.shape(v)) for n, v in model.params.items())
            program, points = trace_points(model.loss, shapes, np.dtype(float))
            kept[name] = structure(prune(program)), points
        known, points = kept[name]
        number = int(rng.integers(len(known.program.operations)))
        equation = known.program.operations[number]
        active = known.active(number)
        if active and len(equation.outputs) == 1:
            operand = active[rng.integers(len(active))]
            factors = rng.uniform(0.3, 3, size=equation.shapes[0])
            yield Unnamed(name, known, points, number, operand, factors)


def check_places(made: Unnamed) -> str:
    """Tell whether the place that is claimed for a mistake is right: `right`, `none` or `wrong`."""
    known, change = made.known, Change(made.operand, before=made.factors)
    changes: Any = {(made.number, made.operand): change}
    evidence, wrong, reached = [], set[str](), set[int]()
    for _, wide, true in made.points:
        values = forward(known.program, wide)
        one = sweep_back(known.program, values, [changes])
        right = sweep_back(known.program, values)
        for slot, (a, b) in enumerate(zip(one, right, strict=True)):
            if a is not None and b is not None and not np.allclose(a, b, rtol=1e-6, atol=0):
                reached.add(slot)
        submitted = {name: one[slot][0] for name, slot in known.program.leaves.items()}
        allowed = {n: 2.0**-43 * np.max(np.abs(v)) * np.ones_like(v) for n, v in true.items()}
        witness = Witness(wide, submitted, true, allowed, True)
        case = make_evidence(values, known.steps, witness, dict.fromkeys(true))
        wrong |= {name for name in true if not case.explains(name, true[name])}
        evidence.append(case)
    if not wrong:
        return "no effect"
    said = " ".join(list_places(known, evidence, sorted(wrong)))
    value = r"which gradient of (`.*?`|the [\w ]+?)(?: \(| you used).*"
    claim = re.search(value + r" it is wrong (first at step (\d+))?", said)
    if claim is None:
        return "none"
    # Every adjoint that the mistake changes is one at or before its operation: the claim must be of
    # one of them, and the operation that is changed must not come before it.
    line = re.search(r"\(the line `.*?`, ([^)]*)\)", said)
    numbers = [
        number
        for number in map(known.producer.get, reached)
        if number is not None
        and (line is None or str(known.program.operations[number].where[:1][0]) == line[1])
        and (claim[3] is None or known.step.get(number) == int(claim[3]) - 1)
        and quote_expression(known, number) == claim[1]
    ]
    return "right" if numbers and min(numbers) <= made.number else "wrong"


def count_places(count: int, seed: int) -> Counter[str]:
    """Count what is claimed of so many mistakes that have an effect; print the wrong claims."""
    result = Counter[str]()
    with use_float64():
        for made in draw_unnamed(seed):
            kind = check_places(made)
            result[kind] += kind != "no effect"
            if kind == "wrong":
                print(made.model, made.known.program.operations[made.number].name, made.number)
            if result.total() == count:
                return +result
    return result


if __name__ == "__main__":
    print(count_places(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0))
