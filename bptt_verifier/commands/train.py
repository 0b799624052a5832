"""`bptt train`: learn the worked example's three colours by gradient descent, and show them.

The numbers come from one of the two witnesses; here they are kept, shown and drawn.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bptt_verifier.commands import colours
from bptt_verifier.commands.checkpoint import Checkpoint, load, save
from bptt_verifier.commands.colours import PHRASES, Encoding, InitialState
from jax_reference import training as autodiff
from manual_bptt import training as manual
from manual_bptt.training import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]

SAVE_EVERY = 2.0  # seconds between two checkpoints
INTERRUPTED = 130  # the exit code of a process that Ctrl-C ended


class Model(StrEnum):
    """The cells that both witnesses know."""

    RNN = "rnn"
    LSTM = "lstm"
    GRU = "gru"


class Gradients(StrEnum):
    """Which witness trains: derived by hand, or by JAX."""

    MANUAL = "manual"
    AUTODIFF = "autodiff"


WITNESSES: dict[Gradients, ModuleType] = {
    Gradients.MANUAL: manual,
    Gradients.AUTODIFF: autodiff,
}


class Activation(StrEnum):
    """The activations that both witnesses know."""

    TANH = "tanh"
    SIGMOID = "sigmoid"
    RELU = "relu"
    IDENTITY = "identity"


class Dtype(StrEnum):
    """The precision of everything."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


LARGEST = 4096  # H; the weights of the largest model are then half a gigabyte


