(** Matrices that compute: lists of rows, each operation equal to that of matrices. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variable R : comRingType.

Definition table := seq (seq R).
Implicit Types A B G X U : table.

Definition entry A i j : R := nth 0 (nth [::] A i) j.
Definition build m n (f : nat -> nat -> R) : table := mkseq (fun i => mkseq (f i) n) m.
Definition sum_to k (f : nat -> R) : R := foldr +%R 0 (mkseq f k).

(** Element t of x_1, …, x_T. *)
Definition at_step (xs : seq table) t := nth [::] xs t.-1.

(** The matrix of a table. *)
Definition mx m n A : 'M[R]_(m, n) := \matrix_(i, j) entry A i j.

Definition add m n A B := build m n (fun i j => entry A i j + entry B i j).
Definition sub m n A B := build m n (fun i j => entry A i j - entry B i j).
Definition complement m n A := build m n (fun i j => 1 - entry A i j).
Definition had m n A B := build m n (fun i j => entry A i j * entry B i j).
Definition map_table m n (f : R -> R) A := build m n (fun i j => f (entry A i j)).
Definition bias m n A := build m n (fun _ j => entry A 0 j).
Definition total m n A := build 1 n (fun _ j => sum_to m (fun i => entry A i j)).
Definition linear m k n X U :=
  build m n (fun i j => sum_to k (fun l => entry X i l * entry U j l)).
Definition times m k n A B :=
  build m n (fun i j => sum_to k (fun l => entry A i l * entry B l j)).
Definition outer m k n G X :=
  build k n (fun i j => sum_to m (fun l => entry G l i * entry X l j)).
Definition sum_steps m n T (F : nat -> table) : table :=
  foldr (add m n) [::] (mkseq (fun t => F t.+1) T).

Lemma entry_build m n f (i : 'I_m) (j : 'I_n) : entry (build m n f) i j = f i j.
Proof. by rewrite /entry /build !nth_mkseq. Qed.

Lemma sum_toE k f : sum_to k f = \sum_(i < k) f i.
Proof. by rewrite /sum_to foldrE big_map -(big_mkord xpredT) /index_iota subn0. Qed.

Ltac compare_entries := apply/matrixP => i j; rewrite ?mxE entry_build ?mxE ?sum_toE.

Lemma mx0 m n : mx m n [::] = 0.
Proof. by apply/matrixP => i j; rewrite !mxE /entry !nth_nil. Qed.

Lemma mx_add m n A B : mx m n (add m n A B) = mx m n A + mx m n B.
Proof. by compare_entries. Qed.

Lemma mx_sub m n A B : mx m n (sub m n A B) = mx m n A - mx m n B.
Proof. by compare_entries. Qed.

Lemma mx_complement m n A : mx m n (complement m n A) = const_mx 1 - mx m n A.
Proof. by compare_entries. Qed.

Lemma mx_had m n A B : mx m n (had m n A B) = mx m n A ⊙ mx m n B.
Proof. by compare_entries. Qed.

Lemma mx_map m n f A : mx m n (map_table m n f A) = map_mx f (mx m n A).
Proof. by compare_entries. Qed.

Lemma mx_bias m n A : mx m n (bias m n A) = rows m (mx 1 n A).
Proof. by compare_entries. Qed.

Lemma mx_total m n A : mx 1 n (total m n A) = row_sum (mx m n A).
Proof. by compare_entries; apply: eq_bigr => k _; rewrite mxE. Qed.

Lemma mx_linear m k n X U : mx m n (linear m k n X U) = mx m k X *m (mx n k U)^T.
Proof. by compare_entries; apply: eq_bigr => l _; rewrite !mxE. Qed.

Lemma mx_times m k n A B : mx m n (times m k n A B) = mx m k A *m mx k n B.
Proof. by compare_entries; apply: eq_bigr => l _; rewrite !mxE. Qed.

Lemma mx_outer m k n G X : mx k n (outer m k n G X) = (mx m k G)^T *m mx m n X.
Proof. by compare_entries; apply: eq_bigr => l _; rewrite !mxE. Qed.

Lemma mx_sum_steps m n T F :
  mx m n (sum_steps m n T F) = \sum_(1 <= t < T.+1) mx m n (F t).
Proof.
rewrite big_add1 /index_iota subn0 /sum_steps /mkseq.
by elim: (iota 0 T) => [|t r IHr] /=; rewrite ?big_nil ?mx0 // big_cons mx_add IHr.
Qed.

(** An entry of a table is one of its matrix. *)
Lemma mxE_entry m n A (i : 'I_m) (j : 'I_n) : mx m n A i j = entry A i j.
Proof. exact: mxE. Qed.

(** The output of a step, and what its cotangent passes back. *)
Definition list_read_out m k n h V c := add m n (linear m k n h V) (bias m n c).
Definition list_output_weight_gradient m k n T (g h : nat -> table) :=
  sum_steps n k T (fun t => outer m n k (g t) (h t)).
Definition list_output_bias_gradient m n T (g : nat -> table) :=
  sum_steps 1 n T (fun t => total m n (g t)).

Lemma mx_read_out m k n h V c :
  mx m n (list_read_out m k n h V c) = read_out (mx n k V) (mx 1 n c) (mx m k h).
Proof. by rewrite mx_add mx_linear mx_bias. Qed.

Lemma mx_output_weight_gradient m k n T g h : mx n k (list_output_weight_gradient m k n T g h)
  = output_weight_gradient (fun t => mx m n (g t)) T (fun t => mx m k (h t)).
Proof. by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_outer. Qed.

Lemma mx_output_bias_gradient m n T g :
  mx 1 n (list_output_bias_gradient m n T g) = output_bias_gradient (fun t => mx m n (g t)) T.
Proof. by rewrite mx_sum_steps; apply: eq_bigr => t _; rewrite mx_total. Qed.

(** A sum over the gates. *)
Definition sum_over (Z : Type) m n (blocks : seq Z) (F : Z -> table) : table :=
  foldr (fun z => add m n (F z)) [::] blocks.

Lemma mx_sum_over (Z : Type) m n (blocks : seq Z) F :
  mx m n (sum_over m n blocks F) = \sum_(z <- blocks) mx m n (F z).
Proof. by elim: blocks => [|z r IHr]; rewrite ?big_nil ?mx0 // big_cons mx_add IHr. Qed.
End Lists.

(** The rewriting rules above, from an operation on tables to that on matrices. *)
Definition mx_rules := (mx_add, mx_sub, mx_complement, mx_had, mx_map, mx_bias, mx_total, mx_linear,
  mx_times, mx_outer, mx_sum_steps).

(** The values of a function up to n, computed once. *)
Definition memo (L : Type) (n : nat) (F : nat -> L) : nat -> L :=
  let values := mkseq (fun t => Some (F t)) n.+1 in
  fun t => if nth None values t is Some value then value else F t.

Lemma memoE (L : Type) n (F : nat -> L) t : memo n F t = F t.
Proof.
rewrite /memo; case: (ltnP t n.+1) => [lt_t | le_t]; first by rewrite nth_mkseq.
by rewrite nth_default // size_mkseq.
Qed.

(** The sweep back through time, for states of any type L that stand for elements of S. *)
Section Sweep.
Variables (L : Type) (plus : L -> L -> L) (zero : L) (T : nat) (entering : nat -> L).

Fixpoint list_after_steps (back : nat -> L -> L) (k : nat) : L :=
  if k is j.+1
  then back (T - j)%N (plus (list_after_steps back j) (entering (T - j)%N))
  else zero.

Definition list_from_later back t := list_after_steps back (T - t)%N.
Definition list_state_gradient back t := plus (list_from_later back t) (entering t).

Variables (S : zmodType) (meaning : L -> S) (entering_S : nat -> S).
Hypothesis meaning_plus : forall s s', meaning (plus s s') = meaning s + meaning s'.
Hypothesis meaning_zero : meaning zero = 0.
Hypothesis meaning_entering : forall t, meaning (entering t) = entering_S t.

