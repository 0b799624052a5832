"""`python -m campaign`: judge random right and wrong gradients of random models.

What is found is appended to build/campaign.jsonl, a line a model; a later run goes on from there.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import count as count_up
from pathlib import Path

from campaign.run import (
    Row,
    count,
    find_latest,
    judge_model,
    list_faults,
    read_rows,
    run_campaign,
    summarise,
)


def main() -> int:
    """Print what needs a look, and a summary; return 1 if a right one is called wrong."""
    parser = argparse.ArgumentParser(prog="python -m campaign", description=__doc__)
    parser.add_argument("--right", type=int, default=200, help="right submissions in all")
    parser.add_argument("--wrong", type=int, default=200, help="wrong submissions in all")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same models")
    parser.add_argument("--each", type=int, default=8, help="submissions of a kind for each model")
    parser.add_argument("--seconds", type=float, default=1.0, help="for the name of a mistake")
    parser.add_argument("--file", type=Path, default=Path("build/campaign.jsonl"))
    parser.add_argument("--again", type=int, nargs="*", help="judge these models once more")
    parser.add_argument("--summary", action="store_true", help="judge nothing")
    chosen = parser.parse_args()
    seed, known = chosen.seed, find_latest(read_rows(chosen.file), chosen.seed)

    def judge_number(number: int) -> Row:
        right, wrong = chosen.each * (chosen.right > 0), chosen.each * (chosen.wrong > 0)
        return judge_model(seed, number, right, wrong, chosen.seconds)

    def show(row: Row) -> None:
        print(f"{row['number']:5} {row.get('seconds', 0):6.1f} s  {row['model']}", flush=True)
        for fault in list_faults(row):
            print(f"      {fault}", flush=True)

    def enough(rows: Sequence[Row]) -> bool:
        if chosen.again is not None:
            return False
        few = count(rows, True) < chosen.right or count(rows, False) < chosen.wrong
        return not few

    numbers: Iterator[int] = (number for number in count_up() if number not in known)
    if chosen.again is not None:
        numbers = iter(chosen.again)
    if chosen.summary:
        numbers = iter(())
    rows = run_campaign(chosen.file, seed, numbers, enough, judge_number, show)
    print(*summarise(rows), sep="\n")
    right = (each for row in rows for each in row["submissions"] if each["right"])
    return int(any(each["verdict"] not in ("agrees", "inconclusive") for each in right))


if __name__ == "__main__":
    raise SystemExit(main())
