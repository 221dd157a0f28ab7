"""The contract of simulated families: they follow from seed, number and kind, as they always did."""

import sys
from pathlib import Path

import pytest

from modeling_msa.training import simulation

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "synthetic_families"))


def test_numbers_of_the_first_version():
    """Written down before the simulator moved into the package."""
    family, contacts = simulation.make_family(2, 7, "natural")
    assert (family.depth, family.length) == (814, 55)
    assert family.query[:30] == "YVIVILIVLIGIWVMIVLIIGAVLLILLKA"
    assert family.names[0] == "family_2_7"
    assert contacts.shape == (55, 55)


def test_the_example_uses_it():
    import simulate

    assert simulate.make_family is simulation.make_family


@pytest.mark.parametrize(("seed", "index", "kind"), [(2, 7, "natural"), (0, 0, "varied")])
def test_sizes_are_known_before(seed, index, kind):
    depth, length = simulation.family_size(seed, index, kind)
    family, _ = simulation.make_family(seed, index, kind)
    assert depth == family.depth
    assert 0.8 * length < family.length <= length  # columns that the query has lost are left out
