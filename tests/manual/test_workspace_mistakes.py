"""Mistakes planted in copies of the workspace and of its sweeps are caught."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.builtin import AUTODIFF
from bptt_verifier.problems.draws import draw
from bptt_verifier.problems.problem import Problem, Sizes
from manual_bptt.workspace import Workspace
from tests.support.planting import Mistake, planted
from tests.support.workspaces import assert_agrees, plain_problem, workspace_of

IN_PLACE = "in_place/rnn.py", "in_place/lstm.py", "in_place/gru.py"
RNN, LSTM, GRU = IN_PLACE
PRODUCT_W = "add_product(rows(after), rows(h), gradient.W, for_W)"
SLOPES = "slope(self._rows[1:n], self._rows[n : 2 * n - 1])"
MISTAKES = [
    Mistake("slope of the state before", RNN, SLOPES, SLOPES.replace("[1:n]", "[: n - 1]"), "workspace"),
    Mistake("slope over the last adjoint", RNN, SLOPES, SLOPES.replace("[1:n]", "[1 : n + 1]").replace(" - 1", ""), "workspace"),
    Mistake("W where Wᵀ belongs, forward", RNN, "np.copyto(W_T, W.T)", "np.copyto(W_T, W)", "workspace"),
    Mistake("W after the step where W of the step belongs", RNN, "np.dot(later, params.W, spare)", "np.dot(later, self._W_T, spare)", "workspace"),
    Mistake("state after the step in ∂L/∂W", RNN, PRODUCT_W, PRODUCT_W.replace("rows(h)", "rows(self._rows[1 + from_zero : n + 1])"), "workspace"),
    Mistake("h_0 taken for zero", "workspace.py", "if number else first\n", "if number else (None,) * len(first)\n", "workspace"),
    Mistake("a product where h_0 belongs in ∂L/∂W", RNN, "self._spare[...] = h_0", "pass", "workspace"),
    Mistake("the segments' sum keeps the last", "in_place/sums.py", "total += np.dot", "total[...] = np.dot", "workspace"),
    Mistake("nothing passes from segment to segment", RNN, "np.dot(self._rows[n], params.W, into[0])", "into[0] = 0", "workspace"),
    Mistake("checkpoints one step early", RNN, "return (state,)", "return (self._rows[len(x) - 1],)", "workspace"),
    Mistake("bias of the last segment only", "in_place/sums.py", "np.add(total, addend, total)", "pass", "workspace"),
    Mistake("factor 2 forgotten", "workspace.py", "lambda N: 2 / N", "lambda N: 1 / N", "workspace"),
    Mistake("the last slope added", RNN, "np.multiply(delta_n, spare, delta_n)", "np.add(delta_n, spare, delta_n)", "workspace"),
    Mistake("σ of |a|", RNN, "np.greater_equal(a, 0, a)", "a.fill(1)", "workspace"),
    Mistake("gates in the order of memory", LSTM, "PACKED = 1, 3, 0, 2", "PACKED = 1, 3, 2, 0", "workspace"),
    Mistake("W where Wᵀ belongs, LSTM", LSTM, "np.multiply(W[of_gate].T, 1", "np.multiply(W[of_gate], 1", "workspace"),
    Mistake("c_0 taken for zero", LSTM, "state[0] = 0 if first is None else first", "state[0] = 0 if first is None or state is self._c else first", "workspace"),
    Mistake("the cell of the step before in tanh", LSTM, "np.tanh(c_t, tanh_c[t])", "np.tanh(c[t], tanh_c[t])", "workspace"),
    Mistake("state before the step in (Q11)", LSTM, "h = self._h[part.start + 1 : part.stop + 1]", "h = self._h[part]", "workspace"),
    Mistake("f forgotten in the cell's way back", LSTM, "np.multiply(dc_t, a[F], dc_t)", "pass", "workspace"),
    Mistake("∂L/∂c of the next step lost", LSTM, "np.add(dc_t, slope[t], dc_t)", "dc_t[...] = slope[t]", "workspace"),
    Mistake("∂L/∂c not handed on", LSTM, "into[1] = self._c[n]", "into[1] = 0", "workspace"),
    Mistake("∂L/∂c of the segment after not taken", LSTM, "dc_t[...] = 0 if dc is None else dc", "dc_t[...] = 0", "workspace"),
    Mistake("one gate's product left out", LSTM, "np.add(products[:2], products[2:], products[:2])", "pass", "workspace"),
    Mistake("(1 − i) forgotten", LSTM, "np.subtract(1, i, i)", "pass", "workspace"),
    Mistake("b forgotten, LSTM", LSTM, "if b is not None:", "if False:", "workspace"),
    Mistake("adjoint of the step itself", LSTM, "self._pass_back(self._gates[:, t + 1], dh)", "self._pass_back(self._gates[:, t], dh)", "workspace"),
    Mistake("r and z in the order of memory", GRU, "PACKED = {Z: 1, R: 0, N: 2}", "PACKED = {Z: 0, R: 1, N: 2}", "workspace"),
    Mistake("∂L/∂U from r ⊙ δ_n", GRU, "add_product(rows(delta), rows(x), gradient.U[of_gate], for_U)", "add_product(rows(self._gates[min(gate, 2), :n]), rows(x), gradient.U[of_gate], for_U)", "workspace"),
    Mistake("∂L/∂W_n from δ_n where r came after", GRU, "left = self._gates[MET, :n]", "pass", "workspace"),
    Mistake("∂L/∂W_n from h where r came before", GRU, "right = self._gates[MET, :n]", "pass", "workspace"),
    Mistake("∂L/∂b_n the other way about", GRU, "self._gates[MET if self._after else N, :n]", "self._gates[N if self._after else MET, :n]", "workspace"),
    Mistake("path past the candidate dropped", GRU, "                    np.multiply(dh, z, dh)\n                else:", "                    dh.fill(0)\n                else:", "workspace"),
    Mistake("path through the candidate dropped where r came before", GRU, "np.add(dh, through, dh)", "pass", "workspace"),
    Mistake("δ_r without h", GRU, "np.subtract(self._h[t], met, r)", "np.subtract(1, r, r)", "workspace"),
    Mistake("b_n forgotten where r came before", GRU, "products[0] += b_n", "pass", "workspace"),
    Mistake("state after the step in (Q15)", GRU, "np.subtract(self._h[part], n, slope_z)", "np.subtract(self._h[part.start + 1 : part.stop + 1], n, slope_z)", "workspace"),
    Mistake("∂L/∂h not handed on", GRU, "into[0] = self._dh", "into[0] = 0", "workspace"),
    Mistake("(1 − r) forgotten", GRU, "np.subtract(1, r, r)", "pass", "workspace"),
]  # fmt: skip


def suspected(mistake: Mistake) -> list[Problem]:
    """Some problems of the cell that the mistake is made in, with all that it has."""
    if mistake.file in (LSTM, GRU):
        cell = "lstm" if mistake.file == LSTM else "gru"
        return [
            plain_problem(cell, seed, Sizes(4, 3, 2, 4, 2), bias=True, initial_state=True)
            for seed in (0, 1)
        ]
    return [draw(0, case) for case in range(20)]


def survives(workspace_class: type[Workspace[Any]], cases: list[Problem]) -> bool:
    """Whether no problem shows a mistake, whole or in segments of two."""
    for problem in cases:
        bound = problem.cell == "rnn"
        comparer = (AUTODIFF.within_bound if bound else AUTODIFF.within_measured_error)(problem)
        for checkpoint_every in (None, 2):
            workspace = workspace_of(problem, checkpoint_every, workspace_class)
            try:
                assert_agrees(workspace, problem, comparer)
            except AssertionError:
                return False
    return True


@pytest.mark.table(5)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    assert not survives(planted(mistake, tmp_path).Workspace, suspected(mistake))


@pytest.mark.parametrize("file", IN_PLACE)
def test_without_a_mistake_nothing_is_caught(file: str, tmp_path: Path) -> None:
    mistake = next(each for each in MISTAKES if each.file == file)
    nothing = mistake._replace(written=mistake.right)
    assert survives(planted(nothing, tmp_path).Workspace, suspected(mistake))
