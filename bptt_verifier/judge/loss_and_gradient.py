"""A loss and its gradient as two functions of a file: `cost(w, x, y)` and `gradient(w, x, y)`.

Both take the same data and parameters, and run the forward pass themselves. What only compares them
with differences is no gradient that is judged, and nor is that of a loss of predictions alone.
"""

import ast
import re

from bptt_verifier.program.data_names import INPUTS, PARAMETER, find_kind
from bptt_verifier.program.gradient_names import is_named_gradient, walk_own_body
from bptt_verifier.program.losses_beside import OF_LOSSES
from bptt_verifier.program.own_classes import BACKWARD
from bptt_verifier.program.own_results import LOSSES, PARAMS
from bptt_verifier.program.source_file import Definitions

# Words in names of functions that return gradients, and of functions that do something else.
GRADIENT = re.compile(r"grad|deriv|nabla|(?:^|_)(?:d|prime)(?:_|$)")
OTHERS = re.compile(r"check|num|finite|diff|approx|descent|train|fit|step|update|test|plot|print")
OF_FUNCTIONS = frozenset({*LOSSES, "f", "fun", "func", "obj", "mse", "sse", "criterion"})
PREDICTIONS = re.compile(r"(?:p|q|a|y_?hat|y_?pred|pred.*|out.*|logits?|probs?|scores?|z)$")

ALL_PARAMETERS = ("params", "parameters", "weights", "theta", "model", "p")  # in one argument


def find_loss_and_gradient(defined: Definitions) -> str:
    """Find the only loss and gradient of a file, as two names; empty where there are several."""
    functions = {n: f for n, f in defined.functions.items() if not OTHERS.search(n.lower())}
    slopes = [n for n in functions if names_gradient(n, defined)]
    losses = [n for n in functions if n not in slopes and names_loss(n)]
    pairs = [
        (one, other)
        for other in slopes
        for one in losses or [n for n in functions if is_named_gradient(other, n)]
        if takes_parameters(defined, one, other)
    ]
    same = [pair for pair in pairs if is_named_gradient(pair[1], pair[0])]
    found = same or pairs
    called = {name for one, other in found for name in list_calls(defined, one, other)}
    whole = [pair for pair in found if called.isdisjoint(pair)]
    return ",".join(whole[0]) if len(whole) == 1 else ""


def shares_data(defined: Definitions, gradient: str) -> bool:
    """True if a function takes parameters and data as `loss` does, and the file has them.

    They are variables by the names of the arguments, of which the parameters may have another usual
    name, or the file calls one of both with them.
    """
    if not {"loss", gradient} <= {*defined.functions}:
        return False
    first, second = (list_needed(defined.functions[each]) for each in ("loss", gradient))
    if first != second or len(first) < 2 or not takes_parameters(defined, "loss", gradient):
        return False
    missing = {*first} - defined.names
    named = [each for each in PARAMS if each in defined.names]
    given = not missing or (len(missing) == len(named) == 1 and missing <= {*PARAMS})
    return given or not {"loss", gradient}.isdisjoint(defined.calls)


def takes_separately(defined: Definitions, gradient: str) -> bool:
    """True if a function may take each parameter as an argument of its own.

    `loss` takes the same arguments, or all parameters as one.
    """
    if not {"loss", gradient} <= {*defined.functions}:
        return False
    first, second = (list_needed(defined.functions[each]) for each in ("loss", gradient))
    first = [name for name in first if name != "xp"]
    alike = {*first} == {*second} or (len(first) == 1 and first[0] in ALL_PARAMETERS)
    return alike and len(second) > 1 and second[0].lower() not in ALL_PARAMETERS


def names_gradient(name: str, defined: Definitions) -> bool:
    """True for the name of a function that returns gradients: of a word, or d and another."""
    lower = name.lower()
    of_other = any(is_named_gradient(name, each) for each in defined.functions if each != name)
    of_loss = lower.startswith("d") and names_loss(lower[1:].lstrip("_"))
    return lower in BACKWARD or bool(GRADIENT.search(lower)) or of_other or of_loss


def names_loss(name: str) -> bool:
    """True for the name of a function that returns a loss."""
    return name in OF_FUNCTIONS or any(word in name.lower() for word in OF_LOSSES)


def list_needed(function: ast.FunctionDef) -> list[str]:
    """List the arguments of a function that have no default."""
    given = [*function.args.posonlyargs, *function.args.args]
    return [each.arg for each in given[: len(given) - len(function.args.defaults)]]


def takes_parameters(defined: Definitions, loss: str, gradient: str) -> bool:
    """True if two functions take the same arguments, of which one may be a parameter.

    Otherwise the parameters may be variables of the file that both of them read.
    """
    first, second = (list_needed(defined.functions[each]) for each in (loss, gradient))
    if {*first} != {*second}:
        return False
    held = [n for n in first if (n in PARAMS or PARAMETER.match(n)) and not find_kind(n)]
    inputs = any(find_kind(n) is INPUTS for n in first)  # beside them, p is a parameter
    if held and (inputs or not all(map(PREDICTIONS.match, held))):
        return True
    read = [
        {n.id for n in walk_own_body(defined.functions[each]) if isinstance(n, ast.Name)}
        for each in (loss, gradient)
    ]
    space = defined.names - {*defined.functions, *defined.classes, *first}
    return any(PARAMETER.match(n) or n in PARAMS for n in read[0] & read[1] & space)


def list_calls(defined: Definitions, *names: str) -> set[str]:
    """List the functions that two functions call, but each other."""
    nodes = [node for each in names for node in ast.walk(defined.functions[each])]
    return {
        n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    } - {*names}
