"""Descent: gradient descent in legs, saved and shown on the way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manual_bptt.training import Run

SAVE_EVERY = 2.0  # seconds


def descend_in_legs(
    witness: ModuleType, descend: Callable[..., Run], run: Run,
    *, steps: int, save: Callable[[Run], None], progress: Callable[[int, float], None],
) -> Run:  # fmt: skip
    """Continue a run to `steps` updates in all; save it at the start, on the way and at the end.

    The legs make the same steps as a single call of `descend`, bit for bit. `witness` is the module
    of `descend`. Divergence and Ctrl-C are not raised: they are the `stopped` of the result.
    """
    leg, last_saved = 10, time.monotonic()
    try:
        save(run)
        while run.stopped == "limit" and (done := len(run.losses) - 1) < steps:
            began = time.monotonic()
            try:
                more = descend(
                    run.params, steps=min(leg, steps - done),
                    progress=lambda leg_steps, loss, done=done: progress(done + leg_steps, loss),
                )  # fmt: skip
            except (witness.Diverged, witness.Interrupted) as ended:
                more = ended.run
            run = join(run, more)
            if time.monotonic() - began < SAVE_EVERY / 2:
                leg *= 2
            if time.monotonic() - last_saved > SAVE_EVERY:
                save(run)
                last_saved = time.monotonic()
    except KeyboardInterrupt:  # between two legs
        run = run._replace(stopped="interrupted")
    save(run)
    return run


def join(run: Run, more: Run) -> Run:
    """Join a run and its continuation, whose first loss is the run's last."""
    return Run(more.params, np.concatenate([run.losses, more.losses[1:]]), more.stopped)


@contextmanager
def descent_bar(where: Console, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Yield a function of steps done and loss; it shows a bar on a terminal after a second."""
    loss_shown, of_all = TextColumn("loss {task.fields[loss]:.2e}"), MofNCompleteColumn()
    columns = loss_shown, BarColumn(), of_all, TextColumn("steps"), TimeElapsedColumn()
    bar = Progress(*columns, console=where, transient=True)
    task = bar.add_task("training", total=steps, loss=np.nan)
    next_update = time.monotonic() + 1

    def show(done: int, loss: float) -> None:
        nonlocal next_update
        now = time.monotonic()
        if where.file.isatty() and now > next_update:
            bar.start()
            bar.update(task, completed=done, loss=loss)
            next_update = now + 0.1

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
