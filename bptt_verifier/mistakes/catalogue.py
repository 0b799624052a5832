"""The catalogue of mistakes: every name that a report gives, what it means, and how to mend it.

`docs/catalogue.py` writes docs/mistakes.md from it. A test plants each wrong line in its example
and expects the name.
"""

from bptt_verifier.mistakes.contract_catalogue import CONTRACT
from bptt_verifier.mistakes.explanation import EVERY, LAST, Explanation
from bptt_verifier.mistakes.kernel_catalogue import KERNELS

THROUGH_TIME = [
    Explanation(
        "recurrent-path-dropped",
        "Nothing is passed back from a step to the one before, or not through one of the paths. "
        "Only the direct use of each weight counts.",
        'dh = p["V"].T @ dz + dh_next',
        'dh = p["V"].T @ dz',
        EVERY,
        rank=2,
    ),
    Explanation(
        "truncated",
        "The gradient goes back a fixed number of steps and no further. Truncated BPTT is an "
        "approximation, so it differs from the gradient.",
        "for t in reversed(range(T)):",
        "for t in reversed(range(max(0, T - 5), T)):",
        LAST,
        rank=7,
    ),
    Explanation(
        "state-not-reset",
        "What is carried at the end of a sequence or layer is handed on to the next one, which "
        "begins with zeros.",
        "dh = 2 * (h[-1] - y)",
        "dh = dh + 2 * (h[-1] - y)",
        "catalogue/sentences.py",
    ),
    Explanation(
        "untransposed-recurrent-weight",
        "The adjoint is multiplied by W where Wᵀ belongs. The shapes fit, because W is square.",
        'dh_next = p["W"].T @ da',
        'dh_next = p["W"] @ da',
        EVERY,
        rank=9,
    ),
    Explanation(
        "untransposed-output-weight",
        "A weight that is not recurrent, such as V, is used where its transpose belongs. It "
        "shows where that weight is square.",
        'dh = p["V"].T @ dz + dh_next',
        'dh = p["V"] @ dz + dh_next',
        EVERY,
    ),
    Explanation(
        "path-counted-twice",
        "What is passed back along one path is added twice, or once more to the state before, as "
        "`+=` for `=` does.",
        'dh = p["V"].T @ dz + dh_next',
        'dh = p["V"].T @ dz + 2 * dh_next',
        EVERY,
        rank=14,
    ),
    Explanation(
        "first-step-skipped",
        "The backward loop ends one step early, so that the first step contributes nothing.",
        "for t in reversed(range(T)):",
        "for t in reversed(range(1, T)):",
        EVERY,
    ),
    Explanation(
        "last-step-skipped",
        "The backward loop begins one step early, so that the last step contributes nothing.",
        "for t in reversed(range(T)):",
        "for t in reversed(range(T - 1)):",
        EVERY,
    ),
    Explanation(
        "steps-in-wrong-order",
        "The backward loop goes through the steps as the forward loop does, and not in the "
        "opposite order.",
        "for t in reversed(range(T)):",
        "for t in range(T):",
        EVERY,
    ),
    Explanation(
        "output-gradient-at-every-step",
        "The loss depends on the last state alone, but ∂L/∂ŷ enters at every step.",
        "dh = da @ W",
        "dh = da @ W + dy @ V",
        LAST,
        rank=4,
    ),
    Explanation(
        "output-gradient-at-wrong-step",
        "∂L/∂ŷ enters at another step than that of the output.",
        "dh = da @ W",
        "dh = da @ W if t < T - 1 else dh",
        LAST,
        rank=4,
    ),
    Explanation(
        "output-gradient-missing",
        "A gradient contains what comes back from later steps, but not the loss at its own step.",
        'g["b"] += da',
        'g["b"] += dh_next * (1 - h[t] ** 2)',
        EVERY,
    ),
    Explanation(
        "wrong-adjoint",
        "A weight or a state gets the adjoint of another value of the same step: here of z, not "
        "of a.",
        'g["U"] += np.outer(da, x[t])',
        'g["U"] += np.outer(dz, x[t])',
        EVERY,
    ),
]

