"""Mistakes planted in a copy of the hand derivations, one line each.

A mistake is a text that occurs exactly once in a file of `manual_bptt`, and what stands there instead.
"""

import importlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

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
B3 = "adjoints[t - 1] @ W"
B4 = 'np.einsum("tbh,tbd->hd", adjoints, x, optimize=True)'
B5 = 'np.einsum("tbh,tbk->hk", adjoints, h[:-1], optimize=True)'
L2 = "2 * residual(prediction, y) / y.size"
DY = "dy = inputs.output_gradient(output_gradient, weights[2], x, trace.outputs)"

# What people really write, commonest first, and what hides best.
MISTAKES = [
    Mistake("clipped", "rnn.py", B5, B5 + ".clip(-1, 1)", called="clipped"),
    Mistake("clipped inside the sweep", "rnn.py", B3, "(adjoints[t - 1] @ W).clip(-1, 1)", called="clipped"),
    Mistake("recurrent path dropped", "rnn.py", B3, "np.zeros_like(dh)", called="recurrent-path-dropped"),
    Mistake("factor 2 forgotten in the loss", "losses.py", L2, "residual(prediction, y) / y.size", called="constant-factor"),
    Mistake("mean over the batch only", "losses.py", L2, "2 * residual(prediction, y) / len(y)", called="constant-factor"),
    Mistake("sum where the mean belongs", "losses.py", L2, "2 * residual(prediction, y)", called="constant-factor"),
    Mistake("factor 1/T in one gradient", "rnn.py", B5, B5 + " / len(x)", called="constant-factor"),
    Mistake("½ forgotten in the loss", "losses.py", "        residual,  ", "        lambda prediction, y: 2 * (prediction - y),  ", called="constant-factor"),
    Mistake("output gradient at every step", "rnn.py", B3, B3 + " + entering", called="output-gradient-at-every-step"),
    Mistake("output gradient at the wrong step", "rnn.py", B3, "adjoints[t - 1] @ W if t < len(x) else dh", called="output-gradient-at-wrong-step"),
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
    Mistake("slope missing in what is carried", "rnn.py", B3, "dh @ W", called="activation-derivative-missing"),
    Mistake("slope after the product", "rnn.py", B3, "(dh @ W) * phi.derivative(a[t - 1], h[t])", called="activation-derivative-after-matrix-product"),
    Mistake("V where Vᵀ belongs, if square", "many_to_one.py", "dy @ params.V", "dy @ (params.V.T if len(params.V) == len(params.W) else params.V)", called="untransposed-output-weight"),
    Mistake("∂L/∂W transposed", "rnn.py", B5, B5.replace("->hk", "->kh"), called="transposed-gradient"),
    Mistake("weights updated inside backward", "rnn.py", "h0=dh,", "h0=dh + 0 * np.subtract(W, 0.01, out=W)[0, 0],", called="inputs-modified"),
    Mistake("the trace is overwritten", "rnn.py", "adjoints = np.empty_like(a)", "adjoints = a"),
    Mistake("the output gradient is overwritten", "many_to_one.py", DY, DY + "\n    dy -= 0.5 * dy"),
    Mistake("only the last step kept in ∂L/∂U", "rnn.py", B4, B4.replace("adjoints, x,", "adjoints[-1:], x[-1:],"), called="missing-time-sum"),
    Mistake("only the first step kept in ∂L/∂W", "rnn.py", B5, B5.replace("adjoints, h[:-1]", "adjoints[:1], h[:1]"), called="missing-time-sum"),
    Mistake("pre-activation where the state belongs", "rnn.py", B5, B5.replace("h[:-1]", "np.concatenate([h[:1], a[:-1]])"), called="wrong-operand"),
    Mistake("first state where the last belongs", "many_to_one.py", "else trace.h[-1]", "else trace.h[-2]", called="hidden-state-off-by-one"),
    Mistake("last step missing in ∂L/∂b", "rnn.py", "adjoints.sum(axis=(0, 1))", "adjoints[:-1].sum(axis=(0, 1))", called="last-step-skipped"),
    Mistake("∂L/∂c of the first sequence only", "many_to_one.py", "rows.sum(axis=0)", "rows[0]", called="bias-part-missing"),
    Mistake("a path counted twice", "rnn.py", B3, "dh + adjoints[t - 1] @ W", called="path-counted-twice"),
    Mistake("Hadamard product before the matrix product", "rnn.py", B3, "(adjoints[t - 1] * (q := phi.derivative(a[t - 2], h[t - 1]))) @ W / np.where(q == 0, 1, q) if t > 1 else adjoints[0] @ W", called="activation-derivative-before-matrix-product"),
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
    Mistake("every gradient with the wrong sign", "losses.py", L2, "-2 * residual(prediction, y) / y.size", called="sign-flipped"),
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

TO_DH = "dh = at_work(t, lengths, adjoints[t - 1] @ W, dh)"
DC = "dc = at_work(t, lengths, dc_t * f, dc)"
DC_T = "dc + dh * o * tanh_slope(cells[t], tanh_c)"
DELTA_F = "dc_t * cells[t - 1] * sigmoid_slope(a_f, f)"
DELTA_N = "dh * (1 - z) * tanh_slope(a_n, n)"
DELTA_Z = "dh * (h[t - 1] - n) * sigmoid_slope(a_z, z)"
DELTA_R = "delta_n * recurrent[t - 1] * sigmoid_slope(a_r, r)"
DH_GRU = "dh * z + delta_rz @ W_rz + through_n"
DW = 'np.einsum("tbg,tbk->gk", adjoints, h[:-1], optimize=True)'
PACKED = "np.concatenate([delta_i, delta_f, delta_g, delta_o], axis=-1)"

# What goes wrong in gated cells, and with lengths, outputs at every step and truncation.
GATED_MISTAKES = [
    Mistake("the forget gate's path through the cell dropped", "lstm.py", DC, "dc = np.zeros_like(dc)", "lstm", called="recurrent-path-dropped"),
    Mistake("∂L/∂c counted twice", "lstm.py", DC, "dc = dc + at_work(t, lengths, dc_t * f, dc)", "lstm", called="path-counted-twice"),
    Mistake("∂L/∂c of this step's output missing", "lstm.py", DC_T, "dc + 0 * dh", "lstm", called="zero-gradient"),
    Mistake("the cell's path back without the gate", "lstm.py", "dc_t * f, dc", "dc_t, dc", "lstm", called="wrong-operand"),
    Mistake("the input gate where the forget gate belongs", "lstm.py", "dc_t * f, dc", "dc_t * i, dc", "lstm", called="wrong-operand"),
    Mistake("σ′ taken at the activated value", "lstm.py", "sigmoid_slope(a_i, i)", "sigmoid_slope(i, SIGMOID.function(i))", "lstm", called="activation-derivative-of-activated-value"),
    Mistake("tanh′ on the forget gate", "lstm.py", "sigmoid_slope(a_f, f)", "tanh_slope(a_f, f)", "lstm", called="wrong-operand"),
    Mistake("σ′ on the candidate", "lstm.py", "tanh_slope(a_g, g)", "sigmoid_slope(a_g, g)", "lstm", called="wrong-operand"),
    Mistake("input and forget gate swapped in packing", "lstm.py", PACKED, PACKED.replace("delta_i, delta_f", "delta_f, delta_i"), "lstm", called="wrong-operand"),
    Mistake("candidate and output gate swapped in packing", "lstm.py", PACKED, PACKED.replace("delta_g, delta_o", "delta_o, delta_g"), "lstm", called="wrong-operand"),
    Mistake("cell after the step in the forget gate", "lstm.py", DELTA_F, DELTA_F.replace("t - 1", "t"), "lstm", called="hidden-state-off-by-one"),
    Mistake("cell index −1 wraps around", "lstm.py", DELTA_F, DELTA_F.replace("t - 1", "t - 1 if t > 1 else -1"), "lstm", called="negative-index-wraps-around"),
    Mistake("tanh of the cell forgotten in the output gate", "lstm.py", "dh * tanh_c * sigmoid", "dh * cells[t] * sigmoid", "lstm", called="wrong-operand"),
    Mistake("tanh′ of the cell missing", "lstm.py", DC_T, "dc + dh * o", "lstm", called="activation-derivative-missing"),
    Mistake("tanh′ at the cell before", "lstm.py", "tanh_c = TANH.function(cells[t])", "tanh_c = TANH.function(cells[t - 1])", "lstm", called="hidden-state-off-by-one"),
    Mistake("a peephole in the forget gate", "lstm.py", "dc_t * f, dc", "dc_t * f + delta_f, dc", "lstm"),
    Mistake("the output gate missing in ∂L/∂c", "lstm.py", DC_T, "dc + dh * tanh_slope(cells[t], tanh_c)", "lstm", called="wrong-operand"),
    Mistake("candidate's gradient for the output gate's bias", "lstm.py", "adjoints.sum(axis=(0, 1))", "np.roll(adjoints, adjoints.shape[-1] // 4, axis=-1).sum(axis=(0, 1))", "lstm", called="wrong-operand"),
    Mistake("recurrent path of the output gate dropped", "lstm.py", TO_DH, "dh = at_work(t, lengths, adjoints[t - 1][:, : 3 * h.shape[-1]] @ W[: 3 * h.shape[-1]], dh)", "lstm", called="recurrent-path-dropped"),
    Mistake("recurrent path dropped", "lstm.py", TO_DH, "dh = np.zeros_like(dh)", "lstm", called="recurrent-path-dropped"),
    Mistake("state after the step in ∂L/∂W", "lstm.py", DW, DW.replace("h[:-1]", "h[1:]"), "lstm", called="hidden-state-off-by-one"),
    Mistake("cell where the state belongs in ∂L/∂W", "lstm.py", DW, DW.replace("h[:-1]", "cells[:-1]"), "lstm", called="wrong-operand"),
    Mistake("∂L/∂c0 is ∂L/∂h0", "lstm.py", "c0=dc,", "c0=dh,", "lstm", called="wrong-operand"),
    Mistake("∂L/∂c0 clipped", "lstm.py", "c0=dc,", "c0=dc.clip(-0.01, 0.01),", "lstm", called="clipped"),
    Mistake("the forward pass starts with an empty cell", "lstm.py", "h[0], cells[0] = h0, c0", "h[0], cells[0] = h0, 0", "lstm", called="forward-differs"),
    Mistake("δ_1 is zero", "lstm.py", "return Gradients(", "adjoints[0] = 0\n    return Gradients(", "lstm", called="first-step-skipped"),
    Mistake("the cell is cut one step late", "lstm.py", "dc = cut(t - 1, ends, truncation, dc)", "dc = cut(t, ends, truncation, dc)", "lstm"),
    Mistake("the cell is not cut", "lstm.py", "dc = cut(t - 1, ends, truncation, dc)", "dc = dc", "lstm"),
    Mistake("(1 − z) path missing", "gru.py", DELTA_N, "dh * tanh_slope(a_n, n)", "gru", called="wrong-operand"),
    Mistake("z where 1 − z belongs", "gru.py", DELTA_N, "dh * z * tanh_slope(a_n, n)", "gru", called="wrong-operand"),
    Mistake("the state's path past the candidate dropped", "gru.py", DH_GRU, "delta_rz @ W_rz + through_n", "gru", called="recurrent-path-dropped"),
    Mistake("the path through both gates dropped", "gru.py", DH_GRU, "dh * z + through_n", "gru", called="recurrent-path-dropped"),
    Mistake("the path through the candidate dropped", "gru.py", DH_GRU, "dh * z + delta_rz @ W_rz", "gru", called="recurrent-path-dropped"),
    Mistake("update gate with the wrong sign", "gru.py", DELTA_Z, DELTA_Z.replace("h[t - 1] - n", "n - h[t - 1]"), "gru", called="sign-flipped"),
    Mistake("update gate without the candidate", "gru.py", DELTA_Z, DELTA_Z.replace("h[t - 1] - n", "h[t - 1]"), "gru", called="wrong-operand"),
    Mistake("state after the step in the update gate", "gru.py", DELTA_Z, DELTA_Z.replace("h[t - 1] - n", "h[t] - n"), "gru", called="hidden-state-off-by-one"),
    Mistake("tanh′ on the reset gate", "gru.py", DELTA_R, DELTA_R.replace("sigmoid_slope", "tanh_slope"), "gru", called="wrong-operand"),
    Mistake("σ′ on the candidate", "gru.py", DELTA_N, DELTA_N.replace("tanh_slope", "sigmoid_slope"), "gru", called="wrong-operand"),
    Mistake("reset gate missing on the way back", "gru.py", "(r * delta_n) @ W_n", "delta_n @ W_n", "gru", called="wrong-operand"),
    Mistake("reset gate after the product on the way back", "gru.py", "(r * delta_n) @ W_n", "r * (delta_n @ W_n)", "gru", called="wrong-operand"),
    Mistake("reset gate before the product on the way back", "gru.py", "through_n = r * (delta_n @ W_n)", "through_n = (r * delta_n) @ W_n", "gru", called="wrong-operand"),
    Mistake("reset gate missing in ∂L/∂W_n", "gru.py", "met, delta_met = h[:-1], r * delta_n", "met, delta_met = h[:-1], delta_n", "gru", called="wrong-operand"),
    Mistake("reset state missing in ∂L/∂W_n", "gru.py", "met, delta_met = r * h[:-1], delta_n", "met, delta_met = h[:-1], delta_n", "gru", called="wrong-operand"),
    Mistake("reset gate on the candidate's input too", "gru.py", "b=None if b is None else adjoints", "b=None if b is None else np.concatenate([delta_rz, r * delta_n], axis=-1)", "gru", called="wrong-operand"),
    Mistake("the other bias' gradient", "gru.py", "delta_met.sum(axis=(0, 1))", "delta_n.sum(axis=(0, 1))", "gru", called="wrong-operand"),
    Mistake("b_n forgotten in the reset gate", "gru.py", DELTA_R, "delta_n * (recurrent[t - 1] - (0 if b_n is None else b_n)) * sigmoid_slope(a_r, r)", "gru", called="bias-part-missing"),
    Mistake("reset and update gate swapped in packing", "gru.py", "np.concatenate([delta_r, delta_z], axis=-1)", "np.concatenate([delta_z, delta_r], axis=-1)", "gru", called="wrong-operand"),
    Mistake("h0 and candidate mixed up", "gru.py", "(1 - z) * n + z * h[t - 1], h", "z * n + (1 - z) * h[t - 1], h", "gru", called="forward-differs"),
    Mistake("∂L/∂x through the candidate only", "gru.py", "x=adjoints @ U,", "x=delta_n @ U[2 * H :],", "gru", called="wrong-operand"),
    Mistake("a sequence that is over goes on", "sequences.py", "(t <= lengths)[:, None]", "(t <= lengths + 1)[:, None]", "lstm"),
    Mistake("a shorter sequence loses its gradient", "gru.py", DH_GRU + ", dh)", DH_GRU + ", 0 * dh)", "gru"),
    Mistake("padding counts in the loss", "many_to_one.py", "if outputs == \"every\" else None\n    value", "if outputs == \"never\" else None\n    value", "lstm"),
    Mistake("the output of the last step only", "gru.py", "if every and t > 1:", "if False:", "gru"),
    Mistake("an output's gradient one step early", "lstm.py", "entering[t - 2]", "entering[t - 1]", "lstm"),
    Mistake("one step too many", "sequences.py", "t > ends - truncation", "t >= ends - truncation", "gru"),
    Mistake("cut at the longest sequence's end", "lstm.py", "ends = T if lengths is None else lengths", "ends = T", "lstm"),
    Mistake("sign of the mean absolute error", "losses.py", "np.sign(residual(prediction, y))", "np.sign(-residual(prediction, y))", "lstm"),
    Mistake("Huber's gradient not limited", "losses.py", "limited(residual(prediction, y)) / y.size", "residual(prediction, y) / y.size", "gru"),
    Mistake("softmax cross-entropy as a mean over entries", "losses.py", "one_hot(prediction, y))\n        / rows(prediction)", "one_hot(prediction, y))\n        / prediction.size", "lstm"),
    Mistake("σ′ once more in binary cross-entropy", "losses.py", "residual(logistic(prediction), y) / y.size", "residual(logistic(prediction), y) * logistic(prediction) * (1 - logistic(prediction)) / y.size", "gru"),
]  # fmt: skip

# More of what goes wrong, of the names that none of those above has.
MORE_GATED_MISTAKES = [
    Mistake("W where Wᵀ belongs, gate by gate", "lstm.py", TO_DH, "dh = at_work(t, lengths, sum(d @ w.T for d, w in zip(np.split(delta, 4, -1), np.split(W, 4), strict=True)), dh)", "lstm", "untransposed-recurrent-weight"),
    Mistake("W_n where W_nᵀ belongs", "gru.py", "(r * delta_n) @ W_n  #", "(r * delta_n) @ W_n.T  #", "gru", "untransposed-recurrent-weight"),
    Mistake("V where Vᵀ belongs, if square", "many_to_one.py", "dy @ params.V", "dy @ (params.V.T if params.V.shape[0] == params.V.shape[1] else params.V)", "lstm", "untransposed-output-weight"),
    Mistake("∂L/∂V transposed, if square", "many_to_one.py", "reached.reshape(-1, H), optimize=True)", "reached.reshape(-1, H), optimize=True).swapaxes(0, -1 if O == H else 0)", "gru", "transposed-gradient"),
    Mistake("∂L/∂W transposed, gate by gate", "lstm.py", DW, f"np.concatenate([w.T for w in np.split({DW}, 4)])", "lstm", "transposed-gradient"),
    Mistake("only the last step kept in ∂L/∂U", "gru.py", 'np.einsum("tbg,tbd->gd", adjoints, x', 'np.einsum("tbg,tbd->gd", adjoints[-1:], x[-1:]', "gru", "missing-time-sum"),
    Mistake("only the last step kept in ∂L/∂b", "lstm.py", "adjoints.sum(axis=(0, 1))", "adjoints[-1].sum(axis=0)", "lstm", "bias-part-missing"),
    Mistake("last step left out of ∂L/∂b_n", "gru.py", "delta_met.sum(axis=(0, 1))", "delta_met[:-1].sum(axis=(0, 1))", "gru", "last-step-skipped"),
    Mistake("truncated to the last 4 steps", "lstm.py", "dh = cut(t - 1, ends, truncation, dh)", "dh, dc = (v * (t > T - 3) for v in (dh, dc))", "lstm", "truncated"),
    Mistake("truncated to the last 4 steps", "gru.py", "dh = cut(t - 1, ends, truncation, dh)", "dh = dh * (t > T - 3)", "gru", "truncated"),
    Mistake("the input of the step before", "lstm.py", 'np.einsum("tbg,tbd->gd", adjoints, x', 'np.einsum("tbg,tbd->gd", adjoints[1:], x[:-1]', "lstm", "input-off-by-one"),
    Mistake("output gradient at every step", "gru.py", DH_GRU + ", dh)", DH_GRU + " + entering, dh)", "gru", "output-gradient-at-every-step"),
    Mistake("output gradient at the wrong step", "lstm.py", "dh = cut(t - 1, ends, truncation, dh)", "dh, dc = (entering, 0 * dc) if t == T else (dh, dc)", "lstm", "output-gradient-at-wrong-step"),
    Mistake("factor 2 forgotten in the loss", "losses.py", L2, "residual(prediction, y) / y.size", "gru", "constant-factor"),
    Mistake("every gradient with the wrong sign", "losses.py", L2, "-2 * residual(prediction, y) / y.size", "lstm", "sign-flipped"),
    Mistake("σ′ before the product", "gru.py", "(delta_n @ W_n) * h[t - 1] * sigmoid_slope(a_r, r)", "((delta_n * sigmoid_slope(a_r, r)) @ W_n) * h[t - 1]", "gru", "activation-derivative-before-matrix-product"),
    Mistake("h_{t-1} forgotten in δ_z", "gru.py", "dh * (h[t - 1] - n)", "-dh * n", "gru", "wrong-operand"),
    Mistake("σ′ of the output gate missing", "lstm.py", "dh * tanh_c * sigmoid_slope(a_o, o)", "dh * tanh_c", "lstm", "activation-derivative-missing"),
    Mistake("clipped inside the sweep", "gru.py", DH_GRU + ", dh)", f"({DH_GRU}).clip(-0.1, 0.1), dh)", "gru", "clipped"),
    Mistake("the states' gradient passed on beside itself", "lstm.py", TO_DH, TO_DH.replace("@ W, dh", "@ W + dh, dh"), "lstm", "path-counted-twice"),
    Mistake("∂L/∂h0 is zero", "gru.py", "h0=dh,", "h0=0 * dh,", "gru", "zero-gradient"),
    Mistake("weights updated inside backward", "lstm.py", "h0=dh,", "h0=dh + 0 * np.subtract(W, 0.01, out=W)[0, 0],", "lstm", "inputs-modified"),
    Mistake("a derivative that is not a number", "gru.py", "h0=dh,", "h0=np.full_like(dh, np.nan),", "gru", "not-finite"),
    Mistake("∂L/∂h0 without the batch", "lstm.py", "h0=dh,", "h0=dh[0],", "lstm", "wrong-shape"),
    Mistake("noise", "gru.py", "h0=dh,", "h0=dh * np.random.default_rng().uniform(1, 2),", "gru", "not-deterministic"),
    Mistake("one entry off by 0.05 %", "lstm.py", "return Gradients(", "adjoints[-1, -1, -1] *= 1.0005\n    return Gradients(", "lstm", "unknown"),
    Mistake("the adjoints of the last step lost", "gru.py", "adjoints=adjoints,", "adjoints=adjoints * (np.arange(T) < T - 1)[:, None, None],", "gru", "last-step-skipped"),
]  # fmt: skip


LAST: dict[tuple[Mistake, ...], ModuleType] = {}  # what was planted last, by its mistakes


def identify(value: Any) -> str:
    """The identifier of a mistake or a dtype in a test's name."""
    return f"{value.suspect}: {value.name}" if isinstance(value, Mistake) else value.__name__


def planted(mistake: Mistake, folder: Path, *others: Mistake) -> ModuleType:
    """The module under suspicion, from a copy of the package in `folder` that makes the mistakes.

    If these mistakes were planted last, it is the same module, in the folder given then: a test
    often runs once for each precision. Raises AssertionError where a right line is not there exactly once, so that the table
    cannot fall behind the code.
    """
    made = (mistake, *others)
    if made not in LAST:
        LAST.clear()
        LAST[made] = imported_from(folder, f"manual_bptt.{mistake.suspect}", made)
    return LAST[made]


def write_mistakes(copy: Path, made: Sequence[Mistake]) -> None:
    """Write the mistakes into a copy of the package."""
    for name, file, right, written, *_ in made:
        text = (copy / file).read_text(encoding="utf-8")
        count = text.count(right)
        assert count == 1, f"{name}: {right!r} occurs {count} times in {file}"
        (copy / file).write_text(text.replace(right, written), encoding="utf-8")
    for name, file, _, written, *_ in made:
        assert written in (copy / file).read_text(encoding="utf-8"), f"{name} was written over"


def imported_from(folder: Path, name: str, made: Sequence[Mistake]) -> ModuleType:
    """The module `name` of a copy of its package, beside the installed one of the same name.

    The byte code is copied with the source: it is compiled anew for the changed files only. All
    mistakes are written before the import, because a file that changes again within the second may
    be taken for the one that was compiled.
    """
    package = name.split(".", maxsplit=1)[0]
    write_mistakes(shutil.copytree(Path(manual_bptt.__file__).parent, folder / package), made)
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
