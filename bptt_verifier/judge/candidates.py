"""Candidates in a file: the functions and classes whose source says that they compute gradients."""

import ast
import re
from collections.abc import Collection, Iterator, Sequence

from bptt_verifier.program.gradient_names import (
    CONTAINERS,
    is_named_gradient,
    name_expression,
    walk_own_body,
)
from bptt_verifier.program.losses_beside import is_name_of_gradients, is_name_of_loss
from bptt_verifier.program.own_classes import BACKWARD, FORWARD, LOSS
from bptt_verifier.program.own_results import LOSSES
from bptt_verifier.program.passed_arguments import COTANGENT
from bptt_verifier.program.source_file import Definitions

OF_LOSSES = ("loss", "cost", "entropy", "bce", "mse", "nll", "error")  # in names of losses
OF_GRADIENTS = frozenset("grad grads gradient gradients dparams d_params".split())
PASSES = (  # in names of functions
    ("forward", "backward"), ("fwd", "bwd"), ("fprop", "bprop"), ("forward", "back"),
    ("forward", "backprop"), ("feedforward", "backprop"), ("feed_forward", "backprop"),
    ("feed_forward", "back_prop"),
)  # fmt: skip
# Names of methods that return the loss and leave the gradients, such as `loss_and_backward`.
LEAVING = re.compile(r"(?:.*_)?(?:loss|cost)_(?:and|with)_(?:back\w*|grads?|gradients?)")
NO_LOSSES = ("back", "grad", "deriv", "forward", "bwd", "fwd")  # in names of other functions
ENDINGS = ("loss", "cost", "error")  # of the names of losses
# Names of functions that say what they return, such as `value_and_gradient`.
BOTH = re.compile(
    r"(?:.*_)?(?:value|loss|cost|objective|error|energy|nll|fun|f)_(?:and|with)_"
    r"(?:grads?|gradients?|derivatives?|jac)"
)


def returns_loss_alone(defined: Definitions, name: str) -> bool:
    """True if a function has the name of a loss, returns one value, and leaves no gradients."""
    function = defined.functions[name]
    if leaves_gradients(function):
        return False
    returned = [n.value for n in walk_own_body(function) if isinstance(n, ast.Return)]
    several = any(isinstance(each, ast.Tuple | ast.List | ast.Dict) for each in returned)
    named = name in {*LOSS, *LOSSES} and bool(returned)
    return named and not several and not has_own_parameters(defined, name)


def count_required(defined: Definitions, name: str) -> int | None:
    """Count the arguments without a default of a function; None where that is not in the file."""
    node = defined.functions.get(name)
    if node is None or (node.args.vararg and not (node.args.posonlyargs or node.args.args)):
        return None
    return len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)


def takes_three(defined: Definitions, name: str) -> bool:
    """True if a function takes three arguments, as a derivation does."""
    given = defined.functions[name].args
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    by_name = [each for each, default in pairs if default is None]
    return given.vararg is not None or len([*given.posonlyargs, *given.args, *by_name]) >= 3


def list_pairs(defined: Definitions) -> list[tuple[str, str]]:
    """List the pairs of functions such as rnn_forward and rnn_backward, in the order of the file.

    A pair that another one calls is a part of it, and is left out.
    """
    pairs = [(n, n.replace(one, other)) for n in defined.functions for one, other in PASSES]
    found = [pair for pair in pairs if len({*pair} & {*defined.functions}) == 2]
    found = [*{one: (one, other) for one, other in reversed(found)}.values()][::-1]  # likeliest
    called = {pair: list_called(defined, pair) for pair in found}
    whole = [
        pair for pair in found if not any(pair[0] in c for p, c in called.items() if p != pair)
    ]
    return whole or found


def list_called(defined: Definitions, names: Sequence[str]) -> set[str]:
    """List the functions of a file that functions of it call, themselves or through others."""
    waiting, found = [*names], set[str]()
    while waiting:
        nodes = ast.walk(defined.functions[waiting.pop()])
        called = {name_expression(n.func) for n in nodes if isinstance(n, ast.Call)}
        new = (called & {*defined.functions}) - found
        found |= new
        waiting += new
    return found


