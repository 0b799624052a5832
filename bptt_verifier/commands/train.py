"""`bptt train`: learn the worked example's three colours by gradient descent, and show them.

One of the two witnesses computes the numbers. The command saves, shows and draws them.
"""

from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from typer import Context, Exit, Option

from bptt_verifier.commands import colours
from bptt_verifier.commands.checkpoint import Checkpoint, load_to_resume, save
from bptt_verifier.commands.colour_chart import colour_table, draw
from bptt_verifier.commands.colours import PHRASES, Encoding, InitialState
from bptt_verifier.commands.descent import descend_in_legs, descent_bar, join
from bptt_verifier.commands.devices import make_mesh
from bptt_verifier.console.choices import Activation, Dtype, Model
from bptt_verifier.console.figures import empty_figure
from bptt_verifier.console.files import require_different
from bptt_verifier.console.interrupts import INTERRUPTED
from bptt_verifier.console.locks import holding
from bptt_verifier.console.terminal import print_paragraphs, print_uncut
from jax_reference import training as autodiff
from manual_bptt import training as manual
from manual_bptt.training import Run

LARGEST = 4096  # H; the weights of the largest model are then half a gigabyte


# The witness that trains: derived by hand, or by autodiff.
Gradients = StrEnum("Gradients", {"MANUAL": "manual", "AUTODIFF": "autodiff"})
WITNESSES: dict[Gradients, ModuleType] = {Gradients.MANUAL: manual, Gradients.AUTODIFF: autodiff}

ZERO_GRADIENT = """\
W cannot learn: ∂L/∂W is exactly zero and stays so, for all weights:
    x_1 = 0 and h_0 = 0,  so  a_1 = U x_1 + W h_0 = 0,  so  {why} = 0.
Only ŷ = V {left} is left to learn with, and it does not reach nine exact bytes in any
reasonable time. With --initial-state random or --encoding one-hot, h_1 is not zero.
docs/derivation.md, section 7, has the details."""

