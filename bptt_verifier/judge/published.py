"""Published derivations, judged: the entries of the docket, and the size of their errors."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.docket import entry as entries
from bptt_verifier.docket.entry import Entry
from bptt_verifier.judge.files import count_positional
from bptt_verifier.judge.verify import verify, verify_own_model
from bptt_verifier.judge.weights import WEIGHTS
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import OPTION_NAMES, Array, Sizes
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.source_file import load
from bptt_verifier.reference.autodiff import find_values
from bptt_verifier.reference.complex_step import STEP
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

SHARED = "absent", "entry", "forward_passes"  # modules that are no entries
FOLDER = Path(entries.__file__).parent
ORDINARY = Sizes(T=12, B=4, D=3, H=6, O=2)
# An error on ordinary data that is relatively smaller counts as none. Right claims of the docket
# are off by 4e-15 at most, and wrong ones by more than 1e-2.
ROUNDING = 1e-12
TEMPLATE = "; start from examples/docket_entry.py of the repository"
EXAMPLES, CASES = 20, 6  # of a cell and of an own model; the mistakes of the docket show in few


class DocketCase(NamedTuple):
    """An entry with the module that holds its code."""

    name: str
    entry: Entry
    module: Any


def list_entries() -> list[str]:
    """List the names of the entries, in order."""
    found = sorted(file.stem for file in FOLDER.glob("[a-z]*.py") if file.stem not in SHARED)
    return [name.replace("_", "-") for name in found]


def read_entry(name: str) -> DocketCase:
    """Read an entry by its name, or from a file. Raises ValueError where there is none."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ValueError(f"NAME: expected an entry or an existing file, found {name}")
        file = Path(name)
    elif name in list_entries():
        file = FOLDER / f"{name.replace('-', '_')}.py"
    else:
        raise ValueError(
            f"NAME: expected an entry that `bptt docket` lists or a file, found {name!r}"
        )
    module = load(file)
    entry = getattr(module, "ENTRY", None)
    needed = ["gradients"] if getattr(entry, "model", "") else ["gradients", "params", "loss"]
    missing = [each for each in needed if not hasattr(module, each)]
    if getattr(entry, "exactly", "") and not has_definition(module):
        missing.append("held_loss or change")
    if not isinstance(entry, Entry) or missing:
        missing = missing if isinstance(entry, Entry) else ["ENTRY"]
        cell = "params" in missing and count_positional(getattr(module, "gradients", len)) > 1
        remedy = '; for a cell of this project, set model="rnn" in ENTRY' if cell else TEMPLATE
        raise ValueError(
            f"NAME: expected {name} to define {', '.join(missing)}, found none{remedy}"
        )
    if entry.deliberate and not entry.exactly:
        raise ValueError(f"NAME: expected {name} to say what its claim is exactly, found nothing")
    if entry.verdict is Verdict.DISAGREES and not (entry.corrected or entry.deliberate):
        raise ValueError(f"NAME: expected {name} to correct its wrong claim, found no formulas")
    return DocketCase(file.stem.replace("_", "-"), entry, module)


def has_definition(module: Any) -> bool:
    """True if a module has the loss, or the change of the gradient, that gives its claim."""
    return hasattr(module, "held_loss") or hasattr(module, "change")


def judge_entry(case: DocketCase) -> Report:
    """Judge the claim of an entry afresh."""
    entry, module = case.entry, case.module
    if not entry.model:
        return verify_own_model(
            module.gradients, module.loss, module.params, cases=CASES, subject=case.name
        )
    options: dict[str, Any] = {"activation": entry.activation} if entry.model == "rnn" else {}
    options |= {"reset": entry.reset} if entry.model == "gru" else {}
    return verify(
        module.gradients, model=entry.model, bias=entry.bias, examples=EXAMPLES,
        subject=case.name, **options,
    )  # fmt: skip


def is_as_stated(entry: Entry, report: Report) -> bool:
    """True if the judge reaches the verdict that the entry states, and the name of the mistake."""
    names = {mistake.name for mistake in report.mistakes} - {"unknown"}
    return report.verdict is entry.verdict and names == set(entry.mistake)


class Evaluation(NamedTuple):
    """A claim on ordinary data: its arguments, what it gives, and how to find the gradient.

    A cell's data are a random problem of the sizes `ORDINARY`; an own model's are its parameters.
    """

    weights: dict[str, Array]
    data: tuple[Array, ...]
    claimed: Mapping[str, Array]
    find_gradient: Callable[[], Mapping[str, Array]]