ACTIVATIONS = [
    Explanation(
        "activation-derivative-missing",
        "The factor φ′(a) is left out.",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh",
        EVERY,
        rank=8,
    ),
    Explanation(
        "activation-derivative-of-activated-value",
        "The derivative is taken at h = φ(a) instead of a. With the formula 1 − h², that is tanh "
        "applied once more.",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh * (1 - np.tanh(h[t]) ** 2)",
        EVERY,
        rank=5,
    ),
    Explanation(
        "activation-derivative-of-preactivation",
        "The formula takes the result h of the activation, such as 1 − h², but gets its "
        "argument a.",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh * (1 - a[t] ** 2)",
        EVERY,
    ),
    Explanation(
        "activation-derivative-incomplete",
        "A part of the formula is forgotten, such as the square in 1 − h², or one factor of h "
        "(1 − h).",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh * (1 - h[t])",
        EVERY,
    ),
    Explanation(
        "activation-derivative-of-another-function",
        "The derivative is that of a sigmoid where the function is a tanh, or the other way round, "
        "or is taken at −a. A maximum may pass its gradient on to another entry than it takes.",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh * h[t] * (1 - h[t])",
        EVERY,
    ),
    Explanation(
        "activation-derivative-twice",
        "The derivative is applied twice, for instance that of a softmax after the gradient of "
        "its cross-entropy, which contains it.",
        "da = dh * (1 - h[t] ** 2)",
        "da = dh * (1 - h[t] ** 2) ** 2",
        EVERY,
    ),
    Explanation(
        "activation-derivative-before-matrix-product",
        "The Hadamard product with φ′(a) is taken on the wrong side of the product with Wᵀ: δ_t "
        "is multiplied by φ′ of the step before, and Wᵀ comes after it.",
        "da = dh * (1 - h[t + 1] ** 2)\ndh = da @ W",
        "da = dh if t < T - 1 else dh * (1 - h[t + 1] ** 2)\ndh = (da * (1 - h[t] ** 2)) @ W",
        LAST,
        rank=15,
    ),
    Explanation(
        "activation-derivative-after-matrix-product",
        "The Hadamard product with φ′(a) is taken after the product with Wᵀ instead of before it.",
        'dh_next = p["W"].T @ da',
        'dh_next = (p["W"].T @ dh) * (1 - h[t] ** 2)',
        EVERY,
    ),
]

SUMS = [
    Explanation(
        "missing-time-sum",
        "The gradient of a weight that is used at every step is assigned in the loop, not added "
        "up.",
        'g["U"] += np.outer(da, x[t])',
        'g["U"] = np.outer(da, x[t])',
        EVERY,
        rank=11,
    ),
    Explanation(
        "bias-part-missing",
        "A bias gets the gradient of one step, or of one sequence, instead of the sum.",
        'g["b"] += da',
        'g["b"] = da',
        EVERY,
        rank=13,
    ),
    Explanation(
        "sum-part-missing",
        "A parameter that is used at several indices of an axis, such as a scale of every row, "
        "gets the gradient of the first or the last of them instead of the sum. Or a sum of terms, "
        "such as the margins of a loss or the end states of CTC, passes back that of some alone.",
        remedy="Sum over every axis along which the parameter is repeated.",
    ),
    Explanation(
        "hidden-state-off-by-one",
        "The state of another step is used, h or the c of an LSTM. W was multiplied by h_{t−1}, so "
        "h_{t−1} belongs beside δ_t.",
        'g["W"] += np.outer(da, h[t - 1])',
        'g["W"] += np.outer(da, h[t])',
        EVERY,
        rank=6,
    ),
    Explanation(
        "state-overwritten",
        "Every step stores the same array, so that the backward pass has the last state at every "
        "step.",
        "    a, h, z = forward(p)",
        "    a, h, z = forward(p); h = dict.fromkeys(h, h[T - 1])",
        EVERY,
    ),
    Explanation(
        "input-off-by-one",
        "An input of another step is used.",
        'g["U"] += np.outer(da, x[t])',
        'g["U"] += np.outer(da, x[min(t + 1, T - 1)])',
        EVERY,
    ),
    Explanation(
        "negative-index-wraps-around",
        "The index −1 before the first step reads the last element of a list or an array.",
        "dW += da.T @ h[t]",
        "dW += da.T @ h[t - 1]",
        LAST,
        rank=6,
    ),
    Explanation(
        "wrong-operand",
        "Another array of the same shape is used, or another gradient is returned.",
        "dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[-1]",
        "dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[1]",
        LAST,
        rank=12,
    ),
    Explanation(
        "repeated-index",
        "`E[indices] += d` adds only one of several updates of the same row; `np.add.at` adds all.",
        'np.add.at(g["E"], tokens, da)',
        'g["E"][tokens] += da',
        "catalogue/lookup.py",
    ),
]

SCALES = [
    Explanation(
        "constant-factor",
        "Every entry is off by the same factor, such as 2, 1/B or 1/T. The gradient belongs to "
        "another convention of the loss: a sum for a mean, or ½ of a square.",
        "dy = 2 * (h[-1] @ V.T - y) / y.size",
        "dy = (h[-1] @ V.T - y) / y.size",
        LAST,
        rank=3,
    ),
    Explanation(
        "sign-flipped",
        "The sign is wrong, for instance because y − ŷ was differentiated.",
        "dz = 2 * (z[t] - y[t]) / y.size",
        "dz = 2 * (y[t] - z[t]) / y.size",
        EVERY,
    ),
    Explanation(
        "factor-missing",
        "A factor of a product, a mask or the divisor of a mean is left out of the derivative, or "
        "a term of the exponent in the posterior probability of a pair of states.",
        'dh = (p["V"].T @ dz) * mask / KEPT',
        'dh = (p["V"].T @ dz) / KEPT',
        "catalogue/dropout.py",
    ),
    Explanation(
        "factor-twice",
        "A factor or a divisor is applied twice, such as a gate, or the standard deviation of a "
        "normalisation.",
        "da = (dn - dn.mean() - n * (dn * n).mean()) / s",
        "da = (dn - dn.mean() - n * (dn * n).mean()) / s**2",
        "catalogue/normalised.py",
    ),
    Explanation(
        "factor-on-another-path",
        "A factor of one path, such as a dropout mask on the outputs, also multiplies what comes "
        "back from the next step.",
        'dh = dz * p["v"] * mask[t] + dh_next',
        'dh = (dz * p["v"] + dh_next) * mask[t]',
        "catalogue/outputs.py",
    ),
    Explanation(
        "factor-inverted",
        "The derivative is divided by a factor that it should be multiplied by, or the other "
        "way round.",
        'dn = dz * p["g"]',
        'dn = dz / p["g"]',
        "catalogue/normalised.py",
    ),
    Explanation(
        "zero-gradient",
        "A gradient, or a term of it, is zero.",
        'g["b"] += da',
        'g["b"] += 0 * da',
        EVERY,
    ),
]

