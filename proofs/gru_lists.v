(** The gradient of the GRU, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells lists.
From Bptt Require Import gru.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (B D H O : nat) (reset_acts : place).
Variable T : nat.
Local Notation table := (table R).

(** The parameters, and x_1, …, x_T. *)
Record list_params := ListParams { lU : gate -> table; lW : gate -> table; lV : table;
  lb : gate -> table; lb_n : table; lc : table; lh0 : table; lx : seq table }.

Definition meaning (p : list_params) : params R B D H O :=
  Params (fun z => mx _ _ (lU p z)) (fun z => mx _ _ (lW p z)) (mx _ _ (lV p))
    (fun z => mx _ _ (lb p z)) (mx _ _ (lb_n p)) (mx _ _ (lc p)) (mx _ _ (lh0 p))
    (fun t => mx _ _ (at_step (lx p) t)).

Variables (p : list_params) (g : seq table).  (* the cotangents of ŷ_1, …, ŷ_T *)
Let P := meaning p.
Let G t : 'M[R]_(B, O) := mx B O (at_step g t).

Definition list_gate_sum t y z :=
  add B H (add B H (linear B D H (at_step (lx p) t) (lU p z)) (linear B H H y (lW p z)))
    (bias B H (lb p z)).
Definition list_gate_value t y z := map_table B H sigma (list_gate_sum t y z).
Definition list_factor t y :=
  if reset_acts is before then had B H (list_gate_value t y reset) y else y.
Definition list_recurrent t y :=
  add B H (linear B H H (list_factor t y) (lW p candidate)) (bias B H (lb_n p)).
Definition list_candidate_sum t y :=
  add B H
    (add B H (linear B D H (at_step (lx p) t) (lU p candidate)) (bias B H (lb p candidate)))
    (if reset_acts is before then list_recurrent t y
     else had B H (list_gate_value t y reset) (list_recurrent t y)).
Definition list_candidate_value t y := map_table B H tau (list_candidate_sum t y).
Definition list_step t y :=
  add B H
    (had B H (complement B H (list_gate_value t y update)) (list_candidate_value t y))
    (had B H (list_gate_value t y update) y).
Definition list_states := run list_step (lh0 p).

(** The sweep back, along states that are computed once. *)
Section Trace.
Variable lh : nat -> table.

Definition lr t := list_gate_value t (lh t.-1) reset.
Definition lz t := list_gate_value t (lh t.-1) update.
Definition ln t := list_candidate_value t (lh t.-1).

Definition list_entering t := times B O H (at_step g t) (lV p).
Definition list_delta_n t s :=
  had B H (had B H s (complement B H (lz t)))
    (map_table B H tau' (list_candidate_sum t (lh t.-1))).
Definition list_delta_W t s :=
  if reset_acts is before then list_delta_n t s else had B H (list_delta_n t s) (lr t).
Definition list_to_r t s :=
  if reset_acts is before then had B H (times B H H (list_delta_n t s) (lW p candidate)) (lh t.-1)
  else had B H (list_delta_n t s) (list_recurrent t (lh t.-1)).
Definition list_through_n t s :=
  if reset_acts is before then had B H (times B H H (list_delta_n t s) (lW p candidate)) (lr t)
  else times B H H (list_delta_W t s) (lW p candidate).
Definition list_delta t s gate :=
  match gate with
  | reset => had B H (list_to_r t s) (map_table B H sigma' (list_gate_sum t (lh t.-1) reset))
  | update =>
      had B H (had B H s (sub B H (lh t.-1) (ln t)))
        (map_table B H sigma' (list_gate_sum t (lh t.-1) update))
  | candidate => list_delta_n t s
  end.
Definition list_back t s :=
  add B H
    (add B H
      (add B H (had B H s (lz t)) (times B H H (list_delta t s reset) (lW p reset)))
      (times B H H (list_delta t s update) (lW p update)))
    (list_through_n t s).

(** The value of each gate, computed once. *)
Definition memo_gates (F : gate -> table) : gate -> table :=
  let r := F reset in let z := F update in let n := F candidate in
  fun gate => match gate with reset => r | update => z | candidate => n end.

Definition list_sums (first : table) (s : nat -> table) : list_params :=
  let e := memo T (fun t => memo_gates (list_delta t (s t))) in
  let e_W := memo T (fun t => list_delta_W t (s t)) in {|
  lU := fun z => sum_steps H D T (fun t => outer B H D (e t z) (at_step (lx p) t));
  lW := fun z =>
    if z is candidate
    then sum_steps H H T (fun t => outer B H H (e_W t) (list_factor t (lh t.-1)))
    else sum_steps H H T (fun t => outer B H H (e t z) (lh t.-1));
  lV := list_output_weight_gradient B H O T (at_step g) lh;
  lb := fun z => sum_steps 1 H T (fun t => total B H (e t z));
  lb_n := sum_steps 1 H T (fun t => total B H (e_W t));
  lc := list_output_bias_gradient B O T (at_step g);
  lh0 := first;
  lx := mkseq (fun t => sum_over B D blocks (fun z => times B H D (e t.+1 z) (lU p z))) T
|}.

Definition gradient_along :=
  list_sums (list_from_later (add B H) [::] T list_entering list_back 0)
    (list_state_gradient (add B H) [::] T list_entering list_back).
Definition truncated_along k :=
  list_sums (list_cut_first_gradient (add B H) [::] T list_entering k list_back)
    (list_cut_state_gradient (add B H) [::] T list_entering k list_back).

Lemma mx_gate_value t y z : mx B H (list_gate_value t y z) = gate_value sigma P t (mx B H y) z.
Proof. by rewrite !mx_rules. Qed.

Lemma mx_factor t y : mx B H (list_factor t y) = factor sigma reset_acts P t (mx B H y).
Proof. by rewrite /list_factor /factor; case: reset_acts; rewrite // mx_had mx_gate_value. Qed.

Lemma mx_recurrent t y : mx B H (list_recurrent t y) = recurrent sigma reset_acts P t (mx B H y).
Proof. by rewrite mx_add mx_linear mx_bias mx_factor. Qed.

Lemma mx_candidate_sum t y :
  mx B H (list_candidate_sum t y) = candidate_sum sigma reset_acts P t (mx B H y).
Proof.
rewrite /list_candidate_sum /candidate_sum 2!mx_add mx_linear mx_bias; congr (_ + _).
by case: reset_acts (mx_recurrent t y) => mx_rec; rewrite ?mx_had ?mx_gate_value mx_rec.
Qed.

Lemma mx_states t : mx B H (list_states t) = h sigma tau reset_acts P t.
Proof.
elim: t => //= t IHt; rewrite /list_step mx_add !mx_had mx_complement !mx_gate_value mx_map.
by rewrite mx_candidate_sum IHt.
Qed.

Hypothesis traceE : forall t, lh t = list_states t.

Lemma mx_lh t : mx B H (lh t) = h sigma tau reset_acts P t.
Proof. by rewrite traceE mx_states. Qed.

Lemma mx_delta_n t s :
  mx B H (list_delta_n t s) = delta_n sigma tau tau' reset_acts P t (mx B H s).
Proof. by rewrite !mx_had mx_complement mx_gate_value mx_map mx_candidate_sum mx_lh. Qed.

Lemma mx_delta_W t s :
  mx B H (list_delta_W t s) = delta_W sigma tau tau' reset_acts P t (mx B H s).
Proof.
rewrite /list_delta_W /delta_W; have := mx_delta_n t s; have := mx_gate_value t (lh t.-1) reset.
rewrite mx_lh /r; case: reset_acts => mx_r mx_n; first exact: mx_n.
by rewrite mx_had mx_n mx_r.
Qed.

Lemma mx_to_r t s : mx B H (list_to_r t s) = to_r sigma tau tau' reset_acts P t (mx B H s).
Proof.
rewrite /list_to_r /to_r; have := mx_delta_n t s; have := mx_recurrent t (lh t.-1).
have := mx_lh t.-1; case: reset_acts => mx_y; rewrite mx_y => mx_rec mx_n.
  by rewrite mx_had mx_times mx_n mx_y.
by rewrite mx_had mx_n mx_rec.
Qed.

Lemma mx_through_n t s :
  mx B H (list_through_n t s) = through_n sigma tau tau' reset_acts P t (mx B H s).
Proof.
rewrite /list_through_n /through_n; have := mx_delta_n t s; have := mx_delta_W t s.
have := mx_gate_value t (lh t.-1) reset; rewrite mx_lh /r.
case: reset_acts => mx_r mx_W mx_n; first by rewrite mx_had mx_times mx_n mx_r.
by rewrite mx_times mx_W.
Qed.

Lemma mx_delta t s z :
  mx B H (list_delta t s z) = delta sigma sigma' tau tau' reset_acts P t (mx B H s) z.
Proof.
have mx_sum z' :
    mx B H (list_gate_sum t (lh t.-1) z') = a sigma tau reset_acts P t z' \/ z' = candidate.
  by case: z'; [left | left | right] => //; rewrite !mx_add !mx_linear mx_bias mx_lh.
case: z; last exact: mx_delta_n.
  by rewrite mx_had mx_to_r mx_map; case: (mx_sum reset) => // ->.
by rewrite !mx_had mx_sub mx_map [mx B H (ln t)]mx_map mx_candidate_sum !mx_lh;
  case: (mx_sum update) => // ->.
Qed.

Lemma mx_back t s :
  mx B H (list_back t s) = back sigma sigma' tau tau' reset_acts P t (mx B H s).
Proof. by rewrite !mx_add !mx_times mx_had mx_gate_value mx_lh !mx_delta mx_through_n. Qed.

Lemma mx_entering t : mx B H (list_entering t) = entering P G t.
Proof. exact: mx_times. Qed.

(** The results r are those of the theorems, E. *)
Definition equals (r : list_params) (E : params R B D H O) :=
  [/\ forall z, mx H D (lU r z) = U E z, forall z, mx H H (lW r z) = W E z,
      mx O H (lV r) = V E, forall z, mx 1 H (lb r z) = b E z &
  [/\ mx 1 H (lb_n r) = b_n E, mx 1 O (lc r) = c E, mx B H (lh0 r) = h0 E &
      forall t, (0 < t <= T)%N -> mx B D (at_step (lx r) t) = x E t]].

Lemma sums_computed first s first_S s_S :
  mx B H first = first_S -> (forall t, mx B H (s t) = s_S t) ->
  equals (list_sums first s) (sums sigma sigma' tau tau' reset_acts P G T first_S s_S).
Proof.
move=> mx_first mx_s.
have mx_e t z : mx B H (memo T (fun t => memo_gates (list_delta t (s t))) t z)
    = delta sigma sigma' tau tau' reset_acts P t (s_S t) z.
  by rewrite memoE -mx_s -mx_delta /memo_gates; case: z.
have mx_e_W t : mx B H (memo T (fun t => list_delta_W t (s t)) t)
    = delta_W sigma tau tau' reset_acts P t (s_S t).
  by rewrite memoE mx_delta_W mx_s.
split; [move=> z | move=> z | | move=> z | split; last case=> // t /andP[_ lt_tT]].
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_e.
- case: z; rewrite mx_sum_steps; apply: eq_bigr => t _.
  + by rewrite mx_outer mx_e mx_lh.
  + by rewrite mx_outer mx_e mx_lh.
  by rewrite mx_outer mx_e_W mx_factor mx_lh.
- by rewrite mx_output_weight_gradient; apply: eq_bigr => t _; rewrite mx_lh.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_e.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_e_W.
- exact: mx_output_bias_gradient.
- exact: mx_first.
rewrite /at_step nth_mkseq // mx_sum_over; apply: eq_bigr => z _.
by rewrite mx_times mx_e.
Qed.

Lemma gradient_along_computed :
  equals gradient_along (gradient sigma sigma' tau tau' reset_acts P G T).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_from_later T (mx_add B H) (mx0 _ B H) mx_entering mx_back).
exact: (meaning_state_gradient T (mx_add B H) (mx0 _ B H) mx_entering mx_back).
Qed.

Lemma truncated_along_computed k :
  equals (truncated_along k) (truncated sigma sigma' tau tau' reset_acts P G T k).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_cut_first_gradient T (mx_add B H) (mx0 _ B H) mx_entering k mx_back).
exact: (meaning_cut_state_gradient T (mx_add B H) (mx0 _ B H) mx_entering k mx_back).
Qed.
End Trace.

Definition list_gradient := gradient_along (memo T list_states).
Definition list_truncated := truncated_along (memo T list_states).

(** What is computed on lists is the gradient of the theorem. *)
Theorem gru_gradient_computed :
  equals list_gradient (gradient sigma sigma' tau tau' reset_acts P G T).
Proof. exact: (gradient_along_computed (memoE _ _)). Qed.

(** What is computed on lists is the truncated gradient of the theorem. *)
Theorem gru_truncated_computed k :
  equals (list_truncated k) (truncated sigma sigma' tau tau' reset_acts P G T k).
Proof. exact: (truncated_along_computed (memoE _ _)). Qed.
End Lists.
