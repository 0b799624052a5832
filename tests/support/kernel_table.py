"""False alarms and 1 % mistakes seen, by precision: the judge, check_grads and gradcheck.

`python -m tests.support.kernel_table CASES CHECKED [PRECISION [SEED]]` prints the table of
docs/kernels.md, from so many cases of each precision for the judge, and so many for the other two;
gradcheck needs torch. `python -m tests.support.kernel_table CASES` prints how many mistakes of one
entry and of one index are seen.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
    count_tests,
    draw_cases,
    prepare_cotangents,
)
from bptt_verifier.judge.kernel_comparisons import compare_kernel
from bptt_verifier.judge.kernel_path import summarise_kernel
from bptt_verifier.program.arguments import convert_to_numpy, make_tensor, read_settings
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import overall
from tests.support.kernel_gallery import GALLERY, Exhibit, call_wide
from tests.support.tf32_arrays import TF32Array


class Precision(NamedTuple):
    """The dtype of a kernel's arguments and gradients, and the kind of arrays it computes with."""

    dtype: Any
    kind: Any = np.ndarray


PRECISIONS = {
    "float64": Precision(np.float64),
    "float32": Precision(np.float32),
    "TF32 inside float32": Precision(np.float32, TF32Array),
    "float16, sums in float32": Precision(np.float16),
    "bfloat16, sums in float32": Precision(jnp.bfloat16),
}
FACTOR = 1.01


class Count(NamedTuple):
    """How many right cases were called wrong, and how many wrong ones were seen, of how many.

    `undecided` is the number of right cases whose verdict is inconclusive.
    """

    alarms: int
    right: int
    seen: int
    wrong: int
    undecided: int = 0


def make_kernel(
    exhibit: Exhibit, scaled: int | None, kind: Any = np.ndarray
) -> Callable[[Any, Any], Any]:
    """A kernel of the gallery, right or with one of its gradients multiplied by 1.01."""

    def backward(arguments: Any, cotangents: Any) -> Any:
        found = [*exhibit.backward(arguments, cotangents, "")]
        if scaled is not None:
            found[scaled] = found[scaled] * found[scaled].dtype.type(FACTOR)
        return found

    return partial(call_wide, backward, kind=kind)


def list_scaled(exhibit: Exhibit) -> list[int]:
    """List the gradients of a kernel by their number."""
    dtypes = [each.dtype for each in exhibit.draw(np.float32)]
    return [k for k, dtype in enumerate(dtypes) if dtype == np.float32]


def share_cases(cases: int) -> Iterator[tuple[Exhibit, int]]:
    """Share a number of cases among the kernels of the gallery, as evenly as they divide."""
    each, left = divmod(cases, len(GALLERY))
    for k, exhibit in enumerate(GALLERY.values()):
        yield exhibit, each + (k < left)


def draw_every_case(
    exhibit: Exhibit, dtype: Any, number: int, seed: int = 0
) -> Iterator[tuple[KernelCalls, KernelCase]]:
    """Draw cases of a kernel, with the calls that judge it."""
    (arguments,) = read_settings(exhibit.draw(dtype), exhibit.forward)
    calls = KernelCalls(exhibit.right(), prepare_pullback(exhibit.forward, arguments))
    for case in draw_cases(0, calls, prepare_cotangents(calls, None, seed), number, seed):
        yield calls, case


def is_called_wrong(calls: KernelCalls, case: KernelCase, backward: Any) -> bool:
    """Tell whether the judge calls a kernel wrong at one case, as a verdict on it alone does."""
    asked = KernelCalls(backward, calls.pullback)
    found = compare_kernel(asked, case, count_tests(asked), seed=0)
    return isinstance(found, Mistake) or bool(found.wrong)


def is_undecided(calls: KernelCalls, case: KernelCase, backward: Any) -> bool:
    """Tell whether a verdict on a kernel at one case, and at further ones, is inconclusive."""
    asked = KernelCalls(backward, calls.pullback)
    found = compare_kernel(asked, case, count_tests(asked), seed=0)
    if isinstance(found, Mistake):
        return False
    verdict = overall(each.verdict for each in summarise_kernel([found]).values())
    if verdict is not Verdict.INCONCLUSIVE:
        return False
    arguments = calls.arguments.rebuild(case.point)
    report = verify_vjp(backward, calls.pullback.forward, arguments, cases=1)
    return report.verdict is Verdict.INCONCLUSIVE