Section Back.
Variables (back : nat -> L -> L) (back_S : nat -> S -> S).
Hypothesis meaning_back : forall t s, meaning (back t s) = back_S t (meaning s).

Lemma meaning_from_later t : meaning (list_from_later back t) = from_later back_S entering_S T t.
Proof.
rewrite /list_from_later /from_later; elim: (T - t)%N => //= k IHk.
by rewrite meaning_back meaning_plus meaning_entering IHk.
Qed.

Lemma meaning_state_gradient t :
  meaning (list_state_gradient back t) = state_gradient back_S entering_S T t.
Proof. by rewrite meaning_plus meaning_from_later meaning_entering. Qed.
End Back.

(** The same, truncated to the last k steps. *)
Variables (k : nat) (back : nat -> L -> L) (back_S : nat -> S -> S).
Hypothesis meaning_back : forall t s, meaning (back t s) = back_S t (meaning s).

Definition list_cut t s := if (t <= T - k)%N then zero else s.
Definition list_cut_back t s := back t (list_cut t s).
Definition list_cut_state_gradient t := list_cut t (list_state_gradient list_cut_back t).
Definition list_cut_first_gradient := list_from_later list_cut_back 0.

Fact meaning_cut_back t s : meaning (list_cut_back t s) = cut_back back_S T k t (meaning s).
Proof. by rewrite meaning_back /cut_back /cut /list_cut; case: ifP; rewrite ?meaning_zero. Qed.

Lemma meaning_cut_first_gradient :
  meaning list_cut_first_gradient = cut_first_gradient back_S entering_S T k.
Proof. exact: (meaning_from_later meaning_cut_back). Qed.

Lemma meaning_cut_state_gradient t :
  meaning (list_cut_state_gradient t) = cut_state_gradient back_S entering_S T k t.
Proof.
rewrite /list_cut_state_gradient /cut_state_gradient /list_cut /cut; case: ifP => // _.
exact: (meaning_state_gradient meaning_cut_back).
Qed.
End Sweep.
