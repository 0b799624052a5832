"""The theorems that Rocq checks, and mistakes in a definition, which no proof survives."""

from pathlib import Path

import pytest

from bptt_verifier.proofs import theorems
from bptt_verifier.proofs.theorems import (
    FOLDER,
    MissingRocq,
    check,
    compile_file,
    files_in_order,
    find_coqc,
    stated,
)
from manual_bptt.losses import LOSSES
from tests.support.mistakes_in_proofs import PLANTED
from tests.support.rocq import (
    PlantedMistake,
    compile_files,
    proved_tags,
    reason_to_skip,
    tagged_definitions,
)

needs_rocq = pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "Rocq is here")
BEFORE_CELLS = ["pairing", "dual_numbers", "sweep", "cells"]


def test_the_theorems_are_those_that_are_claimed() -> None:
    of_cells = {"gradient", "gradient_of_last_output", "gradient_of_loss", "truncation"}
    of_cells |= {"truncation_is_gradient", "gradient_computed", "truncated_computed"}
    claimed = {f"{cell}_{name}" for cell in ("rnn", "lstm", "gru") for name in of_cells}
    claimed |= {"jacobian_sum_is_the_sweep", "rtrl_is_the_sweep", "rnn_gradient_unique"}
    claimed |= {"jacobian_sum_computed", "rtrl_computed"}
    claimed |= {f"{loss}_derivative" for loss in LOSSES}
    claimed |= {"losses_computed", "loss_gradients_computed"}
    assert {theorem.name for theorem in stated()} == claimed


def test_every_theorem_has_a_sentence_that_says_what_it_states() -> None:
    assert [theorem for theorem in stated() if not theorem.statement.endswith(".")] == []


@needs_rocq
@pytest.mark.slow
def test_every_theorem_is_proved_without_axioms() -> None:
    assert list(check()) == stated()  # none is refuted


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """A folder with the files that all cells share, compiled."""
    folder = tmp_path_factory.mktemp("compiled")
    compile_files(BEFORE_CELLS, folder)
    return folder


@pytest.fixture(scope="module")
def all_compiled(tmp_path_factory) -> Path:
    """A folder with all files, compiled."""
    folder = tmp_path_factory.mktemp("all_compiled")
    compile_files(files_in_order(), folder)
    return folder


@pytest.mark.rest
@needs_rocq
def test_the_gradient_of_the_rnn_is_its_derivative(compiled: Path) -> None:
    compile_files(["rnn"], compiled)
    claimed = [theorem for theorem in stated() if theorem.file == "rnn"]
    assert list(theorems.rest_on(find_coqc(), claimed, compiled)) == claimed


@needs_rocq
def test_an_axiom_or_a_proof_left_out_refutes_a_theorem(tmp_path: Path) -> None:
    (tmp_path / "_CoqProject").write_text("axiom.v\nwrong.v\n", encoding="utf-8")
    axiom = "Axiom any : False.\nTheorem one : 0 = 1.\nProof. case any. Qed.\n"
    axiom += "Theorem two : 0 = 2.\nAdmitted.\nTheorem three : 1 + 2 = 3.\nProof. reflexivity. Qed."
    (tmp_path / "axiom.v").write_text(axiom, encoding="utf-8")
    wrong = "Theorem four : 1 + 2 = 4.\nProof. reflexivity. Qed."
    (tmp_path / "wrong.v").write_text(wrong, encoding="utf-8")
    refuted = {theorem.name: theorem.refuted for theorem in check(tmp_path)}
    assert "any : False" in str(refuted["one"])
    assert "two : 0 = 2" in str(refuted["two"])
    assert refuted["three"] is None
    assert "Unable to unify" in str(refuted["four"])


STARTS = ("Proof.", "Definition", "Fixpoint", "Record", "Lemma", "Theorem", "Corollary", "Fact")


@needs_rocq
@pytest.mark.slow
@pytest.mark.parametrize("mistake", PLANTED, ids=lambda m: f"{m.file}: {m.right} -> {m.wrong}")
def test_a_mistake_in_a_definition_makes_its_proof_fail(
    all_compiled: Path, tmp_path: Path, mistake: PlantedMistake
) -> None:
    for file in all_compiled.glob("*.vo"):
        (tmp_path / file.name).symlink_to(file)
    mistake.plant(tmp_path)
    complaint = compile_file(find_coqc(), mistake.file, tmp_path)
    assert complaint is not None
    assert "Syntax error" not in complaint
    line = int(complaint.partition("line ")[2].partition(",")[0])
    lines = (tmp_path / f"{mistake.file}.v").read_text(encoding="utf-8").splitlines()[:line]
    starts = [line.split()[0] for line in lines if line.startswith(STARTS)]
    assert starts[-1] == "Proof.", complaint


def test_every_mistake_is_planted_in_one_place(tmp_path: Path) -> None:
    for mistake in PLANTED:
        mistake.plant(tmp_path)


def test_every_equation_has_a_mistake_in_its_definition() -> None:
    tagged = [definition for file in files_in_order() for definition in tagged_definitions(file)]
    assert {tag for definition in tagged for tag in definition.tags} == proved_tags()
    assert [d for d in tagged if not any(d.has(mistake) for mistake in PLANTED)] == []


def test_where_rocq_is_missing_one_line_says_what_to_install(bptt, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    ended = bptt("prove", "--machine")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "bptt: the theorems need Rocq with Mathematical Components: "
        "apt-get install coq libcoq-mathcomp-algebra"
    ]


def test_an_installed_package_says_where_the_theorems_are(tmp_path: Path) -> None:
    with pytest.raises(MissingRocq, match="in the folder proofs of the project's repository"):
        find_coqc(tmp_path)


def test_prove_lists_the_theorems_with_their_status(bptt, monkeypatch) -> None:
    right = theorems.Theorem("rnn", "right", None, "The gradient is the derivative.")
    found = [right, theorems.Theorem("rnn", "left", "No [proof].")]
    monkeypatch.setattr(theorems, "find_coqc", lambda: "coqc")
    monkeypatch.setattr(theorems, "check", lambda: iter(found))
    ended = bptt("prove", "--machine")
    assert ended.code == 1
    assert "proofs/rnn.v" in ended.out
    assert "The gradient is the derivative." in ended.out
    assert "left: No [proof]." in ended.out


def test_every_file_of_the_folder_is_checked() -> None:
    assert sorted(files_in_order()) == sorted(file.stem for file in FOLDER.glob("*.v"))
