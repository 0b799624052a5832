"""Names of the values in a loss, as its source writes them: operands, results and activations."""

import ast
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes.known_activations import KNOWN
from bptt_verifier.program.activations import Activation, find_activations_at, result_of
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure

ENTRIES = 32  # entries of a joined list that have a name, at most
LONGEST = 60  # characters of an expression that a sentence quotes, at most
ORDINAL = "first second third fourth fifth sixth".split()
SAMPLES = np.array([[-1.5, -0.3, 0.4, 2.0]])  # points that tell a tanh from a sigmoid

OPERATIONS = {
    "dot_general": "matrix product",
    "mul": "product",
    "add": "sum",
    "sub": "difference",
    "div": "quotient",
    "broadcast_in_dim": "broadcast",
    "reduce_sum": "sum over an axis",
    "integer_pow": "power",
    "select_n": "selection",
    "reduce_max": "maximum",
    "max": "maximum",
    "min": "minimum",
    "exp": "exponential",
    "log": "logarithm",
    "sqrt": "square root",
    "concatenate": "joined array",
    "gather": "lookup",
}
# Operations that lay an array out anew, as np.outer does.
MOVED = frozenset("broadcast_in_dim reshape expand_dims".split())
PLACES = {"dot_general": "factor", "mul": "factor", "add": "term", "sub": "side"}

# The operation of each operator, and of each function of NumPy that has operands in its order.
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.MatMult: "dot_general",
    ast.Pow: "integer_pow",
}  # fmt: skip
FUNCTIONS = {
    "dot": "dot_general", "matmul": "dot_general", "add": "add", "subtract": "sub",
    "multiply": "mul", "divide": "div", "maximum": "max", "minimum": "min", "sum": "reduce_sum",
    "mean": "reduce_sum", "concatenate": "concatenate", "hstack": "concatenate",
    "vstack": "concatenate", "stack": "stack", "array": "stack", "tanh": "tanh", "exp": "exp",
    "log": "log", "sqrt": "sqrt", "abs": "abs", "square": "square",
}  # fmt: skip
NAMESPACES = frozenset("np numpy jnp xp".split())


class Written(NamedTuple):
    """An operation as an expression writes it: its name, and the texts of its operands."""

    name: str
    operands: tuple[str, ...]


