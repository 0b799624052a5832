"""`bptt prove`: prove the derivations on exact numbers, on symbols and by theorems.

Numbers and symbols need the extra `certify`, the theorems Rocq.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from typer import Context, Exit, Option

from bptt_verifier.commands.tables import empty_table, verdict_text
from bptt_verifier.console.files import JsonFile, require_writable, text_beside_json, write_json
from bptt_verifier.console.given_options import refuse_given
from bptt_verifier.console.terminal import collect_rows, print_paragraphs, print_uncut
from bptt_verifier.proofs import theorems
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import tangents


class ProofRow(NamedTuple):
    """The proof of one derivation on one kind of numbers."""

    derivation: str
    numbers: str
    what: str
    error: str
    refuted: str | None
    plain: dict[str, Any]


def proofs(points: int, seed: int) -> Iterator[ProofRow]:
    """Prove every built-in derivation over the rationals, over power series, and on symbols."""
    from bptt_verifier.proofs import rational as rational_proof  # noqa: PLC0415 - need an extra
    from bptt_verifier.proofs import symbolic as symbolic_proof  # noqa: PLC0415 - need an extra
    from bptt_verifier.proofs import symbolic_tangents  # noqa: PLC0415 - need an extra
    from bptt_verifier.proofs import tangents as tangent_proof  # noqa: PLC0415 - need an extra

    def certified(numbers: str, what: str, found: rational_proof.Certificate) -> ProofRow:
        done = what.format(done=found.identities, degree=found.degree, order=found.degree - 1)
        error = f"< 10^{found.log10_error:.1f}"
        return ProofRow(found.derivation, numbers, done, error, found.refuted, found.to_dict())

    identities, models = "{done} identities, degree ≤ {degree}", "{done} models, to order {order}"
    for name, module in rational_proof.DERIVATIONS.items():
        found = rational_proof.prove_polynomials(name, module, points=points, seed=seed)
        yield certified("rationals", identities, found)
    for name, module in rational_proof.MODULES.items():
        found = rational_proof.prove_series(name, module, seed=seed)
        yield certified("power series", models, found)
    cases = dict.fromkeys(rational_proof.DERIVATIONS, symbolic_proof.free_cases())
    cases |= {name: symbolic_proof.own_cases(name.lower()) for name in rational_proof.MODULES}
    for name, module in (rational_proof.DERIVATIONS | rational_proof.MODULES).items():
        proof = symbolic_proof.prove_symbolically(name, module, cases[name])
        what = f"{proof.models} models, {proof.entries} entries"
        numbers = "symbols, any φ" if name in rational_proof.DERIVATIONS else "symbols"
        yield ProofRow(name, numbers, what, "0", proof.refuted, proof.to_dict())
    name = "JVP and HVP"
    polynomials = tangent_proof.prove_tangent_polynomials(name, tangents, seed=seed)
    yield certified("rationals", identities, polynomials)
    expanded = tangent_proof.prove_tangent_series(name, tangents, seed=seed)
    yield certified("power series", models, expanded)
    free = symbolic_tangents.free_tangent_cases()
    proof = symbolic_tangents.prove_tangents_symbolically(name, tangents, free)
    what = f"{proof.models} models, {proof.entries} entries"
    yield ProofRow(name, "symbols, any φ", what, "0", proof.refuted, proof.to_dict())


def prove(
    context: Context,
    points: Annotated[int, Option(min=1, help="Random rational points for each identity.")] = 1,
    seed: Annotated[int, Option(min=0, help="Seed of the random points.")] = 0,
    machine: Annotated[bool, Option("--machine", help="Only the theorems, by Rocq.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Prove the derivations on exact numbers, on symbols and by theorems, with no tolerance."""
    if machine:
        expected = "expected it without --machine, found both"
        refuse_given(context, dict.fromkeys(("points", "seed"), expected))
    require_writable("--json", json_file)
    with text_beside_json(json_file):
        plain = check_all(points, seed, machine=machine)
    write_json(json_file, plain)
    raise Exit(0 if plain["holds"] else 1)


def check_all(points: int, seed: int, *, machine: bool) -> dict[str, Any]:
    """Prove everything, or the theorems only; print it, and return it as plain values."""
    refuted: list[tuple[str, str]] = []
    plain: dict[str, Any] = {"seed": seed}
    if not machine:
        rows = prove_on_numbers(points, seed)
        refuted += [(row.derivation, row.refuted) for row in rows if row.refuted is not None]
        plain["rows"] = [{"numbers": row.numbers, **row.plain} for row in rows]
    try:
        checked = check_theorems()
    except theorems.MissingRocq as missing:
        if machine:
            raise
        print_paragraphs(f"not checked: {missing}")
    else:
        refuted += [(theorem.name, theorem.refuted) for theorem in checked if theorem.refuted]
        plain["theorems"] = [theorem.to_dict() for theorem in checked]
    for name, why in refuted:
        print_paragraphs(f"{name}: {why}")
    return {"holds": not refuted, **plain}


def prove_on_numbers(points: int, seed: int) -> list[ProofRow]:
    """Prove the derivations on exact numbers and on symbols; print the table."""
    rows = collect_rows("proving", proofs(points, seed), 15)
    table = empty_table("derivation", "numbers", "proved", "probability of error", "verdict")
    for row in rows:
        error = row.error if row.refuted is None else ""
        verdict = Verdict.AGREES if row.refuted is None else Verdict.DISAGREES
        table.add_row(row.derivation, row.numbers, row.what, error, verdict_text(verdict))
    print_uncut(table)
    return rows


def check_theorems() -> list[theorems.Theorem]:
    """Check the theorems for every T and every size; print the table. Raises MissingRocq."""
    theorems.find_coqc()
    checked = collect_rows("checking", theorems.check(), len(theorems.stated()))
    table = empty_table("theorem", "file", "for every T and every size", "verdict")
    for theorem in checked:
        verdict = Verdict.DISAGREES if theorem.refuted else Verdict.AGREES
        file = f"proofs/{theorem.file}.v"
        table.add_row(theorem.name, file, theorem.statement, verdict_text(verdict))
    print_uncut(table)
    return checked
