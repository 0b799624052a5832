"""Factors that are often wrong: sizes in a loss, and those that a cut path may have instead."""

from collections.abc import Sequence
from math import prod

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake, Values
from bptt_verifier.mistakes.single_gradients import Factor, write_factor
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

SMALLEST = 1e-6  # a factor below is none: nothing is passed on, but for rounding in float32
SHARE = 1e-3  # relative distance of entries that have one share; effects are kept in float32


def scale_path(cut: OperationMistake, by: float) -> OperationMistake:
    """Scale the paths that a mistake cuts."""

    def changes(values: Values) -> Changes:
        return {edge: Change(edge[1], after=by) for edge in cut.changes(values)}

    said = cut.alteration.replace("no gradient", "the gradient", 1).replace(" is ", " that is ", 1)
    said = f"{said} is multiplied by {write_factor(by, 6)}, where its factor is 1"
    return cut._replace(
        name="constant-factor", alteration=said, changes=changes, details={"factor": by}
    )


def find_share(error: Array, effect: Array) -> tuple[float, Array]:
    """Find the share of an effect that an error is in most entries, and which entries fit it.

    Small entries of an effect, which is in float32, say nothing. No entry fits where fewer than
    half of the others do.
    """
    with np.errstate(all="ignore"):
        size = np.abs(effect)
        large = size > SHARE * np.max(size)
        share = float(np.median((error / effect)[large])) if large.any() else np.nan
        fitting = large & (np.abs(error - share * effect) <= SHARE * np.abs(share * effect))
    enough = np.count_nonzero(fitting) > np.count_nonzero(large) / 2
    return share, fitting if enough else np.zeros_like(large)


def is_also_another_size(known: Structure, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Tell whether the number of steps is surely the size of something else, too.

    An axis of that size may be time. It is not in a parameter, or beside another such axis, and a
    product of other sizes is none.
    """
    steps = known.steps
    return any(steps in shape for shape in known.program.shapes.values()) or any(
        shape.count(steps) > 1 or (steps not in shape and prod(shape) == steps) for shape in shapes
    )


def read_constant(known: Structure, number: int) -> float:
    """Read the one number that an operation of the user's multiplies or divides by; 0 for another.

    One that has no place in the user's code multiplies by a cotangent of the judge's.
    """
    operation, constants = known.program.operations[number], known.program.constants
    if operation.name not in {"mul", "div"} or not operation.where:
        return 0.0
    for k, slot in enumerate(operation.inputs):
        if slot in constants and constants[slot].size == 1:
            value = float(np.real(constants[slot]).ravel()[0])
            if operation.name == "mul":
                return value
            return 1 / value if k == 1 and value else 0.0
    return 0.0


def list_factors(known: Structure) -> list[Factor]:
    """List the factors that are often wrong: sizes in the loss, their inverses and doubles.

    A number that the loss multiplies by, or divides by, may be missing.
    """
    sizes = {known.steps: "the number of steps"} if known.steps > 1 else {}
    shapes = [equation.shapes[0] for equation in known.program.operations]
    for shape in (*shapes, *(value.shape for value in known.program.constants.values())):
        for size in (*shape, prod(shape)):
            sizes.setdefault(size, "a size in your forward pass")
    found: dict[float, str] = {2.0: "2", 0.5: "1/2"}
    every = [*shapes, *(value.shape for value in known.program.constants.values())]
    if is_also_another_size(known, every):
        sizes[known.steps] = "the number of steps and also another size in your forward pass"
    for size, words in sizes.items():
        if size > 2:
            found.setdefault(float(size), f"{size}, {words},")
            found.setdefault(1 / size, f"1/{size}, one over {words},")
    for size, words in sizes.items():  # 2/6 is 1/3, where the loss has a size of 3
        if size > 2:
            found.setdefault(2.0 * size, f"{2 * size}, twice {words},")
            found.setdefault(2 / size, f"2/{size}, two over {words},")
    for number in range(len(known.program.operations)):
        constant = read_constant(known, number)
        for value in (constant, 2 * constant) if constant else ():  # 2 c of c x²
            size, said = abs(value), ", a factor that your forward pass gives,"
            found.setdefault(size, f"{size:.6g}{said}")
            found.setdefault(1 / size, f"1/{size:.6g}, one over{said[1:]}")
    found |= {-n: "−" + words.replace(", ", ", minus ", 1) for n, words in found.items()}

    def factor(words: str, number: float) -> Factor:
        return Factor(words, lambda back: number)

    return [factor(words, number) for number, words in found.items()]
