"""Forward passes of the RNN, the LSTM and the GRU in JAX: the second of two witnesses.

Every gradient here comes from `jax.value_and_grad`. Nothing is derived by hand.
"""

__version__ = "0.1.0"
