"""The judge: is this derivation of the gradients right, and if not, where and why?

First the contract, then the loss, then totals over random problems, then single time steps; where
something disagrees, the smallest failing case, the first wrong step going backward, the mistake.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.gated import GATES, RESETS, verify_cell
from bptt_verifier.judge.steps import Steps, step_results, steps_of
from bptt_verifier.judge.submission import Answer, Broken, ask, call_with, states_taken
from bptt_verifier.mistakes.search import Case, diagnose
from bptt_verifier.problems.problem import (
    LARGEST,
    LOSSES,
    Problem,
    Sizes,
    as_variant,
    simple,
    with_values,
)
from bptt_verifier.reference.autodiff import Oracle, Truth, ahead, measured_truth, truth
from bptt_verifier.reference.exact_values import Case as Exact
from bptt_verifier.reference.exact_values import decided, told
from bptt_verifier.report.report import (
    Counterexample,
    Curve,
    DerivationError,
    Mistake,
    ParameterResult,
    Report,
    nine_digits,
)
from bptt_verifier.tolerance.comparison import Array, Comparison, Verdict, coarsest, compare
from manual_bptt import activations, losses, rnn
from manual_bptt.inputs import require_at_least

Progress = Callable[[int, int], None]

PROBE = Sizes(T=30, B=1, D=30, H=5, O=2)
SPREADS = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)  # of W times √H: vanishing to exploding
PROBES = 2  # of each spread and precision


class Model(NamedTuple):
    """The stated model: the forward pass and the loss that are claimed to be differentiated."""

    activation: str
    loss: str
    bias: bool
    initial_state: bool
    by_name: tuple[str, ...] = ()  # the states that a derivation takes as keywords

    def problem(
        self, rng: np.random.Generator, sizes: Sizes, dtype: Any, **scales: float
    ) -> Problem:
        """A random problem of this model."""
        return with_values(
            rng,
            sizes,
            dtype=dtype,
            activation=self.activation,
            loss=self.loss,
            bias=self.bias,
            initial_state=self.initial_state,
            **scales,
        )


class Judged(NamedTuple):
    """One problem, what they gave for it, and how that compares."""

    problem: Problem
    truth: Truth
    yours: dict[str, Array]
    comparisons: list[Comparison]
    dtype: Any = np.float64

    @property
    def disagrees(self) -> bool:
        """Whether any gradient is outside its bound."""
        return any(c.verdict is Verdict.DISAGREES for c in self.comparisons)


def precision_of(answer: Answer, problem: Problem) -> Any:
    """The coarsest dtype among what was asked and what was answered."""
    return coarsest(problem.x, *(v for n, v in answer.values.items() if n != "loss"))


def judged(
    gradients: Callable[..., Any], problem: Problem, oracle: Oracle = truth
) -> Judged | Broken:
    """Ask them, ask the reference, compare."""
    answer = ask(gradients, problem)
    if isinstance(answer, Broken):
        return answer
    dtype = precision_of(answer, problem)
    known = oracle(problem, dtype, answer.values)
    for name, value in answer.values.items():
        if not np.isfinite(value).all() and np.isfinite(known.allowed[name]).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(value))[0]] if value.ndim else []
            return Broken(
                Mistake(
                    "not-finite",
                    f"the gradient for {name} is {value[tuple(where)]} at {where}, where autodiff "
                    f"gives {known.values[name][tuple(where)]:.6g}.",
                    {"gradient": name, "entry": where},
                )
            )
    comparisons = [
        compare(name, value, known.values[name], known.allowed[name])
        for name, value in answer.values.items()
    ]
    return Judged(problem, known, answer.values, comparisons, dtype)


def random_problems(model: Model, seed: int, count: int) -> Iterator[Problem]:
    """Problems of all sizes within the capacity, in float64 and float32 by turns."""
    for case in range(count):
        rng = np.random.default_rng([seed, case])
        sizes = Sizes(*(int(rng.integers(1, most + 1)) for most in LARGEST))
        yield model.problem(
            rng,
            sizes,
            np.float64 if case % 2 == 0 else np.float32,
            spread=rng.uniform(0.5, 1.5),
            target_scale=float(rng.choice([1.0, 10.0, 100.0])),
        )


def probes(model: Model, seed: int) -> Iterator[Problem]:
    """Long single sequences of one-hot inputs: column t of ∂L/∂U is δ_t. (B4)"""
    kinds = product(SPREADS, range(PROBES), (np.float64, np.float32))
    for case, (spread, _, dtype) in enumerate(kinds):
        rng = np.random.default_rng([seed, case, 1])
        problem = model.problem(rng, PROBE, dtype, spread=spread)
        # Inputs of one: U is then what each step adds, and must not saturate the states.
        params = problem.params._replace(U=rng.normal(size=(PROBE.H, PROBE.D)).astype(dtype))
        yield problem._replace(params=params, x=np.eye(PROBE.T, dtype=dtype)[:, None, :])


def state_probes(model: Model, seed: int) -> Iterator[Problem]:
    """Sequences along which each state is one hidden unit alone: ∂L/∂W then separates the steps.

    Column j of Σ_t δ_t h_{t-1}ᵀ is the δ_t of the one step before which unit j was on, so that a
    step is seen however small it is. Weights are small, so that early steps vanish; U is chosen
    to cancel what W would carry on. A sigmoid is never zero: its states overlap. A relu's units
    are off at −1, away from its kink.
    """
    H = LARGEST.H
    sizes = Sizes(T=H, B=1, D=H, H=H, O=2)
    for case, (spread, dtype) in enumerate(product((0.01, 0.3), (np.float64, np.float32))):
        rng = np.random.default_rng([seed, case, 4])
        problem = model.problem(rng, sizes, dtype, spread=spread)
        _, W, _, b, _ = problem.params
        unit = np.eye(H, dtype=dtype)
        state = unit[0] / 2 if model.initial_state else np.zeros(H, dtype)
        h0 = state[None] if model.initial_state else None
        U = np.empty((H, H), dtype)
        phi = activations.find(model.activation)
        for t in range(1, H + 1):
            wanted = unit[t % H] - (1 - unit[t % H] if model.activation == "relu" else 0)
            U[:, t - 1] = wanted - W @ state - (0 if b is None else b)
            state = phi.function(wanted)
        params = problem.params._replace(U=U)
        yield problem._replace(params=params, x=unit[:, None, :], h0=h0)


def adjoints_of(probe: Judged) -> Steps:
    """The columns of their ∂L/∂U against the adjoints."""
    known = probe.truth
    return steps_of(
        probe.yours["U"], known.values["adjoints"][:, 0], known.allowed["adjoints"][:, 0]
    )


def parameter_results(cases: list[Judged]) -> dict[str, ParameterResult]:
    """The worst of each gradient over all cases."""
    names = [name for case in cases[:1] for name in case.yours]
    results = {}
    for name in names:
        found = [c for case in cases for c in case.comparisons if c.name == name]
        worst = max(found, key=lambda c: c.error)
        if worst.verdict is Verdict.DISAGREES:
            verdict = Verdict.DISAGREES
        else:
            told = any(c.conclusive for c in found)
            verdict = Verdict.AGREES if told else Verdict.INCONCLUSIVE
        results[name] = ParameterResult(
            verdict, worst.error, worst.entry, worst.yours, worst.reference, worst.allowed,
            len(found),
        )  # fmt: skip
    return results


def smallest_failing(
    gradients: Callable[..., Any], model: Model, failing: Judged, seed: int
) -> Judged:
    """The smallest case found that fails, its numbers with one digit where that will do."""

    def attempt(sizes: Sizes) -> Judged | None:
        for number in range(8):
            rng = np.random.default_rng([seed, number, 2])
            problem = model.problem(rng, sizes, failing.problem.x.dtype)
            for candidate in (simple(problem), problem):
                found = judged(gradients, candidate)
                if isinstance(found, Judged) and found.disagrees:
                    return found
        return None

    # What no small problem shows is not looked for in every one of them.
    largest = Sizes(4, 2, 2, 2, 2)
    if attempt(largest) is not None:
        small = (range(1, most + 1) for most in largest)
        for sizes in sorted((Sizes(*each) for each in product(*small)), key=lambda s: (sum(s), s)):
            found = attempt(sizes)
            if found is not None:
                return found
    best = failing
    if all(size <= most for size, most in zip(failing.problem.sizes, LARGEST, strict=True)):
        shrinking = True
        while shrinking:
            shrinking = False
            for letter, size in best.problem.sizes._asdict().items():
                found = (
                    attempt(best.problem.sizes._replace(**{letter: size - 1})) if size > 1 else None
                )
                if found is not None:
                    best, shrinking = found, True
                    break
    return best


def counterexample(case: Judged, by_name: tuple[str, ...]) -> Counterexample:
    """The case as a report shows it."""
    worst = max(case.comparisons, key=lambda c: c.error)
    yours, known = case.yours[worst.name], case.truth.values[worst.name]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.abs(yours.astype(np.float64) - known) / case.truth.allowed[worst.name]
    params, x, y, h0, activation, loss = case.problem
    arrays = {name: value for name, value in params._asdict().items() if value is not None}
    arrays |= {"x": x, "y": y} | ({} if h0 is None else {"h0": h0})
    return Counterexample(
        sizes=f"{case.problem.sizes}, {activation}, {loss}, {x.dtype}",
        arrays={name: value.tolist() for name, value in arrays.items()},
        gradient=worst.name,
        yours=nine_digits(yours).tolist(),
        autodiff=nine_digits(known).tolist(),
        error_over_bound=np.where(np.isnan(error), 0.0, error).tolist(),
        reproduce=call_with(arrays, by_name),
    )


def stated_otherwise(problem: Problem, value: float) -> str:
    """Which other model's loss theirs is, if one of the known ones."""
    for activation, loss in product(activations.ACTIVATIONS, LOSSES):
        prediction = rnn.predict(problem.params, problem.x, problem.h0, activation=activation)
        other = float(losses.LOSSES[loss].value(prediction, problem.y))
        if abs(other - value) <= 1e-6 * abs(other):
            return f" It is that of activation {activation} with loss {loss}."
    return ""


