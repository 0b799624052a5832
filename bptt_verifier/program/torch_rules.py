"""Rules from PyTorch's operations to JAX's, on traced values, by the names of the operations.

The arguments are those of the operations of PyTorch, in their order and with their names. The
operations in place, such as `add_`, have the rules of those that are not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Rule = Callable[..., Any]

# Operations whose results depend on shapes, not on numbers, or on nothing.
CONSTANT = frozenset(
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty"
    " new_full zero_ normal_ uniform_ bernoulli_".split()
)


def add(x: Any, y: Any, alpha: Any = 1) -> Any:
    """Compute x + α y."""
    return x + y if alpha == 1 else x + alpha * y


def subtract(x: Any, y: Any, alpha: Any = 1) -> Any:
    """Compute x − α y."""
    return x - y if alpha == 1 else x - alpha * y


def divide(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    """Compute x / y, which may be rounded."""
    found = jnp.divide(x, y)
    return found if rounding_mode is None else ROUNDING[rounding_mode](found)


ROUNDING = {"floor": jnp.floor, "trunc": jnp.trunc}


def raise_to(x: Any, exponent: Any) -> Any:
    """Raise x to a power, which is a simpler function for some exponents."""
    plain = isinstance(exponent, int | float) and exponent == int(exponent) >= 0
    return lax.integer_pow(jnp.asarray(x), int(exponent)) if plain else jnp.power(x, exponent)


def clamp(x: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    """Limit x to bounds, whose gradient is that of x at a bound itself, as PyTorch's."""
    low, high = named.get("min", low), named.get("max", high)
    x = jnp.asarray(x)
    found = x if low is None else jnp.where(x < low, low, x)
    return found if high is None else jnp.where(found > high, high, found)