RETURNED = [
    Explanation(
        "clipped",
        "The gradient is clipped before it is returned. Clipping belongs to the update: return "
        "what is derived, and clip afterwards.",
        "return g",
        "return {name: np.clip(value, -0.5, 0.5) for name, value in g.items()}",
        EVERY,
        rank=1,
    ),
    Explanation(
        "transposed-gradient",
        "A gradient is transposed, as a whole, gate by gate, or the part of it that a lookup gets.",
        "return dU, dW, dV",
        "return dU, dW.T, dV",
        LAST,
    ),
    Explanation(
        "parts-exchanged",
        "Two parts of a packed or joined array are in each other's place, such as the input and "
        "the forget gate.",
        'return {"U": np.outer(np.concatenate([di, df]), x)}',
        'return {"U": np.outer(np.concatenate([df, di]), x)}',
        "catalogue/gates.py",
    ),
    Explanation(
        "update-returned",
        "The updated parameter, or the update −η ∂L/∂θ, is returned in the place of the gradient.",
        "return g",
        "return {name: p[name] - 0.1 * value for name, value in g.items()}",
        EVERY,
    ),
    Explanation(
        "weight-decay",
        "A multiple of the parameter is added, the derivative of a penalty that the loss lacks, "
        "of all entries or of an intercept alone; or it is missing, or has another factor, though "
        "the loss has the penalty.",
        "return g",
        "return {name: value + 0.01 * p[name] for name, value in g.items()}",
        EVERY,
    ),
]

EXPRESSIONS = [
    Explanation(
        "softmax-diagonal",
        "The derivative of a softmax is taken as p (1 − p), the diagonal of its Jacobian alone.",
        "ds = q * (dq - q @ dq)",
        "ds = q * (1 - q) * dq",
        "catalogue/attention.py",
    ),
    Explanation(
        "softmax-denominator",
        "Nothing is passed back through the sum in the denominator of a softmax, or another sum: "
        "counts n of p have the gradient n − p Σ n, and n − p only where they add up to 1.",
        "ds = q * (dq - q @ dq)",
        "ds = q * dq",
        "catalogue/attention.py",
    ),
    Explanation(
        "softmax-over-wrong-axis",
        "The softmax in the derivative sums over another axis than that in the loss, or over all "
        "entries.",
        "dz = e / e.sum(axis=1, keepdims=True)",
        "dz = e / e.sum(axis=0, keepdims=True)",
        "catalogue/words.py",
    ),
    Explanation(
        "normalisation-path-missing",
        "Nothing is passed back through the mean or the variance of a normalisation.",
        "da = (dn - dn.mean() - n * (dn * n).mean()) / s",
        "da = (dn - dn.mean()) / s",
        "catalogue/normalised.py",
    ),
    Explanation(
        "normalisation-over-wrong-axis",
        "A mean in the derivative of a normalisation is over another axis than the loss takes it "
        "over, or over all entries.",
        "m = dn.mean(axis=1, keepdims=True)",
        "m = dn.mean(axis=0, keepdims=True)",
        "catalogue/rows.py",
    ),
    Explanation(
        "epsilon-ignored",
        "The small constant in a denominator or a root is left out of the derivative.",
        "s = np.sqrt(v + EPSILON)",
        "s = np.sqrt(v)",
        "catalogue/normalised.py",
    ),
    Explanation(
        "conjugate-missing",
        "A complex factor is not conjugated in the backward pass.",
        "dw = np.conj(x) * 2 * residual(p)",
        "dw = x * 2 * residual(p)",
        "catalogue/spectrum.py",
    ),
]

SECTIONS = {
    "What is passed back through time": THROUGH_TIME,
    "The derivative of the activation": ACTIVATIONS,
    "Sums, steps and operands": SUMS,
    "Factors and signs": SCALES,
    "What is returned": RETURNED,
    "Softmax, normalisation, complex numbers": EXPRESSIONS,
    "Kernels": KERNELS,
    "The contract, and no name": CONTRACT,
}
CATALOGUE = {entry.name: entry for entries in SECTIONS.values() for entry in entries}
