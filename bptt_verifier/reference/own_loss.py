"""The reference of the user's own model: its loss, differentiated at random parameters.

jax.grad differentiates the loss in every case. Complex steps of the same loss in NumPy check the
first cases. The allowed errors are measured (docs/derivation.md, section 10).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, copies, type_name
from bptt_verifier.program.measured_errors import gradient_and_noise
from bptt_verifier.program.trace import Program, trace
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.reference.second_opinion import contradict_entries
from bptt_verifier.tolerance.noise import UNOPTIMISED
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
    with use_float64():
        wide = widen(given)
        in_numpy = attempt(wraps(loss)(lambda: np.asarray(loss(copies(wide), np))))
        if isinstance(in_numpy, Failure):
            return refuse(f"loss(params, numpy) raised {in_numpy.what} at {in_numpy.file_line}.")
        if in_numpy.size != 1 or in_numpy.dtype.kind not in "fiu":
            raise ValueError(
                f"loss(params, numpy): expected a real scalar, found {in_numpy.dtype} of "
                f"shape {in_numpy.shape}"
            )

        def scalar(point: Any, xp: Any = jnp) -> Any:
            return jnp.reshape(loss(point, xp), ())

        program = attempt(wraps(loss)(lambda: trace(scalar, wide)))
        if isinstance(program, Failure):
            return refuse(f"loss(params, jax.numpy) raised {program.what} at {program.file_line}.")
        gradient = differentiate(scalar, [*given])
        by_jax = attempt(wraps(loss)(lambda: gradient(wide)))
        if isinstance(by_jax, Failure):
            return refuse(f"jax.grad of the loss raised {by_jax.what} at {by_jax.file_line}.")
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


def differentiate(scalar: Callable[[Any], Any], names: Sequence[str]) -> Callable[[Any], Any]:
    """Compile the loss and its gradient; the loss gets its parameters in the order of the names."""

    def in_order(values: Sequence[Any]) -> Any:  # JAX sorts the names of a dict
        return scalar(dict(zip(names, values, strict=True)))

    compiled = jax.jit(jax.value_and_grad(in_order), compiler_options=UNOPTIMISED)

    def gradient(params: Mapping[str, Any]) -> Any:
        value, slopes = compiled([params[name] for name in names])
        return value, dict(zip(names, slopes, strict=True))

    return gradient


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
    arrays = {}
    for name, value in params.items():
        if not isinstance(name, str):
            raise ValueError(f"params: expected names that are strings, found {name!r}")
        array = np.array(value)
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
    roundoffs = FLOAT64, FLOAT32
    errors = attempt(gradient_and_noise, program, wide, roundoffs, slopes, seed=number)
    if isinstance(errors, Failure):  # nothing is measured, so nothing is decided at this point
        undecided = np.inf, {name: np.full(v.shape, np.inf) for name, v in wide.items()}
        errors = undecided, undecided
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
    found = attempt(wraps(loss)(lambda: np.asarray(loss(widen(case.arguments), np), float)))
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
        number = not isinstance(found, Failure) and found.dtype.kind in "fiuc"
        return found if number else None

    point = widen(case.arguments)
    doubt = contradict_entries(in_numpy, point, case.truth(np.float64, ()), case.point)
    return None if doubt is None else f"At {case.label}, {doubt}"


@contextmanager
def use_float64() -> Iterator[None]:
    """Use 64-bit JAX with standard promotion, whatever the caller's settings."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield
