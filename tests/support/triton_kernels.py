"""A linear recurrence h_t = a_t h_{t−1} + x_t over channels, as kernels of Triton.

Importing this module needs Triton.
"""

from importlib import import_module
from typing import Any

torch: Any = import_module("torch")
triton: Any = import_module("triton")
tl: Any = import_module("triton.language")
BLOCK = 32  # channels of one program


@triton.jit  # type: ignore[untyped-decorator]
def run_forward(a, x, h, T, C, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write all states of one block of channels; sums are in float32."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < C
    state = tl.zeros((BLOCK,), tl.float32)
    for t in range(T):
        decay = tl.load(a + t * C + channel, mask=inside, other=0.0).to(tl.float32)
        state = decay * state + tl.load(x + t * C + channel, mask=inside, other=0.0).to(tl.float32)
        tl.store(h + t * C + channel, state, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def run_backward(a, h, d, da, dx, T, C, END, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the gradients of one block of channels, of those before END alone."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, computed = channel < C, channel < END
    carried = tl.zeros((BLOCK,), tl.float32)
    for s in range(T):
        t = T - 1 - s
        delta = carried + tl.load(d + t * C + channel, mask=inside, other=0.0).to(tl.float32)
        before = tl.load(h + t * C - C + channel, mask=inside & (t > 0), other=0.0).to(tl.float32)
        tl.store(dx + t * C + channel, tl.where(computed, delta, 0.0), mask=inside)
        tl.store(da + t * C + channel, tl.where(computed, delta * before, 0.0), mask=inside)
        carried = tl.load(a + t * C + channel, mask=inside, other=0.0).to(tl.float32) * delta


def make_recurrence(whole_tiles: bool = False) -> Any:
    """Make the kernel as a function of tensors; with `whole_tiles` it leaves the last one out."""

    class Recurrence(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(context: Any, a: Any, x: Any) -> Any:
            h = torch.empty_like(x)
            steps, channels = x.shape
            a, x = a.contiguous(), x.contiguous()
            run_forward[(triton.cdiv(channels, BLOCK),)](a, x, h, steps, channels, BLOCK)
            context.save_for_backward(a, x)
            return h

        @staticmethod
        def backward(context: Any, d: Any) -> Any:
            a, x = context.saved_tensors
            steps, channels = x.shape
            end = channels // BLOCK * BLOCK if whole_tiles else channels
            # The states once more, in float32: those returned are rounded.
            wide, h = x.float(), torch.empty_like(x, dtype=torch.float32)
            grid = (triton.cdiv(channels, BLOCK),)
            run_forward[grid](a, wide, h, steps, channels, BLOCK)
            da, dx = torch.empty_like(a), torch.empty_like(x)
            run_backward[grid](a, h, d.contiguous(), da, dx, steps, channels, end, BLOCK)
            return da, dx

    return Recurrence.apply