def train(
    model: Annotated[
        Model, typer.Option(help="The cell: the plain one, or one with gates.")
    ] = Model.RNN,
    encoding: Annotated[
        Encoding, typer.Option(help="Tokens as one number (D = 1), or one-hot (D = 4).")
    ] = Encoding.INTEGER,
    initial_state: Annotated[
        InitialState, typer.Option(help="h_0 = 0, or one fixed random vector.")
    ] = InitialState.RANDOM,
    hidden_size: Annotated[
        int, typer.Option(min=1, help=f"H, the size of the state, at most {LARGEST}.")
    ] = 16,
    learning_rate: Annotated[
        float, typer.Option(help="η in θ ← θ − η ∂L/∂θ; the larger H, the smaller.")
    ] = 0.2,
    steps: Annotated[
        int, typer.Option(min=0, help="The most updates, resumed ones included.")
    ] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Draws the weights and the random h_0.")] = 0,
    gradients: Annotated[
        Gradients, typer.Option(help="Derived by hand (NumPy), or by autodiff (JAX).")
    ] = Gradients.MANUAL,
    activation: Annotated[
        Activation | None, typer.Option(help="φ in h_t = φ(a_t) of the RNN, tanh unless given.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="The precision of everything.")] = Dtype.FLOAT64,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the loss and the colours into this file.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state of the run in this file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the file given as --checkpoint.")
    ] = False,
) -> None:
    """Train a recurrent network on three phrases and their colours; show predicted and true RGB.

    Exit code: 0 if all nine bytes are exact, 1 if not, 130 after Ctrl-C.
    """
    screen, notes = console(), console(stderr=True)
    if model is Model.RNN:
        activation = activation or Activation.TANH
    elif activation is not None:
        raise ValueError(f"--activation: expected none with --model {model}, found {activation}")
    if hidden_size > LARGEST:
        raise ValueError(f"--hidden-size: expected at most {LARGEST}, found {hidden_size}")
    phi = None if activation is None else str(activation)
    settings = {
        "model": str(model),
        "encoding": str(encoding), "initial-state": str(initial_state), "hidden-size": hidden_size,
        "learning-rate": learning_rate, "seed": seed, "gradients": str(gradients),
        "activation": phi, "dtype": str(dtype),
    }  # fmt: skip
    saved = earlier(checkpoint, settings, resume=resume)
    figure = None if plot is None else empty_figure(plot)

    rng = np.random.default_rng(seed)
    x, y = colours.inputs(encoding, dtype), colours.targets(dtype)
    cell, own = manual.CELLS[model], manual.options_of(str(model), None, phi)
    params = cell.init(rng, x.shape[2], hidden_size, y.shape[1], dtype=np.dtype(dtype))
    h0 = colours.initial_state(initial_state, rng, hidden_size, dtype)
    if saved is not None:
        params, h0 = saved.params, saved.h0
    goal = colours.target_loss(y.size)
    training = WITNESSES[gradients]
    training.rate_and_goal(learning_rate, steps, goal, x.dtype)  # refused before anything is said
    stuck = colours.recurrent_gradient_stays_zero(params, x, y, h0, model=model, activation=phi)
    say(
        screen,
        f"{encoding} tokens (D = {x.shape[2]}), {initial_state} h_0, H = {hidden_size}, "
        f"{phi or model.upper()}, {dtype}, {gradients} gradients, learning rate {learning_rate}",
    )
    if stuck:
        why, left = (text.format(phi=phi) for text in WHY_ZERO[model])
        say(screen, WHY_NOT.format(why=why, left=left))

    descend = partial(
        training.descend,
        x=x, y=y, h0=h0, model=str(model), learning_rate=learning_rate, target=goal,
        activation=phi,
    )  # fmt: skip
    kept = "" if checkpoint is None else f"; the checkpoint is at {checkpoint}"
    start: Run | None = None
    with suppress(KeyboardInterrupt):  # as JAX compiles
        start = descend(params, steps=0)
    if start is None:
        step, kept = (0, "") if saved is None else (len(saved.losses) - 1, kept)
        say(notes, f"interrupted after step {step}{kept}")
        raise typer.Exit(INTERRUPTED)
    if saved is not None:
        start = joined(Run(saved.params, saved.losses, "limit"), start)

    def keep(run: Run) -> None:
        if checkpoint is not None:
            save(checkpoint, Checkpoint(run.params, run.losses, h0, settings))

    with progress_bar(notes, steps) as progress:
        run = trained(training, descend, start, steps=steps, keep=keep, progress=progress)

    predicted = colours.in_bytes(cell.predict(run.params, x, h0, **own))
    screen.width = max(screen.width, 80)  # a narrower terminal wraps; nothing is cut off
    screen.print(colour_table(predicted, swatches=screen.color_system is not None))
    if figure is not None and plot is not None:
        draw(figure, run.losses, goal, predicted)
        figure.savefig(plot)

    step = len(run.losses) - 1
    exact = bool((predicted == [phrase.rgb for phrase in PHRASES]).all())
    if run.stopped == "interrupted":
        say(notes, f"interrupted after step {step}{kept}")
        raise typer.Exit(INTERRUPTED)
    if run.stopped == "diverged":
        say(
            notes,
            f"diverged: the loss is no longer finite at step {step + 1} with learning rate "
            f"{learning_rate}; the colours are those of step {step}, the last finite ones{kept}",
        )
    elif exact:
        say(screen, f"learned in {step} steps: all nine bytes are exact, loss {run.losses[-1]:.3g}")
    else:
        say(screen, f"not learned in {step} steps: loss {run.losses[-1]:.3g}, target {goal:.3g}")
    if stuck and np.array_equal(run.params.W, params.W):
        say(screen, "∂L/∂W was exactly zero at every step: W is still what it was at the start")
    raise typer.Exit(0 if exact else 1)


WHY_NOT = """\
W cannot learn: ∂L/∂W is exactly zero and stays so, whatever the weights are:
    x_1 = 0 and h_0 = 0,  so  a_1 = U x_1 + W h_0 = 0,  so  {why} = 0.
What is left to learn with is ŷ = V {left}, and it does not come to nine exact bytes in any
reasonable time. --initial-state random or --encoding one-hot makes h_1 ≠ 0: the zero is gone.
docs/derivation.md, section 7, has the details."""

