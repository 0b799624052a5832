"""Functions of three arguments that a file calls with other things than U, W, V: its own model."""

from pathlib import Path

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.source_file import Recorder, load
from bptt_verifier.tolerance.comparison import Verdict

DATA = """
import functools
import jax
import jax.numpy as jnp
import numpy as np
rng = np.random.default_rng(0)
theta = {"W": rng.normal(size=(2, 2)), "U": rng.normal(size=(2, 3)), "v": rng.normal(size=2)}
xs, target = rng.normal(size=(4, 3)), 0.3
"""
FUNCTION = """
def f(theta, xs, target, factor=1.0):
    W, U, v = theta["W"], theta["U"], theta["v"]
    hs = [jnp.zeros(2)]
    for x in xs:
        hs.append(jnp.tanh(W @ hs[-1] + U @ x))
    e = v @ hs[-1] - target
    dW, dU, dv, dh = 0 * W, 0 * U, e * hs[-1], e * v
    for t in range(len(xs), 0, -1):
        da = dh * (1 - hs[t] ** 2)
        dW, dU, dh = dW + jnp.outer(da, hs[t - 1]), dU + jnp.outer(da, xs[t - 1]), W.T @ da
    return factor * 0.5 * e**2, {"W": factor * dW, "U": factor * dU, "v": factor * dv}
"""
CALL = "loss, grads = objective(theta, xs, target)\n"


def indent(text: str) -> str:
    """Indent the lines of a function."""
    return text.replace("\n", "\n    ")


METHOD = FUNCTION.replace("f(theta", "f(self, theta")
LISTED = FUNCTION.replace("f(theta, xs, target", "inner(theta, xs, target")
LISTED += "def objective(theta, xs, target):\n    loss, grads = inner(theta[0], xs, target)\n"
LISTED += "    return loss, [grads]\ntheta = [theta]\n"
LAYERS = LISTED.replace("def objective(theta", "def objective(layers").replace(
    "inner(theta[0]", "inner(layers[0]"
)
STYLES = {
    "an inner function": f"def make():{indent(FUNCTION)}return f\nobjective = make()\n",
    "one of several results": f"def make():{indent(FUNCTION)}return 1, f\nn, objective = make()\n",
    "a lambda": FUNCTION + "objective = lambda p, a, b: f(p, a, b)\n",
    "a partial": FUNCTION + "objective = functools.partial(f, factor=2.0)\n",
    "a compiled function": FUNCTION + "objective = jax.jit(f)\n",
    "a function compiled where it is defined": "@jax.jit" + FUNCTION.replace("f(", "objective(", 1),
    "a method": f"class Model:{indent(METHOD)}\nobjective = Model().f\n",
    "parameters in a list": LISTED,
    "layers in a list": LAYERS,
}


@pytest.mark.rest
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("chosen", [False, True])
def test_the_call_in_the_file_tells_the_arguments(style: str, chosen: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(DATA + style + CALL, encoding="utf-8")
    first = "p" if "lambda" in style else "layers" if "(layers" in style else "theta"
    found = read_file(file, "objective", None, {}, [first] if chosen else [])
    assert found.loss is not None, found.said
    assert f"the gradients of {first}" in found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.table(3)
@pytest.mark.parametrize("name", ["a lambda", "a partial", "a compiled function"])
def test_the_call_under_another_name_tells_the_arguments(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(DATA + STYLES[name] + CALL, encoding="utf-8")
    found = read_file(file, "f", None, {})
    assert "the gradients of theta" in found.said
    assert found.loss is not None
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)


@pytest.mark.rest
@pytest.mark.parametrize("name", ["a lambda", "a compiled function", "a method"])
def test_a_mistake_in_a_called_function_is_seen(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    source = (DATA + STYLES[name] + CALL).replace("(1 - hs[t] ** 2)", "(1 - hs[t])")
    file.write_text(source, encoding="utf-8")
    found = read_file(file, "objective", None, {})
    assert found.loss is not None, found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report.verdict is Verdict.DISAGREES, str(report)


def test_a_derivation_that_its_file_calls_stays_one(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "import numpy as np\nU, W, V = np.ones((2, 3)), np.ones((2, 2)), np.ones((1, 2))\n"
        "def objective(params, x, y):\n    U, W, V = params\n    return 0.0, (U, W, V)\n"
        "objective((U, W, V), np.ones((4, 5, 3)), np.ones((5, 1)))\n",
        encoding="utf-8",
    )
    assert "derivation of the RNN" in read_file(file, "objective", None, {}).said


def test_a_later_call_of_a_compiled_function_is_recorded_with_its_values(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    source = (
        "import jax\n@jax.jit\ndef f(x):\n    return 2 * x\nfor n in range(3):\n    f(n + 0.5)\n"
    )
    file.write_text(source, encoding="utf-8")
    recorder = Recorder(frozenset("f"), frozenset("f"), skipped=1)
    load(file, recorder)
    assert float(recorder.calls["f"].arguments["x"]) == 1.5
    assert recorder.ended
