(** The LSTM: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep cells.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** The blocks of rows of U, W and b. *)
Inductive gate := input | forget | candidate | output.

Definition blocks := [:: input; forget; candidate; output].

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

(** One step, from the previous pair y of h and the cell. *)
Section Step.
Variables (p : params) (t : nat) (y : state * state).

Definition gate_value z := activate z (preactivation p t y.1 z).  (* (S2)  i, f, g, o *)

Definition next_cell : state :=
  gate_value forget ⊙ y.2 + gate_value input ⊙ gate_value candidate.  (* (S3)  c_t *)

Definition step : state * state :=
  (gate_value output ⊙ map_mx tau next_cell, next_cell).  (* (S4)  h_t = o_t ⊙ tanh(c_t) *)
End Step.

Definition states p := run (step p) (h0 p, c0 p).
Definition h p t := (states p t).1.
Definition cell p t := (states p t).2.
Definition a p t z := preactivation p t (h p t.-1) z.
Definition gates p t z := activate z (a p t z).
Definition prediction p t := read_out (V p) (c p) (h p t).

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).
Implicit Type s : (state * state)%type.  (* ∂L/∂h_t and what reaches ∂L/∂c_t from step t + 1 *)

Definition entering t : state * state := (enter_state (V p) g t, 0).

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
  (\sum_(z <- blocks) delta t s z *m W p z,  (* (S11)  ∂L/∂h_{t-1} = Wᵀ δ_t *)
   cell_gradient t s ⊙ gates p t forget).  (* (S10)  ∂L/∂c_{t-1} *)

(** The sums over time, from the gradients of the states 0 and t. *)
Definition sums (first : state * state) (s : nat -> state * state) : params := {|
  U := fun z => \sum_(1 <= t < T.+1) (delta t (s t) z)^T *m x p t;  (* (S12)  Σ_t δ_t x_tᵀ *)
  W := fun z =>
    \sum_(1 <= t < T.+1) (delta t (s t) z)^T *m h p t.-1;  (* (S13)  Σ_t δ_t h_{t-1}ᵀ *)
  V := output_weight_gradient g T (h p);
  b := fun z => \sum_(1 <= t < T.+1) row_sum (delta t (s t) z);  (* (S14)  Σ_t δ_t *)
  c := output_bias_gradient g T;
  h0 := first.1;  (* (S11) once more, at t = 1 *)
  c0 := first.2;  (* (S10) once more, at t = 1 *)
  x := fun t => \sum_(z <- blocks) delta t (s t) z *m U p z  (* (S15)  ∂L/∂x_t = Uᵀ δ_t *)
|}.

Definition states_gradient := state_gradient back entering T.
Definition adjoint t := delta t (states_gradient t).
Definition gradient := sums (from_later back entering T 0) states_gradient.

(** Through the last k steps only. *)
Definition truncated k :=
  sums (cut_first_gradient back entering T k) (cut_state_gradient back entering T k).
End Adjoints.

(** The inner product of a gradient with a direction. *)
Definition pairing T p d : R :=
  \sum_(z <- blocks) (⟨U p z, U d z⟩ + ⟨W p z, W d z⟩ + ⟨b p z, b d z⟩)
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
Local Notation state := 'M[R]_(B, H).
Local Notation delta := (delta sigma sigma' tau tau' p).
Local Notation back := (back sigma sigma' tau tau' p).
Local Notation gradient := (gradient sigma sigma' tau tau' p).
Local Notation states := (states sigma tau p).
Implicit Types (y : ('M[dual R]_(B, H) * 'M[dual R]_(B, H))%type) (g : nat -> 'M[R]_(B, O)).
Implicit Type s : (state * state)%type.

Definition re2 y : state * state := (re_mx y.1, re_mx y.2).

Lemma gate_extends z :
  extends (if z is candidate then tau else sigma) (if z is candidate then tau' else sigma')
    (if z is candidate then Tau else Sigma).
Proof. by case: z. Qed.

Lemma re_gate_value t y z :
  re_mx (gate_value Sigma Tau P t y z) = gate_value sigma tau p t (re2 y) z.
Proof. by rewrite (re_map (gate_extends z)) re_preactivation. Qed.

Lemma re_next_cell t y : re_mx (next_cell Sigma Tau P t y) = next_cell sigma tau p t (re2 y).
Proof. by rewrite map_mxD !re_hadamard !re_gate_value. Qed.

Lemma re_step t y : re2 (step Sigma Tau P t y) = step sigma tau p t (re2 y).
Proof. by rewrite /re2 /= re_hadamard (re_map Tau_tau) re_gate_value re_next_cell. Qed.

Lemma re_states t : re2 (lstm.states Sigma Tau P t) = states t.
Proof. by elim: t => //= t IHt; rewrite re_step IHt. Qed.

(** What one gate, and one step, add to the pairing of the gradient with the direction. *)
Let add_block t (e : state) z :=
  contribution (x p t) (U p z) (U d z) (W d z) (b d z) (x d t) (h sigma tau p t.-1) e e.
Let add t s := \sum_(z <- blocks) add_block t (delta t s z) z.

Lemma gate_adjoint t (e : state) y z : re2 y = states t ->
  let e' := e ⊙ slope sigma' tau' z (a sigma tau p t.+1 z) in
  ⟨e, ep_mx (gate_value Sigma Tau P t.+1 y z)⟩
  = add_block t.+1 e' z + ⟨e' *m W p z, ep_mx y.1⟩.
Proof.
move=> re_y; have re_h : re_mx y.1 = h sigma tau p t by rewrite /h -re_y.
by rewrite (back_map _ (gate_extends z)) re_preactivation back_preactivation re_h.
Qed.

Definition state_pairing s y : R := ⟨s.1, ep_mx y.1⟩ + ⟨s.2, ep_mx y.2⟩.

Lemma state_pairingD s s' y : state_pairing (s + s') y = state_pairing s y + state_pairing s' y.
Proof. by rewrite /state_pairing !innerDl addrACA. Qed.

