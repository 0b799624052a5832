(** The RNN: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** * The model, over any commutative ring. Each row is one sequence of the batch. *)
Section Model.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O : nat).

Record params := Params {
  U : 'M[R]_(H, D); W : 'M[R]_(H, H); V : 'M[R]_(O, H); b : 'rV[R]_H; c : 'rV[R]_O;
  h0 : 'M[R]_(B, H); x : nat -> 'M[R]_(B, D) }.
Implicit Types p d : params.

Definition preactivation p t (previous : 'M[R]_(B, H)) : 'M[R]_(B, H) :=
  x p t *m (U p)^T + previous *m (W p)^T + rows B (b p).  (* (F1)  a_t = U x_t + W h_{t-1} + b *)

Fixpoint h p t : 'M[R]_(B, H) :=
  if t is s.+1 then map_mx phi (preactivation p t (h p s))  (* (F2)  h_t = φ(a_t) *)
  else h0 p.

Definition a p t := preactivation p t (h p t.-1).

Definition prediction p t : 'M[R]_(B, O) :=
  h p t *m (V p)^T + rows B (c p).  (* (F3)  ŷ_t = V h_t + c *)

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).

Definition entering t := g t *m V p.  (* (B1)  Vᵀ ∂L/∂ŷ *)

(** δ_t from s = ∂L/∂h_t. *)
Definition delta t (s : 'M[R]_(B, H)) := s ⊙ map_mx phi' (a p t).  (* (B2)  ∂L/∂h_t ⊙ φ′(a_t) *)

Definition back t s := delta t s *m W p.  (* (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t *)

Definition adjoint t := delta t (state_gradient back entering T t).

Definition gradient : params := {|
  U := \sum_(1 <= t < T.+1) (adjoint t)^T *m x p t;  (* (B4)  Σ_t δ_t x_tᵀ *)
  W := \sum_(1 <= t < T.+1) (adjoint t)^T *m h p t.-1;  (* (B5)  Σ_t δ_t h_{t-1}ᵀ *)
  V := \sum_(1 <= t < T.+1) (g t)^T *m h p t;  (* (B6)  ∂L/∂ŷ hᵀ *)
  b := \sum_(1 <= t < T.+1) row_sum (adjoint t);  (* (B7)  Σ_t δ_t *)
  c := \sum_(1 <= t < T.+1) row_sum (g t);  (* (B8)  ∂L/∂ŷ *)
  h0 := from_later back entering T 0;  (* (B3) once more, at t = 1 *)
  x := fun t => adjoint t *m U p  (* (B9)  ∂L/∂x_t = Uᵀ δ_t *)
|}.
End Adjoints.

(** The inner product of a gradient with a direction. *)
Definition pairing T p d : R :=
  ⟨U p, U d⟩ + ⟨W p, W d⟩ + ⟨V p, V d⟩ + ⟨b p, b d⟩ + ⟨c p, c d⟩ + ⟨h0 p, h0 d⟩
  + \sum_(1 <= t < T.+1) ⟨x p t, x d t⟩.
End Model.

Definition map_params (Q R : comRingType) (f : Q -> R) B D H O (p : params Q B D H O) :=
  Params (map_mx f (U p)) (map_mx f (W p)) (map_mx f (V p)) (map_mx f (b p)) (map_mx f (c p))
    (map_mx f (h0 p)) (fun t => map_mx f (x p t)).

(** * The theorem: P = p + ε d, and the ε-part of the loss is the gradient's pairing with d. *)
Section Derivative.
Variables (R : comRingType) (phi phi' : R -> R) (Phi : dual R -> dual R) (B D H O T : nat).
Hypothesis Phi_phi : extends phi phi' Phi.
Variable P : params (dual_comRingType R) B D H O.
Let p := map_params (@re R) P.
Let d := map_params (@ep R) P.

Lemma re_h t : re_mx (h Phi P t) = h phi p t.
Proof. by elim: t => //= t IHt; rewrite (re_map Phi_phi) re_preactivation IHt. Qed.

Lemma re_a t : re_mx (a Phi P t) = a phi p t.
Proof. by rewrite re_preactivation re_h. Qed.

(** What one step adds to the pairing of the gradient with the direction. *)
Definition contribution t s : R :=
  let e := delta phi phi' p t s in
  ⟨e^T *m x p t, U d⟩ + ⟨e^T *m h phi p t.-1, W d⟩ + ⟨row_sum e, b d⟩ + ⟨e *m U p, x d t⟩.

Lemma step_adjoint t s :
  ⟨s, ep_mx (h Phi P t.+1)⟩
  = contribution t.+1 s + ⟨back phi phi' p t.+1 s, ep_mx (h Phi P t)⟩.
Proof.
rewrite [h _ _ _]/= (back_map _ Phi_phi) -/(a Phi P t.+1) re_a -/(delta phi phi' p t.+1 s).
by rewrite back_preactivation re_h.
Qed.

Lemma prediction_adjoint t (e : 'M[R]_(B, O)) :
  ⟨e, ep_mx (prediction Phi P t)⟩
  = ⟨e^T *m h phi p t, V d⟩ + ⟨row_sum e, c d⟩ + ⟨e *m V p, ep_mx (h Phi P t)⟩.
Proof. by rewrite back_sum back_linear back_rows re_h addrAC. Qed.

Theorem rnn_gradient (g : nat -> 'M[R]_(B, O)) :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction Phi P t)⟩
  = pairing T (gradient phi phi' p g T) d.
Proof.
rewrite (eq_bigr _ (fun t _ => prediction_adjoint t (g t))) !big_split /=.
have adj := @sweep_adjoint _ (back phi phi' p) (entering p g) T _
  (fun s t => ⟨s, ep_mx (h Phi P t)⟩) contribution (fun t s s' => innerDl s s' _) step_adjoint.
rewrite [X in _ + _ + X]adj /contribution !big_split /= /pairing !inner_suml.
by rewrite [LHS](AC (2*5) (3*4*1*5*2*7*6)).
Qed.

(** With one output, after step T. *)
Corollary rnn_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction Phi P T)⟩ = pairing T (gradient phi phi' p (at_end T e) T) d.
Proof.
move=> T_gt0; rewrite -rnn_gradient.
by rewrite (sum_at_end (F := fun t s => ⟨s, ep_mx (prediction Phi P t)⟩)) // => t; rewrite inner0l.
Qed.
End Derivative.

(** No other gradient has the pairings that the theorem states. *)
Theorem rnn_gradient_unique (R : comRingType) B D H O T (p q : params R B D H O) :
  (forall d, pairing T p d = pairing T q d) ->
  [/\ U p = U q, W p = W q, V p = V q, b p = b q &
      [/\ c p = c q, h0 p = h0 q & forall t, (0 < t <= T)%N -> x p t = x q t]].
Proof.
pose along U W V b c h0 x : params R B D H O := Params U W V b c h0 x.
move=> same; have key := fun U W V b c h0 x => same (along U W V b c h0 x).
have zero (r : params R B D H O) : \sum_(1 <= t < T.+1) ⟨x r t, 0⟩ = 0.
  by rewrite big1 // => t _; rewrite inner0r.
split; [..|split=> [||s /andP[s_gt0 le_sT]]]; apply: inner_injective => X.
- by have := key X 0 0 0 0 0 (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
- by have := key 0 X 0 0 0 0 (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
- by have := key 0 0 X 0 0 0 (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
- by have := key 0 0 0 X 0 0 (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
- by have := key 0 0 0 0 X 0 (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
- by have := key 0 0 0 0 0 X (fun=> 0); rewrite /pairing /= !inner0r !zero !(addr0, add0r).
have := key 0 0 0 0 0 0 (fun t => if t == s then X else 0).
rewrite /pairing /= !inner0r !(addr0, add0r).
have only (r : params R B D H O) :
    \sum_(1 <= t < T.+1) ⟨x r t, if t == s then X else 0⟩ = ⟨x r s, X⟩.
  rewrite (bigD1_seq s) ?iota_uniq ?mem_index_iota ?s_gt0 //= eqxx big1 ?addr0 // => t /negPf ->.
  by rewrite inner0r.
by rewrite !only.
Qed.
