"""The contract of `load_alignments` and `load_stream`.

- A folder of alignments, Parquet and WebDataset shards of it, and plain tar files of it give the same rows: `name`,
  `sequences` (match columns, query first) and `query` (its residues, insertions included).
- A stream opens no alignment before its turn. Processes and workers share the files: together they see each alignment
  once.
- What `load_stream` draws for an alignment depends only on seed, epoch and its name.
- Errors name the file and the row.
"""

import gzip
import itertools
import logging
import os
import pickle
import tarfile

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader
from made_up import TOKENIZER, a3m, batches_equal, real_alignments, write_folder
from shards import pack, several_formats, tar_of
from torch.utils.data import DataLoader

from modeling_msa import (
    MsaConfig,
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataset,
    MsaForMaskedLM,
    load_alignments,
    load_stream,
    read_alignment,
)
from modeling_msa.training import shards as msa_datasets

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
split_dataset_by_node = datasets.distributed.split_dataset_by_node

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
FORMS = ("files", "parquet", "webdataset", "tar")
per_form = pytest.mark.parametrize("form", FORMS)
ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
per_format = pytest.mark.parametrize("format", ENDINGS)


def in_form(form, folder, output):
    if form == "files":
        return folder
    if form == "tar":
        files = sorted(folder.iterdir())
        output.mkdir()
        tar_of(output / "b.tar", files[4:])
        tar_of(output / "a.tar", files[:4])
    else:
        pack(folder, output, form, rows_per_shard=3)
    return output


@per_form
def test_every_form_has_the_same_rows(tmp_path, form):
    folder, known = several_formats(tmp_path / "files")
    source = in_form(form, folder, tmp_path / "shards")
    rows = load_alignments(source)
    assert type(rows) is datasets.Dataset
    text = datasets.Value("string")
    assert dict(rows.features) == {"name": text, "sequences": datasets.List(text), "query": text}
    assert rows["name"][:] == [f"f{k}" for k in range(4)] + ["f4.b", "f5", "f6", "f7"]
    for row in rows:
        if row["name"] in known:
            assert (row["sequences"], row["query"]) == known[row["name"]]
        else:
            family = read_alignment(folder / f"{row['name']}.a3m")
            assert (row["sequences"], row["query"]) == (family.sequences, family.query)
    stream = load_alignments(source, streaming=True)
    assert type(stream) is datasets.IterableDataset
    assert stream.features == rows.features
    assert list(stream) == rows.to_list()
    assert not [name for name in rows.column_names if name not in msa_datasets.COLUMNS]


@per_form
def test_processes_and_workers_share_the_files(tmp_path, form):
    source = in_form(form, write_folder(tmp_path / "files", 8), tmp_path / "shards")
    seen = []
    for rank in range(2):
        part = split_dataset_by_node(load_alignments(source, streaming=True), rank=rank, world_size=2)
        loader = DataLoader(part, batch_size=None, num_workers=1, collate_fn=lambda row: row["name"])
        names = list(loader)
        assert 1 <= len(names) <= 7
        seen += names
    assert sorted(seen) == [f"f{k}" for k in range(8)]


def test_files_are_read_when_it_is_their_turn(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "files", 6)
    read, seen = msa_datasets.read_alignment, []
    monkeypatch.setattr(msa_datasets, "read_alignment", lambda path, *args: seen.append(path) or read(path, *args))
    stream = load_alignments(folder, streaming=True)
    assert stream.num_shards == 6
    assert seen == []
    next(iter(stream))
    assert seen == [str(folder / "f0.a3m")]


def test_the_cache_does_not_outlive_the_files(tmp_path):
    folder = write_folder(tmp_path / "files", 2)
    first = load_alignments(folder)
    assert load_alignments(folder).cache_files == first.cache_files
    (folder / "f1.a3m").write_text(a3m(["MKVM", "MRVM"]))
    assert load_alignments(folder)[1]["query"] == "MKVM"
    assert load_alignments(folder, num_proc=2).to_list() == load_alignments(folder).to_list()


