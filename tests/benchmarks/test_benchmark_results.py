"""What is made of the benchmarks' samples, and what they were taken on.

Statistics, files, tables, targets, the machine, the page.
"""

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import (
    __main__,
    ceilings,
    documentation,
    intervals,
    machine,
    plot,
    suites,
    torch_steps,
)
from benchmarks.balanced import flop
from benchmarks.changes import changes, warnings
from benchmarks.results import Result, Timing, from_json, read, to_json, write
from benchmarks.table import across, exponents, seconds, terminal_table, time_exponents
from benchmarks.targets import targets
from bptt_verifier.console.figures import empty_figure
from bptt_verifier.problems.problem import Sizes
from tests.support.benchmarks import private
from tests.support.modules import ROOT

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


# Statistics, on data whose answer is known.


def test_quartiles_of_known_numbers() -> None:
    assert intervals.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)


def test_a_ratio_is_exact_where_one_is_always_twice_as_fast_as_the_other() -> None:
    base = np.random.default_rng(0).uniform(1, 9, 30).tolist()  # the machine's speed by round
    found = intervals.ratio(base, [value / 2 for value in base])
    assert found == (2.0, 2.0, 2.0)
    assert str(found) == "2.00 [2.00, 2.00]"


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        base, fast = np.exp(0.1 * rng.normal(size=(2, 30))) * [[3.0], [2.0]]
        found = intervals.ratio(base.tolist(), fast.tolist())
        covered += found.low <= 1.5 <= found.high
    # 95 of 100 are meant; 176 of 200 is 4.5 standard deviations of the binomial below.
    assert 176 <= covered < 200


def test_a_change_between_two_runs_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(2)

    def one_run(speed: float, factor: float) -> tuple[list[float], list[float]]:
        base, own = speed * np.exp(0.02 * rng.normal(size=(2, 30)))
        return base.tolist(), (own / factor).tolist()

    same = intervals.change(one_run(1.0, 2.0), one_run(7.0, 2.0))  # another machine, same ratio
    assert same.low < 1 < same.high
    faster = intervals.change(one_run(1.0, 2.0), one_run(1.0, 3.0))
    assert 1.4 < faster.low < 1.5 < faster.high < 1.6


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_an_exponent_is_that_of_the_data(power: float) -> None:
    sizes, rng = [10.0, 30.0, 100.0], np.random.default_rng(3)
    exact = [[3 * size**power] * 9 for size in sizes]
    assert intervals.exponent(sizes, exact).value == pytest.approx(power)
    noisy = [(3 * size**power * np.exp(0.05 * rng.normal(size=9))).tolist() for size in sizes]
    found = intervals.exponent(sizes, noisy)
    assert found.low < found.value < found.high
    assert abs(found.value - power) < 0.05


def test_a_geometric_mean_is_that_of_ratios() -> None:
    assert intervals.geometric_mean([2.0, 0.5, 8.0]) == pytest.approx(2.0)


def test_statistics_refuse_what_they_cannot_pair_or_fit() -> None:
    with pytest.raises(ValueError, match=r"samples: expected as many of each, found \[2, 3\]"):
        intervals.ratio([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"samples: expected as many of each, found \[0, 0\]"):
        intervals.ratio([], [])
    with pytest.raises(ValueError, match="sizes: expected at least 2"):
        intervals.exponent([1.0], [[1.0]])


# Results: files, tables, comparisons, targets.


def result(suite: str = "quick", **seconds_of: float) -> Result:
    """A made-up result at one size, of rounds that all took as long."""
    sizes = Sizes(T=50, B=32, D=256, H=1024, O=10)
    one = 50 * 32 * 1024 * 4
    timings = [
        Timing(name.replace("_", "-"), sizes, "float32", [value] * 5, 0.5, 2 * one, 0.25)
        for name, value in seconds_of.items()
    ]
    described = {
        "device": "cpu", "device kind": "cpu", "processor": "abacus",
        "vector extensions": ["beads"],
        "versions": {"numpy": "2"}, "threads": {"processors": 2}, "taken": "today",
    }  # fmt: skip
    return Result(suite, "rnn", "autodiff", 0, described, timings, ["a note"], {})


OTHERS = {"autodiff": 4.0, "autodiff_hoisted": 3.0, "torch": 5.0, "limit": 1.9}
EXAMPLE = result(**OTHERS, manual=2.0, manual_jit=2.5)


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write(file, to_json(EXAMPLE))
    assert read(file) == EXAMPLE
    assert len(file.read_text(encoding="utf-8").splitlines()) < 200
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_replaced_stays_as_it_is(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 0}', to_json(EXAMPLE).replace('"seconds"', '"hours"')]
)
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^old\.json: expected a result of these benchmarks"):
        from_json(text, "old.json")


