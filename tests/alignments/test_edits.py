"""Contract of `modeling_msa.alignments.edits`: edits have one form, in which the protein they make stays the same."""

import itertools

import numpy as np
import pytest

from modeling_msa.alignments.edits import Edit, apply_edits, edit_names, edits_between, kept_residues, normal_form


def made(query, edits):
    """The protein, by hand: from the last edit to the first, so that numbers stay."""
    for start, end, letters in sorted(edits, reverse=True):
        query = query[:start] + letters + query[end:]
    return query


def one_gap(query, sequence):
    """Most residues that stay with one gap, and the last start of that gap, by trying all."""
    short = min(len(query), len(sequence))
    kept = {}
    for cut in range(short + 1):
        pairs = [*zip(query[:cut], sequence[:cut], strict=True)]
        back = short - cut
        pairs += zip(query[len(query) - back :], sequence[len(sequence) - back :], strict=True)
        kept[cut] = sum(a == b for a, b in pairs)
    return max(kept.values()), max(cut for cut, count in kept.items() if count == max(kept.values()))


def test_by_hand():
    query = "MKKKVLAGAGW"
    for edits, expected in (
        ([Edit(1, 2, "")], [Edit(3, 4, "")]),
        ([Edit(1, 1, "K")], [Edit(4, 4, "K")]),
        ([Edit(6, 8, "")], [Edit(8, 10, "")]),  # AG of AGAG
        ([Edit(7, 9, "")], [Edit(8, 10, "")]),  # GA, the same protein
        ([Edit(6, 6, "AG")], [Edit(10, 10, "AG")]),
        ([Edit(4, 5, "VV")], [Edit(5, 5, "V")]),
        ([Edit(4, 6, "I")], [Edit(4, 5, "I"), Edit(5, 6, "")]),  # filled from the left
        ([Edit(4, 6, "L")], [Edit(4, 5, "")]),  # the L stays
        ([Edit(4, 5, "V")], []),
        ([Edit(4, 5, ""), Edit(5, 5, "I")], [Edit(4, 5, "I")]),
        ([Edit(1, 2, ""), Edit(3, 4, "R")], [Edit(2, 3, "R"), Edit(3, 4, "")]),
        ([Edit(11, 11, "GG")], [Edit(11, 11, "GG")]),
        ([Edit(0, 0, "GG")], [Edit(0, 0, "GG")]),
    ):
        assert normal_form(query, edits) == tuple(expected), edits
        assert made(query, edits) == made(query, expected)


def test_no_residue_without_a_column_is_moved_to():
    covered = np.array([True, True, True, False, True])
    assert normal_form("MKKKV", [Edit(1, 2, "")], covered) == (Edit(2, 3, ""),)
    assert normal_form("MKKKV", [Edit(1, 1, "K")], covered) == (Edit(3, 3, "K"),)


def test_the_same_protein_has_one_form():
    """All deletions, insertions and replacements of up to two residues, in a query of two letters, full of repeats."""
    query = "AABABBBAAB"
    forms = {}
    for start, size, count in itertools.product(range(len(query)), range(3), range(3)):
        for letters in map("".join, itertools.product("AB", repeat=count)):
            edits = [Edit(start, min(start + size, len(query)), letters)]
            found = normal_form(query, edits)
            assert made(query, edits) == made(query, found) == apply_edits(query, found)[0]
            assert all(not (each.letters and each.end > each.start) or each.is_substitution for each in found)
            if sum(not each.is_substitution for each in found) == len(found) == 1:
                forms.setdefault(made(query, edits), set()).add(found)
    assert len(forms) > 30
    assert all(len(found) == 1 for found in forms.values())
    # a whole sequence has the form of the edit that made it
    assert all(edits_between(query, protein) == next(iter(found)) for protein, found in forms.items())


def test_one_gap_where_most_residues_stay():
    random = np.random.default_rng(0)
    for _ in range(200):
        query, sequence = ("".join(random.choice(list("ACD"), random.integers(1, 12))) for _ in range(2))
        edits = edits_between(query, sequence)
        assert made(query, edits) == sequence
        kept, cut = one_gap(query, sequence)
        if len(query) == len(sequence):
            assert all(each.is_substitution for each in edits)
        else:
            assert kept_residues(query, edits) == kept
            gap = next(each for each in edits if not each.is_substitution)
            assert gap.start == cut


def test_pairs_of_an_alignment():
    """M K V L A W Y against M V L G G A Y: K and W are missing, GG is new."""
    pairs = [(0, 0), (2, 1), (3, 2), (4, 5), (6, 6)]
    edits = edits_between("MKVLAWY", "MVLGGAY", pairs)
    assert edits == (Edit(1, 2, ""), Edit(4, 4, "GG"), Edit(5, 6, ""))
    sequence, numbers = apply_edits("MKVLAWY", edits)
    assert (sequence, numbers.tolist()) == ("MVLGGAY", [1, 3, 4, 0, 0, 5, 7])
    assert edit_names("MKVLAWY", edits, 10) == "K12del:L14_A15insGG:W16del"


@pytest.mark.parametrize("edits", [(Edit(0, 0, "GG"),), (Edit(6, 6, "G"),), (Edit(0, 2, ""), Edit(3, 4, "W"))])
def test_apply_at_the_ends(edits):
    sequence, numbers = apply_edits("MKVLAW", edits)
    assert sequence == made("MKVLAW", edits)
    aligned = numbers > 0
    assert (np.diff(numbers[aligned]) > 0).all()
    assert (~aligned).sum() == sum(len(each.letters) for each in edits if not each.is_substitution)
