"""Training steps by PyTorch: its layers and autograd, cuDNN's kernels on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.contenders import Contender, Setting, Unavailable, timed_once
from bptt_verifier.problems.problem import Problem

LAYERS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def load() -> Any:
    """Import `torch`; raises Unavailable where it is not installed."""
    if find_spec("torch") is None:
        raise Unavailable("torch is not installed: it comes with the extra `bench`")
    return import_module("torch")


def layer(torch: Any, problem: Problem) -> Any:
    """PyTorch's layer with the problem's weights; its second bias is zero, apart from b_n."""
    (_, _, D), params = problem.x.shape, problem.params
    given = {"weight_ih_l0": params.U, "weight_hh_l0": params.W}
    if params.b is not None:
        second = np.zeros_like(params.b)
        if problem.cell == "gru":
            second[-len(params.b_n) :] = params.b_n
        given |= {"bias_ih_l0": params.b, "bias_hh_l0": second}
    dtype = getattr(torch, str(problem.x.dtype))
    made = getattr(torch.nn, LAYERS[problem.cell])(
        D, params.W.shape[1], bias=params.b is not None, dtype=dtype
    )
    made.load_state_dict({name: torch.tensor(value) for name, value in given.items()})
    return made


def parameters(problem: Problem, state: tuple[Any, ...]) -> dict[str, Any]:
    """The parameters by name, as NumPy arrays."""
    cell, *outputs = state
    home = {"U": cell.weight_ih_l0, "W": cell.weight_hh_l0}
    home |= dict(zip("Vc", outputs, strict=False))
    if problem.params.b is not None:
        home["b"] = cell.bias_ih_l0
        if problem.cell == "gru":
            home["b_n"] = cell.bias_hh_l0[-len(problem.params.b_n) :]
    return {name: value.detach().cpu().numpy() for name, value in home.items()}


def torch_step(name: str, problem: Problem, setting: Setting) -> Contender:
    """Forward, backward and update by PyTorch, with one thread or all, whichever is faster.

    Raises Unavailable where PyTorch or its GPU is missing.
    """
    torch = load()
    if setting.gpu and not torch.cuda.is_available():
        raise Unavailable("torch sees no GPU")
    place = torch.device("cuda" if setting.gpu else "cpu")
    x, y = (torch.tensor(value, device=place) for value in (problem.x, problem.y))
    readout = [w for w in (problem.params.V, problem.params.c) if w is not None]

    def start() -> tuple[Any, ...]:
        outputs = (torch.tensor(w, device=place, requires_grad=True) for w in readout)
        return layer(torch, problem).to(place), *outputs

    def step(state: tuple[Any, ...], rate: float) -> tuple[Any, tuple[Any, ...]]:
        cell, *outputs = state
        _, last = cell(x)
        h = (last[0] if problem.cell == "lstm" else last)[0]
        loss = ((torch.nn.functional.linear(h, *outputs) - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for weight in (*cell.parameters(), *outputs):
                weight.add_(weight.grad, alpha=-rate)
                weight.grad = None
        return loss.detach(), state

    def wait(computed: Any) -> Any:
        if setting.gpu:
            torch.cuda.synchronize()
        return computed

    torch.set_num_threads(faster_threads(torch, step, start(), wait))
    return Contender(
        name,
        start,
        step,
        partial(parameters, problem),
        wait,
        temporary_bytes=peak_memory(torch, step, start()) if setting.gpu else None,
    )


def faster_threads(torch: Any, step: Any, state: Any, wait: Any) -> int:
    """The faster number of threads: one, or as many as there are now.

    For a small model, the synchronization of threads costs more than they save.
    """
    most, fastest = int(torch.get_num_threads()), dict[int, float]()
    for threads in {most, 1}:
        torch.set_num_threads(threads)
        wait(step(state, 0.0))
        fastest[threads] = min(timed_once(lambda: wait(step(state, 0.0)))[1] for _ in range(10))
    torch.set_num_threads(most)
    return min(fastest, key=lambda threads: fastest[threads])


def peak_memory(torch: Any, step: Any, state: Any) -> int:
    """The bytes that a step allocates on the GPU at its peak."""
    step(state, 0.0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(state, 0.0)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


@contextmanager
def configured(tf32: bool) -> Iterator[None]:
    """Set PyTorch's switches for TF32 inside the block; restore them and its threads after."""
    if find_spec("torch") is None:
        yield
        return
    torch = load()
    before, threads = switches(), torch.get_num_threads()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(before["torch matmul"])
        torch.backends.cuda.matmul.allow_tf32 = before["torch cuda matmul TF32"]
        torch.backends.cudnn.allow_tf32 = before["torch cudnn TF32"]


def switches() -> dict[str, Any]:
    """The state of PyTorch's switches for TF32; empty where it is not installed."""
    if find_spec("torch") is None:
        return {}
    torch = load()
    return {
        "torch matmul": torch.get_float32_matmul_precision(),
        "torch cuda matmul TF32": torch.backends.cuda.matmul.allow_tf32,
        "torch cudnn TF32": torch.backends.cudnn.allow_tf32,
    }
