"""Files with a forward and a backward function are judged without a name, with their own loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.candidates import choose_pair, list_pairs
from bptt_verifier.judge.files import CODE, choose_kind, read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.source_file import Definitions, find_definitions, read_cells
from bptt_verifier.tolerance.comparison import Verdict

LAYERS = """
import numpy as np


def forward(layers, x):
    caches = []
    for layer in layers:
        h = np.tanh(x @ layer["W"] + layer["b"])
        caches.append((x, h))
        x = h
    return x, caches


def mse(y, target):
    d = y - target
    return np.mean(d * d), 2 * d / d.size


def backward(layers, caches, dout):
    slopes = []
    for layer, (x, h) in zip(layers[::-1], caches[::-1]):
        dz = dout * (1 - h**2)
        slopes.append({"b": dz.sum(0), "W": x.T @ dz})
        dout = dz @ layer["W"].T
    return slopes[::-1]


rng = np.random.default_rng(0)
stack = [{"W": rng.normal(size=(3, 3)), "b": rng.normal(size=3)} for _ in range(2)]
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
for _ in range(3):
    out, caches = forward(stack, x)
    loss, dout = mse(out, y)
    slopes = backward(stack, caches, dout)
"""
CACHE = """
import numpy as np


def affine_forward(x, W, b):
    out = np.tanh(x @ W + b)
    memory = (x, W, b)
    return out, memory


def affine_backward(dout, memory):
    x, W, b = memory
    dz = dout * (1 - np.tanh(x @ W + b) ** 2)
    return dz @ W.T, x.T @ dz, dz.sum(0)