WHY_ZERO = {  # why h_1 and ∂L/∂W are zero, and the h_2 that is left
    Model.RNN: ("h_1 = {phi}(0) = 0,\n    and  ∂L/∂W = δ_1 h_0ᵀ + δ_2 h_1ᵀ", "{phi}(U x_2)"),
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


def train(
    context: Context,
    model: Annotated[Model, Option(help="The cell.")] = Model.RNN,
    encoding: Annotated[
        Encoding, Option(help="Tokens as one number (D = 1), or one-hot (D = 4).")
    ] = Encoding.INTEGER,
    initial_state: Annotated[
        InitialState, Option(help="h_0 = 0, or one fixed random vector.")
    ] = InitialState.RANDOM,
    hidden_size: Annotated[
        int, Option(min=1, help=f"H, the size of the state, at most {LARGEST}.")
    ] = 16,
    learning_rate: Annotated[
        float, Option(help="η in θ ← θ − η ∂L/∂θ; a larger H needs a smaller η.")
    ] = 0.2,
    steps: Annotated[
        int, Option(min=0, help="The most updates, including those before --resume.")
    ] = 5000,
    seed: Annotated[int, Option(min=0, help="Seed of the weights and the random h_0.")] = 0,
    gradients: Annotated[
        Gradients, Option(help="Derived by hand (NumPy), or by autodiff (JAX).")
    ] = Gradients.MANUAL,
    activation: Annotated[
        Activation | None,
        Option(
            metavar="NAME",
            help="φ in h_t = φ(a_t) of the RNN: tanh (default), sigmoid, relu or identity.",
        ),
    ] = None,
    dtype: Annotated[Dtype, Option(help="Precision of the whole computation.")] = Dtype.FLOAT64,
    devices: Annotated[
        int | None,
        Option(min=1, help="Number of JAX devices that share the batch, in compiled steps."),
    ] = None,
    plot: Annotated[
        Path | None, Option(help="Draw the loss and the colours into this file.")
    ] = None,
    checkpoint: Annotated[
        Path | None, Option(help="Save the state of the run to this file.")
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Continue from the file given as --checkpoint.")
    ] = False,
) -> None:
    """Train a recurrent network on three phrases and their colours; show predicted and true RGB.

    Exit code: 0 if all nine bytes are exact, 1 if not, 130 after Ctrl-C.
    """
    if model is Model.RNN:
        activation = activation or Activation.TANH
    elif activation is not None:
        raise ValueError(f"--activation: expected none with --model {model}, found {activation}")
    if hidden_size > LARGEST:
        raise ValueError(f"--hidden-size: expected at most {LARGEST}, found {hidden_size}")
    phi = None if activation is None else str(activation)
    settings = {
        "model": str(model), "encoding": str(encoding), "initial-state": str(initial_state),
        "hidden-size": hidden_size, "learning-rate": learning_rate, "seed": seed,
        "gradients": str(gradients), "activation": phi, "dtype": str(dtype), "devices": devices,
    }  # fmt: skip
    if devices is not None and gradients is not Gradients.MANUAL:
        raise ValueError(f"--devices: expected --gradients manual with it, found {gradients}")
    require_different({"--checkpoint": checkpoint, "--plot": plot})
    context.with_resource(holding("--checkpoint", checkpoint))
    saved = load_to_resume(checkpoint, settings, resume=resume)
    figure = None if plot is None else empty_figure(plot)

    rng, cell = np.random.default_rng(seed), manual.CELLS[model]
    x, y = colours.inputs(encoding, dtype), colours.targets(dtype)
    params = cell.init(rng, x.shape[2], hidden_size, y.shape[1], dtype=np.dtype(dtype))
    h0 = colours.initial_state(initial_state, rng, hidden_size, dtype)
    if saved is not None:
        params, h0 = saved.params, saved.h0
    goal, witness = colours.target_loss(y.size), WITNESSES[gradients]
    witness.rate_and_goal(learning_rate, steps, goal, x.dtype)  # raises before anything is printed
    point = params, x, y, h0
    descent = witness.descend if devices is None else descend_on(devices)
    W_is_stuck = colours.recurrent_gradient_stays_zero(*point, model=model, activation=phi)
    screen, notes = plain_console(), plain_console(stderr=True)
    say(
        screen,
        f"{encoding} tokens (D = {x.shape[2]}), {initial_state} h_0, H = {hidden_size}, "
        f"{phi or model.upper()}, {dtype}, {gradients} gradients, learning rate {learning_rate}"
        + ("" if devices is None else f", {devices} device{'s' * (devices > 1)}"),
    )
    if W_is_stuck:
        why, left = (text.format(phi=phi) for text in WHY_ZERO[model])
        say(screen, ZERO_GRADIENT.format(why=why, left=left))

    descend = partial(
        descent, x=x, y=y, h0=h0, model=str(model), activation=phi, learning_rate=learning_rate,
        target=goal,
    )  # fmt: skip
    place = "" if checkpoint is None else f"; the checkpoint is at {checkpoint}"
    start: Run | None = None
    with suppress(KeyboardInterrupt):  # while JAX compiles
        start = descend(params, steps=0)
    if start is None:
        step, place = (0, "") if saved is None else (len(saved.losses) - 1, place)
        say(notes, f"interrupted after step {step}{place}")
        raise Exit(INTERRUPTED)
    if saved is not None:
        start = join(Run(saved.params, saved.losses, "limit"), start)

    def save_run(run: Run) -> None:
        if checkpoint is not None:
            save(checkpoint, Checkpoint(run.params, run.losses, h0, settings))

    with descent_bar(notes, steps) as shown:
        run = descend_in_legs(witness, descend, start, steps=steps, save=save_run, progress=shown)

    options = manual.options_of(str(model), None, phi)
    predicted = colours.in_bytes(cell.predict(run.params, x, h0, **options))
    print_uncut(colour_table(predicted, swatches=screen.color_system is not None), screen)
    if figure is not None and plot is not None:
        draw(figure, run.losses, goal, predicted)
        figure.savefig(plot)

    step, loss = len(run.losses) - 1, run.losses[-1]
    exact = bool((predicted == [phrase.rgb for phrase in PHRASES]).all())
    if run.stopped == "interrupted":
        say(notes, f"interrupted after step {step}{place}")
        raise Exit(INTERRUPTED)
    if run.stopped == "diverged":
        say(
            notes,
            f"diverged: the loss is no longer finite at step {step + 1} with learning rate "
            f"{learning_rate}; the colours are those of step {step}, the last finite ones{place}",
        )
    elif exact:
        say(screen, f"learned in {step} steps: all nine bytes are exact, loss {loss:.3g}")
    else:
        say(screen, f"not learned in {step} steps: loss {loss:.3g}, target {goal:.3g}")
    if W_is_stuck and np.array_equal(run.params.W, params.W):
        say(screen, "∂L/∂W was exactly zero at every step: W has not changed")
    raise Exit(0 if exact else 1)


def descend_on(devices: int) -> Callable[..., Run]:
    """Gradient descent compiled for so many devices. Raises ValueError where there are fewer."""
    from manual_bptt.jitted import training as compiled  # noqa: PLC0415 - imports JAX

    return partial(compiled.descend, mesh=make_mesh(devices))


def plain_console(*, stderr: bool = False) -> Console:
    """A console that writes no escape codes at all where there is no colour."""
    options: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False}
    found = Console(**options)
    if found.no_color or found.color_system is None:
        return Console(**options, color_system=None)
    return found


def say(where: Console, text: str) -> None:
    """Print the text; a terminal breaks lines between words."""
    print_paragraphs(text, console=where)
