"""A derivation that reads biases is given them, and the report says so."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import FileSubmission
from bptt_verifier.judge.verify import verify
from bptt_verifier.report import Mistake

RNN = """
import numpy as np
def gradients(params, x, y):
    U, W, V, b, c = params
    h = [np.zeros((x.shape[1], len(W)), x.dtype)]
    for each in x:
        h.append(np.tanh(each @ U.T + h[-1] @ W.T + b))
    e = 2 * (h[-1] @ V.T + c - y) / y.size
    gU, gW, gb, dh = 0 * U, 0 * W, 0 * b, e @ V
    for t in range(len(x), 0, -1):
        da = dh * (1 - h[t] ** 2)
        gU, gW, gb, dh = gU + da.T @ x[t - 1], gW + da.T @ h[t - 1], gb + da.sum(0), da @ W
    return {"U": gU, "W": gW * FACTOR, "V": e.T @ h[-1], "b": gb, "c": e.sum(0)}
"""
GRU = """
from collections import namedtuple
import numpy as np
Result = namedtuple("Result", "loss U W V b b_n c")
def gradients(params, x, y):
    U, W, V, b, b_n, c = (getattr(params, n) for n in ("U", "W", "V", "b", "b_n", "c"))
    H, h, tape = len(b_n), np.zeros((x.shape[1], len(b_n)), x.dtype), []
    for each in x:
        ai, ah = each @ U.T + b, h @ W.T
        with np.errstate(over="ignore"):
            r, z = np.split(1 / (1 + np.exp(-ai[:, : 2 * H] - ah[:, : 2 * H])), 2, 1)
        q = ah[:, 2 * H :] + b_n
        n = np.tanh(ai[:, 2 * H :] + r * q)
        tape.append((each, h, r, z, q, n))
        h = n + z * (h - n)
    e = 2 * (h @ V.T + c - y) / y.size
    gU, gW, gb, gn, dh = 0 * U, 0 * W, 0 * b, 0 * b_n, e @ V
    for each, hp, r, z, q, n in tape[::-1]:
        dn, dz = dh * (1 - z) * (1 - n * n), dh * (hp - n) * z * (1 - z)
        dr, dq = dn * q * r * (1 - r), dn * r
        di, dg = np.hstack([dr, dz, dn]), np.hstack([dr, dz, dq])
        gU, gb, gW, gn = gU + di.T @ each, gb + di.sum(0), gW + dg.T @ hp, gn + dq.sum(0)
        dh = dh * z + dg @ W
    loss = np.mean((h @ V.T + c - y) ** 2)
    return Result(loss, gU, gW * FACTOR, e.T @ h, gb, gn, e.sum(0))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "options"),
    [
        pytest.param(RNN, (), marks=pytest.mark.rest),
        pytest.param(GRU, ("--model", "gru"), marks=pytest.mark.slow),
    ],
)
def test_biases_are_given_to_a_derivation_that_reads_them(
    text: str, options: tuple[str, ...], bptt: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    for factor, code in (("1", 0), ("1.3", 1)):
        file.write_text(text.replace("FACTOR", factor))
        ended = bptt("verify", file, "--examples", 2, *options)
        assert ended.code == code, ended.out
        assert "It reads biases, and is given them." in ended.out


def test_only_what_lacks_biases_alone_is_given_them() -> None:
    def raising(error: Exception) -> Any:
        def gradients(params: Any, x: Any, y: Any) -> Any:
            raise error

        return FileSubmission(gradients, "").reads_biases(verify(gradients, examples=1))

    assert raising(ValueError("not enough values to unpack (expected 5, got 3)"))
    assert not raising(ValueError("not enough values to unpack (expected 4, got 3)"))
    assert not raising(AttributeError("params has U, W, V, and no h0"))
    lacking, other = (
        Mistake("raised", f"your function raised ValueError: {what}", {})
        for what in ("not enough values to unpack (expected 5, got 3)", "another")
    )
    report = verify(lambda params, x, y: None, examples=1)._replace(mistakes=(other, lacking))
    assert FileSubmission(lambda: None, "").reads_biases(report)
