(** The sum over Jacobians, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells lists.
From Bptt Require rnn rnn_lists.
From Bptt Require Import jacobian_sum.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O T : nat) (net : rnn_lists.params R).
Variable e : table R.  (* the cotangent of ŷ_T *)
Let N := rnn_lists.meaning B D H O net.
Local Notation list_a := (rnn_lists.a phi B D H net).
Local Notation list_h := (rnn_lists.h phi B D H net).

Definition list_slopes k := map_table B H phi' (list_a k).

Fixpoint list_jacobian i n : table R :=
  if n is m.+1 then
    let jacobian := list_jacobian i m in
    let slopes := list_slopes (T - m) in
    times H H H (build H H (fun j l => entry jacobian j l * entry slopes i l)) (rnn_lists.W net)
  else build H H (fun j l => (j == l)%:R).

Definition list_dL_dh k i : table R :=
  times 1 H H (times 1 O H (build 1 O (fun _ o => entry e i o)) (rnn_lists.V net))
    (list_jacobian i (T - k)).

(** Entry (r, q) is the sum of term k over the sequences and the states. *)
Definition list_term n k (direct : nat -> nat -> R) : table R :=
  let rows := mkseq (list_dL_dh k) B in
  let slopes := list_slopes k in
  build H n (fun r q => sum_to B (fun i => sum_to H (fun j =>
    entry (nth [::] rows i) 0 j * (entry slopes i j * (j == r)%:R * direct i q)))).

Definition list_jacobian_sum_U :=
  sum_steps H D T (fun k => let x := at_step (rnn_lists.x net) k in list_term D k (entry x)).
Definition list_jacobian_sum_W :=
  sum_steps H H T (fun k => let h := list_h k.-1 in list_term H k (entry h)).
Definition list_jacobian_sum_b :=
  sum_steps 1 H T (fun k => let terms := list_term 1 k (fun _ _ => 1) in
    build 1 H (fun _ r => entry terms r 0)).

Fact mx_a k : mx B H (list_a k) = rnn.a phi N k. Proof. exact: rnn_lists.mx_a. Qed.
Fact mx_h k : mx B H (list_h k) = rnn.h phi N k. Proof. exact: rnn_lists.mx_h. Qed.

Lemma entry_slopes k (i : 'I_B) (j : 'I_H) :
  entry (list_slopes k) i j = phi' (rnn.a phi N k i j).
Proof. by rewrite -mxE_entry mx_map mx_a mxE. Qed.

Lemma mx_jacobian (i : 'I_B) n : mx H H (list_jacobian i n) = jacobian phi phi' N T i n.
Proof.
elim: n => [|n IHn]; first by apply/matrixP => j l; rewrite mxE entry_build mxE.
rewrite mx_times -/list_jacobian; set slopes := \row_j phi' (rnn.a phi N (T - n) i j).
rewrite -[RHS]/(jacobian phi phi' N T i n *m diag_mx slopes *m rnn.W N) -IHn.
congr (_ *m _); apply/matrixP => j l.
by rewrite mxE entry_build entry_slopes mul_mx_diag [RHS]mxE [slopes _ _]mxE mxE_entry.
Qed.

Lemma mx_dL_dh k (i : 'I_B) :
  mx 1 H (list_dL_dh k i) = dL_dh phi phi' N (mx B O e) T k i.
Proof.
rewrite !mx_times mx_jacobian; congr (_ *m _ *m _).
by apply/matrixP => l o; rewrite !mxE (ord1 l) (entry_build (fun _ o => entry e i o) (ord0 : 'I_1)).
Qed.

Lemma entry_term n k direct (r : 'I_H) (q : 'I_n) : entry (list_term n k direct) r q
  = \sum_i \sum_j dL_dh phi phi' N (mx B O e) T k i 0 j
                  * (phi' (rnn.a phi N k i j) * (j == r)%:R * direct i q).
Proof.
rewrite entry_build sum_toE; apply: eq_bigr => i _; rewrite sum_toE; apply: eq_bigr => j _.
by rewrite nth_mkseq // entry_slopes -mx_dL_dh mxE_entry.
Qed.

(** What is computed on lists is the sum over Jacobians of the theorem. *)
Theorem jacobian_sum_computed :
  [/\ mx H D list_jacobian_sum_U = jacobian_sum_U phi phi' N (mx B O e) T,
      mx H H list_jacobian_sum_W = jacobian_sum_W phi phi' N (mx B O e) T &
      mx 1 H list_jacobian_sum_b = jacobian_sum_b phi phi' N (mx B O e) T].
Proof.
split; apply/matrixP => r q; rewrite mx_sum_steps summxE [RHS]mxE; apply: eq_bigr => k _;
  rewrite mxE.
- rewrite entry_term; apply: eq_bigr => i _; apply: eq_bigr => j _.
  by rewrite -[entry _ i q](mxE_entry (m := B) (n := D)).
- rewrite entry_term; apply: eq_bigr => i _; apply: eq_bigr => j _.
  by rewrite -[entry _ i q](mxE_entry (m := B) (n := H)) mx_h.
rewrite (ord1 r) (entry_build (fun _ r => entry _ r 0) ord0) (entry_term _ _ q (ord0 : 'I_1)).
by apply: eq_bigr => i _; apply: eq_bigr => j _; rewrite mulr1.
Qed.
End Lists.