WHY_ZERO = {  # how h_1 and ∂L/∂W are zero, and h_2, which is left
    Model.RNN: (
        "h_1 = {phi}(0) = 0,\n    and  ∂L/∂W = δ_1 h_0ᵀ + δ_2 h_1ᵀ",
        "{phi}(U x_2)",
    ),
    Model.LSTM: (
        "g_1 = tanh(0) = 0,\n    so  c_1 = f_1 ⊙ c_0 + i_1 ⊙ g_1 = 0,  "
        "so  h_1 = o_1 ⊙ tanh(c_1) = 0,\n    and  ∂L/∂W = δ_1 h_0ᵀ + δ_2 h_1ᵀ",
        "h_2(U x_2)",
    ),
    Model.GRU: (
        "n_1 = tanh(0) = 0,\n    so  h_1 = (1 − z_1) ⊙ n_1 + z_1 ⊙ h_0 = 0,\n"
        "    and  every term of ∂L/∂W has h_0 or h_1 as a factor: ∂L/∂W",
        "h_2(U x_2)",
    ),
}


def earlier(path: Path | None, settings: dict[str, Any], *, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if any.

    Raises ValueError or OSError where one is asked for and there is none, where one is there that a
    new run would overwrite, and where its settings are not these.
    """
    if path is None:
        if resume:
            raise ValueError("--resume: expected --checkpoint PATH with it, found none")
        return None
    require_place("--checkpoint", path)
    if not resume:
        if path.exists():
            raise FileExistsError(
                f"--checkpoint: expected a new file, or --resume to go on from it, found {path}"
            )
        return None
    if not path.exists():
        raise FileNotFoundError(f"--resume: expected a checkpoint, found no file {path}")
    saved = load(path)
    then = {"model": "rnn"} | saved.settings
    for name, value in settings.items():
        if then.get(name) != value:
            raise ValueError(f"--{name}: expected {then.get(name)} as in {path}, found {value}")
    return saved


def require_place(option: str, path: Path, *, overwrite: bool = False) -> None:
    """Raises ValueError unless a file can be created there; with `overwrite`, or an old one opened.

    It tries, because what the modes allow is not what the system does.
    """
    place = Path(os.path.realpath(path))
    try:
        if place.is_dir():
            raise ValueError(f"{option}: expected a file, found the folder {path}")
        if not place.parent.is_dir():
            raise ValueError(f"{option}: expected a file in an existing folder, found {path}")
        with suppress(FileNotFoundError):
            place.stat()  # fails where the name is too long, and where links lead round in a circle
        if overwrite and place.exists():
            with place.open("ab"):
                pass
        else:
            with TemporaryFile(dir=place.parent):
                pass
    except OSError as error:
        raise ValueError(
            f"{option}: expected a place to write to, found {path}: {error.strerror}"
        ) from None


def joined(run: Run, more: Run) -> Run:
    """The run that went on; the loss that it went on from is in both."""
    return Run(more.params, np.concatenate([run.losses, more.losses[1:]]), more.stopped)


def trained(
    training: ModuleType,
    descend: Callable[..., Run],
    run: Run,
    *,
    steps: int,
    keep: Callable[[Run], None],
    progress: Callable[[int, float], None],
) -> Run:
    """`run`, continued to `steps` updates in all, and kept as it starts, goes and ends.

    It goes in legs, which together make the steps that one call would make, bit for bit.
    `stopped` says how it ended; nothing that ends it is raised.
    """
    leg, last_kept = 10, time.monotonic()
    try:
        keep(run)
        while run.stopped == "limit" and (done := len(run.losses) - 1) < steps:
            began = time.monotonic()
            try:
                more = descend(
                    run.params,
                    steps=min(leg, steps - done),
                    progress=lambda leg_steps, loss, done=done: progress(done + leg_steps, loss),
                )
            except (training.Diverged, training.Interrupted) as ended:
                more = ended.run
            run = joined(run, more)
            if time.monotonic() - began < SAVE_EVERY / 2:
                leg *= 2
            if time.monotonic() - last_kept > SAVE_EVERY:
                keep(run)
                last_kept = time.monotonic()
    except KeyboardInterrupt:  # between two legs
        run = run._replace(stopped="interrupted")
    keep(run)
    return run


def console(*, stderr: bool = False) -> Console:
    """A console that writes no escape codes at all where there is no colour."""
    found = Console(stderr=stderr, highlight=False, markup=False)
    if found.no_color or found.color_system is None:
        return Console(stderr=stderr, highlight=False, markup=False, color_system=None)
    return found


def say(where: Console, text: str) -> None:
    """Print the text as it is: what does not fit the terminal is left to the terminal."""
    where.print(text, soft_wrap=True)


@contextmanager
def progress_bar(where: Console, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Yields a function of steps done and loss; on a terminal it shows a bar after a second."""
    bar = Progress(
        TextColumn("loss {task.fields[loss]:.2e}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=where,
        transient=True,
    )
    task = bar.add_task("training", total=steps, loss=np.nan)
    shown = time.monotonic() + 1

    def show(done: int, loss: float) -> None:
        nonlocal shown
        now = time.monotonic()
        if where.file.isatty() and now > shown:
            bar.start()
            bar.update(task, completed=done, loss=loss)
            shown = now + 0.1

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def colour(rgb: Iterable[int], *, swatch: bool) -> Text:
    """The three bytes, behind a patch of that colour."""
    red, green, blue = rgb
    patch = (" " * 5, f"on rgb({red},{green},{blue})") if swatch else ""
    return Text.assemble(patch, " " * swatch, f"[{red:3d}, {green:3d}, {blue:3d}]")


def colour_table(predicted: Int[Array, "B O"], *, swatches: bool) -> Table:
    """Each phrase with its predicted and its true colour; `swatches` shows them as colours too."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("phrase", "tokens", "predicted", "true", ""):
        table.add_column(heading, no_wrap=True)
    for phrase, found in zip(PHRASES, predicted, strict=True):
        off = int((found != phrase.rgb).sum())
        table.add_row(
            phrase.text,
            str(list(phrase.tokens)),
            colour(found, swatch=swatches),
            colour(phrase.rgb, swatch=swatches),
            Text(f"{off} byte{'s' * (off > 1)} off", "red") if off else Text("exact", "green"),
        )
    return table


def empty_figure(path: Path) -> "Figure":
    """A figure that can be saved as `path`, so that a run is not lost to a name that will not do.

    Raises ValueError where nothing can be written there, matplotlib is missing, or it does not know
    the format.
    """
    require_place("--plot", path, overwrite=True)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise ValueError(
            "--plot: expected matplotlib, found none: pip install 'verified-bptt[plot]'"
        ) from None
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(
            f"--plot: expected a name ending in one of {', '.join(sorted(formats))}, found {path}"
        )
    return figure


def draw(
    figure: "Figure",
    losses: Float[Array, " updates+1"],
    goal: float,
    predicted: Int[Array, "B O"],
) -> None:
    """The loss after every step on the left, predicted and true colours on the right."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - as above

    curve, patches = figure.subplots(1, 2, width_ratios=[3, 2])
    highest = min(losses.max(), 1e6 * losses[0])  # where it diverged, the last steps leave the axes
    curve.set(ylim=(goal / 3, 3 * highest), yscale="log")
    curve.plot(losses, color="black", linewidth=1.2, marker="o" if len(losses) == 1 else "")
    curve.axhline(goal, color="tab:red", linestyle="--", linewidth=1)
    curve.annotate(
        f"below {goal:.2g} every byte is exact",
        (0, goal), xycoords=("axes fraction", "data"),
        xytext=(6, -4), textcoords="offset points", va="top", color="tab:red",
    )  # fmt: skip
    curve.set(xlabel="step", ylabel="mean squared error", xmargin=0)
    curve.spines[["top", "right"]].set_visible(False)

    patches.set(xlim=(-0.05, 2.05), ylim=(3, 0), xticks=[0.45, 1.55], yticks=[])
    patches.set_xticklabels(["predicted", "true"])
    patches.xaxis.tick_top()
    patches.tick_params(length=0)
    patches.spines[:].set_visible(False)
    for row, (phrase, found) in enumerate(zip(PHRASES, predicted.tolist(), strict=True)):
        patches.text(0, row + 0.16, f"{phrase.text}  {list(phrase.tokens)}", weight="bold")
        for left, rgb in ((0, found), (1.1, phrase.rgb)):
            patches.add_patch(Rectangle((left, row + 0.22), 0.9, 0.52, color=np.array(rgb) / 255))
            patches.text(left + 0.45, row + 0.8, str(list(rgb)), ha="center", va="top", size=9)
