"""The devices that training is shared out over."""

import os
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh


def make_mesh(number: int) -> Mesh:
    """Make a mesh of so many devices; on a CPU each processor may be one.

    Raises ValueError where there are fewer. JAX counts its devices once in a process, when it first
    computes, and none is added after that.
    """
    update: Any = jax.config.update
    stated = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.getenv("XLA_FLAGS", "")
    if not stated:
        with suppress(RuntimeError):  # JAX has computed already
            update("jax_num_cpu_devices", min(number, os.cpu_count() or 1))
    found = jax.devices()
    if len(found) < number:
        raise ValueError(
            f"--devices: expected at most {len(found)}, the devices that JAX has, found {number}; "
            f"JAX_NUM_CPU_DEVICES={number} in the environment makes so many of the CPU"
        )
    return Mesh(np.array(found[:number]), ("batch",))
