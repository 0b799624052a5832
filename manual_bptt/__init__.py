"""Backpropagation through time derived by hand, in NumPy: the first of two witnesses.

`rnn` (adjoint recursion), `jacobian_sum` (every path, term by term) and `rtrl` (forward recursion)
compute the same gradients of the same many-to-one RNN in three ways. `lstm` and `gru` are further
cells, and `many_to_one` is what all three share around their sweeps. `tangents` has forward mode
and Hessian-vector products of the RNN's loss. `workspace`, with the sweeps of `in_place`, and
`jitted` are made for speed, and `jitted` alone needs JAX. Nothing here knows autodiff.
"""

__version__ = "0.1.0"
