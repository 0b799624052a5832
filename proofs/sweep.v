(** The sweep back through time, for any cell.

    A cell has states s_0, …, s_T. The sweep needs to know [back t], which takes ∂L/∂s_t to what it
    passes on to ∂L/∂s_{t-1}, and [entering t], the gradient that enters s_t from its own output. *)

From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** The cotangents of a model with one output, after step T: zero at every other step. *)
Definition at_end (S : zmodType) (T : nat) (g : S) (t : nat) : S := if t == T then g else 0.

Lemma sum_at_end (S R : zmodType) (F : nat -> S -> R) (T : nat) (g : S) :
  (forall t, F t 0 = 0) -> (0 < T)%N ->
  \sum_(1 <= t < T.+1) F t (at_end T g t) = F T g.
Proof.
move=> F0 T_gt0; rewrite big_nat_recr //= /at_end eqxx big_nat_cond big1 ?add0r // => t.
by rewrite andbT => /andP[_ /ltn_eqF ->].
Qed.

Section Sweep.
Variables (S : zmodType) (back : nat -> S -> S) (entering : nat -> S) (T : nat).

(** What comes back through time to s_{T-k}. *)
Fixpoint after_steps (k : nat) : S :=
  if k is j.+1 then back (T - j) (after_steps j + entering (T - j)) else 0.

Definition from_later (t : nat) : S := after_steps (T - t).

(** ∂L/∂s_t: through later states, and through the output of its own step. *)
Definition state_gradient (t : nat) : S := from_later t + entering t.  (* (O1) *)

Lemma from_later_end : from_later T = 0.
Proof. by rewrite /from_later subnn. Qed.

Lemma from_later_step t : (t < T)%N -> from_later t = back t.+1 (state_gradient t.+1).
Proof.
move=> lt_tT; rewrite /state_gradient /from_later -(subnSK lt_tT) /=.
by rewrite subKn.
Qed.

(** Where the adjoint of one step is right, that of the whole sequence is. *)
Section Telescope.
Variables (R : zmodType) (pairing : S -> nat -> R) (contribution : nat -> S -> R).
Hypothesis pairing_additive : forall t s s', pairing (s + s') t = pairing s t + pairing s' t.
Hypothesis step : forall t s,
  pairing s t.+1 = contribution t.+1 s + pairing (back t.+1 s) t.

Lemma sweep_adjoint :
  \sum_(1 <= t < T.+1) pairing (entering t) t
  = \sum_(1 <= t < T.+1) contribution t (state_gradient t) + pairing (from_later 0) 0.
Proof.
have pairing0 t : pairing 0 t = 0.
  by apply: (@addrI _ (pairing 0 t)); rewrite -pairing_additive !addr0.
suff partial n : (n <= T)%N ->
    \sum_(1 <= t < n.+1) pairing (entering t) t + pairing (from_later n) n
    = \sum_(1 <= t < n.+1) contribution t (state_gradient t) + pairing (from_later 0) 0.
  by rewrite -partial // from_later_end pairing0 addr0.
elim: n => [|n IHn] lt_nT; first by rewrite !big_geq.
rewrite !(big_nat_recr n.+1) //= -addrA [X in _ + X]addrC -pairing_additive.
rewrite -/(state_gradient n.+1) step -from_later_step // addrCA IHn 1?ltnW //.
by rewrite addrCA addrA.
Qed.
End Telescope.
End Sweep.
