"""Push-forwards of directions through a stated function, and Hessian-vector products, in float64.

The exact values for kernels in forward mode and of second order. The function is one of JAX, of
plain NumPy or of PyTorch. docs/derivation.md, sections 17 and 18.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program import torch_losses
from bptt_verifier.program.arguments import Arguments, convert_to_numpy, read_outputs
from bptt_verifier.program.torch_points import stack_by_name
from bptt_verifier.program.torch_tensors import find_torch
from bptt_verifier.program.zero_cotangents import divide_by_divisors
from bptt_verifier.reference.lost_numbers import (
    list_unconfirmed_products,
    list_unconfirmed_tangents,
)
from bptt_verifier.reference.point_arrays import Arrays, Pulled, widen
from bptt_verifier.reference.pullbacks import (
    Forward,
    JaxPullback,
    NumpyPullback,
    Pullback,
    TorchPullback,
    TracedPullback,
    prepare_pullback,
)
from bptt_verifier.tolerance.comparison import name_tangents
from bptt_verifier.tolerance.formats import is_floating


class Pushforward(Pullback):
    """What takes directions instead of cotangents; a mixin of the classes for each library."""

    @property
    def outputs(self) -> dict[str, Any]:
        """What is handed in besides the arguments: directions, in their layout and names."""
        return dict(self.arguments.leaves)

    @property
    def computed(self) -> dict[str, Any]:
        """The floating outputs, or their shapes and dtypes, by name."""
        return {n: x for n, x in read_outputs(self.structure).items() if is_floating(x.dtype)}

    @property
    def results(self) -> dict[str, Any]:
        """Arrays of the shapes of all results, by name."""
        return {f"tangent of {name}": value for name, value in self.computed.items()}

    def list_unconfirmed(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], gradients: Arrays
    ) -> list[int]:
        """List the points at which differences of the outputs do not confirm tangents. (V15)"""
        return list_unconfirmed_tangents(
            lambda there: self.compute_outputs(there, cotangents), points, cotangents, gradients
        )


class JaxPushforward(Pushforward, JaxPullback):
    """The push-forward through a function of JAX, by jax.jvp."""

    def care(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Make the function whose derivative squares no divisor: it has no cotangents to keep."""
        return divide_by_divisors(function)

    def differentiate(self, function: Callable[[Any], Any], at: Any, given: Any) -> Any:
        """Compute the outputs at a point and their tangents, all by name."""
        outputs, tangents = jax.jvp(function, (at,), (given,))
        return outputs, {f"tangent of {name}": each for name, each in tangents.items()}


class NumpyPushforward(JaxPushforward, NumpyPullback):
    """The push-forward through a function of plain NumPy, which is traced at one point."""


class Curvature(Pushforward):
    """The Hessian of a scalar function times directions; a mixin."""

    @property
    def results(self) -> dict[str, Any]:
        """Arrays of the shapes of all results, by name."""
        return name_tangents(self.arguments.leaves)

    def list_unconfirmed(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], gradients: Arrays
    ) -> list[int]:
        """List the points at which second differences do not confirm products. (V15)"""
        return list_unconfirmed_products(
            lambda there: self.compute_outputs(there, cotangents), points, cotangents, gradients
        )


class TracedPushforward(JaxPushforward, TracedPullback):
    """The push-forward through a function of PyTorch that JAX traces."""


class JaxCurvature(Curvature, JaxPullback):
    """The Hessian of a loss of JAX times directions, by jax.jvp of jax.grad."""

    def differentiate(self, function: Callable[[Any], Any], at: Any, given: Any) -> Any:
        """Compute the loss at a point and the tangents of its gradients, all by name."""

        def loss(arrays: Any) -> Any:
            (value,) = function(arrays).values()
            return value.reshape(())

        _, products = jax.jvp(jax.grad(loss), (at,), (given,))
        return function(at), name_tangents(products)


class NumpyCurvature(JaxCurvature, NumpyPullback):
    """The Hessian of a loss of plain NumPy times directions; the loss is traced at one point."""


class TracedCurvature(JaxCurvature, TracedPullback):
    """The Hessian of a loss of PyTorch that JAX traces, times directions."""


