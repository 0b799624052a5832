"""The code in docs/kernels.md runs, and its adapters make what the page says."""

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.adapters import Kernel, from_jax, from_torch
from tests.support.c_gru import COMPILER, compile_c
from tests.support.c_gru import MISTAKES as GRU_MISTAKES
from tests.support.kernel_gallery import GALLERY
from tests.support.modules import ROOT
from tests.support.torch_kernels import MISTAKES as LSTM_MISTAKES

PAGE = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_kernel_on_the_page_agrees() -> None:
    names: dict[str, Any] = {"print": lambda report: None}
    exec(BLOCKS[0], names)
    assert names["report"].verdict is Verdict.AGREES, str(names["report"])


KERNEL = """
void gru_backward(const float *x, const float *dh, float *dx, int T) {
  for (int t = 0; t < T; t++) dx[t] = 2 * x[t] * dh[t];
}
"""


def square(x: Any) -> Any:
    return x * x


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_the_adapters_on_the_page_make_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement is run as it is; the one for PyTorch where that is installed."""
    compile_c(KERNEL, tmp_path, "libgru")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"f": square}
    given, made = (np.linspace(1, 2, 7, dtype=np.float32),), list[str]()
    for each in ast.parse(BLOCKS[1]).body:
        statement = ast.get_source_segment(BLOCKS[1], each)
        assert statement is not None
        if "from_torch(" in statement and find_spec("torch") is None:
            with pytest.raises(ImportError, match="expected PyTorch to be installed"):
                exec(statement, names)
            continue
        exec(statement, names)
        if statement.startswith("backward = "):
            kernel = names.pop("backward")
            assert isinstance(kernel, Kernel)
            assert verify_vjp(kernel, square, given, cases=1), statement
            made.append(statement)
    assert len(made) == 3 - (find_spec("torch") is None)


@pytest.mark.slow
def test_the_call_with_a_stated_gradient_on_the_page_runs() -> None:
    names: dict[str, Any] = {"print": lambda report: None}
    exec(BLOCKS[0], names)
    right, forward = names["backward"], names["forward"]

    def keep_last(arguments: Any, cotangents: Any) -> Any:
        dx, dW = right(arguments, cotangents)
        dx[:-1] = 0
        return dx, dW

    def keep_last_in_float64(arguments: Any, cotangents: Any) -> Any:
        dx, dW = jax.vjp(forward_in_jax, *map(jnp.asarray, arguments))[1](cotangents)
        return dx.at[:-1].set(0), dW

    def forward_in_jax(x: Any, W: Any) -> Any:
        h, states = jnp.zeros(len(W)), []
        for each in x:
            h = jnp.tanh(each + W @ h)
            states.append(h)
        return {"states": jnp.stack(states), "last": h}

    names |= {"truncated": keep_last, "truncated_in_float64": keep_last_in_float64}
    exec(BLOCKS[2], names)
    assert names["report"].verdict is Verdict.AGREES, str(names["report"])
    assert "Compared with the true gradient" in " ".join(names["report"].notes)
    assert not verify_vjp(right, forward, names["arguments"], reference=keep_last_in_float64)


def test_every_block_of_code_on_the_page_is_run_here() -> None:
    assert len(BLOCKS) == 3
    assert len(re.findall("^```", PAGE, re.MULTILINE)) == 2 * len(BLOCKS)


@pytest.mark.parametrize("options", ["", ", jit=True", ", vmap=True", ", scan=True"])
def test_the_options_of_jax_on_the_page_judge_right_and_wrong(options: str) -> None:
    call = f"from_jax(f{options})"
    assert not options or f"{options[2:]}" in PAGE
    names: dict[str, Any] = {"f": square, "from_jax": from_jax}
    given = (np.linspace(1, 2, 7, dtype=np.float32),)
    assert verify_vjp(eval(call, names), square, given, cases=1)

    @jax.custom_vjp
    def wrong(x: Any) -> Any:
        return x * x

    wrong.defvjp(lambda x: (x * x, x), lambda x, d: (3 * x * d,))
    names["f"] = wrong
    report = verify_vjp(eval(call, names), square, given, cases=1)
    assert [each.name for each in report.mistakes] == ["constant-factor"]


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_functions_and_modules_of_torch_on_the_page_judge_right_and_wrong() -> None:
    torch: Any = import_module("torch")
    layer = torch.nn.Linear(4, 3)
    x = torch.tensor(np.random.default_rng(0).normal(size=(5, 4)), dtype=torch.float32)
    params = {name: each.detach() for name, each in layer.named_parameters()}
    assert verify_vjp(from_torch(layer), layer, (params, x), cases=1)
    assert verify_vjp(from_torch(layer), layer, (x,), cases=1)
    assert verify_vjp(from_torch(torch.tanh), torch.tanh, (x,), cases=1)

    class Wrong(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = layer.weight, layer.bias

        def forward(self, x: Any) -> Any:
            return x.detach() @ self.weight.T + self.bias

    report = verify_vjp(from_torch(Wrong()), layer, (params, x), cases=1)
    assert "zero-gradient" in {each.name for each in report.mistakes}


def test_every_finding_on_the_page_is_one_of_the_code_and_the_other_way_round() -> None:
    folder = ROOT / "bptt_verifier" / "judge"
    files = [*folder.glob("kernel_*.py")]
    code = " ".join(file.read_text(encoding="utf-8") for file in files)
    listed = set(re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE))
    names = {name for row in listed for name in re.findall(r"`([a-z-]+)`", row)}
    names = {name for name in names if "-" in name}
    assert {name for name in names if f'"{name}"' not in code} == set()
    made = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', code))
    assert made - names - {"wrong-shape", "not-finite"} == set()


def test_the_gallery_lists_every_kernel_and_mistake_of_the_tests() -> None:
    listed = [mistake for each in GALLERY.values() for mistake in each.mistakes]
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for known in (*GALLERY, *listed, *LSTM_MISTAKES, *GRU_MISTAKES):
        assert sum(f"| {known} |" in row for row in rows) == 1, known
