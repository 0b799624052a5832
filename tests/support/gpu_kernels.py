"""Kernels of a GPU, right and wrong: `python -m tests.support.gpu_kernels` judges all of them.

It prints the table of docs/kernels.md, a row for each kernel and precision.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_verifier import verify_vjp
from bptt_verifier.adapters import from_jax, from_torch
from bptt_verifier.adapters.kernel import Kernel
from bptt_verifier.report.report import Report

FORMATS: dict[str, Any] = {
    "float32": np.float32,
    "TF32": np.float32,
    "bfloat16": jnp.bfloat16,
    "float16": np.float16,
}
STEPS, STOP = 32, 5  # of the recurrence in Pallas, and where a wrong one stops carrying


class OnGpu(NamedTuple):
    """A kernel in one precision: what is stated, arguments, and the mistake's name, if any."""

    kernel: str
    precision: str
    backward: Callable[[Any, Any], Any]
    forward: Callable[..., Any]
    arguments: tuple[Any, ...]
    mistake: str = ""


def lstm(x: Any, U: Any, W: Any, b: Any, c: Any) -> Any:
    """The states (T, B, H) of PyTorch's LSTM with its packing: gates i, f, g, o and two biases."""

    def step(state: Any, each: Any) -> Any:
        h, cell = state
        i, f, g, o = jnp.split(each @ U.T + h @ W.T + b + c, 4, axis=1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (h, cell), h

    zero = jnp.zeros((x.shape[1], W.shape[1]), x.dtype)
    return lax.scan(step, (zero, zero), x)[1]


def recur(a: Any, x: Any) -> Any:
    """The states of h_t = a_t h_{t−1} + x_t."""

    def step(h: Any, each: Any) -> Any:
        h = each[0] * h + each[1]
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (a, x))[1]


def cudnn_lstm(x: Any, U: Any, W: Any, b: Any, c: Any) -> Any:
    """The same states by cuDNN."""
    torch: Any = import_module("torch")
    zero = x.new_zeros(1, x.shape[1], W.shape[1])
    return torch._VF.lstm(x, (zero, zero), (U, W, b, c), True, 1, 0.0, True, False, False)[0]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow cuDNN and cuBLAS products in TF32, or forbid them."""
    torch: Any = import_module("torch")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def make_pallas_recurrence(stops: bool = False) -> Any:
    """Make the recurrence in Pallas with a VJP of its own, which may stop carrying at a step."""
    pl: Any = import_module("jax.experimental.pallas")

    def run_forward(a: Any, x: Any, h: Any) -> None:
        def step(t: Any, state: Any) -> Any:
            state = a[t].astype(jnp.float32) * state + x[t].astype(jnp.float32)
            h[t] = state.astype(h.dtype)
            return state

        lax.fori_loop(0, x.shape[0], step, jnp.zeros(x.shape[1:], jnp.float32))

    def run_backward(a: Any, h: Any, d: Any, da: Any, dx: Any) -> None:
        def step(s: Any, carried: Any) -> Any:
            t = a.shape[0] - 1 - s
            delta = d[t].astype(jnp.float32) + carried
            before = jnp.where(t > 0, h[jnp.maximum(t - 1, 0)], 0.0)
            dx[t] = delta.astype(dx.dtype)
            da[t] = (delta * before).astype(da.dtype)
            carried = a[t].astype(jnp.float32) * delta
            return jnp.where(t == STOP - 1, 0.0, carried) if stops else carried

        lax.fori_loop(0, a.shape[0], step, jnp.zeros(a.shape[1:], jnp.float32))

    def like(x: Any, dtype: Any = None) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype if dtype is None else dtype)

    @jax.custom_vjp
    def states(a: Any, x: Any) -> Any:
        return pl.pallas_call(run_forward, like(x))(a, x)

    def pull_back(kept: Any, d: Any) -> Any:
        a, x = kept
        h = pl.pallas_call(run_forward, like(x, jnp.float32))(a, x)
        return tuple(pl.pallas_call(run_backward, (like(a), like(x)))(a, h, d))

    states.defvjp(lambda a, x: (states(a, x), (a, x)), pull_back)
    return states


def draw(precision: str, *shapes: tuple[int, ...], size: float = 0.3) -> tuple[Any, ...]:
    """Draw arguments of these shapes in the dtype of a precision."""
    rng = np.random.default_rng(0)
    return tuple((size * rng.normal(size=each)).astype(FORMATS[precision]) for each in shapes)


def scale_first(kernel: Kernel) -> Kernel:
    """Make a kernel whose first gradient is 1.01 times what it is."""

    def backward(arguments: Any, cotangents: Any) -> Any:
        first, *others = kernel.backward(arguments, cotangents)
        return np.asarray(1.01 * np.asarray(first, np.float64)).astype(first.dtype), *others

    return kernel._replace(backward=backward)


def list_kernels() -> Iterator[OnGpu]:
    """List the kernels, each right and with mistakes; the right one first."""
    T, B, D, H = 20, 8, 32, 64
    shapes = (T, B, D), (4 * H, D), (4 * H, H), (4 * H,), (4 * H,)
    for precision in FORMATS:
        name, given = "cuDNN's LSTM", draw(precision, *shapes)
        right = from_torch(cudnn_lstm, device="cuda")
        yield OnGpu(name, precision, right, lstm, given)
        yield OnGpu(name, precision, scale_first(right), lstm, given, "constant-factor")
    if import_module("importlib.util").find_spec("triton"):
        triton: Any = import_module("tests.support.triton_kernels")
        for precision in ("float32", "bfloat16", "float16"):
            name, given = "linear recurrence in Triton", draw(precision, (50, 100), (50, 100))
            for whole, mistake in ((False, ""), (True, "wrong-last-tile")):
                kernel = from_torch(triton.make_recurrence(whole), device="cuda")
                yield OnGpu(name, precision, kernel, recur, given, mistake)
            scaled = scale_first(from_torch(triton.make_recurrence(), device="cuda"))
            yield OnGpu(name, precision, scaled, recur, given, "constant-factor")
    for precision in ("float32", "bfloat16"):
        name, given = "linear recurrence in Pallas", draw(precision, (STEPS, 128), (STEPS, 128))
        for stops, mistake in ((False, ""), (True, "wrong-range")):
            kernel = from_jax(make_pallas_recurrence(stops), jit=True)
            yield OnGpu(name, precision, kernel, recur, given, mistake)


def judge(each: OnGpu) -> Report:
    """Judge a kernel in its precision."""
    with tf32(each.precision == "TF32"):
        return verify_vjp(each.backward, each.forward, each.arguments)


def main() -> None:
    """Print the table, a row for each kernel as soon as it is judged."""
    print("| kernel | precision | mistake | verdict | named | errors ÷ one rounding | seconds |")
    print("| --- | --- | --- | --- | --- | ---: | ---: |")
    for each in list_kernels():
        begun = time.perf_counter()
        try:
            report = judge(each)
        except Exception as error:  # the next kernel is judged all the same
            print(f"| {each.kernel} | {each.precision} | {each.mistake} | {error!r:.300} |")
            continue
        seconds = time.perf_counter() - begun
        named = ", ".join(mistake.name for mistake in report.mistakes)
        ratios = re.findall(r"The errors of the gradients are (\S+) times", " ".join(report.notes))
        print(
            f"| {each.kernel} | {each.precision} | {each.mistake} | {report.verdict} | {named} | "
            f"{' '.join(ratios)} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
