"""Suites: their sizes, contenders and baselines."""

from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from benchmarks import in_order, jax_steps, numpy_steps, torch_steps
from benchmarks.contenders import Builder
from bptt_verifier.problems.problem import Sizes


class Device(StrEnum):
    """JAX's names of the kinds of device."""

    CPU = "cpu"
    GPU = "gpu"


# The dtypes of a benchmark; bfloat16 is JAX's and PyTorch's alone.
Dtype = StrEnum("Dtype", "FLOAT32 FLOAT64 BFLOAT16")


class Suite(StrEnum):
    """The suites of sizes."""

    QUICK = "quick"
    FULL = "full"
    SCALING = "scaling"
    DEEPBENCH = "deepbench"
    STEPS = "steps"
    CHECKPOINT = "checkpoint"
    PARALLEL = "parallel"
    LIMITS = "limits"
    VERIFY = "verify"


CONTENDERS: dict[str, Builder] = {
    "manual": numpy_steps.manual,
    "manual-jit": jax_steps.manual_jit,
    "manual-jit-in-shares": jax_steps.in_shares,
    "autodiff": jax_steps.autodiff,
    "autodiff-hoisted": jax_steps.autodiff_hoisted,
    "torch": torch_steps.torch_step,
    "limit": numpy_steps.limit,
    "limit-jit": jax_steps.limit_jit,
}
# What the suites `quick` and `scaling` have besides for the RNN on a GPU.
ON_GPU: dict[str, Builder] = {"manual-fused": jax_steps.manual_fused}
# Training loops: steps called from Python, and loops that are compiled.
LOOPS: dict[str, Builder] = {
    "manual-readable": numpy_steps.readable,
    "manual": numpy_steps.manual,
    "manual-jit": jax_steps.manual_jit,
    "autodiff": jax_steps.autodiff,
    "torch": torch_steps.torch_step,
    "manual-jit-loop": partial(jax_steps.manual_jit, loop=True),
    "autodiff-loop": partial(jax_steps.autodiff, loop=True),
    "autodiff-hoisted-loop": partial(jax_steps.autodiff_hoisted, loop=True),
}
EVERY = 316  # about √100,000: as many states are kept as are recomputed at once
CHECKPOINTED: dict[str, Builder] = {
    "manual": numpy_steps.manual,
    "manual-checkpointed": partial(numpy_steps.manual, checkpoint_every=EVERY),
    "manual-jit": jax_steps.manual_jit,
    "manual-jit-checkpointed": partial(jax_steps.manual_jit, checkpoint_every=EVERY),
    "autodiff": jax_steps.autodiff,
}
# The same step on one device and with its batch shared out; a contender needs so many devices.
SHARED_OUT: dict[str, Builder] = {
    "manual-jit": jax_steps.manual_jit,
    **{
        f"manual-jit-on-{devices}": partial(jax_steps.shared_out, devices=devices)
        for devices in (2, 4, 8)
    },
}
# What a step owes to its products alone, and to their order and the work that it puts between them.
WITH_LIMITS: dict[str, Builder] = {
    **{name: builder for name, builder in CONTENDERS.items() if name != "autodiff-hoisted"},
    "limit-in-order": in_order.limit_in_order,
    "limit-jit-in-order": in_order.limit_jit_in_order,
}


class Plan(NamedTuple):
    """A suite: sizes, contenders, the baseline of the ratios, rounds, time limit and dtypes.

    `seconds` limits the time for the rounds of one size; the rounds end early where it is over.
    """

    sizes: tuple[Sizes, ...]
    contenders: dict[str, Builder]
    baseline: str = "autodiff"
    rounds: int = 30
    seconds: float = 10.0
    dtypes: tuple[str, ...] = ("float32",)


