"""What the devices of a compiled program exchange, read from its HLO."""

import re
from math import prod
from typing import NamedTuple

NAMES = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
BYTES = {"bf16": 2, "f16": 2, "f32": 4, "f64": 8, "s32": 4, "u32": 4, "pred": 1}
INSTRUCTION = re.compile(rf"= (\(?\w+\[[^=]*?) ({NAMES})(?:-start)?\(")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Exchange(NamedTuple):
    """An instruction that exchanges arrays: its name, how many numbers, and their bytes."""

    name: str
    numbers: int
    size: int


def find_exchanges(program: str) -> list[Exchange]:
    """Find the instructions of a program, in HLO, that exchange arrays between devices."""
    found = []
    for shapes, name in INSTRUCTION.findall(program):
        arrays = [
            (BYTES[kind], prod(int(size) for size in sizes.split(",") if size))
            for kind, sizes in ARRAY.findall(shapes)
        ]
        numbers = sum(count for _, count in arrays)
        found.append(Exchange(name, numbers, sum(each * count for each, count in arrays)))
    return found
