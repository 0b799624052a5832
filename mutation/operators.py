"""Mutants of a module: one small change each, made in the text of the source.

Left alone are texts, annotations, assertions (and `strict` of `zip`, which is one), decorators,
imports, and what a message is built of.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
OPPOSITE = {"min": "max", "any": "all", "minimum": "maximum", "fmin": "fmax", "argmin": "argmax"}
OPPOSITE |= {other: name for name, other in OPPOSITE.items()}


class Mutant(NamedTuple):
    """One change: `old` is replaced by `new` in a function of a file.

    `text` is the whole changed source. `code` is the line; `number` counts equal changes, from 1.
    """

    file: str
    function: str
    old: str
    new: str
    code: str
    number: int
    line: int
    text: str

    @property
    def name(self) -> str:
        """A name that stays the same when lines above it change."""
        count = f" ({self.number})" if self.number > 1 else ""
        change = f"{self.old} -> {self.new}{count}"
        inside = "" if self.code == self.old else f" in {self.code}"
        return f"{self.function}: {change}{inside}"


def list_mutants(file: str, source: str) -> list[Mutant]:
    """List all mutants of a module, in the order of the source."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    content = b"".join(lines)
    found, seen = [], Counter[tuple[str, ...]]()
    for function, node, new in find_changes(ast.parse(source), "module"):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old = " ".join(content[begin:end].decode().split())
        written = f"({new})" if isinstance(node, ast.expr) else new
        text = (content[:begin] + written.encode() + content[end:]).decode()
        code = lines[node.lineno - 1].decode().partition("  #")[0].strip()
        key = (function, old, new, code)
        seen[key] += 1
        found.append(Mutant(file, *key, seen[key], node.lineno, text))
    return found


def find_changes(node: ast.AST, function: str) -> Iterator[tuple[str, Any, str]]:
    """Find every change below a node: the function, the node replaced, and the new text."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name if function == "module" else f"{function}.{node.name}"
    yield from ((function, node, new) for new in change(node))
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and getattr(child, "arg", None) != "strict":
                yield from find_changes(child, function)
        if name in ("test", "ifs"):
            for condition in value if isinstance(value, list) else [value]:
                yield function, condition, f"not ({ast.unparse(condition)})"


def change(node: ast.AST) -> Iterator[str]:
    """The texts that replace one node."""
    match node:
        case ast.Compare(left, [operator, *others], comparators) if type(operator) in COMPARISONS:
            other = COMPARISONS[type(operator)]()
            yield ast.unparse(ast.Compare(left, [other, *others], comparators))
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            yield ast.unparse(ast.BinOp(left, ARITHMETIC[type(operator)](), right))
            if isinstance(operator, ast.Add):
                yield ast.unparse(left)
        case ast.BoolOp(operator, values):
            joined = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(joined, values))
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield ast.unparse(operand)
        case ast.Constant(bool(value)):
            yield str(not value)
        case ast.Constant(int(value)):
            yield str(value + 1)
        case ast.Constant(float(value)):
            yield str(2 * value if value else 1.0)
        case ast.Name(name) if name in OPPOSITE:
            yield OPPOSITE[name]
        case ast.Attribute(value, name) if name in OPPOSITE:
            yield f"({ast.unparse(value)}).{OPPOSITE[name]}"
        case ast.Return(value) if value is not None and ast.unparse(value) != "None":
            yield "return None"
        case ast.Expr(ast.Call()):
            yield "pass"
        case ast.Assign([ast.Subscript() | ast.Attribute()], _):
            yield "pass"
        case ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "pass"
