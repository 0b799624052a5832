(** The error of a sum of products in floating-point arithmetic, in any order of its additions. *)

From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section SumOfProducts.
Variables (R : realFieldType) (u nu : R).  (* unit roundoff, largest error of an underflow *)
Hypotheses (u_ge0 : 0 <= u) (nu_ge0 : 0 <= nu).

(** A sum of products, in the order in which it is computed. *)
Inductive sum := product of R & R | plus of sum & sum.

Fixpoint terms s : nat := if s is plus l r then (terms l + terms r)%N else 1%N.
Fixpoint operations s : nat :=
  if s is plus l r then (operations l + operations r).+1%N else 1%N.
Fixpoint exact s : R := match s with product x y => x * y | plus l r => exact l + exact r end.
Fixpoint magnitude s : R :=
  match s with product x y => `|x| * `|y| | plus l r => magnitude l + magnitude r end.

(** The standard model: fl(x ∘ y) = (x ∘ y)(1 + δ) + η with |δ| ≤ u and |η| ≤ ν. A fused
    multiply-add is the case δ = η = 0 of its product. *)
Inductive computed : sum -> R -> Prop :=
| computed_product x y d e : `|d| <= u -> `|e| <= nu ->
    computed (product x y) (x * y * (1 + d) + e)
| computed_plus l r a b d e : computed l a -> computed r b -> `|d| <= u -> `|e| <= nu ->
    computed (plus l r) ((a + b) * (1 + d) + e).

Definition gamma n : R := n%:R * u / (1 - n%:R * u).  (* (E1) *)

Lemma terms_gt0 s : (0 < terms s)%N.
Proof. by elim: s => //= l l_gt0 r _; rewrite addn_gt0 l_gt0. Qed.

Lemma magnitude_ge0 s : 0 <= magnitude s.
Proof. by elim: s => [x y|l ? r ?] /=; rewrite ?mulr_ge0 ?addr_ge0. Qed.

Lemma exact_magnitude s : `|exact s| <= magnitude s.
Proof.
elim: s => [x y|l IHl r IHr] /=; first by rewrite normrM.
exact: le_trans (ler_norm_add _ _) (ler_add IHl IHr).
Qed.

Lemma growth_ge0 : 0 <= 1 + u.
Proof. by rewrite addr_ge0 ?ler01. Qed.

Lemma growth_ge1 n : 1 <= (1 + u) ^+ n.
Proof. by rewrite exprn_ege1 // ler_addl. Qed.

(** One rounding: what it adds to an error that is there. *)
Lemma rounding_step z x d e : `|d| <= u -> `|e| <= nu ->
  `|z * (1 + d) + e - x| <= (1 + u) * `|z - x| + u * `|x| + nu.
Proof.
move=> le_du le_enu.
have -> : z * (1 + d) + e - x = (1 + d) * (z - x) + d * x + e.
  by rewrite mulrBr [(1 + d) * x]mulrDl mul1r opprD [(1 + d) * z]mulrC addrA subrK addrAC.
apply: le_trans (ler_norm_add _ _) _; apply: ler_add => //.
apply: le_trans (ler_norm_add _ _) _; rewrite !normrM; apply: ler_add; last first.
  exact: ler_wpmul2r.
apply: ler_wpmul2r => //; apply: le_trans (ler_norm_add _ _) _.
by rewrite normr1 ler_add2l.
Qed.

Lemma growth_le m n : (m <= n)%N -> (1 + u) ^+ m <= (1 + u) ^+ n.
Proof. by move=> le_mn; rewrite ler_weexpn2l // ler_addl. Qed.

(** What an error of the left operand, with its part of the rounding, grows to. *)
Lemma side_growth n m k M err : (0 < n)%N -> (0 < m)%N -> 0 <= M ->
  err <= ((1 + u) ^+ n - 1) * M + k%:R * nu * (1 + u) ^+ n.-1 ->
  (1 + u) * err + u * M <= ((1 + u) ^+ (n + m) - 1) * M + k%:R * nu * (1 + u) ^+ (n + m).-1.
Proof.
move=> n_gt0 m_gt0 M_ge0 le_err; have u1_ge0 := growth_ge0.
have le_n1 : (n.+1 <= n + m)%N by rewrite -addn1 leq_add2l.
apply: (@le_trans _ _ (((1 + u) ^+ n.+1 - 1) * M + k%:R * nu * (1 + u) ^+ n)).
  apply: le_trans (ler_add (ler_wpmul2l u1_ge0 le_err) (lexx _)) _.
  rewrite mulrDr addrAC [(1 + u) * (k%:R * nu * _)]mulrCA -exprS prednK // mulrA -mulrDl ler_add2r.
  rewrite ler_wpmul2r // mulrBr mulr1 -exprS opprD addrA subrK.
  by [].
apply: ler_add; first by rewrite ler_wpmul2r // ler_add2r growth_le.
apply: ler_wpmul2l; first by rewrite mulr_ge0 ?ler0n.
by apply: growth_le; rewrite -ltnS prednK // (leq_trans _ le_n1).
Qed.