def forward_differs(case: Judged, comparison: Comparison) -> Mistake:
    """Their loss or prediction is not the stated model's: the gradient is not the question."""
    activation, loss = case.problem.activation, case.problem.loss
    told = stated_otherwise(case.problem, comparison.yours) if comparison.name == "loss" else ""
    return Mistake(
        "forward-differs",
        f"your forward pass differs: your {comparison.name} is {comparison.yours:.9g}, and that of "
        f"the stated model ({activation}, {loss}) is {comparison.reference:.9g}.{told}",
        {"yours": comparison.yours, "stated": comparison.reference},
    )


def verify(
    gradients: Callable[..., Any],
    *,
    model: str = "rnn",
    activation: str = "tanh",
    reset: str = "after",
    loss: str = "mse",
    bias: bool = False,
    examples: int = 200,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    subject: str | None = None,
) -> Report:
    """The verdict on `gradients(params, x, y)`, or `gradients(params, x, y, h0)`.

    `params` has the fields U (H, D), W (H, H), V (O, H) and, with `bias`, b (H,) and c (O,); x is
    (T, B, D), y is (B, O). It returns the gradients by name (a mapping or NamedTuple) or in order
    (U, W, V[, b, c]), or a pair of the loss and these; a mapping may also hold "loss",
    "prediction", "x", "h0" and "adjoints".
    `model` "lstm" or "gru" is that of docs/derivation.md, sections 12 and 13, with the gates packed
    as there: U (G H, D), W (G H, H), b (G H,); the LSTM has a fifth argument c0, the GRU b_n (H,)
    and `reset`. `activation` and `examples` are the RNN's.
    Raises TypeError or ValueError where an argument of
    `verify` is not what it says; whatever `gradients` does ends in the report.
    """
    if not callable(gradients):
        raise TypeError(f"gradients: expected a function, found {type(gradients).__name__}")
    bias = bool(bias)
    activations.find(activation)
    if loss not in LOSSES:  # the others have no derived bound
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, found {loss!r}")
    require_at_least(1, "examples", examples)
    require_at_least(0, "seed", seed)
    for option, value, choices in (
        ("model", model, ("rnn", *GATES)),
        ("reset", reset, RESETS),
        ("activation", activation, ("tanh",) if model in tuple(GATES) else (activation,)),
    ):
        if value not in choices:
            raise ValueError(f"{option}: expected one of {', '.join(choices)}, found {value!r}")
    name = str(subject or getattr(gradients, "__name__", "your derivation"))
    if model != "rnn":
        return verify_cell(
            gradients, model,
            loss=loss, bias=bias, reset=reset, seed=seed, progress=progress, subject=name,
        )  # fmt: skip
    states = states_taken(gradients)
    gradients = states.in_order_for(gradients)
    stated = Model(activation, loss, bias, bool(states.all), states.by_name)
    total = examples + len(SPREADS) * PROBES * 2
    cases: list[Judged] = []

    def refused(how: Broken) -> Report:
        return Report(name, Verdict.DISAGREES, (how.mistake,), cases=len(cases), notes=how.notes)

    for number, problem in enumerate(ahead(random_problems(stated, seed, examples))):
        if number < 4:
            twice = ask(gradients, problem, again=True)
            if isinstance(twice, Broken):
                return refused(twice)
        case = judged(gradients, problem)
        if isinstance(case, Broken):
            return refused(case)
        for comparison in case.comparisons:
            if comparison.name in ("loss", "prediction") and comparison.error > 1:
                mistake = forward_differs(case, comparison)
                return Report(name, Verdict.DISAGREES, (mistake,), cases=number + 1)
        cases.append(case)
        progress(number + 1, total)

    for problem in state_probes(stated, seed):
        case = judged(gradients, problem)
        if isinstance(case, Broken):
            return refused(case)
        cases.append(case)

    probed: list[Judged] = []
    for number, problem in enumerate(probes(stated, seed)):
        case = judged(gradients, problem, measured_truth)
        if isinstance(case, Broken):
            return refused(case)
        probed.append(case)
        progress(examples + number + 1, total)
    return conclude(gradients, stated, name, seed, cases, probed)


