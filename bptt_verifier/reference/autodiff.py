"""The reference for one problem, and how far a correct derivation may be from it.

For small problems the rigorous bound and the padded path, which compiles once for all shapes; for
long sequences the measured error.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.judge.builtin import allowed, reference, reference_and_allowed, started_reference
from bptt_verifier.problems.problem import Problem, Variant, remembered
from bptt_verifier.tolerance.bounds import RESOLVING, Bounds
from bptt_verifier.tolerance.comparison import Array
from bptt_verifier.tolerance.noise import UNOPTIMISED, measured
from jax_reference import rnn
from jax_reference.rnn import Derivatives
from manual_bptt.rnn import Params


class Truth(NamedTuple):
    """What autodiff gives, by name, and the allowed error of every entry, in the same shapes."""

    values: dict[str, Array]
    allowed: dict[str, Array]


# Of a problem, a dtype, and the names that are compared.
Oracle = Callable[[Problem, Any, Collection[str]], Truth]


@partial(jax.jit, static_argnames=("activation", "loss"), compiler_options=UNOPTIMISED)
def _measured(
    params: Params, x: Any, y: Any, h0: Any, roundoff: Any, activation: str, loss: str
) -> Any:
    def everything(params: Params, x: Any, h0: Any, perturbations: Any) -> dict[str, Any]:
        objective = partial(rnn.loss_of, activation=activation, loss=loss)
        (value, states), (dparams, dx, dh0, adjoints) = jax.value_and_grad(
            objective, argnums=(0, 1, 3, 4), has_aux=True
        )(params, x, y, h0, perturbations)
        found = {"loss": value, "prediction": states.prediction, **dparams._asdict()}
        found |= {"x": dx, "h0": dh0, "adjoints": adjoints}
        return {name: entry for name, entry in found.items() if entry is not None}

    zero = jnp.zeros((*x.shape[:2], len(params.W)))
    return measured(everything, roundoff, params, x, h0, zero)


def named(found: Derivatives) -> dict[str, Array]:
    """Everything that is compared, by name."""
    values = found._asdict() | {"prediction": found.states.prediction}
    return {name: np.asarray(values[name]) for name in Bounds._fields if values[name] is not None}


def undecidable_where_too_large(truth: Truth, dtype: Any) -> Truth:
    """Infinite allowed errors where products of what occurs may overflow in that dtype."""
    limit = float(np.finfo(dtype).max) ** 0.5
    everything = np.concatenate([value.ravel() for value in truth.values.values()])
    if np.max(np.abs(everything)) < limit:
        return truth
    return truth._replace(
        allowed={name: np.full_like(value, np.inf) for name, value in truth.values.items()}
    )


def measured_truth(problem: Problem, dtype: Any, names: Collection[str] = Bounds._fields) -> Truth:
    """The reference with measured errors: for any length; compiles once for each shape.

    All errors are measured at once, whichever `names` are asked for.
    """
    return undecidable_where_too_large(everything_measured(problem, dtype), dtype)


@remembered(128)
def everything_measured(problem: Problem, dtype: Any) -> Truth:
    """The reference, and how far a derivation in that dtype may be from it."""
    params, x, y, h0, activation, loss = problem
    wide = Params(*(None if w is None else np.asarray(w, np.float64) for w in params))  # type: ignore[arg-type]
    state = np.zeros((x.shape[1], len(params.W))) if h0 is None else h0.astype(np.float64)
    with jax.enable_x64(True):
        clean, spread = _measured(
            wide, x.astype(np.float64), y.astype(np.float64), state, roundoff(dtype),
            activation, loss,
        )  # fmt: skip
    values = {name: np.asarray(value) for name, value in clean.items()}
    allowed = {name: with_reference(np.asarray(value), dtype) for name, value in spread.items()}
    return Truth(values, allowed)


def roundoff(dtype: Any) -> float:
    """The unit roundoff u."""
    return float(np.finfo(dtype).eps) / 2


def with_reference(spread: Array, dtype: Any) -> Array:
    """A measured error with that of the reference, in float64, and a flush to zero."""
    own = 1 + 2.0**-53 / roundoff(dtype)
    return own * spread + float(np.finfo(dtype).smallest_normal)


def ahead(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Each problem, while JAX computes the reference of the next, which is remembered."""
    before = None
    for problem in problems:
        started_reference(problem)
        if before is not None:
            yield before
        before = problem
    if before is not None:
        yield before


def truth(problem: Problem, dtype: Any, names: Collection[str] = Bounds._fields) -> Truth:
    """The reference with the rigorous bound where that can tell, else with measured errors.

    `dtype` is that of the derivation under test. The problem must fit the padded capacity, for
    which everything is compiled once. Only for `names` is a bound that cannot tell replaced.
    """
    params, x, y, h0, activation, loss = problem
    known = reference(problem)
    bound = allowed(problem._replace(x=problem.x.astype(dtype)), known)
    values = named(known)
    errors = {name: np.asarray(getattr(bound, name)) for name in values}
    vague = [
        name
        for name, value in values.items()
        if name in names and np.max(errors[name]) > RESOLVING * np.max(np.abs(value)) > 0
    ]
    if vague:
        first = {} if h0 is None else {"h0": h0}
        variant = Variant("rnn", params, x, y, first, {"activation": activation}, loss)
        finer = named(reference_and_allowed(variant, dtype)[1])
        tiny = float(np.finfo(dtype).smallest_normal)
        errors |= {name: np.fmin(errors[name], finer[name] + tiny) for name in vague}
    return undecidable_where_too_large(Truth(values, errors), dtype)