def test_a_table_says_ratio_share_memory_and_error() -> None:
    timing = next(t for t in EXAMPLE.timings if t.contender == "manual")
    ratio, share = EXAMPLE.ratio(timing), EXAMPLE.share_of_limit(timing)
    assert ratio is not None
    assert share is not None
    assert (ratio.value, share.value, timing.state_arrays) == (2.0, 0.95, 2.0)
    assert EXAMPLE.gigaflops(timing) == pytest.approx(flop("rnn", timing.sizes) / 2e9)
    assert terminal_table(EXAMPLE).row_count == 8
    page = across(EXAMPLE, "ratio", ["manual", "torch", "absent"], "float32")
    assert page.splitlines()[-1] == (
        "| 32, 50, 256, 1024, 10 | 2.00 [2.00, 2.00] | 0.80 [0.80, 0.80] | – |"
    )


def test_a_result_without_the_baseline_has_no_ratios() -> None:
    lonely = result(manual=2.0)
    assert lonely.ratio(lonely.timings[0]) is None
    assert terminal_table(lonely).row_count == 3


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, "1.5 s"), (0.0123, "12.3 ms"), (2e-5, "20 µs"), (1e-7, "0.1 µs")]
)
def test_a_duration_is_given_in_the_unit_that_suits_it(value: float, text: str) -> None:
    assert seconds(value) == text


def test_exponents_come_from_the_largest_sizes_of_each_letter() -> None:
    timings = [
        Timing("manual", sizes, "float32", [1e-4 + 1e-6 * sizes.T] * 3, temporary_bytes=sizes.T)
        for sizes in suites.along("T")
    ]
    grown = EXAMPLE._replace(timings=timings, suite="scaling")
    found = time_exponents(grown)
    assert list(found) == [("T", "manual")]
    assert 0.9 < found["T", "manual"].value < 1
    memory = exponents(grown, lambda timing: [float(timing.temporary_bytes or 0)])
    assert memory["T", "manual"].value == pytest.approx(1)


def test_a_comparison_finds_what_changed_and_says_what_makes_it_meaningless() -> None:
    now = result(autodiff=2.0, autodiff_hoisted=1.5, manual=0.8, manual_jit=1.5)
    found = {change.timing.contender: change for change in changes(EXAMPLE, now)}
    assert set(found) == {"autodiff-hoisted", "manual", "manual-jit"}
    assert not found["autodiff-hoisted"].significant  # all of it ran on a machine twice as fast
    assert found["manual"].ratio.value == pytest.approx(1.25)
    assert found["manual-jit"].ratio.value == pytest.approx(1.25 / 1.5)
    assert warnings(EXAMPLE, now) == []
    elsewhere = now._replace(machine=now.machine | {"processor": "slide rule"})
    assert warnings(EXAMPLE, elsewhere) == ["processor: then abacus, now slide rule"]
    other = now._replace(model="lstm", baseline="torch")
    assert changes(EXAMPLE, other) == []
    assert len(warnings(EXAMPLE, other)) == 2


def test_targets_are_reached_or_fall_short_by_what_was_measured() -> None:
    good = {target.wanted: target.verdict for target in targets(EXAMPLE)}
    assert set(good.values()) == {"reached"}
    slow = result(**OTHERS, manual=6.0, manual_jit=3.5)
    bad = {target.wanted: target.verdict for target in targets(slow)}
    assert good.keys() == bad.keys()
    assert {wanted for wanted, verdict in bad.items() if verdict == "reached"} == {
        wanted for wanted in bad if "memory" in wanted
    }
    assert targets(EXAMPLE._replace(suite="full")) == []  # a size of the quick suite
    other = [t._replace(sizes=t.sizes._replace(H=256)) for t in EXAMPLE.timings if t.sizes]
    further = targets(EXAMPLE._replace(suite="full", timings=other))
    assert [(t.wanted, t.verdict) for t in further] == [
        ("manual: at least 0.85 of the limit at H = 256", "reached")
    ]
    plain = {"manual": 1.0, "manual_jit": 1.0}
    checkpointed = result(
        "checkpoint", **plain, manual_checkpointed=1.4, manual_jit_checkpointed=1.6
    )
    assert [t.verdict for t in targets(checkpointed)] == ["reached", "falls short"]
    for value, verdict in ((11e-6, "reached"), (13e-6, "falls short")):
        timing = Timing("manual-jit-loop", suites.TINY, "float32", [value] * 3)
        steps = EXAMPLE._replace(suite="steps", timings=[timing])
        assert [target.verdict for target in targets(steps)] == [verdict]


