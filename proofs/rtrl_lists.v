(** The forward recursion, computed on lists: equal to that of the theorem. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing sweep cells lists.
From Bptt Require rnn rnn_lists.
From Bptt Require Import rtrl.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Lists.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O T : nat) (net : rnn_lists.params R).
Variable e : table R.  (* the cotangent of ŷ_T *)
Let N := rnn_lists.meaning B D H O net.

(** The direct part, which only state r has, and the part through h_{t-1}. *)
Definition list_da (direct : nat -> R) (r : nat) (previous : table R) : table R :=
  add B H (build B H (fun i j => (j == r)%:R * direct i))
    (linear B H H previous (rnn_lists.W net)).

Definition list_sensitivity (direct : nat -> nat -> R) (r : nat) : nat -> table R :=
  run (fun t previous => had B H (map_table B H phi' (rnn_lists.a phi B D H net t))
    (list_da (direct t) r previous)) [::].

Definition list_rtrl n (direct : nat -> nat -> nat -> R) : table R :=
  let gradient := times B O H e (rnn_lists.V net) in
  build H n (fun r q =>
    let dh := list_sensitivity (fun t i => direct t i q) r T in
    sum_to B (fun i => sum_to H (fun j => entry gradient i j * entry dh i j))).

Definition list_rtrl_U := list_rtrl D (fun t => entry (at_step (rnn_lists.x net) t)).
Definition list_rtrl_W := list_rtrl H (fun t => entry (rnn_lists.h phi B D H net t.-1)).
Definition list_rtrl_b :=
  let column := list_rtrl 1 (fun _ _ _ => 1) in build 1 H (fun _ r => entry column r 0).

Fact mx_a t : mx B H (rnn_lists.a phi B D H net t) = rnn.a phi N t.
Proof. exact: rnn_lists.mx_a. Qed.

Fact mx_h t : mx B H (rnn_lists.h phi B D H net t) = rnn.h phi N t.
Proof. exact: rnn_lists.mx_h. Qed.

Lemma entry_rtrl n (direct : nat -> nat -> nat -> R) (r : 'I_H) (q : 'I_n)
    (da : nat -> 'M[R]_(B, H) -> 'M[R]_(B, H)) :
  (forall t previous, mx B H (list_da (fun i => direct t i q) r previous)
     = da t (mx B H previous)) ->
  entry (list_rtrl n direct) r q = dL_dtheta phi phi' N (mx B O e) T da.
Proof.
move=> mx_da; have mx_dh t :
    mx B H (list_sensitivity (fun t i => direct t i q) r t) = sensitivity phi phi' N da t.
  elim: t => [|t IHt]; first exact: mx0.
  by rewrite mx_had mx_map mx_a mx_da IHt.
rewrite entry_build /dL_dtheta innerE sum_toE; apply: eq_bigr => i _; rewrite sum_toE.
by apply: eq_bigr => j _; rewrite -mx_dh -mx_times !mxE_entry.
Qed.

(** What is computed on lists is the forward recursion of the theorem. *)
Theorem rtrl_computed :
  [/\ mx H D list_rtrl_U = rtrl_U phi phi' N (mx B O e) T,
      mx H H list_rtrl_W = rtrl_W phi phi' N (mx B O e) T &
      mx 1 H list_rtrl_b = rtrl_b phi phi' N (mx B O e) T].
Proof.
split; apply/matrixP => r q; rewrite [RHS]mxE mxE_entry.
- apply: entry_rtrl => t previous; rewrite mx_add mx_linear; congr (_ + _).
  by apply/matrixP => i j; rewrite !mxE entry_build.
- apply: entry_rtrl => t previous; rewrite mx_add mx_linear; congr (_ + _).
  by apply/matrixP => i j; rewrite mxE entry_build mxE -mx_h mxE.
rewrite (ord1 r) (entry_build (fun _ r => entry _ r 0) ord0).
rewrite (@entry_rtrl 1 _ q ord0 (da_db N q)) //.
move=> t previous; rewrite mx_add mx_linear; congr (_ + _).
by apply/matrixP => i j; rewrite mxE entry_build mxE mulr1.
Qed.
End Lists.
