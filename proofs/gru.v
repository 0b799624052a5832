(** The GRU: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** The blocks of rows of U, W and b; and where the reset gate acts, before or after the product
    with W_n. *)
Inductive gate := reset | update | candidate.
Inductive place := before | after.

Definition over_gates (S : zmodType) (F : gate -> S) := F reset + F update + F candidate.

(** * The model, over any commutative ring. Each row is one sequence of the batch. *)
Section Model.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (B D H O : nat) (reset_acts : place).
Local Notation state := 'M[R]_(B, H).

Record params := Params {
  U : gate -> 'M[R]_(H, D); W : gate -> 'M[R]_(H, H); V : 'M[R]_(O, H);
  b : gate -> 'rV[R]_H; b_n : 'rV[R]_H; c : 'rV[R]_O; h0 : state; x : nat -> 'M[R]_(B, D) }.
Implicit Types p d : params.

(** One step, from the previous state y. *)
Section Step.
Variables (p : params) (t : nat) (y : state).

Definition gate_sum z : state :=
  x p t *m (U p z)^T + y *m (W p z)^T + rows B (b p z).  (* (G1)  a_r and a_z *)

Definition gate_value z := map_mx sigma (gate_sum z).  (* (G2)  r = σ(a_r), z = σ(a_z) *)

Definition factor : state := if reset_acts is before then gate_value reset ⊙ y else y.

Definition recurrent : state := factor *m (W p candidate)^T + rows B (b_n p).

Definition candidate_sum : state :=  (* (G3)  a_n, in both cases *)
  x p t *m (U p candidate)^T + rows B (b p candidate)
  + (if reset_acts is before then recurrent else gate_value reset ⊙ recurrent).

Definition candidate_value := map_mx tau candidate_sum.  (* (G4)  n = tanh(a_n) *)

Definition next : state :=
  (const_mx 1 - gate_value update) ⊙ candidate_value + gate_value update ⊙ y.  (* (G5)  h_t *)
End Step.

Fixpoint h p t : state := if t is s.+1 then next p t (h p s) else h0 p.

Definition a p t z := (if z is candidate then candidate_sum p t else gate_sum p t ^~ z) (h p t.-1).
Definition r p t := gate_value p t (h p t.-1) reset.
Definition z p t := gate_value p t (h p t.-1) update.
Definition n p t := candidate_value p t (h p t.-1).
Definition q p t := factor p t (h p t.-1).

Definition prediction p t : 'M[R]_(B, O) :=
  h p t *m (V p)^T + rows B (c p).  (* (F3)  ŷ_t = V h_t + c *)

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).
Implicit Type s : state.  (* ∂L/∂h_t *)

Definition entering t := g t *m V p.  (* (B1)  Vᵀ ∂L/∂ŷ *)

Definition delta_n t s := s ⊙ (const_mx 1 - z p t) ⊙ map_mx tau' (a p t candidate).  (* (G6) *)

