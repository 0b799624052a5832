"""`python -m mutation [FILE ...]`: run the tests on every mutant of these files, or of all."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from mutation.run import (
    Outcome,
    list_stale_reasons,
    list_untestable,
    read_configuration,
    read_needs,
    run_mutants,
    select_mutants,
)


def main() -> int:
    """Print every mutant that survives, and the counts.

    Files whose tests need a module that is not installed are named, and left out. Returns 1 if any
    survives, or if a reason is given for a mutant that is none.
    """
    tests, reasons = read_configuration()
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="such as " + next(iter(tests)))
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--every", type=int, default=1, help="only one in this many mutants")
    parser.add_argument("--work", type=Path, default=Path("build/mutants"), help="for the results")
    chosen = parser.parse_args()
    unknown = set(chosen.files) - set(tests)
    if unknown:
        parser.error(f"FILE: expected files of mutation/tests.toml, found {', '.join(unknown)}")
    untestable = list_untestable(chosen.files or tests, read_needs())
    for file, module in untestable.items():
        print(f"not tried, since {module} is not installed: {file}", flush=True)
    tried = [file for file in chosen.files or tests if file not in untestable]
    mutants = select_mutants(tried, chosen.every)

    done = Counter[str]()

    def show(outcome: Outcome) -> None:
        done[outcome.status] += 1
        mutant = outcome.mutant
        if outcome.status == "survived":
            print(f"survived  {mutant.file}:{mutant.line}  {mutant.name}", flush=True)
        if sys.stderr.isatty():
            print(f"{done.total()} of {len(mutants)}", end="\r", file=sys.stderr)

    stale = list_stale_reasons(select_mutants(chosen.files or tests), reasons)
    for each in stale:
        print(f"no such mutant, in mutation/equivalent.toml: {each}")
    outcomes = run_mutants(mutants, tests, reasons, chosen.work.resolve(), chosen.jobs, show)
    for file in dict.fromkeys(outcome.mutant.file for outcome in outcomes):
        counts = Counter(each.status for each in outcomes if each.mutant.file == file)
        parts = ", ".join(f"{number} {status}" for status, number in counts.items())
        print(f"{file}: {counts.total()} mutants, {parts}", flush=True)
    return int(done["survived"] > 0 or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
