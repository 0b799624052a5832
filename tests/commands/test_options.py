"""Options of `bptt`: the help, the version, which options apply to what, and FILE:NAME."""

import json
import re
import runpy
import sys
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import typer

from bptt_verifier import Verdict, verify, verify_own_model
from bptt_verifier.commands import application as command_line
from bptt_verifier.commands import verify as command
from bptt_verifier.commands.child_process import Outcome
from bptt_verifier.commands.verify import split_name
from bptt_verifier.judge.files import read_file
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.program.source_file import describe_place, load, read_cells
from manual_bptt import __version__
from tests.support.command_line import Command
from tests.support.modules import ROOT

COMMANDS = list(typer.main.get_command(command_line.app).commands)  # type: ignore[attr-defined]


def find_words(text: str) -> set[str]:
    """The words of a help text, without its frames."""
    return set(re.sub(r"[│╭╮╰╯─]", " ", text).split())


# Help, version, completion.


def test_help_lists_verify_first_and_has_a_short_form(bptt: Command) -> None:
    ended = bptt("-h")
    assert ended.code == 0
    assert ended.out == bptt("--help").out
    listed = ended.out.partition("Commands")[2]
    assert re.findall(r"│ (\w+) ", listed)[0] == "verify"
    assert bptt("verify", "-h").out.lstrip().startswith("Usage: bptt verify")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_no_word_on_eighty_columns(
    name: str, bptt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    for columns in (80, 300):
        monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)
        monkeypatch.setenv("COLUMNS", str(columns))
        shown.append(find_words(bptt(name, "-h").out))
    assert shown[0] == shown[1]


def test_help_shows_no_type_of_python(bptt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    monkeypatch.setenv("COLUMNS", "200")
    shown = [line.split() for line in bptt("verify", "-h").out.splitlines()]
    (bias,) = (line for line in shown if line[1:2] == ["--bias"])
    (seed,) = (line for line in shown if line[1:2] == ["--seed"])
    assert bias[2] == "Your"
    assert seed[2:4] == ["N", "[x>=0]"]
    options = [line for line in shown if line[1:2] and line[1].startswith("--")]
    assert not {"<bool>", "<int", "<float", "<path>"} & {*chain.from_iterable(options)}


def test_the_version_is_shown(bptt: Command) -> None:
    assert bptt("--version") == (0, f"bptt {__version__}\n", "")


def test_the_package_runs_as_a_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bptt_verifier/__main__.py", "verify", "--no-such"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "bptt_verifier" / "__main__.py"), run_name="__main__")
    sentence = "bptt: --no-such: no such option of bptt verify; see bptt verify --help\n"
    assert capsys.readouterr().err == sentence


def test_a_shell_gets_a_script_that_completes(
    bptt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_BPTT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "bptt ver")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert bptt().out.split() == ["verify"]


# Which options apply to what.

GIVEN = {
    "--own": "b.py", "--params": "w", "--case": "1",
    "--model": "rnn", "--reset": "after", "--activation": "tanh",
    "--loss": "mse", "--bias": None, "--sizes": "T=5", "--timeout": "20", "--dtype": "float64",
    "--certified": None, "--workers": "1", "--cluster": "local", "--checkpoint": "a.json",
    "--resume": None, "--examples": "200", "--seed": "0", "--json": "-", "--html": "a.html",
}  # fmt: skip
RUNS = {"built-in": (), "file": ("a.py",), "own": ("--own", "a.py")}
APPLY = {
    "built-in": "--own --dtype --certified --workers --cluster --checkpoint --resume --examples "
    "--seed --json",
    "file": "--params --case --model --activation --loss --bias --sizes --timeout --examples "
    "--workers --seed --json --html",
    "own": "--params --case --timeout --seed --json --html",
}


def test_every_option_of_verify_is_in_the_table() -> None:
    group = typer.main.get_command(command_line.app)
    options = group.commands["verify"].params  # type: ignore[attr-defined]
    names = {param.opts[0] for param in options if param.param_type_name == "option"}
    assert names == set(GIVEN)


@pytest.mark.parametrize(
    ("run", "option"), [each for each in product(RUNS, GIVEN) if each != ("own", "--own")]
)
def test_an_option_that_does_not_apply_is_refused_even_with_its_default_value(
    run: str, option: str, bptt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class JudgedError(Exception):
        pass

    def judge(*_: object, **__: object) -> None:
        raise JudgedError

    monkeypatch.chdir(tmp_path)
    for name in ("judge_file", "verify_derivations"):
        monkeypatch.setattr(command, name, judge)
    value = GIVEN[option]
    arguments = (*RUNS[run], option) if value is None else (*RUNS[run], option, value)
    if option in APPLY[run].split():
        with pytest.raises(JudgedError):
            bptt("verify", *arguments)
    else:
        ended = bptt("verify", *arguments)
        assert ended.code == 2
        assert ended.err.startswith(f"bptt: {option}: expected ")
        assert ended.err.count("\n") == 1


WITH = "expected --model"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("verify a.py --model lstm --activation tanh", f"{WITH} rnn, found lstm"),
        ("verify a.py --model gru --activation tanh", f"{WITH} rnn, found gru"),
        ("verify a.py --reset after", f"{WITH} gru, found rnn"),
        ("prove --machine --points 1", "expected it without --machine, found both"),
        ("prove --machine --seed 0", "expected it without --machine, found both"),
        ("verify --html -", "expected a FILE to judge with it, found none"),
        ("verify a.py --html -", "expected a file, found -; for one of that name write ./-"),
        ("accuracy --markdown -", "expected a file, found -; for one of that name write ./-"),
    ],
)  # fmt: skip
def test_an_option_beside_another_that_excludes_it_is_refused(
    arguments: str, sentence: str, bptt: Command
) -> None:
    option = arguments.split()[-2]
    assert bptt(*arguments.split()) == (2, "", f"bptt: {option}: {sentence}\n")


