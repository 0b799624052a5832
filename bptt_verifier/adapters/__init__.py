"""Adapters: kernels of JAX, PyTorch and C as what `verify_vjp` takes as `backward`."""

from bptt_verifier.adapters.kernel import Kernel, SignatureError, UnwrittenOutputError
from bptt_verifier.adapters.of_c import from_c
from bptt_verifier.adapters.of_jax import from_jax
from bptt_verifier.adapters.of_torch import from_torch

__all__ = ["Kernel", "SignatureError", "UnwrittenOutputError", "from_c", "from_jax", "from_torch"]