def softplus(x: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """log(1 + exp(β x)) / β, or x where β x is beyond the threshold."""
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


def elu(x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    """The exponential linear unit."""
    inside = jnp.where(x > 0, 0.0, x)  # so that no exponential overflows
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(inside * input_scale))


def gelu(x: Any, approximate: str = "none") -> Any:
    """The Gaussian error linear unit."""
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def axes(dim: Any) -> Any:
    """Write axes as JAX takes them; none of them are all."""
    return None if dim is None or dim == [] else tuple(dim) if isinstance(dim, Sequence) else dim


def reduce_by(function: Rule) -> Rule:
    """Make the rule of a reduction over axes."""

    def run(x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
        return function(jnp.asarray(x), axis=axes(dim), keepdims=keepdim)

    return run


def find_extreme(largest: bool) -> Rule:
    """Make the rule of max or min: of two arrays, of all entries, or along an axis, with places."""
    value, place = (jnp.max, jnp.argmax) if largest else (jnp.min, jnp.argmin)

    def run(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return value(x)
        where = lax.stop_gradient(place(x, axis=dim, keepdims=True))
        found = gather(x, dim, where)  # one of several equal ones, as PyTorch
        return [found, where] if keepdim else [found.squeeze(dim), where.squeeze(dim)]

    return run


def vary(x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False, **_: Any) -> Any:
    """The variance, of a sample unless `correction` says otherwise."""
    unbiased = 1 if correction is None else int(correction)
    return jnp.var(jnp.asarray(x), axis=axes(dim), ddof=unbiased, keepdims=keepdim)


def norm(x: Any, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """The norm of a vector."""
    if order == 2:
        return jnp.sqrt(jnp.sum(x * x, axis=axes(dim), keepdims=keepdim))
    return jnp.sum(jnp.abs(x) ** order, axis=axes(dim), keepdims=keepdim) ** (1 / order)


def add_product(b: Any, x: Any, y: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """Compute β b + α x y."""
    found = jnp.matmul(x, y)
    return (found if alpha == 1 else alpha * found) + (b if beta == 1 else beta * b)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Compute x Wᵀ + b."""
    found = jnp.matmul(x, jnp.swapaxes(weight, -1, -2))
    return found if bias is None else found + bias


REDUCTIONS: tuple[Rule, ...] = (lambda x: x, jnp.mean, jnp.sum)  # none, mean, sum, as numbered


def measure(loss: Rule) -> Rule:
    """Make the rule of a loss of entries, which are summed or averaged."""

    def run(x: Any, y: Any, reduction: int = 1, *others: Any, **named: Any) -> Any:
        return REDUCTIONS[reduction](loss(x, y, *others, **named))

    return run


def huber(x: Any, y: Any, delta: Any = 1.0) -> Any:
    """Huber's loss of each entry."""
    r = x - y
    return jnp.where(jnp.abs(r) <= delta, r * r / 2, delta * (jnp.abs(r) - delta / 2))


def smooth_l1(x: Any, y: Any, beta: Any = 1.0) -> Any:
    """Huber's loss over its δ."""
    return huber(x, y, beta) / beta


def cross_entropy(x: Any, y: Any, weight: Any = None, reduction: int = 1) -> Any:
    """The cross-entropy of probabilities, whose logarithms are at least −100."""
    logs = [jnp.maximum(jnp.log(p), -100) for p in (x, 1 - x)]
    found = -(y * logs[0] + (1 - y) * logs[1])
    return REDUCTIONS[reduction](found if weight is None else weight * found)


def cross_entropy_of_logits(
    x: Any, y: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    """The cross-entropy of the logistic function of x."""
    positive = 1 if pos_weight is None else pos_weight
    found = -(positive * y * jax.nn.log_sigmoid(x) + (1 - y) * jax.nn.log_sigmoid(-x))
    return REDUCTIONS[reduction](found if weight is None else weight * found)


def select_losses(x: Any, target: Any, weight: Any, reduction: int, ignored: int) -> Any:
    """The negative entries of x at the targets, along axis 1, and their total weight."""
    target = jnp.asarray(target)
    kept, axis = target != ignored, x.ndim - 1 if x.ndim < 2 else 1
    inside = jnp.where(kept, target, 0)
    found = -gather(x, axis, jnp.expand_dims(inside, axis)).squeeze(axis)
    w = jnp.where(kept, 1.0 if weight is None else jnp.asarray(weight)[inside], 0.0)
    total = jnp.sum(w)
    found = found * w
    if reduction == 0:
        return [found, jnp.zeros(())]
    return [jnp.sum(found) / total if reduction == 1 else jnp.sum(found), total]


def normalise_layer(x: Any, shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    """The layer's normalisation over the last axes, with the mean and 1/σ."""
    over = tuple(range(x.ndim - len(shape), x.ndim))
    mean = jnp.mean(x, axis=over, keepdims=True)
    scale = 1 / jnp.sqrt(jnp.var(x, axis=over, keepdims=True) + eps)
    found = (x - mean) * scale
    found = found if weight is None else found * weight
    return [found if bias is None else found + bias, mean, scale]


# Indices.


def select(x: Any, dim: int, index: int) -> Any:
    """One place of an axis, which is dropped."""
    return lax.index_in_dim(x, index % x.shape[dim], dim % x.ndim, keepdims=False)


def cut(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """A slice of an axis."""
    low, high, _ = slice(start, end).indices(x.shape[dim])
    return lax.slice_in_dim(x, low, max(low, high), step, dim % x.ndim)


def split(x: Any, sizes: Any, dim: int = 0) -> Any:
    """Parts of an axis: of one size, or of several."""
    total = x.shape[dim]
    widths = [sizes] * (total // sizes) if isinstance(sizes, int) else [*sizes]
    widths += [total - sum(widths)] if sum(widths) < total else []
    ends = np.cumsum(widths)
    return [cut(x, dim, int(e) - w, int(e)) for e, w in zip(ends, widths, strict=True)]


def index_by(x: Any, index: Any) -> Any:
    """Entries at arrays of integers or constant masks."""
    return jnp.asarray(x)[as_index(index)]


def as_index(index: Any) -> Any:
    """Write an index of PyTorch as one of JAX. A mask has to be constant."""
    return tuple(slice(None) if part is None else part for part in index)


def put(x: Any, index: Any, values: Any, accumulate: bool = False) -> Any:
    """Return x with other values at an index, or with values added to those there."""
    mask, *others = index
    if not others and np.shape(mask) == np.shape(x) and mask.dtype == bool and not np.ndim(values):
        return jnp.where(mask, x + values if accumulate else values, x)
    at = jnp.asarray(x).at[as_index(index)]
    return at.add(values) if accumulate else at.set(values)


def take(x: Any, dim: int, index: Any) -> Any:
    """Places of an axis."""
    return jnp.take(x, index, axis=dim, mode="clip")


def gather(x: Any, dim: int, index: Any, **_: Any) -> Any:
    """Entries of x along an axis, at places that PyTorch has checked."""
    return jnp.take_along_axis(x, index, dim, mode="promise_in_bounds")


def scatter_along(x: Any, dim: int, index: Any, values: Any, **_: Any) -> Any:
    """Return x with other values at places along an axis."""
    return jnp.put_along_axis(x, index, values, axis=dim, inplace=False)


def scatter_sums(x: Any, dim: int, index: Any, values: Any) -> Any:
    """Return x with values added at places along an axis."""
    x, index = jnp.asarray(x), jnp.asarray(index)
    places = list(jnp.indices(index.shape))
    places[dim] = index
    return x.at[tuple(places)].add(values[tuple(map(slice, index.shape))])


def squeeze(x: Any, dim: Any = None) -> Any:
    """Return x without axes of one place."""
    every = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple(k for k in every if x.shape[k] == 1))


def expand(x: Any, sizes: Any, **_: Any) -> Any:
    """Return x repeated along axes of one place."""
    own = (*[1] * (len(sizes) - x.ndim), *x.shape)
    return jnp.broadcast_to(x, [o if s == -1 else s for o, s in zip(own, sizes, strict=True)])


def pad(x: Any, widths: Any, value: Any = 0) -> Any:
    """Return x with a constant around it; the last axis comes first in the widths."""
    pairs = [*zip(widths[::2], widths[1::2], strict=True)][::-1]
    around = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    return lax.pad(x, jnp.asarray(value, x.dtype), [(a, b, 0) for a, b in around])


def repeat(x: Any, times: Any) -> Any:
    """Copies of x along axes."""
    return jnp.tile(x, times)


def fill_masked(x: Any, mask: Any, value: Any) -> Any:
    """Return x with a value where a mask is true."""
    return jnp.where(mask, value, x)


def join(x: Any, dim: int = 0) -> Any:
    """Arrays one after the other; an empty vector among them is left out, as in PyTorch."""
    return jnp.concatenate([part for part in x if np.shape(part) != (0,)], axis=dim)


def same(x: Any, *_: Any, **__: Any) -> Any:
    """Return x itself: PyTorch decides on the dtype and layout of the result."""
    return jnp.asarray(x)


def assign(x: Any, value: Any, *_: Any) -> Any:
    """A value in the place of x."""
    return jnp.broadcast_to(value, np.shape(x))


def reshape(x: Any, shape: Any) -> Any:
    """Return x in another shape."""
    return jnp.reshape(x, shape)


RULES: dict[str, Rule] = {
    "add": add, "sub": subtract, "rsub": lambda x, y, alpha=1: subtract(y, x, alpha),
    "mul": lambda x, y: x * y, "div": divide, "neg": lambda x: -x,
    "reciprocal": lambda x: 1 / x, "pow": raise_to, "square": jnp.square,
    "sqrt": jnp.sqrt, "rsqrt": lambda x: 1 / jnp.sqrt(x), "exp": jnp.exp, "expm1": jnp.expm1,
    "exp2": jnp.exp2, "log": jnp.log, "log1p": jnp.log1p, "log2": jnp.log2, "log10": jnp.log10,
    "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan, "asin": jnp.arcsin, "acos": jnp.arccos,
    "atan": jnp.arctan, "atan2": jnp.arctan2, "sinh": jnp.sinh, "cosh": jnp.cosh,
    "tanh": jnp.tanh, "asinh": jnp.arcsinh, "acosh": jnp.arccosh, "atanh": jnp.arctanh,
    "erf": jax.scipy.special.erf, "erfc": jax.scipy.special.erfc, "lgamma": jax.lax.lgamma,
    "digamma": jax.lax.digamma, "abs": jnp.abs, "sign": jnp.sign, "sgn": jnp.sign,
    "floor": jnp.floor, "ceil": jnp.ceil, "round": jnp.round, "trunc": jnp.trunc,
    "remainder": jnp.remainder, "fmod": jnp.fmod, "maximum": jnp.maximum,
    "minimum": jnp.minimum, "clamp": clamp, "clamp_min": clamp,
    "clamp_max": lambda x, high: clamp(x, None, high), "hardtanh": lambda x, low=-1, high=1:
    clamp(x, low, high), "where": jnp.where, "lerp": lambda x, y, w: x + w * (y - x),
    "addcmul": lambda x, y, z, value=1: x + value * y * z,
    "addcdiv": lambda x, y, z, value=1: x + value * y / z,
    # activations
    "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "log_sigmoid_forward": lambda x:
    [jax.nn.log_sigmoid(x), None], "softplus": softplus, "gelu": gelu, "silu": jax.nn.silu,
    "elu": elu, "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "hardsigmoid": lambda x: clamp(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * clamp(x + 3, 0, 6) / 6,
    "threshold": lambda x, bound, value: jnp.where(x > bound, x, value),
    "_softmax": lambda x, dim, _: jax.nn.softmax(x, dim),
    "_safe_softmax": lambda x, dim, **_: jax.nn.softmax(x, dim),
    "_log_softmax": lambda x, dim, _: jax.nn.log_softmax(x, dim),
    # sums and products
    "sum": reduce_by(jnp.sum), "mean": reduce_by(jnp.mean), "prod": reduce_by(jnp.prod),
    "amax": reduce_by(jnp.max), "amin": reduce_by(jnp.min), "any": reduce_by(jnp.any),
    "all": reduce_by(jnp.all), "argmax": reduce_by(jnp.argmax), "argmin": reduce_by(jnp.argmin),
    "logsumexp": reduce_by(jax.scipy.special.logsumexp), "max": find_extreme(largest=True),
    "min": find_extreme(largest=False), "var": vary,
    "std": lambda *given, **named: jnp.sqrt(vary(*given, **named)),
    "linalg_vector_norm": norm, "norm": norm,
    "cumsum": lambda x, dim, **_: jnp.cumsum(x, dim),
    "cumprod": lambda x, dim, **_: jnp.cumprod(x, dim),
    "mm": jnp.matmul, "bmm": jnp.matmul, "mv": jnp.matmul, "dot": jnp.matmul, "vdot": jnp.vdot,
    "addmm": add_product, "addmv": add_product, "baddbmm": add_product, "linear": linear,
    # losses
    "mse_loss": measure(lambda x, y: (x - y) ** 2), "huber_loss": measure(huber),
    "l1_loss": measure(lambda x, y: jnp.abs(x - y)), "smooth_l1_loss": measure(smooth_l1),
    "binary_cross_entropy": cross_entropy,
    "binary_cross_entropy_with_logits": cross_entropy_of_logits,
    "nll_loss_forward": select_losses, "nll_loss2d_forward": select_losses,
    "native_layer_norm": normalise_layer,
    # indices, and arrangements of the same numbers
    "view": reshape, "_unsafe_view": reshape, "reshape": reshape, "t": lambda x: x.T,
    "transpose": jnp.swapaxes, "permute": jnp.transpose, "select": select, "slice": cut,
    "unsqueeze": jnp.expand_dims, "squeeze": squeeze, "expand": expand, "split": split,
    "unsafe_split": split, "split_with_sizes": split, "unsafe_split_with_sizes": split,
    "unbind": lambda x, dim=0: [select(x, dim, k) for k in range(x.shape[dim])],
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: jnp.diagonal(x, offset, dim1, dim2),
    "index": index_by, "index_select": take, "gather": gather,
    "embedding": lambda w, index, *_: jnp.asarray(w)[index],
    "index_put": put, "_index_put_impl": lambda *given: put(*given[:4]),
    "scatter": scatter_along, "scatter_add": scatter_sums,
    "masked_fill": fill_masked, "tril": jnp.tril, "triu": jnp.triu, "flip": jnp.flip,
    "roll": jnp.roll, "repeat": repeat, "cat": join, "stack": jnp.stack,
    "constant_pad_nd": pad, "detach": same, "alias": same,
    "clone": same, "_to_copy": same, "lift_fresh": same, "contiguous": same, "view_as": same,
    "copy": assign, "fill": assign,
    # comparisons
    "eq": jnp.equal, "ne": jnp.not_equal, "lt": jnp.less, "le": jnp.less_equal,
    "gt": jnp.greater, "ge": jnp.greater_equal, "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or, "logical_not": jnp.logical_not,
    "bitwise_and": jnp.bitwise_and, "bitwise_or": jnp.bitwise_or,
    "__and__": jnp.bitwise_and, "__or__": jnp.bitwise_or, "bitwise_not": jnp.bitwise_not,
    "isnan": jnp.isnan, "isfinite": jnp.isfinite,
}  # fmt: skip
