"""What is known of somebody's own model before their gradients are asked for.

The loss is differentiated by jax.grad at every case; complex steps of the same loss in NumPy are
the second opinion on that; what rounding may do is measured.
"""

import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.program.trace import Program, gradient_and_noise, traced
from bptt_verifier.tolerance.noise import UNOPTIMISED
from manual_bptt.inputs import require_at_least

Array = np.ndarray[Any, np.dtype[Any]]
Loss = Callable[[dict[str, Any], Any], Any]

CASES = 24
SCALE = 0.6  # standard deviation of drawn values; every fourth case is twice as large
FLOAT64, FLOAT32 = 2.0**-53, 2.0**-24
STEP = 2.0**-200  # of the complex step
ENTRIES = 12  # of each parameter, for the second opinion


class Failure(NamedTuple):
    """An exception of theirs: which, and where in their code."""

    where: str
    what: str


class Case(NamedTuple):
    """A point, autodiff's gradient there, and the errors allowed in float64 and in float32."""

    number: int
    params: dict[str, Array]
    loss: float
    reference: dict[str, Array]
    allowed: tuple[dict[str, Array], dict[str, Array]]
    loss_allowed: tuple[float, float]


class Oracle(NamedTuple):
    """All that is known before their gradients are asked for.

    `refusal` says why nothing can be decided, where that is so; `held` are not drawn.
    """

    loss: Loss
    params: dict[str, Array]
    seed: int
    program: Program | None
    reference: Callable[[Any], Any] | None
    cases: tuple[Case, ...]
    refusal: str | None = None
    notes: tuple[str, ...] = ()
    losses_differ: bool = False
    held: frozenset[str] = frozenset()


