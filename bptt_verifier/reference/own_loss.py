"""The reference of the user's own model: its loss, differentiated at random parameters.

jax.grad differentiates the loss in every case. Complex steps of the same loss in NumPy check the
first cases. The allowed errors are measured (docs/derivation.md, section 10).
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import (
    MUTED,
    Failure,
    attempt,
    copies,
    type_name,
)
from bptt_verifier.program.blas_threads import use_one_thread
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.kept_state import put_back_globals
from bptt_verifier.program.leaves import rebuild_before
from bptt_verifier.program.namespaces import settle_namespace, takes_namespace
from bptt_verifier.program.paths import Followed, Paths
from bptt_verifier.program.precision import (
    find_arrays,
    forget_other_precision,
    isolate_float64,
)
from bptt_verifier.program.roundings import describe_last
from bptt_verifier.program.torch_losses import (
    differentiate,
    over_arrays,
    rounds_inside,
    takes_tensors,
)
from bptt_verifier.program.trace import Program
from bptt_verifier.reference.black_box import (
    choose_black_box,
    describe_differences,
    doubt_few_cases,
)
from bptt_verifier.reference.case import CASES, Case, Loss
from bptt_verifier.reference.coverage import (
    describe_cases,
    describe_left_out,
    describe_places,
    find_common_zeros,
    find_doubt,
)
from bptt_verifier.reference.cuts import compare_autograd, describe_cut
from bptt_verifier.reference.differences import is_rounded
from bptt_verifier.reference.narrow_losses import find_mode, may_be_narrow, read_narrow
from bptt_verifier.reference.own_cases import allow_beside_zeros, make_case, widen
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.scalar_loss import (
    find_settings,
    give_jax_arrays,
    ignore_namespace,
    keep_traced_floats,
    refuses_arrays,
    require_one_value,
    to_scalar,
)
from bptt_verifier.reference.second_opinion import contradict_entries, contradict_signs
from bptt_verifier.reference.selection import OTHER_PATH, RAISES, Selection, Selector, Setting
from bptt_verifier.reference.stated_derivatives import (
    UNCONFIRMED,
    describe_stated,
    describe_stated_in_jax,
    hold_stopped,
    is_stated_in_numpy,
    states_rules,
    states_stops,
)
from manual_bptt.inputs import require_at_least

CONFIRMED = 2  # cases of each setting that the loss in NumPy must confirm


def prepare(
    loss: Loss,
    params: Any,
    *,
    seed: int = 0,
    cases: int = CASES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OwnModel:
    """Trace the loss, differentiate it at every case, and check the first cases.

    Settings of other shapes are traced one by one, and share the cases.
    """
    trees = find_settings(loss, params)
    settings = tuple(tree.leaves for tree in trees)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)
    if not callable(loss):
        raise ValueError(f"loss: expected a function, found {type_name(loss)}")
    loss = put_back_globals(loss)
    loss = stated = settle_namespace(loss, lambda: trees[0].rebuild(copies(trees[0].leaves)))
    in_torch = takes_tensors(loss, trees)
    in_numpy = in_torch or not takes_namespace(loss)
    if in_torch:
        loss = over_arrays(loss, trees)
    else:
        loss = rebuild_before(ignore_namespace(loss) if in_numpy else loss, trees)
    model = OwnModel(loss, settings, seed, in_numpy, in_torch, trees=trees)

    mode = find_mode()
    with isolate_float64(loss):
        found = check_and_trace(model, cases, progress)
        if found.refusal and in_numpy and refuses_arrays(loss, widen(settings[0])):
            model = model._replace(loss=give_jax_arrays(loss))
            found = check_and_trace(model, cases, progress)
        if in_numpy and not in_torch and may_be_narrow(found, mode):
            read = read_narrow(model, mode, lambda read: check_and_trace(read, cases, progress))
            found = read or found
        if in_numpy and found.untraced:
            traced = model._replace(paths=found.paths)
            found = use_differences(traced, found.untraced, cases, progress)
        if found.in_torch and not (found.by_autograd or found.refusal):
            refusal = describe_cut(found.loss, found.cases[:CONFIRMED], found.called)
            found = found._replace(refusal=refusal, notes=() if refusal else found.notes)
        narrow = in_torch and not found.refusal and rounds_inside(stated, loss, trees[0])
        return found._replace(narrow=narrow)


def check_and_trace(model: OwnModel, cases: int, progress: Callable[[int, int], None]) -> OwnModel:
    """Call the loss in every setting, trace it, select the cases, and check the first ones."""
    for given in model.params:
        refusal = check_loss(model, given)
        if refusal is not None:
            return model._replace(refusal=refusal)
    return trace_and_select(model, cases, progress)


def trace_and_select(model: OwnModel, cases: int, progress: Callable[[int, int], None]) -> OwnModel:
    """Trace the loss in each setting, select the cases, and check the first ones."""
    selections: list[Selection] = []
    loss = model.loss
    for number, given in enumerate(model.params):
        paths = trace_loss(model, given)
        if isinstance(paths, str):
            return model._replace(refusal=paths, untraced=paths)
        share = max(1, (cases + len(model.params) - 1 - number) // len(model.params))
        done = sum(len(selection.cases) for selection in selections)

        def make(values: dict[str, Array], followed: Followed, point: Point) -> Case:
            case = make_case(followed, values, point.number, loss)
            case = case._replace(label=point.label, point=point)
            return allow_beside_zeros(case) if point.has_zeros else case

        def advance(here: int, done: int = done) -> None:
            progress(min(done + here, cases), cases)

        # A tracer may pass where a number does not. Where the parameters given do not, none does.
        inside = not isinstance(call_loss(loss, given), Failure)

        def raises(values: dict[str, Array], inside: bool = inside) -> bool:
            return inside and isinstance(call_loss(loss, values), Failure)

        setting = Setting(given, paths, make, number, model.seed, raises)
        selections.append(Selector(setting).select(share, advance))
        model = model._replace(paths=(*model.paths, paths))
    raising = tuple(point for each in selections for point in each.raising)
    model = model._replace(
        cases=tuple(c for each in selections for c in each.cases), raising=raising
    )
    doubt = find_doubt(selections, cases) if model.cases else "There is no case."
    place = describe_places(model.paths)
    reasons = (OTHER_PATH, RAISES) if place else (OTHER_PATH,)
    if doubt and any(each.left_out[why] for each in selections for why in reasons):
        model = model._replace(untraced=f"The loss takes too many paths through branches: {place}.")
    if not model.cases:
        refusal = "The loss or its gradient is not finite or would overflow at all points tried."
        left_out = tuple(describe_left_out(selections))
        return model._replace(refusal=refusal, notes=left_out, untraced=model.untraced or refusal)
    about_params = (note for tree in model.trees[:1] for note in tree.notes)
    notes = (*about_params, *describe_cases(selections, model.params, model.paths))
    model = model._replace(notes=notes, doubt=doubt, zeros=find_common_zeros(selections))
    confirmed = confirm(model)
    return confirmed._replace(untraced=confirmed.refusal or model.untraced)


def use_differences(
    model: OwnModel, reason: str, cases: int, progress: Callable[[int, int], None]
) -> OwnModel:
    """Take differences of the loss in NumPy for the reference, which nothing else gives."""

    def in_numpy(point: Mapping[str, Array]) -> Any:
        return np.reshape(np.asarray(model.loss(copies(point), np)), ())[()]

    def by_torch(point: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
        return differentiate(model.loss, point)

    point, chosen_cases = widen(model.params[0]), (model.params, model.seed, cases, progress)
    if attempt(is_rounded, in_numpy, point) is True:
        said = "Its values make steps, whose differences say nothing of a gradient."
        return model._replace(refusal=f"{reason} {said}")
    followed = model.by_autograd and not isinstance(attempt(by_torch, point), Failure)
    with MUTED.hold():
        gradient = by_torch if followed else None
        found = attempt(choose_black_box, in_numpy, *chosen_cases, gradient)
    if isinstance(found, Failure):
        return model._replace(refusal=f"{reason} Its differences: {found.said}.")
    box, chosen = found
    model = model._replace(
        black_box=box, cases=chosen.cases, zeros=chosen.zeros, doubt=doubt_few_cases(chosen, cases),
        notes=tuple(describe_differences(box, chosen, reason)), raising=chosen.raising,
    )  # fmt: skip
    if not chosen.cases:
        refusal = f"{reason} Its differences are too slow or too inaccurate to serve."
        return model._replace(refusal=refusal, notes=())
    if followed:
        for case in chosen.cases[:CONFIRMED]:
            doubt = ask_second_opinion(model, case)
            if doubt is not None:
                return model._replace(refusal=doubt, notes=())
    return model


def check_loss(model: OwnModel, params: dict[str, Array]) -> str | None:
    """Call the loss in NumPy; return why no verdict is possible, if it raises.

    Raises ValueError where it returns no real scalar.
    """
    loss, wide = model.loss, widen(params)
    returned = attempt(wraps(loss)(lambda: loss(copies(wide), np)))
    require_one_value(returned, loss)
    converted = attempt(wraps(loss)(lambda: np.asarray(returned)))
    found = returned if isinstance(returned, Failure) else converted
    if isinstance(found, Failure):
        missing = found.exception == ModuleNotFoundError.__name__
        remedy = "; install it where bptt runs" if missing else ""
        return f"{model.called} raised {found.what} at {found.where}{remedy}."
    if found.dtype == object and found.size == 1:
        raise ValueError(
            f"{model.called}: expected a real scalar, found {type_name(found.item())}; return the "
            "loss as a number"
        )
    if found.size != 1 or found.dtype.kind not in "fiu":
        raise ValueError(
            f"{model.called}: expected a real scalar, found {found.dtype} of shape {found.shape}"
        )
    again = wraps(loss)(lambda: np.asarray(loss(copies(wide), np)))
    if model.in_numpy and not np.array_equal(found, attempt(again), equal_nan=True):
        return (
            f"{model.called} returns another number when it is called again: seed what is random "
            "inside it, and keep no state between calls."
        )
    return None


def trace_loss(model: OwnModel, params: dict[str, Array]) -> Paths | str:
    """Trace the loss in JAX and differentiate it; return its paths, or why there are none."""
    loss, wide = model.loss, widen(params)

    def scalar_at(point: Mapping[str, Array]) -> Callable[[Any], Any]:
        # A loss that takes its namespace needs none of what stands in for NumPy and PyTorch.
        if model.in_torch:
            from bptt_verifier.program import torch_trace  # noqa: PLC0415

            traced = torch_trace.over_jax(loss, point)
            return lambda values: to_scalar(traced(values))
        if model.in_numpy:
            from bptt_verifier.program import numpy_code  # noqa: PLC0415

            traced = numpy_code.over_jax(lambda values: loss(values, np), point)
            return lambda values: to_scalar(traced(values))
        return lambda values: to_scalar(loss(values, jnp))

    forget = partial(forget_other_precision, find_arrays(loss))
    paths = Paths(scalar_at, forget)
    traced = attempt(wraps(loss)(lambda: paths.trace(wide)))
    if isinstance(traced, Failure) and model.in_numpy and not model.in_torch:
        for written in (loss, keep_traced_floats(loss)):
            in_jax = Paths(partial(give_numpy, written), forget)
            if not isinstance(attempt(in_jax.trace, wide), Failure):
                paths, traced = in_jax, None  # it is written in jax.numpy
                break
    if isinstance(traced, Failure) and model.in_numpy:
        kind, _, said = traced.what.partition(": ")
        what = (
            said
            if kind == UntraceableError.__name__
            else f"it raised {traced.what.partition('. ')[0]}"
        )
        return f"{model.called} cannot be traced at {traced.where}: {what}."
    if isinstance(traced, Failure) and "immutable" in traced.what:
        return (
            f"{model.traced} assigns to an array at {traced.where}, and JAX has none to assign to: "
            "take the namespace out of the arguments, as loss(params) in plain NumPy may assign, "
            "or collect the values in a list for xp.stack."
        )
    if isinstance(traced, Failure):
        return f"{model.traced} raised {traced.what} at {traced.where}."
    followed = attempt(wraps(loss)(lambda: paths.follow(wide)))
    if isinstance(followed, Failure):
        return f"jax.grad of the loss raised {followed.what} at {followed.where}."
    return paths


def give_numpy(loss: Loss, point: Mapping[str, Array]) -> Callable[[Any], Any]:
    """Make the scalar function of a loss in JAX that takes no namespace, whatever the point is."""
    return lambda values: to_scalar(loss(values, np))


def describe_steps(model: OwnModel) -> str:
    """Say so where a loss differs between cases, and its derivative is zero in all of them.

    Then it counts, or is rounded. A program that states a derivative may state that it is zero.
    """
    values = list[list[float]]([] for _ in model.params)
    noise, programs = 0.0, list[Program]()
    for case in model.cases:
        assert case.truth is not None
        known = case.truth(np.float64, ())
        if any((np.abs(known.values[n]) > known.allowed[n]).any() for n in case.arguments):
            return ""
        program = model.find_program(case.arguments, case.point.setting)
        found = call_loss(model.loss, case.arguments)
        if program is None or states_rules(program) or states_stops(program):
            return ""
        programs.append(program)
        if np.isfinite(case.noise()) and not isinstance(found, Failure):
            values[case.point.setting].append(found.item())
            noise = max(noise, case.noise())
    if not any(np.ptp(row) > 2 * noise for row in values if row):
        return ""
    place, *_ = [*filter(None, map(describe_last, programs)), ""]
    said = f"is rounded{place}" if place else "counts, or is rounded"
    return (
        f"The derivative of the loss is zero in all {len(model.cases)} cases, although the loss "
        f"differs between them: it {said}. Let it return what it rounds."
    )


def confirm(model: OwnModel) -> OwnModel:
    """Check the reference at the first cases by the loss in NumPy.

    A case that is contradicted is left out; no verdict is possible where several are.
    """
    contradicted, stated = dict[int, tuple[str, bool]](), dict[str, None]()
    for setting in range(len(model.params)):
        own = [i for i, case in enumerate(model.cases) if case.point.setting == setting]
        confirmed, doubts = 0, []
        for i in own:
            differ = compare_losses(model, model.cases[i])
            doubt = differ or ask_second_opinion(model, model.cases[i])
            if doubt and not differ:
                said = confirm_stated(model, model.cases[i])
                stated |= {said: None} if said else {}
                doubt = None if said else doubt + describe_two_losses(model, model.cases[i])
            if doubt:
                contradicted[i] = doubt, bool(differ)
                doubts.append(contradicted[i])
            confirmed += not doubt
            if confirmed == CONFIRMED or len(doubts) == CONFIRMED:
                break
        if doubts and confirmed < CONFIRMED:
            said, losses_differ = doubts[0]
            return model._replace(refusal=said, losses_differ=losses_differ)
    # A loss in plain NumPy may take other branches at the other points.
    for case in model.cases if model.in_numpy and not contradicted else ():
        differ = compare_losses(model, case)
        if differ is not None:
            return model._replace(refusal=differ, losses_differ=True)
    kept = tuple(case for i, case in enumerate(model.cases) if i not in contradicted)
    notes = tuple(f"{said} This case was left out." for said, _ in contradicted.values())
    model = model._replace(cases=kept, notes=(*stated, *model.notes, *notes))
    steps = describe_steps(model)
    if steps:
        return model._replace(refusal=steps)
    unconfirmed = [said for said in stated if said.endswith(UNCONFIRMED)]
    return model._replace(doubt=unconfirmed[0]) if unconfirmed and not model.doubt else model


def call_loss(loss: Loss, params: Mapping[str, Array]) -> Any:
    """Call the loss in NumPy: a number, or a Failure."""
    return attempt(wraps(loss)(lambda: np.asarray(loss(widen(params), np), float)))


def compare_losses(model: OwnModel, case: Case) -> str | None:
    """Compare the loss in NumPy and JAX; return a sentence if it differs."""
    assert case.truth is not None
    loss, found = model.loss, call_loss(model.loss, case.arguments)
    if isinstance(found, Failure):
        return f"{model.called} raised {found.what} at {found.where}."
    if "loss" in case.arguments:  # a parameter's name
        return None
    known = case.truth(np.float64, ())
    value, by_jax, allowed = (
        float(np.reshape(number, ()))
        for number in (found, known.values["loss"], known.allowed["loss"])
    )
    if abs(value - by_jax) <= allowed or not np.isfinite(allowed):
        return compare_autograd(loss, case, model.called) if model.by_autograd else None
    return (
        f"{model.called} is {value:.17g} and {model.traced} is {by_jax:.17g} at {case.label}, "
        f"beyond rounding (allowed {allowed:.2g}): the loss must be one function."
    )


def ask_second_opinion(model: OwnModel, case: Case) -> str | None:
    """Compare derivatives of the loss in NumPy with jax.grad; return a sentence if they differ."""
    assert case.truth is not None

    def call(point: Mapping[str, Array]) -> Any:
        if model.black_box is not None and any(map(np.iscomplexobj, point.values())):
            raise TypeError("a black box may do with complex numbers what it likes")
        # A buffer of real numbers drops an imaginary part that is assigned to it.
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        return np.reshape(np.asarray(model.loss(copies(point), np)), ())

    def in_numpy(point: Mapping[str, Array]) -> Any:
        found = attempt(call, point)
        number = not isinstance(found, Failure) and found.dtype.kind in "fiuc"
        return found if number else None

    doubt = contradict(model, case, in_numpy)
    if doubt is not None and model.by_autograd:
        doubt = doubt.replace("jax.grad", "torch.autograd")
        doubt += (
            " Where the loss uses detach, item, no_grad or padding_idx, autograd gives another "
            "derivative."
        )
    return None if doubt is None else f"At {case.label}, {doubt}"


def confirm_stated(model: OwnModel, case: Case) -> str | None:
    """Confirm that the reference is the derivative that the loss states; say so in a sentence."""
    program, point = model.find_program(case.arguments, case.point.setting), widen(case.arguments)
    if program is None or not (states_rules(program) or states_stops(program)):
        return None
    if not (model.in_numpy or is_stated_in_numpy(model.loss, point)):
        return None
    if (
        not states_rules(program)
        and contradict(model, case, hold_stopped(program, point)) is not None
    ):
        return None
    return describe_stated(program, model.by_autograd)


def describe_two_losses(model: OwnModel, case: Case) -> str:
    """Describe a loss that states a derivative in JAX alone; empty for any other."""
    if model.in_numpy or is_stated_in_numpy(model.loss, widen(case.arguments)):
        return ""
    return describe_stated_in_jax(model.find_program(case.arguments, case.point.setting))


def contradict(model: OwnModel, case: Case, loss: Callable[..., Any]) -> str | None:
    """Compare derivatives of a loss with the reference; return a sentence if they differ."""
    assert case.truth is not None
    point, known = widen(case.arguments), case.truth(np.float64, ())
    # The buffers of a loss in plain NumPy may be coarser than what it returns.
    noise = case.noise() if model.in_numpy else 0.0
    seed = case.point.number
    with use_one_thread():
        doubt = contradict_entries(loss, point, known, seed, noise)
        if doubt is None and model.in_numpy:  # every entry, as code may lose a part of the trace
            doubt = contradict_signs(loss, point, known, seed, noise)
    return doubt
