"""The line and the expression of the loss at which a mistake is made, in words and as details."""

from collections.abc import Sequence
from typing import Any

from bptt_verifier.mistakes.expressions import name_operation
from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure


def locate_mistake(
    known: Structure,
    made: OperationMistake,
    changed: Changes,
    names: Sequence[str],
    call: Place | None = None,
) -> tuple[str, dict[str, Any]]:
    """Say at which line of the loss a mistake is made, and collect the details of a report.

    `changed` are its changes, and `names` are the gradients that it is in, if not in all. `call` is
    the line that is shown in the place of one inside the function that it calls.
    """
    operations, leaf = known.program.operations, known.leaf
    # The line shown is one where a parameter of these gradients is used.
    own = [n for n, k in changed if leaf.get(operations[n].inputs[k]) in names]
    if own and {*map(leaf.get, operations[made.equation].inputs)}.isdisjoint(names):
        made = made._replace(equation=min(own))
    equation = operations[made.equation]
    operation = name_operation(equation)
    place = call or (equation.where[0] if equation.where else None)
    line = place.text if place else None
    where = f"the line `{line}` ({place.at_column})" if place and line else "an operation"
    # If the mistake is made for one caller of a function only, name the calling line.
    chains = {operations[number].where for number, _ in changed}
    shared = {chain for chain in chains if chain[:1] == equation.where[:1]}
    callers = {each.where for each in operations if each.where[:1] == equation.where[:1]}
    one_of_several = len(shared) == 1 and len(callers) > 1 and len(made.places) < 2
    if line and one_of_several and len(equation.where) > 1 and call is None:
        where += f", called by `{equation.where[1].text}`,"
    details = dict(made.details) | {
        "line": line,
        "file_line": str(place) if place else None,
        "column": place.first_column if place else None,
        "expression": place.expression if place else None,
        "operation": operation,
        "alteration": made.alteration,
    }
    if len(made.places) > 1:
        lines = [operations[number].where[:1] for number in made.places]
        named = dict.fromkeys(str(at) for (at,) in filter(None, lines))
        others = [at for at in named if at != str(place)]
        where += f" and {', '.join(others)}" if others else ""
        expressions = dict.fromkeys(at.expression for (at,) in filter(None, lines))
        listed = f" ({', '.join(f'`{e}`' for e in expressions)})" if len(expressions) > 1 else ""
        where += f", at {len(made.places)} places{listed},"
        details["places"] = [str(at) for (at,) in filter(None, lines)]
    at = f", at `{place.expression}`" if place and place.expression != line else ""
    at = at if line else f", a {operation}"
    return f"{where} of your forward pass is differentiated wrongly{at}: ", details
