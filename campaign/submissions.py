"""Right submissions: gradients that are not the reference's own program."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from campaign.formulas import Formulas, draw_formulas
from campaign.models import BACK, Model, derive, run

Gradients = Callable[[Mapping[str, Any]], dict[str, Any]]
# By hand in the precision of the arguments; in float32, returned in it or in float64.
BY_HAND = "hand", "hand", "hand", "hand float32", "hand float32", "hand float32 inside", "hand"
DRAWS = 20  # of the formulas of a right submission, at most
# XLA takes 15 GB and more minutes than anyone waits to optimise 99 unrolled steps of two layers.
LONG, UNOPTIMISED = 64, {"xla_backend_optimization_level": 0, "xla_disable_hlo_passes": "fusion"}
# jax.grad of other formulas, in 64 bit or in JAX's default precision. One is compiled for a model.
BY_JAX = "jax 64 bit", "jax default"


def choose_style(number: int, k: int) -> str:
    """Choose the style of the k-th right submission of a model."""
    return BY_JAX[number % 2] if k == len(BY_HAND) else BY_HAND[k % len(BY_HAND)]


def by_hand(
    model: Model, f: Formulas, style: str, back: Mapping[str, Callable[..., Any]] = BACK
) -> Gradients:
    """The way back derived by hand, with these formulas."""
    single = model.convert(np.float32)

    def gradients(p: Mapping[str, Any]) -> dict[str, Any]:
        if style == "hand":
            return derive(model, p, f, back)
        found = derive(single, {n: v.astype(np.float32) for n, v in p.items()}, f, back)
        if style == "hand float32":
            return found
        return {name: found[name].astype(value.dtype) for name, value in p.items()}

    return gradients


def by_jax(model: Model, f: Formulas, style: str) -> Gradients:
    """jax.grad of the same loss in these formulas."""
    wide = style == "jax 64 bit"
    options = UNOPTIMISED if len(model.x) > LONG else None
    gradient = jax.jit(jax.grad(lambda p: run(model, p, jnp, f)[0]), compiler_options=options)

    def gradients(p: Mapping[str, Any]) -> dict[str, Any]:
        dtype = np.float64 if wide else np.float32
        with jax.enable_x64(True) if wide else nullcontext():
            found = gradient({name: jnp.asarray(value, dtype) for name, value in p.items()})
            return {name: np.asarray(value) for name, value in found.items()}

    return gradients


def draw_right(model: Model, rng: np.random.Generator, style: str) -> Gradients | None:
    """Draw the formulas of a right submission, other than the loss's.

    They are finite at the parameters given, which no verdict leaves out. An exponential is not
    where it overflows, which is the formula's fault and not the judge's. Nor is a path there that
    underflows in the derivative of e^z ÷ Σ e^z, though all numbers are finite. None where none of
    the formulas drawn is right, as where all of them overflow.
    """
    for _ in range(DRAWS):
        f = draw_formulas(rng, model.formulas.activation)
        if f != model.formulas:
            found = compute_by(model, f, style)
            if not is_finite_where_given(model, found):
                continue
            shifted = compute_by(model, f._replace(softmax="shifted"), style)
            quotient = f.softmax == "plain" and style == "jax default"
            if not (quotient and loses_paths_where_given(model, found, shifted)):
                return found
    return None


def compute_by(model: Model, f: Formulas, style: str) -> Gradients:
    """The gradients by these formulas, by hand or by jax.grad."""
    if style.startswith("jax"):
        return by_jax(model, f, style)
    return by_hand(model, f._replace(rotation="complex"), style)


def loses_paths_where_given(model: Model, gradients: Gradients, shifted: Gradients) -> bool:
    """True if gradients are no more those of the same formulas with the maximum subtracted.

    The derivative of p / s by s is −p / s². From s = 2⁶⁴ on its square overflows float32, and what
    passes through the sum of a softmax is lost.
    """
    for each in model.settings:
        one, other = (g({n: np.array(v) for n, v in each.items()}) for g in (gradients, shifted))
        if any(np.max(np.abs(one[n] - other[n])) > np.max(np.abs(other[n])) / 2 for n in one):
            return True
    return False


def is_finite_where_given(model: Model, gradients: Gradients) -> bool:
    """True if the gradients are finite at all parameters given."""
    found = (gradients({n: np.array(v) for n, v in each.items()}) for each in model.settings)
    return all(np.isfinite(value).all() for each in found for value in each.values())
