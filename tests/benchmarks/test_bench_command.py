"""`python -m benchmarks`, as a shell calls it."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks import (
    __main__,
    measurement,
    run,
    suites,
)
from benchmarks.measurement import rounds
from benchmarks.results import read
from benchmarks.suites import CONTENDERS, Plan, Suite
from tests.support.benchmarks import SMALL, WRONG, private, tampering, truth_of
from tests.support.modules import ROOT

TINY_PLAN = Plan((SMALL,), {name: CONTENDERS[name] for name in ("manual", "autodiff", "limit")})


@pytest.fixture
def bench(monkeypatch, capsys):
    """Runs the command line on tiny sizes: (exit code, standard output, standard error)."""
    monkeypatch.setattr(measurement, "SHORTEST", 0.0)
    monkeypatch.setattr(measurement, "SETTLING", 0.0)
    plans = dict.fromkeys(suites.PLANS, TINY_PLAN)
    plans[Suite.VERIFY] = suites.PLANS[Suite.VERIFY]
    monkeypatch.setattr(__main__, "PLANS", plans)
    # The same problem each time: its reference is compiled once.
    monkeypatch.setattr(run, "expected", lambda p, tf32, device: truth_of(p.cell, str(p.x.dtype)))

    def ended(*arguments: str) -> tuple[int, str, str]:
        code = __main__.run(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return ended


def test_a_run_prints_writes_draws_and_compares(bench, tmp_path: Path) -> None:
    file, picture = tmp_path / "new.json", tmp_path / "new.svg"
    picture_wanted = ["--plot", str(picture)] if find_spec("matplotlib") else []
    code, out, err = bench("--rounds", "2", "--json", str(file), *picture_wanted)
    assert (code, err) == (0, "")
    found = read(file)
    assert found.contenders() == ["manual", "autodiff", "limit"]
    assert [place[0] for place in found.places()] == list(TINY_PLAN.sizes)
    for timing in found.timings:
        assert len(timing.seconds) == 2
        assert timing.contender in out
        assert (timing.error is None) == (timing.contender == "limit")
    assert found.machine["precision"]["jax matmul"] == "highest"
    assert [word for word in private() if word in file.read_text(encoding="utf-8")] == []
    assert not picture_wanted or picture.read_text(encoding="utf-8").startswith("<?xml")
    code, out, err = bench(
        "--rounds", "1", "--contenders", "limit,autodiff", "--compare", str(file)
    )
    assert (code, err) == (0, "")
    assert "now ÷ then" in out
    assert "manual" not in out
    assert "Not comparable" not in out


@pytest.mark.table(2)
@pytest.mark.parametrize(("suite", "model"), [("scaling", "lstm"), ("steps", "gru")])
def test_every_model_runs(bench, suite: str, model: str) -> None:
    named = ["--contenders", "manual", "--dtype", "float64"]
    code, _, err = bench("--suite", suite, "--model", model, "--rounds", "1", *named)
    assert (code, err) == (0, "")


def test_a_wrong_contender_ends_the_run_before_it_is_timed(bench, monkeypatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("timed")

    monkeypatch.setitem(
        TINY_PLAN.contenders, "manual", partial(tampering, WRONG["W off by a thousandth"])
    )
    monkeypatch.setattr(run, "rounds", forbidden)
    code, out, err = bench("--rounds", "1")
    assert (code, out) == (1, "")
    assert err.startswith("benchmarks: manual: ∂L/∂W")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--contenders", "manual,nobody"], "--contenders: expected some of "),
        (["--json", "no/such/folder/x.json"], "--json: expected a file in an existing folder"),
        (["--plot", "x.nonsense"], "--plot: expected "),
        (["--compare", "no-such.json"], "no-such.json"),
        (["--compare", "pyproject.toml"], "pyproject.toml: expected a result of these benchmarks"),
        (["--tf32"], "--tf32: expected --device gpu with it, found cpu"),
        (["--suite", "verify", "--model", "gru"], "--suite verify: expected "),
        (["--suite", "verify", "--dtype", "float32"], "--dtype: expected float64"),
        (["--rounds", "0"], "--rounds: expected an integer of at least 1, found '0'"),
        (["--rounds"], "--rounds: expected an integer of at least 1, found none"),
        (["--suite", "slow"], "--suite: expected one of quick, "),
        (["--device", "abacus"], "--device: expected one of cpu, gpu, found 'abacus'"),
        (["--threads", "0"], "--threads: expected an integer of at least 1, found '0'"),
        (["--tf32=x"], "--tf32: expected no value, found 'x'"),
        (["--no-such"], "--no-such: no such option of python -m benchmarks; see "),
        (["extra"], "python -m benchmarks: expected no more arguments, found 'extra'; see "),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2_and_a_sentence(
    bench, arguments: list[str], sentence: str, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("benchmarks: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_bad_usage(bench) -> None:
    expected_sentence = "benchmarks: --device: expected one that JAX can use, found no gpu\n"
    assert bench("--device", "gpu") == (2, "", expected_sentence)


def test_ctrl_c_prints_what_was_measured_so_far(bench, monkeypatch, tmp_path: Path) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        yield from list(rounds(*arguments, **options))[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "rounds", interrupted)
    file = tmp_path / "kept.json"
    file.write_text("old")
    code, out, err = bench("--rounds", "5", "--json", str(file))
    assert (code, err) == (130, "benchmarks: interrupted\n")
    assert "T=4 B=3 D=2 H=5 O=2" in out
    assert "autodiff" in out
    assert file.read_text() == "old"  # half a result does not take the place of a whole one


def test_help_names_every_option(bench) -> None:
    code, out, _ = bench("--help")
    assert code == 0
    for option in "device suite contenders dtype model rounds json plot compare threads".split():
        assert f"--{option}" in out
