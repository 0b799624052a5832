"""Files to verify: what a file is taken for, by what it defines, and its functions.

It may be a derivation of the project's model, `gradients(params, x, y)`; an own model of `params`,
`loss` and `gradients(params)`; or the user's own code, which computes both in a function or class.
"""

import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.candidates import (
    choose_loss_method,
    choose_method,
    choose_pair,
    choose_updating_method,
    choose_whole,
    count_required,
    has_own_parameters,
    leave_out_parts,
    list_candidates,
    list_named,
    list_passing,
    names_loss,
    returns_loss_alone,
    suggest_instead,
    suggest_name,
    takes_three,
)
from bptt_verifier.judge.first_states import find_states
from bptt_verifier.judge.listed_results import take_listed
from bptt_verifier.judge.loss_and_gradient import (
    find_loss_and_gradient,
    shares_data,
    takes_separately,
)
from bptt_verifier.judge.named_code import read_named
from bptt_verifier.problems.problem import STATES
from bptt_verifier.program.attempt import Failure, attempt, copies
from bptt_verifier.program.executed_lines import ExecutedLines, describe_data
from bptt_verifier.program.kept_state import hold_globals, hold_space
from bptt_verifier.program.leaves import find_node, flatten, walk
from bptt_verifier.program.notebooks import read_notebook
from bptt_verifier.program.own_classes import BACKWARD, FORWARD, LOSS
from bptt_verifier.program.own_code import OwnCode
from bptt_verifier.program.own_results import PARAMS, is_array, is_number
from bptt_verifier.program.separate_parameters import find_arguments, list_settings
from bptt_verifier.program.source_file import (
    COMPUTING_LOSS,
    Definitions,
    RecordedCall,
    Recorder,
    find_definitions,
    find_function,
    load,
    read_cells,
)
from bptt_verifier.program.torch_tensors import to_array, to_arrays
from bptt_verifier.reference.points import draw_parameters
from bptt_verifier.report import Report

# What a derivation raises that reads biases, or unpacks them, of parameters without any.
WITHOUT_BIASES = re.compile(
    r"params has U, W, V, and no (b|c|b_n);|not enough values to unpack \(expected [56], got 3\)"
)
LATER = (1, 4, 16)  # calls that are skipped for other data
DERIVATION, OWN, CODE = "derivation", "own model", "own code"
FOUND_INSTEAD = {OWN: "an own model", CODE: "code of your own"}
# Make a function announce each call with words such as "running FILE".
Announce = Callable[[Callable[..., Any], str], Callable[..., Any]]


class FileSubmission(NamedTuple):
    """The derivation or own model that a file defines, and a sentence on what it is taken for.

    `python` is the Python that finds a derivation again, if its file is no notebook. `remarks` are
    what its data have left untried, after all calls. It is `guessed` to be a derivation if its file
    calls it, with arguments that may be those of one.
    """

    gradients: Callable[..., Any]
    said: str
    loss: Callable[..., Any] | None = None
    params: Any = None
    python: str = ""
    remarks: Callable[[], tuple[str, ...]] = tuple
    guessed: bool = False

    def is_refuted(self, report: Report) -> bool:
        """Tell whether a guessed derivation raised at the first parameters of this project's RNN.

        Its own file calls it without that: then its parameters are others.
        """
        raised = [mistake.name for mistake in report.mistakes] == ["raised"]
        return self.guessed and raised and not report.cases

    def reads_biases(self, report: Report) -> bool:
        """Tell whether a derivation raised for lack of the biases that it reads or unpacks."""
        raised = [m.explanation for m in report.mistakes if m.name == "raised"]
        return self.loss is None and not report.cases and any(map(WITHOUT_BIASES.search, raised))

    def write_reproduction(self, report: Report, command: str) -> Report:
        """Write what repeats a counterexample: a command, or Python for a derivation."""
        case = report.counterexample
        if case is None:
            return report
        line = f"{self.python}{case.reproduce}"
        if self.loss is not None and command:
            line = f"{command} --case {shlex.quote(case.case)}"
        return report._replace(counterexample=case._replace(reproduce=line))


