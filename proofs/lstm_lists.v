(** The gradient of the LSTM, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells lists.
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

Section Step.
Variables (t : nat) (y : table * table).

Definition list_gate_value z := list_activate z (list_preactivation t y.1 z).
Definition list_next_cell :=
  add B H (had B H (list_gate_value forget) y.2)
    (had B H (list_gate_value input) (list_gate_value candidate)).
Definition list_step : table * table :=
  (had B H (list_gate_value output) (map_table B H tau list_next_cell), list_next_cell).
End Step.

Definition list_states := run list_step (lh0 p, lc0 p).

(** The sweep back, along states that are computed once. *)
Section Trace.
Variable trace : nat -> table * table.

Definition lh t := (trace t).1.
Definition lcell t := (trace t).2.
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
Definition list_back t (s : table * table) : table * table :=
  (sum_over B H blocks (fun z => times B H H (list_delta t s z) (lW p z)),
   had B H (list_cell_gradient t s) (lgates t forget)).
Definition plus (s s' : table * table) := (add B H s.1 s'.1, add B H s.2 s'.2).
Definition zero : table * table := ([::], [::]).

(** The value of each gate, computed once. *)
Definition memo_gates (F : gate -> table) : gate -> table :=
  let i := F input in let f := F forget in let g := F candidate in let o := F output in
  fun z => match z with input => i | forget => f | candidate => g | output => o end.

Definition list_sums (first : table * table) (s : nat -> table * table) : list_params :=
  let e := memo T (fun t => memo_gates (list_delta t (s t))) in {|
  lU := fun z => sum_steps H D T (fun t => outer B H D (e t z) (at_step (lx p) t));
  lW := fun z => sum_steps H H T (fun t => outer B H H (e t z) (lh t.-1));
  lV := list_output_weight_gradient B H O T (at_step g) lh;
  lb := fun z => sum_steps 1 H T (fun t => total B H (e t z));
  lc := list_output_bias_gradient B O T (at_step g);
  lh0 := first.1;
  lc0 := first.2;
  lx := mkseq (fun t => sum_over B D blocks (fun z => times B H D (e t.+1 z) (lU p z))) T
|}.

Definition gradient_along := list_sums (list_from_later plus zero T list_entering list_back 0)
  (list_state_gradient plus zero T list_entering list_back).
Definition truncated_along k :=
  list_sums (list_cut_first_gradient plus zero T list_entering k list_back)
    (list_cut_state_gradient plus zero T list_entering k list_back).

Definition mx2 (s : table * table) : 'M[R]_(B, H) * 'M[R]_(B, H) := (mx B H s.1, mx B H s.2).

Lemma mx_gate_value t y z : mx B H (list_gate_value t y z) = gate_value sigma tau P t (mx2 y) z.
Proof. by rewrite !mx_rules. Qed.

Lemma mx_states t : mx2 (list_states t) = states sigma tau P t.
Proof.
elim: t => // t IHt; rewrite -[RHS]/(step sigma tau P t.+1 (states sigma tau P t)) -IHt.
by rewrite /mx2 /= !mx_rules.
Qed.

Hypothesis traceE : forall t, trace t = list_states t.

Lemma mx_lh t : mx B H (lh t) = h sigma tau P t.
Proof. by rewrite /h -mx_states /lh traceE. Qed.

Lemma mx_lcell t : mx B H (lcell t) = cell sigma tau P t.
Proof. by rewrite /cell -mx_states /lcell traceE. Qed.

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
congr (_, _); last by rewrite [LHS]mx_had mx_cell_gradient mx_lgates.
by rewrite [LHS]mx_sum_over; apply: eq_bigr => z _; rewrite mx_times mx_delta.
Qed.

Lemma mx_entering t : mx2 (list_entering t) = entering P G t.
Proof. by rewrite /mx2 /= mx_times mx0. Qed.

Lemma mx_plus s s' : mx2 (plus s s') = mx2 s + mx2 s'.
Proof. by rewrite /mx2 /= !mx_add. Qed.

Lemma mx_zero : mx2 zero = 0.
Proof. by rewrite /mx2 /= !mx0. Qed.

(** The results r are those of the theorems, E. *)
Definition equals (r : list_params) (E : params R B D H O) :=
  [/\ forall z, mx H D (lU r z) = U E z, forall z, mx H H (lW r z) = W E z,
      mx O H (lV r) = V E, forall z, mx 1 H (lb r z) = b E z &
  [/\ mx 1 O (lc r) = c E, mx B H (lh0 r) = h0 E, mx B H (lc0 r) = c0 E &
      forall t, (0 < t <= T)%N -> mx B D (at_step (lx r) t) = x E t]].

Lemma sums_computed first s first_S s_S :
  mx2 first = first_S -> (forall t, mx2 (s t) = s_S t) ->
  equals (list_sums first s) (sums sigma sigma' tau tau' P G T first_S s_S).
Proof.
move=> mx_first mx_s.
have mx_e t z : mx B H (memo T (fun t => memo_gates (list_delta t (s t))) t z)
    = delta sigma sigma' tau tau' P t (s_S t) z.
  by rewrite memoE -mx_s -mx_delta /memo_gates; case: z.
split; [move=> z | move=> z | | move=> z | split; last case=> // t /andP[_ lt_tT]].
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_e.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_e mx_lh.
- by rewrite mx_output_weight_gradient; apply: eq_bigr => t _; rewrite mx_lh.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_e.
- exact: mx_output_bias_gradient.
- by rewrite /= -mx_first.
- by rewrite /= -mx_first.
rewrite /at_step nth_mkseq // mx_sum_over; apply: eq_bigr => z _.
by rewrite mx_times mx_e.
Qed.

Lemma gradient_along_computed : equals gradient_along (gradient sigma sigma' tau tau' P G T).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_from_later T mx_plus mx_zero mx_entering mx_back).
exact: (meaning_state_gradient T mx_plus mx_zero mx_entering mx_back).
Qed.

Lemma truncated_along_computed k :
  equals (truncated_along k) (truncated sigma sigma' tau tau' P G T k).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_cut_first_gradient T mx_plus mx_zero mx_entering k mx_back).
exact: (meaning_cut_state_gradient T mx_plus mx_zero mx_entering k mx_back).
Qed.
End Trace.

Definition list_gradient := gradient_along (memo T list_states).
Definition list_truncated := truncated_along (memo T list_states).

(** What is computed on lists is the gradient of the theorem. *)
Theorem lstm_gradient_computed : equals list_gradient (gradient sigma sigma' tau tau' P G T).
Proof. exact: (gradient_along_computed (memoE _ _)). Qed.

(** What is computed on lists is the truncated gradient of the theorem. *)
Theorem lstm_truncated_computed k :
  equals (list_truncated k) (truncated sigma sigma' tau tau' P G T k).
Proof. exact: (truncated_along_computed (memoE _ _)). Qed.
End Lists.
