(** The gradient of the LSTM, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep lists.
From Bptt Require Import lstm.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (B D H O T : nat).
Local Notation table := (table R).

(** The parameters, and x_1, …, x_T. *)
Record list_params := ListParams { lU : gate -> table; lW : gate -> table; lV : table;
  lb : gate -> table; lc : table; lh0 : table; lc0 : table; lx : seq table }.

Definition meaning (p : list_params) : params R B D H O :=
  Params (fun z => mx _ _ (lU p z)) (fun z => mx _ _ (lW p z)) (mx _ _ (lV p))
    (fun z => mx _ _ (lb p z)) (mx _ _ (lc p)) (mx _ _ (lh0 p)) (mx _ _ (lc0 p))
    (fun t => mx _ _ (at_step (lx p) t)).

Variables (p : list_params) (g : seq table).  (* the cotangents of ŷ_1, …, ŷ_T *)
Let P := meaning p.
Let G t : 'M[R]_(B, O) := mx B O (at_step g t).

Definition list_preactivation t y z :=
  add B H (add B H (linear B D H (at_step (lx p) t) (lU p z)) (linear B H H y (lW p z)))
    (bias B H (lb p z)).
Definition list_activate z := map_table B H (if z is candidate then tau else sigma).
Definition list_slope z := map_table B H (if z is candidate then tau' else sigma').

Fixpoint list_states t : table * table :=
  if t is s.+1 then
    let: (h, cell) := list_states s in
    let gates z := list_activate z (list_preactivation t h z) in
    let next := add B H (had B H (gates forget) cell) (had B H (gates input) (gates candidate)) in
    (had B H (gates output) (map_table B H tau next), next)
  else (lh0 p, lc0 p).

Definition lh t := (list_states t).1.
Definition lcell t := (list_states t).2.
Definition la t z := list_preactivation t (lh t.-1) z.
Definition lgates t z := list_activate z (la t z).

Definition list_entering t : table * table := (times B O H (at_step g t) (lV p), [::]).
Definition list_cell_gradient t (s : table * table) :=
  add B H s.2 (had B H (had B H s.1 (lgates t output)) (map_table B H tau' (lcell t))).
Definition list_delta t (s : table * table) z :=
  let dc := list_cell_gradient t s in
  had B H (match z with
    | input => had B H dc (lgates t candidate)
    | forget => had B H dc (lcell t.-1)
    | candidate => had B H dc (lgates t input)
    | output => had B H s.1 (map_table B H tau (lcell t))
    end) (list_slope z (la t z)).
Definition add_over_gates n (F : gate -> table) :=
  add B n (add B n (add B n (F input) (F forget)) (F candidate)) (F output).
Definition list_back t (s : table * table) : table * table :=
  (add_over_gates H (fun z => times B H H (list_delta t s z) (lW p z)),
   had B H (list_cell_gradient t s) (lgates t forget)).
Definition plus (s s' : table * table) := (add B H s.1 s'.1, add B H s.2 s'.2).
Definition list_adjoint t :=
  list_delta t (list_state_gradient plus ([::], [::]) list_back list_entering T t).

Definition list_gradient : list_params := {|
  lU := fun z => sum_steps H D T (fun t => outer B H D (list_adjoint t z) (at_step (lx p) t));
  lW := fun z => sum_steps H H T (fun t => outer B H H (list_adjoint t z) (lh t.-1));
  lV := sum_steps O H T (fun t => outer B O H (at_step g t) (lh t));
  lb := fun z => sum_steps 1 H T (fun t => total B H (list_adjoint t z));
  lc := sum_steps 1 O T (fun t => total B O (at_step g t));
  lh0 := (list_from_later plus ([::], [::]) list_back list_entering T 0).1;
  lc0 := (list_from_later plus ([::], [::]) list_back list_entering T 0).2;
  lx := mkseq (fun t => add_over_gates D (fun z => times B H D (list_adjoint t.+1 z) (lU p z))) T
|}.

Definition mx2 (s : table * table) : 'M[R]_(B, H) * 'M[R]_(B, H) := (mx B H s.1, mx B H s.2).

Lemma mx_states t : mx2 (list_states t) = states sigma tau P t.
Proof.
elim: t => //= t; case: (list_states t) (states _ _ P t) => [h1 c1] [h2 c2] [<- <-].
by rewrite /mx2 !mx_rules.
Qed.

Lemma mx_lh t : mx B H (lh t) = h sigma tau P t.
Proof. by rewrite /h -mx_states. Qed.

Lemma mx_lcell t : mx B H (lcell t) = cell sigma tau P t.
Proof. by rewrite /cell -mx_states. Qed.

Lemma mx_la t z : mx B H (la t z) = a sigma tau P t z.
Proof. by rewrite /a -mx_lh !mx_rules. Qed.

Lemma mx_lgates t z : mx B H (lgates t z) = gates sigma tau P t z.
Proof. by rewrite mx_map mx_la. Qed.

Lemma mx_cell_gradient t s :
  mx B H (list_cell_gradient t s) = cell_gradient sigma tau tau' P t (mx2 s).
Proof. by rewrite mx_add !mx_had mx_map mx_lgates mx_lcell. Qed.

Lemma mx_delta t s z : mx B H (list_delta t s z) = delta sigma sigma' tau tau' P t (mx2 s) z.
Proof.
rewrite mx_had [mx B H (list_slope _ _)]mx_map mx_la; congr (_ ⊙ _).
by case: z; rewrite mx_had ?mx_cell_gradient ?mx_lgates ?[mx B H (map_table _ _ _ _)]mx_map
  ?mx_lcell.
Qed.

Lemma mx_back t s : mx2 (list_back t s) = back sigma sigma' tau tau' P t (mx2 s).
Proof.
by rewrite /mx2 /list_back /= !mx_add !mx_times !mx_delta mx_had mx_cell_gradient mx_lgates.
Qed.

Lemma mx_entering t : mx2 (list_entering t) = entering P G t.
Proof. by rewrite /mx2 /= mx_times mx0. Qed.

Lemma mx_plus s s' : mx2 (plus s s') = mx2 s + mx2 s'.
Proof. by rewrite /mx2 /= !mx_add. Qed.

Lemma mx_zero : mx2 ([::], [::]) = 0.
Proof. by rewrite /mx2 /= !mx0. Qed.

Lemma mx_adjoint t z : mx B H (list_adjoint t z) = adjoint sigma sigma' tau tau' P G T t z.
Proof.
rewrite mx_delta /adjoint.
by rewrite -(meaning_state_gradient T mx_plus mx_zero mx_back mx_entering).
Qed.

(** Every gradient that is computed is that of the theorem. *)
Theorem lstm_gradient_computed : let E := gradient sigma sigma' tau tau' P G T in
  [/\ forall z, mx H D (lU list_gradient z) = U E z, forall z, mx H H (lW list_gradient z) = W E z,
      mx O H (lV list_gradient) = V E, forall z, mx 1 H (lb list_gradient z) = b E z &
   [/\ mx 1 O (lc list_gradient) = c E, mx B H (lh0 list_gradient) = h0 E,
       mx B H (lc0 list_gradient) = c0 E &
       forall t, (0 < t <= T)%N -> mx B D (at_step (lx list_gradient) t) = x E t]].
Proof.
have first := meaning_from_later T mx_plus mx_zero mx_back mx_entering 0.
split; [move=> z | move=> z | | move=> z | split; last case=> // t /andP[_ lt_tT]].
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_adjoint.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_adjoint mx_lh.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_lh.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_adjoint.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total.
- by rewrite [RHS]/= -first.
- by rewrite [RHS]/= -first.
by rewrite /at_step nth_mkseq // !mx_add !mx_times !mx_adjoint.
Qed.
End Lists.
