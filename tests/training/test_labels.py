"""Contract of `modeling_msa.training.labels`, and of labels in `MsaDataset` and `VariantDataset`.

- Labels go by the name of the alignment; one that is missing, of another length or not a class is an error that names
  it, before training starts.
"""

import numpy as np
import pytest
from made_up import SHARED, TOKENIZER, a3m, real_data, write_folder

from modeling_msa.alignments.known_contacts import contact_files
from modeling_msa.training.collators import (
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForSequenceClassification,
)
from modeling_msa.training.datasets import MsaDataset, VariantDataset
from modeling_msa.training.labels import read_labels
from modeling_msa.training.sampler import SizeGroupedSampler


def test_dataset_labels_go_by_name(tmp_path):
    write_folder(tmp_path, 3)
    labels = {"f0": 1, "f1": 0, "f2": 1, "of-another-folder": 5}
    assert [MsaDataset(tmp_path, labels=labels)[k]["labels"] for k in range(3)] == [1, 0, 1]
    del labels["f1"]
    with pytest.raises(ValueError, match="1 of 3 alignments have no label, the first is 'f1'"):
        MsaDataset(tmp_path, labels=labels)
    assert MsaDataset(tmp_path, labels=labels, on_error="skip").names == ["f0", "f2"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f0.a3m").write_text(a3m(["MKV"]))
    with pytest.raises(ValueError, match="have the same name, 'f0'"):
        MsaDataset(tmp_path, labels=labels)


def test_labels_of_another_length_are_found_at_the_start(tmp_path):
    (tmp_path / "a.a3m").write_text(a3m(["mKV--Lc", "RVAGL"]))  # five residues
    assert MsaDataset(tmp_path, labels={"a": np.arange(5)})[0]["labels"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"a.a3m: labels have 7 entries, but the query has 5 residues"):
        MsaDataset(tmp_path, labels={"a": np.arange(7)})
    np.save(tmp_path / "a.npy", np.zeros((4, 4), dtype=np.int8))
    with pytest.raises(ValueError, match=r"a.a3m: labels \(.*a.npy\) have 4 x 4 entries, but the query has 5"):
        MsaDataset(tmp_path, labels=contact_files(tmp_path))


def test_tables_of_labels(tmp_path):
    def read(name, text, *args, **kwargs):
        (tmp_path / name).write_text(text)
        return read_labels(tmp_path / name, *args, **kwargs)

    assert read("a.csv", "name,label\nf0,1\nf1,0\n") == ({"f0": 1, "f1": 0}, None)
    assert read("a.tsv", "label\tname\n0.5\tf0\n1\tf1\n") == ({"f0": 0.5, "f1": 1.0}, None)
    assert read("a.csv", "name,label\nf0,kinase\nf1,lyase\nf2,kinase\n") == (
        {"f0": 0, "f1": 1, "f2": 0},
        ("kinase", "lyase"),
    )
    assert read("a.csv", "name,label\nf0,b\n", ["a", "b"]).by_name == {"f0": 1}
    by_name, classes = read("a.jsonl", '{"name": "f0", "labels": "HHEC?"}\n')
    assert (by_name["f0"].tolist(), classes) == ([2, 2, 1, 0, -100], ("C", "E", "H"))
    assert read("a.jsonl", '{"name": "f1", "labels": [0, null, 2]}').by_name["f1"].tolist() == [0, -100, 2]
    by_name, classes = read("a.fasta", ">f0 chain A\nHH\nE\n>f1\nEC\n", "HEC")
    assert (by_name["f0"].tolist(), by_name["f1"].tolist(), classes) == ([0, 0, 1], [1, 2], ("H", "E", "C"))
    for name, text, options, message in (
        ("a.csv", "id,label\n1,2\n", {}, "the columns are id, label"),
        ("a.csv", "name,label\n", {}, "the table has no row below the header"),
        ("a.csv", "name,label\nf0,1\nf0,1\n", {}, "line 3: 'f0' is already in line 2"),
        ("a.csv", "name,label\nf0,1\nf1,\n", {}, "line 3: the name or the label is missing"),
        ("a.csv", "name,label\nf0,1\nf1,7\n", {"num_labels": 3}, r"line 3 \(f1\): 7 is not a class; .* are 0 to 2"),
        (
            "a.csv",
            "name,label\nf0,c\n",
            {"classes": ["a", "b"]},
            r"line 2 \(f0\): 'c' is not a class; the classes are a, b",
        ),
        ("a.csv", "name,label\nf0,nan\n", {}, "the label is nan"),
        ("a.jsonl", '{"name": "f0", "labels": "HX"}', {"classes": "HEC"}, r"line 1 \(f0\): 'X' is not a class"),
        ("a.jsonl", '{"name": "f0"', {}, "line 1: is not JSON"),
        ("a.jsonl", '{"id": "f0", "label": 1}', {}, 'line 1: lacks a key; each line is an object with "name"'),
        ("a.xlsx", "", {}, "unknown format of labels; use .csv"),
    ):
        with pytest.raises(ValueError, match=message):
            read(name, text, **options)


@real_data
def test_structures_are_labels():
    pytest.importorskip("gemmi")
    names = ["1prw", "5trv", "6e6r", "6exz"]
    files = [SHARED / "msa" / f"{name}.a3m" for name in names]
    dataset = MsaDataset(files, labels=contact_files(SHARED / "structure"))
    for k in range(4):
        feature = dataset[k]
        labels = feature["labels"]
        assert labels.shape == (len(feature["alignment"].query),) * 2
        i, j = np.nonzero(labels == 1)
        # a protein has two or three contacts of this separation for each residue
        assert 0.5 < (j - i >= 6).sum() / len(labels) < 5
    batch = MsaDataCollatorForContactPrediction(TOKENIZER, max_tokens=512)([dataset[2], dataset[3]])
    assert batch["labels"].shape == (2, 69, 69)


@real_data
def test_variants_of_gb1():
    dataset = VariantDataset(SHARED / "msa" / "gb1.a2m", SHARED / "variants" / "gb1_four_site.csv")
    assert len(dataset) == 2076
    example = dataset[dataset.names.index("V39N:D40E:G41W:V54M")]
    wild = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
    assert dataset.alignment.query == wild
    assert example["alignment"].query == wild[:38] + "NEW" + wild[41:53] + "M" + wild[54:]
    assert example["alignment"].sequences[0] == example["alignment"].query[2:]  # two residues have no column
    assert example["labels"] == 0
    sampler = SizeGroupedSampler(dataset, 4)
    assert sorted(sampler) == list(range(2076))
    sampler.set_epoch(2)
    assert dataset[7]["visit"] == (2, 7)
    batch = MsaDataCollatorForSequenceClassification(TOKENIZER, num_labels=1)([dataset[0], dataset[1]])
    assert batch["labels"].tolist() == pytest.approx([0.061909656, 0.242237278])
