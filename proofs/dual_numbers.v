(** Dual numbers a + ε b with ε² = 0, and the rules of reverse-mode differentiation that follow.

    The ε-part of f(θ + ε d) is the derivative of f at θ in the direction d. For the sums, products
    and functions of this file that is a theorem or, for a function without a formula, what it means
    to have a derivative: no limit is taken, and the ring of numbers is arbitrary. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Ring.
Variable R : comRingType.

Record dual := Dual { re : R; ep : R }.

Definition pair_of_dual (z : dual) := (re z, ep z).
Definition dual_of_pair (z : R * R) := Dual z.1 z.2.
Lemma pair_of_dualK : cancel pair_of_dual dual_of_pair. Proof. by case. Qed.

Definition dual_eqMixin := CanEqMixin pair_of_dualK.
Canonical dual_eqType := EqType dual dual_eqMixin.
Definition dual_choiceMixin := CanChoiceMixin pair_of_dualK.
Canonical dual_choiceType := ChoiceType dual dual_choiceMixin.

Definition dual_add y z := Dual (re y + re z) (ep y + ep z).
Definition dual_opp z := Dual (- re z) (- ep z).
Definition dual_mul y z := Dual (re y * re z) (ep y * re z + re y * ep z).

Lemma dual_eq y z : re y = re z -> ep y = ep z -> y = z.
Proof. by case: y z => [a b] [c d] /= -> ->. Qed.

Lemma dual_addA : associative dual_add.
Proof. by move=> x y z; apply: dual_eq; rewrite /= addrA. Qed.
Lemma dual_addC : commutative dual_add.
Proof. by move=> y z; apply: dual_eq; rewrite /= addrC. Qed.
Lemma dual_add0 : left_id (Dual 0 0) dual_add.
Proof. by move=> z; apply: dual_eq; rewrite /= add0r. Qed.
Lemma dual_addN : left_inverse (Dual 0 0) dual_opp dual_add.
Proof. by move=> z; apply: dual_eq; rewrite /= addNr. Qed.
Definition dual_zmodMixin := ZmodMixin dual_addA dual_addC dual_add0 dual_addN.
Canonical dual_zmodType := ZmodType dual dual_zmodMixin.

Lemma dual_mulA : associative dual_mul.
Proof. by move=> x y z; apply: dual_eq; rewrite /= ?mulrDl ?mulrDr !mulrA // addrA. Qed.
Lemma dual_mulC : commutative dual_mul.
Proof. by move=> y z; apply: dual_eq; rewrite /= mulrC // addrC [in LHS]mulrC. Qed.
Lemma dual_mul1 : left_id (Dual 1 0) dual_mul.
Proof. by move=> z; apply: dual_eq; rewrite /= ?mul0r ?add0r mul1r. Qed.
Lemma dual_mulDl : left_distributive dual_mul +%R.
Proof. by move=> x y z; apply: dual_eq; rewrite /= !mulrDl // addrACA. Qed.
Lemma dual_1_neq_0 : Dual 1 0 != 0.
Proof. by apply/eqP => -[/eqP]; rewrite oner_eq0. Qed.
Definition dual_ringMixin :=
  ComRingMixin dual_mulA dual_mulC dual_mul1 dual_mulDl dual_1_neq_0.
Canonical dual_ringType := RingType dual dual_ringMixin.
Canonical dual_comRingType := ComRingType dual dual_mulC.

Fact re_is_additive : additive re. Proof. by []. Qed.
Canonical re_additive := Additive re_is_additive.
Fact re_is_multiplicative : multiplicative re. Proof. by []. Qed.
Canonical re_rmorphism := AddRMorphism re_is_multiplicative.
Fact ep_is_additive : additive ep. Proof. by []. Qed.
Canonical ep_additive := Additive ep_is_additive.

(** The ring itself, as the dual numbers without ε-part. *)
Definition constant (a : R) := Dual a 0.
Fact constant_is_additive : additive constant.
Proof. by move=> a b; apply: dual_eq; rewrite //= subr0. Qed.
Canonical constant_additive := Additive constant_is_additive.
Fact constant_is_multiplicative : multiplicative constant.
Proof. by split=> // a b; apply: dual_eq; rewrite //= mul0r mulr0 addr0. Qed.
Canonical constant_rmorphism := AddRMorphism constant_is_multiplicative.

(** What having a derivative means here: F(a + ε b) = f(a) + ε f′(a) b. *)
Definition extends (f f' : R -> R) (F : dual -> dual) :=
  forall a b, F (Dual a b) = Dual (f a) (f' a * b).

(** Every polynomial has its formal derivative in this sense. *)
Lemma extends_polynomial (q : {poly R}) :
  extends (horner q) (horner q^`()) (horner (map_poly constant q)).
Proof.
move=> a b; elim/poly_ind: q => [|q k IHq].
  by rewrite rmorph0 !horner0 deriv0 horner0 mul0r.
rewrite rmorphD rmorphM /= map_polyX map_polyC hornerD hornerC hornerMX IHq.
rewrite derivD derivC addr0 derivM derivX mulr1.
apply: dual_eq; rewrite /= !(hornerD, hornerMX, hornerC) // addr0 mulrDl.
by rewrite -!mulrA (mulrC b).
Qed.
End Ring.

Notation re_mx := (map_mx (@re _)).
Notation ep_mx := (map_mx (@ep _)).

(** A function of matrices has the gradient G at the point A. *)
Definition has_gradient (R : comRingType) m n (F : 'M[dual_comRingType R]_(m, n) -> dual R)
    (G : 'M[R]_(m, n)) A :=
  ep (F A) = ⟨G, ep_mx A⟩.

(** The ε-part of each operation, paired with a cotangent G. Read from left to right, every rule is
    one step of backpropagation: it says what the operation passes back to each of its operands. *)
Section Rules.
Variable R : comRingType.
Local Notation dual := (dual_comRingType R).

Lemma re_rows m n (b : 'rV[dual]_n) : re_mx (rows m b) = rows m (re_mx b).
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma re_hadamard m n (A B : 'M[dual]_(m, n)) : re_mx (A ⊙ B) = re_mx A ⊙ re_mx B.
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma re_constant m n (A : 'M[R]_(m, n)) : re_mx (map_mx (@constant R) A) = A.
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma ep_constant m n (A : 'M[R]_(m, n)) : ep_mx (map_mx (@constant R) A) = 0.
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Section OneSize.
Variables (m n : nat) (G : 'M[R]_(m, n)).
Implicit Types A B : 'M[dual]_(m, n).

Lemma back_sum A B : ⟨G, ep_mx (A + B)⟩ = ⟨G, ep_mx A⟩ + ⟨G, ep_mx B⟩.
Proof. by rewrite map_mxD innerDr. Qed.

Lemma back_complement A : ⟨G, ep_mx (const_mx 1 - A)⟩ = ⟨- G, ep_mx A⟩.
Proof. by rewrite -innerNr; congr ⟨_, _⟩; apply/matrixP => i j; rewrite !mxE /= sub0r. Qed.

Lemma back_hadamard A B :
  ⟨G, ep_mx (A ⊙ B)⟩ = ⟨G ⊙ re_mx B, ep_mx A⟩ + ⟨G ⊙ re_mx A, ep_mx B⟩.
Proof.
rewrite -!inner_hadamard -innerDr (hadamardC (re_mx B)).
by congr ⟨_, _⟩; apply/matrixP => i j; rewrite !mxE.
Qed.

Lemma back_rows (b : 'rV[dual]_n) : ⟨G, ep_mx (rows m b)⟩ = ⟨row_sum G, ep_mx b⟩.
Proof. by rewrite -inner_rows; congr ⟨_, _⟩; apply/matrixP => i j; rewrite !mxE. Qed.

Section Function.
Variables (f f' : R -> R) (F : dual -> dual).
Hypothesis Ff : extends f f' F.

Lemma re_map A : re_mx (map_mx F A) = map_mx f (re_mx A).
Proof. by apply/matrixP => i j; rewrite !mxE; case: (A i j) => a b; rewrite Ff. Qed.

Lemma back_map A : ⟨G, ep_mx (map_mx F A)⟩ = ⟨G ⊙ map_mx f' (re_mx A), ep_mx A⟩.
Proof.
rewrite -inner_hadamard; congr ⟨_, _⟩.
by apply/matrixP => i j; rewrite !mxE; case: (A i j) => a b; rewrite Ff.
Qed.
End Function.
End OneSize.

Lemma back_linear m n p (G : 'M[R]_(m, n)) (X : 'M[dual]_(m, p)) (U : 'M[dual]_(n, p)) :
  ⟨G, ep_mx (X *m U^T)⟩ = ⟨G^T *m re_mx X, ep_mx U⟩ + ⟨G *m re_mx U, ep_mx X⟩.
Proof.
rewrite -inner_weight -inner_factor -innerDr; congr ⟨_, _⟩.
apply/matrixP => i j; rewrite !mxE raddf_sum -big_split /=.
by apply: eq_bigr => k _; rewrite !mxE /= addrC.
Qed.

(** x Uᵀ + h Wᵀ + b, the pre-activation of every cell. *)
Lemma back_preactivation m n k l (G : 'M[R]_(m, n)) (x : 'M[dual]_(m, k)) (U : 'M[dual]_(n, k))
    (h : 'M[dual]_(m, l)) (W : 'M[dual]_(n, l)) (b : 'rV[dual]_n) :
  ⟨G, ep_mx (x *m U^T + h *m W^T + rows m b)⟩
  = ⟨G^T *m re_mx x, ep_mx U⟩ + ⟨G^T *m re_mx h, ep_mx W⟩ + ⟨row_sum G, ep_mx b⟩
    + ⟨G *m re_mx U, ep_mx x⟩ + ⟨G *m re_mx W, ep_mx h⟩.
Proof. by rewrite !back_sum !back_linear back_rows [LHS](AC (2*2*1) (1*3*5*2*4)). Qed.

Lemma re_linear m n p (X : 'M[dual]_(m, p)) (U : 'M[dual]_(n, p)) :
  re_mx (X *m U^T) = re_mx X *m (re_mx U)^T.
Proof. by rewrite map_mxM map_trmx. Qed.

Lemma re_preactivation m n k l (x : 'M[dual]_(m, k)) (U : 'M[dual]_(n, k))
    (h : 'M[dual]_(m, l)) (W : 'M[dual]_(n, l)) (b : 'rV[dual]_n) :
  re_mx (x *m U^T + h *m W^T + rows m b)
  = re_mx x *m (re_mx U)^T + re_mx h *m (re_mx W)^T + rows m (re_mx b).
Proof. by rewrite !map_mxD !re_linear re_rows. Qed.
End Rules.