def evaluate(case: DocketCase) -> Evaluation:
    """Evaluate a claim on ordinary data."""
    entry, module = case.entry, case.module
    if not entry.model:
        weights = {name: np.asarray(value) for name, value in module.params.items()}
        return Evaluation(
            weights, (), module.gradients(dict(weights)), lambda: differentiate_own(case)
        )
    options = {"activation": entry.activation, "reset": entry.reset}
    named = OPTION_NAMES.get(entry.model, "")
    problem = with_values(
        np.random.default_rng(0), ORDINARY, cell=entry.model, option=options.get(named),
        bias=entry.bias,
    )  # fmt: skip
    weights = WEIGHTS[len(problem.weights)](**problem.weights)
    returned = module.gradients(weights, problem.x, problem.y)
    if not isinstance(returned, Mapping):
        returned = dict(zip(problem.weights, returned, strict=True))
    return Evaluation(
        dict(problem.weights), (problem.x, problem.y), returned, lambda: find_values(problem).values
    )


def differentiate_own(case: DocketCase) -> Mapping[str, Array]:
    """Differentiate an own model's loss at its parameters.

    By complex steps, which take no time to compile; by autodiff where the loss is not analytic.
    """
    module = case.module
    params = {name: np.asarray(value) for name, value in module.params.items()}
    derivative: Any = attempt(differentiate_first, module.loss, params)
    if not isinstance(derivative, Failure):
        return dict(derivative)
    model = prepare(module.loss, module.params, cases=1)
    (found,) = (each for each in model.cases if each.point.number == 0)
    assert found.truth is not None
    return found.truth(np.float64, tuple(found.arguments)).values


def measure_errors(case: DocketCase) -> dict[str, float]:
    """Measure the relative error ‖found − true‖ / ‖true‖ of each gradient on ordinary data."""
    found = evaluate(case)
    return compare_sizes(found.claimed, found.find_gradient(), tuple(found.weights))


def measure_defined_errors(case: DocketCase) -> dict[str, float]:
    """Measure the relative error of a claim against what its entry says that it is `exactly`.

    That is the derivative of the module's `held_loss`, or its `change` of the gradient; without
    either the result is empty.
    """
    module = case.module
    if not case.entry.exactly:
        return {}
    found = evaluate(case)
    if hasattr(module, "change"):
        defined = module.change(found.find_gradient())
    else:
        as_given = WEIGHTS[len(found.weights)] if case.entry.model else dict

        def held_loss(weights: Mapping[str, Array]) -> Any:
            given = as_given(**weights), as_given(**found.weights)
            return module.held_loss(*given, *found.data)

        defined = differentiate_first(held_loss, found.weights)
    return compare_sizes(found.claimed, defined, tuple(found.weights))


def differentiate_first(
    loss: Callable[[Mapping[str, Array]], Any], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """Differentiate a loss by complex steps, entry by entry; what it holds constant stays so.

    Raises ValueError where the loss is not analytic, as with an absolute value.
    """
    derivative = take_complex_steps(loss, weights)
    require_analytic(loss, weights, derivative)
    return derivative


def take_complex_steps(
    loss: Callable[[Mapping[str, Array]], Any], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """Take Im ℓ(θ + is)/s for each entry of θ: the derivative of an analytic loss."""
    derivative = {name: np.empty(value.shape) for name, value in weights.items()}
    for name, value in weights.items():
        for entry in np.ndindex(value.shape):
            moved = value.astype(np.complex128)
            moved[entry] += 1j * STEP
            derivative[name][entry] = loss({**weights, name: moved}).imag / STEP  # (K2)
    return derivative


def require_analytic(
    loss: Callable[[Mapping[str, Array]], Any],
    weights: Mapping[str, Array],
    derivative: Mapping[str, Array],
) -> None:
    """Raise ValueError unless differences along a random direction confirm a derivative.

    The step is 2⁻¹⁷: where values are about 1, both its square and the rounding of the loss over
    the step are below 10⁻¹⁰, and an absolute value that loses its imaginary part is off by all.
    """
    rng, step = np.random.default_rng(0), 2.0**-17
    along = {name: rng.normal(size=value.shape) for name, value in weights.items()}
    ends = [
        float(loss({name: value + way * along[name] for name, value in weights.items()}))
        for way in (step, -step)
    ]
    parts = np.concatenate([np.ravel(derivative[name] * along[name]) for name in weights])
    size = np.abs(parts).sum() + abs(ends[0])
    if not abs((ends[0] - ends[1]) / (2 * step) - parts.sum()) <= 1e-6 * size:
        raise ValueError("expected a loss of analytic functions")


def compare_sizes(
    found: Mapping[str, Array], true: Mapping[str, Array], names: tuple[str, ...]
) -> dict[str, float]:
    """Compare gradients with the true ones, each relative to the norm of the true one."""
    errors = {}
    for name in names:
        size = float(np.linalg.norm(true[name]))
        off = float(np.linalg.norm(np.asarray(found[name]) - true[name]))
        errors[name] = off / size if size else off
    return errors
