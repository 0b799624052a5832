"""Training steps compiled by XLA: by autodiff, by hand, and their matrix products alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import machine, scans
from benchmarks.collectives import find_exchanges
from benchmarks.contenders import Contender, Setting, Unavailable, fastest, named, timed_once
from bptt_verifier.problems.problem import GATES, Problem
from manual_bptt import jitted
from manual_bptt.jitted import fused, parallel, shares

ValueAndGrad = Callable[[Any, Any, Any], tuple[Any, Any]]

LOOP = 1000  # steps that a compiled loop does in one call


def updated(value_and_grad: ValueAndGrad, params: Any, x: Any, y: Any, rate: Any) -> Any:
    """The loss, and the parameters after one step of gradient descent."""
    loss, gradient = value_and_grad(params, x, y)
    moved = jax.tree.map(lambda weight, slope: weight - rate * slope, params, gradient)
    return loss, moved


def repeated(
    value_and_grad: ValueAndGrad, params: Any, x: Any, y: Any, rate: Any, steps: Any
) -> Any:
    """The last loss, and the parameters after `steps` steps in one loop on the device."""

    def body(_: Any, reached: tuple[Any, Any]) -> tuple[Any, Any]:
        moved: tuple[Any, Any] = updated(value_and_grad, reached[1], x, y, rate)
        return moved

    return jax.lax.fori_loop(0, steps, body, (jnp.zeros((), x.dtype), params))


def compiled(
    name: str,
    value_and_grad: ValueAndGrad,
    problem: Problem,
    setting: Setting,
    *,
    loop: bool = False,
    shardings: tuple[Any, Any, Any] | None = None,
) -> Contender:
    """The contender of a step compiled ahead for this problem, with donated parameters.

    `shardings` are those of what all devices have, of x and of y; without them all is on the
    setting's device.
    """
    everywhere, of_x, of_y = shardings or (setting.device,) * 3
    place = partial(jax.device_put, device=everywhere)
    params, rate = place((problem.params, problem.x.dtype.type(0)))
    x, y = jax.device_put((problem.x, problem.y), (of_x, of_y))
    counts = {steps: place(jnp.int32(steps)) for steps in (1, LOOP)} if loop else {}
    function = partial(repeated if loop else updated, value_and_grad)
    given = (params, x, y, rate, *list(counts.values())[:1])

    def build() -> Any:
        return jax.jit(function, donate_argnums=0).lower(*given).compile()

    program, seconds = timed_once(build)

    wait: Any = jax.block_until_ready

    def step(state: Any, rate: Any, *count: Any) -> Any:
        found = program(state, x, y, rate, *count)
        return found if shardings is None else wait(found)  # as `parallel` does on CPUs

    def times(steps: int) -> Callable[[Any, Any], Any]:
        return lambda state, rate: step(state, rate, counts[steps])

    # The memory of the gradients alone, as for NumPy's workspace; the update needs no more.
    differentiates = program if loop else jax.jit(value_and_grad).lower(params, x, y).compile()
    memory = differentiates.memory_analysis()
    exchanged = None if shardings is None else find_exchanges(str(differentiates.as_text()))
    return Contender(
        name,
        start=lambda: jax.tree.map(jnp.copy, params),
        step=times(LOOP) if loop else step,
        parameters=named,
        wait=jax.block_until_ready,
        rate=lambda value: place(problem.x.dtype.type(value)),
        compile_seconds=None if jax.config.values["jax_compilation_cache_dir"] else seconds,
        temporary_bytes=None if memory is None else int(memory.temp_size_in_bytes),
        exchanged_bytes=None if exchanged is None else sum(each.size for each in exchanged),
        steps=LOOP if loop else 1,
        once=times(1) if loop else None,
    )


def differentiated(
    prediction: Callable[[str, Any], Callable[[Any, Any], Any]], problem: Problem
) -> ValueAndGrad:
    """`jax.value_and_grad` of a forward scan's mean squared error."""
    option = next(iter(problem.option.values()), None)
    function: ValueAndGrad = jax.value_and_grad(
        scans.mean_squared_error(prediction(problem.cell, option))
    )
    return function


def autodiff(name: str, problem: Problem, setting: Setting, *, loop: bool = False) -> Contender:
    """Autodiff of the scan that computes U x_t inside."""
    return compiled(name, differentiated(scans.predicted, problem), problem, setting, loop=loop)


def autodiff_hoisted(
    name: str, problem: Problem, setting: Setting, *, loop: bool = False
) -> Contender:
    """Autodiff of the scan with U x_t computed beforehand: the fair baseline.

    On a GPU its loops have turns as long as those of the step by hand.
    """
    turn = jitted.rnn.TURN if problem.cell == "rnn" else jitted.step.TURN
    hoisted = partial(scans.predicted_hoisted, turn=turn if setting.gpu else 1)
    return compiled(name, differentiated(hoisted, problem), problem, setting, loop=loop)


def manual_jit(
    name: str, problem: Problem, setting: Setting, *, loop: bool = False, **options: Any
) -> Contender:
    """The derivation by hand of `manual_bptt.jitted`; `options` are those of its functions."""
    derivation = {"rnn": jitted.rnn, "lstm": jitted.lstm, "gru": jitted.gru}[problem.cell]
    by_hand = partial(derivation.value_and_grad, **problem.option, loss=problem.loss, **options)
    return compiled(name, by_hand, problem, setting, loop=loop)