def conclude(
    gradients: Callable[..., Any],
    model: Model,
    name: str,
    seed: int,
    cases: list[Judged],
    probed: list[Judged],
) -> Report:
    """The report on all cases, with a diagnosis where something disagrees."""
    parameters = parameter_results(cases + probed)
    all_steps = [adjoints_of(probe) for probe in probed]
    steps = step_results(all_steps)
    wrong_steps = [step.t for step in steps if step.verdict is Verdict.DISAGREES]
    curves = tuple(
        Curve(
            f"{probe.problem.x.dtype}",
            tuple(map(float, each.relative)),
            tuple(map(float, each.allowed)),
        )
        for probe, each in zip(probed, all_steps, strict=True)
    )
    report = Report(
        name,
        Verdict.AGREES,
        first_wrong_step=max(wrong_steps, default=None),
        parameters=parameters,
        steps=steps,
        curves=curves,
        cases=len(cases) + len(probed),
    )
    verdicts = {result.verdict for result in parameters.values()}
    if Verdict.DISAGREES in verdicts or wrong_steps:
        return explained(report, gradients, model, seed, cases, probed)
    if verdicts != {Verdict.AGREES}:
        note = f"{told(report)}; try more --examples."
        exact = [Exact(as_variant(case.problem), case.yours, case.dtype) for case in cases]
        return decided(
            report._replace(verdict=Verdict.INCONCLUSIVE, notes=(note,)),
            sorted(exact, key=lambda case: case.size),
        )
    if all(step.verdict is Verdict.INCONCLUSIVE for step in steps):
        return report._replace(notes=("No single step could be told apart on these probes.",))
    return report


