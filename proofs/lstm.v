(** The LSTM: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** The blocks of rows of U, W and b. *)
Inductive gate := input | forget | candidate | output.

Definition over_gates (S : zmodType) (F : gate -> S) :=
  F input + F forget + F candidate + F output.

(** * The model, over any commutative ring. Each row is one sequence of the batch. *)
Section Model.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (B D H O : nat).
Local Notation state := 'M[R]_(B, H).

Record params := Params {
  U : gate -> 'M[R]_(H, D); W : gate -> 'M[R]_(H, H); V : 'M[R]_(O, H);
  b : gate -> 'rV[R]_H; c : 'rV[R]_O; h0 : state; c0 : state; x : nat -> 'M[R]_(B, D) }.
Implicit Types p d : params.

Definition preactivation p t (previous : state) (z : gate) : state :=
  x p t *m (U p z)^T + previous *m (W p z)^T + rows B (b p z).  (* (S1)  U x_t + W h_{t-1} + b *)

Definition activate (z : gate) := map_mx (m := B) (n := H) (if z is candidate then tau else sigma).
Definition slope (z : gate) := map_mx (m := B) (n := H) (if z is candidate then tau' else sigma').

(** The pair (h_t, c_t). *)
Fixpoint states p t : state * state :=
  if t is s.+1 then
    let: (h, cell) := states p s in
    let gates z := activate z (preactivation p t h z) in  (* (S2)  i, f, g, o *)
    let next := gates forget ⊙ cell + gates input ⊙ gates candidate in  (* (S3)  c_t *)
    (gates output ⊙ map_mx tau next, next)  (* (S4)  h_t = o_t ⊙ tanh(c_t) *)
  else (h0 p, c0 p).

Definition h p t := (states p t).1.
Definition cell p t := (states p t).2.
Definition a p t z := preactivation p t (h p t.-1) z.
Definition gates p t z := activate z (a p t z).

Lemma h_step p t : h p t.+1 = gates p t.+1 output ⊙ map_mx tau (cell p t.+1).
Proof. by rewrite /gates /a /h /cell /=; case: (states p t). Qed.

Lemma cell_step p t :
  cell p t.+1 = gates p t.+1 forget ⊙ cell p t + gates p t.+1 input ⊙ gates p t.+1 candidate.
Proof. by rewrite /gates /a /h /cell /=; case: (states p t). Qed.

Definition prediction p t : 'M[R]_(B, O) :=
  h p t *m (V p)^T + rows B (c p).  (* (F3)  ŷ_t = V h_t + c *)

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).
Implicit Type s : (state * state)%type.  (* ∂L/∂h_t and what reaches ∂L/∂c_t from step t + 1 *)

Definition entering t : state * state := (g t *m V p, 0).  (* (B1)  Vᵀ ∂L/∂ŷ *)

Definition cell_gradient t s : state :=
  s.2 + s.1 ⊙ gates p t output ⊙ map_mx tau' (cell p t).  (* (S5)  ∂L/∂c_t, both paths *)

Definition delta t s z : state :=
  let dc := cell_gradient t s in
  match z with
  | input => dc ⊙ gates p t candidate  (* (S6) *)
  | forget => dc ⊙ cell p t.-1  (* (S7) *)
  | candidate => dc ⊙ gates p t input  (* (S8) *)
  | output => s.1 ⊙ map_mx tau (cell p t)  (* (S9) *)
  end ⊙ slope z (a p t z).

Definition back t s : state * state :=
  (over_gates (fun z => delta t s z *m W p z),  (* (S11)  ∂L/∂h_{t-1} = Wᵀ δ_t *)
   cell_gradient t s ⊙ gates p t forget).  (* (S10)  ∂L/∂c_{t-1} *)

Definition adjoint t := delta t (state_gradient back entering T t).

