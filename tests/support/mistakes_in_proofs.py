"""Mistakes in the definitions of the theorems; each makes a proof fail.

Each is a file, a text that is there once, and what stands there instead.
"""

from tests.support.rocq import PlantedMistake

SWEEP = (
    ("from_later t + entering t.", "from_later t."),  # the output of the step dropped
    ("if (t <= T - k)%N then 0 else s.", "if (t < T - k)%N then 0 else s."),  # k + 1 steps kept
    ("if (t <= T - k)%N then 0 else s.", "if (t <= k)%N then 0 else s."),
)
CELLS = (
    ("h *m V^T + rows B c.", "h *m V^T."),
    ("enter_state t := g t *m V.", "enter_state t := g t.+1 *m V."),
    ("(g t)^T *m h t.", "(g t)^T *m h t.-1."),
    ("\\sum_(1 <= t < T.+1) row_sum (g t).", "row_sum (g T)."),  # one step kept
)
TRUNCATED = (
    ("sums (cut_first_gradient back entering T k)", "sums (from_later back entering T 0)"),
    ("(cut_state_gradient back entering T k).", "(state_gradient back entering T)."),
)
RNN = (
    ("delta t s *m W p.", "delta t s *m (W p)^T."),  # W for Wᵀ
    ("(delta t (s t))^T *m h p t.-1;", "(delta t (s t))^T *m h p t;"),  # h_t for h_{t-1}
    ("s ⊙ map_mx phi' (a p t).", "let _ := map_mx phi' (a p t) in s."),  # slope missing
    ("s ⊙ map_mx phi' (a p t).", "s ⊙ map_mx phi' (h p t)."),  # slope at h_t
    ("delta t s *m W p.", "(delta t s *m W p) *+ 0."),  # recurrent path dropped
    ("enter_state (V p) g.", "fun t => if t == T then enter_state (V p) g t else 0."),
    ("(delta t (s t))^T *m x p t;", "(delta t (s t))^T *m x p t.-1;"),
    ("U := \\sum_(1 <= t < T.+1)", "U := \\sum_(2 <= t < T.+1)"),  # one step missing
    ("output_weight_gradient g T (h p);", "output_weight_gradient g T (h p \\o predn);"),
    ("row_sum (delta t (s t));", "row_sum (delta T (s T));"),  # one step kept
    ("c := output_bias_gradient g T;", "c := row_sum (g T);"),
    ("h0 := first;", "h0 := s 1%N;"),
    ("delta t (s t) *m U p ", "delta t.+1 (s t.+1) *m U p "),
    ("map_mx phi (preactivation p t previous).", "preactivation p t previous."),
    ("*m (W p)^T + rows B (b p).", "*m W p + rows B (b p)."),
    ("(fun t => map_mx (@constant R) (h phi p t)) (T - k) in",
     "(fun t => map_mx (@constant R) (h phi p t)) (T - k.+1) in"),  # one state too few is held
    *TRUNCATED,
)  # fmt: skip
JACOBIAN_SUM = (
    ("phi' (a k i j) * (j == r)%:R * h k.-1 i q.", "phi' (a k i j) * (j == r)%:R * h k i q."),
    ("phi' (a k i j) * (j == r)%:R * h k.-1 i q.", "(j == r)%:R * h k.-1 i q."),  # slope missing
    ("(j == r)%:R * x net k i q.", "(j == r)%:R * x net k.-1 i q."),
    ("R := phi' (a k i j) * (j == r)%:R.", "R := phi' (h k i j) * (j == r)%:R."),
    ("*m W net  (*", "*m (W net)^T  (*"),  # W for Wᵀ
    ("*m diag_mx (\\row_j phi' (a (T - m) i j)) *m W net",
     "*m W net *m diag_mx (\\row_j phi' (a (T - m) i j))"),  # the factors swapped
    ("phi' (a (T - m) i j)", "phi' (a (T - m.+1) i j)"),
    ("row i e *m V net *m jacobian i (T - k).", "row i e *m V net *m jacobian i (T - k.+1)."),
    ("\\sum_(1 <= k < T.+1) \\sum_i \\sum_j dL_dh",
     "\\sum_(T <= k < T.+1) \\sum_i \\sum_j dL_dh"),  # the direct path alone
)  # fmt: skip
RTRL = (
    ("((j == r)%:R * x net t i q)", "((j == r)%:R * x net t.-1 i q)"),
    ("((j == r)%:R * x net t i q) + previous *m (W net)^T", "((j == r)%:R * x net t i q)"),
    ("((j == r)%:R * h t.-1 i q)", "((j == r)%:R * h t i q)"),  # h_t for h_{t-1}
    ("i q) + previous *m (W net)^T.  (* (R2) *)", "i q) + previous *m W net.  (* (R2) *)"),
    ("(j == r)%:R + previous *m (W net)^T.", "(j == r)%:R."),  # the path through h_{t-1} dropped
    ("map_mx phi' (a t) ⊙ da t previous", "(let _ := phi' in da t previous)"),  # slope missing
    ("⟨e *m V net, sensitivity da T⟩.", "⟨e *m V net, sensitivity da T.-1⟩."),
)
LSTM = (
    ("*m (W p z)^T + rows B (b p z).", "*m W p z + rows B (b p z)."),
    ("if z is candidate then tau else sigma).", "if z is forget then tau else sigma)."),
    ("activate z (preactivation p t y.1 z).", "activate z (preactivation p t y.2 z)."),
    ("gate_value forget ⊙ y.2 + gate_value", "gate_value forget ⊙ y.2 - gate_value"),
    ("(gate_value output ⊙ map_mx tau next_cell,", "(gate_value output ⊙ next_cell,"),
    ("s.2 + s.1 ⊙ gates", "s.1 ⊙ gates"),  # the cell's path dropped
    ("⊙ map_mx tau' (cell p t).", "⊙ map_mx tau' (h p t)."),
    ("dc ⊙ gates p t candidate ", "dc ⊙ gates p t input "),
    ("dc ⊙ cell p t.-1", "dc ⊙ cell p t"),  # c_t for c_{t-1}
    ("dc ⊙ gates p t input", "dc ⊙ gates p t forget"),
    ("s.1 ⊙ map_mx tau (cell p t)", "s.1 ⊙ cell p t"),
    ("end ⊙ slope z (a p t z).", "end ⊙ (let _ := slope z in const_mx 1)."),  # slope missing
    ("delta t s z *m W p z,", "delta t s z *m (W p z)^T,"),
    ("cell_gradient t s ⊙ gates p t forget).", "cell_gradient t s)."),
    ("(delta t (s t) z)^T *m x p t;", "(delta t (s t) z)^T *m x p t.-1;"),
    ("(delta t (s t) z)^T *m h p t.-1;", "(delta t (s t) z)^T *m h p t;"),
    ("row_sum (delta t (s t) z);", "row_sum (delta T (s T) z);"),
    ("h0 := first.1;", "h0 := first.2;"),
    ("c0 := first.2;", "c0 := first.1;"),
    ("delta t (s t) z *m U p z ", "delta t.+1 (s t.+1) z *m U p z "),
    ("output_weight_gradient g T (h p);", "output_weight_gradient g T (cell p);"),
    ("run_after (step Sigma Tau P) constants (T - k) in",
     "run_after (step Sigma Tau P) constants (T - k.+1) in"),
    *TRUNCATED,
)  # fmt: skip
GRU = (
    ("*m (W p z)^T + rows B (b p z).", "*m W p z + rows B (b p z)."),
    ("Definition gate_value z := map_mx sigma (gate_sum z).",
     "Definition gate_value z := map_mx tau (gate_sum z)."),
    ("then recurrent else gate_value reset ⊙ recurrent).", "then recurrent else recurrent)."),
    ("map_mx tau candidate_sum.", "candidate_sum."),
    ("⊙ candidate_value + gate_value update ⊙ y.", "⊙ candidate_value + y."),
    ("s ⊙ (const_mx 1 - z p t) ⊙", "s ⊙ z p t ⊙"),
    ("⊙ map_mx tau' (a p t candidate).", "⊙ (let _ := tau' in const_mx 1)."),  # slope missing
    ("s ⊙ (h p t.-1 - n p t)", "s ⊙ (h p t - n p t)"),  # h_t for h_{t-1}
    ("then delta_n t s else delta_n t s ⊙ r p t.", "then delta_n t s else delta_n t s."),
    ("then delta_n t s *m W p candidate ⊙ h p t.-1", "then delta_n t s ⊙ h p t.-1"),
    ("else delta_n t s ⊙ recurrent p t (h p t.-1).", "else delta_n t s ⊙ h p t.-1."),
    ("to_r t s ⊙ map_mx sigma' (a p t reset)", "to_r t s ⊙ map_mx sigma' (a p t update)"),
    ("then delta_n t s *m W p candidate ⊙ r p t", "then (delta_n t s ⊙ r p t) *m W p candidate"),
    ("else delta_W t s *m W p candidate.", "else delta_n t s *m W p candidate."),
    ("s ⊙ z p t + delta", "delta"),  # the state's own path dropped
    ("+ through_n t s.", "."),  # the candidate's path dropped
    ("delta t s update *m W p update\n", "delta t s update *m (W p update)^T\n"),
    ("(delta_W t (s t))^T *m q p t", "(delta_W t (s t))^T *m h p t.-1"),
    ("(delta t (s t) z)^T *m h p t.-1;", "(delta t (s t) z)^T *m h p t;"),
    ("(delta t (s t) z)^T *m x p t;", "(delta t (s t) z)^T *m x p t.-1;"),
    ("b := fun z => \\sum_(1 <= t < T.+1) row_sum (delta t (s t) z);", "b := fun z => 0;"),
    ("row_sum (delta_W t (s t));", "row_sum (delta t (s t) candidate);"),
    ("h0 := first;", "h0 := s 1%N;"),
    ("delta t (s t) z *m U p z ", "delta t.+1 (s t.+1) z *m U p z "),
    ("(fun t => map_mx (@constant R) (h t)) (T - k) in",
     "(fun t => map_mx (@constant R) (h t)) (T - k.+1) in"),
    *TRUNCATED,
)  # fmt: skip
LOSSES = (
    ("nu * sum_entries (map_mx (fun r => r * r) residual).  (* (L1)",
     "sum_entries (map_mx (fun r => r * r) residual).  (* (L1)"),  # the sum for the mean
    ("(nu + nu) *: residual.", "nu *: residual."),  # without the 2
    ("half * sum_entries (map_mx (fun r => r * r) residual).",
     "(let _ := half in sum_entries (map_mx (fun r => r * r) residual))."),
    ("half_sse_gradient := residual.", "half_sse_gradient := y - prediction."),
    ("map_mx magnitude residual", "map_mx (fun r => r) residual"),
    ("nu *: map_mx sign residual.", "map_mx sign residual."),
    ("limited r * (r - half * limited r)", "limited r * (r - (let _ := half in limited r))"),
    ("nu *: map_mx limited residual.", "(let _ := limited in nu *: residual)."),
    ("- (nu * sum_entries (y ⊙ log_softmax shift)).", "nu * sum_entries (y ⊙ log_softmax shift)."),
    ("- log (\\sum_k exp (prediction i k - shift i))).",
     "- log (exp (prediction i j - shift i)))."),  # not normalised
    ("nu *: (map_mx exp (log_softmax shift) - y).", "nu *: (y - map_mx exp (log_softmax shift))."),
    ("log (1 + exp (- magnitude (prediction i j)))", "log (1 + exp (magnitude (prediction i j)))"),
    ("nu *: (map_mx sigmoid prediction - y).", "nu *: (map_mx sigmoid prediction)."),
)  # fmt: skip
# What is computed, on lists, is the same by a proof of its own.
LISTS = (
    ("rnn_lists", "times B H H (delta t s) (W p).", "linear B H H (delta t s) (W p)."),
    ("rnn_lists", "(delta t (s t)) (h t.-1)", "(delta t (s t)) (h t)"),
    ("lists", "then zero else s.", "then s else zero."),
    ("jacobian_sum_lists", "entry slopes i l)) (rnn_lists.W net)",
     "entry slopes j l)) (rnn_lists.W net)"),
    ("rtrl_lists", "(linear B H H previous (rnn_lists.W net)).",
     "(times B H H previous (rnn_lists.W net))."),
    ("lstm_lists", "forget => f | candidate => g", "forget => g | candidate => f"),
    ("lstm_lists", "(lgates t forget)).", "(lgates t input))."),
    ("gru_lists", "(list_delta_n t s) (lr t).", "(list_delta_n t s) (lz t)."),
    ("gru_lists", "(had B H s (lz t)) (times", "(had B H s (lr t)) (times"),
    ("losses_lists", "fun r => (nu + nu) * r", "fun r => nu * r"),
    ("losses_lists", "maximum (entry prediction i j) 0 + log", "maximum 0 0 + log"),
)  # fmt: skip
TABLES = {
    "sweep": SWEEP, "cells": CELLS, "rnn": RNN, "jacobian_sum": JACOBIAN_SUM, "rtrl": RTRL,
    "lstm": LSTM, "gru": GRU, "losses": LOSSES,
}  # fmt: skip
PLANTED = [
    PlantedMistake(file, *change) for file, changes in TABLES.items() for change in changes
] + [PlantedMistake(*change) for change in LISTS]