rng = np.random.default_rng(0)
x, w, b = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
out, memory = affine_forward(x, w, b)
affine_backward(rng.normal(size=out.shape), memory)
"""


def read(folder: Path, source: str) -> Any:
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    return read_file(file, None, None, {})


def judge(folder: Path, source: str) -> Verdict:
    found = read(folder, source)
    return verify_own_model(found.gradients, found.loss, found.params, cases=3).verdict


def define(source: str) -> Definitions:
    return find_definitions(Path("f.py"), [read_cells(Path(__file__))[0]._replace(source=source)])


@pytest.mark.parametrize(
    "changed",
    [
        ("", ""),
        ("slopes[::-1]", "slopes"),  # of equal shapes, the last layer first
        ("def mse(y, target):", "def measure_error(x, labels):\n    y, target = x, labels"),
        ("2 * d / d.size", "(2 / d.size) * d"),
        ("dout = mse(out, y)", "slope = mse(out, y)\n    dout = slope"),
    ],
)
def test_the_loss_in_the_middle_returns_its_own_gradient(
    changed: tuple[str, str], tmp_path: Path
) -> None:
    source = LAYERS.replace(*changed) if changed[0] else LAYERS
    source = source.replace("= mse", "= measure_error") if "measure" in source else source
    assert judge(tmp_path, source) is Verdict.AGREES


@pytest.mark.parametrize(
    "changed",
    [
        ("2 * d /", "d /"),
        ("dz.sum(0)", "dz.mean(0)"),
        ("@ layer", "* 0.5 @ layer"),
        ("- h**2", "- h"),
    ],
)
def test_a_mistake_in_a_layer_or_in_the_gradient_of_the_loss_disagrees(
    changed: tuple[str, str], tmp_path: Path
) -> None:
    assert judge(tmp_path, LAYERS.replace(*changed)) is Verdict.DISAGREES


def test_the_gradient_of_the_loss_is_found_by_names_where_the_file_does_not_call(
    tmp_path: Path,
) -> None:
    source = LAYERS[: LAYERS.index("for _ in range(3)")].replace("stack = ", "layers = ")
    source = source.replace("return x, caches", "out = x\n    return out, caches")
    source = source.replace("mse(y, target)", "mse(out, target)").replace("d = y -", "d = out -")
    source = source.replace("x, y = rng", "x, target = rng")
    file = tmp_path / "model.py"
    file.write_text(source, encoding="utf-8")
    found = read_file(file, "forward,mse,backward", None, {})
    assert found.loss is not None
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3)


def test_a_copy_of_the_parameters_is_no_gradient(tmp_path: Path) -> None:
    both = LAYERS.replace("return slopes[::-1]", "return slopes[::-1], layers")
    assert judge(tmp_path, both) is Verdict.AGREES
    updated = "[{k: v - 0.1 for k, v in each.items()} for each in layers]"
    with pytest.raises(ValueError, match="expected the gradients"):
        read(tmp_path, both.replace("], layers", f"], {updated}"))
    named = both.replace("], layers", f"], {updated}").replace(
        "return slopes[::-1]", "return grads"
    )
    named = named.replace("    return grads", "    grads = slopes[::-1]\n    return grads")
    assert judge(tmp_path, named) is Verdict.AGREES


@pytest.mark.parametrize(
    ("kept", "read_as"),
    [
        ("(x, W, b)", "x, W, b = memory"),
        ("dict(x=x, W=W, b=b)", "x, W, b = memory['x'], memory['W'], memory['b']"),
        ("[x, W, b, out, x.shape]", "x, W, b, *_ = memory"),
        ("{'args': (x, W, b)}", "x, W, b = memory['args']"),
    ],
)
def test_a_cache_may_hold_the_arguments_of_its_layer(
    kept: str, read_as: str, tmp_path: Path
) -> None:
    source = CACHE.replace("memory = (x, W, b)", f"memory = {kept}")
    source = source.replace("x, W, b = memory\n", f"{read_as}\n")
    found = read(tmp_path, source)
    assert [*found.params] == ["x", "W", "b"]
    assert verify_own_model(found.gradients, found.loss, found.params, cases=3)


def test_gradients_of_equal_shapes_with_other_numbers_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in a result without a name that has its shape"):
        read(tmp_path, CACHE.replace("x.T @ dz", "x @ dz"))


def test_a_pair_that_another_calls_is_a_part_of_it() -> None:
    pair = "def {0}_forward(x):\n    return {1}\ndef {0}_backward(d):\n    return {2}\n"
    step, whole = pair.format("step", "x", "d"), pair.format("net", "step_forward(x)", "d")
    assert list_pairs(define(step + whole)) == [("net_forward", "net_backward")]
    assert list_pairs(define(step + pair.format("other", "x", "d"))) == [
        ("step_forward", "step_backward"), ("other_forward", "other_backward"),
    ]  # fmt: skip
    three = step + whole + pair.format("other", "x", "d")  # one of two others calls step
    assert list_pairs(define(three)) == [
        ("net_forward", "net_backward"), ("other_forward", "other_backward"),
    ]  # fmt: skip


def test_only_one_pair_that_the_file_calls_is_chosen() -> None:
    pair = "def {0}forward(x):\n    return x, x\ndef {0}backward(d, c):\n    return d\n"
    loss = "def mse(y, t):\n    return loss, y - t\n"
    called = "y, c = forward(1)\nbackward(mse(y, 2)[1], c)\n"
    file = Path("f.py")
    assert choose_kind(file, define(pair.format("") + loss + called), None, None) == (
        CODE, "forward,mse,backward",
    )  # fmt: skip
    assert choose_pair(define(pair.format("") + called), []) == "forward,backward"
    assert choose_pair(define(pair.format("") + loss), []) == ""
    assert choose_pair(define(pair.format("") + pair.format("a_") + called), []) == ""
    assert choose_pair(define(pair.format("") + called), ["f"]) == ""
    both = ["forward", "backward"]
    assert choose_pair(define(pair.format("") + called), both) == "forward,backward"
    uncalled = define(pair.format("") + loss + called.replace("mse(y, 2)[1]", "y"))
    assert choose_pair(uncalled, ["mse"]) == "forward,backward"


def test_the_parameters_of_layers_are_named_by_their_places(tmp_path: Path) -> None:
    found = read(tmp_path, LAYERS)
    names = ["layers[0].W", "layers[0].b", "layers[1].W", "layers[1].b"]
    assert [*flatten(found.params).leaves] == names
    assert np.ndim(found.loss(found.params)) == 0
