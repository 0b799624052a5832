"""The theorems that Rocq checks, and mistakes in a definition, which no proof survives."""

import shutil
from pathlib import Path

import pytest

from bptt_verifier.proofs import theorems
from bptt_verifier.proofs.theorems import (
    FOLDER,
    MissingRocq,
    check,
    compile_file,
    find_coqc,
    stated,
)
from tests.support.rocq import PlantedMistake, compile_files, reason_to_skip

needs_rocq = pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "Rocq is here")
BEFORE_CELLS = ["pairing", "dual_numbers", "sweep"]


def test_the_theorems_are_those_that_are_claimed() -> None:
    cells = ("rnn", "lstm", "gru")
    claimed = {f"{cell}_gradient{of}" for cell in cells for of in ("", "_of_last_output")}
    assert claimed | {f"{cell}_gradient_computed" for cell in cells} <= {
        name for _, name in stated()
    }


@needs_rocq
@pytest.mark.slow
def test_every_theorem_is_proved_without_axioms() -> None:
    assert [(theorem.file, theorem.name) for theorem in check()] == stated()
    assert [theorem for theorem in check() if theorem.refuted] == []


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """A folder with the files that all cells share, compiled."""
    folder = tmp_path_factory.mktemp("compiled")
    compile_files(BEFORE_CELLS, folder)
    return folder


@pytest.mark.rest
@needs_rocq
def test_the_gradient_of_the_rnn_is_its_derivative(compiled: Path) -> None:
    compile_files(["rnn"], compiled)
    names = [name for file, name in stated() if file == "rnn"]
    found = list(theorems.rest_on(find_coqc(), "rnn", names, compiled))
    assert [theorem.name for theorem in found] == names
    assert [theorem for theorem in found if theorem.refuted] == []


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


RNN_MISTAKES = (
    ("delta t s *m W p.", "delta t s *m (W p)^T."),  # W for Wᵀ
    ("(adjoint t)^T *m h p t.-1;", "(adjoint t)^T *m h p t;"),  # h_t for h_{t-1}
    ("s ⊙ map_mx phi' (a p t).", "let _ := map_mx phi' (a p t) in s."),  # slope missing
    ("s ⊙ map_mx phi' (a p t).", "s ⊙ map_mx phi' (h p t)."),  # slope at h_t
    ("delta t s *m W p.", "(delta t s *m W p) *+ 0."),  # recurrent path dropped
    ("g t *m V p.", "(if t == T then g t *m V p else 0)."),  # only the last output's gradient
    ("(adjoint t)^T *m x p t;", "(adjoint t)^T *m x p t.-1;"),
    ("U := \\sum_(1 <= t < T.+1)", "U := \\sum_(2 <= t < T.+1)"),  # one step missing
    ("(g t)^T *m h p t;", "(g t)^T *m h p t.-1;"),
    ("row_sum (adjoint t);", "row_sum (adjoint T);"),  # one step kept
    ("c := \\sum_(1 <= t < T.+1) row_sum (g t);", "c := row_sum (g T);"),
    ("h0 := from_later back entering T 0;", "h0 := from_later back entering T 1;"),
    ("adjoint t *m U p ", "adjoint t.+1 *m U p "),
    ("h p t *m (V p)^T + rows B (c p).", "h p t.-1 *m (V p)^T + rows B (c p)."),
    ("*m (W p)^T + rows B (b p).", "*m W p + rows B (b p)."),
)
LSTM_MISTAKES = (
    ("s.2 + s.1 ⊙ gates", "s.1 ⊙ gates"),  # the cell's path dropped
    ("⊙ map_mx tau' (cell p t).", "⊙ map_mx tau' (h p t)."),
    ("dc ⊙ gates p t candidate ", "dc ⊙ gates p t input "),
    ("dc ⊙ cell p t.-1", "dc ⊙ cell p t"),  # c_t for c_{t-1}
    ("dc ⊙ gates p t input", "dc ⊙ gates p t forget"),
    ("s.1 ⊙ map_mx tau (cell p t)", "s.1 ⊙ cell p t"),
    ("end ⊙ slope z (a p t z).", "end ⊙ (let _ := slope z in const_mx 1)."),  # slope missing
    ("delta t s z *m W p z)", "delta t s z *m (W p z)^T)"),
    ("cell_gradient t s ⊙ gates p t forget).", "cell_gradient t s)."),
    ("(adjoint t z)^T *m x p t;", "(adjoint t z)^T *m x p t.-1;"),
    ("(adjoint t z)^T *m h p t.-1;", "(adjoint t z)^T *m h p t;"),
    ("row_sum (adjoint t z);", "row_sum (adjoint T z);"),
    ("(from_later back entering T 0).1;", "(from_later back entering T 0).2;"),
    ("adjoint t z *m U p z)", "adjoint t.+1 z *m U p z)"),
    ("(g t)^T *m h p t;", "(g t)^T *m cell p t;"),
    ("gates output ⊙ map_mx tau next,", "gates output ⊙ next,"),
    ("gates forget ⊙ cell + gates", "gates forget ⊙ cell - gates"),
)
GRU_MISTAKES = (
    ("s ⊙ (const_mx 1 - z p t) ⊙", "s ⊙ z p t ⊙"),
    ("⊙ map_mx tau' (a p t candidate).", "⊙ (let _ := tau' in const_mx 1)."),  # slope missing
    ("s ⊙ (h p t.-1 - n p t)", "s ⊙ (h p t - n p t)"),  # h_t for h_{t-1}
    ("then delta_n t s else delta_n t s ⊙ r p t.", "then delta_n t s else delta_n t s."),
    ("then delta_n t s *m W p candidate ⊙ h p t.-1", "then delta_n t s ⊙ h p t.-1"),
    ("else delta_n t s ⊙ recurrent p t (h p t.-1).", "else delta_n t s ⊙ h p t.-1."),
    ("then delta_n t s *m W p candidate ⊙ r p t", "then (delta_n t s ⊙ r p t) *m W p candidate"),
    ("else delta_W t s *m W p candidate.", "else delta_n t s *m W p candidate."),
    ("s ⊙ z p t + delta", "delta"),  # the state's own path dropped
    ("+ through_n t s.", "."),  # the candidate's path dropped
    ("delta t s update *m W p update +", "delta t s update *m (W p update)^T +"),
    ("(adjoint_W t)^T *m q p t", "(adjoint_W t)^T *m h p t.-1"),
    ("(adjoint t z)^T *m h p t.-1;", "(adjoint t z)^T *m h p t;"),
    ("(adjoint t z)^T *m x p t;", "(adjoint t z)^T *m x p t.-1;"),
    ("b := fun z => \\sum_(1 <= t < T.+1) row_sum (adjoint t z);", "b := fun z => 0;"),
    ("row_sum (adjoint_W t);", "row_sum (adjoint t candidate);"),
    ("adjoint t z *m U p z)", "adjoint t.+1 z *m U p z)"),
)
STARTS = ("Proof.", "Definition", "Fixpoint", "Record")
PLANTED = [
    PlantedMistake(file, *change)
    for file, changes in (("rnn", RNN_MISTAKES), ("lstm", LSTM_MISTAKES), ("gru", GRU_MISTAKES))
    for change in changes
]