Definition gradient : params := {|
  U := fun z => \sum_(1 <= t < T.+1) (adjoint t z)^T *m x p t;  (* (S12)  Σ_t δ_t x_tᵀ *)
  W := fun z => \sum_(1 <= t < T.+1) (adjoint t z)^T *m h p t.-1;  (* (S13)  Σ_t δ_t h_{t-1}ᵀ *)
  V := \sum_(1 <= t < T.+1) (g t)^T *m h p t;  (* (B6)  ∂L/∂ŷ hᵀ *)
  b := fun z => \sum_(1 <= t < T.+1) row_sum (adjoint t z);  (* (S14)  Σ_t δ_t *)
  c := \sum_(1 <= t < T.+1) row_sum (g t);  (* (B8)  ∂L/∂ŷ *)
  h0 := (from_later back entering T 0).1;  (* (S11) once more, at t = 1 *)
  c0 := (from_later back entering T 0).2;  (* (S10) once more, at t = 1 *)
  x := fun t => over_gates (fun z => adjoint t z *m U p z)  (* (S15)  ∂L/∂x_t = Uᵀ δ_t *)
|}.
End Adjoints.

(** The inner product of a gradient with a direction. *)
Definition pairing T p d : R :=
  over_gates (fun z => ⟨U p z, U d z⟩ + ⟨W p z, W d z⟩ + ⟨b p z, b d z⟩)
  + ⟨V p, V d⟩ + ⟨c p, c d⟩ + ⟨h0 p, h0 d⟩ + ⟨c0 p, c0 d⟩
  + \sum_(1 <= t < T.+1) ⟨x p t, x d t⟩.
End Model.

Definition map_params (Q R : comRingType) (f : Q -> R) B D H O (p : params Q B D H O) :=
  Params (fun z => map_mx f (U p z)) (fun z => map_mx f (W p z)) (map_mx f (V p))
    (fun z => map_mx f (b p z)) (map_mx f (c p)) (map_mx f (h0 p)) (map_mx f (c0 p))
    (fun t => map_mx f (x p t)).