def explained(
    report: Report,
    gradients: Callable[..., Any],
    model: Model,
    seed: int,
    cases: list[Judged],
    probed: list[Judged],
) -> Report:
    """The report with the smallest failing case and the mistake."""
    failing = [case for case in cases if case.disagrees]
    wide = [case for case in failing if case.problem.x.dtype == np.float64] or failing
    long = [
        probe
        for probe, steps in ((p, adjoints_of(p)) for p in probed)
        if probe.disagrees or (steps.error > 1).any()
    ]
    long.sort(key=lambda probe: probe.problem.x.dtype == np.float32)
    worst = wide[0] if wide else long[0]
    smallest = smallest_failing(gradients, model, worst, seed)
    fresh = [
        each
        for sizes in FRESH
        if isinstance(each := fresh_case(gradients, model, sizes, seed), Judged)
    ]
    chosen = [*wide[:2], *long[:2], *fresh]
    known = [Case(case.problem, case.truth, without_loss(case)) for case in chosen]
    mistakes = diagnose(known) or (
        Mistake(
            "unknown",
            "the numbers are wrong, and no single known mistake, nor two together, give them.",
            {},
        ),
    )
    return report._replace(
        verdict=Verdict.DISAGREES,
        mistakes=mistakes,
        counterexample=counterexample(smallest, model.by_name),
    )


# Sizes that differ from one another, a batch of one, O = H, and D = H.
FRESH = (
    Sizes(7, 3, 4, 5, 2),
    Sizes(5, 2, 6, 4, 3),
    Sizes(9, 4, 2, 3, 3),
    Sizes(4, 1, 5, 5, 4),
    Sizes(12, 2, 3, 6, 1),
)


def fresh_case(
    gradients: Callable[..., Any], model: Model, sizes: Sizes, seed: int
) -> Judged | Broken:
    """A case that the verdict has not seen."""
    rng = np.random.default_rng([seed, 3, *sizes])
    return judged(gradients, model.problem(rng, sizes, np.float64, target_scale=10.0))


def without_loss(case: Judged) -> dict[str, Array]:
    """Their gradients alone."""
    return {n: v for n, v in case.yours.items() if n not in ("loss", "prediction")}


def assert_verified(gradients: Callable[..., Any], **options: Any) -> Report:
    """The report of `verify` with the same arguments, where it agrees.

    Raises DerivationError, with the report as its message, where it does not.
    """
    report = verify(gradients, **options)
    if report.verdict is not Verdict.AGREES:
        raise DerivationError(report)
    return report
