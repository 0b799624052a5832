"""On several devices the step gives the gradients of the whole batch, by one all-reduce."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.problems.cached import collect_content
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import CELLS, GATES
from bptt_verifier.reference.autodiff import derive_bound, reference
from manual_bptt import training
from manual_bptt.jitted import parallel, rnn, shares
from manual_bptt.jitted import training as on_a_mesh
from tests.support.compiled import plain_problem
from tests.support.modules import ROOT
from tests.support.shared_out import OPTIONS, SIZES, problem_of, to_train

# A sum of 20 products in another order, each factor of some hundred operations on numbers that are
# at most a few times as large as the result.
ROUNDING = 2.0**-42


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.shared_out", *arguments],
        env={**os.environ, **environment}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def on_two_devices() -> dict[str, Any]:
    return ended(started(JAX_NUM_CPU_DEVICES="2"))


@pytest.mark.parametrize("cell", CELLS)
def test_two_devices_give_the_gradients_of_the_whole_batch(
    cell: str, on_two_devices: dict[str, Any]
) -> None:
    assert on_two_devices["devices"] == 2
    assert on_two_devices["errors"][cell] <= ROUNDING


def test_on_cpus_a_step_waits_for_its_result(on_two_devices: dict[str, Any]) -> None:
    # Programs that wait for each other's devices would otherwise hold all threads, for ever.
    assert on_two_devices["is_there_at_once"]


@pytest.mark.parametrize("cell", CELLS)
def test_one_all_reduce_carries_the_loss_and_all_gradients_and_nothing_else_is_sent(
    cell: str, on_two_devices: dict[str, Any]
) -> None:
    G, (_, _, D, H, O) = GATES[cell], SIZES
    biases = G * H + O + (H if cell == "gru" else 0)
    count = 1 if OPTIONS[cell].get("ragged") else 0  # of the rows that count
    numbers = G * H * (D + H) + O * H + biases + 1 + count
    (exchanged,) = on_two_devices["exchanged"][cell]
    name, sent, size = exchanged
    assert size == 8 * sent
    assert name == "all-reduce"
    assert numbers <= sent <= numbers + 1


def test_training_on_two_devices_has_the_losses_of_one_within_the_derived_bound(
    on_two_devices: dict[str, Any],
) -> None:
    problem = to_train()
    *_, last = runs = on_two_devices["trained"]
    assert last["losses"][2] < last["losses"][0]
    for steps, run in enumerate(runs):
        assert run["losses"] == last["losses"][: steps + 1]
        params = type(problem.params)(*map(np.array, run["params"]))
        here = problem._replace(params=params)
        twice = here._replace(
            x=np.concatenate([here.x] * 2, axis=1), y=np.concatenate([here.y] * 2),
            first={"h0": np.concatenate([here.first["h0"]] * 2)},
        )  # fmt: skip
        allowed = 2 * derive_bound(twice, reference(twice)).loss
        known, _ = CELLS["rnn"].value_and_grad(params, here.x, here.y, **here.first)
        assert abs(run["losses"][steps] - known) <= allowed < 1e-9 * known


def test_the_step_that_jax_shares_out_by_itself_is_seen_to_send_more(
    on_two_devices: dict[str, Any],
) -> None:
    assert len(on_two_devices["automatic"]) > 1


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_the_whole_batch() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [started(port, str(n), JAX_NUM_CPU_DEVICES="1") for n in range(2)]
    for found in [ended(process) for process in processes]:
        assert (found["devices"], found["processes"]) == (2, 2)
        assert max(found["errors"].values()) <= ROUNDING


@pytest.fixture
def one_device() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))


def test_on_one_device_it_is_the_compiled_step(one_device: jax.sharding.Mesh) -> None:
    _, params, x, y, *_ = problem = plain_problem()
    found, gradient = parallel.value_and_grad(params, x, y, mesh=one_device)
    alone = rnn.value_and_grad(params, x, y)  # the same sums in the same order
    assert collect_content((found, gradient)) == collect_content(alone)
    known, right = CELLS["rnn"].value_and_grad(params, x, y)
    assert found == pytest.approx(known, rel=2.0**-18)
    assert type(gradient)._fields == type(problem.params)._fields
    assert np.abs(gradient.W - right.W).max() <= 2.0**-18 * np.abs(right.W).max()


@pytest.mark.parametrize(
    ("cell", "change", "message"),
    [
        ("rnn", {"mesh": 2}, "mesh: expected a jax.sharding.Mesh, found int"),
        ("rnn", {"c0": np.ones((4, 4))}, "c0: expected None, found ndarray"),
        ("lstm", {"activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
        ("gru", {"checkpoint_every": 2}, "checkpoint_every: expected None, found 2"),
        ("gru", {"reset": "never"}, "reset: expected one of after, before, found 'never'"),
        ("rnn", {"lengths": np.array([1, 2, 3, 9])}, "lengths: expected values from 1 to T = 5, found 9 at (3,)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(
    cell: str, change: dict[str, Any], message: str, one_device: jax.sharding.Mesh
) -> None:
    problem = problem_of(cell)
    given = {"params": problem.params, "x": problem.x, "y": problem.y, "mesh": one_device}
    with pytest.raises((TypeError, ValueError)) as caught:
        parallel.value_and_grad(**(given | {"outputs": problem.outputs} | change))
    assert str(caught.value) == message


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1] * 3), ("batch",))
    problem = problem_of("rnn")
    with pytest.raises(ValueError, match=r"^x: expected a batch that 3 devices share evenly"):
        parallel.value_and_grad(problem.params, problem.x, problem.y, mesh=mesh)


@pytest.mark.rest
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("number", [2, 3])
def test_shares_of_the_batch_give_the_gradients_of_all_of_it(cell: str, number: int) -> None:
    problem = problem_of(cell)  # of four sequences, which three shares divide unevenly
    given = {"params": problem.params, "x": problem.x, "y": problem.y, **problem.first}
    found = shares.value_and_grad(**given, **problem.options, shares=number)
    known = CELLS[cell].value_and_grad(**given, **problem.options)
    for each, right in zip((found[0], *found[1]), (known[0], *known[1]), strict=True):
        assert (each is None) == (right is None)
        if right is not None:
            assert np.abs(np.asarray(each) - right).max() <= ROUNDING * np.abs(right).max()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "values",
    [{"ragged": True, "outputs": "every"}, {"ragged": True, "truncation": 2}],
    ids="-".join,
)
def test_shares_take_lengths_outputs_and_truncation(cell: str, values: dict[str, Any]) -> None:
    problem = with_values(
        np.random.default_rng(3), SIZES, cell=cell, bias=True, initial_state=True, **values
    )
    given = {"params": problem.params, "x": problem.x, "y": problem.y, **problem.first}
    found = shares.value_and_grad(**given, **problem.options)
    known = CELLS[cell].value_and_grad(**given, **problem.options)
    for each, right in zip((found[0], *found[1]), (known[0], *known[1]), strict=True):
        if right is not None:
            assert np.abs(np.asarray(each) - right).max() <= ROUNDING * np.abs(right).max()


def test_one_share_is_the_compiled_step_and_there_are_no_more_shares_than_sequences() -> None:
    _, params, x, y, *_ = plain_problem()
    alone = rnn.value_and_grad(params, x[:, :1], y[:1])
    for number in (1, 5):
        found = shares.value_and_grad(params, x[:, :1], y[:1], shares=number)
        assert collect_content(found) == collect_content(alone)
    with pytest.raises(ValueError, match=r"^shares: expected at least 1, found 0"):
        shares.value_and_grad(params, x, y, shares=0)


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", CELLS)
def test_training_on_one_device_makes_the_steps_of_numpy(
    cell: str, one_device: jax.sharding.Mesh
) -> None:
    problem = problem_of("rnn")._replace(params=problem_of(cell).params)
    states = problem_of(cell).first
    given: dict[str, Any] = {"x": problem.x, "y": problem.y, **states, "model": cell}
    options: dict[str, Any] = {"learning_rate": 0.25, "steps": 2}
    known = training.descend(problem.params, **given, **options)
    found = on_a_mesh.descend(problem.params, **given, **options, mesh=one_device)
    assert found.losses == pytest.approx(known.losses, rel=2.0**-40)
    assert type(found.params) is type(known.params)
    assert pytest.approx(known.params.W, rel=2.0**-30) == found.params.W
    assert found.losses.dtype == found.params.W.dtype == np.float64


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros(3)},
        {"x": np.zeros((5, 0, 2))},
        {"x": None},
        {"y": np.zeros(4)},
        {"h0": np.zeros(4)},
        {"h0": np.zeros((1, 1))},
        {"c0": np.zeros((4, 3))},
        {"params": [[1.0]]},
        {"params": None},
        {"model": "lstm"},
        {"model": "cnn"},
        {"activation": "sin"},
        {"learning_rate": -1.0},
        {"steps": -1},
        {"target": "none"},
    ],
    ids=str,
)
def test_training_on_a_mesh_refuses_what_training_in_numpy_refuses_in_the_same_words(
    change: dict[str, Any], one_device: jax.sharding.Mesh
) -> None:
    problem = problem_of("rnn")
    given: dict[str, Any] = {"params": problem.params, "x": problem.x, "y": problem.y}
    given |= {"learning_rate": 0.25, "steps": 1} | change
    sentences = []
    for descend, mesh in ((training.descend, {}), (on_a_mesh.descend, {"mesh": one_device})):
        with pytest.raises((TypeError, ValueError)) as caught:
            descend(**given, **mesh)  # type: ignore[operator]
        sentences.append((caught.type, str(caught.value)))
    assert sentences[0] == sentences[1]


def test_training_needs_a_mesh() -> None:
    problem = problem_of("rnn")
    with pytest.raises(TypeError, match=r"^mesh: expected a jax\.sharding\.Mesh, found NoneType$"):
        on_a_mesh.descend(
            problem.params, problem.x, problem.y, learning_rate=0.25, steps=1, mesh=None
        )  # type: ignore[arg-type]
