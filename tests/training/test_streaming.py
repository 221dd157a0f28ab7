"""Contract of `modeling_msa.training.streaming`: shards of alignments, and the stream that reads them.

- Shards, Parquet or WebDataset, give the features of the files they were made of; each appears whole or not at all.
- Processes and workers share a stream: together they see each alignment once.
- What is drawn for an alignment follows from seed, epoch and its name alone.
"""

import itertools
import logging
import pickle

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader
from made_up import SHARED, TOKENIZER, a3m, batches_equal, interrupt_reading, real_data, write_folder
from torch.utils.data import DataLoader

from modeling_msa import read_alignment
from modeling_msa.training.collators import MsaDataCollatorForContactPrediction, MsaDataCollatorForMaskedLM
from modeling_msa.training.datasets import MsaDataset

datasets = pytest.importorskip("datasets")
import pyarrow as pa
import pyarrow.parquet as pq

from modeling_msa.training import packing
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.shards import load_stream

FORMATS = {"parquet": ".parquet", "webdataset": ".tar"}
per_format = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path_factory):
    """Datasets waits five seconds at the end of each pass over Parquet, for the sake of old versions of pyarrow."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


def pack(source, output, format="parquet", **kwargs):
    return pack_alignments(source, output, format, progress=False, **kwargs)


def names_of(features):
    return [feature["name"] for feature in features]


def drawn(features):
    return [(feature["name"], feature["visit"][0]) for feature in features]


@per_format
def test_shards_are_the_files(tmp_path, format):
    folder = write_folder(tmp_path / "files", 5)
    (folder / "f5.b.a3m").write_text(a3m(["mKV--Lc", "RVAGL", "R-AGI"]))  # a name with a dot, a query with insertions
    report = pack(folder, tmp_path / "shards", format, rows_per_shard=2)
    names = [f"train-0000{k}-of-00003{FORMATS[format]}" for k in range(3)]
    assert (
        [path.name for path in report.shards]
        == names
        == sorted(path.name for path in (tmp_path / "shards").glob("train-*"))
    )
    assert str(report) == "6 alignments in 3 shards"
    stream, dataset = load_stream(tmp_path / "shards", shuffle_buffer=0), MsaDataset(folder)
    collator = MsaDataCollatorForMaskedLM(TOKENIZER)
    features = list(stream)
    assert names_of(features) == dataset.names == ["f0", "f1", "f2", "f3", "f4", "f5.b"]
    for feature, expected in zip(features, dataset, strict=True):
        assert batches_equal(collator([feature]), collator([{**expected, "visit": feature["visit"]}]))
    # labels of the query's residues find their columns without the file
    labels = MsaDataCollatorForContactPrediction(TOKENIZER, min_separation=0)
    batches = [labels([{**f, "labels": np.eye(5, dtype=int)}]) for f in (features[5], dataset[5])]
    assert batches_equal(*batches)
    assert (batches[0]["labels"] == 1).nonzero().tolist() == [[0, 0, 0], [0, 1, 1], [0, 4, 4]]


@per_format
def test_a_killed_call_goes_on(tmp_path, format, monkeypatch):
    folder, output = write_folder(tmp_path / "files"), tmp_path / "shards"
    seen = interrupt_reading(monkeypatch, packing, 5)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, output, format, rows_per_shard=2)
    # two shards are whole, of the third nothing is there
    assert [path.name[:11] for path in sorted(output.iterdir())] == ["train-00000", "train-00001"]
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert pack(folder, output, format, rows_per_shard=2).packed == 6
    assert seen == ["f0", "f1", "f2", "f3", "f4", "f4", "f5"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    monkeypatch.setattr(packing, "read_alignment", read_alignment)
    assert names_of(load_stream(output, shuffle_buffer=0)) == [f"f{k}" for k in range(6)]
    with pytest.raises(ValueError, match="this shard has other alignments; pass an empty folder"):
        pack(folder, output, format, rows_per_shard=3)
    with pytest.raises(ValueError, match="this shard has other alignments"):
        pack([folder / f"f{k}.a3m" for k in (5, 4, 3, 2, 1, 0)], output, format, rows_per_shard=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files(tmp_path, workers):
    folder = write_folder(tmp_path / "files", 5)
    (folder / "f2.a3m").write_text(a3m(["MKV", "MK"]))
    (folder / "f4.a3m").write_text("")
    with pytest.raises(ValueError, match=r"(?s)f2.a3m: row 2.*Pass on_error='skip' to leave such files out"):
        pack(folder, tmp_path / "fatal", rows_per_shard=2, workers=workers)
    assert [path.name for path in (tmp_path / "fatal").iterdir()] == ["train-00000-of-00003.parquet"]
    report = pack(folder, tmp_path / "shards", rows_per_shard=2, on_error="skip", workers=workers)
    assert (report.packed, len(report.shards)) == (3, 2)
    assert list(report.unreadable) == [str(folder / "f2.a3m"), str(folder / "f4.a3m")]
    assert str(report).startswith("3 alignments in 2 shards\n2 could not be read:\n")
    assert names_of(load_stream(tmp_path / "shards", shuffle_buffer=0)) == ["f0", "f1", "f3"]
    again = pack(folder, tmp_path / "shards", rows_per_shard=2, on_error="skip")
    assert again.packed == 3
    assert list(again.unreadable) == list(report.unreadable)
    with pytest.raises(ValueError, match="None of the 1 alignments could be read"):
        pack([folder / "f2.a3m"], tmp_path / "none", on_error="skip")


@per_format
def test_processes_and_workers_share_a_stream(tmp_path, format):
    folder = write_folder(tmp_path / "files", 12)
    pack(folder, tmp_path / "shards", format, rows_per_shard=2)
    everything = [f"f{k}" for k in range(12)]

    def stream(**kwargs):
        return load_stream(tmp_path / "shards", shuffle_buffer=4, **kwargs)

    orders = {}
    loader = DataLoader(stream(), batch_size=4, collate_fn=drawn, num_workers=2, persistent_workers=True)
    for epoch in (0, 3):
        loader.dataset.set_epoch(epoch)  # reaches running workers
        orders[epoch] = [visit for batch in loader for visit in batch]
        assert sorted(orders[epoch]) == sorted((name, epoch) for name in everything)
    assert [name for name, _ in orders[0]] != [name for name, _ in orders[3]]
    for world_size in (2, 5):  # 6 shards: three each, or every fifth alignment
        parts = [names_of(stream(rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert sorted(name for part in parts for name in part) == sorted(everything)
        assert all(parts)


@pytest.mark.parametrize("rows_per_shard", [2, 12])  # more shards than processes, and fewer
def test_accelerate_splits_a_stream(tmp_path, rows_per_shard):
    folder = write_folder(tmp_path / "files", 12)
    pack(folder, tmp_path / "shards", rows_per_shard=rows_per_shard)
    seen = []
    for process in range(2):
        stream = load_stream(tmp_path / "shards", shuffle_buffer=4)
        plain = DataLoader(stream, batch_size=3, collate_fn=drawn)
        loader = prepare_data_loader(plain, num_processes=2, process_index=process, put_on_device=False)
        loader.set_epoch(1)
        seen += [visit for batch in loader for visit in batch]
    assert sorted(seen) == sorted((f"f{k}", 1) for k in range(12))


def test_draws_follow_from_the_name(tmp_path):
    folder = write_folder(tmp_path / "files", 6)
    pack(folder, tmp_path / "one", rows_per_shard=6)
    pack(folder, tmp_path / "many", rows_per_shard=1)
    one = {f["name"]: f["visit"] for f in load_stream(tmp_path / "one")}
    many = {f["name"]: f["visit"] for f in load_stream(tmp_path / "many", shuffle_buffer=0)}
    assert one == many
    assert len(set(one.values())) == 6
    assert {f["name"]: f["visit"] for f in pickle.loads(pickle.dumps(load_stream(tmp_path / "one")))} == one
    fixed = load_stream(tmp_path / "one", fixed=True)
    fixed.set_epoch(9)
    assert {f["name"]: f["visit"] for f in fixed} == one


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, 5])
def test_a_stream_without_end(tmp_path, workers):
    folder = write_folder(tmp_path / "files", 8)
    pack(folder, tmp_path / "shards", rows_per_shard=2)
    stream = load_stream(tmp_path / "shards", shuffle_buffer=3, repeat=True)
    stream.set_epoch(4)
    loader = DataLoader(stream, batch_size=2, collate_fn=drawn, num_workers=workers)
    visits = [visit for batch in itertools.islice(loader, 12) for visit in batch]
    # four shards: a fifth worker has none, and stops
    assert sorted(visits) == sorted((f"f{k}", epoch) for k in range(8) for epoch in (4, 5, 6))
    assert stream.epoch == 4


def test_labels_of_a_stream(tmp_path, caplog):
    folder = write_folder(tmp_path / "files", 4)
    pack(folder, tmp_path / "shards", rows_per_shard=2)
    np.save(tmp_path / "f1.npy", np.eye(len(read_alignment(folder / "f1.a3m").query), dtype=np.int8))
    labels = {"f0": 3, "f1": tmp_path / "f1.npy", "f2": 5}
    with pytest.raises(ValueError, match="f3: this alignment has no label"):
        list(load_stream(tmp_path / "shards", labels=labels))
    stream = load_stream(tmp_path / "shards", labels=labels, on_error="skip", shuffle_buffer=0)
    with caplog.at_level(logging.WARNING):
        first, second, third = list(stream)
    assert (first["labels"], third["labels"]) == (3, 5)
    assert second["labels"].trace() == len(second["labels"])
    assert stream.skipped == 1
    assert "f3: this alignment has no label" in caplog.text


def test_tar_files_of_others(tmp_path):
    """A WebDataset needs no names: a sample is called by its key; a bad one is named, and skipped by option."""
    import tarfile

    (tmp_path / "1abc.a3m").write_text(a3m(["mKV", "RV"]))
    (tmp_path / "2def.a3m").write_text(a3m(["MKV", "MK"]))
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("1abc.a3m", "2def.a3m"):
            tar.add(tmp_path / name, f"families/{name}")
    with pytest.raises(ValueError, match=r"shard.tar, families/2def.a3m: .*row 2"):
        list(load_stream(tmp_path / "shard.tar", shuffle_buffer=0))
    stream = load_stream(tmp_path / "shard.tar", shuffle_buffer=0, on_error="skip")
    loader = DataLoader(stream, batch_size=None, num_workers=1, collate_fn=lambda feature: feature)
    (feature,) = list(loader)
    assert feature["name"] == "1abc"
    assert (feature["query"], feature["sequences"]) == ("mKV", ["KV", "RV"])
    assert stream.skipped == 1


def test_what_is_no_stream(tmp_path):
    folder = write_folder(tmp_path / "files", 2)
    pack(folder, tmp_path / "shards")
    pack(folder, tmp_path / "shards2", "webdataset")
    for source, error, message in (
        (tmp_path / "nothing", FileNotFoundError, "there is no such file or folder"),
        (folder, FileNotFoundError, "has no shards .*make them with `msa pack`"),
        (str(tmp_path / "*.parquet"), FileNotFoundError, "no file matches the pattern"),
        ([tmp_path / "shards", tmp_path / "shards2"], ValueError, "several kinds, 1 of parquet .* and 1 of tar"),
    ):
        with pytest.raises(error, match=message):
            load_stream(source)
    with pytest.raises(ValueError, match="both rank and world_size, or neither"):
        load_stream(tmp_path / "shards", rank=0)
    with pytest.raises(ValueError, match="format must be 'parquet' or 'webdataset'"):
        pack(folder, tmp_path / "x", "zip")
    table = pa.table({"text": ["MKV"]})
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other.parquet: has the columns text, but not name and sequences.*make the files with `msa pack`"):
        load_stream(tmp_path / "other.parquet")


@real_data
def test_real_alignments_in_shards(tmp_path):
    report = pack(SHARED / "msa", tmp_path, rows_per_shard=3)
    assert report.packed == 8
    size = sum(path.stat().st_size for path in (SHARED / "msa").iterdir())
    assert sum(path.stat().st_size for path in report.shards) < 0.5 * size
    for feature in load_stream(str(tmp_path / "*.parquet"), shuffle_buffer=2):
        path = next((SHARED / "msa").glob(f"{feature['name']}.*"))
        family = read_alignment(path)
        assert feature["sequences"] == family.sequences
