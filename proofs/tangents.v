(** Forward mode and the Hessian of the RNN: the tangents are the ε-parts, for every T and size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep cells rnn.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** * The tangents at p along the direction d, over any commutative ring *)
Section Tangents.
Variables (R : comRingType) (phi phi' phi'' : R -> R) (B D H O : nat) (p d : params R B D H O).
Local Notation state := 'M[R]_(B, H).
Local Notation a := (a phi p).
Local Notation h := (h phi p).

Definition tangent_sum t (previous : state) : state :=
  x p t *m (U d)^T + x d t *m (U p)^T + h t.-1 *m (W d)^T + previous *m (W p)^T
  + rows B (b d).  (* (D1)  U̇ x + U ẋ + Ẇ h + W ḣ + ḃ *)

Definition tangent_h : nat -> state :=
  run (fun t previous => map_mx phi' (a t) ⊙ tangent_sum t previous) (h0 d).  (* (D2)  φ′(a) ȧ *)

Definition tangent_a t := tangent_sum t (tangent_h t.-1).

Definition tangent_output t : 'M[R]_(B, O) :=
  h t *m (V d)^T + tangent_h t *m (V p)^T + rows B (c d).  (* (D3)  V̇ h + V ḣ + ċ *)

(** From the cotangents g_t = ∂L/∂ŷ_t and their tangents. *)
Variables (g tangent_g : nat -> 'M[R]_(B, O)) (T : nat).

Definition tangent_loss : R := \sum_(1 <= t < T.+1) ⟨g t, tangent_output t⟩.  (* (D4) *)

Definition tangent_entering t : state :=
  g t *m V d + tangent_g t *m V p.  (* (D5)  V̇ᵀ ∂L/∂ŷ + Vᵀ R{∂L/∂ŷ} *)

Local Notation gradient_h := (hidden_gradient phi phi' p g T).
Local Notation delta := (adjoint phi phi' p g T).

Definition tangent_delta t (s : state) : state :=
  s ⊙ map_mx phi' (a t) + gradient_h t ⊙ map_mx phi'' (a t) ⊙ tangent_a t.  (* (D6) *)

Definition tangent_back t (s : state) : state :=
  delta t *m W d + tangent_delta t s *m W p.  (* (D7)  Ẇᵀ δ + Wᵀ R{δ} *)

Definition tangent_gradient_h := state_gradient tangent_back tangent_entering T.
Definition tangent_adjoint t := tangent_delta t (tangent_gradient_h t).

(** The Hessian times d. *)
Definition hessian_product : params R B D H O := {|
  U := \sum_(1 <= t < T.+1)
         ((tangent_adjoint t)^T *m x p t + (delta t)^T *m x d t);  (* (D8) *)
  W := \sum_(1 <= t < T.+1)
         ((tangent_adjoint t)^T *m h t.-1 + (delta t)^T *m tangent_h t.-1);  (* (D9) *)
  V := \sum_(1 <= t < T.+1) ((tangent_g t)^T *m h t + (g t)^T *m tangent_h t);  (* (D10) *)
  b := \sum_(1 <= t < T.+1) row_sum (tangent_adjoint t);  (* (D11) *)
  c := \sum_(1 <= t < T.+1) row_sum (tangent_g t);  (* (D12) *)
  h0 := from_later tangent_back tangent_entering T 0;  (* (D7) at t = 1 *)
  x := fun t => delta t *m U d + tangent_adjoint t *m U p  (* (D13)  U̇ᵀ δ + Uᵀ R{δ} *)
|}.
End Tangents.

(** * The theorems: P = p + ε d, and the cotangents G of the outputs have the ε-parts of g. *)
Section Rules.
Variable R : comRingType.
Local Notation dual := (dual_comRingType R).

Lemma ep_mul m n k (A : 'M[dual]_(m, n)) (C : 'M_(n, k)) :
  ep_mx (A *m C) = ep_mx A *m re_mx C + re_mx A *m ep_mx C.
Proof.
apply/matrixP => i j; rewrite !mxE raddf_sum -big_split /=.
by apply: eq_bigr => l _; rewrite !mxE.
Qed.

Lemma ep_hadamard m n (A C : 'M[dual]_(m, n)) :
  ep_mx (A ⊙ C) = ep_mx A ⊙ re_mx C + re_mx A ⊙ ep_mx C.
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma ep_rows m n (b : 'rV[dual]_n) : ep_mx (rows m b) = rows m (ep_mx b).
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma ep_row_sum m n (A : 'M[dual]_(m, n)) : ep_mx (row_sum A) = row_sum (ep_mx A).
Proof.
by apply/matrixP => i j; rewrite !mxE raddf_sum; apply: eq_bigr => k _; rewrite mxE.
Qed.

Lemma ep_map m n (f f' : R -> R) (F : dual -> dual) (A : 'M[dual]_(m, n)) : extends f f' F ->
  ep_mx (map_mx F A) = map_mx f' (re_mx A) ⊙ ep_mx A.
Proof.
by move=> Ff; apply/matrixP => i j; rewrite !mxE; case: (A i j) => y z; rewrite Ff.
Qed.
End Rules.

Section Derivative.
Variables (R : comRingType) (phi phi' phi'' : R -> R) (Phi Phi' : dual R -> dual R).
Variables (B D H O T : nat).
Hypotheses (Phi_phi : extends phi phi' Phi) (Phi'_phi' : extends phi' phi'' Phi').
Variables (P : params (dual_comRingType R) B D H O) (G : nat -> 'M[dual R]_(B, O)).
Let p := map_params (@re R) P.
Let d := map_params (@ep R) P.
Let g t := re_mx (G t).
Let tangent_g t := ep_mx (G t).
Local Notation tangent_h := (tangent_h phi phi' p d).
Local Notation tangent_a := (tangent_a phi phi' p d).
Local Notation tangent_back := (tangent_back phi phi' phi'' p d g T).
Local Notation hP := (h Phi P).

Lemma ep_preactivation t y : re_mx y = h phi p t.-1 ->
  ep_mx (preactivation P t y) = tangent_sum phi p d t (ep_mx y).
Proof.
move=> re_y; rewrite !map_mxD !ep_mul ep_rows -!map_trmx re_y.
by rewrite [LHS](AC ((2*2)*1) (2*1*4*3*5)).
Qed.

Lemma ep_h t : ep_mx (hP t) = tangent_h t.
Proof.
elim: t => // t IHt; rewrite [LHS](ep_map _ Phi_phi) re_preactivation (re_h Phi_phi).
by rewrite ep_preactivation ?(re_h Phi_phi) // IHt.
Qed.

(** The tangent of each output is its derivative in the direction. *)
Theorem rnn_output_tangent t :
  ep_mx (prediction Phi P t) = tangent_output phi phi' p d t.
Proof.
by rewrite map_mxD ep_mul ep_rows -map_trmx ep_h (re_h Phi_phi) -map_trmx [X in X + _]addrC.
Qed.

(** The tangent of a loss, by forward mode, is its derivative in the direction. *)
Theorem rnn_loss_tangent (loss : nat -> 'M[dual R]_(B, O) -> dual_comRingType R) :
  (forall t, (0 < t <= T)%N -> has_gradient (loss t) (g t) (prediction Phi P t)) ->
  ep (\sum_(1 <= t < T.+1) loss t (prediction Phi P t)) = tangent_loss phi phi' p d g T.
Proof.
move=> correct; rewrite raddf_sum; apply: eq_big_nat => t le_tT.
by rewrite -rnn_output_tangent; apply: correct.
Qed.

Lemma ep_a t : ep_mx (a Phi P t) = tangent_a t.
Proof. by rewrite ep_preactivation ?ep_h // (re_h Phi_phi). Qed.

Lemma re_delta t s : re_mx (delta Phi Phi' P t s) = delta phi phi' p t (re_mx s).
Proof. by rewrite re_hadamard (re_map Phi'_phi') re_preactivation (re_h Phi_phi). Qed.

Lemma ep_delta t s : ep_mx (delta Phi Phi' P t s)
  = ep_mx s ⊙ map_mx phi' (a phi p t) + re_mx s ⊙ map_mx phi'' (a phi p t) ⊙ tangent_a t.
Proof.
rewrite ep_hadamard (re_map Phi'_phi') (ep_map _ Phi'_phi') ep_a re_preactivation (re_h Phi_phi).
by congr (_ + _); apply/matrixP => i j; rewrite !mxE mulrA.
Qed.

Lemma re_entering t : re_mx (entering P G t) = entering p g t.
Proof. exact: map_mxM. Qed.

Lemma re_after_steps j : re_mx (after_steps (back Phi Phi' P) (entering P G) T j)
  = after_steps (back phi phi' p) (entering p g) T j.
Proof.
elim: j => [|j IHj]; first exact: map_mx0.
by rewrite /= map_mxM re_delta map_mxD IHj re_entering.
Qed.

Lemma re_gradient_h t :
  re_mx (hidden_gradient Phi Phi' P G T t) = hidden_gradient phi phi' p g T t.
Proof. by rewrite /hidden_gradient /state_gradient map_mxD re_after_steps re_entering. Qed.

Lemma ep_entering t : ep_mx (entering P G t) = tangent_entering p d g tangent_g t.
Proof. by rewrite /entering /enter_state ep_mul addrC. Qed.

Lemma ep_back t s : re_mx s = hidden_gradient phi phi' p g T t ->
  ep_mx (back Phi Phi' P t s) = tangent_back t (ep_mx s).
Proof.
by move=> re_s; rewrite /back ep_mul re_delta ep_delta re_s addrC.
Qed.

Lemma ep_after_steps j : (j <= T)%N ->
  ep_mx (after_steps (back Phi Phi' P) (entering P G) T j)
  = after_steps tangent_back (tangent_entering p d g tangent_g) T j.
Proof.
elim: j => [|j IHj] lt_jT; first exact: map_mx0.
pose s' := after_steps (back Phi Phi' P) (entering P G) T j + entering P G (T - j).
have re_s : re_mx s' = hidden_gradient phi phi' p g T (T - j).
  rewrite -re_gradient_h /hidden_gradient /state_gradient /from_later subKn //.
  exact: ltnW.
transitivity (tangent_back (T - j) (ep_mx s')); first exact: ep_back re_s.
by rewrite map_mxD (IHj (ltnW lt_jT)) ep_entering.
Qed.

Lemma ep_gradient_h t : ep_mx (hidden_gradient Phi Phi' P G T t)
  = tangent_gradient_h phi phi' phi'' p d g tangent_g T t.
Proof.
by rewrite /hidden_gradient /state_gradient map_mxD (ep_after_steps (leq_subr _ _)) ep_entering.
Qed.

(** The product with the Hessian is the derivative of each gradient in the direction. *)
Theorem rnn_hessian_product :
  let E := gradient Phi Phi' P G T in
  let product := hessian_product phi phi' phi'' p d g tangent_g T in
  [/\ ep_mx (U E) = U product, ep_mx (W E) = W product, ep_mx (V E) = V product,
      ep_mx (b E) = b product &
  [/\ ep_mx (c E) = c product, ep_mx (h0 E) = h0 product &
      forall t, ep_mx (x E t) = x product t]].
Proof.
have ep_e t : ep_mx (adjoint Phi Phi' P G T t)
    = tangent_adjoint phi phi' phi'' p d g tangent_g T t.
  by rewrite ep_delta ep_gradient_h re_gradient_h.
have re_e t : re_mx (adjoint Phi Phi' P G T t) = adjoint phi phi' p g T t.
  by rewrite re_delta re_gradient_h.
split; [| | | | split=> [||t]].
- by rewrite raddf_sum; apply: eq_bigr => t _; rewrite /= ep_mul -!map_trmx ep_e re_e.
- rewrite raddf_sum; apply: eq_bigr => t _.
  by rewrite /= ep_mul -!map_trmx ep_e re_e ep_h (re_h Phi_phi).
- by rewrite raddf_sum; apply: eq_bigr => t _; rewrite /= ep_mul -!map_trmx ep_h (re_h Phi_phi).
- by rewrite raddf_sum; apply: eq_bigr => t _; rewrite /= ep_row_sum ep_e.
- by rewrite raddf_sum; apply: eq_bigr => t _; rewrite /= ep_row_sum.
- by rewrite /= /from_later subn0; apply: ep_after_steps.
by rewrite /= ep_mul ep_e re_e addrC.
Qed.
End Derivative.