class TorchPushforward(Pushforward, TorchPullback):
    """The push-forward through a function of PyTorch, by torch.autograd twice.

    The pull-back of cotangents u is linear in u, and its own pull-back is the push-forward.
    """

    @cached_property
    def traced(self) -> JaxPullback:
        """The same function as JAX traces it, whose operations are known."""
        return TracedPushforward(self.forward, self.arguments)

    def pull_back(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Push directions forward at one point after the other."""
        found, computed = [], []
        for point, given in zip(points, cotangents, strict=True):
            tensors, outputs = self.run(point)
            computed.append({n: convert_to_numpy(x) for n, x in outputs.items()})
            found.append(self.move(tensors, outputs, widen(given)))
        return Pulled(stack_by_name(computed), stack_by_name(found))

    def run(self, point: Arrays) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Run the function on tensors at a point; return them and the floating outputs."""
        tensors = torch_losses.make_tensors(widen(point))
        outputs = read_outputs(self.call(tensors))
        return tensors, {n: x for n, x in outputs.items() if n in self.computed}

    def move(
        self, tensors: Mapping[str, Any], outputs: Mapping[str, Any], direction: Arrays
    ) -> dict[str, Array]:
        """Compute the tangents of the outputs along a direction."""
        torch: Any = find_torch()
        at, found = [*tensors.values()], {}
        along = [torch.from_numpy(direction[n]) for n in tensors]
        for name, output in outputs.items():
            u = torch.zeros_like(output, requires_grad=True)
            slopes = grad(output, at, u, create_graph=True) if output.requires_grad else []
            terms = [
                (slope * part).sum()
                for slope, part in zip(slopes, along, strict=False)
                if slope is not None and slope.requires_grad
            ]
            tangent = grad(sum(terms), [u])[0] if terms else None
            zero = np.zeros(tuple(output.shape))
            found[f"tangent of {name}"] = zero if tangent is None else convert_to_numpy(tangent)
        return found


class TorchCurvature(Curvature, TorchPushforward):
    """The Hessian of a loss of PyTorch times directions, by torch.autograd twice."""

    @cached_property
    def traced(self) -> JaxPullback:
        """The same loss as JAX traces it, whose operations are known."""
        return TracedCurvature(self.forward, self.arguments)

    def move(
        self, tensors: Mapping[str, Any], outputs: Mapping[str, Any], direction: Arrays
    ) -> dict[str, Array]:
        """Compute the tangents of the gradients along a direction."""
        torch: Any = find_torch()
        (loss,) = outputs.values()
        slopes = grad(loss.sum(), [*tensors.values()], create_graph=True)
        terms = [
            (slope * torch.from_numpy(direction[name])).sum()
            for name, slope in zip(tensors, slopes, strict=True)
            if slope is not None and slope.requires_grad
        ]
        none = [None] * len(slopes)
        products = grad(sum(terms), [*tensors.values()]) if terms else none
        return name_tangents({
            name: np.zeros(tuple(tensor.shape)) if product is None else convert_to_numpy(product)
            for (name, tensor), product in zip(tensors.items(), products, strict=True)
        })  # fmt: skip


def grad(*given: Any, **options: Any) -> Any:
    """Call torch.autograd.grad, with None for what does not depend."""
    torch: Any = find_torch()
    return torch.autograd.grad(*given, **options, allow_unused=True)


PUSHFORWARDS: dict[type[Pullback], tuple[type[Pushforward], type[Pushforward]]] = {
    JaxPullback: (JaxPushforward, JaxCurvature),
    NumpyPullback: (NumpyPushforward, NumpyCurvature),
    TorchPullback: (TorchPushforward, TorchCurvature),
}


def prepare_pushforward(forward: Forward, arguments: Arguments) -> Pushforward:
    """Find out how a function computes, and prepare its push-forward. Raises ValueError."""
    return PUSHFORWARDS[type(prepare_pullback(forward, arguments))][0](forward, arguments)


def prepare_curvature(loss: Forward, arguments: Arguments) -> Pushforward:
    """Find out how a loss computes, and prepare its Hessian-vector product.

    Raises ValueError, with one sentence, where it returns anything but one number.
    """
    prepared = prepare_pullback(loss, arguments)
    shapes = {name: tuple(value.shape) for name, value in prepared.outputs.items()}
    if [int(np.prod(shape)) for shape in shapes.values()] != [1]:
        raise ValueError(f"loss: expected a function that returns one number, found {shapes}")
    return PUSHFORWARDS[type(prepared)][1](loss, arguments)
