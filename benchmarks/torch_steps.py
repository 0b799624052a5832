"""Training steps by PyTorch: its layers and autograd, cuDNN's kernels on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contenders import Contender, Setting, Unavailable, timed_once
from bptt_verifier.problems.problem import Problem

LAYERS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
WARM_UP = 3  # steps before a CUDA graph is captured


class State(NamedTuple):
    """A layer, the weights of the output, and the CUDA graph of a step with its loss and rate."""

    cell: Any
    readout: tuple[Any, ...]
    graph: Any = None
    loss: Any = None
    rate: Any = None


def load() -> Any:
    """Import `torch`; raises Unavailable where it is not installed."""
    if find_spec("torch") is None:
        raise Unavailable("torch is not installed: it comes with the extra `bench`")
    return import_module("torch")


def tensor(torch: Any, value: Any, **options: Any) -> Any:
    """A tensor with the values and the dtype of a NumPy array, bfloat16 included."""
    if not np.issubdtype(value.dtype, np.floating):
        options["dtype"], value = getattr(torch, str(value.dtype)), value.astype(np.float32)
    return torch.tensor(value, **options)


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
    made.load_state_dict({name: tensor(torch, value) for name, value in given.items()})
    return made


def parameters(problem: Problem, state: State) -> dict[str, Any]:
    """The parameters by name, as NumPy arrays; float32 for bfloat16, which NumPy lacks."""
    cell, outputs, *_ = state
    home = {"U": cell.weight_ih_l0, "W": cell.weight_hh_l0}
    home |= dict(zip("Vc", outputs, strict=False))
    if problem.params.b is not None:
        home["b"] = cell.bias_ih_l0
        if problem.cell == "gru":
            home["b_n"] = cell.bias_hh_l0[-len(problem.params.b_n) :]
    brief = not np.issubdtype(problem.x.dtype, np.floating)
    values = {name: value.detach().cpu() for name, value in home.items()}
    return {name: (v.float() if brief else v).numpy() for name, v in values.items()}


def torch_step(name: str, problem: Problem, setting: Setting) -> Contender:
    """Forward, backward and update by PyTorch, with one thread or all, whichever is faster.

    On a GPU the operations are started one by one or as a CUDA graph, whichever is faster.
    Raises Unavailable where PyTorch or its GPU is missing.
    """
    torch = load()
    if setting.gpu and not torch.cuda.is_available():
        raise Unavailable("torch sees no GPU")
    place = torch.device("cuda" if setting.gpu else "cpu")
    x, y = (tensor(torch, value, device=place) for value in (problem.x, problem.y))
    readout = [w for w in (problem.params.V, problem.params.c) if w is not None]

    def start() -> State:
        outputs = (tensor(torch, w, device=place, requires_grad=True) for w in readout)
        return State(layer(torch, problem).to(place), tuple(outputs))

    def step(state: State, rate: Any) -> tuple[Any, State]:
        cell, outputs, *_ = state
        _, last = cell(x)
        h = (last[0] if problem.cell == "lstm" else last)[0]
        loss = ((torch.nn.functional.linear(h, *outputs) - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for weight in (*cell.parameters(), *outputs):
                if setting.gpu:
                    weight.addcmul_(weight.grad, rate, value=-1)
                else:
                    weight.add_(weight.grad, alpha=-rate)
                weight.grad = None
        return loss.detach(), state

    def wait(computed: Any) -> Any:
        if setting.gpu:
            torch.cuda.synchronize()
        return computed

    found = Contender(name, start, step, partial(parameters, problem), wait)
    if not setting.gpu:
        torch.set_num_threads(faster_threads(torch, step, start(), wait))
        return found

    def rate_on_device(value: float) -> Any:
        return torch.tensor(value, device=place, dtype=x.dtype)

    found = found._replace(
        rate=rate_on_device, temporary_bytes=peak_memory(torch, step, start(), rate_on_device(0))
    )
    graphed = found._replace(start=partial(captured, torch, found), step=replayed)
    return min((found, graphed), key=partial(ten_steps, wait))


def captured(torch: Any, contender: Contender) -> State:
    """A state whose step is captured as a CUDA graph; its rate is the one of the last replay."""
    state: State = contender.start()
    rate = contender.rate(0.0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            contender.step(state, rate)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, _ = contender.step(state, rate)
    return state._replace(graph=graph, loss=loss, rate=[rate, None])


def replayed(state: State, rate: Any) -> tuple[Any, State]:
    """One step by the CUDA graph of the state."""
    if state.rate[1] is not rate:
        state.rate[0].copy_(rate)
        state.rate[1] = rate
    state.graph.replay()
    return state.loss, state


def ten_steps(wait: Any, contender: Contender) -> float:
    """The seconds of ten steps that change nothing, in the fastest of three tries."""
    state, rate = contender.start(), contender.rate(0.0)

    def ten() -> None:
        for _ in range(10):
            contender.step(state, rate)
        wait(None)

    ten()
    return min(timed_once(ten)[1] for _ in range(3))


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


def peak_memory(torch: Any, step: Any, state: Any, rate: Any) -> int:
    """The bytes that a step allocates on the GPU at its peak."""
    step(state, rate)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(state, rate)
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
