"""The agreement gate: contenders with wrong gradients are not timed.

The gradients come from the timed step itself. One step with a large learning rate η changes the
parameters by −η ∂L/∂θ; that change, divided by −η, is compared with autodiff in float64. The
allowed error is measured, as in docs/derivation.md, section 10; docs/performance.md has details.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import scans
from benchmarks.contenders import Contender
from benchmarks.jax_steps import differentiated
from benchmarks.rounding import BFLOAT16, TF32, Format, in_format, with_coarse_tanh
from bptt_verifier.problems.problem import Problem
from bptt_verifier.tolerance.comparison import find_symbol
from bptt_verifier.tolerance.noise import AMPLIFY, add_noise

SAMPLES = 4
SAFETY = 2  # allowed error ÷ largest deviation among all entries and samples
# The error of a library's tanh may have one sign for all small arguments: 0.9 u in XLA's float32.
# Such errors of T steps do not cancel, as random ones do. Allowed for each step, in units of u:
ONE_SIDED = 2
# The same for samples in a shorter format, whose errors are as large as a contender's. Of a few
# entries the largest in 4 samples may happen to be half of what is usual.
SAFETY_SHORT = 4
GATE = "the gate at "  # how a note about that begins
WEAK = 0.1  # allowed error ÷ largest entry above which a run says what the gate cannot see


class Disagreement(ArithmeticError):  # noqa: N818 - a verdict
    """A contender's loss or gradients are not those of the reference, or not finite."""


class Expected(NamedTuple):
    """The reference's loss and gradients by name, and the allowed error of every entry of each."""

    values: dict[str, Any]
    allowed: dict[str, float]

    @property
    def resolution(self) -> tuple[float, str]:
        """The largest of allowed error ÷ largest entry, and the name of that gradient."""
        sizes = {name: float(np.abs(value).max()) for name, value in self.values.items()}
        return max((self.allowed[name] / sizes[name], name) for name in sizes if sizes[name] > 0)


def format_of(dtype: Any, *, tf32: bool) -> Format | None:
    """The format shorter than float32 that products or results round to, or None."""
    if dtype == jnp.bfloat16:
        return BFLOAT16
    return TF32 if tf32 and dtype == np.float32 else None


def moved_on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`add_noise(function)` with the errors of cuDNN's tanh as well."""
    moved = add_noise(with_coarse_tanh(function))
    return lambda salt, size, *arguments: moved(salt, size, salt, size, *arguments)


def unit_roundoff(dtype: Any) -> float:
    """The unit roundoff u of a dtype."""
    information: Any = jnp.finfo
    return float(information(dtype).eps) / 2


