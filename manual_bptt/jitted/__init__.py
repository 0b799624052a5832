"""The hand derivation under XLA: its sweeps as JAX code, its gradients by `jax.custom_jvp`.

The one place of this witness that knows JAX, and JAX derives no gradient here. `value_and_grad` and
`loss` are the RNN's; `rnn`, `lstm` and `gru` have their own.
"""

from manual_bptt.jitted import gru, lstm, rnn
from manual_bptt.jitted.rnn import loss, value_and_grad

__all__ = ["gru", "loss", "lstm", "rnn", "value_and_grad"]
