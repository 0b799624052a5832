(** The rational numbers of the standard library, which compute in binary, as a ring; and the
    functions with which the gradients are computed. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Coq Require Import ZArith QArith Qcanon Lia.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Definition code (q : Qc) : (nat * nat) * nat :=
  ((Z.to_nat (Qnum q), Z.to_nat (- Qnum q)), Pos.to_nat (Qden q)).
Definition decode (c : (nat * nat) * nat) : Qc :=
  Q2Qc (Qmake (Z.of_nat c.1.1 - Z.of_nat c.1.2) (Pos.of_nat c.2)).
Lemma codeK : cancel code decode.
Proof.
case=> [[n d] reduced]; apply: Qc_is_canon; rewrite /decode /= Pos2Nat.id.
have -> : (Z.of_nat (Z.to_nat n) - Z.of_nat (Z.to_nat (- n)))%Z = n by lia.
exact: Qred_correct.
Qed.

Definition Qc_eqMixin := CanEqMixin codeK.
Canonical Qc_eqType := EqType Qc Qc_eqMixin.
Definition Qc_choiceMixin := CanChoiceMixin codeK.
Canonical Qc_choiceType := ChoiceType Qc Qc_choiceMixin.

Lemma Qc_addN : left_inverse (Q2Qc 0) Qcopp Qcplus.
Proof. by move=> q; rewrite Qcplus_comm Qcplus_opp_r. Qed.
Definition Qc_zmodMixin := ZmodMixin Qcplus_assoc Qcplus_comm Qcplus_0_l Qc_addN.
Canonical Qc_zmodType := ZmodType Qc Qc_zmodMixin.

Lemma Qc_1_neq_0 : Q2Qc 1 != Q2Qc 0. Proof. by []. Qed.
Definition Qc_ringMixin := @ComRingMixin Qc_zmodType (Q2Qc 1) Qcmult
  Qcmult_assoc Qcmult_comm Qcmult_1_l Qcmult_plus_distr_l Qc_1_neq_0.
Canonical Qc_ringType := RingType Qc Qc_ringMixin.
Canonical Qc_comRingType := ComRingType Qc Qcmult_comm.

Definition fraction (n : Z) (d : positive) : Qc := Q2Qc (Qmake n d).

(** k + l z + m z², and its derivative. *)
Definition quadratic (k l m : Qc) (z : Qc) : Qc :=
  Qcplus k (Qcmult z (Qcplus l (Qcmult m z))).
Definition quadratic_slope (l m : Qc) (z : Qc) : Qc :=
  Qcplus l (Qcmult (Qcplus m m) z).

(** In the place of tanh z + z², in that of σ 1 + 2 z − z². *)
Definition tau := quadratic (fraction 0 1) (fraction 1 1) (fraction 1 1).
Definition tau' := quadratic_slope (fraction 1 1) (fraction 1 1).
Definition sigma := quadratic (fraction 1 1) (fraction 2 1) (fraction (-1) 1).
Definition sigma' := quadratic_slope (fraction 2 1) (fraction (-1) 1).

(** For long sequences, on which the numbers would have thousands of digits: 2 z and 1 − 3 z. *)
Definition tau_line := quadratic (fraction 0 1) (fraction 2 1) (fraction 0 1).
Definition tau_line' := quadratic_slope (fraction 2 1) (fraction 0 1).
Definition sigma_line := quadratic (fraction 1 1) (fraction (-3) 1) (fraction 0 1).
Definition sigma_line' := quadratic_slope (fraction (-3) 1) (fraction 0 1).

(** The larger of two numbers, and the sign of one. *)
Definition maximum (y z : Qc) : Qc := if Qle_bool (this y) (this z) then z else y.
Definition sign (z : Qc) : Qc := fraction (Z.sgn (Qnum (this z))) 1.

(** Numerators and denominators, to print. *)
Definition plain (tables : seq (seq (seq Qc))) : seq (Z * positive) :=
  [seq (Qnum (this q), Qden (this q)) | q <- flatten (flatten tables)].
