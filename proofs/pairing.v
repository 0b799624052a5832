(** Inner product, Hadamard product and bias rows of matrices over a commutative ring.

    A gradient G of a scalar L with respect to a matrix A is defined by dL = ⟨G, dA⟩. The rules of
    this file move a linear map from the right side of such a pairing to its left side. *)

From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Definitions.
Variables (R : comRingType) (m n : nat).
Implicit Types A B : 'M[R]_(m, n).

Definition inner A B : R := \tr (A *m B^T).
Definition hadamard A B : 'M[R]_(m, n) := \matrix_(i, j) (A i j * B i j).

(** The bias b in each of the m rows, and the sum of the rows. *)
Definition rows (b : 'rV[R]_n) : 'M[R]_(m, n) := \matrix_(i, j) b 0 j.
Definition row_sum A : 'rV[R]_n := \row_j \sum_i A i j.
End Definitions.

Arguments rows {R} m {n}.

Notation "⟨ A , B ⟩" := (inner A B) (A at level 100, format "⟨ A ,  B ⟩") : ring_scope.
Notation "A ⊙ B" := (hadamard A B) (at level 40, left associativity) : ring_scope.

Section Rules.
Variable R : comRingType.

Section OneSize.
Variables m n : nat.
Implicit Types A B C G : 'M[R]_(m, n).

Lemma innerE A B : ⟨A, B⟩ = \sum_i \sum_j A i j * B i j.
Proof. by apply: eq_bigr => i _; rewrite mxE; apply: eq_bigr => j _; rewrite mxE. Qed.

Lemma innerDl A B C : ⟨A + B, C⟩ = ⟨A, C⟩ + ⟨B, C⟩.
Proof. by rewrite /inner mulmxDl mxtraceD. Qed.

Lemma innerDr A B C : ⟨A, B + C⟩ = ⟨A, B⟩ + ⟨A, C⟩.
Proof. by rewrite /inner linearD mulmxDr mxtraceD. Qed.

Lemma inner0l A : ⟨0, A⟩ = 0.
Proof. by rewrite /inner mul0mx mxtrace0. Qed.

Lemma inner0r A : ⟨A, 0⟩ = 0.
Proof. by rewrite /inner trmx0 mulmx0 mxtrace0. Qed.

Lemma innerNr A B : ⟨A, - B⟩ = ⟨- A, B⟩.
Proof. by rewrite /inner linearN /= mulmxN mulNmx. Qed.

Lemma inner_suml I (r : seq I) (F : I -> 'M[R]_(m, n)) A :
  ⟨\sum_(i <- r) F i, A⟩ = \sum_(i <- r) ⟨F i, A⟩.
Proof. by rewrite /inner mulmx_suml linear_sum. Qed.

Lemma inner_delta A i j : ⟨A, delta_mx i j⟩ = A i j.
Proof.
rewrite innerE (bigD1 i) //= [X in _ + X]big1 ?addr0 => [|k /negPf neq_ki]; last first.
  by apply: big1 => l _; rewrite mxE neq_ki mulr0.
rewrite (bigD1 j) //= mxE !eqxx mulr1 big1 ?addr0 // => l /negPf neq_lj.
by rewrite mxE neq_lj andbF mulr0.
Qed.

(** Only one matrix has given pairings with all matrices: a gradient is unique. *)
Lemma inner_injective A B : (forall X, ⟨A, X⟩ = ⟨B, X⟩) -> A = B.
Proof. by move=> eqAB; apply/matrixP => i j; rewrite -!inner_delta. Qed.

Lemma hadamardC A B : A ⊙ B = B ⊙ A.
Proof. by apply/matrixP => i j; rewrite !mxE mulrC. Qed.

Lemma hadamard0l A : 0 ⊙ A = 0.
Proof. by apply/matrixP => i j; rewrite !mxE mul0r. Qed.

Lemma hadamardNr A B : A ⊙ (- B) = - (A ⊙ B).
Proof. by apply/matrixP => i j; rewrite !mxE mulrN. Qed.

Lemma hadamardDr A B C : A ⊙ (B + C) = A ⊙ B + A ⊙ C.
Proof. by apply/matrixP => i j; rewrite !mxE mulrDr. Qed.

(** ⟨G, F ⊙ A⟩ = ⟨G ⊙ F, A⟩ *)
Lemma inner_hadamard G B A : ⟨G, B ⊙ A⟩ = ⟨G ⊙ B, A⟩.
Proof.
by rewrite !innerE; apply: eq_bigr => i _; apply: eq_bigr => j _; rewrite !mxE mulrA.
Qed.

End OneSize.

Lemma inner_rows m n (G : 'M[R]_(m, n)) (b : 'rV_n) : ⟨G, rows m b⟩ = ⟨row_sum G, b⟩.
Proof.
rewrite !innerE big_ord1 exchange_big; apply: eq_bigr => j _.
by rewrite mxE mulr_suml; apply: eq_bigr => i _; rewrite mxE.
Qed.

Lemma row_sum0 m n : row_sum (0 : 'M[R]_(m, n)) = 0.
Proof. by apply/matrixP => i j; rewrite !mxE big1 // => k _; rewrite mxE. Qed.

(** ⟨G, X Uᵀ⟩ = ⟨G U, X⟩ = ⟨Gᵀ X, U⟩ *)
Lemma inner_factor m n p (G : 'M[R]_(m, n)) (X : 'M_(m, p)) (U : 'M_(n, p)) :
  ⟨G, X *m U^T⟩ = ⟨G *m U, X⟩.
Proof. by rewrite /inner trmx_mul trmxK mulmxA. Qed.

Lemma inner_weight m n p (G : 'M[R]_(m, n)) (X : 'M_(m, p)) (U : 'M_(n, p)) :
  ⟨G, X *m U^T⟩ = ⟨G^T *m X, U⟩.
Proof.
by rewrite /inner trmx_mul trmxK -mulmxA [RHS]mxtrace_mulC -mxtrace_tr !trmx_mul !trmxK.
Qed.
End Rules.
