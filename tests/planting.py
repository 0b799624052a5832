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
    """`written` in place of `right` in `file`; `suspect` is the module whose results go wrong.

    `called` is what the judge must call it: None where its results are right, or no name fits.
    """

    name: str
    file: str
    right: str
    written: str
    suspect: str = "rnn"
    called: str | None = None


B2 = "dh * phi.derivative(a[t - 1], h[t])"
B3 = "dh = adjoints[t - 1] @ W"
B4 = 'np.einsum("tbh,tbd->hd", adjoints, x, optimize=True)'
B5 = 'np.einsum("tbh,tbk->hk", adjoints, h[:-1], optimize=True)'
B6 = 'np.einsum("bo,bh->oh", dy, h[-1], optimize=True)'
SWEEP = "for t in range(len(x), 0, -1):"
DY = "dy = inputs.output_gradient(output_gradient, weights[2], x)"

# What people really write, commonest first, and what hides best.
MISTAKES = [
    Mistake("clipped", "rnn.py", B5, B5 + ".clip(-1, 1)", called="clipped"),
    Mistake("clipped inside the sweep", "rnn.py", B3, "dh = (adjoints[t - 1] @ W).clip(-1, 1)", called="clipped"),
    Mistake("recurrent path dropped", "rnn.py", B3, "dh = np.zeros_like(dh)", called="recurrent-path-dropped"),
    Mistake("factor 2 forgotten in the loss", "losses.py", "2 * (prediction - y) / y.size", "(prediction - y) / y.size", called="constant-factor"),
    Mistake("mean over the batch only", "losses.py", "2 * (prediction - y) / y.size", "2 * (prediction - y) / len(y)", called="constant-factor"),
    Mistake("sum where the mean belongs", "losses.py", "2 * (prediction - y) / y.size", "2 * (prediction - y)", called="constant-factor"),
    Mistake("factor 1/T in one gradient", "rnn.py", B5, B5 + " / len(x)", called="constant-factor"),
    Mistake("½ forgotten in the loss", "losses.py", "y: prediction - y,", "y: 2 * (prediction - y),", called="constant-factor"),
    Mistake("output gradient at every step", "rnn.py", B3, B3 + " + dy @ V", called="output-gradient-at-every-step"),
    Mistake("output gradient at the wrong step", "rnn.py", B3, "dh = adjoints[t - 1] @ W if t < len(x) else dh", called="output-gradient-at-wrong-step"),
    Mistake("derivative at the activated value", "rnn.py", B2, "dh * phi.derivative(h[t], phi.function(h[t]))", called="activation-derivative-of-activated-value"),
    Mistake("state off by one in ∂L/∂W", "rnn.py", B5, B5.replace("h[:-1]", "h[1:]"), called="hidden-state-off-by-one"),
    Mistake("index −1 wraps around to the last state", "rnn.py", B5, B5.replace("h[:-1]", "h[np.r_[-1, 1 : len(x)]]"), called="negative-index-wraps-around"),
    Mistake("input off by one", "rnn.py", B4, B4.replace(", x,", ", np.roll(x, 1, axis=0),"), called="negative-index-wraps-around"),
    Mistake("truncated to the last 5 steps", "rnn.py", B3, B3 + " * (t > len(x) - 4)", called="truncated"),
    Mistake("activation's derivative missing", "rnn.py", B2, "dh", called="activation-derivative-missing"),
    Mistake("activation's derivative missing at the last step", "rnn.py", B2, f"{B2} if t < len(x) else dh", called="activation-derivative-missing"),
    Mistake("tanh′ without the square", "activations.py", "1 - h * h", "1 - h", called="unknown"),
    Mistake("sigmoid′ without h", "activations.py", "h * (1 - h)", "1 - h", called="unknown"),
    Mistake("relu′ is one everywhere", "activations.py", "(a > 0).astype", "(a == a).astype", called="activation-derivative-missing"),
    Mistake("W where Wᵀ belongs", "rnn.py", B3, B3 + ".T", called="untransposed-recurrent-weight"),
    Mistake("V where Vᵀ belongs, if square", "rnn.py", "dh = dy @ V", "dh = dy @ (V.T if len(V) == len(W) else V)", called="untransposed-output-weight"),
    Mistake("∂L/∂W transposed", "rnn.py", B5, B5.replace("->hk", "->kh"), called="transposed-gradient"),
    Mistake("weights updated inside backward", "rnn.py", "h0=dh,", "h0=dh + 0 * np.subtract(W, 0.01, out=W)[0, 0],", called="inputs-modified"),
    Mistake("the trace is overwritten", "rnn.py", "adjoints = np.empty_like(a)", "adjoints = a"),
    Mistake("the output gradient is overwritten", "rnn.py", DY, DY + "\n    dy -= 0.5 * dy"),
    Mistake("only the last step kept in ∂L/∂U", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[-1:], x[-1:],"), called="missing-time-sum"),
    Mistake("only the first step kept in ∂L/∂W", "rnn.py", B5, B5.replace("adjoints, h[:-1]", "adjoints[:1], h[:1]"), called="missing-time-sum"),
    Mistake("pre-activation where the state belongs", "rnn.py", B5, B5.replace("h[:-1]", "np.concatenate([h[:1], a[:-1]])"), called="wrong-operand"),
    Mistake("first state where the last belongs", "rnn.py", B6, B6.replace("h[-1]", "h[-2]"), called="hidden-state-off-by-one"),
    Mistake("last step missing in ∂L/∂b", "rnn.py", "adjoints.sum(axis=(0, 1))", "adjoints[:-1].sum(axis=(0, 1))", called="last-step-skipped"),
    Mistake("∂L/∂c of the first sequence only", "rnn.py", "dy.sum(axis=0)", "dy[0]", called="bias-part-missing"),
    Mistake("a path counted twice", "rnn.py", B3, "dh = dh + adjoints[t - 1] @ W", called="path-counted-twice"),
    Mistake("Hadamard product before the matrix product", "rnn.py", B3, "dh = (adjoints[t - 1] * phi.derivative(a[t - 2], h[t - 1])) @ W / phi.derivative(a[t - 2], h[t - 1]) if t > 1 else adjoints[0] @ W", called="activation-derivative-before-matrix-product"),
    Mistake("first step skipped in ∂L/∂U", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[1:], x[1:],"), called="first-step-skipped"),
    Mistake("δ_1 is zero", "rnn.py", "return Gradients(", "adjoints[0] = 0\n    return Gradients(", called="first-step-skipped"),
    Mistake("∂L/∂h0 is zero", "rnn.py", "h0=dh,", "h0=0 * dh,", called="zero-gradient"),
    Mistake("∂L/∂h0 is ∂L/∂h_1", "rnn.py", "h0=dh,", "h0=adjoints[0],", called="wrong-operand"),
    Mistake("∂L/∂x with the wrong sign", "rnn.py", "x=adjoints @ U,", "x=-adjoints @ U,", called="sign-flipped"),
    Mistake("one entry off by 0.05 %", "rnn.py", "return Gradients(", "adjoints[-1, -1, -1] *= 1.0005\n    return Gradients(", called="unknown"),
    Mistake("∂L/∂h0 through half precision", "rnn.py", "h0=dh,", "h0=dh.astype(np.float16).astype(dh.dtype),", called="unknown"),
    Mistake("the forward pass forgets the bias", "rnn.py", "a = a + b", "a = a + 0 * b", called="forward-differs"),
    Mistake("the forward pass starts at zero", "rnn.py", "h[0] = h0", "h[0] = 0", called="forward-differs"),
    Mistake("truncated to the last 10 steps", "rnn.py", B3, B3 + " * (t > len(x) - 9)", called="truncated"),
    Mistake("the input of the step before", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[1:], x[:-1],"), called="input-off-by-one"),
    Mistake("every gradient with the wrong sign", "losses.py", "2 * (prediction - y) / y.size", "2 * (y - prediction) / y.size", called="sign-flipped"),
    Mistake("bias of the last step only", "rnn.py", "adjoints.sum(axis=(0, 1))", "adjoints[-1].sum(axis=0)", called="bias-part-missing"),
    Mistake("a derivative that is not a number", "rnn.py", "h0=dh,", "h0=np.full_like(dh, np.nan),", called="not-finite"),
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
