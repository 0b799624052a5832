(** The losses and their gradients, computed on lists: equal to those of the theorems. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing lists losses.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (maximum : R -> R -> R) (exp log sign sigmoid : R -> R) (nu half : R).
Variables (m n : nat) (prediction y : table R).
Local Notation P := (mx m n prediction).
Local Notation Y := (mx m n y).

Definition list_residual := sub m n prediction y.
Definition list_sum (A : table R) := sum_to m (fun i => sum_to n (entry A i)).
Definition list_scale (A : table R) := map_table m n (fun r => nu * r) A.

Definition list_mse := nu * list_sum (map_table m n (fun r => r * r) list_residual).
Definition list_half_sse := half * list_sum (map_table m n (fun r => r * r) list_residual).
Definition list_mae := nu * list_sum (map_table m n (magnitude maximum) list_residual).
Definition list_huber := nu * list_sum (map_table m n
  (fun r => limited maximum r * (r - half * limited maximum r)) list_residual).

(** The largest entry of row i. *)
Definition row_maximum i := foldr maximum (entry prediction i 0) (nth [::] prediction i).
Definition list_log_softmax := build m n (fun i j =>
  entry prediction i j - row_maximum i
  - log (sum_to n (fun k => exp (entry prediction i k - row_maximum i)))).
Definition list_softmax_cross_entropy := - (nu * list_sum (had m n y list_log_softmax)).
Definition list_binary_cross_entropy := nu * list_sum (build m n (fun i j =>
  maximum (entry prediction i j) 0 + log (1 + exp (- magnitude maximum (entry prediction i j)))
  - entry y i j * entry prediction i j)).

Definition list_mse_gradient := map_table m n (fun r => (nu + nu) * r) list_residual.
Definition list_half_sse_gradient := list_residual.
Definition list_mae_gradient := list_scale (map_table m n sign list_residual).
Definition list_huber_gradient := list_scale (map_table m n (limited maximum) list_residual).
Definition list_softmax_gradient := list_scale (sub m n (map_table m n exp list_log_softmax) y).
Definition list_binary_gradient := list_scale (sub m n (map_table m n sigmoid prediction) y).

Lemma list_sumE A : list_sum A = sum_entries (mx m n A).
Proof.
rewrite /list_sum sum_toE; apply: eq_bigr => i _; rewrite sum_toE.
by apply: eq_bigr => j _; rewrite mxE_entry.
Qed.

Lemma mx_residual : mx m n list_residual = P - Y.
Proof. exact: mx_sub. Qed.

Lemma mx_scale (a : R) (A : table R) :
  mx m n (map_table m n (fun r => a * r) A) = a *: mx m n A.
Proof. by rewrite mx_map; apply/matrixP => i j; rewrite !mxE. Qed.

Local Notation shift := (fun i : 'I_m => row_maximum i).

Lemma mx_log_softmax : mx m n list_log_softmax = log_softmax exp log P shift.
Proof.
apply/matrixP => i j; rewrite mxE entry_build [RHS]mxE mxE_entry sum_toE.
by congr (_ - log _); apply: eq_bigr => k _; rewrite mxE_entry.
Qed.

(** What is computed on lists is each loss of the theorems. *)
Theorem losses_computed :
  [/\ list_mse = mse nu P Y, list_half_sse = half_sse half P Y, list_mae = mae maximum nu P Y,
      list_huber = huber maximum nu half P Y &
      list_softmax_cross_entropy = softmax_cross_entropy exp log nu P Y shift
      /\ list_binary_cross_entropy = binary_cross_entropy maximum exp log nu P Y].
Proof.
split; last split.
- by rewrite /list_mse list_sumE mx_map mx_residual.
- by rewrite /list_half_sse list_sumE mx_map mx_residual.
- by rewrite /list_mae list_sumE mx_map mx_residual.
- by rewrite /list_huber list_sumE mx_map mx_residual.
- by rewrite /list_softmax_cross_entropy list_sumE mx_had mx_log_softmax.
rewrite /list_binary_cross_entropy list_sumE; congr (_ * sum_entries _); apply/matrixP => i j.
by rewrite !mxE entry_build.
Qed.

(** What is computed on lists is each loss's gradient of the theorems. *)
Theorem loss_gradients_computed :
  [/\ mx m n list_mse_gradient = mse_gradient nu P Y,
      mx m n list_half_sse_gradient = half_sse_gradient P Y,
      mx m n list_mae_gradient = mae_gradient nu P Y sign,
      mx m n list_huber_gradient = huber_gradient maximum nu P Y &
      mx m n list_softmax_gradient = softmax_gradient exp log nu P Y shift
      /\ mx m n list_binary_gradient = binary_gradient nu P Y sigmoid].
Proof.
split; last split.
- by rewrite mx_scale mx_residual.
- exact: mx_residual.
- by rewrite mx_scale mx_map mx_residual.
- by rewrite mx_scale mx_map mx_residual.
- by rewrite mx_scale mx_sub mx_map mx_log_softmax.
by rewrite mx_scale mx_sub mx_map.
Qed.
End Lists.
