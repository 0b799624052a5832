"""Verification of what an interactive session, such as a notebook, defines."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from bptt_verifier.judge.named_code import read_named
from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.options import SessionOptions
from bptt_verifier.judge.verify import find_name, verify, verify_own_model
from bptt_verifier.program.executed_lines import ExecutedLines, describe_data
from bptt_verifier.program.source_file import Recorder
from bptt_verifier.report import Report


def verify_here(
    code: Any = None,
    *,
    params: Sequence[str] = (),
    case: str | None = None,
    **options: Unpack[SessionOptions],
) -> Report:
    """Verify what the calling module or notebook defines.

    Without `code`, that is an own model, if there are `params`, `loss` and `gradients`, or else the
    derivation `gradients(params, x, y)`. `code` is a function that returns the loss and the
    gradients, or a class or object with forward and backward; its other arguments are variables of
    the same names, and `params` are the names of its parameters, in the order of its gradients.
    With `case`, which a report names, an own model or such code is compared at that case alone.
    `options` are those of `verify_own_model` or `verify`.
    Raises ValueError, with one sentence, where what is needed is missing.
    """
    from bptt_verifier.console.terminal import progress_bar  # noqa: PLC0415 - slow to import

    space = sys._getframe(1).f_globals
    with progress_bar("verifying", None) as progress:
        chosen: dict[str, Any] = {"progress": progress, **options}
        call = write_call(code, params, options)
        if code is not None:
            return verify_code(code, space, params, case, chosen, call)
        if "gradients" not in space:
            raise ValueError(
                "gradients: expected a function of that name here, found none; define it, or call "
                "verify_here(f) with a function that returns the loss and the gradients"
            )
        if "params" in space and "loss" in space:
            given = space["gradients"], space["loss"], space["params"]
            if case is not None:
                report = compare_case(*given, case, seed=options.get("seed", 0))
                return report._replace(command=call)
            return verify_own_model(*given, **chosen)._replace(command=call)
        if case is not None:
            raise ValueError(
                "case: expected a model of your own, of params, loss and gradients, found the "
                "derivation gradients(params, x, y); leave case out"
            )
        return verify(space["gradients"], **chosen)._replace(command=call)


def write_call(code: Any, params: Sequence[str], options: SessionOptions) -> str:
    """Write the call that gives the same report again."""
    written = [] if code is None else [find_code_name(code)]
    written += [f"params={[*params]!r}"] if params else []
    silent = ("progress", "timeout", "subject", "workers")
    written += [f"{name}={value!r}" for name, value in options.items() if name not in silent]
    return f"verify_here({', '.join(written)})"


def find_code_name(code: Any) -> str:
    """Find the name of a function or class, or of the class of an object."""
    return find_name(code if hasattr(code, "__name__") else type(code))


def verify_code(
    code: Any,
    space: Mapping[str, Any],
    params: Sequence[str],
    case: str | None,
    options: Mapping[str, Any],
    call: str,
) -> Report:
    """Verify a function that returns the loss and the gradients, or a class or object."""
    name = find_code_name(code)
    found = read_named({**space, name: code}, name, Recorder(frozenset(), frozenset()), params)
    lines = ExecutedLines()
    given = lines.watch(found.gradients), found.loss, found.params
    if case is not None:
        report = compare_case(*given, case, seed=options.get("seed", 0), subject=name)
    else:
        report = verify_own_model(*given, subject=name, **options)
    shown = report.counterexample
    if shown is not None:
        again = f"{call.removesuffix(')')}, case={shown.case!r})"
        shown = shown._replace(reproduce=again)
    notes = (found.said, *(describe_data(found.data, lines) if report else ()), *report.notes)
    return report._replace(notes=notes, counterexample=shown, command=call)
