"""Contract of `modeling_msa.training.datasets`.

- Files are listed at the start and read when asked for; what cannot be read is fatal, or left out and counted, in
  worker processes too.
- Batches depend neither on workers nor on a resumed run, and differ from epoch to epoch.
- Batches of alike size waste under 15 % on padding.
"""

import gzip
import lzma

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from made_up import SHARED, TOKENIZER, a3m, batches_equal, features, random_array, real_data, write_folder
from torch.utils.data import DataLoader

from modeling_msa import AlignmentError, bundled_family, read_alignment
from modeling_msa.alignments.listing import list_alignments, peek
from modeling_msa.training import datasets as data_module
from modeling_msa.training.collators import MsaDataCollator, MsaDataCollatorForMaskedLM
from modeling_msa.training.datasets import MsaDataset
from modeling_msa.training.sampler import SizeGroupedSampler

# --- listing and reading


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
        ([], "the dataset is empty"),
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
    assert dataset[-1]["alignment"].depth == 98
    with pytest.raises(IndexError):
        dataset[4]


def test_size_from_the_beginning_of_a_file(tmp_path):
    # 5,000 rows of 200 letters: far more than is read; the estimate is right to some percent, compressed or not
    rows = [row.tobytes().decode() for row in random_array(5000, 200)]
    text = a3m(["mk" + rows[0], *rows[1:]])
    (tmp_path / "a.a3m").write_text(text)
    (tmp_path / "b.a3m.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.a3m.xz").write_bytes(lzma.compress(text.encode(), preset=0))
    for name in ("a.a3m", "b.a3m.gz", "c.a3m.xz"):
        size = peek(tmp_path / name)
        assert (size.length, size.residues) == (200, 2 + 200 - rows[0].count("-"))
        assert size.depth == pytest.approx(5000, rel=0.05)
    long = "A" * 50_000
    (tmp_path / "long.fasta").write_text(f">q\n{long}\n>r\n{long}\n")
    assert peek(tmp_path / "long.fasta") == (2, 50_000, 50_000)
    assert peek(bundled_family()) == (98, 117, 86)  # as the whole file says


@real_data
def test_size_of_real_files():
    for path in sorted((SHARED / "msa").iterdir()):
        family, size = read_alignment(path), peek(path)
        assert (size.length, size.residues) == (family.length, len(family.query))
        assert size.depth == pytest.approx(family.depth, rel=0.15)


def test_unreadable_files_are_fatal_by_default(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "f2.a3m").write_text(a3m(["MKV", "MK"]))
    with pytest.raises(AlignmentError, match=r"f2.a3m: row 2 .* has 2 match columns"):
        MsaDataset(tmp_path)[2]
    with pytest.raises(ValueError, match="on_error is 'raise' or 'skip'"):
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
    with pytest.raises(AlignmentError, match="none of the alignments can be read"):
        MsaDataset(tmp_path / "bad", on_error="skip")[1]


# --- epochs, workers, resumed runs


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


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_shares_out_and_resumes(tmp_path, processes):
    """Each process draws its part of one order, anew in each epoch, and goes on where a killed run stopped."""
    write_folder(tmp_path, 12)

    def loader(process):
        dataset = MsaDataset(tmp_path)
        sampler = SizeGroupedSampler(dataset, 2, seed=4)
        plain = DataLoader(dataset, batch_size=2, sampler=sampler, collate_fn=visits_of)
        return prepare_data_loader(
            plain, num_processes=processes, process_index=process, put_on_device=False, use_seedable_sampler=True
        )

    def epochs(loader, count):
        found = []
        for epoch in range(count):
            loader.set_epoch(epoch)
            found.append(list(loader))
        return found

    whole = [epochs(loader(process), 2) for process in range(processes)]
    for epoch in (0, 1):
        seen = sorted(visit for process in whole for batch in process[epoch] for visit in batch)
        assert seen == [(epoch, k) for k in range(12)]
    assert [[k for _, k in batch] for batch in whole[0][0]] != [[k for _, k in batch] for batch in whole[0][1]]
    for process in range(processes):
        resumed = skip_first_batches(loader(process), 2)
        resumed.set_epoch(1)
        assert list(resumed) == whole[process][1][2:]