Lemma step_adjoint t s y : re2 y = states t ->
  state_pairing s (step Sigma Tau P t.+1 y) = add t.+1 s + state_pairing (back t.+1 s) y.
Proof.
move=> re_y; rewrite /state_pairing /= back_hadamard (back_map _ Tau_tau) -addrA.
rewrite [X in _ + X]addrC -innerDl re_gate_value (re_map Tau_tau) re_next_cell re_y.
rewrite -[_ + _ ⊙ _ ⊙ _]/(cell_gradient sigma tau tau' p t.+1 s).
rewrite back_sum !back_hadamard !re_gate_value re_y !(gate_adjoint _ _ re_y).
have -> : re_mx y.2 = cell sigma tau p t by rewrite /cell -re_y.
rewrite -[_ ⊙ slope _ _ output _]/(delta t.+1 s output).
rewrite -[_ ⊙ slope _ _ forget _]/(delta t.+1 s forget).
rewrite -[_ ⊙ slope _ _ input _]/(delta t.+1 s input).
rewrite -[_ ⊙ slope _ _ candidate _]/(delta t.+1 s candidate).
rewrite /add /back /= !big_cons !big_nil !addr0 !innerDl.
by rewrite [LHS](AC (2*(3*(2*2))) ((6*(3*(8*1)))*(7*(4*(9*2))*5))).
Qed.

Lemma pairing_entering g Y :
  \sum_(1 <= t < T.+1) ⟨enter_state (re_mx (V P)) g t, ep_mx (Y t).1⟩
  = \sum_(1 <= t < T.+1) state_pairing (entering p g t) (Y t).
Proof. by apply: eq_bigr => t _; rewrite /state_pairing inner0l addr0. Qed.

(** The gradient is the derivative of all outputs, in every direction, for all cotangents. *)
Theorem lstm_gradient g :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction Sigma Tau P t)⟩ = pairing T (gradient g T) d.
Proof.
have adjoint := @sweep_adjoint _ back (entering p g) T _
  (fun s t => state_pairing s (lstm.states Sigma Tau P t)) add.
rewrite read_out_adjoint pairing_entering adjoint; first last.
- by move=> t s; rewrite -step_adjoint ?re_states.
- by move=> t s s'; apply: state_pairingD.
rewrite /add /add_block sum_block_contributions /state_pairing /pairing /=.
under [X in ⟨X, V d⟩]eq_bigr do rewrite [re_mx _](congr1 fst (re_states _)).
by rewrite [LHS](AC (2*(2*2)) (3*1*2*5*6*4)).
Qed.

(** The same with one output, after step T. *)
Corollary lstm_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction Sigma Tau P T)⟩ = pairing T (gradient (at_end T e) T) d.
Proof. exact: last_output lstm_gradient e. Qed.

