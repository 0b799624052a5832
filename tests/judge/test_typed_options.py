"""Options that entry points pass on: each may be left out."""

from typing import Any

import pytest

from bptt_verifier.judge import options


@pytest.mark.parametrize("name", [each for each in vars(options) if each.endswith("Options")])
def test_no_option_has_to_be_given(name: str) -> None:
    typed: Any = getattr(options, name)
    assert typed.__required_keys__ == frozenset()
    assert {"seed", "subject"} <= typed.__optional_keys__