def prepared(
    loss: Loss,
    params: Mapping[str, Any],
    *,
    seed: int = 0,
    cases: int = CASES,
    held: frozenset[str] = frozenset(),
    reference: Callable[[dict[str, Array]], Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Oracle:
    """Trace the loss, differentiate it at every case, and ask for the second opinion.

    The parameters in `held` keep the values that they are given. `reference` is what jax.grad says
    of the same loss at a point, its value and gradient, where that is at hand.
    """
    given = checked(params)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)

    def refused(why: str, **more: Any) -> Oracle:
        return Oracle(loss, given, seed, None, None, (), why, **more)

    if not callable(loss):
        raise ValueError(f"loss: expected a function, found {kind(loss)}")
    with precise():
        wide = {name: value.astype(np.float64) for name, value in given.items()}
        in_numpy = called(loss, copies(wide), np)
        if isinstance(in_numpy, Failure):
            return refused(f"loss(params, numpy) raised {in_numpy.what} at {in_numpy.where}.")
        if np.size(in_numpy) != 1 or np.asarray(in_numpy).dtype.kind not in "fiu":
            raise ValueError(
                f"loss(params, numpy): expected a real scalar, found {kind(in_numpy)} of shape "
                f"{np.shape(in_numpy)}"
            )

        def scalar(point: Any, xp: Any = jnp) -> Any:
            return jnp.reshape(loss(point, xp), ())

        program = called(lambda: traced(scalar, wide))
        if isinstance(program, Failure):
            return refused(f"loss(params, jax.numpy) raised {program.what} at {program.where}.")
        at_hand = reference is not None
        if reference is None:
            reference = jax.jit(jax.value_and_grad(scalar), compiler_options=UNOPTIMISED)
        found = []
        for number in range(cases):
            case = case_at(
                program, reference, drawn(given, seed=seed, case=number, held=held), number
            )
            found.append(case)
            progress(number + 1, cases)
        finite = tuple(case for case in found if usable(case))
        if not finite:
            return refused("The loss or its gradient is not finite at any of the points tried.")
        notes: tuple[str, ...] = ()
        if len(finite) < len(found):
            notes = (
                f"{len(found) - len(finite)} of {len(found)} cases were left out: the loss or its "
                "gradient is not finite there.",
            )
        oracle = Oracle(loss, given, seed, program, reference, finite, None, notes, held=held)
        for case in finite[:2]:
            differ = losses_differ(loss, case)
            if differ:
                return oracle._replace(refusal=differ, losses_differ=True)
            doubt = second_opinion(loss, case)
            if doubt:
                return oracle._replace(refusal=doubt)
        # What differentiates other code than this loss may be wrong in a few entries only.
        for case in finite if at_hand else ():
            doubt = in_every_entry(loss, case)
            if doubt:
                return oracle._replace(refusal=doubt)
        return oracle


def drawn(
    params: Mapping[str, Any],
    *,
    seed: int,
    case: int,
    digits: int | None = None,
    held: frozenset[str] = frozenset(),
) -> dict[str, Array]:
    """The values of one case: of the shapes of `params`, normal, away from zero.

    Case 0 is `params` itself. Every third case is float32. With `digits`, rounded to so many.
    Those in `held` keep their values.
    """
    if case == 0 and digits is None:
        return {name: np.array(value) for name, value in params.items()}
    rng = np.random.default_rng([seed, case])
    scale = SCALE * (2 if case % 4 == 3 else 1)
    dtype = np.float32 if case % 3 == 2 and digits is None else np.float64
    values = {}
    for name, value in params.items():
        z = rng.normal(size=np.shape(value))
        away = scale * z + 0.1 * np.sign(z)
        free = away if digits is None else np.round(away, digits)
        values[name] = np.array(value if name in held else free, dtype)
    return values


def checked(params: Mapping[str, Any]) -> dict[str, Array]:
    """The parameters as arrays."""
    if not isinstance(params, Mapping) or not params:
        raise ValueError(f"params: expected a dict of float arrays, found {kind(params)}")
    arrays = {}
    for name, value in params.items():
        array = np.array(value)
        if array.dtype not in (np.float32, np.float64) or array.size == 0:
            raise ValueError(
                f"params[{name!r}]: expected a float32 or float64 array with entries, found "
                f"{array.dtype} of shape {array.shape}"
            )
        arrays[name] = array
    return arrays


def case_at(
    program: Program, reference: Callable[[Any], Any], params: dict[str, Array], number: int
) -> Case:
    """Autodiff at a point, and what rounding may do there."""
    wide = {name: value.astype(np.float64) for name, value in params.items()}
    value, gradient = reference(wide)
    (loss64, allowed64), (loss32, allowed32) = gradient_and_noise(
        program, wide, (FLOAT64, FLOAT32), seed=number
    )
    arrays = {name: np.asarray(gradient[name]) for name in params}
    return Case(number, params, float(value), arrays, (allowed64, allowed32), (loss64, loss32))


def usable(case: Case) -> bool:
    """Whether the reference exists at this point."""
    return bool(np.isfinite(case.loss)) and all(
        np.isfinite(gradient).all() for gradient in case.reference.values()
    )


def losses_differ(loss: Loss, case: Case) -> str | None:
    """A sentence, if the loss is another number with NumPy than with JAX."""
    wide = {name: value.astype(np.float64) for name, value in case.params.items()}
    found = called(loss, wide, np)
    if isinstance(found, Failure):
        return f"loss(params, numpy) raised {found.what} at {found.where}."
    value = float(np.reshape(found, ()))
    if abs(value - case.loss) <= 2 * case.loss_allowed[0] or not np.isfinite(case.loss_allowed[0]):
        return None
    return (
        f"loss(params, numpy) is {value:.17g} and loss(params, jax.numpy) is {case.loss:.17g} at "
        f"case {case.number}, beyond rounding (allowed {case.loss_allowed[0]:.2g}): "
        "the loss must be one function."
    )


def second_opinion(loss: Loss, case: Case) -> str | None:
    """A sentence, if derivatives of the loss in NumPy contradict jax.grad in some entries."""
    rng = np.random.default_rng(case.number)
    for name, value in case.params.items():
        chosen = rng.permutation(value.size)[:ENTRIES]
        for i in chosen:
            entry = tuple(int(k) for k in np.unravel_index(i, value.shape))
            along = np.zeros(value.shape)
            along[entry] = 1.0
            found = compared_along(loss, case, {name: along})
            if found.says is not None:
                return f"jax.grad says {found.by_jax} for ∂L/∂{name}{list(entry)} {found.says}"
            if not found.by_complex:
                break  # differences are slow: one a parameter
    return None


def in_every_entry(loss: Loss, case: Case) -> str | None:
    """A sentence, if they contradict it along a direction that has every entry in it."""
    rng = np.random.default_rng([case.number, 1])
    along = {name: rng.choice([-1.0, 1.0], np.shape(v)) for name, v in case.params.items()}
    if compared_along(loss, case, along).says is None:
        return None
    parts = [{name: signs} for name, signs in along.items()]
    for part in (*parts, along):  # where one parameter is enough, it is told
        found = compared_along(loss, case, part)
        if found.says is not None:
            names = ", ".join(part)
            return f"jax.grad says {found.by_jax} along random signs in {names} {found.says}"
    return None


class Compared(NamedTuple):
    """What jax.grad says of a direction; what contradicts it; whether complex steps were enough."""

    by_jax: str
    says: str | None
    by_complex: bool


def compared_along(loss: Loss, case: Case, along: Mapping[str, Array]) -> Compared:
    """The derivative of the loss in NumPy in one direction, held against jax.grad's.

    By complex steps where the loss takes complex numbers; where that contradicts or fails, by
    central differences in longdouble. A sum of entries is allowed the sum of their errors.
    """
    wide = {name: value.astype(np.float64) for name, value in case.params.items()}
    true = sum(float(np.sum(case.reference[name] * d)) for name, d in along.items())
    allowed = sum(float(np.sum(case.allowed[0][name] * np.abs(d))) for name, d in along.items())
    by_complex = complex_step(loss, wide, along)
    if by_complex is not None and abs(by_complex - true) <= 2 * allowed + 1e-300:
        return Compared(f"{true:.12g}", None, by_complex=True)
    by_difference, uncertain = difference(loss, wide, along)
    agrees = abs(by_difference - true) <= uncertain + 2 * allowed
    says = (
        f"at case {case.number}, central differences of the loss in NumPy {by_difference:.12g} ± "
        f"{uncertain:.2g}: the oracle itself is in doubt."
    )
    return Compared(f"{true:.12g}", None if agrees else says, by_complex=False)


def complex_step(
    loss: Loss, params: Mapping[str, Array], along: Mapping[str, Array]
) -> float | None:
    """Im L(θ + isd)/s, or None where the loss does not take complex numbers."""
    point = {key: value + 1j * STEP * along.get(key, 0.0) for key, value in params.items()}
    found = called(lambda: complex(np.reshape(np.asarray(loss(point, np)), ())))
    if isinstance(found, Failure) or not np.isfinite(found):
        return None
    return float(found.imag / STEP)


def difference(
    loss: Loss, params: Mapping[str, Array], along: Mapping[str, Array]
) -> tuple[float, float]:
    """A central difference in longdouble, extrapolated, and how far it may be off."""

    def at(step: float) -> tuple[np.longdouble, float]:
        point = {
            key: value.astype(np.longdouble) + np.longdouble(step) * along.get(key, 0.0)
            for key, value in params.items()
        }
        found = called(lambda: np.reshape(np.asarray(loss(point, np)), ()))
        if isinstance(found, Failure):
            return np.longdouble(np.nan), FLOAT64
        return np.longdouble(found), float(np.finfo(found.dtype).eps)

    slopes, eps, size = [], 0.0, 0.0
    for h in (2.0**-12, 2.0**-13):
        (above, eps), (below, _) = at(h), at(-h)
        slopes.append(float((above - below) / (2 * h)))
        size = float(abs(above) + abs(below))
    wide, narrow = slopes
    return (4 * narrow - wide) / 3, abs(narrow - wide) + 64 * eps * size * 2.0**13


@contextmanager
def precise() -> Iterator[None]:
    """64-bit JAX, and their arrays may be of mixed precision whatever the caller's settings are."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


# Their code, called so that nothing of it reaches us but its answer.


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """What their function returns, or a Failure."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return function(*arguments)
    except (Exception, SystemExit) as error:
        code = getattr(inspect.unwrap(function), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if code and frame.filename == code.co_filename]
        frame = (theirs or frames)[-1]
        message = " ".join(str(error).split())
        what = f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__
        return Failure(f"{frame.filename}:{frame.lineno}", what)


def copies(params: Mapping[str, Array]) -> dict[str, Array]:
    """Fresh, writable, contiguous."""
    return {name: np.array(value) for name, value in params.items()}


def kind(value: Any) -> str:
    """A value's type, as a message names it."""
    return "None" if value is None else type(value).__name__
