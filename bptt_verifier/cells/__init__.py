"""Forward passes of the RNN, LSTM and GRU as stated functions, in PyTorch's packing.

`rnn.forward`, `lstm.forward` and `gru.forward` return all outputs that `torch.nn` returns: every
h_t of the last layer, and the last states of all layers and directions. They run on arrays of JAX,
NumPy and PyTorch, so that they state what a kernel of any of these computes.
"""

from bptt_verifier.cells import gru, lstm, rnn

__all__ = ["gru", "lstm", "rnn"]
