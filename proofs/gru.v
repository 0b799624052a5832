(** The GRU: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep cells.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** The blocks of rows of U, W and b; and where the reset gate acts, before or after the product
    with W_n. *)
Inductive gate := reset | update | candidate.
Inductive place := before | after.

Definition blocks := [:: reset; update; candidate].

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

Definition candidate_sum : state :=
  x p t *m (U p candidate)^T + rows B (b p candidate)
  + (if reset_acts is before then recurrent else gate_value reset ⊙ recurrent).  (* (G3)  a_n *)

Definition candidate_value := map_mx tau candidate_sum.  (* (G4)  n = tanh(a_n) *)

Definition step : state :=
  (const_mx 1 - gate_value update) ⊙ candidate_value + gate_value update ⊙ y.  (* (G5)  h_t *)
End Step.

Definition h p := run (step p) (h0 p).

Definition a p t z := (if z is candidate then candidate_sum p t else gate_sum p t ^~ z) (h p t.-1).
Definition r p t := gate_value p t (h p t.-1) reset.
Definition z p t := gate_value p t (h p t.-1) update.
Definition n p t := candidate_value p t (h p t.-1).
Definition q p t := factor p t (h p t.-1).

Definition prediction p t := read_out (V p) (c p) (h p t).

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).
Implicit Type s : state.  (* ∂L/∂h_t *)

Definition entering := enter_state (V p) g.

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

Definition back t s : state :=
  s ⊙ z p t + delta t s reset *m W p reset + delta t s update *m W p update
  + through_n t s.  (* (G12)  ∂L/∂h_{t-1}, along three paths *)

(** The sums over time, from the gradients ∂L/∂h_0 and ∂L/∂h_t. *)
Definition sums (first : state) (s : nat -> state) : params := {|
  U := fun z => \sum_(1 <= t < T.+1) (delta t (s t) z)^T *m x p t;  (* (G15)  Σ_t δ_t x_tᵀ *)
  W := fun z =>
    if z is candidate then \sum_(1 <= t < T.+1) (delta_W t (s t))^T *m q p t  (* (G14) *)
    else \sum_(1 <= t < T.+1) (delta t (s t) z)^T *m h p t.-1;  (* (G13)  Σ_t δ_t h_{t-1}ᵀ *)
  V := output_weight_gradient g T (h p);
  b := fun z => \sum_(1 <= t < T.+1) row_sum (delta t (s t) z);  (* (G16)  Σ_t δ_t *)
  b_n := \sum_(1 <= t < T.+1) row_sum (delta_W t (s t));  (* (G18) *)
  c := output_bias_gradient g T;
  h0 := first;  (* (G12) once more, at t = 1 *)
  x := fun t => \sum_(z <- blocks) delta t (s t) z *m U p z  (* (G17)  ∂L/∂x_t = Uᵀ δ_t *)
|}.

Definition hidden_gradient := state_gradient back entering T.
Definition adjoint t := delta t (hidden_gradient t).
Definition adjoint_W t := delta_W t (hidden_gradient t).
Definition gradient := sums (from_later back entering T 0) hidden_gradient.

(** Through the last k steps only. *)
Definition truncated k :=
  sums (cut_first_gradient back entering T k) (cut_state_gradient back entering T k).
End Adjoints.

