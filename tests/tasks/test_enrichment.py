"""The contract of enrichment: the strength of each residue's strongest pairs, in units of their mean."""

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import Chain, ContactMap, enrichment, write_enrichment


def test_table_by_hand(tmp_path):
    """Of three pairs of mean 0.5, residue 9 has two; the pairs of neighbours do not count, nor does the fourth."""
    contacts = contact_map(9, [1, 2, 3, 4, 5, 6, 7, 9, 11], p0_7=0.8, p1_7=0.4, p0_6=0.3, p1_8=0.1, p0_1=0.99)
    write_enrichment(contacts, tmp_path / "e.tsv", count=3)
    assert (tmp_path / "e.tsv").read_text().splitlines() == [
        "residue\tamino_acid\tpairs\tstrength\tenrichment",
        "1\tM\t2\t1.100000\t2.200000",
        "2\tK\t1\t0.400000\t0.800000",
        "3\tV\t0\t0.000000\t0.000000",
        "4\tL\t0\t0.000000\t0.000000",
        "5\tA\t0\t0.000000\t0.000000",
        "6\tW\t0\t0.000000\t0.000000",
        "7\tY\t1\t0.300000\t0.600000",
        "9\tD\t2\t1.200000\t2.400000",
        "11\tM\t0\t0.000000\t0.000000",
    ]
    with pytest.raises(ValueError, match=r"unknown output format '.csv'; use \.tsv"):
        write_enrichment(contacts, tmp_path / "e.csv")


def test_l_pairs_by_default():
    """Twice their number is shared out among the residues; a map without pairs is defined."""
    rng = np.random.default_rng(0)
    values = rng.random((30, 30))
    contacts = ContactMap("q", "MKVLAWYCDE" * 3, np.arange(1, 31), values + values.T, 7)
    found = enrichment(contacts)
    assert found.pairs.sum() == 60
    assert found.enrichment.sum() == pytest.approx(60)
    short = ContactMap("q", "MKVLA", np.arange(1, 6), np.zeros((5, 5)), 7)
    assert enrichment(short).enrichment.tolist() == [0] * 5


def test_a_complex_is_numbered_by_chain(tmp_path):
    made = contact_map(8, p0_4=0.8, p0_7=0.4)
    pair = ContactMap("pair", "MKVLAWYC", made.residues, made.probabilities, 7, (Chain("A", 4), Chain("B", 4)))
    write_enrichment(pair, tmp_path / "e.tsv", count=1, between_chains=True)
    lines = (tmp_path / "e.tsv").read_text().splitlines()
    assert lines[1] == "A:1\tM\t1\t0.800000\t1.000000"
    assert lines[5] == "B:1\tA\t1\t0.800000\t1.000000"


def test_pairs_in_no_window_do_not_count():
    """Of a complex in windows too: those that are left, in units of their own mean."""
    made = contact_map(9, p0_6=0.9, p0_7=0.6, p1_7=0.3)
    made.probabilities[0, 6] = made.probabilities[6, 0] = np.nan
    found = enrichment(made, count=2)
    assert found.pairs.tolist() == [1, 1, 0, 0, 0, 0, 0, 2, 0]
    assert found.strength == pytest.approx([0.6, 0.3, 0, 0, 0, 0, 0, 0.9, 0])
    assert found.enrichment[7] == pytest.approx(2)
    chains = (Chain("A", 5), Chain("B", 4))
    pair = ContactMap("pair", "MKVLAWYCD", made.residues, made.probabilities, 7, chains)
    assert enrichment(pair, count=1, between_chains=True).strength[0] == pytest.approx(0.6)
    made.probabilities[:] = np.nan
    assert enrichment(made).strength.tolist() == [0] * 9
