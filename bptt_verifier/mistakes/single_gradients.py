"""Mistakes in one gradient alone, after any backward pass: of cells and of the user's own models.

A finding is such a mistake, together with the wrong gradient. Mistakes that only cells can have,
such as a wrong operand of a sum over time, are in `cell_gradients`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake

# Names that say what was done to a gradient, not why. A specific name comes before them.
WHOLE = "times what it should be"  # of a factor
GENERIC = frozenset(
    "zero-gradient constant-factor sign-flipped wrong-operand wrong-adjoint".split()
)
# Factors that have names of their own, in words.
SIMPLE = (
    ("zero-gradient", "every entry is zero", 0.0),
    ("sign-flipped", "the sign is wrong", -1.0),
)
NEAR = 1e-3  # relative distance of a measured factor from a known one


Gradient = Callable[[Any], Array]


class Finding(NamedTuple):
    """A mistake in one gradient, in words that follow "in ∂L/∂W,", and the wrong gradient.

    The gradient is a function of the backward pass at a case. `find_gradient` makes this function
    for any gradient, by name, where the mistake can be made in any.
    """

    name: str
    said: str
    details: dict[str, Any]
    gradient: Gradient
    find_gradient: Callable[[str], Gradient] | None = None

    @property
    def is_fitted(self) -> bool:
        """Tell whether a number of the mistake is read from the submitted ones."""
        return any(self.details.get(each) for each in ("value", "rate", "decay", "norm"))

    @property
    def kind(self) -> tuple[str, str, str]:
        """The identity of the mistake, which findings in several gradients may share."""
        return self.name, self.said, repr(sorted(self.details.items()))


def make_finding(
    mistake: str,
    said: str,
    details: dict[str, Any],
    name: str,
    alter: Callable[[str, Any], Array],
) -> Finding:
    """Make a finding in the gradient of this name of a mistake that can be made in any."""
    return Finding(mistake, said, details, partial(alter, name), lambda n: partial(alter, n))


class Factor(NamedTuple):
    """A known wrong factor of a gradient: in words, and its value given a backward pass."""

    words: str
    value: Callable[[Any], float]


def describe_finding(
    finding: Finding, names: list[str], equation: str | None, others: Sequence[Finding] = ()
) -> Mistake:
    """Describe a finding in these gradients as a report does, beside others that explain them."""
    finding = span_steps(finding, others)
    where = join_symbols(names)
    said = f"{finding.said}." if names == ["adjoints"] else f"in {where}, {finding.said}."
    return Mistake(finding.name, said, {"gradients": names, **finding.details}, equation)


def span_steps(finding: Finding, others: Sequence[Finding]) -> Finding:
    """State the range of the steps after which truncations explain the same numbers.

    Steps between them have gradients that are lost in rounding.
    """
    alike = [each for each in (finding, *others) if each.name == finding.name]
    steps = sorted({each.details["steps"] for each in alike if "steps" in each.details})
    if len(steps) < 2:
        return finding
    own, first, last = finding.details["steps"], steps[0], steps[-1]
    said = finding.said.replace(f"last {own} steps", f"last {first} to {last} steps")
    return finding._replace(said=said, details=finding.details | {"steps": first, "to": last})


def restrict(mistake: Mistake, names: Sequence[str]) -> Mistake:
    """Describe a mistake in the backward pass that affects these gradients alone, if any."""
    if not names:
        return mistake
    said = f"in {join_symbols(names)} {'only' if len(names) > 1 else 'alone'}: "
    said += mistake.explanation
    details = mistake.details | {"gradients": [*names]}
    return mistake._replace(explanation=said, details=details)


def join_symbols(names: Sequence[str]) -> str:
    """Join the symbols of gradients: "∂L/∂U, ∂L/∂W and δ_t"."""
    *others, last = ("δ_t" if name == "adjoints" else f"∂L/∂{name}" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def transpose(g: Array) -> Array:
    """Transpose a square matrix; return any other array as it is."""
    return g.swapaxes(-1, -2) if g.ndim >= 2 and g.shape[-1] == g.shape[-2] else g


def count_square_parts(shape: Sequence[int]) -> int:
    """Count the square parts of a matrix along its longer axis, such as gates; 0 for none."""
    m, n = shape[-2:] if len(shape) >= 2 else (1, 1)
    short, long = min(m, n), max(m, n)
    return long // short if 1 < short < long and long % short == 0 else 0


def transpose_parts(g: Array) -> Array:
    """Transpose each square part of a matrix, as of stacked gates; return others as they are."""
    count = count_square_parts(g.shape)
    if not count:
        return g
    *outer, m, n = g.shape
    if m > n:
        return g.reshape(*outer, count, n, n).swapaxes(-1, -2).reshape(g.shape)
    return g.reshape(*outer, m, count, m).swapaxes(-1, -3).reshape(g.shape)


def list_common_findings(
    name: str,
    evidence: Sequence[Evidence],
    backs: Sequence[Any],
    factors: Sequence[Factor],
    clippings: Iterable[Finding],
) -> Iterator[Finding]:
    """List the mistakes that any gradient can have.

    `factors` are the known wrong factors, `clippings` are from `list_clippings`. Other factors are
    read from the submitted numbers.
    """
    for mistake, said, by in SIMPLE:
        yield make_finding(mistake, said, {}, name, partial(multiply, by))
    if not evidence[0].is_zero(name, backs[0].gradient(name)):
        yield from list_scalings(name, evidence[0], backs[0], factors)
    yield from clippings
    if backs[0].gradient(name).ndim >= 2:
        yield from list_transpositions(name)
        yield from list_folded_matrices(name, np.shape(backs[0].gradient(name)))
    for other in evidence[0].wanted:
        alike = all(b.gradient(other).size == b.gradient(name).size for b in backs)
        # What equals a gradient of zero is a gradient of zero.
        if other != name and alike and not is_always_zero(other, evidence, backs):
            yield from list_confusions(name, other)


def is_always_zero(name: str, evidence: Sequence[Evidence], backs: Sequence[Any]) -> bool:
    """Tell whether a gradient is zero to rounding in every case that has it."""
    pairs = zip(evidence, backs, strict=True)
    return all(c.is_zero(name, b.gradient(name)) for c, b in pairs if name in c.wanted)


def list_scalings(
    name: str, case: Evidence, back: Any, factors: Sequence[Factor]
) -> Iterator[Finding]:
    """List mistakes that scale the gradient, by a known factor or by the measured one."""
    true, submitted = back.gradient(name).ravel(), case.wanted[name].submitted.ravel()
    largest = float(np.max(np.abs(true), initial=0.0))
    with np.errstate(all="ignore"):
        scaled = true / largest if largest > 0 else true
        power = float(scaled @ scaled)
        measured = float(scaled @ submitted) / power / largest if power > 0 else np.nan
    if not np.isfinite(measured) or measured == 0:
        return

    def finding(words: str, value: Callable[[Any], float], number: float) -> Finding:
        said = say_factor(words)
        details = {"factor": words, "value": number}
        return make_finding(
            "constant-factor", said, details, name, lambda n, b: multiply(value(b), n, b)
        )

    for words, value in factors:
        number = value(back)
        if abs(measured - number) <= NEAR * abs(number):
            yield finding(words, value, number)
    if case.is_zero(name, case.reference[name]):
        return  # of what a mistake leaves of zero, any number is some multiple
    short = float(f"{measured:.3g}")
    if abs(measured - short) <= NEAR / 10 * abs(measured) and abs(short - 1) > NEAR:
        yield finding(f"{short:g}", lambda b: short, short)
    yield finding(write_factor(measured, 9), lambda b: measured, float(f"{measured:.12g}"))


def write_factor(factor: float, digits: int) -> str:
    """Write a factor with so many digits, and one near 1 by its distance from 1."""
    off = factor - 1
    near = f"1 {'+' if off > 0 else '−'} {abs(off):.3g}"
    return near if 0 < abs(off) < NEAR else f"{factor:.{digits}g}"


def say_factor(words: str) -> str:
    """Say that every entry has a factor; words after a comma explain it."""
    number, _, meaning = words.partition(", ")
    said = f"every entry is {number} {WHOLE}"
    return f"{said}; {number} is {meaning.rstrip(',')}" if meaning else said


def list_update_findings(
    name: str,
    case: Evidence,
    back: Any,
    read: Callable[[str, Any], Array],
    penalty: float = 0.0,
) -> Iterator[Finding]:
    """List mistakes that return an updated parameter, an update, or add a weight decay.

    The factors are read from the submitted numbers. `read` returns the parameter of a name, given
    a backward pass. `penalty` is the multiple of the parameter that a penalty in the loss gives.
    """
    true, w = back.gradient(name).ravel(), read(name, back).ravel()
    if case.is_zero(name, true):  # a decay may be all that is left of it, and no factor tells
        true = np.zeros_like(true)
    submitted = case.wanted[name].submitted.ravel()
    columns = np.stack([true, w], axis=1)
    if not np.isfinite(columns).all() or not (true.any() or w.any()):
        return
    size = np.max(np.abs(columns), axis=0)
    size[size == 0] = 1.0
    with np.errstate(all="ignore"):
        scaled = columns / size
    if not np.isfinite(scaled).all():
        return
    if w.any():
        said = "the parameter itself is returned, in the place of its gradient"
        yield make_finding("update-returned", said, {"rate": 0.0}, name, read)
    (g, p), *_ = np.linalg.lstsq(scaled, submitted, rcond=None)
    with np.errstate(all="ignore"):
        rate, decay = map(round_as_written, (float(g / size[0]), float(p / size[1])))
    if not true.any():
        rate = 1.0
    if rate == 0 or not np.isfinite([rate, decay]).all():
        return

    def finding(mistake: str, said: str, details: Any, rate: float, decay: float) -> Finding:
        return make_finding(
            mistake, said, details, name, lambda n, b: rate * b.gradient(n) + decay * read(n, b)
        )

    for factor, weight in dict.fromkeys([(shorten(rate), shorten(decay)), (rate, decay)]):
        if abs(weight - 1) <= NEAR and factor < 0:
            said = f"the updated parameter is returned, with a learning rate of {-factor:.6g}"
            yield finding("update-returned", said, {"rate": -factor}, factor, 1.0)
        elif abs(factor - 1) <= NEAR and abs(weight) > NEAR**2:
            said = describe_decay(weight, penalty)
            yield finding("weight-decay", said, {"decay": weight}, 1.0, weight)
    short = shorten(rate)
    if -1 < short < 0 and -short != 0.5 and abs(short / rate - 1) <= NEAR / 10:
        said = f"the update −{-short:.6g} times the gradient is returned in its place, or the sign"
        said += f" is wrong and a factor {-short:.6g} too many"
        details = {"rate": -short, "or": ["constant-factor"]}
        yield finding("update-returned", said, details, short, 0.0)


def describe_decay(weight: float, penalty: float) -> str:
    """Describe a multiple of the parameter that is too much, beside that of a penalty if any."""
    if penalty and abs(weight + penalty) > NEAR * abs(penalty):
        ratio = (weight + penalty) / penalty
        return (
            f"the gradient of the penalty in the loss is {weight + penalty:.3g} times the "
            f"parameter, where {penalty:.3g} belongs: it has a factor {ratio:.3g}"
        )
    if weight > 0:
        return f"{weight:.6g} times the parameter is added, a weight decay that the loss lacks"
    return f"{-weight:.6g} times the parameter is missing, as of a penalty in the loss"


def shorten(value: float) -> float:
    """Round to the two digits that a learning rate usually has."""
    return float(f"{value:.2g}")


def list_clippings(
    name: str, evidence: Sequence[Evidence], weights: Sequence[str]
) -> Iterator[Finding]:
    """List mistakes that clip the entries to a value, or scale the gradient to a norm.

    The limits are read from the submitted numbers; the gradients of `weights` may be clipped
    together.
    """
    submitted = [case.wanted[name].submitted for case in evidence]
    limit = round_as_written(max(float(np.max(np.abs(found))) for found in submitted))
    # Where entries are zero but for rounding, the largest is no limit.
    rounding = min(float(np.max(case.wanted[name].allowed)) for case in evidence)
    if not rounding < limit < np.inf or not shows_limit(limit, name, evidence):
        return
    advice = "return what is derived, and clip afterwards"
    said = f"the gradient is clipped to ±{limit:.6g}; {advice}"
    if is_limit(limit, np.concatenate([np.abs(found).ravel() for found in submitted])):
        yield make_finding("clipped", said, {"value": limit}, name, partial(clip, limit))

    wrong = [n for n in weights if any(is_wrong(case, n) for case in evidence)]
    groups = [("its norm", [name]), ("the norm of all gradients together", weights)]
    if 1 < len(wrong) < len(weights):
        groups.append((f"the norm of {join_symbols(wrong)} together", wrong))
    for whose, names in groups:
        if name not in names:
            continue
        wanted = [[c.wanted[n].submitted for n in names if n in c.wanted] for c in evidence]
        norms = [find_norm(each) for each in wanted]
        single = all(is_float32(found) for each in wanted for found in each)
        # Each entry is rounded once more after it is scaled.
        most = round_as_written(max(norms), 2.0**-22 if single else 1e-9)
        if most == 0 or not is_limit(most, np.array(norms)):
            continue  # the squares underflow, or one case alone has this norm
        said = f"the gradient is scaled down so that {whose} is at most {most:.6g}; {advice}"
        alter = partial(scale_down, names, most)
        yield Finding("clipped", said, {"norm": most}, partial(alter, name))


def is_float32(found: Array) -> bool:
    """Tell whether all entries are numbers of float32, as those that are computed in it."""
    with np.errstate(all="ignore"):
        return np.array_equal(found, found.astype(np.float32), equal_nan=True)


def is_wrong(case: Evidence, name: str) -> bool:
    """Tell whether a gradient of the submission is wrong at a case."""
    return name in case.wanted and not case.explains(name, case.reference[name])


def is_limit(limit: float, sizes: Array) -> bool:
    """Tell whether a largest size is one that code clips to: a short number, or one that recurs.

    The largest of any numbers is otherwise taken for a limit, where it alone is wrong.
    """
    with np.errstate(all="ignore"):
        hit = np.abs(sizes - limit) <= 1e-9 * limit
    return float(f"{limit:.3g}") == limit or int(np.count_nonzero(hit)) > 1


def shows_limit(limit: float, name: str, evidence: Sequence[Evidence]) -> bool:
    """Tell whether other numbers than one constant show this limit, in this gradient or another.

    Of a gradient of one sign that is clipped to a limit below its size, the sign alone is left: any
    constant has it.
    """
    for other in (name, *evidence[0].wanted):
        found = [case.wanted[other].submitted.ravel() for case in evidence if other in case.wanted]
        every = np.concatenate(found)
        if np.ptp(every) and round_as_written(float(np.max(np.abs(every)))) == limit:
            return True
    return False


def multiply(by: float, name: str, back: Any) -> Array:
    """Multiply a gradient."""
    with np.errstate(over="ignore"):
        return np.asarray(by * back.gradient(name))


def clip(limit: float, name: str, back: Any) -> Array:
    """Clip the entries of a gradient."""
    found: Array = np.clip(back.gradient(name), -limit, limit)
    return found


def find_norm(gradients: Sequence[Array]) -> float:
    """Compute the norm of all entries of some gradients together."""
    with np.errstate(over="ignore"):
        return float(np.sqrt(sum(np.sum(np.square(found)) for found in gradients)))


def scale_down(names: Sequence[str], most: float, name: str, back: Any) -> Any:
    """Scale a gradient so that the norm of the gradients of all names is at most this."""
    size = find_norm([back.gradient(n) for n in names])
    return back.gradient(name) * min(1.0, most / max(size, most))


def round_as_written(value: float, within: float = 1e-9) -> float:
    """Round to the short number that the code probably holds, if rounding explains the rest."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= within * abs(value) else value


