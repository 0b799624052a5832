"""The reference of the user's own model: its loss, differentiated at random parameters.

jax.grad differentiates the loss in every case. Complex steps of the same loss in NumPy check the
first cases. The allowed errors are measured (docs/derivation.md, section 10).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, copies, type_name
from bptt_verifier.program.precision import compile_gradient, isolate_float64, use_float64
from bptt_verifier.program.trace import Program, gradient_and_noise, trace
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.reference.second_opinion import contradict_entries
from bptt_verifier.tolerance.scatter import displace
from manual_bptt.inputs import require_at_least

Loss = Callable[[dict[str, Any], Any], Any]

CASES = 24
SCALE = 0.6  # standard deviation of drawn values; every fourth case is twice as large
FLOAT64, FLOAT32 = 2.0**-53, 2.0**-24


class OwnModel(NamedTuple):
    """The user's loss, traced and differentiated, before the submission is called.

    `refusal` says why no verdict is possible, if none is. `losses_differ` is true if the loss
    differs between NumPy and JAX.
    """

    loss: Loss
    params: dict[str, Array]
    seed: int
    program: Program | None
    gradient: Callable[[Any], Any] | None
    cases: tuple[Case, ...]
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    losses_differ: bool = False

    def simple_case(self, number: int) -> Case:
        """Make a case whose values have one digit."""
        assert self.program is not None
        assert self.gradient is not None
        params = draw_parameters(self.params, seed=self.seed, case=number, digits=1)
        with use_float64():
            found = make_case(self.program, self.gradient, params, number)
        return found._replace(label=f"simple case {number}")

    def displaced_case(self, case: Case, number: int) -> Case:
        """Make a neighbour of a case, with jax.grad's values there; no error is allowed."""
        assert self.gradient is not None
        rng = np.random.default_rng([self.seed, number, 5])
        params = {name: displace(value, rng) for name, value in case.arguments.items()}
        with use_float64():
            value, slopes = self.gradient(widen(params))
        values = {"loss": np.asarray(value)} | {n: np.asarray(slopes[n]) for n in params}
        known = Truth(values, {name: np.zeros_like(value) for name, value in values.items()})

        def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
            return known

        return case._replace(arguments=params, truth=truth)


def prepare(
    loss: Loss,
    params: Mapping[str, Any],
    *,
    seed: int = 0,
    cases: int = CASES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OwnModel:
    """Trace the loss, differentiate it at every case, and check the first cases."""
    given = check_params(params)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)

    def refuse(why: str) -> OwnModel:
        return OwnModel(loss, given, seed, None, None, (), why)

    if not callable(loss):
        raise ValueError(f"loss: expected a function, found {type_name(loss)}")
    with isolate_float64(loss):
        wide = widen(given)
        in_numpy = attempt(loss, copies(wide), np)
        if isinstance(in_numpy, Failure):
            return refuse(f"loss(params, numpy) raised {in_numpy.what} at {in_numpy.file_line}.")
        if np.size(in_numpy) != 1 or np.asarray(in_numpy).dtype.kind not in "fiu":
            raise ValueError(
                f"loss(params, numpy): expected a real scalar, found {type_name(in_numpy)} of "
                f"shape {np.shape(in_numpy)}"
            )

        def scalar(point: Any, xp: Any = jnp) -> Any:
            return jnp.reshape(loss(point, xp), ())

        program = attempt(lambda: trace(scalar, wide))
        if isinstance(program, Failure):
            return refuse(f"loss(params, jax.numpy) raised {program.what} at {program.file_line}.")
        gradient = compile_gradient(scalar)
        finite = []
        for number in range(cases):
            params = draw_parameters(given, seed=seed, case=number)
            case = make_case(program, gradient, params, number)
            if is_finite(case):
                finite.append(case)
            progress(number + 1, cases)
        if not finite:
            return refuse("The loss or its gradient is not finite at any of the points tried.")
        left_out = (
            f"{cases - len(finite)} of {cases} cases were left out: the loss or its gradient is "
            "not finite there."
        )
        notes = (left_out,) if len(finite) < cases else ()
        model = OwnModel(loss, given, seed, program, gradient, tuple(finite), None, notes)
        for case in finite[:2]:
            differ = compare_losses(loss, case)
            doubt = differ or ask_second_opinion(loss, case)
            if doubt:
                return model._replace(refusal=doubt, losses_differ=bool(differ))
        return model


