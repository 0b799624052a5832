(** The losses, and their gradients with respect to the outputs. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(** * The losses, over any commutative ring with these functions; [nu] is 1/N, or 1/R for softmax *)
Section Losses.
Variables (R : comRingType) (maximum : R -> R -> R) (exp log : R -> R) (nu half : R) (m n : nat).
Variables prediction y : 'M[R]_(m, n).
Local Notation residual := (prediction - y).

Definition sum_entries (A : 'M[R]_(m, n)) : R := \sum_i \sum_j A i j.
Definition magnitude (r : R) := maximum r (- r).
Definition limited (r : R) := - maximum (- maximum r (-1)) (-1).  (* min(max(r, −1), 1) *)

Definition mse := nu * sum_entries (map_mx (fun r => r * r) residual).  (* (L1) *)
Definition half_sse := half * sum_entries (map_mx (fun r => r * r) residual).  (* (L3) *)
Definition mae := nu * sum_entries (map_mx magnitude residual).  (* (L5) *)
Definition huber :=
  nu * sum_entries (map_mx (fun r => limited r * (r - half * limited r)) residual).  (* (L7) *)

(** The logarithms of the probabilities, each row of ŷ less its [shift], which is its maximum. *)
Definition log_softmax (shift : 'I_m -> R) : 'M[R]_(m, n) :=
  \matrix_(i, j) (prediction i j - shift i - log (\sum_k exp (prediction i k - shift i))).
Definition softmax_cross_entropy shift := - (nu * sum_entries (y ⊙ log_softmax shift)).  (* (L9) *)

Definition binary_cross_entropy := nu * sum_entries (\matrix_(i, j)
  (maximum (prediction i j) 0 + log (1 + exp (- magnitude (prediction i j)))
   - y i j * prediction i j)).  (* (L11) *)

(** ** ∂L/∂ŷ *)
Variables (sign sigmoid : R -> R).

Definition mse_gradient := (nu + nu) *: residual.  (* (L2)  2/N (ŷ − y) *)
Definition half_sse_gradient := residual.  (* (L4)  ŷ − y *)
Definition mae_gradient := nu *: map_mx sign residual.  (* (L6)  sign(ŷ − y)/N *)
Definition huber_gradient := nu *: map_mx limited residual.  (* (L8)  k/N *)
Definition softmax_gradient shift :=
  nu *: (map_mx exp (log_softmax shift) - y).  (* (L10)  (p − y)/R *)
Definition binary_gradient := nu *: (map_mx sigmoid prediction - y).  (* (L12)  (σ(ŷ) − y)/N *)
End Losses.

Arguments mse {R} nu {m n}.
Arguments half_sse {R} half {m n}.

(** * Each is the derivative. The targets y are constants. *)
Section Entrywise.
Variables (R : comRingType) (m n : nat) (y : 'M[R]_(m, n)).
Implicit Type nu : R.
Local Notation dual := (dual_comRingType R).
Local Notation Y := (map_mx (@constant R) y).

Lemma ep_sum_entries nu (A : 'M[dual]_(m, n)) :
  ep (constant nu * sum_entries A) = nu * sum_entries (ep_mx A).
Proof.
rewrite /= mul0r add0r; congr (_ * _); rewrite raddf_sum; apply: eq_bigr => i _.
by rewrite raddf_sum; apply: eq_bigr => j _; rewrite mxE.
Qed.

(** A loss that is ν Σ F(ŷ, y), where the ε-part of each F is f ẏ. *)
Lemma entrywise_gradient nu (A : 'M[dual]_(m, n) -> 'M[dual]_(m, n)) (f : 'M[R]_(m, n)) prediction :
  (forall i j, ep (A prediction i j) = f i j * ep (prediction i j)) ->
  has_gradient (fun P => constant nu * sum_entries (A P)) (nu *: f) prediction.
Proof.
move=> entry; rewrite /has_gradient ep_sum_entries innerE mulr_sumr; apply: eq_bigr => i _.
by rewrite mulr_sumr; apply: eq_bigr => j _; rewrite !mxE entry mulrA.
Qed.

(** The gradient of mse is its derivative. *)
Theorem mse_derivative nu prediction :
  has_gradient (fun P => mse (constant nu) P Y) (mse_gradient nu (re_mx prediction) y) prediction.
Proof.
have -> : mse_gradient nu (re_mx prediction) y
    = nu *: ((re_mx prediction - y) + (re_mx prediction - y)).
  by rewrite [RHS]scalerDr -scalerDl.
apply: (entrywise_gradient _ (A := fun P => map_mx _ (P - Y))) => i j.
by rewrite !mxE /= subr0 [RHS]mulrDl [X in X + _ = _]mulrC.
Qed.

(** The gradient of half_sse is its derivative. *)
Theorem half_sse_derivative (half : R) prediction : half + half = 1 ->
  has_gradient (fun P => half_sse (constant half) P Y) (half_sse_gradient (re_mx prediction) y)
    prediction.
Proof.
move=> two_halves; have -> : half_sse_gradient (re_mx prediction) y
    = half *: ((re_mx prediction - y) + (re_mx prediction - y)).
  by rewrite [RHS]scalerDr -scalerDl two_halves scale1r.
apply: (entrywise_gradient _ (A := fun P => map_mx _ (P - Y))) => i j.
by rewrite !mxE /= subr0 [RHS]mulrDl [X in X + _ = _]mulrC.
Qed.
End Entrywise.

(** ** Losses with an order: dual numbers are ordered by their first part, then by ε. *)
Section Ordered.
Variables (R : realFieldType) (m n : nat) (y : 'M[R]_(m, n)).
Local Notation dual := (dual_comRingType R).
Local Notation Y := (map_mx (@constant R) y).

Definition dual_max (w z : dual) : dual :=
  if (re w < re z) || (re w == re z) && (ep w <= ep z) then z else w.

Lemma dual_max_cases (w z : dual) : dual_max w z = w \/ dual_max w z = z.
Proof. by rewrite /dual_max; case: ifP; [right | left]. Qed.

Lemma re_max (w z : dual) : re (dual_max w z) = Num.max (re w) (re z).
Proof. by rewrite /dual_max; case: (ltgtP (re w) (re z)) => [||eq_wz] //=; case: ifP. Qed.

(** Together, max(z, 0) and |z| are z and z, or 0 and −z. *)
Lemma max_and_magnitude (z : dual) (negative := (re z < 0) || (re z == 0) && (ep z <= 0)) :
  (dual_max z 0 = if negative then 0 else z)
  * (magnitude dual_max z = if negative then - z else z).
Proof.
split=> //; rewrite /magnitude /dual_max /= -[re z < - re z]subr_lt0 -[re z == - re z]subr_eq0.
rewrite -[ep z <= - ep z]subr_le0 !opprK -!mulr2n mulrn_eq0 pmulrn_llt0 //.
by rewrite pmulrn_lle0.
Qed.

(** The gradient of mae is its derivative where no residual is zero. *)
Theorem mae_derivative nu (prediction : 'M[dual]_(m, n)) :
  (forall i j, re (prediction i j) != y i j) ->
  has_gradient (fun P => mae dual_max (constant nu) P Y)
    (mae_gradient nu (re_mx prediction) y Num.sg) prediction.
Proof.
move=> smooth; apply: (entrywise_gradient _ (A := fun P => map_mx (magnitude dual_max) (P - Y))).
move=> i j; rewrite !mxE max_and_magnitude /= !subr0 subr_lt0 subr_eq0 (negPf (smooth i j)) orbF.
have [lt_y | gt_y | eq_y] := ltgtP (re (prediction i j)) (y i j).
- by rewrite ltr0_sg ?subr_lt0 // mulN1r /= subr0.
- by rewrite gtr0_sg ?subr_gt0 // mul1r /= subr0.
by have := smooth i j; rewrite eq_y eqxx.
Qed.

(** The gradient of Huber's loss is its derivative, at |r| = 1 too. *)
Theorem huber_derivative nu half (prediction : 'M[dual]_(m, n)) : half + half = 1 ->
  has_gradient (fun P => huber dual_max (constant nu) (constant half) P Y)
    (huber_gradient Num.max nu (re_mx prediction) y) prediction.
Proof.
move=> two_halves; apply: (entrywise_gradient _ (A := fun P =>
  map_mx (fun r => limited dual_max r * (r - constant half * limited dual_max r)) (P - Y))).
move=> i j; rewrite !mxE; set r := prediction i j + - constant (y i j).
have -> : ep (prediction i j) = ep r by rewrite /= subr0.
have -> : re (prediction i j) - y i j = re r by [].
have -> : limited Num.max (re r) = re (limited dual_max r).
  by rewrite /limited /= re_max /= re_max.
have [-> | ep0] : limited dual_max r = r \/ ep (limited dual_max r) = 0; last 2 first.
- case: r => a e /=; rewrite mul0r add0r !mulrBr [e * (_ * a)]mulrCA [a * (_ * e)]mulrCA.
  by rewrite [e * a]mulrC addrACA -opprD -(mulrDl half half) two_halves mul1r addrK.
- case: (limited dual_max r) ep0 => k l /= ->; case: r => a e /=.
  by rewrite !(mul0r, mulr0, addr0, add0r, subr0).
rewrite /limited; case: (dual_max_cases (- dual_max r (-1)) (-1)) => ->; last first.
  by right; rewrite /= !oppr0.
by case: (dual_max_cases r (-1)) => ->; [left; rewrite opprK | right; rewrite /= !oppr0].
Qed.

(** *** Losses with an exponential and a logarithm *)
Section Exponential.
Variables (exp log : R -> R) (Exp Log : dual -> dual).
Hypothesis expD : forall a b, exp (a + b) = exp a * exp b.
Hypothesis exp_gt0 : forall a, 0 < exp a.
Hypothesis logK : forall a, 0 < a -> exp (log a) = a.
Hypothesis Exp_exp : extends exp exp Exp.
Hypothesis Log_log : forall a b, 0 < a -> Log (Dual a b) = Dual (log a) (a^-1 * b).

Definition sigmoid (a : R) := (1 + exp (- a))^-1.

Lemma exp0 : exp 0 = 1.
Proof.
by apply: (mulfI (lt0r_neq0 (exp_gt0 0))); rewrite -expD addr0 mulr1.
Qed.

Lemma expN a : exp (- a) * exp a = 1.
Proof. by rewrite -expD addNr exp0. Qed.

Lemma exp1_neq0 a : 1 + exp a != 0.
Proof. by rewrite lt0r_neq0 ?addr_gt0 ?ltr01. Qed.

Lemma ep_log1p (w : dual) : ep (Log (1 + Exp w)) = (1 + exp (re w))^-1 * (exp (re w) * ep w).
Proof.
case: w => a e; rewrite Exp_exp -[1 + _]/(Dual (1 + exp a) (0 + exp a * e)).
by rewrite Log_log ?addr_gt0 ?ltr01 // add0r.
Qed.

Lemma ep_cross_entropy (z : dual) :
  ep (dual_max z 0 + Log (1 + Exp (- magnitude dual_max z))) = sigmoid (re z) * ep z.
Proof.
rewrite -[LHS]/(ep _ + ep _) ep_log1p !max_and_magnitude /sigmoid.
case: z => a e; case: ifP => _ /=.
  rewrite !opprK add0r mulrA; congr (_ * _); apply: (mulfI (exp1_neq0 a)).
  rewrite mulrA mulfV ?exp1_neq0 // mul1r; apply: (mulIf (exp1_neq0 (- a))).
  by rewrite mulfVK ?exp1_neq0 // mulrDr mulr1 [_ * exp (- a)]mulrC expN addrC.
apply: (mulfI (exp1_neq0 (- a))); rewrite mulrDr !mulrA !mulfV ?exp1_neq0 // !mul1r.
by rewrite mulrN mulrDl mul1r addrK.
Qed.

(** The gradient of binary cross-entropy is its derivative, at ŷ = 0 too. *)
Theorem binary_cross_entropy_derivative nu (prediction : 'M[dual]_(m, n)) :
  has_gradient (fun P => binary_cross_entropy dual_max Exp Log (constant nu) P Y)
    (binary_gradient nu (re_mx prediction) y sigmoid) prediction.
Proof.
apply: (entrywise_gradient _ (A := fun P => \matrix_(i, j)
  (dual_max (P i j) 0 + Log (1 + Exp (- magnitude dual_max (P i j))) - Y i j * P i j))) => i j.
rewrite mxE raddfB /= -[ep _ + ep _]/(ep (dual_max (prediction i j) 0 + _)) ep_cross_entropy.
by rewrite !mxE /= mul0r add0r mulrBl.
Qed.

(** Softmax: the shift of a row may be any number, so it may be the maximum. *)
Section Softmax.
Variables (prediction : 'M[dual]_(m, n)) (shift : 'I_m -> dual).
Local Notation logits := (re_mx prediction).
Local Notation shift_re := (fun i => re (shift i)).
Local Notation rate := (map_mx exp (log_softmax exp log logits shift_re)).

Definition partition i := \sum_k exp (logits i k - shift_re i).

Lemma partition_gt0 i (j : 'I_n) : 0 < partition i.
Proof.
rewrite /partition (bigD1 j) //= ltr_paddr // sumr_ge0 // => k _; exact: ltW.
Qed.

Lemma rateE i j : rate i j = (partition i)^-1 * exp (logits i j - shift_re i).
Proof.
have S_gt0 := partition_gt0 i j; rewrite !mxE expD mulrC; congr (_ * _).
apply: (mulIf (lt0r_neq0 S_gt0)); rewrite mulVf ?lt0r_neq0 // -{1}(logK S_gt0); exact: expN.
Qed.

Lemma sum_rates i (j : 'I_n) : \sum_k rate i k = 1.
Proof.
under eq_bigr do rewrite rateE.
by rewrite -mulr_sumr mulVf // lt0r_neq0 // partition_gt0.
Qed.

Lemma ep_log_softmax i j : ep (log_softmax Exp Log prediction shift i j)
  = ep (prediction i j) - \sum_k rate i k * ep (prediction i k).
Proof.
rewrite mxE; set S := \sum_k _.
have -> : S = Dual (partition i)
    (\sum_k exp (logits i k - shift_re i) * ep (prediction i k - shift i)).
  rewrite /S /partition; apply: dual_eq; rewrite raddf_sum; apply: eq_bigr => k _ /=;
    by rewrite mxE; case: (prediction i k) (shift i) => [a e] [b f]; rewrite Exp_exp.
rewrite Log_log ?(partition_gt0 i j) // -[LHS]/(ep (prediction i j) - ep (shift i) - _) mulr_sumr.
under eq_bigr do rewrite mulrA -rateE raddfB mulrBr.
by rewrite big_split /= sumrN -mulr_suml (sum_rates i j) mul1r opprB addrA subrK.
Qed.

(** The gradient of softmax cross-entropy is its derivative if each row of y has the sum 1. *)
Theorem softmax_cross_entropy_derivative nu : (forall i, \sum_j y i j = 1) ->
  has_gradient (fun P => softmax_cross_entropy Exp Log (constant nu) P Y shift)
    (softmax_gradient exp log nu logits y shift_re) prediction.
Proof.
move=> sum_y; rewrite /has_gradient -[LHS]/(- ep (constant nu * _)) ep_sum_entries innerE -mulrN.
rewrite /sum_entries -sumrN mulr_sumr; apply: eq_bigr => i _.
set mean := \sum_k rate i k * ep (prediction i k).
have -> : \sum_j ep_mx (Y ⊙ log_softmax Exp Log prediction shift) i j
    = \sum_j y i j * ep (prediction i j) - mean.
  rewrite -[mean]mul1r -(sum_y i) mulr_suml -sumrB; apply: eq_bigr => j _.
  by rewrite -mulrBr -ep_log_softmax !mxE /= mul0r add0r.
rewrite opprB -sumrB mulr_sumr; apply: eq_bigr => j _.
by rewrite -mulrBl mulrA; congr (_ * _); rewrite !mxE.
Qed.
End Softmax.
End Exponential.
End Ordered.
