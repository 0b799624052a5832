"""The end of a child process, in which the user's code may still print.

Its threads end, its functions registered with `atexit` run, and its objects are deleted, as where
Python runs the file. What Python and its libraries do after that is left out: it takes time, and
may print as well.
"""

import atexit
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from bptt_verifier.program.attempt import is_beside
from bptt_verifier.program.source_lines import is_of_judge

folders: list[Path] = []  # of the files that are judged: one, once the verdict has been sent


def register() -> None:
    """Register the end of this process, which comes after all that is registered later."""
    atexit.register(end_quietly, os.getpid())


def end_with(file: Path, ahead: str) -> None:
    """Let this process end with the code of a file, now that there is a verdict.

    Threads whose names begin with `ahead` load what is no longer needed. Python would wait for
    them; where there are any, the others are waited for here.
    """
    folders.append(file.resolve().parent)
    threads = [each for each in threading.enumerate() if each is not threading.main_thread()]
    if any(each.name.startswith(ahead) for each in threads):
        for each in threads:
            if not (each.daemon or each.name.startswith(ahead)):
                each.join()
        atexit._run_exitfuncs()


def end_quietly(process: int) -> None:
    """End the process by which this was registered, if it has a verdict, and not a fork of it."""
    if not folders or os.getpid() != process:
        return
    forget_objects(folders[0])
    for end in (logging.shutdown, *(stream.flush for stream in (sys.stdout, sys.stderr) if stream)):
        with suppress(BaseException):  # the code may have replaced it
            end()
    os._exit(0)


def forget_objects(folder: Path) -> None:
    """Forget what the modules of a folder hold, some of which may print where it is deleted."""
    for module in [*sys.modules.values()]:
        space = getattr(module, "__dict__", {})  # of any object that stands there
        file = str(space.get("__file__"))
        beside = file.startswith(f"{folder}{os.sep}") and is_beside(Path(file), folder)
        if beside and not is_of_judge(file):  # which is there in a clone of this project
            names = [name for name in space if name != "__builtins__"]
            with suppress(BaseException):
                space.update(dict.fromkeys(names))
