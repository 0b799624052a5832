"""Checkpoints: the state of a training run in one file, plain arrays and JSON, never pickle."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bptt_verifier.console.files import replacing, require_writable
from bptt_verifier.problems.problem import Array
from manual_bptt.inputs import arguments, array, shape
from manual_bptt.training import CELLS, Params


class Checkpoint(NamedTuple):
    """The state of a run, and the settings that it was started with.

    `losses[k]` is the loss after k updates. `settings` holds numbers and texts. Its "model" names
    the cell; a file without one holds an RNN, once the only cell.
    """

    params: Params
    losses: Float[Array, " updates+1"]
    h0: Float[Array, "B H"]
    settings: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`, whole or not at all. Raises OSError as `replacing` does."""
    params, losses, h0, settings = checkpoint
    arrays = params._asdict() | {"losses": losses, "h0": h0}
    arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    arrays["settings"] = np.array(json.dumps(settings))
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def load(path: Path) -> Checkpoint:
    """Read the checkpoint at `path`.

    Raises OSError where the file cannot be read, and ValueError where it is no whole checkpoint.
    """
    content = path.read_bytes()
    try:
        return parse(content)
    except Exception as error:  # a damaged archive can raise nearly anything
        expected = "expected a checkpoint of bptt train, found a damaged or another file"
        raise ValueError(f"{path}: {expected}") from error


def parse(content: bytes) -> Checkpoint:
    """Parse the content of a file as a checkpoint. Raises where it is none."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    settings = json.loads(str(found.pop("settings")))
    if not isinstance(settings, dict):
        raise TypeError(f"settings: expected an object, found {type(settings).__name__}")
    cell = CELLS[settings.get("model", "rnn")]
    found = {name: array(name, value) for name, value in found.items()}
    if len({value.dtype for value in found.values()}) > 1:
        raise TypeError("expected one dtype, found several")
    losses, h0 = found.pop("losses"), found.pop("h0")
    params = cell.Params(**found)
    x: Array = np.zeros((1, len(h0), params.U.shape[-1]), h0.dtype)  # T, B, D
    arguments(params, x, h0=h0, gates=getattr(cell, "GATES", 1), fields=cell.Params._fields)
    shape("losses", losses, "N")
    return Checkpoint(params, losses, h0, settings)


def load_to_resume(
    path: Path | None, settings: dict[str, Any], *, resume: bool
) -> Checkpoint | None:
    """Load the checkpoint at `path` if the run is to `resume` from it; check that it can be saved.

    Raises ValueError or OSError where there is no checkpoint to resume from, where its settings
    differ from `settings`, and where a new run would overwrite a file.
    """
    if path is None and resume:
        raise ValueError("--resume: expected --checkpoint FILE with it, found none")
    require_writable("--checkpoint", path, replaced=True)
    if path is None or not (resume or path.exists()):
        return None
    if not resume:
        expected = "expected a new file, or --resume to go on from it"
        raise FileExistsError(f"--checkpoint: {expected}, found {path}")
    if not path.exists():
        raise FileNotFoundError(f"--resume: expected a checkpoint, found no file {path}")
    saved = load(path)
    before = {"model": "rnn", "devices": None} | saved.settings
    for name, value in settings.items():
        if before.get(name) != value:
            raise ValueError(f"--{name}: expected {before.get(name)} as in {path}, found {value}")
    return saved
