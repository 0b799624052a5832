(** The sum over Jacobians gives the gradients of the RNN's sweep. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells rnn.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section JacobianSum.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O : nat) (net : params R B D H O).
Variables (e : 'M[R]_(B, O)) (T : nat).  (* ∂L/∂ŷ, and the step of the output *)
Local Notation a := (a phi net).
Local Notation h := (h phi net).

(** The direct derivatives of state j at step k, in the sequence of row i. *)
Definition dh_dW k i j (r q : 'I_H) : R :=
  phi' (a k i j) * (j == r)%:R * h k.-1 i q.  (* (J1)  φ′(a_k) 1 h_{k-1} *)
Definition dh_dU k i j (r : 'I_H) q : R :=
  phi' (a k i j) * (j == r)%:R * x net k i q.  (* (J2)  φ′(a_k) 1 x_k *)
Definition dh_db k i j (r : 'I_H) : R := phi' (a k i j) * (j == r)%:R.  (* (J3)  φ′(a_k) 1 *)

(** ∂h_T/∂h_{T-n} in the sequence of row i. *)
Fixpoint jacobian (i : 'I_B) (n : nat) : 'M[R]_H :=
  if n is m.+1 then
    jacobian i m *m diag_mx (\row_j phi' (a (T - m) i j)) *m W net  (* (J4)  one factor more *)
  else 1%:M.

(** ∂L/∂ŷ V ∂h_T/∂h_k in the sequence of row i. *)
Definition dL_dh k i : 'rV[R]_H := row i e *m V net *m jacobian i (T - k).

Definition sum_over_jacobians (direct : nat -> 'I_B -> 'I_H -> R) : R :=
  \sum_(1 <= k < T.+1) \sum_i \sum_j dL_dh k i 0 j * direct k i j.  (* (J5)  Σ_k term k *)

Definition jacobian_sum_W := \matrix_(r, q) sum_over_jacobians (fun k i j => dh_dW k i j r q).
Definition jacobian_sum_U := \matrix_(r, q) sum_over_jacobians (fun k i j => dh_dU k i j r q).
Definition jacobian_sum_b := \row_r sum_over_jacobians (fun k i j => dh_db k i j r).

Let hidden := hidden_gradient phi phi' net (at_end T e) T.

Lemma dL_dhE k i : (0 < k <= T)%N -> dL_dh k i = row i (hidden k).
Proof.
suff back_from_T n : (n < T)%N -> row i e *m V net *m jacobian i n = row i (hidden (T - n)).
  move=> /andP[k_gt0 le_kT]; rewrite /dL_dh back_from_T ?subKn //.
  by rewrite ltn_subrL k_gt0 (leq_trans _ le_kT).
elim: n => [|n IHn] lt_nT.
  rewrite subn0 /= mulmx1 /hidden /hidden_gradient /state_gradient from_later_end add0r.
  by rewrite /entering /enter_state /at_end eqxx row_mul.
have lt_T : (T - n.+1 < T)%N by rewrite ltn_subrL (leq_trans _ lt_nT).
have lt_n := ltnW lt_nT; rewrite /= !mulmxA IHn // /hidden /hidden_gradient [in RHS]/state_gradient.
rewrite from_later_step // subnSK // /entering /enter_state /at_end (ltn_eqF lt_T) mul0mx addr0.
rewrite /back row_mul; congr (_ *m _); apply/rowP => j.
by rewrite mul_mx_diag !mxE.
Qed.

Lemma sum_over_direct (f : nat -> 'I_B -> R) (r : 'I_H) :
  sum_over_jacobians (fun k i j => phi' (a k i j) * (j == r)%:R * f k i)
  = \sum_(1 <= k < T.+1) \sum_i adjoint phi phi' net (at_end T e) T k i r * f k i.
Proof.
apply: eq_big_nat => k le_kT; apply: eq_bigr => i _.
rewrite dL_dhE // (bigD1 r) //= big1 => [|j /negPf ->]; last by rewrite mulr0 mul0r mulr0.
by rewrite eqxx mulr1 addr0 mulrA !mxE.
Qed.

(** The sum over Jacobians gives the gradients of the sweep. *)
Theorem jacobian_sum_is_the_sweep : let E := gradient phi phi' net (at_end T e) T in
  [/\ jacobian_sum_U = U E, jacobian_sum_W = W E & jacobian_sum_b = b E].
Proof.
split; [apply/matrixP => r q | apply/matrixP => r q | apply/rowP => r]; rewrite [LHS]mxE.
- rewrite sum_over_direct summxE; apply: eq_bigr => k _; rewrite [RHS]mxE.
  by apply: eq_bigr => i _; rewrite [in RHS]mxE.
- rewrite sum_over_direct summxE; apply: eq_bigr => k _; rewrite [RHS]mxE.
  by apply: eq_bigr => i _; rewrite [in RHS]mxE.
transitivity (sum_over_jacobians (fun k i j => phi' (a k i j) * (j == r)%:R * 1)).
  by apply: eq_bigr => k _; apply: eq_bigr => i _; apply: eq_bigr => j _; rewrite mulr1.
rewrite (sum_over_direct (fun _ _ => 1)) summxE; apply: eq_bigr => k _; rewrite [RHS]mxE.
by apply: eq_bigr => i _; rewrite mulr1.
Qed.
End JacobianSum.
