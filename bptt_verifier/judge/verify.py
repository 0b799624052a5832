"""Entry points: verify a derivation of the gradients of a cell, or of a model of your own."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any, Unpack

from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.judge.conclusion import Progress
from bptt_verifier.judge.first_states import find_states
from bptt_verifier.judge.options import DerivationOptions, OwnModelOptions
from bptt_verifier.judge.path import judge
from bptt_verifier.problems.extremes import complete_sizes
from bptt_verifier.problems.problem import ACTIVATIONS, CELLS, LOSSES, STATES
from bptt_verifier.program.attempt import attempt, printable, use_own_settings
from bptt_verifier.reference.case import CASES, Loss
from bptt_verifier.report import DerivationError, Report
from bptt_verifier.report.versions import find_versions
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt.gru import RESETS
from manual_bptt.inputs import require_at_least


def verify(
    gradients: Callable[..., Any],
    *,
    model: str = "rnn",
    activation: str = "tanh",
    reset: str = "after",
    loss: str = "mse",
    bias: bool = False,
    sizes: Iterable[Mapping[str, int]] = (),
    examples: int = 200,
    seed: int = 0,
    workers: int = 1,
    timeout: float | None = None,
    progress: Progress = lambda done, total: None,
    subject: str | None = None,
) -> Report:
    """Verify `gradients(params, x, y)`, or `gradients(params, x, y, h0)`.

    `params` has the fields U (H, D), W (H, H), V (O, H) and, with `bias`, b (H,) and c (O,); x is
    (T, B, D), y is (B, O). It returns the gradients by name (a mapping or NamedTuple) or in order
    (U, W, V[, b, c]), or a pair of the loss and these; a mapping may also hold "loss",
    "prediction", "x", "h0" and "adjoints".
    `model` "lstm" or "gru" is that of docs/derivation.md, sections 12 and 13, with the gates packed
    as there: U (G H, D), W (G H, H), b (G H,); the LSTM has a fifth argument c0, the GRU b_n (H,)
    and `reset`. `activation` is the RNN's. `examples` random problems are drawn from `seed`. Each
    of `sizes`, such as {"T": 500, "B": 64}, adds problems of these sizes, the others small.
    With `workers` above 1, so many processes compute the references of the random problems, while
    this one calls `gradients` in order; the report is the same for any number.
    The search for the name of a mistake ends after `timeout` seconds with what it has.
    Whatever `gradients` raises, returns or modifies is in the report. Raises TypeError or
    ValueError where another argument does not fit this description.
    """
    require_function(gradients)
    require_time(timeout)
    for option, value, choices in (
        ("model", model, tuple(CELLS)),
        ("loss", loss, LOSSES),  # the others have no derived bound
        ("reset", reset, RESETS),
        ("activation", activation, ACTIVATIONS if model == "rnn" else ("tanh",)),
    ):
        if value not in choices:
            raise ValueError(f"{option}: expected one of {', '.join(choices)}, found {value!r}")
    require_at_least(1, "examples", examples)
    require_at_least(0, "seed", seed)
    require_at_least(1, "workers", workers)
    asked_sizes = tuple(sizes)
    asked = tuple(map(complete_sizes, asked_sizes))
    option = {"rnn": activation, "gru": reset}.get(model, "")
    states = find_states(gradients, STATES[model])
    cell = CellSubject(model, option, loss, bool(bias), states, examples, seed, asked, workers)
    options = {
        "model": model, "activation": activation, "reset": reset, "loss": loss, "bias": bool(bias),
        "sizes": [dict(each) for each in asked_sizes], "examples": examples,
    }  # fmt: skip
    cell.load_programs()
    with use_own_settings():
        report = judge(gradients, cell, subject or find_name(gradients), progress, timeout)
    return add_origin(report, verify, [find_name(gradients)], options, seed)


def verify_own_model(
    gradients: Callable[[Any], Any],
    loss: Loss,
    params: Any,
    *,
    cases: int = CASES,
    seed: int = 0,
    timeout: float | None = None,
    progress: Progress = lambda done, total: None,
    subject: str | None = None,
) -> Report:
    """Verify `gradients(params)` against jax.grad of `loss(params)` or `loss(params, xp)`.

    `params` are float arrays by name, in any layout; `loss` computes a scalar, in plain NumPy or
    with the namespace it is given, numpy or jax.numpy; `gradients` returns arrays of the same names
    and shapes, and may add "loss". The parameters given are the first of `cases`; the others are
    drawn from `seed`. `params` may be a list of settings of other shapes, which share the cases.
    The parameters may also be nested in lists, dicts, NamedTuples and dataclasses; the report names
    a leaf as in `layers[0].Wx`, and integers among them are data. Then `gradients` returns the same
    structure, a dict by these names, or a list in their order. One array alone has the name params.
    The search for the name of a mistake ends after `timeout` seconds with what it has.
    Whatever the functions raise, return or modify is in the report. Raises TypeError or ValueError
    where `gradients` is no function, `params` holds no float arrays, `cases` is no integer from 1,
    or `seed` none from 0.
    """
    # A derivation of a cell needs none of these, which take long to import.
    from bptt_verifier.judge.own_model import OwnSubject  # noqa: PLC0415
    from bptt_verifier.program.lone_arrays import name_lone_array  # noqa: PLC0415
    from bptt_verifier.reference.own_loss import prepare  # noqa: PLC0415

    require_function(gradients)
    require_time(timeout)
    given = name_lone_array(gradients, loss, params)
    with use_own_settings():
        model = prepare(*given[1:], seed=seed, cases=cases, progress=progress)
        own = OwnSubject(model, *given[:2])
        report = judge(given[0], own, subject or "your model", progress, timeout)
    arguments = [find_name(gradients), find_name(loss), "params"]
    return add_origin(report, verify_own_model, arguments, {"cases": cases}, seed)


def assert_verified(gradients: Callable[..., Any], **options: Unpack[DerivationOptions]) -> Report:
    """Return the report of `verify`. Raises DerivationError with the report unless it agrees."""
    __tracebackhide__ = True  # pytest then shows the line of the test
    return require_agreement(verify(gradients, **options))


def assert_own_model_verified(
    gradients: Callable[[Any], Any], loss: Loss, params: Any, **options: Unpack[OwnModelOptions]
) -> Report:
    """Return the report of `verify_own_model`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_own_model(gradients, loss, params, **options))