def read_file(
    file: Path,
    name: str | None,
    own: bool | None,
    options: Mapping[str, Any],
    chosen: Sequence[str] = (),
    announce: Announce = lambda function, what: function,
) -> FileSubmission:
    """Run a file, and find the submission in it.

    `name` is the function or class to judge, if one is named. `own` says whether it is an own
    model; None leaves that to what the file defines. `options` are those of a derivation, and
    `chosen` the names of an own model's parameters.
    Raises ValueError, with one sentence and a remedy, where the file cannot be judged.
    """
    note = read_notebook(file).note if file.suffix == ".ipynb" else ""
    defined = find_definitions(file, read_cells(file))
    found = read_any(file, defined, name, own, options, chosen, stay_in_folder(announce))
    return found._replace(said=found.said + note)


def stay_in_folder(announce: Announce) -> Announce:
    """Run a file in the folder that is the present one now; a run may have changed it."""
    folder = Path.cwd()

    def announce_there(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        announced = announce(function, what)
        if function is not load:
            return announced

        def run(*given: Any, **named: Any) -> Any:
            os.chdir(folder)
            return announced(*given, **named)

        return run

    return announce_there


def read_any(
    file: Path,
    defined: Definitions,
    name: str | None,
    own: bool | None,
    options: Mapping[str, Any],
    chosen: Sequence[str],
    announce: Announce,
) -> FileSubmission:
    """Run a Python file or a notebook, and find the submission in it; see `read_file`."""
    asked = name
    try:
        kind, name = choose_kind(file, defined, name, own or bool(name and chosen) or None)
    except ValueError:
        if not (name or list_candidates(defined) or defined.defines("gradients")):
            # It may fail for another reason, such as an import, before its first call.
            every = frozenset(defined.functions)
            announce(load, f"running {file.name}")(file, Recorder(every, every))
        raise
    if kind == DERIVATION and own is None and name in defined.reads:
        recorder = Recorder(frozenset({name}), frozenset({name}))
        run = announce(load, f"running {file.name}")
        run(file, recorder)
        if not recorder.calls and defined.guarded:
            attempt(run, file, recorder, name="__main__")
        call, both = recorder.calls.get(name), name in list_candidates(defined)
        if call is not None and (takes_data(call) or (both and takes_other_inputs(call))):
            kind = CODE
    if kind == DERIVATION:
        if chosen:
            raise ValueError(
                f"--params: expected a model of your own, found a derivation of the RNN in {file}"
            )
        module = announce(load, f"running {file.name}")(file)
        if asked is None and hasattr(module, name) and not callable(getattr(module, name)):
            others = defined._replace(names=defined.names - {name})  # a result has this name
            _, name = choose_kind(file, others, None, None)
            return read_any(file, defined, name, own, options, chosen, announce)
        gradients = find_function(module, name, file)
        if name not in defined.functions and count_positional(gradients) < 3 and not options:
            # It is made by another function.
            return read_any(file, defined, name, True, options, chosen, announce)
        check_signature(gradients, name, file, options)
        model = str(options.get("model", "rnn"))
        said = (
            f"{file.name}:{name} is taken for a derivation of the {model.upper()} of this project."
        )
        python = f"import runpy; gradients = runpy.run_path({str(file)!r})[{name!r}]; "
        python = "" if file.suffix == ".ipynb" else python
        guessed = own is None and not options and name in defined.reads
        called = announce(gradients, f"a call of {name}")
        return FileSubmission(called, said, python=python, guessed=guessed)
    if options:
        option, what = f"--{next(iter(options))}", FOUND_INSTEAD[kind]
        raise ValueError(f"{option}: expected a derivation of this project's model, found {what}")
    if kind == OWN:
        if chosen:
            raise ValueError(f"--params: expected a function or class FILE:NAME, found {file}")
        module = announce(load, f"running {file.name}")(file)
        function = find_function(module, name, file)
        loss = announce(find_function(module, "loss", file), COMPUTING_LOSS)
        if not hasattr(module, "params"):
            raise ValueError(f"FILE: expected {file} to define params, a dict of float arrays")
        separate = takes_separately(defined, name)
        if separate and find_arguments(function, list_settings(module.params)[0]) is None:
            raise ValueError(describe_arguments(file, defined, name))
        gradients = announce(take_listed(function, module.params), f"a call of {name}")
        if name != "gradients" and is_number_alone(gradients, module.params):
            raise ValueError(describe_lone_loss(file, defined, name))
        said = f"{file.name} is taken for an own model of params, loss and {name}."
        return FileSubmission(gradients, said, loss, module.params)
    try:
        code = read_code(file, defined, name, chosen, announce)
    except ValueError as error:
        other = suggest_instead(defined, name)
        if not other:
            raise
        raise type(error)(f"{error}; {other}") from error
    passing = list_passing(defined, name)
    if passing:  # a step of training, of which the class is judged as a whole
        said = (
            f"{code.said} What {' and '.join(passing)} passes to the backward pass is not judged."
        )
        code = code._replace(said=said)
    lines = ExecutedLines()
    gradients = announce(lines.watch(code.gradients), f"a call of {name}")
    loss = announce(code.loss, COMPUTING_LOSS)
    untried = getattr(code.gradients, "describe_untried", tuple)

    def remarks() -> tuple[str, ...]:
        return *describe_data(code.data, lines), *untried()

    return FileSubmission(gradients, code.said, loss, code.params, remarks=remarks)


def is_number_alone(gradients: Callable[..., Any], params: Any) -> bool:
    """True if a function of the parameters, of more than one entry, returns one number."""
    tree = attempt(flatten, params)
    if isinstance(tree, Failure):
        return False
    with hold_globals(gradients, arrays=True):
        found = attempt(lambda: gradients(tree.rebuild(copies(tree.leaves))))
    entries = sum(value.size for value in tree.leaves.values())
    return entries > 1 and not isinstance(found, Failure | Mapping) and is_number(to_arrays(found))


def describe_arguments(file: Path, defined: Definitions, name: str) -> str:
    """Say that a function does not take the parameters, and what it should take."""
    number = count_required(defined, name)
    return (
        f"FILE: expected {name}(params) in {file}, found {number} arguments without a default; let "
        "it take the parameters alone, or each by its name in params, and find the data in the file"
    )


def choose_kind(
    file: Path, defined: Definitions, name: str | None, own: bool | None
) -> tuple[str, str]:
    """Choose what a file is judged as, and the name of the function or class.

    Raises ValueError where it defines too little for that, or too much.
    """
    complete = defined.defines("params", "loss")
    number = count_required(defined, name or "gradients")
    if name is not None:
        top = name.partition(".")[0]
        if "," in name:
            if not defined.defines(*name.split(",")):
                raise ValueError(
                    f"FILE: expected functions {name} in {file}, found {list_named(defined)}"
                )
            return CODE, name
        if not defined.defines(top):
            raise ValueError(
                f"FILE: expected a function {name} in {file}, found {list_named(defined)}"
            )
        if "." in name or top in defined.classes or top in defined.objects:
            return CODE, name if "." in name else choose_method(defined, top)
        if top not in defined.functions:
            return (CODE if own else DERIVATION), name
        if returns_loss_alone(defined, name):
            raise ValueError(describe_lone_loss(file, defined, name))
        if complete and number == 1:
            return OWN, name
        if shares_data(defined, name):
            return CODE, f"loss,{name}"
        if complete and takes_separately(defined, name):
            return OWN, name
        if own or not takes_three(defined, name) or has_own_parameters(defined, name):
            return CODE, name
        first = [*defined.functions[name].args.posonlyargs, *defined.functions[name].args.args][:1]
        if name in list_candidates(defined) and not {a.arg.lower() for a in first} & {*PARAMS}:
            return CODE, name
        return DERIVATION, name
    # What a star import may bring counts where nothing else can be judged.
    if "gradients" in defined.names or (not defined.complete and not list_candidates(defined)):
        if shares_data(defined, "gradients"):
            return CODE, "loss,gradients"
        if complete and (own or number in (None, 1) or takes_separately(defined, "gradients")):
            return OWN, "gradients"
        if number is not None and number < 3 and "gradients" in list_candidates(defined):
            return CODE, "gradients"
        if complete and number in (0, 2):
            raise ValueError(describe_arguments(file, defined, "gradients"))
        if own or (number == 1 and not takes_three(defined, "gradients")):
            missing = [n for n in ("params", "loss") if not defined.defines(n)]
            remedy = "" if number == 1 else ", or leave out --own for a derivation"
            raise ValueError(
                f"FILE: expected {file} to define params, loss(params) and gradients(params), "
                f"found no {' and no '.join(missing)}; add what is missing{remedy}"
            )
        return DERIVATION, "gradients"
    every = list_candidates(defined)
    candidates = leave_out_parts(defined, every) or every
    made = [each for each in candidates if each.partition(".")[0] in defined.objects.values()]
    if len(made) == 1 and all(each in defined.classes for each in candidates):
        return CODE, choose_loss_method(defined, made[0])  # the others are its parts
    pair = choose_pair(defined, candidates)
    if pair:
        return CODE, pair
    # Layers return values with caches, which may have the letters of gradients.
    sure = [n for n in candidates if n in defined.functions and names_loss(defined.functions[n])]
    if len(sure) == 1 and all(each in defined.functions for each in candidates):
        return CODE, sure[0]
    candidates = [*made, *(each for each in candidates if each not in made)]
    if len(candidates) == 1:
        return CODE, choose_loss_method(defined, candidates[0])
    if candidates:
        raise ValueError(
            f"FILE: expected {file} to define gradients, found {', '.join(candidates)}; name the "
            f"one to judge, such as {file}:{choose_whole(defined, candidates)}"
        )
    updating = choose_updating_method(defined) or find_loss_and_gradient(defined)
    of_loss = updating.removeprefix("loss,")
    alone = of_loss != updating and complete and not shares_data(defined, of_loss)
    if alone and takes_separately(defined, of_loss):
        return OWN, of_loss
    if updating:
        return CODE, updating
    if not (defined.functions or defined.classes):
        raise ValueError(
            f"FILE: expected a function or a class in {file}, found none; put the forward and the "
            "backward pass into a function that returns the loss and the gradients"
        )
    raise ValueError(
        f"FILE: expected a function gradients in {file}, found {list_named(defined)}; name yours, "
        f"such as {file}:{suggest_name(defined)}"
    )


def describe_lone_loss(file: Path, defined: Definitions, name: str) -> str:
    """Write the sentence on a function that returns a loss and no gradients."""
    others = [n for n in ("gradients", *list_candidates(defined)) if defined.defines(n)]
    return (
        f"FILE: expected a function that returns gradients, found {name}, which returns the loss "
        f"alone; name the one that returns gradients, such as {file}:{(others or ['NAME'])[0]}"
    )


def takes_data(call: RecordedCall) -> bool:
    """True if the first argument of a call cannot be the weights U, W and V, of several shapes.

    These are matrices, of which none is in an inner structure.
    """
    first = next(iter(call.arguments.values()), None)
    node = find_node(first)
    if node is None:
        return True
    named = [key for key in node.children if isinstance(key, str)]
    leaves = {path: np.shape(to_array(value)) for path, value in walk(first, (), ())}
    matrices = [shape for path, shape in leaves.items() if len(path) == 1 and len(shape) == 2]
    others = bool(named) and not {"U", "W", "V"}.issubset(named)
    return others or len({*leaves.values()}) < 2 or len(matrices) < 3


def count_positional(function: Callable[..., Any]) -> int:
    """Count the arguments that a function takes in order; three where it does not tell."""
    signature = attempt(inspect.signature, function)
    if isinstance(signature, Failure):
        return 3
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 3
    return len([k for k in kinds if k in (k.POSITIONAL_ONLY, k.POSITIONAL_OR_KEYWORD)])


def takes_other_inputs(call: RecordedCall) -> bool:
    """True if the second argument of a call is an array, and cannot be x (T, B, D)."""
    inputs = [*call.arguments.values()][1:2]
    number = attempt(lambda: [np.ndim(to_array(each)) for each in inputs])
    return not isinstance(number, Failure) and number in ([1], [2])


def check_signature(
    gradients: Callable[..., Any], name: str, file: Path, options: Mapping[str, Any]
) -> None:
    """Raise ValueError unless a function takes the arguments of a derivation."""
    signature = attempt(inspect.signature, gradients)
    if isinstance(signature, Failure):
        return
    model = str(options.get("model", "rnn"))
    states = find_states(gradients, STATES[model])
    given, named = range(3 + len(states.in_order)), dict.fromkeys(states.by_name)
    if isinstance(attempt(lambda: signature.bind(*given, **named)), Failure):
        remedy = "judge another model as an own model, with params and loss in the file"
        if "c0" in signature.parameters and model != "lstm":
            remedy = "--model lstm judges an LSTM, which has c0"
        raise ValueError(
            f"FILE: expected {name}(params, x, y) in {file}, found {name}{signature}; {remedy}"
        )


def read_code(
    file: Path, defined: Definitions, name: str, chosen: Sequence[str], announce: Announce
) -> OwnCode:
    """Run a file up to a call of its function or class, and read that.

    It is the first call, unless some gradient is zero with the data of that and of no later one: a
    sequence of one step shows no mistake in a recurrent weight.
    """
    recorder, code = read_call(file, defined, name, chosen, announce, 0)
    check = announce(find_zero_gradients, f"a call of {name}")
    zero = check(code) if recorder.calls else ()
    for skipped in LATER if zero else ():
        found = attempt(read_call, file, defined, name, chosen, announce, skipped)
        if isinstance(found, Failure) or not found[0].ended:
            break
        if not check(found[1]):
            said = found[1].said.replace("its first call", f"call {skipped + 1}").removesuffix(".")
            said += f"; the gradient of {', '.join(zero)} is zero with the data of the first call."
            return found[1]._replace(said=said)  # type: ignore[no-any-return]
    return code


def find_zero_gradients(code: OwnCode) -> tuple[str, ...]:
    """Find the parameters whose gradients are zero at random values; none where that fails."""
    params = draw_parameters(code.params, seed=0, case=1)
    with hold_globals(code.gradients, arrays=True):
        found = attempt(lambda: flatten(code.params).read(code.gradients(params)[1]))
    if isinstance(found, Failure) or not isinstance(found, Mapping):
        return ()
    return tuple(str(n) for n, v in found.items() if is_array(v) and not np.any(to_array(v)))


def read_call(
    file: Path,
    defined: Definitions,
    name: str,
    chosen: Sequence[str],
    announce: Announce,
    skipped: int,
) -> tuple[Recorder, OwnCode]:
    """Run a file up to a call of its function or class, after some others, and read that.

    A file that calls it only where it is the main program is run as that. Calls while it is read
    leave no trace in its globals: a function that is wrong at its first calls is so at those that
    are compared.
    """
    top, _, method = name.partition(".")
    listed = name.split(",")
    names, last = frozenset({method} if method else listed), frozenset({method or listed[-1]})
    kind = defined.objects.get(top, top)
    recorder = Recorder(names, last, kind if method else None, skipped)
    if not method and kind in defined.classes:
        names, last = frozenset((*FORWARD, *LOSS, *BACKWARD)), frozenset(BACKWARD)
        recorder = Recorder(names, last, kind, skipped)
    run, call = announce(load, f"running {file.name}"), announce(read_named, f"a call of {name}")

    def read(space: Any, *given: Any) -> OwnCode:
        with hold_space(space, arrays=True):
            return call(space, *given)  # type: ignore[no-any-return]

    space = vars(run(file, recorder))
    if not defined.guarded or recorder.calls:
        return recorder, read(space, name, recorder, chosen)
    try:
        return recorder, read(space, name, recorder, chosen)
    except ValueError:
        space = vars(run(file, recorder, name="__main__"))
        if not recorder.calls:
            raise
        return recorder, read(space, name, recorder, chosen)
