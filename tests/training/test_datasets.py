"""The contract of MsaDataset: files are listed at the start and read on access; what cannot be read is fatal, or
skipped and counted, in worker processes too; batches do not depend on workers.
"""

import gzip
import lzma

import pytest
from made_up import TOKENIZER, a3m, batches_equal, write_folder
from torch.utils.data import DataLoader

from modeling_msa import (
    Alignment,
    AlignmentError,
    MsaDataCollatorForMaskedLM,
    MsaDataset,
    VariantDataset,
    bundled_family,
)
from modeling_msa.alignments.listing import list_alignments
from modeling_msa.training import datasets as data_module


def test_lists_folders_and_lists(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.a3m", "sub/a.sto", "sub/deep/c.fasta.gz", "sub/d.A2M.xz", ".hidden.a3m", "notes.md", "z.a3m.bz2"):
        (tmp_path / name).write_text("")
    names = ["b.a3m", "sub/a.sto", "sub/d.A2M.xz", "sub/deep/c.fasta.gz"]
    assert list_alignments(tmp_path) == [tmp_path / name for name in names]
    assert list_alignments(tmp_path / "b.a3m") == [tmp_path / "b.a3m"]
    (tmp_path / "list.txt").write_text("# two\nsub/a.sto\n\nb.a3m\n")
    assert list_alignments(tmp_path / "list.txt") == [tmp_path / "sub/a.sto", tmp_path / "b.a3m"]
    assert MsaDataset(tmp_path).names == ["b", "a", "d", "c"]
    assert MsaDataset([tmp_path / "sub", tmp_path / "b.a3m"]).names == ["a", "d", "c", "b"]
    (tmp_path / "list.txt").write_text("sub/a.sto\nnot-here.a3m\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files do not exist, the first is .*not-here.a3m"):
        MsaDataset(tmp_path / "list.txt")


def test_nothing_is_read_at_the_start(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setattr(data_module, "peek", None)
    monkeypatch.setattr(data_module, "read_alignment", None)
    assert len(MsaDataset(tmp_path)) == 6


def test_empty_sources_are_errors(tmp_path):
    (tmp_path / "list.txt").write_text("# nothing\n")
    for source, message in (
        (tmp_path, "the folder has no alignment"),
        (tmp_path / "list.txt", "the list names no alignment"),
        ([], "The dataset is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            MsaDataset(source)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        MsaDataset(tmp_path / "not-here")


def test_reads_every_kind(tmp_path):
    text = a3m(["MKvV-L", "MR-AL"])
    (tmp_path / "a.a3m").write_text(text)
    (tmp_path / "b.a3m.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.a3m.xz").write_bytes(lzma.compress(text.encode()))
    dataset = MsaDataset([tmp_path / "a.a3m", tmp_path / "b.a3m.gz", tmp_path / "c.a3m.xz", bundled_family()])
    assert dataset.names == ["a", "b", "c", "fn3"]
    for k in range(3):
        assert dataset[k]["alignment"].sequences == ["MKV-L", "MR-AL"]
        assert dataset[k]["visit"] == (0, k)
        assert dataset.size(k) == (2, 5)
    assert dataset[-1]["alignment"].depth == 1826
    with pytest.raises(IndexError):
        dataset[4]


def test_unreadable_files_are_fatal_by_default(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "f2.a3m").write_text(a3m(["MKV", "MK"]))
    with pytest.raises(AlignmentError, match=r"f2.a3m: row 2 .* has 2 match columns"):
        MsaDataset(tmp_path)[2]
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip'"):
        MsaDataset(tmp_path, on_error="ignore")


def names_of_batch(features):
    return [feature["name"] for feature in features]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_skipped_and_counted(tmp_path, workers):
    write_folder(tmp_path)
    (tmp_path / "f2.a3m").write_text(a3m(["MKV", "MK"]))
    (tmp_path / "f5.a3m").write_bytes(b"\x00\x01")
    dataset = MsaDataset(tmp_path, on_error="skip")
    assert dataset.report() == ""
    loader = DataLoader(dataset, batch_size=2, collate_fn=names_of_batch, num_workers=workers)
    for _ in range(2):  # each is replaced by the next one that is readable
        assert list(loader) == [["f0", "f1"], ["f3", "f3"], ["f4", "f0"]]
    assert list(dataset.unreadable) == [str(tmp_path / "f2.a3m"), str(tmp_path / "f5.a3m")]
    assert "row 2" in dataset.unreadable[str(tmp_path / "f2.a3m")]
    first, *rest = dataset.report().splitlines()
    assert first == "2 of 6 alignments could not be read:"
    assert len(rest) == 2
    (tmp_path / "bad").mkdir()
    for k in range(3):
        (tmp_path / "bad" / f"{k}.a3m").write_text("")
    with pytest.raises(AlignmentError, match="None of the alignments can be read"):
        MsaDataset(tmp_path / "bad", on_error="skip")[1]


def visits_of(features):
    return [feature["visit"] for feature in features]


def test_epoch_reaches_persistent_workers(tmp_path):
    dataset = MsaDataset(write_folder(tmp_path))
    loader = DataLoader(dataset, batch_size=6, collate_fn=visits_of, num_workers=2, persistent_workers=True)
    for epoch in (0, 1, 5):
        dataset.set_epoch(epoch)
        assert next(iter(loader)) == [(epoch, k) for k in range(6)]
    fixed = MsaDataset(tmp_path, fixed=True)
    fixed.set_epoch(5)
    assert fixed[3]["visit"] == (0, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(tmp_path, workers):
    dataset = MsaDataset(write_folder(tmp_path))
    collator = MsaDataCollatorForMaskedLM(TOKENIZER, max_rows=3, depth="log_uniform", random_positions=True)

    def batches(workers):
        return list(DataLoader(dataset, batch_size=2, collate_fn=collator, num_workers=workers))

    assert all(map(batches_equal, batches(0), batches(workers)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mutant,score\nK2R,1\n\nM1delinsA,2\n", r"t.csv: line 4 \(M1delinsA\): an insertion, deletion or frameshift"),
        ("mutant,score\nK2R,1\nV1A,2\nK3A,2\n", r"t.csv: 2 substitutions .* query: line 3 \(V1A\): residue 1 of the"),
    ],
)
def test_variants_that_do_not_fit_are_named_by_file_line_and_text(text, words, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        VariantDataset(Alignment.from_sequences(["MKV", "MRV"]), tmp_path / "t.csv")