def find_pair(defined: Definitions) -> str:
    """Find two functions such as rnn_forward and rnn_backward, the last in the file.

    The loss is named between them if one function of the file is surely that.
    """
    pairs = list_pairs(defined)
    if not pairs:
        return ""
    forward, backward = pairs[-1]
    losses = [
        each for each in defined.functions
        if each not in pairs[-1] and any(word in each.lower() for word in OF_LOSSES)
        and not any(word in each.lower() for word in NO_LOSSES)
    ]  # fmt: skip
    called = [each for each in losses if each in defined.calls]
    losses = called if len(losses) > 1 else losses
    return ",".join([forward, *(losses if len(losses) == 1 else []), backward])


def choose_pair(defined: Definitions, candidates: Sequence[str]) -> str:
    """Choose the only pair of functions of a file, with the loss between them if it calls that.

    The `candidates` that return a loss with gradients may be that loss, which returns its own, or
    functions of the pair. Empty where they are others.
    """
    names = find_pair(defined).split(",")
    functions = [n for n in names if n in (names[0], names[-1]) or n in defined.calls]
    alone = len(list_pairs(defined)) == 1 and {*names[:1], *names[-1:]} <= defined.calls
    return ",".join(functions) if alone and {*candidates} <= {*names} else ""


def suggest_method(defined: Definitions) -> str:
    """Suggest the last public method of a file that has one class and no functions."""
    if defined.functions or len(defined.classes) != 1:
        return ""
    ((name, node),) = defined.classes.items()
    methods = [child.name for child in node.body if isinstance(child, ast.FunctionDef)]
    public = [method for method in methods if not method.startswith("_")]
    return f"{name}.{choose_likely(public)}" if public else ""


def choose_method(defined: Definitions, name: str) -> str:
    """Choose the method of a class or an object that returns the loss and the gradients.

    A class with forward and backward is judged as a whole. So is one without such a method, unless
    one of its methods updates the parameters. Raises ValueError where several methods do.
    """
    kind = defined.objects.get(name, name)
    within = [each.partition(".") for each in list_candidates(defined)]
    methods = [method for owner, _, method in within if owner == kind and method]
    if len(methods) > 1:
        raise ValueError(
            f"FILE: expected one method of {kind} that returns the loss and the gradients, found "
            f"{', '.join(methods)}; name the one to judge, such as {name}.{methods[0]}"
        )
    whole = kind in list_candidates(defined) or kind not in defined.classes
    if not (methods or whole):
        updating = list_updating_methods(defined.classes[kind])
        methods = updating if len(updating) == 1 else []
    if methods:
        return f"{name}.{methods[0]}"
    _, dot, method = choose_loss_method(defined, kind).partition(".")
    return f"{name}{dot}{method}"


def choose_loss_method(defined: Definitions, name: str) -> str:
    """Choose the method of a class that returns the loss, where it passes the gradient to backward.

    What it passes is a part of the derivation. Otherwise the class is judged as a whole.
    """
    found = [each for each in list_passing(defined, name) if is_name_of_loss(each)]
    return f"{name}.{found[0]}" if len(found) == 1 else name


def list_passing(defined: Definitions, name: str) -> list[str]:
    """List the methods of a class that run both passes, and pass a gradient to the second."""
    node = defined.classes.get(name)
    methods = [] if node is None else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    return [each.name for each in methods if passes_back(each)]


def passes_back(method: ast.FunctionDef) -> bool:
    """True if a method runs both passes, with an argument for the backward one, and returns."""
    calls = [n for n in walk_own_body(method) if isinstance(n, ast.Call)]
    given = {name_expression(n.func): bool(n.args or n.keywords) for n in calls}
    back = any(given.get(name) for name in BACKWARD)
    returns = any(isinstance(n, ast.Return) and n.value for n in walk_own_body(method))
    return back and returns and not {*FORWARD}.isdisjoint(given)


def suggest_instead(defined: Definitions, name: str) -> str:
    """Suggest another method of the same class that returns both, as the rest of a sentence."""
    top = name.partition(".")[0]
    node = defined.classes.get(defined.objects.get(top, top))
    methods = [] if node is None else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    attributes = {
        n.attr for each in methods for n in ast.walk(each) if isinstance(n, ast.Attribute)
    }
    found = [f"{top}.{each.name}" for each in methods if returns_both(each, attributes)]
    if not found or name in found:
        return ""
    return f"or judge {found[0]}, which returns both: FILE:{found[0]}"