Lemma error_growth s z : computed s z ->
  `|z - exact s| <= ((1 + u) ^+ terms s - 1) * magnitude s
                    + (operations s)%:R * nu * (1 + u) ^+ (terms s).-1.
Proof.
elim=> [x y d e le_du le_enu | l r a b d e _ IHl _ IHr le_du le_enu].
  apply: le_trans (rounding_step _ _ le_du le_enu) _; rewrite subrr normr0 mulr0 add0r /=.
  by rewrite expr0 mulr1 expr1 [1 + u]addrC addrK normrM mul1r.
have l_gt0 := terms_gt0 l; have r_gt0 := terms_gt0 r.
have side_l := side_growth l_gt0 r_gt0 (magnitude_ge0 l) IHl.
have side_r := side_growth r_gt0 l_gt0 (magnitude_ge0 r) IHr.
rewrite [(terms r + _)%N]addnC in side_r.
apply: le_trans (rounding_step _ _ le_du le_enu) _ => /=.
apply: (@le_trans _ _ (((1 + u) * `|a - exact l| + u * magnitude l)
  + ((1 + u) * `|b - exact r| + u * magnitude r) + nu)).
  rewrite ler_add2r addrACA -!mulrDr; apply: ler_add.
    by rewrite ler_wpmul2l ?growth_ge0 // opprD addrACA ler_norm_add.
  by rewrite ler_wpmul2l // -[magnitude l + _]/(magnitude (plus l r)) (exact_magnitude (plus l r)).
apply: le_trans (ler_add (ler_add side_l side_r) (lexx _)) _.
rewrite addrACA -mulrDr -addrA ler_add2l -addn1 !natrD !mulrDl mul1r ler_add2l.
by rewrite ler_pemulr // growth_ge1.
Qed.

Lemma growth_bound n : (1 + u) ^+ n * (1 - n%:R * u) <= 1.
Proof.
elim: n => [|n IHn]; first by rewrite expr0 mul0r subr0 mulr1.
rewrite exprSr -mulrA; apply: le_trans IHn; apply: ler_wpmul2l.
  exact: le_trans (growth_ge1 n).
have -> : (1 + u) * (1 - n.+1%:R * u) = 1 - n%:R * u - u * (n.+1%:R * u).
  rewrite mulrDl mul1r mulrBr mulr1 addrA; congr (_ - _).
  by rewrite -[n.+1]addn1 natrD mulrDl mul1r opprD addrA subrK.
by rewrite ger_addl oppr_le0 !mulr_ge0 ?ler0n.
Qed.

Lemma growth_inverse n : n%:R * u < 1 -> (1 + u) ^+ n <= (1 - n%:R * u)^-1.
Proof.
by move=> lt_nu1; rewrite -[leRHS]mul1r ler_pdivl_mulr ?subr_gt0 ?growth_bound.
Qed.

Lemma growth_gamma n : n%:R * u < 1 -> (1 + u) ^+ n - 1 <= gamma n.
Proof.
move=> lt_nu1; have gt0 : 0 < 1 - n%:R * u by rewrite subr_gt0.
have -> : gamma n = (1 - n%:R * u)^-1 - 1.
  apply: (mulIf (lt0r_neq0 gt0)); rewrite /gamma mulrBl mulVf ?mulfVK ?lt0r_neq0 //.
  by rewrite mul1r opprB addrC subrK.
by rewrite ler_add2r growth_inverse.
Qed.

Lemma operationsE s : operations s = (terms s).*2.-1.
Proof.
elim: s => //= l -> r ->; case: (terms l) (terms_gt0 l) (terms r) (terms_gt0 r) => // n _ [] // m _.
by rewrite -addnn addSn addnS -!addnn !addSn !addnS /= addnACA.
Qed.

(** A sum of n products, in any order, has an error of at most γ_n |x|ᵀ|y| + 2 n ν. *)
Theorem sum_of_products_error s z (n := terms s) : computed s z -> n%:R * u < 1 ->
  2 * n%:R * (n%:R * u) <= 1 ->
  `|z - exact s| <= gamma n * magnitude s + 2 * n%:R * nu.
Proof.
move=> /error_growth le_z lt_nu1 small; apply: le_trans le_z _; apply: ler_add.
  by rewrite ler_wpmul2r ?magnitude_ge0 // growth_gamma.
rewrite mulrAC; apply: ler_wpmul2r => //; rewrite operationsE -/n.
have n_gt0 := terms_gt0 s : (0 < n)%N.
apply: (@le_trans _ _ (n.*2.-1%:R * (1 - n%:R * u)^-1)).
  apply: ler_wpmul2l; first exact: ler0n.
  by apply: le_trans (growth_inverse lt_nu1); apply: growth_le; rewrite leq_pred.
have twice : 2 * n%:R = n.*2.-1%:R + 1 :> R.
  by rewrite -[1]/(1%:R) -natrD addn1 prednK ?double_gt0 // -mul2n natrM.
rewrite ler_pdivr_mulr ?subr_gt0 // mulrBr mulr1 ler_subr_addr [leRHS]twice.
by rewrite ler_add2l.
Qed.
End SumOfProducts.
