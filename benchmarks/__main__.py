"""The command `python -m benchmarks`: measure, print and write a result.

Exit codes: 0 measured; 1 a contender is wrong, and nothing was timed at its size; 2 bad usage or
input; 130 ended by Ctrl-C. After 1 and 130, the timings so far are printed and not written.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import documentation, machine, plot
from benchmarks.agreement import Disagreement
from benchmarks.changes import changes_table, warnings
from benchmarks.contenders import Builder, Setting
from benchmarks.measurement import Transfer
from benchmarks.results import Result, read, to_json, write
from benchmarks.run import Measured, measure, result_of
from benchmarks.suites import DEEPBENCH, ON_GPU, PLANS, Device, Dtype, Plan, Suite
from benchmarks.table import terminal_table, time_exponents
from bptt_verifier.console.argument_errors import App
from bptt_verifier.console.choices import Model
from bptt_verifier.console.figures import empty_figure
from bptt_verifier.console.files import require_writable
from bptt_verifier.console.interrupts import INTERRUPTED, reasons
from bptt_verifier.console.terminal import (
    print_paragraphs,
    print_uncut,
    progress_bar,
    reader_may_leave,
)

WRONG, BAD_USAGE = 1, 2
FAILED = (Disagreement, Transfer)

app = App(add_completion=False, pretty_exceptions_enable=False)


def chosen(names: str | None, among: dict[str, Builder]) -> dict[str, Builder]:
    """The contenders with these names, in the suite's order. Raises ValueError for other names."""
    if names is None:
        return among
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in among:
            raise ValueError(
                f"--contenders: expected some of {', '.join(among) or 'none'}, found {name!r}"
            )
    return {name: builder for name, builder in among.items() if name in wanted}


def planned(
    suite: Suite,
    contenders: str | None,
    dtype: Dtype | None,
    model: Model,
    device: Device = Device.CPU,
) -> Plan:
    """The suite's plan, restricted to the contenders, dtype and cell of the command line.

    On a GPU the RNN has further contenders in two suites.
    """
    plan = PLANS[suite]
    if device is Device.GPU and model is Model.RNN and suite in {Suite.QUICK, Suite.SCALING}:
        plan = plan._replace(contenders=plan.contenders | ON_GPU)
    if suite is Suite.VERIFY and dtype not in (None, Dtype.FLOAT64):
        raise ValueError(f"--dtype: expected float64 with --suite verify, found {dtype}")
    if suite is Suite.DEEPBENCH and model is not Model.RNN:
        plan = plan._replace(sizes=DEEPBENCH[str(model)])
    plan = plan._replace(contenders=chosen(contenders, plan.contenders))
    return plan if dtype is None else plan._replace(dtypes=(str(dtype),))


def show(result: Result, compare: Result | None) -> None:
    """Print the whole result on standard output."""
    print_uncut(terminal_table(result))
    if result.suite == Suite.SCALING:
        for (letter, name), power in time_exponents(result).items():
            print_paragraphs(f"{name}: time ∝ {letter}^{power}")
    for name, most in result.ceilings.items():
        print_paragraphs(f"{name}: {most}")
    print_paragraphs(*result.notes)
    if compare is not None:
        print_uncut(changes_table(compare, result))
        for warning in warnings(compare, result):
            print_paragraphs(f"Not comparable as it stands: {warning}")


@app.command()
def main(
    device: Annotated[Device, typer.Option(help="Device that everything runs on.")] = Device.CPU,
    suite: Annotated[Suite, typer.Option(help="Sizes and contenders.")] = Suite.QUICK,
    contenders: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Contenders, separated by commas; by default all."),
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Dtype of all arrays; by default the suite's.")
    ] = None,
    model: Annotated[Model, typer.Option(help="Cell.")] = Model.RNN,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of rounds, without a time limit; by default the suite's."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the data and of the contenders' order.")
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Most threads; by default one for each processor.")
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="On a GPU, allow TF32 in float32 products.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result to this file.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result into this file.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Print the changes since this result.")
    ] = None,
    tables: Annotated[
        bool,
        typer.Option(
            "--tables",
            help="Measure nothing; write the tables and pictures of docs/performance.md.",
        ),
    ] = False,
) -> None:
    """Time the whole training step: by hand, by autodiff, by torch, and its matrix products."""
    if tables:
        documentation.write_all()
        return
    require_writable("--json", json_file)
    figure = None if plot_file is None else empty_figure(plot_file)
    old = None if compare is None else read(compare)
    plan = planned(suite, contenders, dtype, model, device)
    if tf32 and device is not Device.GPU:
        raise ValueError("--tf32: expected --device gpu with it, found cpu")
    if suite is Suite.VERIFY and (device is not Device.CPU or model is not Model.RNN):
        raise ValueError("--suite verify: expected --device cpu and --model rnn, found another")
    measured, failure = Measured(), None
    with machine.limited_to(threads):
        if suite is Suite.PARALLEL:
            machine.count_processors_as_devices()
        setting = Setting(machine.device(str(device)), tf32)
        try:
            with progress_bar(f"{suite}, rounds", None) as progress:
                measure(
                    suite, plan, setting, measured,
                    model=str(model), number=rounds, seed=seed, progress=progress,
                )  # fmt: skip
        except (KeyboardInterrupt, *FAILED) as error:
            failure = error
        result = result_of(suite, plan, str(model), seed, setting, measured)
    if failure is None and json_file is not None:
        write(json_file, to_json(result))  # before the plot, which may fail
    if result.timings:
        with reader_may_leave():
            show(result, old)
    if failure is not None:
        complain("interrupted" if isinstance(failure, KeyboardInterrupt) else failure)
        raise typer.Exit(INTERRUPTED if isinstance(failure, KeyboardInterrupt) else WRONG)
    if figure is not None and plot_file is not None:
        plot.draw(figure, result)
        plot.save(figure, plot_file)


def complain(sentence: Any) -> None:
    """Print one sentence on standard error."""
    print(f"benchmarks: {sentence}", file=sys.stderr)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        app(arguments, prog_name="python -m benchmarks")
    except SystemExit as ended:
        if any(isinstance(cause, KeyboardInterrupt) for cause in reasons(ended)):
            complain("interrupted")
            return INTERRUPTED
        return int(ended.code or 0)
    except MemoryError as error:
        complain(f"memory: expected enough for these sizes, found too little: {error}")
        return BAD_USAGE
    except (ValueError, OSError) as error:
        complain(error)
        return BAD_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(run())