TINY = Sizes(T=2, B=3, D=4, H=16, O=3)
QUICK = (
    TINY,
    Sizes(T=50, B=1, D=16, H=32, O=3),
    Sizes(T=50, B=16, D=32, H=64, O=8),
    Sizes(T=100, B=32, D=64, H=128, O=10),
    Sizes(T=50, B=64, D=128, H=512, O=10),
    Sizes(T=50, B=32, D=256, H=1024, O=10),
)
MORE = (
    Sizes(T=200, B=8, D=16, H=32, O=4),
    Sizes(T=100, B=32, D=64, H=256, O=10),
    Sizes(T=28, B=128, D=28, H=128, O=10),
    Sizes(T=50, B=32, D=256, H=2048, O=10),
)
MIDDLE = Sizes(T=50, B=16, D=32, H=64, O=8)
ALONG = {
    "T": (10, 30, 100, 300, 1000, 3000, 10_000),
    "B": (1, 4, 16, 64, 256, 512),
    "H": (16, 64, 256, 1024, 2048),
    "D": (1, 8, 32, 128, 512),
}


def along(letter: str, middle: Sizes = MIDDLE) -> list[Sizes]:
    """The sizes of the scaling suite that grow in one letter alone."""
    return [middle._replace(**{letter: size}) for size in ALONG[letter]]


def scaling() -> Iterator[Sizes]:
    """Yield every size of the scaling suite once."""
    yield from dict.fromkeys(sizes for letter in ALONG for sizes in along(letter))


# Baidu's DeepBench, training: as many inputs as hidden units. Of each H the smallest and the
# largest batch, and the shortest sequences.
# Source: code/kernels/rnn_problems.h in github.com/baidu-research/DeepBench.
DEEPBENCH_H = {
    "rnn": (50, (1760, 2048, 2560), (16, 128)),
    "lstm": (25, (512, 1024, 2048, 4096), (16, 128)),
    "gru": (187, (1536, 2048, 2560, 2816), (32,)),
}
DEEPBENCH = {
    cell: tuple(
        Sizes(T=steps, B=batch, D=hidden, H=hidden, O=10) for hidden in units for batch in batches
    )
    for cell, (steps, units, batches) in DEEPBENCH_H.items()
}
PLANS = {
    Suite.QUICK: Plan(QUICK, CONTENDERS, seconds=13),
    Suite.FULL: Plan(QUICK + MORE, CONTENDERS, seconds=20, dtypes=("float32", "float64")),
    Suite.SCALING: Plan(tuple(scaling()), CONTENDERS, rounds=9, seconds=12),
    Suite.DEEPBENCH: Plan(DEEPBENCH["rnn"], CONTENDERS, seconds=30),
    Suite.STEPS: Plan((TINY, Sizes(T=10, B=1, D=8, H=16, O=2)), LOOPS),
    Suite.CHECKPOINT: Plan(
        (Sizes(T=100_000, B=8, D=16, H=64, O=3),), CHECKPOINTED, rounds=5, seconds=60
    ),
    Suite.PARALLEL: Plan(QUICK[2:], SHARED_OUT, baseline="manual-jit", rounds=9, seconds=10),
    Suite.LIMITS: Plan(QUICK[2:], WITH_LIMITS, rounds=15, seconds=16),
    Suite.VERIFY: Plan((), {}, baseline="torch-gradcheck", rounds=20, seconds=60),
}
# The arguments of `python -m benchmarks` for each file of benchmarks/results.
RETAKEN: dict[str, tuple[str, ...]] = {
    **{
        f"quick{cell}{precision}": (*of_cell, *in_precision)
        for cell, of_cell in (
            ("", ()), ("-lstm", ("--model", "lstm")), ("-gru", ("--model", "gru")),
        )
        for precision, in_precision in (("", ()), ("-float64", ("--dtype", "float64")))
    },
    "full": ("--suite", "full", "--dtype", "float32"),
    "scaling": ("--suite", "scaling"),
    "steps": ("--suite", "steps"),
    "checkpoint": ("--suite", "checkpoint"),
    "verify": ("--suite", "verify"),
    "parallel": ("--suite", "parallel"),
    "parallel-lstm": ("--suite", "parallel", "--model", "lstm"),
    "parallel-gru": ("--suite", "parallel", "--model", "gru"),
    "limits-lstm": ("--suite", "limits", "--model", "lstm"),
    "limits-gru": ("--suite", "limits", "--model", "gru"),
    "limits": ("--suite", "limits"),
}  # fmt: skip
