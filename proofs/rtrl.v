(** The forward recursion, real-time recurrent learning, gives the gradients of the RNN's sweep. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells rnn.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section ForwardRecursion.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O : nat) (net : params R B D H O).
Variables (e : 'M[R]_(B, O)) (T : nat).  (* ∂L/∂ŷ, and the step of the output *)
Local Notation state := 'M[R]_(B, H).
Local Notation a := (a phi net).
Local Notation h := (h phi net).

(** ∂a_t/∂U_rq, ∂a_t/∂W_rq and ∂a_t/∂b_r in all sequences, from ∂h_{t-1} by the same weight: the
    direct part, and the part through h_{t-1}. *)
Definition da_dU (r : 'I_H) (q : 'I_D) t (previous : state) : state :=
  \matrix_(i, j) ((j == r)%:R * x net t i q) + previous *m (W net)^T.  (* (R1) *)
Definition da_dW (r q : 'I_H) t (previous : state) : state :=
  \matrix_(i, j) ((j == r)%:R * h t.-1 i q) + previous *m (W net)^T.  (* (R2) *)
Definition da_db (r : 'I_H) (t : nat) (previous : state) : state :=
  \matrix_(i, j) (j == r)%:R + previous *m (W net)^T.  (* (R3) *)

(** ∂h_t by a weight, carried forward from ∂h_0 = 0. *)
Definition sensitivity (da : nat -> state -> state) : nat -> state :=
  run (fun t previous => map_mx phi' (a t) ⊙ da t previous) 0.  (* (R4)  φ′(a_t) ∂a_t *)

Definition dL_dtheta (da : nat -> state -> state) : R :=
  ⟨e *m V net, sensitivity da T⟩.  (* (R5)  ∂L/∂h_T ∂h_T *)

Definition rtrl_U := \matrix_(r, q) dL_dtheta (da_dU r q).
Definition rtrl_W := \matrix_(r, q) dL_dtheta (da_dW r q).
Definition rtrl_b := \row_r dL_dtheta (da_db r).

Let delta := adjoint phi phi' net (at_end T e) T.

Lemma inner_direct (s : state) (f : 'I_B -> R) (r : 'I_H) :
  ⟨s, \matrix_(i, j) ((j == r)%:R * f i)⟩ = \sum_i s i r * f i.
Proof.
rewrite innerE; apply: eq_bigr => i _; rewrite (bigD1 r) //= big1 => [|j /negPf neq_jr].
  by rewrite mxE eqxx mul1r addr0.
by rewrite mxE neq_jr mul0r mulr0.
Qed.

Lemma dL_dthetaE (direct : nat -> state) : (0 < T)%N ->
  dL_dtheta (fun t previous => direct t + previous *m (W net)^T)
  = \sum_(1 <= t < T.+1) ⟨delta t, direct t⟩.
Proof.
move=> T_gt0; rewrite /dL_dtheta; set dh := sensitivity _.
have := @sweep_adjoint _ (back phi phi' net) (entering net (at_end T e)) T _
  (fun s t => ⟨s, dh t⟩) (fun t s => ⟨rnn.delta phi phi' net t s, direct t⟩).
rewrite inner0r addr0 => <- => [|t s s'|t s]; last 2 first.
- by rewrite innerDl.
- by rewrite /dh /sensitivity /= inner_hadamard innerDr inner_factor.
rewrite /entering /enter_state.
by rewrite (sum_at_end (F := fun t s => ⟨s *m V net, dh t⟩)) // => t; rewrite mul0mx inner0l.
Qed.

(** The forward recursion gives the gradients of the sweep. *)
Theorem rtrl_is_the_sweep : (0 < T)%N -> let E := gradient phi phi' net (at_end T e) T in
  [/\ rtrl_U = U E, rtrl_W = W E & rtrl_b = b E].
Proof.
move=> T_gt0; split; [apply/matrixP => r q | apply/matrixP => r q | apply/rowP => r];
  rewrite [LHS]mxE dL_dthetaE // summxE; apply: eq_bigr => t _; rewrite [RHS]mxE.
- by rewrite inner_direct; apply: eq_bigr => i _; rewrite [in RHS]mxE.
- by rewrite inner_direct; apply: eq_bigr => i _; rewrite [in RHS]mxE.
have -> : \matrix_(i < B, j < H) (j == r)%:R = \matrix_(i, j) ((j == r)%:R * 1) :> 'M[R]_(B, H).
  by apply/matrixP => i j; rewrite !mxE mulr1.
by rewrite (inner_direct _ (fun=> 1)); apply: eq_bigr => i _; rewrite mulr1.
Qed.
End ForwardRecursion.
