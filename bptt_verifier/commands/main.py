"""The process of the command line `bptt`: its streams, Ctrl-C and its exit code.

Exit codes: 0 agrees (or learned), 1 disagrees (or not learned), 2 bad usage or input,
3 inconclusive, 4 the submission ended its process, 5 the submission raised an exception, 130 ended
by Ctrl-C, 141 the reader of the output left before there was a verdict.
"""

import io
import sys
from contextlib import nullcontext

from bptt_verifier.commands.collection import pausing_collection
from bptt_verifier.commands.compiled import keep_compiled_programs
from bptt_verifier.commands.waiting_child import starting_early
from bptt_verifier.console.interrupts import ending_at_once


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    keep_compiled_programs()
    # `train` handles Ctrl-C itself: it saves its run.
    interrupts = nullcontext() if sys.argv[1:2] == ["train"] else ending_at_once()
    with interrupts, starting_early(sys.argv[1:]):
        with pausing_collection():
            # Imported while the child starts.
            from bptt_verifier.commands.application import run  # noqa: PLC0415

        code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        from bptt_verifier.console.terminal import discard_output  # noqa: PLC0415

        discard_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
