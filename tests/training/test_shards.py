"""Contract of `load_alignments` and of what `msa pack` leaves for the Hub.

- A folder of alignments, Parquet and WebDataset shards of it, and plain tar files of it give the same rows: `name`,
  `sequences` (match columns, query first) and `query` (its residues, insertions included).
- A stream opens no alignment before its turn; processes and workers share the files.
- The folder of `msa pack` is a dataset for who has not this package, and its card counts what is in it.
- Bad input is named.
"""

import gzip
import json
import lzma
import os
import tarfile

import numpy as np
import pytest
from fresh import run_fresh
from made_up import SHARED, TOKENIZER, a3m, batches_equal, interrupt_reading, real_data, write_folder
from torch.utils.data import DataLoader

from modeling_msa import MsaConfig, MsaForMaskedLM, load_alignments, read_alignment
from modeling_msa.training.collators import MsaDataCollatorForContactPrediction, MsaDataCollatorForMaskedLM
from modeling_msa.training.datasets import MsaDataset
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.shards import load_stream

pytest.importorskip("datasets")

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

from modeling_msa.training import shards as msa_datasets
from modeling_msa.training import packing

pytestmark = pytest.mark.usefixtures("one_thread")
FORMS = ("files", "parquet", "webdataset", "tar")
per_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A cache of its own, no bars, and no wait of five seconds at the end of each pass over Parquet."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def pack(source, output, format="parquet", **kwargs):
    return pack_alignments(source, output, format, progress=False, **kwargs)


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for file in files:
            tar.add(file, f"families/{file.name}")
    return path


def several_formats(folder):
    """Eight alignments, each in another form of file; what each row has to say, by hand for two of them."""
    write_folder(folder, 4)
    (folder / "f4.b.a3m").write_text(a3m(["mKV--Lc", "RVAGL", "R-AGI"]))
    (folder / "f5.a3m.gz").write_bytes(gzip.compress(a3m(["M-K", "MaRK"]).encode()))
    (folder / "f6.fasta.xz").write_bytes(lzma.compress(a3m(["mk.", "MRV"]).encode()))
    (folder / "f7.sto").write_text("# STOCKHOLM 1.0\nq MK.V\nr MRAV\n//\n")
    return folder, {
        "f4.b": (["KV--L", "RVAGL", "R-AGI"], "MKVLC"),
        "f5": (["M-K", "MRK"], "MK"),
        "f6": (["MK-", "MRV"], "MK"),
        "f7": (["MK-V", "MRAV"], "MKV"),
    }


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
        with pytest.raises(ValueError, match="None of the 3 files could be read"):
            load_alignments(tmp_path, on_error="skip", num_proc=num_proc)
    assert list(load_alignments(tmp_path, on_error="skip", streaming=True)) == []


def test_shards_of_older_versions(tmp_path):
    """They have the query in A3M notation and nothing else of it."""
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
    with pytest.raises(ValueError, match=r"train-00000-of-00001.parquet: this shard was made by an older version"):
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
    # the query's residues find their columns, but not where its insertions are not told
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


LOADED_ELSEWHERE = """
import json, sys
import datasets

folder, cache = sys.argv[1:]
datasets.disable_progress_bars()
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
found = {
    "folder": datasets.load_dataset(folder, split="train", cache_dir=cache),
    "files": datasets.load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=cache),
    "stream": datasets.load_dataset(folder, split="train", streaming=True),
}
columns = ["name", "sequences", "query", "query_a3m", "depth", "length", "residues"]
print(json.dumps({key: [[row[name] for name in columns] for row in rows] for key, rows in found.items()}))
"""


def test_packed_folder_is_a_dataset_without_this_package(tmp_path):
    folder, _ = several_formats(tmp_path / "files")
    report = pack(folder, tmp_path / "shards", rows_per_shard=3)
    (tmp_path / "elsewhere").mkdir()
    done = run_fresh(LOADED_ELSEWHERE, tmp_path / "elsewhere", tmp_path / "shards", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["folder"] == found["files"] == found["stream"]
    assert [row[:3] for row in found["folder"]] == [list(row.values()) for row in load_alignments(folder)]
    by_name = {row[0]: row[3:] for row in found["folder"]}
    assert by_name["f4.b"] == ["mKV--Lc", 3, 5, 12]
    assert by_name["f7"] == ["MK-V", 2, 4, 7]
    # 3 to 6 rows in the first four
    assert (report.sequences, report.residues) == (3 + 4 + 5 + 6 + 3 + 2 + 2 + 2, sum(v[3] for v in by_name.values()))
    schema = pq.read_schema(report.shards[0])
    assert schema.field("sequences").type == pa.list_(pa.string())


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_the_card_counts_what_is_there(tmp_path, format, monkeypatch):
    from huggingface_hub import DatasetCard

    folder, output = write_folder(tmp_path / "files", 5), tmp_path / "shards"
    interrupt_reading(monkeypatch, packing, 4)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, output, format, rows_per_shard=2)
    assert not (output / "README.md").exists()
    report = pack(folder, output, format, rows_per_shard=2)  # the first shard is counted from what it says
    card = DatasetCard.load(output / "README.md")
    ending = {"parquet": ".parquet", "webdataset": ".tar"}[format]
    assert card.data.configs == [
        {"config_name": "default", "data_files": [{"split": "train", "path": f"train-*{ending}"}]}
    ]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.pretty_name == "shards"
    assert "license" not in card.data.to_dict()
    families = [read_alignment(path) for path in sorted(folder.iterdir())]
    residues = sum(len("".join(family.sequences).replace("-", "")) for family in families)
    assert (report.sequences, report.residues) == (3 + 4 + 5 + 6 + 7, residues)
    for line in ("| alignments | 5 |", "| sequences | 25 |", f"| residues in match columns | {residues} |"):
        assert line in card.text
    (output / "README.md").write_text("mine")
    pack(folder, output, format, rows_per_shard=2)
    assert (output / "README.md").read_text() == "mine"
    assert len(list(load_alignments(output, streaming=True))) == 5


@pytest.mark.parametrize(
    ("count", "category"),
    [
        (1, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (250_000, "100K<n<1M"),
        (5_000_000, "1M<n<10M"),
        (10**7, "n>10M"),
    ],
)
def test_size_categories(count, category):
    assert packing.size_category(count) == category


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_a_dataset_on_the_hub(tmp_path, monkeypatch, format):
    """`datasets` finds it by its name; here in a folder, which it reads as it reads a repository."""
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


def test_tar_files_that_are_none(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("no alignment")
    empty = tar_of(tmp_path / "empty.tar", [tmp_path / "notes.txt"])
    with pytest.raises(ValueError, match=r"empty.tar: there is no alignment \(.a3m, .*\) in the tar file"):
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


def test_what_is_no_source(tmp_path):
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


@real_data
def test_real_alignments(tmp_path):
    pack(SHARED / "msa", tmp_path / "shards", rows_per_shard=3)
    files = load_alignments(SHARED / "msa", streaming=True)
    shards = load_alignments(tmp_path / "shards", streaming=True)
    for row, other in zip(files, shards, strict=True):
        assert row == other
        family = read_alignment(next((SHARED / "msa").glob(f"{row['name']}.*")))
        assert row["sequences"] == family.sequences
        assert row["query"] == family.query
