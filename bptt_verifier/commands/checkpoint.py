"""The state of a training run as one file: plain arrays and one JSON text, never pickle.

A checkpoint is written beside its place and then moved there, so that whatever happens in between,
the file of that name is a whole checkpoint: the old one or the new one. A link stays a link: its
place is where it leads. A file that was there lends its mode to the one that replaces it.
"""

import io
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from manual_bptt.inputs import arguments, array, shape
from manual_bptt.training import CELLS, Params

Array = np.ndarray[Any, np.dtype[Any]]


class Checkpoint(NamedTuple):
    """Where a run stands, and the settings that it was started with.

    `losses[k]` is the loss after k updates. `settings` holds what JSON can: numbers and texts. Its
    "model" names the cell; a file without one is from when there was only the RNN.
    """

    params: Params
    losses: Float[Array, " updates+1"]
    h0: Float[Array, "B H"]
    settings: dict[str, Any]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, that takes the place of `path` when the block ends, whole or not at all.

    Raises OSError where it cannot be written; a file that was there is then still there, as it was.
    """
    place = Path(os.path.realpath(path))
    unfinished = place.with_name(f".{secrets.token_hex(8)}")  # short, whatever the name of `path`
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, unfinished)
        unfinished.replace(place)
    except BaseException as failure:  # Ctrl-C too
        unfinished.unlink(missing_ok=True)
        if isinstance(failure, OSError):
            raise OSError(failure.errno, failure.strerror, str(path)) from failure
        raise


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`, whole or not at all. Raises OSError as `replacing`."""
    params, losses, h0, settings = checkpoint
    arrays = params._asdict() | {"losses": losses, "h0": h0}
    arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    arrays["settings"] = np.array(json.dumps(settings))
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


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
    cell = CELLS[settings.get("model", "rnn")]
    found = {name: array(name, value) for name, value in found.items()}
    if len({value.dtype for value in found.values()}) > 1:
        raise TypeError("expected one dtype, found several")
    losses, h0 = found.pop("losses"), found.pop("h0")
    params = cell.Params(**found)
    T, B, D = 1, len(h0), params.U.shape[-1]
    x: Array = np.zeros((T, B, D), h0.dtype)
    arguments(params, x, h0=h0, gates=getattr(cell, "GATES", 1), fields=cell.Params._fields)
    shape("losses", losses, "N")
    return Checkpoint(params, losses, h0, settings)
