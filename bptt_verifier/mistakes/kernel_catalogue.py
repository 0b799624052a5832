"""The catalogue's names of what is wrong with kernels: docs/kernels.md says how they are found."""

from bptt_verifier.mistakes.explanation import Explanation

LOOK = "Look at the code that computes these entries: how the loop starts and ends there."

KERNELS = [
    Explanation(
        "ignores-cotangents",
        "The gradients do not change when the cotangents of all outputs, or of one, change their "
        "sign. A backward pass that takes them as ones, or that leaves one output out, does so.",
        remedy="Multiply by what arrives from every output, also by that of the last state.",
    ),
    Explanation(
        "not-linear-in-cotangents",
        "Scaled cotangents do not scale the gradients, two parts of them do not add up, or zeros "
        "do not give zero. A gradient that is clipped inside the kernel is one cause.",
        remedy="Leave clipping and constants out of the backward pass.",
    ),
    Explanation(
        "padding-leaks",
        "NaN or other numbers where nothing depends on an argument, such as beyond a length, "
        "change a gradient.",
        remedy="Select by the mask instead of multiplying by it: 0 times NaN is NaN.",
    ),
    Explanation(
        "rows-influence-one-another",
        "A gradient changes with another index of a batch, on which it does not depend.",
        remedy="Check the strides and the indices of the batch.",
    ),
    Explanation(
        "wrong-index",
        "A gradient is wrong at one index of an axis, and right at the others.",
        remedy=LOOK,
    ),
    Explanation(
        "wrong-range",
        "A gradient is wrong at consecutive indices of an axis, such as the early steps, and right "
        "at the others.",
        remedy=LOOK,
    ),
    Explanation(
        "wrong-indices",
        "A gradient is wrong at some indices of an axis, and right at the others.",
        remedy=LOOK,
    ),
    Explanation(
        "wrong-last-tile",
        "A gradient is wrong from a multiple of 16, 32, 64 or 128 to the end of an axis: in the "
        "last tile, or in what is left of it. If it is zero there, other entries may be wrong as "
        "well, and the report says so.",
        remedy="Check the mask of the last tile, and the number of tiles, which is rounded up.",
    ),
    Explanation(
        "wrong-tile-edge",
        "A gradient is wrong at the first or the last indices of every tile of 16, 32, 64 or 128, "
        "or on both sides of every edge between two tiles.",
        remedy="Check what is carried from one tile to the next.",
    ),
    Explanation(
        "wrong-beyond-length",
        "A gradient is wrong beyond the lengths of the sequences alone, or outside their mask.",
        remedy="Set it to zero there, or write zeros to the buffer.",
    ),
    Explanation(
        "wrong-at-other-sizes",
        "The gradients are right where a tile divides the size of an axis, and wrong elsewhere, or "
        "right in some settings and wrong in others.",
        remedy="Check the mask of the last tile, and what the code does at the wrong sizes.",
    ),
    Explanation(
        "noise-beyond-rounding",
        "The errors of a gradient scatter between arguments that differ in their last digits "
        "alone, by more than rounding does in any format.",
        remedy="Look for random numbers, for memory that is read before it is written, and for "
        "threads that write to one place.",
    ),
    Explanation(
        "not-linear-in-direction",
        "A directional derivative does not double with its direction.",
        remedy="Leave clipping and constants out of the forward mode.",
    ),
    Explanation(
        "not-transposed",
        "The forward mode and the backward pass are not transposes of each other: the products "
        "⟨J v, w⟩ and ⟨v, Jᵀ w⟩ differ.",
        remedy="Verify each of them against the stated function: `verify_jvp`, `verify_vjp`.",
    ),
]
