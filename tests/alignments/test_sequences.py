"""Contract of `modeling_msa.alignments.sequences`.

A file is read whole or refused with its name and the sequence's. A sequence is placed on the query as it was made of
it, whatever the family is; what is not related, or changes what has no column, is a misfit.
"""

import sys

import numpy as np
import pytest

from modeling_msa import Alignment
from modeling_msa.alignments.edits import Edit, edit_names, normal_form
from modeling_msa.alignments.sequences import place_sequences, read_sequences

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
QUERY = "HPETLVKVKDAEDQLGARVGYIELDLNSGKILESFRPEERFPMMSTFKVLLCGAVLSRVDAGQEQLGRR"


def alone(query):
    return Alignment.from_sequences([query])


def test_every_single_event_is_found_again():
    """All substitutions, deletions of 1 and 7, and insertions of 1 and 12: a sequence is what it was made by."""
    family, events = alone(QUERY), []
    for k in range(len(QUERY)):
        events += [Edit(k, k + 1, "A"), Edit(k, k + 1, ""), Edit(k, k, "W"), Edit(k, k, "GGSGGSGGSGGS")]
        events += [Edit(k, k + 7, "")] if k + 7 <= len(QUERY) else []
    events += [Edit(len(QUERY), len(QUERY), "HHHHHH")]
    proteins = [QUERY[:start] + letters + QUERY[end:] for start, end, letters in events]
    edits, misfits = place_sequences(family, proteins)
    assert not any(misfits)
    assert edits == [normal_form(QUERY, [each]) for each in events]


def test_several_events_are_found_by_hmmer():
    """Two deletions and an insertion far from each other, which no single gap explains."""
    text = f"{QUERY[:10]}{QUERY[12:30]}GS{QUERY[30:50]}{QUERY[51:]}"
    (edits,), (misfits,) = place_sequences(alone(QUERY), [text])
    assert not misfits
    assert edit_names(QUERY, edits) == "A11_E12del:K30_I31insGS:L51del"
    # as many residues as the query, but shifted between two events
    shifted = QUERY[:20] + QUERY[21:50] + "W" + QUERY[50:]
    (edits,), _ = place_sequences(alone(QUERY), [shifted])
    assert edit_names(QUERY, edits) == "Y21del:V50_L51insW".replace("V50_L51", f"{QUERY[49]}50_{QUERY[50]}51")


def test_substitutions_stay_substitutions():
    """Up to 30 of 69, also side by side and with the letters of their neighbours."""
    random = np.random.default_rng(1)
    proteins = []
    for count in (2, 4, 10, 20, 30):
        for _ in range(20):
            letters = np.array(list(QUERY))
            start = random.integers(0, len(QUERY) - count + 1)
            places = random.choice(len(QUERY), count, False) if random.random() < 0.5 else range(start, start + count)
            letters[list(places)] = random.choice(list(LETTERS), count)
            proteins.append("".join(letters))
    proteins.append(QUERY[:38] + QUERY[39:42] + QUERY[38] + QUERY[42:])  # four residues turned by one
    edits, misfits = place_sequences(alone(QUERY), proteins)
    assert not any(misfits)
    for protein, some in zip(proteins, edits, strict=True):
        expected = [Edit(k, k + 1, b) for k, (a, b) in enumerate(zip(QUERY, protein, strict=True)) if a != b]
        assert list(some) == expected


def test_the_place_does_not_depend_on_the_family():
    """Homologs that lack a part of the query, and have another one."""
    rows = [QUERY, *[f"{QUERY[:20]}{'-' * 20}{QUERY[40:60].lower()}{QUERY[40:]}" for _ in range(9)]]
    protein = QUERY[:25] + QUERY[27:35] + "GG" + QUERY[35:]
    assert place_sequences(Alignment.from_sequences(rows), [protein]) == place_sequences(alone(QUERY), [protein])


def test_what_does_not_fit():
    random = np.random.default_rng(0)
    other = "".join(random.choice(list(LETTERS), 70))
    family = Alignment.from_sequences([QUERY[:5].lower() + QUERY[5:]])
    cases = {
        other: "it does not align to the query",
        "W": "it does not align to the query",
        QUERY[:25]: "it has residues in 20 of the query's 64 columns; at least half must have one",
        QUERY[5:]: "residue 1 (H) is in lower case in the query",
        "G" + QUERY: "residue 1 (H) is in lower case in the query",
        "A" + QUERY[1:]: "residue 1 (H) is in lower case",
        QUERY[:20] + "X" + QUERY[20:]: "near residue 20, X is not one of the 20 amino acids",
        QUERY[:20] + "B" + QUERY[21:]: "near residue 21, B is not one of the 20 amino acids",
        "A" * 100_001: "it has 100,001 residues; HMMER aligns at most 100,000",
    }
    edits, misfits = place_sequences(family, list(cases))
    assert edits == [()] * len(cases)
    for some, words in zip(misfits, cases.values(), strict=True):
        assert some[0].words.startswith(words), (some, words)
    assert place_sequences(family, [QUERY[:20] + "X" + QUERY[20:]], 100)[1][0][0].words.startswith("near residue 120")
    replaced = place_sequences(alone("X" + QUERY), ["W" + QUERY])[1][0]
    assert replaced[0].words == "near residue 1, the query's X is not one of the 20 amino acids."
    # an X that the query has too is no change
    assert place_sequences(alone("X" + QUERY), ["X" + QUERY[:9] + QUERY[10:]])[1] == [[]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; give sequences as FASTA"),
        ("\n\n", "is empty; give sequences as FASTA"),
        ("MKVL\n", "line 1"),
        (">a\nMKVL\n>a\nMKV\n", r"sequences 1 and 2 have the same name \(a\)"),
        (">\nMKVL\n", "sequence 1 has no name"),
        (">a\nMKVL\n>b\n", "b has no sequence"),
        (">a\nMKVL\n>b\n---*\n", "b has no sequence"),
        (">a\nMKVL\n>b\nMK1L\n", r"row 2 \(b\), line 4, column 3, is '1'"),
        (">a\nMK*VL\n", r"residue 3 of a is '\*'"),
        (">a\nMK?VL\n", r"residue 3 of a is '\?'"),
        (">a\n" + "ACGT" * 10 + "\n", "a looks like DNA or RNA"),
    ],
)
def test_files_that_are_refused(text, words, tmp_path):
    path = tmp_path / "v.fasta"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"v\.fasta: .*{words}"):
        read_sequences(path)
    with pytest.raises(FileNotFoundError):
        read_sequences(tmp_path / "none.fasta")


def test_files_that_are_read(tmp_path):
    """Lower case, gaps, stops, Windows lines; and names that mean something in an alignment, not here."""
    path = tmp_path / "v.fasta"
    path.write_bytes(b">fn3_consensus\r\nmk-VL*\r\n>ss_pred a b\r\nMK\r\nVL\r\n")
    assert read_sequences(path) == (["fn3_consensus", "ss_pred a b"], ["MKVL", "MKVL"])


def test_without_pyhmmer(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyhmmer", None)
    with pytest.raises(ImportError, match=r"requires pyhmmer: pip install 'modeling-msa\[search\]'"):
        place_sequences(alone(QUERY), [QUERY])
