"""The parallel step on devices of its own: a program that prints what was found, as JSON.

`python -m tests.support.shared_out` needs JAX_NUM_CPU_DEVICES=2. With the arguments `PORT NUMBER`
it is one of two processes with a device each.
"""

import json
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import Exchange, find_exchanges
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import CELLS, Problem, Sizes
from manual_bptt import jitted
from manual_bptt.jitted import parallel, training

SIZES = Sizes(T=5, B=4, D=2, H=4, O=3)
OPTIONS: dict[str, dict[str, Any]] = {
    "rnn": {},
    "lstm": {"outputs": "every", "ragged": True},
    "gru": {"loss": "half_sse", "truncation": 2},
}


def problem_of(cell: str) -> Problem:
    """A problem of each cell, whose batch two devices share."""
    return with_values(
        np.random.default_rng(3), SIZES, cell=cell, bias=True, initial_state=True, **OPTIONS[cell]
    )


def largest_error(cell: str, mesh: Any) -> float:
    """The largest error of an entry of the loss or a gradient, relative to the largest entry."""
    problem = problem_of(cell)
    given = {"params": problem.params, "x": problem.x, "y": problem.y, **problem.first}
    value, gradient = parallel.value_and_grad(**given, **problem.options, mesh=mesh)
    known, right = CELLS[cell].value_and_grad(**given, **problem.options)
    pairs = [(value, known), *zip(gradient, right, strict=True)]
    return max(
        float(np.abs(np.asarray(found) - known).max() / np.abs(known).max())
        for found, known in pairs
        if known is not None
    )


def is_there_at_once(mesh: Any) -> bool:
    """True if a result is there when the step returns, of a problem that takes some time."""
    problem = with_values(np.random.default_rng(5), SIZES._replace(T=500, B=64, H=32))
    found = parallel.value_and_grad(problem.params, problem.x, problem.y, mesh=mesh)
    return all(each.is_ready() for each in jax.tree.leaves(found))


def exchanged(cell: str, mesh: Any) -> list[Exchange]:
    """What the parallel step of a cell exchanges."""
    problem = problem_of(cell)

    def step(params: Any) -> Any:
        return parallel.value_and_grad(
            params, problem.x, problem.y, **problem.first, **problem.options, mesh=mesh
        )

    with jax.enable_x64(True):
        return find_exchanges(jax.jit(step).lower(problem.params).compile().as_text())


def exchanged_automatically(mesh: Any) -> list[Exchange]:
    """What the plain compiled step exchanges where its batch is shared out."""
    problem = problem_of("rnn").map_arrays(lambda values: values.astype(np.float32))
    x = jax.device_put(problem.x, NamedSharding(mesh, PartitionSpec(None, "batch")))
    y = jax.device_put(problem.y, NamedSharding(mesh, PartitionSpec("batch")))
    program = jitted.rnn.value_and_grad
    return find_exchanges(jax.jit(program).lower(problem.params, x, y).compile().as_text())


def trained(mesh: Any) -> list[dict[str, Any]]:
    """Losses and parameters after 0, 1 and 2 steps, on a batch that is repeated."""
    problem = to_train()
    given: dict[str, Any] = {"x": problem.x, "y": problem.y, **problem.first, "mesh": mesh}
    runs = [
        training.descend(problem.params, **given, learning_rate=0.25, steps=steps)
        for steps in range(3)
    ]
    return [
        {"losses": run.losses.tolist(), "params": jax.tree.map(np.ndarray.tolist, run.params)}
        for run in runs
    ]


def to_train() -> Problem:
    """A problem with one sequence, which two devices cannot share."""
    sizes, rng = SIZES._replace(B=1), np.random.default_rng(4)
    return with_values(rng, sizes, bias=True, initial_state=True)


def main(arguments: list[str]) -> None:
    """Print what was found."""
    if arguments:
        port, number = arguments
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    found: dict[str, Any] = {"devices": mesh.size, "processes": jax.process_count()}
    found["errors"] = {cell: largest_error(cell, mesh) for cell in OPTIONS}
    if not arguments:
        found["is_there_at_once"] = is_there_at_once(mesh)
        found["exchanged"] = {cell: exchanged(cell, mesh) for cell in OPTIONS}
        found["trained"] = trained(mesh)
        found["automatic"] = exchanged_automatically(mesh)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
