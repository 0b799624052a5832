"""Verification speed: random cases per second of the judge, and of torch's and JAX's checkers.

All check the gradient of `manual_bptt.rnn` on the same cases, used as documented: the judge
compares with autodiff within its bound, the others with finite differences.
"""

from collections.abc import Callable, Iterator
from itertools import product
from time import perf_counter
from typing import Any

import jax
import numpy as np
from jax.test_util import check_grads

from benchmarks import torch_steps
from benchmarks.contenders import Unavailable
from bptt_verifier.judge.builtin import AUTODIFF, make_derivation
from bptt_verifier.problems.draws import draw
from bptt_verifier.problems.problem import ACTIVATIONS, LOSSES, Problem
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn

Checker = Callable[[Problem], bool]


def agrees(problem: Problem) -> bool:
    """True if the judge finds no disagreement."""
    compared = AUTODIFF.within_bound(problem)(make_derivation(rnn)(problem))
    return all(comparison.verdict is not Verdict.DISAGREES for comparison in compared)


def by_hand(problem: Problem, weights: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The loss and its gradients at these weights, with those of the biases if given."""
    params = rnn.Params(*(np.asarray(weight) for weight in weights))
    value, gradient = rnn.value_and_grad(params, problem.x, problem.y, **problem.simple_options)
    return value, gradient[: len(weights)]


def gradcheck(torch: Any) -> Checker:
    """torch.autograd.gradcheck of the derivation by hand, as an autograd function."""

    def check(problem: Problem) -> bool:
        class ByHand(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(context: Any, *weights: Any) -> Any:
                value, gradient = by_hand(problem, tuple(w.detach().numpy() for w in weights))
                context.gradient = [torch.from_numpy(np.ascontiguousarray(g)) for g in gradient]
                return torch.tensor(value, dtype=torch.float64)

            @staticmethod
            def backward(context: Any, upstream: Any) -> Any:
                return tuple(upstream * slope for slope in context.gradient)

        weights = [torch.tensor(weight, requires_grad=True) for weight in problem.weights.values()]
        return bool(torch.autograd.gradcheck(ByHand.apply, weights, raise_exception=False))

    return check


# JAX leaves these without types.
shaped: Any = jax.ShapeDtypeStruct
require_right: Any = check_grads


def jax_check_grads(problem: Problem) -> bool:
    """jax.test_util.check_grads of the derivation by hand, as a custom derivative."""

    def value_of(*weights: Any) -> Any:
        return jax.pure_callback(
            lambda *w: np.float64(by_hand(problem, w)[0]), shaped((), float), *weights
        )

    def forward(*weights: Any) -> Any:
        shapes = tuple(shaped(w.shape, w.dtype) for w in weights)
        gradient = jax.pure_callback(lambda *w: by_hand(problem, w)[1], shapes, *weights)
        return value_of(*weights), gradient

    def backward(gradient: Any, upstream: Any) -> Any:
        return tuple(upstream * slope for slope in gradient)

    function = jax.custom_vjp(value_of)
    function.defvjp(forward, backward)
    with jax.enable_x64(True):
        weights = tuple(jax.numpy.asarray(weight) for weight in problem.weights.values())
        try:
            require_right(function, weights, order=1, modes=["rev"])
        except AssertionError:
            return False
    return True


def checkers(note: Callable[[str], None]) -> dict[str, Checker]:
    """The installed checkers; a missing one is noted."""
    found: dict[str, Checker] = {"bptt_verifier": agrees, "jax-check-grads": jax_check_grads}
    try:
        found["torch-gradcheck"] = gradcheck(torch_steps.load())
    except Unavailable as reason:
        note(f"torch-gradcheck is left out: {reason}")
    return found


def verification_rounds(
    number: int, *, seed: int, note: Callable[[str], None]
) -> Iterator[dict[str, float]]:
    """Yield the seconds of each checker for one case per round, in random order.

    The judge compiles once for each activation and loss, before the first case, and notes the time.
    The correct cases that a checker rejects are counted and noted.
    """
    chosen = checkers(note)
    begun = perf_counter()
    for activation, loss in product(ACTIVATIONS, LOSSES):
        agrees(draw(seed, number)._replace(option={"activation": activation}, loss=loss))
    note(f"bptt_verifier compiled for {perf_counter() - begun:.1f} s before the first case")
    for check in chosen.values():
        check(draw(seed, number))
    rng = np.random.default_rng(seed)
    rejected = dict.fromkeys(chosen, 0)
    for case in range(number):
        problem, seconds = draw(seed, case), dict.fromkeys(chosen, 0.0)
        for name in rng.permutation(list(chosen)).tolist():
            begun = perf_counter()
            accepted = chosen[name](problem)
            seconds[name] = perf_counter() - begun
            rejected[name] += not accepted
        yield seconds
    for name, count in rejected.items():
        note(f"{name} rejected {count} of {number} correct gradients")
