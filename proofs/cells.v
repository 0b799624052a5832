(** What the cells share: the outputs, and the weights of the pre-activations. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** * The output of each step, and what its cotangents pass back to V, c and h_t *)
Section Output.
Variables (R : comRingType) (B H O : nat) (V : 'M[R]_(O, H)).

Definition read_out (c : 'rV[R]_O) (h : 'M[R]_(B, H)) : 'M[R]_(B, O) :=
  h *m V^T + rows B c.  (* (F3)  ŷ_t = V h_t + c *)

Variables (g : nat -> 'M[R]_(B, O)) (T : nat).

Definition enter_state t := g t *m V.  (* (B1)  Vᵀ ∂L/∂ŷ *)

Definition output_weight_gradient (h : nat -> 'M[R]_(B, H)) :=
  \sum_(1 <= t < T.+1) (g t)^T *m h t.  (* (B6)  ∂L/∂ŷ hᵀ *)

Definition output_bias_gradient := \sum_(1 <= t < T.+1) row_sum (g t).  (* (B8)  ∂L/∂ŷ *)
End Output.

(** What one block of weights adds to the pairing of the gradient with the direction, where [e] is
    the adjoint of x Uᵀ + b, and [e_W] that of y Wᵀ. *)
Definition contribution (R : comRingType) (B D H : nat) (x : 'M[R]_(B, D)) (U : 'M_(H, D)) dU
    (dW : 'M_H) db dx (y e e_W : 'M_(B, H)) : R :=
  ⟨e^T *m x, dU⟩ + ⟨e_W^T *m y, dW⟩ + ⟨row_sum e, db⟩ + ⟨e *m U, dx⟩.

Section Rules.
Variables (R : comRingType) (B D H O T : nat).
Local Notation dual := (dual_comRingType R).

Lemma read_out_adjoint (g : nat -> 'M[R]_(B, O)) (V : 'M[dual]_(O, H)) c h :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (read_out V c (h t))⟩
  = ⟨output_weight_gradient g T (fun t => re_mx (h t)), ep_mx V⟩
    + ⟨output_bias_gradient g T, ep_mx c⟩
    + \sum_(1 <= t < T.+1) ⟨enter_state (re_mx V) g t, ep_mx (h t)⟩.
Proof.
rewrite !inner_suml -!big_split; apply: eq_bigr => t _.
by rewrite back_sum back_linear back_rows addrAC.
Qed.

Lemma contribution0 (x : 'M[R]_(B, D)) (U : 'M_(H, D)) dU (dW : 'M_H) db dx y :
  contribution x U dU dW db dx y 0 0 = 0.
Proof. by rewrite /contribution trmx0 !mul0mx row_sum0 !inner0l !addr0. Qed.

Variables (x dx : nat -> 'M[R]_(B, D)).

Lemma sum_contributions U dU (dW : 'M_H) db y e e_W :
  \sum_(1 <= t < T.+1) contribution (x t) U dU dW db (dx t) (y t) (e t) (e_W t)
  = ⟨\sum_(1 <= t < T.+1) (e t)^T *m x t, dU⟩ + ⟨\sum_(1 <= t < T.+1) (e_W t)^T *m y t, dW⟩
    + ⟨\sum_(1 <= t < T.+1) row_sum (e t), db⟩ + \sum_(1 <= t < T.+1) ⟨e t *m U, dx t⟩.
Proof. by rewrite !inner_suml -!big_split. Qed.

(** The same for the blocks of all gates. *)
Lemma sum_block_contributions (Z : Type) (blocks : seq Z) U dU (dW : Z -> 'M_H) db y e e_W :
  \sum_(1 <= t < T.+1) \sum_(z <- blocks)
     contribution (x t) (U z) (dU z) (dW z) (db z) (dx t) (y z t) (e t z) (e_W t z)
  = \sum_(z <- blocks)
      (⟨\sum_(1 <= t < T.+1) (e t z)^T *m x t, dU z⟩
       + ⟨\sum_(1 <= t < T.+1) (e_W t z)^T *m y z t, dW z⟩
       + ⟨\sum_(1 <= t < T.+1) row_sum (e t z), db z⟩)
    + \sum_(1 <= t < T.+1) ⟨\sum_(z <- blocks) e t z *m U z, dx t⟩.
Proof.
rewrite exchange_big; under eq_bigr do rewrite sum_contributions.
rewrite big_split /=; congr (_ + _); rewrite exchange_big.
by apply: eq_bigr => t _; rewrite inner_suml.
Qed.
End Rules.

(** * Consequences of a theorem on all outputs Y_t: the ε-part of Σ ⟨g_t, Y_t⟩ is F(g). *)
Section Consequences.
Variables (R : comRingType) (B O T : nat) (Y : nat -> 'M[dual_comRingType R]_(B, O)).
Variable F : (nat -> 'M[R]_(B, O)) -> R.
Hypothesis all_outputs : forall g, \sum_(1 <= t < T.+1) ⟨g t, ep_mx (Y t)⟩ = F g.

Lemma last_output e : (0 < T)%N -> ⟨e, ep_mx (Y T)⟩ = F (at_end T e).
Proof.
move=> T_gt0; rewrite -all_outputs.
by rewrite (sum_at_end (F := fun t s => ⟨s, ep_mx (Y t)⟩)) // => t; rewrite inner0l.
Qed.

(** A loss of each output, whose gradient at that output is g_t. *)
Lemma losses_of_outputs (loss : nat -> 'M[dual_comRingType R]_(B, O) -> dual_comRingType R) g :
  (forall t, (0 < t <= T)%N -> has_gradient (loss t) (g t) (Y t)) ->
  ep (\sum_(1 <= t < T.+1) loss t (Y t)) = F g.
Proof.
move=> correct; rewrite -all_outputs raddf_sum.
by apply: eq_big_nat => t le_tT; rewrite -correct.
Qed.
End Consequences.
