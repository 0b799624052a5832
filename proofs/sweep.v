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

(** The states s_1, s_2, … of a cell, from s_0. *)
Fixpoint run (Y : Type) (step : nat -> Y -> Y) (first : Y) (t : nat) : Y :=
  if t is s.+1 then step s.+1 (run step first s) else first.

(** The states up to step n are given, those after it follow. *)
Fixpoint run_after (Y : Type) (step : nat -> Y -> Y) (given : nat -> Y) (n t : nat) : Y :=
  if t is s.+1 then if (t <= n)%N then given t else step t (run_after step given n s)
  else given 0%N.

Lemma run_after_given (Y : Type) (step : nat -> Y -> Y) given n t :
  (t <= n)%N -> run_after step given n t = given t.
Proof. by case: t => //= t ->. Qed.

Lemma run_after_step (Y : Type) (step : nat -> Y -> Y) given n t :
  (n < t.+1)%N -> run_after step given n t.+1 = step t.+1 (run_after step given n t).
Proof. by rewrite ltnNge /= => /negPf ->. Qed.

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

(** Truncation keeps the gradient through the last k steps. *)
Section Truncation.
Variables (S : zmodType) (back : nat -> S -> S) (entering : nat -> S) (T k : nat).

Definition cut (t : nat) (s : S) : S := if (t <= T - k)%N then 0 else s.  (* (K1) *)
Definition cut_back (t : nat) (s : S) : S := back t (cut t s).

Definition cut_state_gradient (t : nat) : S := cut t (state_gradient cut_back entering T t).
Definition cut_first_gradient : S := from_later cut_back entering T 0.

Hypothesis back0 : forall t, back t 0 = 0.

Lemma cut_after_steps j : (j <= k)%N -> (j <= T)%N ->
  after_steps cut_back entering T j = after_steps back entering T j.
Proof.
elim: j => //= j IHj lt_jk lt_jT; rewrite /cut_back /cut IHj ?(ltnW lt_jk) ?(ltnW lt_jT) //.
by rewrite leqNgt ltn_sub2l.
Qed.

(** The truncated sweep has the gradients of the full one at the last k steps, and zeros before. *)
Lemma cut_state_gradientE t : (t <= T)%N ->
  cut_state_gradient t = cut t (state_gradient back entering T t).
Proof.
move=> le_tT; rewrite /cut_state_gradient /cut; case: (leqP t (T - k)) => // lt_t.
rewrite /state_gradient /from_later cut_after_steps ?leq_subr //.
by rewrite leq_subCl ltnW.
Qed.

Lemma cut_first_gradientE :
  cut_first_gradient = if (T <= k)%N then from_later back entering T 0 else 0.
Proof.
rewrite /cut_first_gradient; case: leqP => [le_Tk | lt_kT].
  by rewrite /from_later subn0 cut_after_steps.
rewrite from_later_step ?(leq_ltn_trans (leq0n k)) // /cut_back /cut subn_gt0 lt_kT.
exact: back0.
Qed.

(** A sum over all steps of the truncated sweep has the last k terms of the full one. *)
Lemma sum_cut (R : zmodType) (F : nat -> S -> R) : (forall t, F t 0 = 0) ->
  \sum_(1 <= t < T.+1) F t (cut_state_gradient t)
  = \sum_((T - k).+1 <= t < T.+1) F t (state_gradient back entering T t).
Proof.
move=> F0; rewrite (@big_cat_nat _ _ _ (T - k).+1) ?ltnS ?leq_subr //= big_nat_cond big1 ?add0r.
  apply: eq_big_nat => t /andP[lt_t lt_tT]; rewrite cut_state_gradientE // /cut leqNgt.
  by rewrite lt_t.
move=> t; rewrite andbT => /andP[_ le_t].
rewrite ltnS in le_t; rewrite cut_state_gradientE; last exact: leq_trans le_t (leq_subr _ _).
by rewrite /cut le_t.
Qed.

(** Where the states up to T − k are constants, the truncated sweep gives the derivative. *)
Section Telescope.
Variables (R : zmodType) (pairing : S -> nat -> R) (contribution : nat -> S -> R).
Hypothesis pairing_additive : forall t s s', pairing (s + s') t = pairing s t + pairing s' t.
Hypothesis contribution0 : forall t, contribution t 0 = 0.
Hypothesis held : forall t s, (t <= T - k)%N -> pairing s t = 0.
Hypothesis step : forall t s, (T - k < t.+1)%N ->
  pairing s t.+1 = contribution t.+1 s + pairing (back t.+1 s) t.

Lemma cut_adjoint :
  \sum_(1 <= t < T.+1) pairing (entering t) t
  = \sum_(1 <= t < T.+1) contribution t (cut_state_gradient t).
Proof.
pose cut_contribution t s := contribution t (cut t s).
have cut_step t s : pairing s t.+1 = cut_contribution t.+1 s + pairing (cut_back t.+1 s) t.
  rewrite /cut_contribution /cut_back /cut; case: (leqP t.+1 (T - k)) => [le_t | /step //].
  by rewrite held // contribution0 back0 held ?addr0 // ltnW.
by rewrite (sweep_adjoint entering T pairing_additive cut_step) held ?leq0n // addr0.
Qed.
End Telescope.
End Truncation.