# --- batches of alike size


class Sizes(list):
    """Sizes alone."""

    def size(self, index):
        return self[index]


def padding(order, sizes, collator, batch):
    tokens = padded = 0
    for start in range(0, len(order), batch):
        shapes = [collator.size(*sizes[k]) for k in order[start : start + batch]]
        tokens += sum(rows * columns for rows, columns in shapes)
        padded += len(shapes) * max(rows for rows, _ in shapes) * max(columns for _, columns in shapes)
    return 1 - tokens / padded


@pytest.mark.parametrize("batch", [2, 8, 32])
def test_padding_of_a_realistic_mix(batch):
    """Log-normal depths of 10 to 20,000 (median 450) and lengths of 40 to 800 (median 180)."""
    rng = np.random.default_rng(0)
    depths = np.exp(rng.normal(np.log(450), 2, 4000)).clip(10, 20_000).astype(int)
    lengths = np.exp(rng.normal(np.log(180), 0.6, 4000)).clip(40, 800).astype(int)
    sizes, collator = Sizes(zip(depths.tolist(), lengths.tolist(), strict=True)), MsaDataCollator(TOKENIZER)
    sampler = SizeGroupedSampler(sizes, batch, collator)
    order = list(sampler)
    assert sorted(order) == list(range(4000))
    assert padding(order, sizes, collator, batch) < 0.15
    assert padding(rng.permutation(4000).tolist(), sizes, collator, batch) > 0.5
    assert list(sampler) == order
    sampler.set_epoch(1)
    assert list(sampler) != order
    assert list(SizeGroupedSampler(sizes, batch, collator, seed=1)) != order


def test_padding_is_what_batches_have():
    sizes = [(5, 30), (200, 12), (6, 33), (180, 10)]
    collator = MsaDataCollator(TOKENIZER)
    batch = collator(features(*sizes))
    share = 1 - float(batch["attention_mask"].float().mean())
    assert share == pytest.approx(padding(range(4), sizes, collator, 4))
    order = list(SizeGroupedSampler(Sizes(sizes), 2, collator))
    assert sorted(map(sorted, (order[:2], order[2:]))) == [[0, 2], [1, 3]]


def test_an_incomplete_batch_is_the_last():
    sizes = Sizes([(10, 40)] * 4 + [(1000, 400)] * 3)
    for seed in range(9):
        order = list(SizeGroupedSampler(sizes, 2, seed=seed, pool_batches=2))
        assert sorted(order) == list(range(7))
    order = list(SizeGroupedSampler(sizes, 2))
    assert sorted(sorted({sizes[k] for k in order[start : start + 2]}) for start in (0, 2, 4)) == [
        [(10, 40)],
        [(10, 40)],
        [(1000, 400)],
    ]
    with pytest.raises(ValueError, match="has no size"):
        SizeGroupedSampler([1, 2], 2)
    with pytest.raises(ValueError, match="at least 1"):
        SizeGroupedSampler(sizes, 0)


@real_data
def test_padding_of_real_alignments():
    """Eight alignments that differ much: in pairs no grouping pads less."""
    dataset, collator = MsaDataset(SHARED / "msa"), MsaDataCollator(TOKENIZER)
    sizes = [dataset[k]["alignment"].array.shape for k in range(len(dataset))]

    def pairings(rest):
        if not rest:
            yield []
        for other in rest[1:]:
            for more in pairings([k for k in rest if k not in (rest[0], other)]):
                yield [rest[0], other, *more]

    best = min(padding(order, sizes, collator, 2) for order in pairings(list(range(len(sizes)))))
    assert padding(list(SizeGroupedSampler(dataset, 2, collator)), sizes, collator, 2) == pytest.approx(best)


def test_an_unreadable_file_does_not_stop_the_sampler(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "f2.a3m").write_bytes(b"")
    dataset = MsaDataset(tmp_path, on_error="skip")
    assert sorted(SizeGroupedSampler(dataset, 2)) == list(range(6))
    assert dataset.size(2) == (1, 1)