(** The same for a loss whose gradient at the output of step t is g_t. *)
Corollary lstm_gradient_of_loss (loss : nat -> 'M[dual R]_(B, O) -> dual_comRingType R) g :
  (forall t, (0 < t <= T)%N -> has_gradient (loss t) (g t) (prediction Sigma Tau P t)) ->
  ep (\sum_(1 <= t < T.+1) loss t (prediction Sigma Tau P t)) = pairing T (gradient g T) d.
Proof. exact: losses_of_outputs lstm_gradient _ _. Qed.

(** ** Truncation to the last k steps *)
Section Truncation.
Variables (g : nat -> 'M[R]_(B, O)) (k : nat).
Let full := gradient g T.
Let kept := truncated sigma sigma' tau tau' p g T k.

Fact cell_gradient0 t : cell_gradient sigma tau tau' p t 0 = 0.
Proof. by rewrite /cell_gradient add0r !hadamard0l. Qed.

Fact delta0 t z : delta t 0 z = 0.
Proof. by rewrite /delta; case: z; rewrite ?cell_gradient0 !hadamard0l. Qed.

Fact back0 t : back t 0 = 0.
Proof.
rewrite /back cell_gradient0 hadamard0l big1 // => z _.
by rewrite delta0 mul0mx.
Qed.

(** Truncated to k steps, each sum over time has exactly its last k terms. *)
Theorem lstm_truncation :
  let delta := adjoint sigma sigma' tau tau' p g T in
  [/\ forall z, U kept z = \sum_((T - k).+1 <= t < T.+1) (delta t z)^T *m x p t,
      forall z, W kept z = \sum_((T - k).+1 <= t < T.+1) (delta t z)^T *m h sigma tau p t.-1,
      forall z, b kept z = \sum_((T - k).+1 <= t < T.+1) row_sum (delta t z), V kept = V full &
  [/\ c kept = c full, h0 kept = if (T <= k)%N then h0 full else 0,
      c0 kept = if (T <= k)%N then c0 full else 0 &
      forall t, (t <= T)%N -> x kept t = if (t <= T - k)%N then 0 else x full t]].
Proof.
have sum_cut := @sum_cut _ back (entering p g) T k.
have first : cut_first_gradient back (entering p g) T k = _ := cut_first_gradientE _ _ _ back0.
split=> [z|z|z||]; last split=> [|||t le_tT].
- by apply: (sum_cut _ (fun t s => (delta t s z)^T *m x p t)) => t; rewrite delta0 trmx0 mul0mx.
- by apply: (sum_cut _ (fun t s => (delta t s z)^T *m h sigma tau p t.-1)) => t;
    rewrite delta0 trmx0 mul0mx.
- by apply: (sum_cut _ (fun t s => row_sum (delta t s z))) => t; rewrite delta0 row_sum0.
- by [].
- by [].
- by rewrite [LHS](congr1 fst first); case: ifP.
- by rewrite [LHS](congr1 snd first); case: ifP.
rewrite /= cut_state_gradientE // /cut; case: leqP => // _.
by rewrite big1 // => z _; rewrite delta0 mul0mx.
Qed.

(** Truncated, it is the gradient of the loss with constant states up to step T − k. *)
Theorem lstm_truncation_is_gradient : (k < T)%N ->
  let constants t := (map_mx (@constant R) (states t).1, map_mx (@constant R) (states t).2) in
  let held := run_after (step Sigma Tau P) constants (T - k) in
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (read_out (V P) (c P) (held t).1)⟩  (* (K2) *)
  = pairing T kept d.
Proof.
move=> lt_kT constants held.
have re_constants t : re2 (constants t) = states t.
  by rewrite /re2 /= !re_constant; case: (states t).
have re_held t : re2 (held t) = states t.
  elim: t => [|t IHt]; first exact: re_constants.
  rewrite /held; case: (leqP t.+1 (T - k)) => [le_t | lt_t].
    by rewrite run_after_given // re_constants.
  by rewrite run_after_step // re_step IHt.
have adjoint := @cut_adjoint _ back (entering p g) T k back0 _
  (fun s t => state_pairing s (held t)) add.
rewrite read_out_adjoint pairing_entering adjoint; first last.
- by move=> t s lt_t; rewrite /held run_after_step // step_adjoint.
- move=> t s le_t; rewrite /held run_after_given // /state_pairing /= !ep_constant.
  by rewrite !inner0r addr0.
- by move=> t; rewrite /add big1 // => z _; rewrite delta0 /add_block contribution0.
- by move=> t s s'; apply: state_pairingD.
have first : cut_first_gradient back (entering p g) T k = 0.
  by rewrite (cut_first_gradientE _ _ _ back0) leqNgt lt_kT.
rewrite /add /add_block sum_block_contributions /pairing /= first !inner0l !addr0 /=.
under [X in ⟨X, V d⟩]eq_bigr do rewrite [re_mx _](congr1 fst (re_held _)).
by rewrite [LHS](AC (2*2) (3*1*2*4)).
Qed.
End Truncation.
End Derivative.