def count_judged(precision: Precision, cases: int, seed: int = 0) -> Count:
    """Count false alarms and 1 % mistakes seen by the judge, over the kernels of the gallery."""
    alarms = right = seen = wrong = undecided = 0
    for exhibit, number in share_cases(cases):
        for calls, case in draw_every_case(exhibit, precision.dtype, number, seed):
            right_kernel = make_kernel(exhibit, None, precision.kind)
            alarms += is_called_wrong(calls, case, right_kernel)
            undecided += is_undecided(calls, case, right_kernel)
            right += 1
            chosen = list_scaled(exhibit)
            scaled = chosen[case.number % len(chosen)]
            seen += is_called_wrong(calls, case, make_kernel(exhibit, scaled, precision.kind))
            wrong += 1
    return Count(alarms, right, seen, wrong, undecided)


def make_local_mistake(exhibit: Exhibit, place: str, factor: float, seed: int) -> Any:
    """A kernel of the gallery with one entry, or all at one index of an axis, times a factor.

    The entry is at least as large as the root mean square, and the index as the median one. It is
    the same at every call.
    """
    chosen: list[Any] = []

    def choose(g: Any, rng: np.random.Generator) -> Any:
        wide = g.astype(np.float64)
        if place == "entry":
            large = np.argwhere(np.abs(wide) >= np.sqrt(np.mean(wide**2)))
            return tuple(large[rng.integers(len(large))])
        axis = int(rng.integers(g.ndim))
        others = tuple(i for i in range(g.ndim) if i != axis)
        sizes = np.sqrt((wide**2).sum(axis=others))
        at = int(rng.choice(np.flatnonzero(sizes >= np.median(sizes))))
        return (slice(None),) * axis + (at,)

    def backward(arguments: Any, cotangents: Any) -> Any:
        found = [*exhibit.backward(arguments, cotangents, "")]
        rng = np.random.default_rng(seed)
        k = int(rng.choice(list_scaled(exhibit)))
        g = np.array(found[k])
        chosen.extend([] if chosen else [choose(g, rng)])
        g[chosen[0]] *= g.dtype.type(factor)
        found[k] = g
        return found

    return partial(call_wide, backward)


def count_local(dtype: Any, cases: int, place: str, factor: float) -> Count:
    """Count mistakes of one entry or index that are seen."""
    seen = wrong = 0
    for exhibit, number in share_cases(cases):
        for calls, case in draw_every_case(exhibit, dtype, number):
            kernel = make_local_mistake(exhibit, place, factor, case.number)
            seen += is_called_wrong(calls, case, kernel)
            wrong += 1
    return Count(0, 0, seen, wrong)