@pytest.mark.parametrize("option", ["examples", "model", "loss"])
def test_what_applies_to_a_derivation_alone_is_refused_once_an_own_model_is_found(
    option: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("params = loss = 1\ndef gradients(p): ...", encoding="utf-8")
    expected = f"--{option}: expected a derivation of this project's model, found an own model"
    with pytest.raises(ValueError, match=expected):
        read_file(file, None, None, {option: None})


# JSON on standard output.


@pytest.mark.parametrize(
    "arguments",
    [
        ("flow", "--steps", 3),
        pytest.param(("verify", "--examples", 2), marks=pytest.mark.slow),
        pytest.param(("verify", "mine.py"), marks=pytest.mark.slow),
    ],
)
def test_json_can_be_alone_on_standard_output(
    arguments: tuple[object, ...], bptt: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def gradients(params, x, y): raise KeyError('δ')", encoding="utf-8")
    ended = bptt(*arguments, "--json", "-")
    assert json.loads(ended.out)
    assert ended.out.isascii()
    assert ended.err
    assert not Path("-").exists()


# FILE and FILE:NAME.


@pytest.mark.parametrize(
    ("text", "file", "name"),
    [
        ("mine.py", "mine.py", None),
        ("mine.py:f", "mine.py", "f"),
        ("mine.py:Cell.backward", "mine.py", "Cell.backward"),
        ("mine.py:forward,backward", "mine.py", "forward,backward"),
        ("mine.py:1st", "mine.py", "1st"),
        (r"C:\home\mine.py", r"C:\home\mine.py", None),
        (r"C:\home\mine.py:f", r"C:\home\mine.py", "f"),
        ("C:/home/mine.py", "C:/home/mine.py", None),
        ("d:mine.py", "d:mine.py", None),
        ("d:mine.py:f", "d:mine.py", "f"),
        (r"\\server\share\mine.py:f", r"\\server\share\mine.py", "f"),
        ("a:folder/mine.py", "a:folder/mine.py", None),
        ("two:parts.py", "two:parts.py", None),
        ("c:f", "c", "f"),
    ],
)
def test_a_file_is_split_from_its_name(
    text: str, file: str, name: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two:parts.py").touch()
    Path("c").touch()
    assert split_name(text) == (file, name)


@pytest.mark.parametrize(
    ("text", "missing"), [("mine.py:", "a name after the colon"), (":f", "a file before the colon")]
)
def test_an_empty_file_or_name_is_refused(text: str, missing: str, bptt: Command) -> None:
    sentence = f"bptt: FILE: expected {missing}, found none in {text}; write FILE or FILE:NAME\n"
    assert bptt("verify", text) == (2, "", sentence)


@pytest.mark.parametrize("names", ["", "W,", "W,,b", ","])
def test_an_empty_name_of_a_parameter_is_refused(names: str, bptt: Command) -> None:
    sentence = f"bptt: --params: expected names such as Wxh,Whh, found {names!r}\n"
    assert bptt("verify", "mine.py:f", "--params", names) == (2, "", sentence)


def test_only_what_does_not_exist_is_said_not_to_exist(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    (tmp_path / "link.py").symlink_to("nowhere.py")
    (tmp_path / "circle.py").symlink_to("circle.py")
    assert describe_place(tmp_path / "none.py") == "does not exist"
    assert describe_place(tmp_path / "mine") == f"does not exist; perhaps {tmp_path / 'mine.py'}"
    assert describe_place(tmp_path / "Mein.py") == f"does not exist; perhaps {tmp_path / 'mine.py'}"
    assert describe_place(tmp_path / "MINE.PY").endswith(f"; perhaps {tmp_path / 'mine.py'}")
    said = describe_place(tmp_path / "link.py")
    assert said == "is a link to nowhere.py, which does not exist"
    inside = describe_place(tmp_path / "mine.py" / "f.py")
    assert inside == f"cannot be there: {tmp_path / 'mine.py'} is no folder"
    for other in ("circle.py", "n" * 300):
        assert describe_place(tmp_path / other).startswith("cannot be opened: ")
    assert describe_place(tmp_path) == "is no file"


@pytest.mark.parametrize("address", ["https://example.org/rnn.py", "file:///home/me/rnn.ipynb"])
def test_an_address_is_no_file_of_this_machine(address: str) -> None:
    said = r"expected a file of this machine, found an address \((https|file):\); download it first"
    with pytest.raises(ValueError, match=said):
        read_cells(Path(address))


# Exceptions of the user's code.


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(Verdict.DISAGREES, "", {}, "", raised=True), 5),
        (Outcome(Verdict.INCONCLUSIVE, "", {}, "", raised=True), 5),
        (Outcome(Verdict.INCONCLUSIVE, "", {}, "", ended=True), 4),
        (Outcome(Verdict.INCONCLUSIVE, "", {}, ""), 3),
        (CodeRaisedError("FILE: no"), 5),
        (ValueError("FILE: no"), 2),
    ],
)
def test_an_exception_of_the_code_ends_with_5(
    outcome: Outcome | Exception, code: int, bptt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*_: object) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "judge_file", judge)
    assert bptt("verify", "a.py").code == code