def manual_fused(name: str, problem: Problem, setting: Setting) -> Contender:
    """The derivation by hand of `manual_bptt.jitted.fused`, with each sweep as one kernel."""
    try:
        fused.require_supported(problem.params)
    except (TypeError, ValueError) as error:
        raise Unavailable(str(error)) from None
    options: dict[str, Any] = {**problem.option, "loss": problem.loss}
    by_hand = partial(fused.value_and_grad, **options)
    return compiled(name, by_hand, problem, setting)


def shared_out(name: str, problem: Problem, setting: Setting, *, devices: int) -> Contender:
    """The derivation by hand of `manual_bptt.jitted.parallel`, on so many devices."""
    there = jax.devices(setting.device.platform)
    if len(there) < devices:
        raise Unavailable(f"expected {devices} devices, found {len(there)}")
    if problem.x.shape[1] % devices:
        raise Unavailable(f"{devices} devices cannot share a batch of {problem.x.shape[1]} evenly")
    mesh = Mesh(np.array(there[:devices]), ("batch",))
    options: dict[str, Any] = {**problem.option, "loss": problem.loss, "mesh": mesh}
    spec: Any = PartitionSpec
    specs = [spec(), spec(None, "batch"), spec("batch")]
    by_hand = partial(parallel.value_and_grad, **options)
    everywhere, of_x, of_y = (NamedSharding(mesh, spec) for spec in specs)
    return compiled(name, by_hand, problem, setting, shardings=(everywhere, of_x, of_y))


def in_shares(name: str, problem: Problem, setting: Setting) -> Contender:
    """The derivation by hand of `manual_bptt.jitted.shares`, one share for each processor.

    The shares are programs of their own, so that the update is one more.
    """
    if setting.gpu:
        raise Unavailable("shares are for the processors of a CPU")
    B, count = problem.x.shape[1], machine.schedulable()
    if min(B, count) < 2:
        raise Unavailable(f"expected two sequences and two processors, found {B} and {count}")
    place = partial(jax.device_put, device=setting.device)
    params, x, y, rate = place((problem.params, problem.x, problem.y, problem.x.dtype.type(0)))
    options: dict[str, Any] = {**problem.option, "loss": problem.loss, "shares": count}

    @jax.jit
    def move(params: Any, gradient: Any, rate: Any) -> Any:
        return jax.tree.map(lambda weight, slope: weight - rate * slope, params, gradient)

    def step(state: Any, rate: Any) -> Any:
        loss, gradient = shares.value_and_grad(state, x, y, **options)
        return loss, move(state, gradient, rate)

    wait: Any = jax.block_until_ready
    _, seconds = timed_once(lambda: wait(step(params, rate)))
    return Contender(
        name,
        start=lambda: jax.tree.map(jnp.copy, params),
        step=step,
        parameters=named,
        wait=jax.block_until_ready,
        rate=lambda value: place(problem.x.dtype.type(value)),
        compile_seconds=None if jax.config.values["jax_compilation_cache_dir"] else seconds,
    )


def products(problem: Problem, *, in_place: bool) -> Callable[..., Any]:
    """The matrix products of one step, as a function of params, x, h, ∂L/∂ŷ and Δᵀ.

    The arrays have the layout of the compiled RNN. The products are those of
    `numpy_steps.products`, with the row of h_0 in ∂L/∂W. All are returned, so that XLA computes
    them. `in_place` loops index the array of all steps instead of scanning over it.
    """
    (T, B, D), H = problem.x.shape, problem.params.W.shape[1]
    columns = GATES[problem.cell] * H

    def run(params: Any, x: Any, h: Any, dy: Any, delta: Any) -> Any:
        U, W, V, *_ = params
        W_T, x = W.T, x.reshape(T * B, D)
        a = (x @ U.T).reshape(T, B, columns)
        of_h = last_product(h, W_T, range(T - 1), in_place=in_place)
        of_a = last_product(a, W, range(1, T), in_place=in_place)
        dU, dW = delta @ x, delta @ h.reshape(T * B, H)
        return of_h, of_a, dy @ V, h[-1] @ V.T, dy.T @ h[-1], dU, dW

    return run


def last_product(left: Any, right: Any, steps: range, *, in_place: bool) -> Any:
    """Compute left_t right for one step after the other; returns the last."""

    def multiplied(_: Any, at: Any) -> tuple[Any, None]:
        left_t = jax.lax.dynamic_index_in_dim(left, at, keepdims=False) if in_place else at
        return left_t @ right, None

    start = jnp.zeros((left.shape[1], right.shape[1]), left.dtype)
    given = slice(steps.start, steps.stop)
    return jax.lax.scan(
        multiplied, start, jnp.arange(len(left))[given] if in_place else left[given]
    )[0]


def limit_jit(name: str, problem: Problem, setting: Setting) -> Contender:
    """The matrix products alone, in the faster of two programs; it has no gradients."""
    if setting.gpu:
        raise Unavailable("a GPU is compared with one large product and one large copy")
    rng = np.random.default_rng(0)
    (T, B, _), (O, H) = problem.x.shape, problem.params.V.shape
    shapes = (T, B, H), (B, O), (GATES[problem.cell] * H, T * B)
    others = [rng.normal(size=shape).astype(problem.x.dtype) for shape in shapes]
    given = jax.device_put((problem.params, problem.x, *others), setting.device)

    def program(in_place: bool) -> Callable[[], Any]:
        return partial(
            jax.jit(products(problem, in_place=in_place)).lower(*given).compile(), *given
        )

    programs, seconds = timed_once(lambda: [program(in_place) for in_place in (True, False)])
    chosen = fastest(programs, jax.block_until_ready)
    return Contender(
        name,
        start=lambda: None,
        step=lambda state, rate: (chosen(), state),
        parameters=None,
        wait=jax.block_until_ready,
        compile_seconds=seconds,
    )