# The machine.


def test_the_machines_description_tells_what_counts_and_no_names() -> None:
    described = machine.description(jax.devices("cpu")[0])
    text = json.dumps(described)
    assert [word for word in private() if word in text] == []
    assert described["versions"]["jax"] == jax.__version__
    assert described["threads"]["processors"] == machine.schedulable()
    assert described["precision"]["jax matmul"] is None
    with jax.default_matmul_precision("highest"):
        assert machine.precision()["jax matmul"] == "highest"


@needs_torch
def test_pytorchs_switches_and_threads_are_set_and_set_back() -> None:
    before, threads = torch_steps.switches(), torch_steps.load().get_num_threads()
    with torch_steps.configured(tf32=True):
        assert set(torch_steps.switches().values()) == {"high", True}
    with torch_steps.configured(tf32=False):
        assert set(torch_steps.switches().values()) == {"highest", False}
        torch_steps.load().set_num_threads(1)
    assert torch_steps.switches() == before
    assert torch_steps.load().get_num_threads() == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen")
@pytest.mark.skipif(find_spec("threadpoolctl") is None, reason="threadpoolctl is not installed")
def test_threads_are_limited_and_then_as_before() -> None:
    before = machine.schedulable()
    with machine.limited_to(1):
        assert machine.threads()["processors"] == 1
        assert {pool["num_threads"] for pool in machine.pools()} <= {1}
    assert machine.schedulable() == before
    too_many = pytest.raises(ValueError, match=f"--threads: expected at most {before}, found 9999")
    with too_many, machine.limited_to(9999):
        pass


