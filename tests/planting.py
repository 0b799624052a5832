"""Mistakes planted in a copy of the hand derivations, one line each.

A mistake is a text that occurs exactly once in a file of `manual_bptt`, and what stands there instead.
"""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import manual_bptt


class Mistake(NamedTuple):
    """`written` in place of `right` in `file`; `suspect` is the module whose results go wrong."""

    name: str
    file: str
    right: str
    written: str
    suspect: str = "rnn"


B2 = "dh * phi.derivative(a[t - 1], h[t])"
B3 = "adjoints[t - 1] @ W"
B4 = 'np.einsum("tbh,tbd->hd", adjoints, x, optimize=True)'
B5 = 'np.einsum("tbh,tbk->hk", adjoints, h[:-1], optimize=True)'
L2 = "2 * residual(prediction, y) / y.size"
DY = "dy = inputs.output_gradient(output_gradient, weights[2], x, trace.outputs)"

# What people really write, commonest first, and what hides best.
MISTAKES = [
    Mistake("clipped", "rnn.py", B5, B5 + ".clip(-1, 1)"),
    Mistake("clipped inside the sweep", "rnn.py", B3, "(adjoints[t - 1] @ W).clip(-1, 1)"),
    Mistake("recurrent path dropped", "rnn.py", B3, "np.zeros_like(dh)"),
    Mistake("factor 2 forgotten in the loss", "losses.py", L2, "residual(prediction, y) / y.size"),
    Mistake("mean over the batch only", "losses.py", L2, "2 * residual(prediction, y) / len(y)"),
    Mistake("sum where the mean belongs", "losses.py", L2, "2 * residual(prediction, y)"),
    Mistake("factor 1/T in one gradient", "rnn.py", B5, B5 + " / len(x)"),
    Mistake("½ forgotten in the loss", "losses.py", "        residual,  ", "        lambda prediction, y: 2 * (prediction - y),  "),
    Mistake("output gradient at every step", "rnn.py", B3, B3 + " + entering"),
    Mistake("output gradient at the wrong step", "rnn.py", B3, "adjoints[t - 1] @ W if t < len(x) else dh"),
    Mistake("derivative at the activated value", "rnn.py", B2, "dh * phi.derivative(h[t], phi.function(h[t]))"),
    Mistake("state off by one in ∂L/∂W", "rnn.py", B5, B5.replace("h[:-1]", "h[1:]")),
    Mistake("index −1 wraps around to the last state", "rnn.py", B5, B5.replace("h[:-1]", "h[np.r_[-1, 1 : len(x)]]")),
    Mistake("input off by one", "rnn.py", B4, B4.replace(", x,", ", np.roll(x, 1, axis=0),")),
    Mistake("truncated to the last 5 steps", "rnn.py", B3, B3 + " * (t > len(x) - 4)"),
    Mistake("activation's derivative missing", "rnn.py", B2, "dh"),
    Mistake("activation's derivative missing at the last step", "rnn.py", B2, f"{B2} if t < len(x) else dh"),
    Mistake("tanh′ without the square", "activations.py", "1 - h * h", "1 - h"),
    Mistake("sigmoid′ without h", "activations.py", "h * (1 - h)", "1 - h"),
    Mistake("relu′ is one everywhere", "activations.py", "(a > 0).astype", "(a == a).astype"),
    Mistake("W where Wᵀ belongs", "rnn.py", B3, B3 + ".T"),
    Mistake("V where Vᵀ belongs, if square", "rnn.py", "dy @ params.V", "dy @ (params.V.T if len(params.V) == len(params.W) else params.V)"),
    Mistake("∂L/∂W transposed", "rnn.py", B5, B5.replace("->hk", "->kh")),
    Mistake("weights updated inside backward", "rnn.py", "h0=dh,", "h0=dh + 0 * np.subtract(W, 0.01, out=W)[0, 0],"),
    Mistake("the trace is overwritten", "rnn.py", "adjoints = np.empty_like(a)", "adjoints = a"),
    Mistake("the output gradient is overwritten", "rnn.py", DY, DY + "\n    dy -= 0.5 * dy"),
    Mistake("only the last step kept in ∂L/∂U", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[-1:], x[-1:],")),
    Mistake("only the first step kept in ∂L/∂W", "rnn.py", B5, B5.replace("adjoints, h[:-1]", "adjoints[:1], h[:1]")),
    Mistake("pre-activation where the state belongs", "rnn.py", B5, B5.replace("h[:-1]", "np.concatenate([h[:1], a[:-1]])")),
    Mistake("first state where the last belongs", "rnn.py", "else trace.h[-1]", "else trace.h[-2]"),
    Mistake("last step missing in ∂L/∂b", "rnn.py", "adjoints.sum(axis=(0, 1))", "adjoints[:-1].sum(axis=(0, 1))"),
    Mistake("∂L/∂c of the first sequence only", "rnn.py", "rows.sum(axis=0)", "rows[0]"),
    Mistake("a path counted twice", "rnn.py", B3, "dh + adjoints[t - 1] @ W"),
    Mistake("Hadamard product before the matrix product", "rnn.py", B3, "(adjoints[t - 1] * phi.derivative(a[t - 2], h[t - 1])) @ W / np.where(q := phi.derivative(a[t - 2], h[t - 1]), q, 1)"),
    Mistake("first step skipped in ∂L/∂U", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[1:], x[1:],")),
    Mistake("δ_1 is zero", "rnn.py", "return Gradients(", "adjoints[0] = 0\n    return Gradients("),
    Mistake("∂L/∂h0 is zero", "rnn.py", "h0=dh,", "h0=0 * dh,"),
    Mistake("∂L/∂h0 is ∂L/∂h_1", "rnn.py", "h0=dh,", "h0=adjoints[0],"),
    Mistake("∂L/∂x with the wrong sign", "rnn.py", "x=adjoints @ U,", "x=-adjoints @ U,"),
    Mistake("one entry off by 0.05 %", "rnn.py", "return Gradients(", "adjoints[-1, -1, -1] *= 1.0005\n    return Gradients("),
    Mistake("∂L/∂h0 through half precision", "rnn.py", "h0=dh,", "h0=dh.astype(np.float16).astype(dh.dtype),"),
    Mistake("the forward pass forgets the bias", "rnn.py", "a = a + b", "a = a + 0 * b"),
    Mistake("the forward pass starts at zero", "rnn.py", "h[0] = h0", "h[0] = 0"),
    Mistake("indirect path dropped", "rtrl.py", 'one, h) + np.einsum("ji,bipq->bjpq", W, dh.W)', "one, h)", "rtrl"),
    Mistake("direct path dropped", "rtrl.py", 'np.einsum("jp,bq->bjpq", one, h) +', "0 +", "rtrl"),
    Mistake("W transposed on the way forward", "rtrl.py", '"ji,bipq->bjpq", W, dh.U', '"ij,bipq->bjpq", W, dh.U', "rtrl"),
    Mistake("slope missing", "rtrl.py", 'np.einsum("bj,bj...->bj...", slope, d)', "d", "rtrl"),
    Mistake("direct path of the bias dropped", "rtrl.py", "b=one + np", "b=0 * one + np", "rtrl"),
    Mistake("state after the step in the direct path", "jacobian_sum.py", "slope, one, h[k - 1])", "slope, one, h[k])", "jacobian_sum"),
    Mistake("Jacobian transposed", "jacobian_sum.py", '"bi,ij->bij", slope, W', '"bi,ji->bij", slope, W', "jacobian_sum"),
    Mistake("Jacobians multiplied in the wrong order", "jacobian_sum.py", "dhT_dhk, dhk_dprevious", "dhk_dprevious, dhT_dhk", "jacobian_sum"),
    Mistake("Jacobian without the slope", "jacobian_sum.py", '"bi,ij->bij", slope, W', '"bi,ij->bij", np.ones_like(slope), W', "jacobian_sum"),
    Mistake("the direct terms only", "jacobian_sum.py", '"bij,bjk->bik", dhT_dhk, dhk_dprevious', '"bij,bjk->bik", 0 * dhT_dhk, dhk_dprevious', "jacobian_sum"),
]  # fmt: skip


def planted(mistake: Mistake, folder: Path) -> ModuleType:
    """The module under suspicion, from a copy of the package in `folder` that makes the mistake.

    Raises AssertionError where the right line is not there exactly once, so that the table cannot
    fall behind the code.
    """
    source = Path(manual_bptt.__file__).parent
    copy = shutil.copytree(
        source, folder / "manual_bptt", ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (copy / mistake.file).read_text(encoding="utf-8")
    count = text.count(mistake.right)
    assert count == 1, f"{mistake.name}: {mistake.right!r} occurs {count} times in {mistake.file}"
    (copy / mistake.file).write_text(text.replace(mistake.right, mistake.written), encoding="utf-8")
    return imported_from(folder, f"manual_bptt.{mistake.suspect}")


def imported_from(folder: Path, name: str) -> ModuleType:
    """The module `name` of the package in `folder`, beside the installed one of the same name."""
    package = name.split(".", maxsplit=1)[0]
    installed = {
        key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == package
    }
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for key in [key for key in sys.modules if key.split(".")[0] == package]:
            del sys.modules[key]
        sys.modules.update(installed)