def test_the_cache_is_of_these_files_and_settings(tmp_path, monkeypatch):
    """Same name, size and time in another folder; other settings; an address, which may have changed."""
    for folder, query in (("a", "MKVL"), ("b", "MKVM")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "x.a3m"
        file.write_text(a3m([query, "MRVM"]))
        os.utime(file, (10**9, 10**9))
    for folder, query in (("a", "MKVL"), ("b", "MKVM")):
        monkeypatch.chdir(tmp_path / folder)
        assert load_alignments("x.a3m")[0]["query"] == query
    (tmp_path / "b" / "y.a3m").write_text(a3m(["MKV", "MK"]))
    assert load_alignments(tmp_path / "b", on_error="skip")["name"][:] == ["x"]
    with pytest.raises(ValueError, match=r"y.a3m: row 2"):
        load_alignments(tmp_path / "b")
    assert load_alignments(tmp_path / "b", on_error="skip")["name"][:] == ["x"]
    tar = tmp_path / "all.tar"
    for query in ("MKVL", "MKVM"):
        (tmp_path / "a" / "x.a3m").write_text(a3m([query]))
        assert load_alignments(f"file://{tar_of(tar, [tmp_path / 'a' / 'x.a3m'])}")[0]["query"] == query


def test_all_skipped(tmp_path):
    for name in "xyz":
        (tmp_path / f"{name}.a3m").write_text(a3m(["MKV", "MK"]))
    for num_proc in (None, 2):
        with pytest.raises(ValueError, match="None of 3 files could be read"):
            load_alignments(tmp_path, on_error="skip", num_proc=num_proc)
    assert list(load_alignments(tmp_path, on_error="skip", streaming=True)) == []


def test_shards_of_older_versions(tmp_path):
    """They have the query in A3M notation only."""
    path = tmp_path / "train-00000-of-00001.parquet"
    row = {"name": "x", "query": "mKV-Lc", "sequences": ["KV-L", "RVGL"], "depth": 2, "length": 4}
    pq.write_table(pa.Table.from_pylist([row]), path)
    for streaming_ in (False, True):
        rows = list(load_alignments(path, streaming=streaming_))
        assert rows == [{"name": "x", "sequences": ["KV-L", "RVGL"], "query": "MKVLC"}]
    (feature,) = load_stream(path)
    assert feature["query"] == "mKV-Lc"
    file = tmp_path / "x.a3m"
    file.write_text(a3m(["mKV-Lc", "RVGL"]))
    with pytest.raises(ValueError, match=r"train-00000-of-00001.parquet: this shard .* is of an earlier version"):
        pack(file, tmp_path)


def test_parquet_of_others(tmp_path, caplog):
    path = tmp_path / "others.parquet"
    rows = [
        {"name": "a", "sequences": ["mKV-L", "RVaaGL"], "source": "z"},  # A3M as it comes
        {"name": "b", "sequences": ["MKV", "MK"], "source": "z"},
        {"name": "c", "sequences": [], "source": "z"},
        {"name": "d", "sequences": ["M-K"], "source": "z"},
        {"name": "e", "sequences": ["M-K", None], "source": "z"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match=r"others.parquet, b: row 2 \(row 2\) has 2 match columns"):
        load_alignments(path)
    with pytest.raises(ValueError, match=r"others.parquet, b: row 2"):
        list(load_alignments(path, streaming=True))
    for streaming_ in (False, True):
        caplog.clear()
        kept = list(load_alignments(path, streaming=streaming_, on_error="skip"))
        assert kept == [
            {"name": "a", "sequences": ["KV-L", "RVGL"], "query": "MKVL"},
            {"name": "d", "sequences": ["M-K"], "query": "MK"},
        ]
        assert [record.getMessage().split(".parquet, ")[1][0] for record in caplog.records] == ["b", "c", "e"]
        assert "e: a row of the column sequences is not a string" in caplog.messages[2]
    rows = [{"name": "a", "sequences": ["M-K"], "query": "MV"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match=r"others.parquet, a: the first of the sequences, MK, is not the query, MV"):
        load_alignments(path)


def test_rows_go_into_a_collator(tmp_path):
    folder, _ = several_formats(tmp_path / "files")
    collator = MsaDataCollatorForMaskedLM(TOKENIZER)
    for row, expected in zip(load_alignments(folder, streaming=True), MsaDataset(folder), strict=True):
        assert batches_equal(collator([{**row, "visit": expected["visit"]}]), collator([expected]))
    # the query's residues find their columns, unless its insertions are unknown
    labels = MsaDataCollatorForContactPrediction(TOKENIZER, min_separation=0)
    rows = {row["name"]: row for row in load_alignments(folder)}
    (batch,) = labels([{**rows["f7"], "labels": np.eye(3, dtype=int)}])["labels"]
    assert (batch == 1).nonzero().tolist() == [[0, 0], [1, 1], [3, 3]]
    with pytest.raises(ValueError, match=r"f4.b: the query has residues without a column.*A3M notation"):
        labels([{**rows["f4.b"], "labels": np.eye(5, dtype=int)}])


@pytest.mark.parametrize("streaming_", [False, True])
def test_trainer_takes_it(tmp_path, streaming_):
    from transformers import Trainer, TrainingArguments

    rows = load_alignments(write_folder(tmp_path / "files", 6), streaming=streaming_)
    model = MsaForMaskedLM(MsaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
    arguments = TrainingArguments(
        tmp_path / "run",
        max_steps=3,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
    )
    collator = MsaDataCollatorForMaskedLM(TOKENIZER)
    result = Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    assert result.global_step == 3
    assert np.isfinite(result.training_loss)


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_a_dataset_on_the_hub(tmp_path, monkeypatch, format):
    """`datasets` finds it by its name; here it is a folder, which it reads like a repository."""
    folder, _ = several_formats(tmp_path / "files")
    pack(folder, tmp_path / "shards", format, rows_per_shard=3)
    load = datasets.load_dataset
    asked = []

    def by_name(name, **kwargs):
        asked.append((name, kwargs["split"]))
        return load(str(tmp_path / "shards"), **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", by_name)
    expected = load_alignments(folder).to_list()
    assert list(load_alignments("me/families", streaming=True)) == expected
    assert load_alignments("me/families").to_list() == expected
    assert load_alignments("me/families", split="train[:2]").to_list() == expected[:2]
    assert set(asked) == {("me/families", "train"), ("me/families", "train[:2]")}


def test_splits_by_file_name(tmp_path):
    folder = write_folder(tmp_path / "files", 3)
    for split, files in (("train", ("f0", "f1")), ("test", ("f2",))):
        rows = load_alignments([folder / f"{name}.a3m" for name in files])
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    assert len(load_alignments(tmp_path / "hub")) == 3
    assert load_alignments(tmp_path / "hub", split="test")["name"][:] == ["f2"]
    assert load_alignments(str(tmp_path / "hub" / "*" / "train*"))["name"][:] == ["f0", "f1"]
    with pytest.raises(ValueError, match="No file's name begins with the split 'dev'; they begin with test, train"):
        load_alignments(tmp_path / "hub", split="dev")
    with pytest.raises(ValueError, match="Alignment files have no splits"):
        load_alignments(folder, split="train")


@pytest.mark.parametrize("form", ["files", "tar"])
def test_an_alignment_that_cannot_be_read(tmp_path, form, caplog):
    folder = write_folder(tmp_path / "files", 2)
    (folder / "f1b.a3m").write_text(a3m(["MKV", "MK"]))
    (folder / "f1c.a3m.gz").write_bytes(gzip.compress(b">q\nMK\n" * 50)[:-12])
    (folder / "f2.a3m").write_text(a3m(["MKV", "MKI"]))
    source = tar_of(tmp_path / "all.tar", sorted(folder.iterdir())) if form == "tar" else folder
    message = "f1b.a3m: row 2" if form == "files" else r"all.tar, families/f1b.a3m: row 2"
    for load in (load_alignments, lambda path: list(load_alignments(path, streaming=True))):
        with pytest.raises(ValueError, match=rf"{message} \(1\) has 2 match columns"):
            load(source)
    rows = load_alignments(source, on_error="skip")
    assert rows["name"][:] == ["f0", "f1", "f2"]
    assert ["f1b.a3m: row 2" in r.getMessage() for r in caplog.records] == [True, False]
    assert "f1c.a3m.gz" in caplog.records[1].getMessage()


def test_bad_tar_files(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("no alignment")
    empty = tar_of(tmp_path / "empty.tar", [tmp_path / "notes.txt"])
    with pytest.raises(ValueError, match=r"empty.tar: the tar file has no alignment \(.a3m, "):
        load_alignments(empty)
    whole = tar_of(tmp_path / "whole.tar", sorted(write_folder(tmp_path / "files", 3).iterdir()))
    with tarfile.open(whole) as tar:
        end = tar.getmember("families/f2.a3m").offset_data + 10
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:end])
    with pytest.raises(ValueError, match=r"cut.tar: the tar file is damaged"):
        load_alignments(tmp_path / "cut.tar")
    rows = load_alignments([tmp_path / "cut.tar", empty, whole], on_error="skip")
    assert rows["name"][:] == ["f0", "f0", "f1", "f2"]
    assert len(caplog.records) == 2


def test_bad_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    folder = write_folder(tmp_path / "files", 2)
    pack(folder, folder / "shards")
    pq.write_table(pa.table({"text": ["MKV"], "name": ["x"]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"name": ["x"], "sequences": ["MKV"]}), tmp_path / "string.parquet")
    pq.write_table(pa.table({"name": ["x"], "sequences": [[1, 2]]}), tmp_path / "number.parquet")
    for source, error, message in (
        (tmp_path / "empty", ValueError, r"empty: .*has no alignment.* It has no shards"),
        (tmp_path / "nothing", FileNotFoundError, "there is no such file or folder"),
        (tmp_path / "nothing.parquet", FileNotFoundError, "there is no such file or folder"),
        (str(tmp_path / "*.tar"), FileNotFoundError, "no file matches the pattern"),
        ([], ValueError, "list of alignments to load is empty"),
        (folder, ValueError, r"several kinds, 2 of alignments \(.*f0.a3m\) and 1 of parquet"),
        (tmp_path / "other.parquet", ValueError, "other.parquet: has the columns text, name, but not sequences"),
        (tmp_path / "string.parquet", ValueError, "the column sequences is string, but must be a list"),
        (tmp_path / "number.parquet", ValueError, "int64.*, but must be a list of strings"),
    ):
        for streaming_ in (False, True):
            with pytest.raises(error, match=message):
                load_alignments(source, streaming=streaming_)
    for option in ({"on_error": "ignore"}, {"input_format": "clustal"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be .*not '{next(iter(option.values()))}'"):
            load_alignments(folder, **option)


def test_real_alignments(tmp_path):
    report = pack(real_alignments(), tmp_path, rows_per_shard=3)
    size = sum(path.stat().st_size for path in real_alignments())
    assert sum(path.stat().st_size for path in report.shards) < 0.6 * size
    files, shards = load_alignments(real_alignments(), streaming=True), load_alignments(tmp_path, streaming=True)
    features = load_stream(tmp_path, shuffle_buffer=0)
    for path, row, packed, feature in zip(real_alignments(), files, shards, features, strict=True):
        family = read_alignment(path)
        assert row == packed
        assert row["sequences"] == feature["sequences"] == family.sequences
        assert row["query"] == family.query


# --- streams for training


def names_of(features):
    return [feature["name"] for feature in features]


def drawn(features):
    return [(feature["name"], feature["visit"][0]) for feature in features]


@per_format
def test_shards_are_the_files(tmp_path, format):
    folder = write_folder(tmp_path / "files", 5)
    (folder / "f5.b.a3m").write_text(a3m(["mKV--Lc", "RVAGL", "R-AGI"]))  # a name with a dot, a query with insertions
    report = pack(folder, tmp_path / "shards", format, rows_per_shard=2)
    names = [f"train-0000{k}-of-00003{ENDINGS[format]}" for k in range(3)]
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


def test_the_place_in_a_stream(tmp_path):
    pack(write_folder(tmp_path / "files", 6), tmp_path / "shards", rows_per_shard=2)
    stream = load_stream(tmp_path / "shards", shuffle_buffer=0)
    for _ in itertools.islice(stream, 3):
        place = stream.state_dict()
    again = load_stream(tmp_path / "shards", shuffle_buffer=0)
    again.load_state_dict(place)
    assert names_of(again) == ["f3", "f4", "f5"]
    with pytest.raises(NotImplementedError, match="repeat=True"):
        load_stream(tmp_path / "shards", repeat=True).state_dict()


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
    """A WebDataset need not have names: a sample has its key for one; a bad one is named in the error, or skipped."""
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


def test_bad_streams(tmp_path):
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
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip'"):
        load_stream(tmp_path / "shards", on_error="ignore")
    with pytest.raises(ValueError, match=r"f0.a3m: not a shard \(.parquet or .tar\)"):
        load_stream(folder / "f0.a3m")
    table = pa.table({"text": ["MKV"]})
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(
        ValueError,
        match=r"other.parquet: has the columns text, but not name and sequences.*make the files with `msa pack`",
    ):
        load_stream(tmp_path / "other.parquet")