def list_updating_methods(node: ast.ClassDef) -> list[str]:
    """List the methods that return a value, and change attributes with gradients named after them.

    So does `train` that ends with `self.W -= self.rate * dW` and `return loss`, or that sets
    attributes by `setattr` and has a dict `grads`.
    """
    found = []
    for function in node.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        nodes = [*walk_own_body(function)]
        stored = [n for n in nodes if isinstance(getattr(n, "ctx", None), ast.Store)]
        local = {n.id for n in stored if isinstance(n, ast.Name)}
        changed = {id(n.value) for n in stored if isinstance(n, ast.Subscript)}  # self.W[i] -= …
        attributes = {
            n.attr
            for n in nodes
            if isinstance(n, ast.Attribute) and (n in stored or id(n) in changed)
        }
        returns = any(isinstance(n, ast.Return) and n.value is not None for n in nodes)
        read = {n.id for n in nodes if isinstance(n, ast.Name)}
        set_by_name = {"setattr", "vars"} & read and {n for n in local & CONTAINERS if len(n) > 1}
        named = any(is_named_gradient(one, other) for one in local for other in attributes)
        if returns and (named or set_by_name):
            found.append(function.name)
    return found


def describe_object(name: str, found: object) -> str:
    """Write the sentence on an object that is no function, and has no forward and backward."""
    methods = [n for n, v in vars(type(found)).items() if callable(v) and not n.startswith("_")]
    if not (methods and hasattr(found, "__dict__")):
        return f"{name}: expected a function or class, found {type(found).__name__}"
    return (
        f"{name}: expected a class with methods forward and backward, or a method that returns the "
        f"loss and the gradients, found the methods {', '.join(methods)}; name one, such as "
        f"FILE:{name}.{choose_likely(methods)}"
    )