@lru_cache(4096)
def read_expression(expression: str) -> Written | None:
    """Read which operation an expression is, with its operands; None for any other expression."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError):
        return None

    def write(*nodes: ast.expr) -> tuple[str, ...]:
        return tuple(ast.get_source_segment(expression, node) or "" for node in nodes)

    match tree:
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            return Written(OPERATORS[type(operator)], write(left, right))
        case ast.UnaryOp(ast.USub(), operand):
            return Written("neg", write(operand))
        case ast.Subscript(value):
            return Written("", write(value))
        case ast.Call(ast.Attribute(ast.Name(space), "where"), [which, chosen, other]) if (
            space in NAMESPACES
        ):
            return Written("select_n", write(which, other, chosen))
        case ast.Call(ast.Attribute(ast.Name(space), name), [first, *others]) if (
            space in NAMESPACES and name in FUNCTIONS
        ):
            if FUNCTIONS[name] not in {"concatenate", "stack"}:
                return Written(FUNCTIONS[name], write(first, *others))
            if isinstance(first, ast.List | ast.Tuple):
                plain = not any(isinstance(each, ast.Starred) for each in first.elts)
                return Written(FUNCTIONS[name], write(*first.elts)) if plain else None
            if isinstance(first, ast.Name):
                entries = tuple(f"{first.id}[{k}]" for k in range(ENTRIES))
                return Written(FUNCTIONS[name], entries)
        case ast.Call(ast.Attribute(value, name), others) if name in FUNCTIONS:
            return Written(FUNCTIONS[name], write(value, *others))
    return None


def read_operand(equation: Operation, operand: int) -> str:
    """Read the text of an operand in the source; empty where it is not certain."""
    place = equation.where[0] if equation.where else None
    written = read_expression(place.expression) if place is not None and place.end_column else None
    if written is None or operand >= len(written.operands):
        return ""
    moved = equation.moved is not None and not written.name
    return written.operands[operand] if moved or written.name == equation.name else ""


def name_operand(known: Structure, number: int, operand: int) -> str:
    """Name an operand, and its place where several that are not the same have this name."""
    operations = known.program.operations
    name, inputs = spell_operand(known, number, operand), operations[number].inputs
    made = {k: operations[known.producer[s]] for k, s in enumerate(inputs) if s in known.producer}
    kinds = {k: (each.name, each.where) for k, each in made.items()}
    alike = [k for k, kind in kinds.items() if kind == kinds.get(operand)]
    if len({inputs[k] for k in alike}) < 2 or not name.startswith("`"):
        return name
    if any(spell_operand(known, number, k) != name for k in (alike[0], alike[-1])):
        return name
    place = alike.index(operand)
    which = ORDINAL[place] if place < len(ORDINAL) else f"{place + 1}th"
    which = "last" if place + 1 == len(alike) else which
    return f"{name} in the {which} of its {len(alike)} places"


def spell_operand(known: Structure, number: int, operand: int) -> str:
    """Spell an operand: as the source writes it, by its parameter, or by its number."""
    equation, constants = known.program.operations[number], known.program.constants
    slot = equation.inputs[operand]
    text = read_operand(equation, operand)
    if 0 < len(text) <= LONGEST and not is_exchanged(known, equation, operand):
        return f"`{text}`"
    if slot in known.leaf:
        return f"`{known.leaf[slot]}`"
    if slot in constants and constants[slot].size == 1:
        return f"the constant {float(constants[slot].ravel()[0].real):.6g}"
    if slot in known.producer:
        found = write_expression(known, known.producer[slot])
        inner = known.program.operations[known.producer[slot]]
        step = known.step.get(known.producer[slot])
        if inner.name in MOVED and inner.where and inner.where == equation.where:
            return spell_operand(known, known.producer[slot], 0)
        if inner.where and inner.where == equation.where and step == known.step.get(number):
            # Of a function such as the mean.
            if inner.name == "reduce_sum":
                return "its sum"
            kind, operation = PLACES.get(equation.name, "operand"), name_operation(equation)
            if equation.name == "sub":
                which = "that is subtracted" if operand else "from which more is subtracted"
                return f"the {name_operation(inner)} inside it {which}"
            one, article = ("an" if w[0] in "aeiou" else "a" for w in (kind, operation))
            which = f"{one} {kind} of {article} {operation}"
            return f"the {name_operation(inner)} inside it that is {which}"
        if found:
            return f"`{found}`"
    return name_place(equation, operand, bool(text))


def name_place(equation: Operation, operand: int, in_order: bool) -> str:
    """Name an operand by its place; by its kind alone unless it is `in_order` of the source."""
    kind, operation = PLACES.get(equation.name, "part"), name_operation(equation)
    if len(equation.inputs) == 1:
        return f"the argument of the {operation}"
    if equation.name == "div":
        return f"the {('numerator', 'denominator')[operand]} of the quotient"
    if len(equation.inputs) == 2:
        return (
            f"the {('left', 'right')[operand]} {kind} of the {operation}"
            if in_order
            else (f"one {kind} of the {operation}")
        )
    which = ORDINAL[operand] if operand < len(ORDINAL) else f"{operand + 1}th"
    return f"the {which} {kind} of the {operation}"


def is_exchanged(known: Structure, equation: Operation, operand: int) -> bool:
    """True if the operation has its operands in another order than the source.

    It shows where one is a parameter, whose name is in the text of the other.
    """
    name = known.leaf.get(equation.inputs[operand])
    texts = [read_operand(equation, k) for k in range(len(equation.inputs))]
    others = texts[:operand] + texts[operand + 1 :]
    return name is not None and name not in texts[operand] and any(name in t for t in others)


def write_expression(known: Structure, number: int) -> str:
    """Write the expression of an operation; of a function of several callers, that of the call.

    Empty where it is unknown, or long, or goes on in the next line.
    """
    where = known.program.operations[number].where
    if not where:
        return ""
    place = where[known.callers[where[0]] > 1 and len(where) > 1]
    found = place.expression
    return found if place.end_column and len(found) <= LONGEST else ""


def quote_expression(known: Structure, number: int) -> str:
    """Quote the expression of an operation; name the operation where it cannot be quoted."""
    found = write_expression(known, number)
    return f"`{found}`" if found else f"the {name_operation(known.program.operations[number])}"


def quote_apart(known: Structure, one: int, other: int) -> tuple[str, str]:
    """Quote the expressions of two operations, with their lines where both have one text."""
    texts = quote_expression(known, one), quote_expression(known, other)
    lines = tuple(find_line(known, number) for number in (one, other))
    if texts[0] != texts[1] or lines[0] == lines[1] or 0 in lines:
        return texts
    return f"{texts[0]} (line {lines[0]})", f"{texts[1]} (line {lines[1]})"


def find_line(known: Structure, number: int) -> int:
    """Find the line of an operation; of a function of several callers, that of a call; or 0."""
    where = known.program.operations[number].where
    return where[known.callers[where[0]] > 1 and len(where) > 1].line if where else 0


def name_operation(equation: Operation) -> str:
    """Name an operation in words."""
    return OPERATIONS.get(equation.name, equation.name)


def recognise(known: Structure, activation: Activation) -> str | None:
    """Recognise a known activation, such as a tanh, by its values, however it is written."""
    if known.program.operations[activation.end].dtypes[0] != np.float64:
        return None
    with np.errstate(all="ignore"):
        found = result_of(known, activation, SAMPLES)
        values = {name: each.function(SAMPLES) for name, each in KNOWN.items()}
    if np.shape(found) != SAMPLES.shape:
        return None
    return next((name for name, value in values.items() if np.allclose(found, value)), None)


def name_activation(known: Structure, activation: Activation) -> str:
    """Name an activation: `tanh`, `sigmoid`, or as the source writes it."""
    longer = find_activations_at(known, activation.end)
    kind = next((k for each in (activation, *longer) if (k := recognise(known, each))), None)
    if kind is None and len(activation.numbers) == 1 and len(longer) > 1:
        # The expression is that of a longer activation, such as log(cosh(a)).
        operation = name_operation(known.program.operations[activation.end])
        return f"the {operation} in {quote_expression(known, activation.end)}"
    return kind or quote_expression(known, activation.end)


def is_inside_expression(known: Structure, activation: Activation) -> bool:
    """Tell whether an activation is only a part of what its expression computes.

    The square in `a.var()` is: the expression is a mean of squares, and no function of each entry.
    """
    operations, end = known.program.operations, activation.end
    users = [number for number, _ in known.users.get(operations[end].outputs[0], ())]
    where = operations[end].where
    return bool(where) and any(operations[k].where == where for k in users)


def name_result(known: Structure, activation: Activation) -> str:
    """Name the variable that an activation is assigned to; `y` where there is none."""
    for place in known.program.operations[activation.end].where:
        found = find_target(place)
        if found:
            return found
    return "y"


def find_target(place: Place) -> str:
    """Find the variable that a line assigns an expression to, if it assigns nothing else."""
    try:
        (statement,) = ast.parse(place.text).body
    except (SyntaxError, ValueError):
        return ""
    match statement:
        case ast.Assign([ast.Name() | ast.Subscript() | ast.Attribute() as target], value) if (
            ast.get_source_segment(place.text, value) == place.expression
        ):
            found = ast.get_source_segment(place.text, target) or ""
            return found if len(found) <= LONGEST // 5 else ""
    return ""