(** The inner product of a gradient with a direction. *)
Definition pairing T p d : R :=
  \sum_(z <- blocks) (⟨U p z, U d z⟩ + ⟨W p z, W d z⟩ + ⟨b p z, b d z⟩)
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
Local Notation state := 'M[R]_(B, H).
Local Notation h := (h sigma tau reset_acts p).
Local Notation delta_n := (delta_n sigma tau tau' reset_acts p).
Local Notation delta_W := (delta_W sigma tau tau' reset_acts p).
Local Notation to_r := (to_r sigma tau tau' reset_acts p).
Local Notation delta := (delta sigma sigma' tau tau' reset_acts p).
Local Notation back := (back sigma sigma' tau tau' reset_acts p).
Local Notation gradient := (gradient sigma sigma' tau tau' reset_acts p).
Local Notation step_P := (step Sigma Tau reset_acts P).
Local Notation prediction := (prediction Sigma Tau reset_acts P).
Implicit Types (s : state) (y : 'M[dual R]_(B, H)) (g : nat -> 'M[R]_(B, O)).

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

Lemma re_step t y : re_mx (step_P t y) = step sigma tau reset_acts p t (re_mx y).
Proof.
rewrite /step map_mxD !re_hadamard !re_gate_value (re_map Tau_tau) re_candidate_sum.
by rewrite map_mxB map_const_mx re_gate_value.
Qed.

Lemma re_h t : re_mx (gru.h Sigma Tau reset_acts P t) = h t.
Proof. by elim: t => //= t IHt; rewrite re_step IHt. Qed.

(** What one gate, and one step, add to the pairing of the gradient with the direction. *)
Let factor_of z t : state := if z is candidate then q sigma tau reset_acts p t else h t.-1.
Let delta_W_of t s z : state := if z is candidate then delta_W t s else delta t s z.
Let add_block t (e e_W : state) z := contribution (x p t) (U p z) (U d z) (W d z) (b d z) (x d t)
  (factor_of z t) e e_W.
Let add t s :=
  \sum_(z <- blocks) add_block t (delta t s z) (delta_W_of t s z) z
  + ⟨row_sum (delta_W t s), b_n d⟩.

Lemma gate_adjoint t e y z : re_mx y = h t -> z <> candidate ->
  let e' := e ⊙ map_mx sigma' (gate_sum p t.+1 (h t) z) in
  ⟨e, ep_mx (gate_value Sigma P t.+1 y z)⟩ = add_block t.+1 e' e' z + ⟨e' *m W p z, ep_mx y⟩.
Proof.
move=> re_y; rewrite (back_map _ Sigma_sigma) re_preactivation back_preactivation re_y.
by case: z.
Qed.

(** The part of a_n that comes from h_{t-1}, in both cases of (G3). *)
Lemma recurrent_adjoint t s y : re_mx y = h t ->
  ⟨delta_n t.+1 s, ep_mx (if reset_acts is before then recurrent Sigma reset_acts P t.+1 y
                          else gate_value Sigma P t.+1 y reset
                               ⊙ recurrent Sigma reset_acts P t.+1 y)⟩
  = ⟨(delta_W t.+1 s)^T *m q sigma tau reset_acts p t.+1, W d candidate⟩
    + ⟨row_sum (delta_W t.+1 s), b_n d⟩
    + ⟨to_r t.+1 s, ep_mx (gate_value Sigma P t.+1 y reset)⟩
    + ⟨through_n sigma tau tau' reset_acts p t.+1 s, ep_mx y⟩.
Proof.
move: (re_recurrent t.+1 y); rewrite /to_r /through_n /delta_W /q /factor.
case: reset_acts => re_rec re_y.
  rewrite back_sum back_linear back_rows back_hadamard re_hadamard re_gate_value re_y.
  by rewrite [LHS](AC ((1*2)*1) (1*4*2*3)).
rewrite back_hadamard re_rec re_gate_value re_y back_sum back_linear back_rows re_y.
by rewrite [LHS](AC (1*(2*1)) (2*4*1*3)).
Qed.

Lemma step_adjoint t s y : re_mx y = h t ->
  ⟨s, ep_mx (step_P t.+1 y)⟩ = add t.+1 s + ⟨back t.+1 s, ep_mx y⟩.
Proof.
move=> re_y; rewrite /step back_sum !back_hadamard back_complement.
rewrite map_mxB map_const_mx re_gate_value (re_map Tau_tau) re_candidate_sum re_y.
rewrite (back_map _ Tau_tau) re_candidate_sum re_y -/(delta_n t.+1 s).
rewrite [LHS](AC (2*2) ((3*1)*2*4)) /= -innerDl -hadamardNr -hadamardDr.
rewrite /candidate_sum !back_sum back_linear back_rows recurrent_adjoint // !gate_adjoint //.
rewrite -[_ ⊙ map_mx sigma' (gate_sum _ _ _ reset)]/(delta t.+1 s reset).
rewrite -[_ ⊙ map_mx sigma' (gate_sum _ _ _ update)]/(delta t.+1 s update).
rewrite /add !big_cons big_nil addr0 /back !innerDl.
have -> e e_W : add_block t.+1 e e_W candidate
    = ⟨e^T *m x p t.+1, U d candidate⟩ + ⟨e_W^T *m q sigma tau reset_acts p t.+1, W d candidate⟩
      + ⟨row_sum e, b d candidate⟩ + ⟨e *m U p candidate, x d t.+1⟩ by [].
by rewrite [LHS](AC (2*(3*(2*2*1))*1) (((8*(1*(3*6*5*4)))*7)*(11*9*2*10))).
Qed.

Lemma sum_add (s : nat -> state) (r := sums sigma sigma' tau tau' reset_acts p (fun=> 0) T 0 s) :
  \sum_(1 <= t < T.+1) add t (s t)
  = \sum_(z <- blocks) (⟨U r z, U d z⟩ + ⟨W r z, W d z⟩ + ⟨b r z, b d z⟩)
    + \sum_(1 <= t < T.+1) ⟨x r t, x d t⟩ + ⟨b_n r, b_n d⟩.
Proof.
rewrite big_split /= inner_suml; congr (_ + _); rewrite /add_block sum_block_contributions.
by congr (_ + _); rewrite !big_cons !big_nil.
Qed.

(** The gradient is the derivative of all outputs, in every direction, for all cotangents. *)
Theorem gru_gradient g :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction t)⟩ = pairing T (gradient g T) d.
Proof.
have adjoint := @sweep_adjoint _ back (entering p g) T _
  (fun s t => ⟨s, ep_mx (gru.h Sigma Tau reset_acts P t)⟩) add.
rewrite read_out_adjoint [X in _ + X]adjoint; first last.
- by move=> t s; rewrite -step_adjoint ?re_h.
- by move=> t s s'; rewrite innerDl.
rewrite sum_add /pairing /=.
under [X in ⟨X, V d⟩]eq_bigr do rewrite re_h.
by rewrite [LHS](AC (2*(3*1)) (3*5*1*2*6*4)).
Qed.

(** The same with one output, after step T. *)
Corollary gru_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction T)⟩ = pairing T (gradient (at_end T e) T) d.
Proof. exact: last_output gru_gradient e. Qed.

(** The same for a loss whose gradient at the output of step t is g_t. *)
Corollary gru_gradient_of_loss (loss : nat -> 'M[dual R]_(B, O) -> dual_comRingType R) g :
  (forall t, (0 < t <= T)%N -> has_gradient (loss t) (g t) (prediction t)) ->
  ep (\sum_(1 <= t < T.+1) loss t (prediction t)) = pairing T (gradient g T) d.
Proof. exact: losses_of_outputs gru_gradient _ _. Qed.

(** ** Truncation to the last k steps *)
Section Truncation.
Variables (g : nat -> 'M[R]_(B, O)) (k : nat).
Let full := gradient g T.
Let kept := truncated sigma sigma' tau tau' reset_acts p g T k.

Fact delta_n0 t : delta_n t 0 = 0.
Proof. by rewrite /delta_n !hadamard0l. Qed.

Fact delta_W0 t : delta_W t 0 = 0.
Proof. by rewrite /delta_W; case: reset_acts (delta_n0 t) => ->; rewrite ?hadamard0l. Qed.

Fact delta0 t z : delta t 0 z = 0.
Proof.
case: z; rewrite /delta ?delta_n0 ?hadamard0l // /to_r.
by case: reset_acts (delta_n0 t) => ->; rewrite ?mul0mx !hadamard0l.
Qed.

Fact back0 t : back t 0 = 0.
Proof.
rewrite /back !delta0 !mul0mx hadamard0l !add0r /through_n.
case: reset_acts (delta_n0 t) (delta_W0 t) => [-> _ | _ ->]; by rewrite mul0mx ?hadamard0l.
Qed.

(** Truncated to k steps, each sum over time has exactly its last k terms. *)
Theorem gru_truncation :
  let delta := adjoint sigma sigma' tau tau' reset_acts p g T in
  let delta_W := adjoint_W sigma sigma' tau tau' reset_acts p g T in
  let q := q sigma tau reset_acts p in
  [/\ forall z, U kept z = \sum_((T - k).+1 <= t < T.+1) (delta t z)^T *m x p t,
      forall z, W kept z =
        if z is candidate then \sum_((T - k).+1 <= t < T.+1) (delta_W t)^T *m q t
        else \sum_((T - k).+1 <= t < T.+1) (delta t z)^T *m h t.-1,
      forall z, b kept z = \sum_((T - k).+1 <= t < T.+1) row_sum (delta t z),
      b_n kept = \sum_((T - k).+1 <= t < T.+1) row_sum (delta_W t) &
  [/\ V kept = V full, c kept = c full, h0 kept = if (T <= k)%N then h0 full else 0 &
      forall t, (t <= T)%N -> x kept t = if (t <= T - k)%N then 0 else x full t]].
Proof.
have sum_cut := @sum_cut _ back (entering p g) T k.
have sum_delta z n (A : nat -> 'M[R]_(B, n)) :=
  sum_cut _ (fun t s => (delta t s z)^T *m A t).
split=> [z|z|z||]; last split=> // [|t le_tT].
- by apply: sum_delta => t; rewrite delta0 trmx0 mul0mx.
- case: z; try by apply: sum_delta => t; rewrite delta0 trmx0 mul0mx.
  apply: (sum_cut _ (fun t s => (delta_W t s)^T *m q sigma tau reset_acts p t)) => t.
  by rewrite delta_W0 trmx0 mul0mx.
- by apply: (sum_cut _ (fun t s => row_sum (delta t s z))) => t; rewrite delta0 row_sum0.
- by apply: (sum_cut _ (fun t s => row_sum (delta_W t s))) => t; rewrite delta_W0 row_sum0.
- exact: (cut_first_gradientE _ _ _ back0).
rewrite /= cut_state_gradientE // /cut; case: leqP => // _.
by rewrite big1 // => z _; rewrite delta0 mul0mx.
Qed.

(** Truncated, it is the gradient of the loss with constant states up to step T − k. *)
Theorem gru_truncation_is_gradient : (k < T)%N ->
  let held := run_after step_P (fun t => map_mx (@constant R) (h t)) (T - k) in
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (read_out (V P) (c P) (held t))⟩  (* (K2) *)
  = pairing T kept d.
Proof.
move=> lt_kT held.
have re_held t : re_mx (held t) = h t.
  elim: t => [|t IHt]; first by rewrite /held /= re_constant.
  rewrite /held; case: (leqP t.+1 (T - k)) => [le_t | lt_t].
    by rewrite run_after_given // re_constant.
  by rewrite run_after_step // re_step IHt.
have adjoint := @cut_adjoint _ back (entering p g) T k back0 _ (fun s t => ⟨s, ep_mx (held t)⟩) add.
rewrite read_out_adjoint [X in _ + X]adjoint; first last.
- by move=> t s lt_t; rewrite /held run_after_step // step_adjoint.
- by move=> t s le_t; rewrite /held run_after_given // ep_constant inner0r.
- move=> t; rewrite /add delta_W0 row_sum0 inner0l addr0 !big_cons big_nil /add_block /delta_W_of.
  by rewrite delta_W0 !delta0 !contribution0 !addr0.
- by move=> t s s'; rewrite innerDl.
have h0_kept : h0 kept = 0.
  by rewrite [LHS](cut_first_gradientE _ _ _ back0) leqNgt lt_kT.
rewrite sum_add /pairing h0_kept inner0l addr0 /=.
by under [X in ⟨X, V d⟩]eq_bigr do rewrite re_held; rewrite [LHS](AC (2*3) (3*5*1*2*4)).
Qed.
End Truncation.
End Derivative.
