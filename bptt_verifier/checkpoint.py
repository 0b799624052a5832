"""The state of a training run as one file: plain arrays and one JSON text, never pickle.

A checkpoint is written beside its place and then moved there, so that whatever happens in between,
the file of that name is a whole checkpoint: the old one or the new one.
"""

import io
import json
import os
import secrets
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from manual_bptt.inputs import array, shape
from manual_bptt.rnn import Params

Array = np.ndarray[Any, np.dtype[Any]]


class Checkpoint(NamedTuple):
    """Where a run stands, and the settings that it was started with.

    `losses[k]` is the loss after k updates. `settings` holds what JSON can: numbers and texts.
    """

    params: Params
    losses: Float[Array, " updates+1"]
    h0: Float[Array, "B H"]
    settings: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`, whole or not at all.

    Raises OSError where it cannot be written; a file that was there is then still there, as it was.
    """
    params, losses, h0, settings = checkpoint
    arrays = params._asdict() | {"losses": losses, "h0": h0}
    arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    arrays["settings"] = np.array(json.dumps(settings))
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name, value in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, value, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:  # Ctrl-C too
        unfinished.unlink(missing_ok=True)
        raise


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`.

    Raises OSError where the file cannot be read, and ValueError where it is not a whole checkpoint.
    """
    content = path.read_bytes()
    try:
        return read(content)
    except Exception as error:  # a damaged archive can raise nearly anything
        raise ValueError(
            f"{path}: expected a checkpoint of bptt train, found a damaged or another file"
        ) from error


def read(content: bytes) -> Checkpoint:
    """The checkpoint in the content of a file; raises where there is none."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    settings = json.loads(str(found.pop("settings")))
    if not isinstance(settings, dict):
        raise TypeError(f"settings: expected an object, found {type(settings).__name__}")
    found = {name: array(name, value) for name, value in found.items()}
    if len({value.dtype for value in found.values()}) > 1:
        raise TypeError("expected one dtype, found several")
    losses, h0 = found.pop("losses"), found.pop("h0")
    params = Params(**found)
    H, _ = shape("U", params.U, "H D")
    shape("W", params.W, "H H", H=H)
    shape("V", params.V, "O H", H=H)
    shape("h0", h0, "B H", H=H)
    shape("losses", losses, "N")
    return Checkpoint(params, losses, h0, settings)
