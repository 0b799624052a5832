(** The RNN: the adjoint recursion gives its derivative, for every T and every size. *)

From mathcomp Require Import all_ssreflect all_algebra.
From Bptt Require Import pairing dual_numbers sweep cells.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** * The model, over any commutative ring. Each row is one sequence of the batch. *)
Section Model.
Variables (R : comRingType) (phi phi' : R -> R) (B D H O : nat).
Local Notation state := 'M[R]_(B, H).

Record params := Params {
  U : 'M[R]_(H, D); W : 'M[R]_(H, H); V : 'M[R]_(O, H); b : 'rV[R]_H; c : 'rV[R]_O;
  h0 : state; x : nat -> 'M[R]_(B, D) }.
Implicit Types p d : params.

Definition preactivation p t (previous : state) : state :=
  x p t *m (U p)^T + previous *m (W p)^T + rows B (b p).  (* (F1)  a_t = U x_t + W h_{t-1} + b *)

Definition step p t previous := map_mx phi (preactivation p t previous).  (* (F2)  φ(a_t) *)

Definition h p := run (step p) (h0 p).
Definition a p t := preactivation p t (h p t.-1).
Definition prediction p t := read_out (V p) (c p) (h p t).

(** ** The adjoint recursion, from the cotangents g_t = ∂L/∂ŷ_t of all outputs *)
Section Adjoints.
Variables (p : params) (g : nat -> 'M[R]_(B, O)) (T : nat).
Implicit Type s : state.  (* ∂L/∂h_t *)

Definition entering := enter_state (V p) g.

Definition delta t s : state := s ⊙ map_mx phi' (a p t).  (* (B2)  ∂L/∂h_t ⊙ φ′(a_t) *)

Definition back t s : state := delta t s *m W p.  (* (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t *)

(** The sums over time, from the gradients ∂L/∂h_0 and ∂L/∂h_t. *)
Definition sums (first : state) (s : nat -> state) : params := {|
  U := \sum_(1 <= t < T.+1) (delta t (s t))^T *m x p t;  (* (B4)  Σ_t δ_t x_tᵀ *)
  W := \sum_(1 <= t < T.+1) (delta t (s t))^T *m h p t.-1;  (* (B5)  Σ_t δ_t h_{t-1}ᵀ *)
  V := output_weight_gradient g T (h p);
  b := \sum_(1 <= t < T.+1) row_sum (delta t (s t));  (* (B7)  Σ_t δ_t *)
  c := output_bias_gradient g T;
  h0 := first;  (* (B3) once more, at t = 1 *)
  x := fun t => delta t (s t) *m U p  (* (B9)  ∂L/∂x_t = Uᵀ δ_t *)
|}.

Definition hidden_gradient := state_gradient back entering T.
Definition adjoint t := delta t (hidden_gradient t).
Definition gradient := sums (from_later back entering T 0) hidden_gradient.

(** Through the last k steps only. *)
Definition truncated k :=
  sums (cut_first_gradient back entering T k) (cut_state_gradient back entering T k).
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
Implicit Types (y : 'M[dual R]_(B, H)) (g : nat -> 'M[R]_(B, O)).

Lemma re_step t y : re_mx (step Phi P t y) = step phi p t (re_mx y).
Proof. by rewrite (re_map Phi_phi) re_preactivation. Qed.

Lemma re_h t : re_mx (h Phi P t) = h phi p t.
Proof. by elim: t => //= t IHt; rewrite re_step IHt. Qed.

(** What one step adds to the pairing of the gradient with the direction. *)
Let add t s := contribution (x p t) (U p) (U d) (W d) (b d) (x d t) (h phi p t.-1)
  (delta phi phi' p t s) (delta phi phi' p t s).

Lemma step_adjoint t s y : re_mx y = h phi p t ->
  ⟨s, ep_mx (step Phi P t.+1 y)⟩ = add t.+1 s + ⟨back phi phi' p t.+1 s, ep_mx y⟩.
Proof.
by move=> re_y; rewrite (back_map _ Phi_phi) re_preactivation back_preactivation re_y.
Qed.

(** The gradient is the derivative of all outputs, in every direction, for all cotangents. *)
Theorem rnn_gradient g :
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (prediction Phi P t)⟩
  = pairing T (gradient phi phi' p g T) d.
Proof.
have adjoint := @sweep_adjoint _ (back phi phi' p) (entering p g) T _
  (fun s t => ⟨s, ep_mx (h Phi P t)⟩) add.
rewrite read_out_adjoint [X in _ + X]adjoint; first last.
- by move=> t s; rewrite -step_adjoint ?re_h.
- by move=> t s s'; rewrite innerDl.
rewrite /add sum_contributions /pairing /=.
by under [X in ⟨X, V d⟩]eq_bigr do rewrite re_h; rewrite [LHS](AC (2*(4*1)) (3*4*1*5*2*7*6)).
Qed.

(** The same with one output, after step T. *)
Corollary rnn_gradient_of_last_output (e : 'M[R]_(B, O)) : (0 < T)%N ->
  ⟨e, ep_mx (prediction Phi P T)⟩ = pairing T (gradient phi phi' p (at_end T e) T) d.
Proof. exact: last_output rnn_gradient e. Qed.

(** The same for a loss whose gradient at the output of step t is g_t. *)
Corollary rnn_gradient_of_loss (loss : nat -> 'M[dual R]_(B, O) -> dual_comRingType R) g :
  (forall t, (0 < t <= T)%N -> has_gradient (loss t) (g t) (prediction Phi P t)) ->
  ep (\sum_(1 <= t < T.+1) loss t (prediction Phi P t))
  = pairing T (gradient phi phi' p g T) d.
Proof. exact: losses_of_outputs rnn_gradient _ _. Qed.

(** ** Truncation to the last k steps *)
Section Truncation.
Variables (g : nat -> 'M[R]_(B, O)) (k : nat).
Let full := gradient phi phi' p g T.
Let kept := truncated phi phi' p g T k.

Fact back0 t : back phi phi' p t 0 = 0.
Proof. by rewrite /back /delta hadamard0l mul0mx. Qed.

(** Truncated to k steps, each sum over time has exactly its last k terms. *)
Theorem rnn_truncation :
  let delta := adjoint phi phi' p g T in
  [/\ U kept = \sum_((T - k).+1 <= t < T.+1) (delta t)^T *m x p t,
      W kept = \sum_((T - k).+1 <= t < T.+1) (delta t)^T *m h phi p t.-1,
      b kept = \sum_((T - k).+1 <= t < T.+1) row_sum (delta t), V kept = V full &
  [/\ c kept = c full, h0 kept = if (T <= k)%N then h0 full else 0 &
      forall t, (t <= T)%N -> x kept t = if (t <= T - k)%N then 0 else x full t]].
Proof.
have delta0 t : delta phi phi' p t 0 = 0 by apply: hadamard0l.
have sum_cut := @sum_cut _ (back phi phi' p) (entering p g) T k.
split; last split=> // [|t le_tT].
- by apply: (sum_cut _ (fun t s => (delta phi phi' p t s)^T *m x p t)) => t;
    rewrite delta0 trmx0 mul0mx.
- by apply: (sum_cut _ (fun t s => (delta phi phi' p t s)^T *m h phi p t.-1)) => t;
    rewrite delta0 trmx0 mul0mx.
- by apply: (sum_cut _ (fun t s => row_sum (delta phi phi' p t s))) => t; rewrite delta0 row_sum0.
- by [].
- exact: (cut_first_gradientE _ _ _ back0).
by rewrite /= cut_state_gradientE // /cut; case: leqP => // _; rewrite delta0 mul0mx.
Qed.

(** Truncated, it is the gradient of the loss with constant states up to step T − k. *)
Theorem rnn_truncation_is_gradient : (k < T)%N ->
  let held := run_after (step Phi P) (fun t => map_mx (@constant R) (h phi p t)) (T - k) in
  \sum_(1 <= t < T.+1) ⟨g t, ep_mx (read_out (V P) (c P) (held t))⟩  (* (K2) *)
  = pairing T kept d.
Proof.
move=> lt_kT held.
have re_held t : re_mx (held t) = h phi p t.
  elim: t => [|t IHt]; first by rewrite /held /= re_constant.
  rewrite /held; case: (leqP t.+1 (T - k)) => [le_t | lt_t].
    by rewrite run_after_given // re_constant.
  by rewrite run_after_step // re_step IHt.
have adjoint := @cut_adjoint _ (back phi phi' p) (entering p g) T k back0 _
  (fun s t => ⟨s, ep_mx (held t)⟩) add.
rewrite read_out_adjoint [X in _ + X]adjoint; first last.
- by move=> t s lt_t; rewrite /held run_after_step // step_adjoint.
- by move=> t s le_t; rewrite /held run_after_given // ep_constant inner0r.
- by move=> t; rewrite /add /delta hadamard0l contribution0.
- by move=> t s s'; rewrite innerDl.
have h0_kept : h0 kept = 0.
  by rewrite [LHS](cut_first_gradientE _ _ _ back0) leqNgt lt_kT.
rewrite /add sum_contributions /pairing h0_kept inner0l addr0 /=.
by under [X in ⟨X, V d⟩]eq_bigr do rewrite re_held; rewrite [LHS](AC (2*4) (3*4*1*5*2*6)).
Qed.
End Truncation.
End Derivative.

(** No other gradient has these pairings with all directions. *)
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