@needs_rocq
@pytest.mark.slow
@pytest.mark.parametrize("mistake", PLANTED, ids=lambda m: f"{m.file}: {m.right} -> {m.wrong}")
def test_a_mistake_in_a_definition_makes_its_proof_fail(
    compiled: Path, tmp_path: Path, mistake: PlantedMistake
) -> None:
    for file in BEFORE_CELLS:
        shutil.copy(compiled / f"{file}.vo", tmp_path)
    mistake.plant(tmp_path)
    complaint = compile_file(find_coqc(), mistake.file, tmp_path)
    assert complaint is not None
    assert "Syntax error" not in complaint
    line = int(complaint.partition("line ")[2].partition(",")[0])
    lines = (tmp_path / f"{mistake.file}.v").read_text(encoding="utf-8").splitlines()[:line]
    starts = [line.split()[0] for line in lines if line.startswith(STARTS)]
    assert starts[-1] == "Proof.", complaint


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda m: f"{m.file}: {m.right} -> {m.wrong}")
def test_every_mistake_is_planted_in_one_definition(
    tmp_path: Path, mistake: PlantedMistake
) -> None:
    mistake.plant(tmp_path)


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
    found = [theorems.Theorem("rnn", "right", None), theorems.Theorem("rnn", "left", "No [proof].")]
    monkeypatch.setattr(theorems, "find_coqc", lambda: "coqc")
    monkeypatch.setattr(theorems, "check", lambda: iter(found))
    ended = bptt("prove", "--machine")
    assert ended.code == 1
    assert "proofs/rnn.v" in ended.out
    assert "left: No [proof]." in ended.out


def test_every_file_of_the_folder_is_checked() -> None:
    assert sorted(theorems.files_in_order()) == sorted(file.stem for file in FOLDER.glob("*.v"))
