"""Files: output files, checked before the work that fills them, and replaced as a whole."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from typer import Option

from bptt_verifier.console.terminal import reader_may_leave

# The option `--json` of the commands.
JsonFile = Annotated[
    Path | None,
    Option("--json", metavar="FILE", help="Also write the results to this file; - is stdout."),
]
STDOUT = Path("-")  # as a JsonFile


def require_writable(option: str, path: Path | None, *, replaced: bool = False) -> None:
    """Raises ValueError unless the file that `option` names can be written. None is accepted.

    It tries to write, because file modes do not tell what the system allows, and leaves nothing
    behind. An existing file is opened and keeps its content; one to be `replaced`, as `replacing`
    does, needs a folder that takes a new file. Pipes and devices are not opened: that could block.
    """
    if path is None or (path == STDOUT and option == "--json"):
        return
    if path == STDOUT:
        raise ValueError(f"{option}: expected a file, found -; for one of that name write ./-")
    place = Path(os.path.realpath(path))
    try:
        with suppress(FileNotFoundError):
            place.stat()  # raises where the name is too long, or where links form a circle
        if place.is_dir():
            raise ValueError(f"{option}: expected a file, found the folder {path}")
        if not place.parent.is_dir():
            raise ValueError(f"{option}: expected a file in an existing folder, found {path}")
        if place.is_file() and not replaced:
            with place.open("ab"):
                pass
        elif replaced or not place.exists():
            with TemporaryFile(dir=place.parent):
                pass
    except OSError as error:
        raise ValueError(
            f"{option}: expected a file that can be written, found {path}: {error.strerror}"
        ) from None


def require_different(files: dict[str, Path | None]) -> None:
    """Raises ValueError where two of the options name one regular file. None is accepted.

    The last of the two is the one that is refused. A file may have several names, by links or on
    a file system that ignores case.
    """
    places: dict[str, str] = {}
    for option, path in files.items():
        if path is None or path == STDOUT:
            continue
        place = os.path.realpath(path)
        if os.path.exists(place) and not os.path.isfile(place):
            continue  # a device takes both
        for other, taken in places.items():
            same = place == taken
            with suppress(OSError):  # where one of them does not exist yet
                same = same or os.path.samefile(place, taken)
            if same:
                raise ValueError(
                    f"{option}: expected another file than that of {other}, found {path}"
                )
        places[option] = place


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write, which replaces `path` when the block ends, whole or not at all.

    The file is written beside its place and then moved there. A link stays a link: its target is
    replaced. The new file takes over the mode of the old one.
    Raises OSError where the file cannot be written; an old file then stays as it was.
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


def text_beside_json(path: Path | None) -> AbstractContextManager[Any]:
    """Make a context that prints text on standard error if JSON is to be alone on standard output.

    `path` is that of the JSON.
    """
    return redirect_stdout(sys.stderr) if path == STDOUT else nullcontext()


def write_json(path: Path | None, plain: dict[str, Any]) -> None:
    """Write plain values as JSON, to standard output for `-`. Writes nothing where it is None."""
    if path is None:
        return
    # Standard output may have an encoding that lacks the letters.
    text = json.dumps(plain, indent=1, ensure_ascii=path == STDOUT) + "\n"
    if path == STDOUT:
        with reader_may_leave():
            sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")
