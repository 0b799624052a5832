"""What breaks the contract, in the catalogue of mistakes: wrong shapes, exceptions, no name."""

from bptt_verifier.mistakes.explanation import LAST, Explanation

CONTRACT = [
    Explanation(
        "forward-differs",
        "Your forward pass is another function, so that its gradient is another one.",
        remedy="The report says how your forward pass differs, such as another activation or "
        "order of gates. Compare the loss before the gradient.",
    ),
    Explanation(
        "inputs-modified",
        "Your function changes its arguments, so that a second call computes something else.",
        "dy = 2 * (h[-1] @ V.T - y) / y.size",
        "dy = -2 * np.subtract(y, h[-1] @ V.T, out=y) / y.size",
        LAST,
        rank=10,
    ),
    Explanation(
        "not-deterministic",
        "Two calls with equal arguments return different results.",
        "dh = dy @ V",
        "dh = dy @ V * (np.random.rand(*dy.shape[:1], 1) > 0.1)",
        LAST,
    ),
    Explanation(
        "depends-on-calls",
        "The result depends on earlier calls, for instance on a buffer that is not reset.",
        remedy="Set every buffer at the beginning of a call.",
    ),
    Explanation(
        "depends-on-memory-layout",
        "The result changes where an argument is in Fortran order or a strided or reversed view.",
        remedy="Read arrays by index or by NumPy's operations, not by their memory.",
    ),
    Explanation(
        "rounded-gradient",
        "All entries are multiples of one number, and those of the derivative are not.",
        remedy="Divide by `/`, and not by `//`; use arrays of floats; do not round.",
    ),
    Explanation(
        "unwritten-output",
        "An array is returned of which parts were never written.",
        remedy="Use `np.zeros` instead of `np.empty`, or write every entry.",
    ),
    Explanation(
        "wrong-shape",
        "A gradient is missing, or has another shape than its parameter.",
        "return dU, dW, dV",
        "return dU, dW, dV[0]",
        LAST,
    ),
    Explanation(
        "not-finite",
        "A gradient has infinities or NaN where the true one is finite.",
        "dy = 2 * (h[-1] @ V.T - y) / y.size",
        "dy = 2 * (h[-1] @ V.T - y) / 0.0",
        LAST,
    ),
    Explanation(
        "raised",
        "Your function raised an exception. The report has its type, its message and its line.",
        "return dU, dW, dV",
        "return dU, dW, dX",
        LAST,
    ),
    Explanation(
        "timed-out",
        "A call did not return within `--timeout`.",
        remedy="Raise `--timeout`, or mend what does not end.",
    ),
    Explanation(
        "unknown",
        "The numbers are wrong, and no mistake of this catalogue, nor a pair of them, gives all "
        "of them.",
        remedy="Read which gradients agree, and which δ_t is the first wrong one going "
        "backward; then compare the line of that gradient with the equation.",
    ),
]