def choose_whole(defined: Definitions, candidates: Sequence[str]) -> str:
    """Choose the candidate that makes the most objects of other classes, or else the first."""

    def count_parts(name: str) -> int:
        nodes = ast.walk(defined.classes[name]) if name in defined.classes else ()
        called = {
            n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        return len(called & {*defined.classes})

    return max(candidates, key=count_parts)


def choose_likely(methods: Sequence[str]) -> str:
    """Choose the method whose name speaks of gradients or of a backward pass, or the last."""
    words = ("grad", "back", "bptt", "train", "fit", "step")
    found = (each for word in words for each in methods if word in each.lower())
    return next(found, methods[-1])


def choose_updating_method(defined: Definitions) -> str:
    """Choose the only method of a file that updates attributes and returns a value."""
    found = [f"{n}.{m}" for n, node in defined.classes.items() for m in list_updating_methods(node)]
    functions = {*defined.functions} - defined.starred
    return found[0] if len(found) == 1 and not functions else ""


def suggest_function(defined: Definitions) -> str:
    """Suggest the last function that returns several values, of which one is named as a loss."""
    return next((n for n in reversed(defined.functions) if names_loss(defined.functions[n])), "")


def names_loss(function: ast.FunctionDef) -> bool:
    """True if a function returns several values, of which one is named as a loss."""
    values = [n.value for n in walk_own_body(function) if isinstance(n, ast.Return)]
    parts = [part for v in values if isinstance(v, ast.Tuple) for part in flatten_tuples(v)]
    return bool(LOSSES & {*map(name_expression, parts)})


def suggest_name(defined: Definitions) -> str:
    """Suggest what of a file to judge, for a message."""
    pair_or_method = find_pair(defined) or suggest_method(defined)
    updating = (f"{n}.{m}" for n, c in defined.classes.items() for m in list_updating_methods(c))
    return pair_or_method or suggest_function(defined) or next(updating, "NAME")


def list_named(defined: Definitions) -> str:
    """List the functions and classes of a file, for a message."""
    return ", ".join([*defined.functions, *defined.classes]) or "none"


def has_own_parameters(defined: Definitions, name: str) -> bool:
    """True if a function computes gradients, by their names, of variables of its file."""
    variables = defined.names - {*defined.functions, *defined.classes}
    nodes = [n for n in walk_own_body(defined.functions[name]) if isinstance(n, ast.Name)]
    read = {n.id for n in nodes if isinstance(n.ctx, ast.Load)} & variables
    local = {n.id for n in nodes if isinstance(n.ctx, ast.Store)}
    return any(is_named_gradient(one, other) for one in local for other in read - local)


def list_candidates(defined: Definitions) -> list[str]:
    """List the functions that return a loss with gradients, and classes with both methods.

    A function that returns what a candidate does is one, and so is a variable that holds such an
    inner function of another. Those of the file itself come before those of star imports.
    """
    own = {name for name in defined.calls if defined.defines(name)} - {*defined.classes}
    found = [n for n, function in defined.functions.items() if returns_both(function, own=own)]
    handing = [n for n, f in defined.functions.items() if n not in found and returns_call(f, found)]
    makers = {n for n, function in defined.functions.items() if makes_candidate(function, own)}
    found += [*handing, *(name for name, maker in defined.made.items() if maker in makers)]
    called = list[str]()
    for name, node in defined.classes.items():
        methods = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        if methods & {*FORWARD} and methods & {*BACKWARD}:
            # Layers and activations may be called, where another one is to be judged.
            (found if methods & {*FORWARD[:-1]} else called).append(name)
            continue
        inside = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        both = [child.name for child in inside if returns_both(child, own=own)]
        leaving = [n.name for n in inside if LEAVING.fullmatch(n.name.lower())]
        found += [f"{name}.{each}" for each in both or list_beside_losses(inside) or leaving]
    found = found or called
    own_first = [each for each in found if each.partition(".")[0] not in defined.starred]
    used = [each for each in found if each.partition(".")[0] in defined.calls]
    return own_first or used or found


def list_beside_losses(methods: Sequence[ast.FunctionDef]) -> list[str]:
    """List the methods that return gradients by their names, where a loss takes the same arguments.

    One that another of them calls is a part of that.
    """

    def list_needed(method: ast.FunctionDef) -> set[str]:
        given = [*method.args.posonlyargs, *method.args.args]
        return {each.arg for each in given[1 : len(given) - len(method.args.defaults)]}

    losses = [list_needed(each) for each in methods if is_name_of_loss(each.name)]
    found = [
        each for each in methods
        if is_name_of_gradients(each.name) and list_needed(each)
        and any(needed and needed <= list_needed(each) for needed in losses)
    ]  # fmt: skip
    called = {
        node.attr for each in found for node in ast.walk(each) if isinstance(node, ast.Attribute)
    }
    return [each.name for each in found if each.name not in called]


def returns_call(function: ast.FunctionDef, names: Collection[str]) -> bool:
    """True if a function returns what one of the named functions returns."""
    values = [n.value for n in walk_own_body(function) if isinstance(n, ast.Return)]
    called = {name_expression(v.func) for v in values if isinstance(v, ast.Call)}
    return not called.isdisjoint(names)


def makes_candidate(function: ast.FunctionDef, own: Collection[str]) -> bool:
    """True if a function returns an inner one that returns a loss with gradients."""
    inner = {n.name: n for n in ast.walk(function) if isinstance(n, ast.FunctionDef)}
    values = [n.value for n in walk_own_body(function) if isinstance(n, ast.Return)]
    returned = [inner[v.id] for v in values if isinstance(v, ast.Name) and v.id in inner]
    return any(returns_both(each, own=own) for each in returned)


def leave_out_parts(defined: Definitions, candidates: Sequence[str]) -> list[str]:
    """Leave out the candidates that others of them call, as a loss, or make, as the layers."""

    def find_called(name: str) -> set[str]:
        top = name.partition(".")[0]
        node = defined.classes.get(top) or defined.functions.get(defined.made.get(top, top))
        nodes = [] if node is None else ast.walk(node)
        names = {name_expression(n.func) for n in nodes if isinstance(n, ast.Call)}
        inside = sorted(names & {*defined.functions})
        return {*inside} | list_called(defined, inside) | (names & {*defined.classes})

    parts = {part for each in candidates for part in find_called(each) - {each}}
    return [each for each in candidates if each not in parts]


def returns_both(
    function: ast.FunctionDef, attributes: Collection[str] = (), own: Collection[str] = ()
) -> bool:
    """True if a function returns the loss, by its name or as a term, and gradients.

    The function's own name may say so. A gradient is named after what the function uses, or one of
    the attributes of its class, or after its key in a dict; or one of the file's `own` functions
    returns it, by whose name it is a backward pass. Gradients of tensors may be left in `w.grad`.
    """
    nodes = [*walk_own_body(function)]
    returned = [n.value for n in nodes if isinstance(n, ast.Return)]
    if BOTH.fullmatch(function.name.lower()) and any(
        isinstance(value, ast.Tuple | ast.List) and len(value.elts) > 1 for value in returned
    ):
        return True
    used = {n.id for n in nodes if isinstance(n, ast.Name)}
    used |= {n.attr for n in nodes if isinstance(n, ast.Attribute)} | {*attributes}
    arguments = [each.arg.lower() for each in function.args.args]
    passed_back = "back" in function.name or any(n.startswith(COTANGENT) for n in arguments)
    left = any(isinstance(n, ast.Attribute) and n.attr == "grad" and stores(n) for n in nodes)
    if left and not passed_back and "backward" not in used and returns_value(nodes):
        return True
    for node in nodes:
        value = node.value if isinstance(node, ast.Return) else None
        if isinstance(value, ast.Dict):
            keys = {key.value for key in value.keys if isinstance(key, ast.Constant)}
            if keys & LOSSES and keys & CONTAINERS:
                return True
        if not isinstance(value, ast.Tuple | ast.List):
            continue
        parts = [*flatten_tuples(value)]
        names = [name_expression(part) for part in parts]
        slopes = [n for n in names if n in CONTAINERS or any(is_named_gradient(n, u) for u in used)]
        called = [name_expression(each.func) for each in parts if isinstance(each, ast.Call)]
        losses = [n for n in (*names, *called) if n in LOSSES or n.lower().endswith(ENDINGS)]
        if function.name in LOSS and len(parts) > 1 and OF_GRADIENTS & {*names}:
            losses.append(function.name)  # return total, grads
        same = {name_expression(each.annotation) for each in function.args.args if each.annotation}
        written = any(is_dict(each) or calls_one_of(each, same) for each in parts) and (
            "grad" in function.name.lower() or losses
        )
        named = any(has_named_gradients(each) for each in parts)
        back = {n for n in own if "back" in n.lower() or "grad" in n.lower()} - {function.name}
        handed = len(parts) > 1 and any(calls_one_of(each, back) for each in parts)
        terms = [
            part for part in parts if not (isinstance(part, ast.Dict) or calls_one_of(part, back))
        ]
        alone = any(not name_expression(part) for part in terms)
        if (slopes or written) and (losses or ("" in names and not passed_back)):
            return True
        if (named or handed) and (losses or alone) and not passed_back:
            return True
    return False


def stores(node: ast.AST) -> bool:
    """True for a variable, attribute or item that is set."""
    return isinstance(getattr(node, "ctx", None), ast.Store)


def returns_value(nodes: Sequence[ast.AST]) -> bool:
    """True if a function with these nodes returns a value."""
    return any(isinstance(n, ast.Return) and n.value is not None for n in nodes)


def has_named_gradients(expression: ast.expr) -> bool:
    """True for a dict of gradients by the names of their arrays, such as `{"W": dW}`."""
    if not isinstance(expression, ast.Dict):
        return False
    pairs = zip(expression.keys, expression.values, strict=True)
    named = [(k.value, name_expression(v)) for k, v in pairs if isinstance(k, ast.Constant)]
    return any(is_named_gradient(name, key) for key, name in named)


def flatten_tuples(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the items of a tuple or list, and of those in it."""
    if isinstance(value, ast.List | ast.Tuple):
        for each in value.elts:
            yield from flatten_tuples(each)
    else:
        yield value


def leaves_gradients(function: ast.FunctionDef) -> bool:
    """True if a function may leave gradients in globals or attributes, or call what does."""
    for node in walk_own_body(function):
        if isinstance(node, ast.Global):
            return True
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            inside = node.value
            while isinstance(inside, ast.Subscript):
                inside = inside.value
            if isinstance(node, ast.Attribute) or name_expression(inside) in CONTAINERS:
                return True
        called = name_expression(node.func) if isinstance(node, ast.Call) else ""
        if "back" in called or "grad" in called:
            return True
    return False


def calls_one_of(expression: ast.expr, classes: set[str]) -> bool:
    """True for an expression such as `Params(W=dW)`, of a class that annotates an argument."""
    return isinstance(expression, ast.Call) and name_expression(expression.func) in classes - {""}


def is_dict(expression: ast.expr) -> bool:
    """True for an expression such as `{"W": dW}` or `dict(W=dW)`."""
    called = expression.func if isinstance(expression, ast.Call) else None
    return isinstance(expression, ast.Dict) or (
        isinstance(called, ast.Name) and called.id == "dict"
    )
