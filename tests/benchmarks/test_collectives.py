"""Exchanges between devices are found in a program, and their bytes counted."""

import pytest

from benchmarks import jax_steps
from benchmarks.collectives import find_exchanges
from tests.support.benchmarks import HERE, problem


def test_every_kind_of_exchange_in_a_program_is_counted() -> None:
    program = """
      %a = f32[3,4]{1,0} all-gather(%x), dimensions={0}
      ROOT %b = f64[] all-reduce(%y), to_apply=%add
      %c = f32[2]{0} add(%x, %all-reduce)
      %d = (f32[2,3]{1,0}, bf16[5]{0}) all-reduce-start(%x, %y), to_apply=%add
    """
    assert find_exchanges(program) == [
        ("all-gather", 12, 48), ("all-reduce", 1, 8), ("all-reduce", 11, 34),
    ]  # fmt: skip


def test_a_program_on_one_device_exchanges_nothing() -> None:
    assert find_exchanges("%c = f32[2]{0} add(%x, %y)") == []


@pytest.mark.rest
def test_a_step_on_a_mesh_says_what_it_exchanges() -> None:
    shared = jax_steps.shared_out("shared", problem(), HERE, devices=1)
    numbers = sum(weight.size for weight in problem().weights.values())
    assert shared.exchanged_bytes == 4 * (numbers + 2)  # the loss, and the number of devices
    assert jax_steps.manual_jit("alone", problem(), HERE).exchanged_bytes is None