def print_local(cases: int) -> None:
    """Print how many mistakes of one entry, and of one index of an axis, are seen."""
    print(
        "| precision | place | × 0 | × 2 | × 1.1 | × 1.03 |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, (dtype, kind) in PRECISIONS.items():
        if kind is not np.ndarray:
            continue
        for place in ("entry", "index"):
            counts = [count_local(dtype, cases, place, each) for each in (0, 2, 1.1, 1.03)]
            shares = " | ".join(f"{100 * each.seen / cases:.0f} %" for each in counts)
            print(f"| {name} | {place} | {shares} |", flush=True)


@cache
def compile_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a stated function once."""
    return jax.jit(forward)


def passes_check_grads(exhibit: Exhibit, case: KernelCase, calls: KernelCalls, kernel: Any) -> bool:
    """Tell whether jax.test_util.check_grads, as it is, accepts a kernel at a case."""
    arguments = calls.arguments.rebuild(case.point)
    floating = [each.dtype != np.int64 for each in arguments]

    def call(*leaves: Any) -> Any:
        given = iter(leaves)
        return [next(given) if f else a for f, a in zip(floating, arguments, strict=True)]

    @jax.custom_vjp
    def function(*leaves: Any) -> Any:
        return compile_forward(exhibit.forward)(*map(jnp.asarray, call(*leaves)))

    def pull(leaves: Any, d: Any) -> Any:
        shapes = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in leaves)
        found = jax.pure_callback(
            lambda leaves, d: tuple(
                g for g in kernel(call(*map(np.asarray, leaves)), jax.tree.map(np.asarray, d))
                if g is not None
            ),
            shapes, leaves, d,
        )  # fmt: skip
        return tuple(found)

    function.defvjp(lambda *leaves: (function(*leaves), leaves), pull)
    with jax.enable_x64(arguments[0].dtype == np.float64), jax.numpy_dtype_promotion("standard"):
        leaves = [jnp.asarray(a) for a, f in zip(arguments, floating, strict=True) if f]
        try:
            check_grads(function, leaves, order=1, modes=["rev"])
        except AssertionError:
            return False
    return True


def passes_gradcheck(exhibit: Exhibit, case: KernelCase, calls: KernelCalls, kernel: Any) -> bool:
    """Tell whether torch.autograd.gradcheck, as it is, accepts a kernel at a case."""
    torch: Any = import_module("torch")
    arguments = calls.arguments.rebuild(case.point)
    single = len(calls.pullback.outputs) == 1

    def to_numpy(tensors: Any) -> list[Any]:
        pairs = zip(tensors, arguments, strict=True)
        return [convert_to_numpy(t.detach()).astype(a.dtype) for t, a in pairs]

    class Wrapped(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, *tensors: Any) -> Any:
            context.save_for_backward(*tensors)
            given = to_numpy(tensors)
            with jax.enable_x64(given[0].dtype == np.float64):
                outputs = jax.tree.leaves(compile_forward(exhibit.forward)(*given))
            made = tuple(make_tensor(np.array(each)) for each in outputs)
            return made[0] if single else made

        @staticmethod
        def backward(context: Any, *d: Any) -> Any:
            tensors = context.saved_tensors
            given = [convert_to_numpy(each) for each in d]
            tree = jax.tree.unflatten(jax.tree.structure(calls.pullback.structure), given)
            found = kernel(to_numpy(tensors), tree)
            return tuple(None if g is None else make_tensor(np.array(g)) for g in found)

    tensors = [make_tensor(each.copy()) for each in arguments]
    for each in tensors:
        each.requires_grad_(each.is_floating_point())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.autograd.gradcheck(Wrapped.apply, tensors, raise_exception=False))


def count_checked(passes: Callable[..., bool], precision: Precision, cases: int) -> Count:
    """Count false alarms and 1 % mistakes seen by another check."""
    alarms = right = seen = wrong = 0
    for exhibit, number in share_cases(cases):
        for calls, case in draw_every_case(exhibit, precision.dtype, number):
            chosen = list_scaled(exhibit)
            scaled = make_kernel(exhibit, chosen[case.number % len(chosen)], precision.kind)
            right_kernel = make_kernel(exhibit, None, precision.kind)
            alarms += not passes(exhibit, case, calls, right_kernel)
            seen += not passes(exhibit, case, calls, scaled)
            right, wrong = right + 1, wrong + 1
    return Count(alarms, right, seen, wrong)


def main(cases: int, checked: int, precision: str = "", seed: int = 0) -> None:
    """Print the table, for one precision or all. No case is checked otherwise if that is 0."""
    print("| precision | check | right cases called wrong | inconclusive | 1 % mistakes seen |")
    print("| --- | --- | --- | --- | --- |")
    checks: dict[str, Any] = {"`jax.test_util.check_grads`": passes_check_grads}
    if find_spec("torch"):
        checks["`torch.autograd.gradcheck`"] = passes_gradcheck
    for name, each in PRECISIONS.items():
        if not name.startswith(precision):
            continue
        counts: dict[str, Any] = {"`verify_vjp`": partial(count_judged, each, cases, seed)}
        for check, passes in checks.items() if checked else ():
            counts[check] = partial(count_checked, passes, each, checked)
        for check, count in counts.items():
            alarms, right, seen, wrong, undecided = count()
            share = f"{undecided} of {right}" if check == "`verify_vjp`" else "–"
            shown = f"| {name} | {check} | {alarms} of {right} | {share} | {seen} of {wrong} |"
            print(shown, flush=True)


if __name__ == "__main__":
    if any(int(number) < 1 for number in sys.argv[1:2]):
        raise SystemExit("CASES: expected 1 or more")
    if len(sys.argv) == 2:
        print_local(int(sys.argv[1]))
    else:
        main(*map(int, sys.argv[1:3]), *sys.argv[3:4], *map(int, sys.argv[4:]))