def expected(problem: Problem, *, tf32: bool = False, device: Any = None) -> Expected:
    """Compute the reference by autodiff of the plain scan in float64, and the allowed errors.

    The reference runs at exactly the numbers of the problem, on the CPU or on another JAX device.
    """
    form = format_of(problem.x.dtype, tf32=tf32)
    roundoff = (form.roundoff if form else unit_roundoff(problem.x.dtype)) + 2.0**-53
    # A library computes tanh in float32 before it rounds to a shorter format.
    one_by_one = unit_roundoff(np.float32) if form else roundoff
    size = max(roundoff, AMPLIFY * 2.0**-53)
    with jax.enable_x64(True), jax.default_device(device or jax.devices("cpu")[0]):
        given = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (problem.params, problem.x, problem.y)
        )
        option = next(iter(problem.option.values()), None)
        gradient_of = differentiated(scans.predicted, problem)

        def function(params: Any, x: Any, y: Any) -> Any:
            return gradient_of(params, x, y), scans.predicted(problem.cell, option)(params, x)

        salts = [jnp.uint64(salt + 1) for salt in range(SAMPLES)]
        if form is None:
            on_gpu = device is not None and device.platform != "cpu"
            moved = jax.jit(moved_on_gpu(function) if on_gpu else add_noise(function))
            exact = moved(jnp.uint64(0), 0.0, *given)  # errors of size 0: the result itself
            samples = [moved(salt, size, *given) for salt in salts]
            safety = SAFETY * roundoff / size
        else:
            exact = jax.jit(function)(*given)
            shortened = jax.jit(in_format(function, form))
            samples = [shortened(salt, *given) for salt in salts]
            safety = SAFETY_SHORT
        (loss, gradient), prediction = jax.tree.map(np.asarray, exact)

        def off_by(*leaves: Any) -> float:
            true, *others = (np.asarray(leaf) for leaf in leaves)
            deviation = float(max(np.abs(other - true).max() for other in others))
            one_sided = ONE_SIDED * len(problem.x) * one_by_one * float(np.abs(true).max())
            return safety * deviation + one_sided

        (_, of_gradient), of_prediction = jax.tree.map(off_by, exact, *samples)
    r = np.abs(prediction - np.asarray(problem.y, np.float64))
    of_loss = 2 * float(r.mean()) * of_prediction + of_prediction**2
    of_loss += SAFETY * roundoff * float(loss) * r.size**0.5
    values = {"loss": loss} | {k: v for k, v in gradient._asdict().items() if v is not None}
    allowed = {"loss": of_loss} | {k: v for k, v in of_gradient._asdict().items() if v is not None}
    return Expected(values, allowed)


def large_rate(problem: Problem, truth: Expected) -> float:
    """A learning rate, a power of two, whose update is far larger than the parameters."""
    largest = {name: float(np.abs(value).max()) for name, value in truth.values.items()}
    ratios = [
        float(np.abs(weight).max()) / largest[name]
        for name, weight in problem.params._asdict().items()
        if weight is not None and largest[name] > 0
    ]
    return float(2.0 ** (10 + np.ceil(np.log2(max(*ratios, 1.0)))))


def require_agreement(contender: Contender, problem: Problem, truth: Expected) -> float:
    """The largest error of the contender's loss and gradients, in units of the allowed error.

    Raises Disagreement, naming the contender and the gradient, where it is above 1 or NaN.
    """
    if contender.parameters is None:
        raise ValueError(f"{contender.name}: expected a contender with gradients, found none")
    rate = large_rate(problem, truth)
    before = contender.parameters(contender.start())
    loss, state = (contender.once or contender.step)(contender.start(), contender.rate(rate))
    after = contender.parameters(contender.wait(state))
    u = unit_roundoff(problem.x.dtype)
    found, worst = {"loss": np.asarray(float(loss))}, 0.0
    for name, weight in before.items():
        found[name] = (weight.astype(np.float64) - after[name].astype(np.float64)) / rate
    if found.keys() != truth.values.keys():
        raise Disagreement(
            f"{contender.name}: expected gradients of {', '.join(truth.allowed)}, "
            f"found {', '.join(found)}"
        )
    for name, right in truth.values.items():
        if found[name].shape != right.shape:
            raise Disagreement(
                f"{contender.name}: {find_symbol(name)}: expected shape {right.shape}, "
                f"found {found[name].shape}"
            )
        # The update rounds twice: in η g and in θ − η g.
        update = 2 * u * np.abs(right).max()
        if name in before:
            update += u * np.abs(before[name]).max() / rate
        error = np.abs(found[name] - right)
        where = np.unravel_index(int(np.argmax(error)), error.shape)
        if not error[where] <= truth.allowed[name] + update:
            entry = "[" + ", ".join(str(int(i)) for i in where) + "]" if where else ""
            raise Disagreement(
                f"{contender.name}: {find_symbol(name)}{entry}: expected {float(right[where]):.9g} "
                f"± {truth.allowed[name] + update:.1e}, found {float(found[name][where]):.9g} "
                f"at {problem.sizes} in {problem.x.dtype}"
            )
        worst = max(worst, float(error[where] / (truth.allowed[name] + update)))
    return worst
