"""Values by identity: equal keys are apart, and no key is mistaken for one that is gone."""

from bptt_verifier.mistakes.identity import ByIdentity


def test_equal_keys_have_values_of_their_own() -> None:
    one, other = [1], [1]
    found = ByIdentity[list[int], str]()
    found[one] = "one"
    assert one in found
    assert other not in found
    assert found[one] == "one"
    found[one] = "again"
    assert (found[one], len(found)) == ("again", 1)


def test_a_new_key_is_never_an_old_one() -> None:
    found = ByIdentity[list[int], int]()
    for number in range(50):
        fresh = [number]  # without the entry, its memory would be free for the next one
        assert fresh not in found
        found[fresh] = number
    assert len(found) == 50
