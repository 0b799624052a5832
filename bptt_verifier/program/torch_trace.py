"""A loss of PyTorch as a function that JAX traces.

Below its autograd, PyTorch hands every operation to a mode. The mode runs it, and computes its
result again in JAX from the traced values of its operands. A memory knows the traced value of each
number in a storage, so views and operations in place are followed as in NumPy. What does not depend
on the parameters stays a constant. An operation without a rule ends the trace only if the loss
depends on its result: code may compute gradients by other operations beside the loss.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.decisions import CURRENT, UntraceableError, note_decisions
from bptt_verifier.program.numpy_arrays import TracedArray
from bptt_verifier.program.numpy_memory import Memory
from bptt_verifier.program.torch_losses import follows_values, make_tensors
from bptt_verifier.program.torch_rules import CONSTANT, RULES
from bptt_verifier.program.torch_tensors import find_torch, is_tensor, to_array

DECISIONS = frozenset("_local_scalar_dense is_nonzero equal".split())


def over_jax(
    loss: Callable[..., Any], point: Mapping[str, Array]
) -> Callable[[Mapping[str, Any]], Any]:
    """Turn a loss `over_arrays` into a scalar function of JAX arrays, traced at this point.

    Raises UntraceableError where the code does what JAX cannot trace.
    """
    traced = trace_tensors(loss, point)

    def scalar(params: Mapping[str, Any]) -> Any:
        value = traced(params)
        if np.size(value) != 1:
            raise UntraceableError(f"the loss is no scalar: its shape is {np.shape(value)}")
        return jnp.reshape(jnp.asarray(value), ())

    return scalar


def trace_tensors(
    function: Callable[..., Any], point: Mapping[str, Array]
) -> Callable[[Mapping[str, Any]], Any]:
    """Turn a function of tensors by name into one of JAX arrays, traced at this point.

    It returns a pytree like the function's. Raises UntraceableError where the code does what JAX
    cannot trace.
    """

    def run_traced(params: Mapping[str, Any]) -> Any:
        tensors, torch = getattr(function, "make_tensors", make_tensors)(point), find_torch()
        noting = note_decisions() if CURRENT.get(None) is None else nullcontext()
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            raise UntraceableError("it computes on another device than the CPU")
        shadows = Shadows(follows_values(function))
        for name, tensor in tensors.items():
            shadows.note(tensor, params[name])
        base = torch.utils._python_dispatch.TorchDispatchMode

        def run(mode: Any, called: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            if called.overloadpacket.__name__ not in RULES:
                with mode:  # in inference mode, nothing above has taken it apart
                    parts = called.decompose(*given, **(named or {}))
                if parts is not NotImplemented:
                    return parts
            return shadows.run(called, given, dict(named or {}))

        mode = type("Tracing", (base,), {"__torch_dispatch__": run})
        with noting, torch.enable_grad(), mode():
            found = function(tensors)
        return jax.tree.map(lambda each: shadows.read(each) if is_tensor(each) else each, found)

    return run_traced


class Shadows:
    """The traced values of tensors: a memory of each storage, and an array of each view of it."""

    def __init__(self, values: bool = False) -> None:
        self.values = values  # a gradient passes through tensors that need none, too
        self.lost: dict[int, UntraceableError] = {}  # why a storage has no traced value
        self.memories: dict[int, Memory] = {}
        self.arrays: dict[Any, TracedArray] = {}
        self.kept: list[Any] = []  # tensors, so that no address is used again

    def find_array(self, tensor: Any, traced: Any = None) -> TracedArray:
        """Find the array of a tensor; `traced` is its value, if it is a new view."""
        view = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
        if view in self.arrays and traced is None:
            return self.arrays[view]
        storage, plain = tensor.untyped_storage(), tensor.detach()
        if storage.data_ptr() not in self.memories:
            size = storage.nbytes() // plain.element_size()
            self.memories[storage.data_ptr()] = Memory(plain.as_strided((size,), (1,), 0).numpy())
        memory, value = self.memories[storage.data_ptr()], plain.numpy()
        if memory.numbers.dtype != value.dtype:
            raise UntraceableError("it views a tensor as another dtype")
        self.arrays[view] = TracedArray(memory, value, traced)
        self.kept.append(plain)
        return self.arrays[view]

    def note(self, tensor: Any, traced: Any) -> None:
        """Note the traced value of a tensor, which has just been made or written."""
        found = self.find_array(tensor)
        value = jnp.asarray(jnp.broadcast_to(traced, found.shape), found.dtype)
        found.write(value)
        found.known = found.memory.version, value

    def read(self, value: Any) -> Any:
        """Read a tensor's traced value, or a copy of a constant; other values as JAX takes them.

        No gradient passes through a tensor that needs none, as in PyTorch.
        """
        if isinstance(value, list | tuple):
            return [*map(self.read, value)]
        if not self.is_traced(value):
            return np.array(to_array(value)) if is_tensor(value) else value
        lost = self.find_lost([value])
        if lost is not None:
            raise lost
        traced = self.find_array(value).traced
        return traced if self.values or value.requires_grad else lax.stop_gradient(traced)

    def is_traced(self, value: Any) -> bool:
        """True if a tensor, or one in a list, depends on the parameters."""
        if isinstance(value, list | tuple):
            return any(map(self.is_traced, value))
        if not is_tensor(value) or value.device.type != "cpu":
            return False
        place = value.untyped_storage().data_ptr()
        if place in self.lost:
            return True
        return place in self.memories and not self.find_array(value).is_constant

    def find_lost(self, given: Any) -> UntraceableError | None:
        """Find out why one of these tensors has no traced value; None if all have one."""
        if isinstance(given, list | tuple):
            return next(filter(None, map(self.find_lost, given)), None)
        known = self.lost and is_tensor(given)
        return self.lost.get(given.untyped_storage().data_ptr()) if known else None

    def lose(self, results: Any, why: UntraceableError) -> None:
        """Note that the results of an operation have no traced values."""
        for each in results if isinstance(results, list | tuple) else [results]:
            if is_tensor(each):
                self.lost[each.untyped_storage().data_ptr()] = why
                self.kept.append(each.detach())

    def run(self, function: Any, given: Any, named: dict[str, Any]) -> Any:
        """Run an operation of PyTorch, and compute its traced result."""
        packet = str(function.overloadpacket.__name__)
        inside = packet.endswith("_") and not packet.endswith("__")
        written = named.get("out", given[0] if inside else None)
        operands = [*given, *named.values()]
        if packet in CONSTANT or not self.is_traced(operands):
            result = function(*given, **named)
            if written is not None and written.untyped_storage().data_ptr() in self.memories:
                self.find_array(written).write(None)
            return result
        lost = self.find_lost(operands)
        if packet in DECISIONS:
            return decide([*map(self.read, given)], function(*given))
        rule = RULES.get(packet.rstrip("_") if inside else packet)
        if lost is None and rule is None:
            lost = UntraceableError(f"the operation {packet} of PyTorch has no rule")
        if lost is None:
            operands = [*map(self.read, given)]
            options = {key: self.read(value) for key, value in named.items() if key != "out"}
            if packet == "index":
                operands[1] = [*map(self.fix_mask, given[1], operands[1])]
        result = function(*given, **named)
        if lost is None:
            try:
                traced = apply(rule, packet, operands, options, result)
            except UntraceableError as error:
                lost = error
        if lost is not None:
            self.lose(result if written is None else written, lost)
        elif written is not None:
            self.note(written, traced)
        else:
            for each, value in pair(result, traced):
                if self.is_view(each, given):
                    self.find_array(each, value)
                else:
                    self.note(each, value)
        return result

    def fix_mask(self, index: Any, traced: Any) -> Any:
        """Note that the path of the loss depends on a mask, which selects so many entries."""
        if not (is_tensor(index) and self.is_traced(index) and traced.dtype == bool):
            return traced
        return decide([traced], np.array(index.numpy()))

    def is_view(self, result: Any, given: Any) -> bool:
        """True if a result is a view of an operand."""
        own = result.untyped_storage().data_ptr()
        return any(is_tensor(x) and x.untyped_storage().data_ptr() == own for x in given)


def decide(operands: Any, outcome: Any) -> Any:
    """Note that the path of the loss depends on a value. Raises UntraceableError for a float."""
    if isinstance(outcome, float | complex):
        raise UntraceableError("it converts a number that depends on the parameters to float")
    value = operands[0] if len(operands) == 1 else jnp.array_equal(*operands)
    return CURRENT.get().note(jnp.asarray(value).astype(np.asarray(outcome).dtype), outcome)


def apply(rule: Any, packet: str, operands: Any, options: dict[str, Any], result: Any) -> Any:
    """Compute the traced results of an operation. Raises UntraceableError where JAX cannot."""
    CURRENT.get().count_operation()
    try:
        found = rule(*operands, **options)
    except (TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UntraceableError(f"JAX does not trace {packet} of PyTorch ({reason})") from error
    for tensor, value in pair(result, found):
        if np.broadcast_shapes(np.shape(value), tuple(tensor.shape)) != tuple(tensor.shape):
            raise UntraceableError("PyTorch and JAX give results of different shapes")
    return found


def pair(result: Any, traced: Any) -> list[tuple[Any, Any]]:
    """Pair the tensors of a result with their traced values, where they have one."""
    several = isinstance(result, list | tuple)
    pairs = zip(result, traced, strict=True) if several else [(result, traced)]
    return [(tensor, value) for tensor, value in pairs if is_tensor(tensor) and value is not None]