def add_origin(
    report: Report,
    function: Callable[..., Report],
    arguments: list[str],
    options: dict[str, Any],
    seed: int,
) -> Report:
    """Add the seed, the options, the versions and the call that gives the same report again."""
    usual = signature(function).parameters
    named = {
        name: value
        for name, value in options.items()
        if value != usual[name].default and (value or usual[name].default)
    }
    named |= {"seed": seed}
    # A lambda or an object is written as the argument that it is given for.
    places = zip(arguments, usual, strict=False)  # the function has further options
    arguments = [each if each.isidentifier() or "=" in each else place for each, place in places]
    written = ", ".join([*arguments, *(f"{name}={value!r}" for name, value in named.items())])
    call = f"{function.__name__}({written})"
    return report._replace(seed=seed, options=options, versions=find_versions(), command=call)


def require_function(value: Any, name: str = "gradients") -> None:
    """Raise TypeError unless an argument, by default the submission, can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, found {type(value).__name__}")


def require_time(timeout: Any) -> None:
    """Raise ValueError unless a limit is a number of seconds from 0, or None."""
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and timeout >= 0):
        raise ValueError(f"timeout: expected seconds from 0, or None, found {timeout!r}")


def find_name(gradients: Callable[..., Any], default: str = "your derivation") -> str:
    """Find the name of a function or of a kernel, which may have none or raise."""
    found = attempt(getattr, gradients, "__name__", None)
    found = found if isinstance(found, str) else attempt(getattr, gradients, "name", None)
    return printable(found) if isinstance(found, str) else default


def require_agreement(report: Report) -> Report:
    """Return the report. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    if report.verdict is not Verdict.AGREES:
        raise DerivationError(report)
    return report
