(** The gradient of the RNN, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep lists.
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
Fixpoint h t := if t is s.+1 then map_table B H phi (preactivation t (h s)) else h0 p.
Definition a t := preactivation t (h t.-1).
Definition prediction t := add B O (linear B H O (h t) (V p)) (bias B O (c p)).

Definition entering t := times B O H (at_step g t) (V p).
Definition delta t s := had B H s (map_table B H phi' (a t)).
Definition back t s := times B H H (delta t s) (W p).
Definition adjoint t := delta t (list_state_gradient (add B H) [::] back entering T t).

Definition gradient : params := {|
  U := sum_steps H D T (fun t => outer B H D (adjoint t) (at_step (x p) t));
  W := sum_steps H H T (fun t => outer B H H (adjoint t) (h t.-1));
  V := sum_steps O H T (fun t => outer B O H (at_step g t) (h t));
  b := sum_steps 1 H T (fun t => total B H (adjoint t));
  c := sum_steps 1 O T (fun t => total B O (at_step g t));
  h0 := list_from_later (add B H) [::] back entering T 0;
  x := mkseq (fun t => times B H D (adjoint t.+1) (U p)) T |}.

Lemma mx_preactivation t y : mx B H (preactivation t y) = rnn.preactivation P t (mx B H y).
Proof. by rewrite !mx_rules. Qed.

Lemma mx_h t : mx B H (h t) = rnn.h phi P t.
Proof. by elim: t => //= t IHt; rewrite mx_map mx_preactivation IHt. Qed.

Lemma mx_prediction t : mx B O (prediction t) = rnn.prediction phi P t.
Proof. by rewrite !mx_rules mx_h. Qed.

Lemma mx_delta t s : mx B H (delta t s) = rnn.delta phi phi' P t (mx B H s).
Proof. by rewrite !mx_rules mx_h. Qed.

Lemma mx_back t s : mx B H (back t s) = rnn.back phi phi' P t (mx B H s).
Proof. by rewrite mx_times mx_delta. Qed.

Lemma mx_entering t : mx B H (entering t) = rnn.entering P G t.
Proof. exact: mx_times. Qed.

Lemma mx_adjoint t : mx B H (adjoint t) = rnn.adjoint phi phi' P G T t.
Proof.
rewrite mx_delta; congr rnn.delta.
exact: (meaning_state_gradient T (mx_add B H) (mx0 _ B H) mx_back mx_entering).
Qed.

(** Every gradient that is computed is that of the theorem. *)
Theorem rnn_gradient_computed : let E := rnn.gradient phi phi' P G T in
  [/\ mx H D (U gradient) = rnn.U E, mx H H (W gradient) = rnn.W E, mx O H (V gradient) = rnn.V E,
      mx 1 H (b gradient) = rnn.b E &
   [/\ mx 1 O (c gradient) = rnn.c E, mx B H (h0 gradient) = rnn.h0 E &
       forall t, (0 < t <= T)%N -> mx B D (at_step (x gradient) t) = rnn.x E t]].
Proof.
split; [| | | | split; last case=> // t /andP[_ lt_tT]].
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_adjoint.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_adjoint mx_h.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer mx_h.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total mx_adjoint.
- by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total.
- exact: (meaning_from_later T (mx_add B H) (mx0 _ B H) mx_back mx_entering).
by rewrite /at_step nth_mkseq // mx_times mx_adjoint.
Qed.
End Lists.
