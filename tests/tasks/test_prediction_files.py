"""The contract of tables of predictions: numbers, names and probabilities stand beside what they are of."""

import csv

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import Prediction, write_contacts, write_prediction
from modeling_msa.alignments.tables import Table
from modeling_msa.tasks.prediction_files import gather_tables

NAN = np.nan


def prediction(of, kind, labels, scores, variants=(), reasons=()):
    residues = np.array([2, 3, 5])
    scores = np.array(scores, dtype=np.float32)
    return Prediction("q/1", "mKVaL".upper(), of, kind, labels, scores, residues, variants, reasons, 7)


RESIDUES = prediction("residues", "classes", ("H", "other, E"), [[0.25, 0.75], [1, 0], [0.5, 0.5]])
VARIANTS = ("K2R", "A4V", "WT")
REASONS = ("", "no column", "")
NUMBERS = prediction("variants", "values", ("value",), [[-1234.5678], [NAN], [0.1]], VARIANTS, REASONS)
KINDS = prediction("variants", "classes", ("a", "b"), [[0.75, 0.25], [NAN, NAN], [0, 1]], VARIANTS, REASONS)


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_tables_by_hand(ending, tmp_path):
    path = tmp_path / f"t{ending}"
    write_prediction(RESIDUES, path)
    assert read(path) == [
        ["residue", "amino_acid", "label", "p_H", "p_other, E"],
        ["2", "K", "other, E", "0.250000", "0.750000"],
        ["3", "V", "H", "1.000000", "0.000000"],
        ["5", "L", "H", "0.500000", "0.500000"],  # of equal ones the first
    ]
    write_prediction(prediction("alignment", "classes", ("a", "b"), [[0.25, 0.75]]), path)
    assert read(path) == [["name", "label", "p_a", "p_b"], ["q/1", "b", "0.250000", "0.750000"]]
    write_prediction(prediction("alignment", "labels", ("a", "b"), [[0.25, 1]]), path, name="f0")
    assert read(path) == [["name", "p_a", "p_b"], ["f0", "0.250000", "1.000000"]]
    write_prediction(prediction("alignment", "values", ("x", "y"), [[2e-9, -31.25]]), path)
    assert read(path) == [["name", "x", "y"], ["q/1", "2e-09", "-31.25"]]


def test_tables_of_variants(tmp_path):
    path = tmp_path / "t.csv"
    write_prediction(NUMBERS, path)
    assert read(path) == [
        ["mutant", "value", "reason"],
        ["K2R", "-1234.568", ""],
        ["A4V", "", "no column"],
        ["WT", "0.1", ""],
    ]
    own = Table(["id", "mutant"], [["1", "K2R"], ["1", "A4V"], ["", "WT"]], [2, 3, 4])
    write_prediction(KINDS, path, own)
    assert read(path) == [
        ["id", "mutant", "label", "p_a", "p_b", "reason"],
        ["1", "K2R", "a", "0.750000", "0.250000", ""],
        ["1", "A4V", "", "", "", "no column"],
        ["", "WT", "b", "0.000000", "1.000000", ""],
    ]
    with pytest.raises(ValueError, match="already has a column value and reason"):
        write_prediction(NUMBERS, path, Table(["mutant", "value", "reason"], own.rows, own.lines))


def test_contacts_as_in_their_own_files(tmp_path):
    contacts = contact_map(8, [1, 2, 3, 4, 5, 6, 7, 9], p0_6=0.25, p1_7=0.5)
    write_prediction(contacts, tmp_path / "c.tsv")
    write_contacts(contacts, tmp_path / "expected.tsv")
    assert (tmp_path / "c.tsv").read_text() == (tmp_path / "expected.tsv").read_text()
    write_prediction(contacts, tmp_path / "c.csv")
    assert read(tmp_path / "c.csv") == read(tmp_path / "expected.tsv")


@pytest.mark.parametrize("found", [RESIDUES, NUMBERS, contact_map(p0_6=0.5)], ids=["residues", "variants", "contacts"])
def test_numpy_without_pickle(found, tmp_path):
    write_prediction(found, tmp_path / "p.NPZ")
    assert [path.name for path in tmp_path.iterdir()] == ["p.NPZ"]
    with np.load(tmp_path / "p.NPZ", allow_pickle=False) as arrays:
        assert set(arrays) == set(vars(found)) - {"chains"}
        for name in arrays:
            assert np.array_equal(arrays[name], np.array(vars(found)[name]), equal_nan=arrays[name].dtype.kind == "f")


def test_other_endings_leave_nothing(tmp_path):
    for name in ("p.txt", "p", "p.rr"):
        with pytest.raises(ValueError, match=r"unknown output format .*; use \.tsv, \.csv or \.npz"):
            write_prediction(RESIDUES, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_tables_one_below_the_other(tmp_path):
    for name, text in (("a", "name\tx\nf0\t1\n"), ("b", "name\tx\nf1\t2\n")):
        (tmp_path / name).write_text(text)
    assert gather_tables([tmp_path / "a", tmp_path / "b"], tmp_path / "all.tsv") == [tmp_path / "all.tsv"]
    assert (tmp_path / "all.tsv").read_text() == "name\tx\nf0\t1\nf1\t2\n"


def test_a_value_with_the_name_of_another_column(tmp_path):
    result = prediction("alignment", "values", ("name",), [[0.5]])
    with pytest.raises(ValueError, match="names a value 'name', the column of the alignments: rename it"):
        write_prediction(result, tmp_path / "p.tsv")
    assert list(tmp_path.iterdir()) == []