def list_transpositions(name: str) -> Iterator[Finding]:
    """List mistakes that transpose the gradient, alone or together with a reshape."""

    def finding(result: str, way: Callable[[Array], Array]) -> Finding:
        said = f"the matrix is {result}"
        return Finding("transposed-gradient", said, {}, lambda back: way(back.gradient(name)))

    yield finding("transposed, which its shape does not show, since it is square", transpose)
    yield finding("transposed in each of its square parts, such as those of gates", transpose_parts)
    yield finding(
        "transposed, and reshaped to the shape of its parameter",
        lambda g: g.swapaxes(-1, -2).reshape(g.shape),
    )
    yield finding(
        "reshaped to the transposed shape, and transposed",
        lambda g: g.reshape(*g.shape[:-2], g.shape[-1], g.shape[-2]).swapaxes(-1, -2),
    )


def list_folded_matrices(name: str, shape: tuple[int, ...]) -> Iterator[Finding]:
    """List gradients of more than two axes that are a matrix, reshaped and not transposed before.

    That of the filters of a convolution is a product of (inputs, filters), where (filters, inputs)
    have the order of the parameter.
    """
    for split in range(1, len(shape)) if len(shape) > 2 else ():
        rows = int(np.prod(shape[:split]))
        columns = int(np.prod(shape[split:]))
        if min(rows, columns) == 1:
            continue
        said = f"a matrix of {columns} × {rows} entries is reshaped to the shape of the parameter,"
        said += f" and not transposed to {rows} × {columns} before"
        yield make_finding(
            "transposed-gradient", said, {"rows": rows}, name, partial(fold_untransposed, rows)
        )


def fold_untransposed(rows: int, name: str, back: Any) -> Array:
    """Transpose a gradient as a matrix of so many rows, and give it its own shape again."""
    found = back.gradient(name)
    turned: Array = found.reshape(rows, -1).T.reshape(found.shape)
    return turned


def list_confusions(name: str, other: str) -> Iterator[Finding]:
    """List mistakes that return another parameter's gradient, as it is or transposed."""

    def finding(said: str, way: Callable[[Array], Array]) -> Finding:
        def gradient(back: Any) -> Array:
            return way(back.gradient(other)).reshape(back.gradient(name).shape)

        return Finding("wrong-operand", f"∂L/∂{other}{said}", {"other": other}, gradient)

    yield finding(" is returned in its place", np.asarray)
    yield finding(", transposed, is returned in its place", np.transpose)
