"""All results of the CPU, taken again one after the other: `make results`.

Each result is taken in a process of its own, and kept as soon as it is there. A run that was
stopped goes on with the results that are missing, as long as the code is the same.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import documentation, machine
from benchmarks.results import write
from benchmarks.suites import PLANS, RETAKEN, Suite
from bptt_verifier.console.argument_errors import App
from bptt_verifier.console.interrupts import INTERRUPTED

ROOT = Path(__file__).parents[1]
DONE = Path("build/results.json")  # the results that were taken, with the code that they are of
CODE = ("manual_bptt", "jax_reference", "benchmarks")  # what a result is a result of
INCOMPLETE = 1

Take = Callable[[Sequence[str]], int]  # runs `python -m benchmarks`; returns its exit code

app = App(add_completion=False, pretty_exceptions_enable=False)


def expect_seconds(name: str) -> float:
    """The seconds that a result takes: the time limit of each size, and as long to compile."""
    arguments = RETAKEN[name]
    plan = PLANS[Suite(arguments[1]) if arguments[:1] == ("--suite",) else Suite.QUICK]
    sizes = max(1, len(plan.sizes)) * (1 if "--dtype" in arguments else len(plan.dtypes))
    return 2 * plan.seconds * sizes


def describe_code(root: Path = ROOT) -> str:
    """Describe the code and the versions that a result is of, as a digest."""
    digest = hashlib.sha256(json.dumps(machine.versions(), sort_keys=True).encode())
    for package in CODE:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def read_done(root: Path) -> dict[str, str]:
    """Read which results were taken, and of which code; none where there is no such file."""
    try:
        found = json.loads((root / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def take(arguments: Sequence[str]) -> int:
    """Run `python -m benchmarks` with these arguments in a process of its own."""
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], check=False).returncode


def retake(
    results: Mapping[str, Sequence[str]],
    root: Path = ROOT,
    *,
    again: bool = False,
    run: Take = take,
) -> list[str]:
    """Take the results that are missing for this code, or all of them; return those that failed.

    A result that fails leaves the old one, and the others are taken all the same.
    """
    code, failed = describe_code(root), []
    done = {name: of for name, of in read_done(root).items() if of == code and not again}
    (root / DONE).parent.mkdir(exist_ok=True)
    for number, (name, arguments) in enumerate(results.items(), 1):
        place = root / documentation.RESULTS / f"{name}.json"
        heading = f"{number} of {len(results)}, {name}"
        if name in done and place.exists():
            print(f"{heading}: there already", flush=True)
            continue
        begun = time.monotonic()
        code_of_exit = run([*arguments, "--json", str(place)])
        if code_of_exit == INTERRUPTED:
            raise KeyboardInterrupt
        if code_of_exit:
            failed.append(name)
            print(f"{heading}: failed with exit code {code_of_exit}", flush=True)
            continue
        done[name] = code
        write(root / DONE, json.dumps(done, indent=1) + "\n")
        print(f"{heading}: {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    return failed


def chosen(names: str | None) -> dict[str, tuple[str, ...]]:
    """The results with these names. Raises ValueError for other names."""
    wanted = list(RETAKEN) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in RETAKEN:
            raise ValueError(f"--only: expected some of {', '.join(RETAKEN)}, found {name!r}")
    return {name: RETAKEN[name] for name in wanted}


@app.command()
def main(
    only: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Results, separated by commas.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also take those that are there for this code.")
    ] = False,
) -> None:
    """Take all results of the CPU again, and write the tables and pictures of the page."""
    results = chosen(only)
    minutes = sum(map(expect_seconds, results)) / 60
    print(f"{len(results)} results, about {minutes:.0f} minutes", flush=True)
    try:
        failed = retake(results, again=again)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; the same command goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    documentation.write_all()
    if failed:
        print(f"benchmarks: expected all results, {', '.join(failed)} failed", file=sys.stderr)
        raise typer.Exit(INCOMPLETE)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        app(arguments, prog_name="python -m benchmarks.retake")
    except SystemExit as ended:
        return int(ended.code or 0)
    except (ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
