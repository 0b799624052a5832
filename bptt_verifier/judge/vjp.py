"""Entry points: verify a kernel's vector-Jacobian product, in the precision it runs in."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

from bptt_verifier.judge.kernel_approximation import describe_approximation
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_diagnosis import diagnose_kernel
from bptt_verifier.judge.kernel_ignored import follows_from_ignored
from bptt_verifier.judge.kernel_masks import describe_masks, find_masks
from bptt_verifier.judge.kernel_memory import find_kept_argument
from bptt_verifier.judge.kernel_operations import find_wrong_operation
from bptt_verifier.judge.kernel_path import (
    CASES,
    VAGUE,
    KernelJudgement,
    find_zeros,
    require_settings,
)
from bptt_verifier.judge.kernel_precision import describe_kernel_precision
from bptt_verifier.judge.kernel_questions import IGNORING, OF_CALLS, list_untried_sizes
from bptt_verifier.judge.options import PullbackOptions
from bptt_verifier.judge.verify import (
    add_origin,
    find_name,
    require_agreement,
)
from bptt_verifier.mistakes.effort import limit_effort
from bptt_verifier.program.arguments import Arguments, read_settings
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.program.torch_modules import make_stated
from bptt_verifier.reference.pullbacks import prepare_pullback
from bptt_verifier.reference.stated_pullbacks import StatedPullback
from bptt_verifier.report import Mistake, Report


def verify_vjp(
    backward: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    *,
    cotangents: Any = None,
    reference: Callable[[Any, Any], Any] | None = None,
    cases: int = CASES,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Verify `backward(arguments, cotangents)` against the pull-back of `forward(*arguments)`.

    `forward` states the function, in plain NumPy, jax.numpy or PyTorch, and returns a pytree of
    arrays. `arguments` is a tuple or a mapping, nested in any way, or a list of such settings; its
    floating arrays are differentiated, in their dtypes, and the others are data. `backward` gets
    cotangents in the structure of the outputs and returns gradients in that of the arguments.
    `cotangents` are those of the first setting's first case; the judge draws all others, and values
    near the arguments given for all but the first of `cases`, from `seed`. `reference(arguments,
    cotangents)` states, in float64, a gradient that is not autodiff's, such as a truncated one.
    Raises TypeError or ValueError where an argument does not fit this description.
    """
    require_settings({"backward": backward, "forward": forward}, cases, seed)
    name = subject or find_name(backward, "your kernel")
    with use_own_settings():
        stated = make_stated(forward, arguments)
        settings = read_settings(arguments, stated)
        every = prepare(backward, stated, settings, reference)
        masks = find_masks(every, seed)
        if masks:
            held = [each.hold(masks) for each in settings]
            every = prepare(backward, stated, held, reference)
        report = PullbackJudgement(name, every, cotangents, cases, seed).judge()
    written = [find_name(backward), find_name(forward), "arguments"]
    written += ["cotangents=cotangents"] if cotangents is not None else []
    written += [f"reference={find_name(reference)}"] if reference is not None else []
    return add_origin(report, verify_vjp, written, {"cases": cases}, seed)


def prepare(
    backward: Callable[[Any, Any], Any],
    stated: Callable[..., Any],
    settings: Sequence[Arguments],
    reference: Callable[[Any, Any], Any] | None,
) -> list[KernelCalls]:
    """Prepare the calls of a kernel in each setting, and the pull-back that judges it."""
    pullbacks = [prepare_pullback(stated, setting) for setting in settings]
    judged = [p if reference is None else StatedPullback(reference, p) for p in pullbacks]
    return [KernelCalls(backward, pullback) for pullback in judged]


def assert_vjp_verified(
    backward: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    **options: Unpack[PullbackOptions],
) -> Report:
    """Return the report of `verify_vjp`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_vjp(backward, forward, arguments, **options))


SECONDS = 10.0  # for the search for an operation
OF_INDICES = frozenset("unknown wrong-index wrong-indices wrong-range".split())


class PullbackJudgement(KernelJudgement):
    """The judgement of a pull-back."""

    call = "verify_vjp(backward, forward, arguments"
    is_cut_short = False  # the search for one operation that explains what is wrong

    def describe(self) -> Iterator[str]:
        """Describe an approximation, the precision, gradients of zeros and sizes not tried."""
        yield from describe_approximation(self.every, self.found)
        yield from describe_masks(self.every)
        if not self.lazy:  # whose errors say nothing of rounding
            yield from describe_kernel_precision(self.every, self.found)
        for name in find_zeros(self.found):
            yield f"∂L/∂{name} is zero, to rounding, in all cases, and yours must be, too."
        yield from list_untried_sizes(self.every)

    def describe_search(self) -> Iterator[str]:
        """Say that the search for a name ended before it had tried everything, if it did."""
        if self.is_cut_short:
            yield (
                "The search for one operation that explains the gradients ended after its limit "
                f"of {SECONDS:g} s of processor time; the verdict does not depend on it."
            )

    def explain(self) -> tuple[Mistake, ...]:
        """Name what is wrong with the gradients, or say where they are wrong.

        Wrong indices alone, or none that stand out, may be due to one operation, or to an argument
        that is kept from an earlier call. No one operation changes from call to call, or ignores
        all cotangents. What follows from cotangents that are ignored is not named again.
        """
        ignored = [
            name
            for each in self.lazy
            if each.name == IGNORING
            for name in each.details.get("outputs", ())
        ]
        near = [each.nearest for each in self.found if each.wrong]
        if ignored and follows_from_ignored(self.every, near, ignored, self.seed):
            return ()
        named = diagnose_kernel(self.every, self.found)
        if ignored and len(ignored) == len(self.found[0].case.cotangents):
            return tuple(mistake for mistake in named if mistake.name not in VAGUE)
        random = any(mistake.name in OF_CALLS for mistake in self.lazy)
        if random or all(mistake.name not in OF_INDICES for mistake in named):
            return named
        wrong = {each.case.setting: each.nearest for each in self.found[::-1] if each.wrong}
        doubtful = {each.case.setting for each in self.found if each.wrong or each.unsure}
        first = {each.case.setting: each.nearest for each in self.found[::-1]}
        right = {setting: each for setting, each in first.items() if setting not in doubtful}
        with limit_effort(SECONDS) as effort:
            operation = find_wrong_operation(self.every, [*wrong.values()], [*right.values()])
        self.is_cut_short = effort.ended and not operation
        if operation or self.lazy:
            return operation or named
        return tuple(filter(None, map(find_kept_argument, self.asked)))[:1] or named