def test_an_exception_is_told_from_a_wrong_gradient_and_from_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("1 / 0", encoding="utf-8")
    with pytest.raises(CodeRaisedError, match="ZeroDivisionError"):
        load(file)
    file.write_text("x =", encoding="utf-8")
    with pytest.raises(ValueError, match="SyntaxError") as bad:
        load(file)
    assert not isinstance(bad.value, CodeRaisedError)


def test_a_report_tells_whether_the_code_raised() -> None:
    numbers = map(float, range(9))

    def divide(*_: object) -> float:
        return 1 / 0

    def divide_params(params: object) -> float:
        return divide()

    def count(params: object) -> float:
        return next(numbers)

    def return_a_number(params: object, x: object, y: object) -> int:
        return 1

    assert verify(divide, examples=1).raised
    assert not verify(return_a_number, examples=1).raised
    params = {"w": np.ones(2)}
    report = verify_own_model(dict, divide_params, params)
    assert (report.raised, report.verdict) == (True, Verdict.INCONCLUSIVE)
    assert not verify_own_model(dict, count, params).raised


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("raise KeyError(1)", 5),
        ("import no_such_module", 5),
        ("x = ", 2),
        ("def gradients(params, x, y): raise KeyError(1)", 5),
        ("params = {'w': 1.0}\ndef loss(p): raise KeyError(1)\ndef gradients(p): return p", 5),
        ("params = {'w': 1.0}\ndef loss(p): return p['w']\ndef gradients(p): 1 / 0", 5),
        ("def f(w):\n    raise KeyError(1)\n    return loss, dw\nf(1.0)", 5),
        ("params = {'w': 1.0}\ndef loss(p): return p['w']\ndef gradients(p): return 2", 1),
    ],
)
@pytest.mark.slow
def test_an_exception_of_the_code_has_its_own_exit_code(
    source: str, code: int, bptt: Command, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    ended = bptt("verify", f"{file}:f" if "def f" in source else file)
    assert ended.code == code, ended
    assert "Traceback" not in ended.out + ended.err