(** * The theorem: P = p + ε d, and the ε-part of the loss is the gradient's pairing with d. *)
Section Derivative.
Variables (R : comRingType) (sigma sigma' tau tau' : R -> R) (Sigma Tau : dual R -> dual R).
Variables (B D H O T : nat).
Hypothesis Sigma_sigma : extends sigma sigma' Sigma.
Hypothesis Tau_tau : extends tau tau' Tau.
Variable P : params (dual_comRingType R) B D H O.
Let p := map_params (@re R) P.
Let d := map_params (@ep R) P.
Local Notation cell_gradient := (cell_gradient sigma tau tau' p).
Local Notation delta := (delta sigma sigma' tau tau' p).
Local Notation back := (back sigma sigma' tau tau' p).

Lemma gate_extends z :
  extends (if z is candidate then tau else sigma) (if z is candidate then tau' else sigma')
    (if z is candidate then Tau else Sigma).
Proof. by case: z. Qed.

Lemma re_states t :
  (re_mx (h Sigma Tau P t) = h sigma tau p t) * (re_mx (cell Sigma Tau P t) = cell sigma tau p t).
Proof.
elim: t => // t [IHh IHc].
have re_gate z : re_mx (gates Sigma Tau P t.+1 z) = gates sigma tau p t.+1 z.
  by rewrite (re_map (gate_extends z)) re_preactivation IHh.
have re_cell : re_mx (cell Sigma Tau P t.+1) = cell sigma tau p t.+1.
  by rewrite !cell_step map_mxD !re_hadamard !re_gate IHc.
by split; rewrite // !h_step re_hadamard (re_map Tau_tau) re_gate re_cell.
Qed.

Lemma re_a t z : re_mx (a Sigma Tau P t z) = a sigma tau p t z.
Proof. by rewrite re_preactivation re_states. Qed.

Lemma re_gates t z : re_mx (gates Sigma Tau P t z) = gates sigma tau p t z.
Proof. by rewrite (re_map (gate_extends z)) re_a. Qed.

(** What one gate of one step adds to the pairing of the gradient with the direction. *)
Definition gate_contribution t (e : 'M[R]_(B, H)) z : R :=
  ⟨e^T *m x p t, U d z⟩ + ⟨e^T *m h sigma tau p t.-1, W d z⟩ + ⟨row_sum e, b d z⟩
  + ⟨e *m U p z, x d t⟩.

Definition contribution t s : R := over_gates (fun z => gate_contribution t (delta t s z) z).

Lemma gate_adjoint t (e : 'M[R]_(B, H)) z :
  ⟨e, ep_mx (gates Sigma Tau P t.+1 z)⟩
  = gate_contribution t.+1 (e ⊙ slope sigma' tau' z (a sigma tau p t.+1 z)) z
    + ⟨e ⊙ slope sigma' tau' z (a sigma tau p t.+1 z) *m W p z, ep_mx (h Sigma Tau P t)⟩.
Proof. by rewrite (back_map _ (gate_extends z)) re_a back_preactivation re_states. Qed.

Definition state_pairing (s : 'M[R]_(B, H) * 'M[R]_(B, H)) t : R :=
  ⟨s.1, ep_mx (h Sigma Tau P t)⟩ + ⟨s.2, ep_mx (cell Sigma Tau P t)⟩.

Lemma step_adjoint t s :
  state_pairing s t.+1 = contribution t.+1 s + state_pairing (back t.+1 s) t.
Proof.
rewrite /state_pairing h_step back_hadamard (back_map _ Tau_tau) -addrA.
rewrite [X in _ + X]addrC -innerDl re_gates (re_map Tau_tau) re_states.
rewrite -/(cell_gradient t.+1 s) [cell Sigma Tau P t.+1]cell_step back_sum !back_hadamard.
rewrite !re_gates re_states !gate_adjoint.
rewrite -[_ ⊙ slope _ _ output _]/(delta t.+1 s output).
rewrite -[_ ⊙ slope _ _ forget _]/(delta t.+1 s forget).
rewrite -[_ ⊙ slope _ _ input _]/(delta t.+1 s input).
rewrite -[_ ⊙ slope _ _ candidate _]/(delta t.+1 s candidate).
rewrite /contribution /over_gates [(back _ _).1]/= !innerDl.
by rewrite [LHS](AC (2*(3*(2*2))) ((6*3*8*1)*(7*4*9*2*5))).
Qed.

Lemma state_pairingD t s s' :
  state_pairing (s + s') t = state_pairing s t + state_pairing s' t.
Proof. by rewrite /state_pairing !innerDl addrACA. Qed.

Lemma prediction_adjoint t (e : 'M[R]_(B, O)) :
  ⟨e, ep_mx (prediction Sigma Tau P t)⟩
  = ⟨e^T *m h sigma tau p t, V d⟩ + ⟨row_sum e, c d⟩ + state_pairing (e *m V p, 0) t.
Proof.
by rewrite back_sum back_linear back_rows re_states /state_pairing inner0l addr0 addrAC.
Qed.

Theorem lstm_gradient (g : nat -> 'M[R]_(B, O)) :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction Sigma Tau P t)⟩
  = pairing T (gradient sigma sigma' tau tau' p g T) d.
Proof.
rewrite (eq_bigr _ (fun t _ => prediction_adjoint t (g t))) big_split /= [X in X + _]big_split /=.
rewrite [X in _ + X](sweep_adjoint (back := back) (entering p g) T state_pairingD step_adjoint).
rewrite /contribution /over_gates /gate_contribution !big_split /state_pairing.
have split_x : \sum_(1 <= t < T.+1) ⟨x (gradient sigma sigma' tau tau' p g T) t, x d t⟩
    = over_gates (fun z => \sum_(1 <= t < T.+1)
        ⟨adjoint sigma sigma' tau tau' p g T t z *m U p z, x d t⟩).
  by rewrite /over_gates -!big_split; apply: eq_bigr => t _; rewrite !innerDl.
rewrite /pairing split_x /over_gates !inner_suml.
rewrite [LHS](AC (2*((4*4*4*4)*2))
  (((3*4*5)*(7*8*9)*(11*12*13)*(15*16*17))*1*2*19*20*(6*10*14*18))).
by [].
Qed.

(** With one output, after step T. *)
Corollary lstm_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction Sigma Tau P T)⟩
  = pairing T (gradient sigma sigma' tau tau' p (at_end T e) T) d.
Proof.
move=> T_gt0; rewrite -lstm_gradient.
by rewrite (sum_at_end (F := fun t s => ⟨s, ep_mx (prediction Sigma Tau P t)⟩)) // => t;
  rewrite inner0l.
Qed.
End Derivative.