def test_without_threadpoolctl_threads_are_not_limited(monkeypatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert machine.pools() == []
    with pytest.raises(ValueError, match=r"^--threads: expected "), machine.limited_to(1):
        pass


def test_ceilings_are_measured_in_operations_and_bytes() -> None:
    found = ceilings.ceilings(jax.devices("cpu")[0], side=256, numbers=2**20)
    assert list(found) == ["matrix product GFLOP/s", "copy GB/s"]
    assert all(value > 0 for value in found.values())


# The page and the committed results.


@pytest.mark.rest
def test_the_pages_tables_are_those_of_the_committed_results() -> None:
    page = (ROOT / documentation.PAGE).read_text(encoding="utf-8")
    results = documentation.committed()
    assert results
    assert documentation.rewritten(page, results) == page
    marked = {name for _, name, _ in documentation.MARKED.findall(page)}
    of_cpu = {name for name, result in results.items() if not result.on_gpu}
    assert marked == {*of_cpu, *suites.RETAKEN, "targets", "gpu"}


def test_a_table_that_was_changed_by_hand_is_noticed() -> None:
    page = "# Title\n<!-- begin quick -->\n9.99 times\n<!-- end quick -->\nwords\n"
    once = documentation.rewritten(page, {"quick": EXAMPLE})
    assert once != page
    assert "2.00 [2.00, 2.00]" in once
    assert once.startswith("# Title\n")
    assert once.endswith("\nwords\n")
    assert documentation.rewritten(once, {"quick": EXAMPLE}) == once
    with pytest.raises(ValueError, match="expected a result for quack, found quick"):
        documentation.rewritten(page.replace("quick", "quack"), {"quick": EXAMPLE})


def test_a_result_that_was_not_taken_yet_has_a_sentence_in_its_place() -> None:
    page = "<!-- begin quick-gru-float64 -->\nold\n<!-- end quick-gru-float64 -->\n"
    without = documentation.rewritten(page, {})
    assert without.splitlines()[1] == "*Not taken yet.* `make results` takes it."
    assert "2.00 [2.00, 2.00]" in documentation.rewritten(without, {"quick-gru-float64": EXAMPLE})


def on_gpu(precision: str, dtype: str) -> Result:
    """The made-up result as if it came from a GPU."""
    described = {"device": "gpu", "device kind": "abacus", "precision": {"jax matmul": precision}}
    timings = [t._replace(dtype=dtype) for t in EXAMPLE.timings]
    return EXAMPLE._replace(machine=EXAMPLE.machine | described, timings=timings)


def test_results_of_a_gpu_share_a_table_with_columns_for_each_precision() -> None:
    results = {
        "quick-gpu-bfloat16": on_gpu("highest", "bfloat16"),
        "quick": EXAMPLE,
        "quick-gpu-tf32": on_gpu("tensorfloat32", "float32"),
    }
    page = documentation.rewritten("<!-- begin gpu -->\n<!-- end gpu -->\n", results)
    assert page.count("32, 50, 256, 1024, 10") == 1
    heading = next(line for line in page.splitlines() if line.startswith("| B, T"))
    assert heading.index("TF32: a step") < heading.index("bfloat16: a step")
    assert "| 2.5 s | 1.20 [1.20, 1.20] | 2.00 [2.00, 2.00] |" in page
    assert "abacus" in page


def test_memory_in_bfloat16_is_counted_in_numbers_of_two_bytes() -> None:
    brief, plain = (on_gpu("highest", dtype).timings[0] for dtype in ("bfloat16", "float32"))
    assert brief.state_arrays == 2 * (plain.state_arrays or 0)


def test_every_cell_has_deepbench_sizes_of_its_own() -> None:
    for cell, sizes in suites.DEEPBENCH.items():
        plan = __main__.planned(suites.Suite.DEEPBENCH, None, None, __main__.Model(cell))
        assert plan.sizes == sizes
    assert Sizes(T=25, B=16, D=512, H=512, O=10) in suites.DEEPBENCH["lstm"]


def test_two_suites_of_the_rnn_have_a_fused_step_on_a_gpu() -> None:
    have = {
        (suite, model, device)
        for suite in suites.Suite
        for model in __main__.Model
        for device in suites.Device
        if "manual-fused" in __main__.planned(suite, None, None, model, device).contenders
    }
    of_rnn = __main__.Model.RNN, suites.Device.GPU
    assert have == {(suites.Suite.QUICK, *of_rnn), (suites.Suite.SCALING, *of_rnn)}


def test_the_driver_is_part_of_the_description_of_a_gpu(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert "driver" not in machine.gpu_software()
    (tmp_path / "version").write_text("1.2.3\n")
    assert machine.gpu_software()["driver"] == "1.2.3"


def test_a_gpus_picture_has_a_panel_for_each_cell(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra plot")
    figure = empty_figure(tmp_path / "gpu.png")
    lstm = on_gpu("tensorfloat32", "float32")._replace(model="lstm")
    plot.draw_gpu(figure, [on_gpu("highest", "float32"), on_gpu("highest", "bfloat16"), lstm])
    assert [axes.get_title() for axes in figure.axes] == ["RNN", "LSTM"]
    assert [len(axes.get_lines()) for axes in figure.axes] == [3, 2]


def test_contenders_of_one_colour_have_markers_of_their_own() -> None:
    names = ["manual-jit", "manual-jit-on-2", "torch", "manual-jit-on-4", "nobody", "another"]
    signs = [(plot.colour(name), plot.marker(name, names)) for name in names]
    assert len(set(signs)) == len(names)


def test_the_page_shows_a_picture_of_every_kind_of_result() -> None:
    page = (ROOT / documentation.PAGE).read_text(encoding="utf-8")
    shown = re.findall(r"!\[.+\]\(../benchmarks/results/(.+)\.png\)", page)
    assert set(shown) == {*documentation.PICTURES, "quick-gpu"}
    assert all((ROOT / documentation.RESULTS / f"{name}.png").is_file() for name in shown)


def test_the_page_and_the_pictures_are_written_by_one_command(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra plot")
    (tmp_path / "docs").mkdir()
    (tmp_path / documentation.RESULTS).mkdir(parents=True)
    page = tmp_path / documentation.PAGE
    edges = ("begin", "end")
    marks = (f"<!-- {edge} {name} -->\n" for name in ("quick", "targets") for edge in edges)
    page.write_text("".join(marks))
    write(tmp_path / documentation.RESULTS / "quick.json", to_json(EXAMPLE))
    documentation.write_all(tmp_path)
    assert "falls short" not in page.read_text(encoding="utf-8")
    assert "reached" in page.read_text(encoding="utf-8")
    picture = tmp_path / documentation.RESULTS / "quick.png"
    first = picture.read_bytes()
    documentation.write_all(tmp_path)
    assert picture.read_bytes() == first


def test_committed_results_tell_no_names() -> None:
    for file in (ROOT / documentation.RESULTS).glob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert [word for word in private() if word in text] == [], file.name
        assert not re.search(r'"/\w', text), file.name
