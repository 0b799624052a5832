(** The tangents of the losses' gradients: each is the gradient's ε-part. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers losses.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(** * The tangents, from that of the prediction *)
Section Tangents.
Variables (R : realFieldType) (nu : R) (m n : nat) (prediction y tangent : 'M[R]_(m, n)).

Definition mse_tangent := (nu + nu) *: tangent.  (* (L13)  2/N ẏ *)
Definition half_sse_tangent := tangent.  (* (L13)  ẏ *)
Definition mae_tangent : 'M[R]_(m, n) := 0.  (* (L13) *)
Definition huber_tangent := nu *: \matrix_(i, j)
  (if `|prediction i j - y i j| <= 1 then tangent i j else 0).  (* (L13)  ẏ/N where |r| ≤ 1 *)

(** From the probabilities p of softmax, and from σ(ŷ). *)
Definition softmax_tangent (p : 'M[R]_(m, n)) := nu *: \matrix_(i, j)
  (p i j * (tangent i j - \sum_k p i k * tangent i k)).  (* (L14)  p (ẏ − Σ p ẏ)/R *)
Definition binary_tangent (s : 'M[R]_(m, n)) := nu *: \matrix_(i, j)
  (s i j * (1 - s i j) * tangent i j).  (* (L14)  σ (1 − σ) ẏ/N *)
End Tangents.

Section Derivative.
Variables (R : realFieldType) (m n : nat) (nu : R) (y : 'M[R]_(m, n)).
Local Notation dual := (dual_comRingType R).
Local Notation Y := (map_mx (@constant R) y).
Variable prediction : 'M[dual]_(m, n).
Local Notation tangent := (ep_mx prediction).

Lemma ep_scale (a : R) (A : 'M[dual]_(m, n)) : ep_mx (constant a *: A) = a *: ep_mx A.
Proof. by apply/matrixP => i j; rewrite !mxE /= mul0r add0r. Qed.

Lemma ep_residual : ep_mx (prediction - Y) = tangent.
Proof. by rewrite map_mxB ep_constant subr0. Qed.

(** The tangent of the gradient of mse is its derivative. *)
Theorem mse_tangent_derivative :
  ep_mx (mse_gradient (constant nu) prediction Y) = mse_tangent nu tangent.
Proof.
by rewrite /mse_gradient -raddfD [LHS]ep_scale ep_residual.
Qed.

(** The tangent of the gradient of half_sse is its derivative. *)
Theorem half_sse_tangent_derivative :
  ep_mx (half_sse_gradient prediction Y) = half_sse_tangent tangent.
Proof. exact: ep_residual. Qed.

(** The sign of a dual number, which no ε-part changes unless the first part is zero. *)
Definition dual_sign (z : dual) : dual :=
  constant (Num.sg (if re z == 0 then ep z else re z)).

(** The tangent of the gradient of mae is its derivative, zero. *)
Theorem mae_tangent_derivative :
  ep_mx (mae_gradient (constant nu) prediction Y dual_sign) = mae_tangent R m n.
Proof.
rewrite /mae_gradient ep_scale /mae_tangent -[RHS](scaler0 _ nu); congr (_ *: _).
by apply/matrixP => i j; rewrite !mxE.
Qed.

Lemma ep_limited (r : dual) : `|re r| != 1 ->
  ep (limited (@dual_max R) r) = if `|re r| <= 1 then ep r else 0.
Proof.
move=> neq1; have not1 s : `|s| = 1 -> (re r == s) = false.
  by move=> s1; apply/eqP => r_s; move: neq1; rewrite r_s s1 eqxx.
have neq_1 : (re r == 1) = false by rewrite not1 ?normr1.
have neq_N1 : (re r == -1) = false by rewrite not1 ?normrN1.
have lt_N1_1 : (-1 : R) < 1 by rewrite -subr_gt0 opprK addr_gt0 ?ltr01.
rewrite ler_norml /limited /dual_max; case: r {neq1 not1} neq_1 neq_N1 => a e /= neq_1 neq_N1.
rewrite neq_N1 /= orbF; case: (ltgtP a (-1)) neq_N1 => // [lt_a | gt_a] _ /=.
  by rewrite opprK (lt_gtF lt_N1_1) (gt_eqF lt_N1_1) /= !oppr0.
rewrite ltr_opp2 eqr_opp neq_1 orbF; case: (ltgtP 1 a) neq_1 => //= [gt1 | lt1] _.
  by rewrite !oppr0.
by rewrite opprK.
Qed.

(** The tangent of the gradient of Huber's loss is its derivative where no residual is ±1. *)
Theorem huber_tangent_derivative : (forall i j, `|re (prediction i j) - y i j| != 1) ->
  ep_mx (huber_gradient (@dual_max R) (constant nu) prediction Y)
  = huber_tangent nu (re_mx prediction) y tangent.
Proof.
move=> smooth; rewrite /huber_gradient ep_scale; congr (_ *: _); apply/matrixP => i j.
rewrite 2!mxE mxE [RHS]mxE !mxE ep_limited /= ?subr0 //.
Qed.

(** The tangent of the gradient of binary cross-entropy is its derivative, if σ′ = σ (1 − σ). *)
Theorem binary_tangent_derivative (sigma : R -> R) (Sigma : dual -> dual) :
  extends sigma (fun a => sigma a * (1 - sigma a)) Sigma ->
  ep_mx (binary_gradient (constant nu) prediction Y Sigma)
  = binary_tangent nu tangent (map_mx sigma (re_mx prediction)).
Proof.
move=> derived; rewrite /binary_gradient ep_scale map_mxB ep_constant subr0; congr (_ *: _).
by apply/matrixP => i j; rewrite !mxE; case: (prediction i j) => a e; rewrite derived.
Qed.

(** The tangent of the gradient of softmax cross-entropy is its derivative. *)
Theorem softmax_tangent_derivative (exp log : R -> R) (Exp Log : dual -> dual) shift :
  (forall a b, exp (a + b) = exp a * exp b) -> (forall a, 0 < exp a) ->
  (forall a, 0 < a -> exp (log a) = a) -> extends exp exp Exp ->
  (forall a b, 0 < a -> Log (Dual a b) = Dual (log a) (a^-1 * b)) ->
  ep_mx (softmax_gradient Exp Log (constant nu) prediction Y shift)
  = softmax_tangent nu tangent
      (map_mx exp (log_softmax exp log (re_mx prediction) (fun i => re (shift i)))).
Proof.
move=> expD exp_gt0 logK Exp_exp Log_log.
have re_log := re_log_softmax exp_gt0 Exp_exp Log_log prediction shift.
have ep_log := ep_log_softmax expD exp_gt0 logK Exp_exp Log_log prediction shift.
rewrite /softmax_gradient ep_scale map_mxB ep_constant subr0; congr (_ *: _).
apply/matrixP => i j; rewrite [RHS]mxE [tangent i j]mxE [map_mx exp _ i j]mxE -re_log.
under [X in _ - X]eq_bigr do rewrite [tangent _ _]mxE.
rewrite -ep_log mxE [map_mx Exp _ i j]mxE.
by case: (log_softmax Exp Log prediction shift i j) => a e; rewrite Exp_exp.
Qed.
End Derivative.