def draw_parameters(
    params: Mapping[str, Any], *, seed: int, case: int, digits: int | None = None
) -> dict[str, Array]:
    """Draw the values of one case: normal, away from zero, in the shapes of `params`.

    Case 0 is `params` itself. Every third case is float32. `digits` is the number of decimals.
    """
    if case == 0 and digits is None:
        return {name: np.array(value) for name, value in params.items()}
    rng = np.random.default_rng([seed, case])
    scale = SCALE * (2 if case % 4 == 3 else 1)
    dtype = np.float32 if case % 3 == 2 and digits is None else np.float64
    draws = {name: rng.normal(size=np.shape(value)) for name, value in params.items()}
    values = {name: scale * z + 0.1 * np.sign(z) for name, z in draws.items()}
    if digits is not None:
        values = {name: np.round(value, digits) for name, value in values.items()}
    return {name: np.array(value, dtype) for name, value in values.items()}


def check_params(params: Mapping[str, Any]) -> dict[str, Array]:
    """Convert the parameters to arrays. Raises ValueError unless they are a dict of floats."""
    if not isinstance(params, Mapping) or not params:
        raise ValueError(f"params: expected a dict of float arrays, found {type_name(params)}")
    items = attempt(lambda: list(params.items()))
    if isinstance(items, Failure):
        raise ValueError(f"params: expected a dict of float arrays, and reading it: {items.what}")
    arrays = {}
    for name, value in items:
        if not isinstance(name, str):
            raise ValueError(f"params: expected names that are strings, found {name!r}")
        array = attempt(np.array, value)
        if isinstance(array, Failure):
            raise ValueError(f"params[{name!r}]: expected an array, found {array.what}")
        if array.dtype not in (np.float32, np.float64) or array.size == 0:
            raise ValueError(
                f"params[{name!r}]: expected a float32 or float64 array with entries, found "
                f"{array.dtype} of shape {array.shape}"
            )
        arrays[name] = array
    return arrays


def widen(params: Mapping[str, Array]) -> dict[str, Array]:
    """Convert the parameters to float64."""
    return {name: value.astype(np.float64) for name, value in params.items()}


def make_case(
    program: Program, gradient: Callable[[Any], Any], params: dict[str, Array], number: int
) -> Case:
    """Make the case of a point: autodiff's values, and the error allowed in any precision."""
    wide = widen(params)
    value, slopes = gradient(wide)
    errors = gradient_and_noise(program, wide, (FLOAT64, FLOAT32), seed=number)
    (loss64, allowed64), (loss32, allowed32) = errors
    values = {name: np.asarray(slopes[name]) for name in params}
    if "loss" not in params:
        values["loss"] = np.asarray(value)
        allowed64["loss"], allowed32["loss"] = np.asarray(loss64), np.asarray(loss32)

    def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
        unit, tiny = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).smallest_normal)
        # Errors in formats coarser than float32 are not measured, but grow with the unit.
        coarser = max(1.0, unit / FLOAT32)
        allowed = {
            # The reference has the error of float64, too; a number that underflows is lost.
            name: (own if unit <= FLOAT64 else allowed32[name] * coarser) + own + 16 * tiny
            for name, own in allowed64.items()
        }
        return Truth(values, {name: np.asarray(error) for name, error in allowed.items()})

    return Case(f"case {number}", params, number, truth)


def is_finite(case: Case) -> bool:
    """Tell whether the reference is finite at this point."""
    assert case.truth is not None
    return all(np.isfinite(value).all() for value in case.truth(np.float64, ()).values.values())


def compare_losses(loss: Loss, case: Case) -> str | None:
    """Compare the loss in NumPy and JAX; return a sentence if it differs."""
    assert case.truth is not None
    found = attempt(loss, widen(case.arguments), np)
    if isinstance(found, Failure):
        return f"loss(params, numpy) raised {found.what} at {found.file_line}."
    if "loss" in case.arguments:  # a parameter's name
        return None
    known = case.truth(np.float64, ())
    value, by_jax, allowed = (
        float(np.reshape(number, ()))
        for number in (found, known.values["loss"], known.allowed["loss"])
    )
    if abs(value - by_jax) <= allowed or not np.isfinite(allowed):
        return None
    return (
        f"loss(params, numpy) is {value:.17g} and loss(params, jax.numpy) is {by_jax:.17g} at "
        f"{case.label}, beyond rounding (allowed {allowed:.2g}): the loss must be one function."
    )


def ask_second_opinion(loss: Loss, case: Case) -> str | None:
    """Compare derivatives of the loss in NumPy with jax.grad; return a sentence if they differ."""
    assert case.truth is not None

    def in_numpy(point: Mapping[str, Array]) -> Any:
        found = attempt(lambda: np.reshape(np.asarray(loss(dict(point), np)), ()))
        return None if isinstance(found, Failure) else found

    point = widen(case.arguments)
    doubt = contradict_entries(in_numpy, point, case.truth(np.float64, ()), case.point)
    return None if doubt is None else f"At {case.label}, {doubt}"