(** The adjoint of W_n's product, and what passes from there to r and to h_{t-1}. *)
Definition delta_W t s := if reset_acts is before then delta_n t s else delta_n t s ⊙ r p t.

Definition to_r t s : state :=
  if reset_acts is before then delta_n t s *m W p candidate ⊙ h p t.-1  (* (G10) *)
  else delta_n t s ⊙ recurrent p t (h p t.-1).  (* (G8) *)

Definition through_n t s : state :=
  if reset_acts is before then delta_n t s *m W p candidate ⊙ r p t  (* (G11)  r ⊙ W_nᵀ δ_n *)
  else delta_W t s *m W p candidate.  (* (G9)  W_nᵀ (r ⊙ δ_n) *)

Definition delta t s gate : state :=
  match gate with
  | reset => to_r t s ⊙ map_mx sigma' (a p t reset)  (* (G8), (G10) *)
  | update => s ⊙ (h p t.-1 - n p t) ⊙ map_mx sigma' (a p t update)  (* (G7) *)
  | candidate => delta_n t s
  end.

Definition back t s : state :=  (* (G12)  ∂L/∂h_{t-1}, along three paths *)
  s ⊙ z p t + delta t s reset *m W p reset + delta t s update *m W p update + through_n t s.

Definition adjoint t := delta t (state_gradient back entering T t).
Definition adjoint_W t := delta_W t (state_gradient back entering T t).

Definition gradient : params := {|
  U := fun z => \sum_(1 <= t < T.+1) (adjoint t z)^T *m x p t;  (* (G15)  Σ_t δ_t x_tᵀ *)
  W := fun z =>
    if z is candidate then \sum_(1 <= t < T.+1) (adjoint_W t)^T *m q p t  (* (G14) *)
    else \sum_(1 <= t < T.+1) (adjoint t z)^T *m h p t.-1;  (* (G13)  Σ_t δ_t h_{t-1}ᵀ *)
  V := \sum_(1 <= t < T.+1) (g t)^T *m h p t;  (* (B6)  ∂L/∂ŷ hᵀ *)
  b := fun z => \sum_(1 <= t < T.+1) row_sum (adjoint t z);  (* (G16)  Σ_t δ_t *)
  b_n := \sum_(1 <= t < T.+1) row_sum (adjoint_W t);  (* (G18) *)
  c := \sum_(1 <= t < T.+1) row_sum (g t);  (* (B8)  ∂L/∂ŷ *)
  h0 := from_later back entering T 0;  (* (G12) once more, at t = 1 *)
  x := fun t => over_gates (fun z => adjoint t z *m U p z)  (* (G17)  ∂L/∂x_t = Uᵀ δ_t *)
|}.
End Adjoints.

(** The inner product of a gradient with a direction. *)
Definition pairing T p d : R :=
  over_gates (fun z => ⟨U p z, U d z⟩ + ⟨W p z, W d z⟩ + ⟨b p z, b d z⟩)
  + ⟨b_n p, b_n d⟩ + ⟨V p, V d⟩ + ⟨c p, c d⟩ + ⟨h0 p, h0 d⟩
  + \sum_(1 <= t < T.+1) ⟨x p t, x d t⟩.
End Model.

Definition map_params (Q R : comRingType) (f : Q -> R) B D H O (p : params Q B D H O) :=
  Params (fun z => map_mx f (U p z)) (fun z => map_mx f (W p z)) (map_mx f (V p))
    (fun z => map_mx f (b p z)) (map_mx f (b_n p)) (map_mx f (c p)) (map_mx f (h0 p))
    (fun t => map_mx f (x p t)).

(** * The theorem: P = p + ε d, and the ε-part of the loss is the gradient's pairing with d. *)
Section Derivative.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (Sigma Tau : dual R -> dual R).
Variables (B D H O T : nat) (reset_acts : place).
Hypothesis Sigma_sigma : extends sigma sigma' Sigma.
Hypothesis Tau_tau : extends tau tau' Tau.
Variable P : params (dual_comRingType R) B D H O.
Let p := map_params (@re R) P.
Let d := map_params (@ep R) P.
Local Notation hp := (h sigma tau reset_acts p).
Local Notation hP := (h Sigma Tau reset_acts P).
Local Notation delta := (delta sigma sigma' tau tau' reset_acts p).
Local Notation delta_n := (delta_n sigma tau tau' reset_acts p).
Local Notation delta_W := (delta_W sigma tau tau' reset_acts p).
Local Notation to_r := (to_r sigma tau tau' reset_acts p).
Local Notation back := (back sigma sigma' tau tau' reset_acts p).

Lemma re_gate_value t y z : re_mx (gate_value Sigma P t y z) = gate_value sigma p t (re_mx y) z.
Proof. by rewrite (re_map Sigma_sigma) re_preactivation. Qed.

Lemma re_factor t y : re_mx (factor Sigma reset_acts P t y) = factor sigma reset_acts p t (re_mx y).
Proof. by rewrite /factor; case: reset_acts; rewrite // re_hadamard re_gate_value. Qed.

Lemma re_recurrent t y :
  re_mx (recurrent Sigma reset_acts P t y) = recurrent sigma reset_acts p t (re_mx y).
Proof. by rewrite /recurrent map_mxD re_linear re_rows re_factor. Qed.

Lemma re_candidate_sum t y :
  re_mx (candidate_sum Sigma reset_acts P t y) = candidate_sum sigma reset_acts p t (re_mx y).
Proof.
rewrite /candidate_sum !map_mxD re_linear re_rows; congr (_ + _).
by case: reset_acts (re_recurrent t y) => re_rec; rewrite ?re_hadamard ?re_gate_value re_rec.
Qed.

Lemma re_h t : re_mx (hP t) = hp t.
Proof.
elim: t => //= t IHt; rewrite /next map_mxD !re_hadamard !re_gate_value IHt.
rewrite (re_map Tau_tau) re_candidate_sum IHt map_mxB map_const_mx.
by rewrite re_gate_value IHt.
Qed.

(** What one gate of one step adds to the pairing of the gradient with the direction. *)
Definition gate_contribution t (e e_W y : 'M[R]_(B, H)) z : R :=
  ⟨e^T *m x p t, U d z⟩ + ⟨e_W^T *m y, W d z⟩ + ⟨row_sum e, b d z⟩ + ⟨e *m U p z, x d t⟩.

Definition contribution t s : R :=
  gate_contribution t (delta t s reset) (delta t s reset) (hp t.-1) reset
  + gate_contribution t (delta t s update) (delta t s update) (hp t.-1) update
  + gate_contribution t (delta_n t s) (delta_W t s) (q sigma tau reset_acts p t) candidate
  + ⟨row_sum (delta_W t s), b_n d⟩.

Lemma gate_adjoint t (e : 'M[R]_(B, H)) z :
  let e' := e ⊙ map_mx sigma' (gate_sum p t.+1 (hp t) z) in
  ⟨e, ep_mx (gate_value Sigma P t.+1 (hP t) z)⟩
  = gate_contribution t.+1 e' e' (hp t) z + ⟨e' *m W p z, ep_mx (hP t)⟩.
Proof. by rewrite (back_map _ Sigma_sigma) re_preactivation back_preactivation re_h. Qed.

(** The part of a_n that comes from h_{t-1}, in both cases of (G3). *)
Lemma recurrent_adjoint t s :
  let y := hP t in
  ⟨delta_n t.+1 s, ep_mx (if reset_acts is before then recurrent Sigma reset_acts P t.+1 y
                          else gate_value Sigma P t.+1 y reset
                               ⊙ recurrent Sigma reset_acts P t.+1 y)⟩
  = ⟨(delta_W t.+1 s)^T *m q sigma tau reset_acts p t.+1, W d candidate⟩
    + ⟨row_sum (delta_W t.+1 s), b_n d⟩
    + ⟨to_r t.+1 s, ep_mx (gate_value Sigma P t.+1 y reset)⟩
    + ⟨through_n sigma tau tau' reset_acts p t.+1 s, ep_mx y⟩.
Proof.
move=> y; have re_rec := re_recurrent t.+1 y; have re_y : re_mx y = hp t by apply: re_h.
rewrite {}/to_r /through_n /delta_W /q /factor; move: re_rec re_y; rewrite /y.
case: reset_acts => re_rec re_y.
  rewrite back_sum back_linear back_rows back_hadamard re_hadamard re_gate_value re_y.
  by rewrite [LHS](AC ((1*2)*1) (1*4*2*3)).
rewrite back_hadamard re_rec re_gate_value re_y back_sum back_linear back_rows re_y.
by rewrite [LHS](AC (1*(2*1)) (2*4*1*3)).
Qed.

Lemma step_adjoint t s :
  ⟨s, ep_mx (hP t.+1)⟩ = contribution t.+1 s + ⟨back t.+1 s, ep_mx (hP t)⟩.
Proof.
rewrite [h _ _ _ _ t.+1]/= /next back_sum !back_hadamard back_complement.
rewrite map_mxB map_const_mx re_gate_value (re_map Tau_tau) re_candidate_sum re_h.
rewrite (back_map _ Tau_tau) re_candidate_sum re_h -/(delta_n t.+1 s).
rewrite [LHS](AC (2*2) ((3*1)*2*4)) /= -innerDl -hadamardNr -hadamardDr.
rewrite /candidate_sum !back_sum back_linear back_rows recurrent_adjoint !gate_adjoint.
rewrite -[_ ⊙ map_mx sigma' (gate_sum _ _ _ reset)]/(delta t.+1 s reset).
rewrite -[_ ⊙ map_mx sigma' (gate_sum _ _ _ update)]/(delta t.+1 s update).
rewrite /contribution /back !innerDl [gate_contribution _ _ _ _ candidate]/gate_contribution.
by rewrite [LHS](AC (2*(3*(2*2*1))*1) ((8*1*(3*6*5*4)*7)*(11*9*2*10))).
Qed.

Lemma prediction_adjoint t (e : 'M[R]_(B, O)) :
  ⟨e, ep_mx (prediction Sigma Tau reset_acts P t)⟩
  = ⟨e^T *m hp t, V d⟩ + ⟨row_sum e, c d⟩ + ⟨e *m V p, ep_mx (hP t)⟩.
Proof. by rewrite back_sum back_linear back_rows re_h addrAC. Qed.

Theorem gru_gradient (g : nat -> 'M[R]_(B, O)) :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction Sigma Tau reset_acts P t)⟩
  = pairing T (gradient sigma sigma' tau tau' reset_acts p g T) d.
Proof.
rewrite (eq_bigr _ (fun t _ => prediction_adjoint t (g t))) big_split /= [X in X + _]big_split /=.
rewrite [X in _ + X](sweep_adjoint (back := back) (entering p g) T
  (pairing := fun s t => ⟨s, ep_mx (hP t)⟩) (fun t s s' => innerDl s s' _) step_adjoint).
rewrite /contribution /gate_contribution !big_split.
have split_x :
    \sum_(1 <= t < T.+1) ⟨x (gradient sigma sigma' tau tau' reset_acts p g T) t, x d t⟩
    = over_gates (fun z => \sum_(1 <= t < T.+1)
        ⟨adjoint sigma sigma' tau tau' reset_acts p g T t z *m U p z, x d t⟩).
  by rewrite /over_gates -!big_split; apply: eq_bigr => t _; rewrite !innerDl.
rewrite /pairing split_x /over_gates /= !inner_suml.
by rewrite [LHS](AC (2*((4*4*4*1)*1)) (((3*4*5)*(7*8*9)*(11*12*13))*15*1*2*16*(6*10*14))).
Qed.

(** With one output, after step T. *)
Corollary gru_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction Sigma Tau reset_acts P T)⟩
  = pairing T (gradient sigma sigma' tau tau' reset_acts p (at_end T e) T) d.
Proof.
move=> T_gt0; rewrite -gru_gradient.
by rewrite (sum_at_end (F := fun t s => ⟨s, ep_mx (prediction Sigma Tau reset_acts P t)⟩)) // => t;
  rewrite inner0l.
Qed.
End Derivative.
