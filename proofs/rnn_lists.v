(** The gradient of the RNN, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells lists.
From Bptt Require rnn.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O T : nat).
Local Notation table := (table R).

(** The parameters, and x_1, …, x_T. *)
Record params := Params { U : table; W : table; V : table; b : table; c : table; h0 : table;
  x : seq table }.

Definition meaning (p : params) : rnn.params R B D H O :=
  rnn.Params (mx _ _ (U p)) (mx _ _ (W p)) (mx _ _ (V p)) (mx _ _ (b p)) (mx _ _ (c p))
    (mx _ _ (h0 p)) (fun t => mx _ _ (at_step (x p) t)).

Variables (p : params) (g : seq table).  (* the cotangents of ŷ_1, …, ŷ_T *)
Let P := meaning p.
Let G t : 'M[R]_(B, O) := mx B O (at_step g t).

Definition preactivation t y :=
  add B H (add B H (linear B D H (at_step (x p) t) (U p)) (linear B H H y (W p))) (bias B H (b p)).
Definition step t y := map_table B H phi (preactivation t y).
Definition h := run step (h0 p).
Definition a t := preactivation t (h t.-1).
Definition prediction t := list_read_out B H O (h t) (V p) (c p).

Definition entering t := times B O H (at_step g t) (V p).
Definition delta t s := had B H s (map_table B H phi' (a t)).
Definition back t s := times B H H (delta t s) (W p).

Definition sums (first : table) (s : nat -> table) : params := {|
  U := sum_steps H D T (fun t => outer B H D (delta t (s t)) (at_step (x p) t));
  W := sum_steps H H T (fun t => outer B H H (delta t (s t)) (h t.-1));
  V := list_output_weight_gradient B H O T (at_step g) h;
  b := sum_steps 1 H T (fun t => total B H (delta t (s t)));
  c := list_output_bias_gradient B O T (at_step g);
  h0 := first;
  x := mkseq (fun t => times B H D (delta t.+1 (s t.+1)) (U p)) T |}.

Definition hidden_gradient := list_state_gradient (add B H) [::] T entering back.
Definition gradient := sums (list_from_later (add B H) [::] T entering back 0) hidden_gradient.
Definition truncated k := sums (list_cut_first_gradient (add B H) [::] T entering k back)
  (list_cut_state_gradient (add B H) [::] T entering k back).

Lemma mx_preactivation t y : mx B H (preactivation t y) = rnn.preactivation P t (mx B H y).
Proof. by rewrite !mx_rules. Qed.

Lemma mx_h t : mx B H (h t) = rnn.h phi P t.
Proof. by elim: t => //= t IHt; rewrite mx_map mx_preactivation IHt. Qed.

Lemma mx_a t : mx B H (a t) = rnn.a phi P t.
Proof. by rewrite mx_preactivation mx_h. Qed.

Lemma mx_prediction t : mx B O (prediction t) = rnn.prediction phi P t.
Proof. by rewrite mx_read_out mx_h. Qed.

Lemma mx_delta t s : mx B H (delta t s) = rnn.delta phi phi' P t (mx B H s).
Proof. by rewrite mx_had mx_map mx_a. Qed.

Lemma mx_back t s : mx B H (back t s) = rnn.back phi phi' P t (mx B H s).
Proof. by rewrite mx_times mx_delta. Qed.

Lemma mx_entering t : mx B H (entering t) = rnn.entering P G t.
Proof. exact: mx_times. Qed.

(** The results r are those of the theorems, E. *)
Definition equals (r : params) (E : rnn.params R B D H O) :=
  [/\ mx H D (U r) = rnn.U E, mx H H (W r) = rnn.W E, mx O H (V r) = rnn.V E,
      mx 1 H (b r) = rnn.b E &
  [/\ mx 1 O (c r) = rnn.c E, mx B H (h0 r) = rnn.h0 E &
      forall t, (0 < t <= T)%N -> mx B D (at_step (x r) t) = rnn.x E t]].

Lemma sums_computed first s first_S s_S :
  mx B H first = first_S -> (forall t, mx B H (s t) = s_S t) ->
  equals (sums first s) (rnn.sums phi phi' P G T first_S s_S).
Proof.
move=> mx_first mx_s; have mx_e t : mx B H (delta t (s t)) = rnn.delta phi phi' P t (s_S t).
  by rewrite mx_delta mx_s.
split; [| | | | split; last case=> // t /andP[_ lt_tT]].
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_e.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_e mx_h.
- by rewrite mx_output_weight_gradient; apply: eq_bigr => t _; rewrite mx_h.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_e.
- exact: mx_output_bias_gradient.
- exact: mx_first.
by rewrite /at_step nth_mkseq // mx_times mx_e.
Qed.

(** What is computed on lists is the gradient of the theorem. *)
Theorem rnn_gradient_computed : equals gradient (rnn.gradient phi phi' P G T).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_from_later T (mx_add B H) (mx0 _ B H) mx_entering mx_back).
exact: (meaning_state_gradient T (mx_add B H) (mx0 _ B H) mx_entering mx_back).
Qed.

(** What is computed on lists is the truncated gradient of the theorem. *)
Theorem rnn_truncated_computed k : equals (truncated k) (rnn.truncated phi phi' P G T k).
Proof.
apply: sums_computed => [|t].
  exact: (meaning_cut_first_gradient T (mx_add B H) (mx0 _ B H) mx_entering k mx_back).
exact: (meaning_cut_state_gradient T (mx_add B H) (mx0 _ B H) mx_entering k mx_back).
Qed.
End Lists.
