"""The contract of packing: shards, Parquet or WebDataset, appear whole or not at all, an interrupted call continues,
and the folder is a dataset for those who do not have this package; its card counts what is in it.
"""

import json
import os
import shutil

import pytest
from fresh import run_fresh
from made_up import a3m, interrupt_reading, write_folder
from shards import pack, several_formats
from typer.testing import CliRunner

from modeling_msa import load_alignments, read_alignment
from modeling_msa.cli import app
from modeling_msa.training import packing
from modeling_msa.training.shards import load_stream

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("own_cache")
per_format = pytest.mark.parametrize("format", ["parquet", "webdataset"])


def names_of(features):
    return [feature["name"] for feature in features]


@per_format
def test_an_interrupted_call_continues(tmp_path, format, monkeypatch):
    folder, output = write_folder(tmp_path / "files"), tmp_path / "shards"
    seen = interrupt_reading(monkeypatch, packing, 5)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, output, format, rows_per_shard=2)
    # two shards are whole, the third does not exist
    assert [path.name[:11] for path in sorted(output.glob("train-*"))] == ["train-00000", "train-00001"]
    before = {path: path.stat().st_mtime_ns for path in output.glob("train-*")}
    assert pack(folder, output, format, rows_per_shard=2).packed == 6
    assert seen == ["f0", "f1", "f2", "f3", "f4", "f4", "f5"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    monkeypatch.setattr(packing, "read_alignment", read_alignment)
    assert names_of(load_stream(output, shuffle_buffer=0)) == [f"f{k}" for k in range(6)]
    with pytest.raises(ValueError, match=r"this shard has other alignments.* pass an empty folder"):
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
    assert [path.name for path in (tmp_path / "fatal").glob("train-*")] == ["train-00000-of-00003.parquet"]
    report = pack(folder, tmp_path / "shards", rows_per_shard=2, on_error="skip", workers=workers)
    assert (report.packed, len(report.shards)) == (3, 2)
    assert list(report.unreadable) == [str(folder / "f2.a3m"), str(folder / "f4.a3m")]
    assert str(report).startswith("3 alignments in 2 shards\n2 could not be read:\n")
    assert names_of(load_stream(tmp_path / "shards", shuffle_buffer=0)) == ["f0", "f1", "f3"]
    again = pack(folder, tmp_path / "shards", rows_per_shard=2, on_error="skip")
    assert again.packed == 3
    assert list(again.unreadable) == list(report.unreadable)
    with pytest.raises(ValueError, match="None of 1 alignment could be read"):
        pack([folder / "f2.a3m"], tmp_path / "none", on_error="skip")


@per_format
def test_shards_of_what_has_changed_are_made_again(tmp_path, format):
    """As a call into a new folder makes them. Dates do not matter; a file that was left out may be readable now."""
    folder, output = write_folder(tmp_path / "files"), tmp_path / "shards"
    (folder / "f5.a3m").write_text("")
    pack(folder, output, format, rows_per_shard=2, on_error="skip")
    for path in folder.iterdir():
        os.utime(path)
    assert not pack(folder, output, format, rows_per_shard=2, on_error="skip").remade
    first, second, third = sorted(output.glob("train-*"))
    kept = second.stat().st_mtime_ns
    found = (folder / "f1.a3m").stat()
    (folder / "f1.a3m").write_text(a3m(["MKV", "M-V"]))
    os.utime(folder / "f1.a3m", ns=(found.st_atime_ns, found.st_mtime_ns))
    (folder / "f5.a3m").write_text(a3m(["MKL"]))
    report = pack(folder, output, format, rows_per_shard=2, on_error="skip")
    assert dict(report.remade) == {
        first.name: "the alignment f1 has changed",
        third.name: "the alignment f5 has changed",
    }
    assert f"{first.name} was made again, because the alignment f1 has changed" in str(report)
    assert second.stat().st_mtime_ns == kept
    pack(folder, tmp_path / "new", format, rows_per_shard=2)
    assert list(load_stream(output, shuffle_buffer=0)) == list(load_stream(tmp_path / "new", shuffle_buffer=0))
    os.truncate(second, 100)
    assert dict(pack(folder, output, format, rows_per_shard=2).remade) == {second.name: f"{second.name} was changed"}


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
    report = pack(folder, output, format, rows_per_shard=2)  # the first shard's own numbers are counted
    card = DatasetCard.load(output / "README.md")
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


@per_format
def test_the_card_follows_the_alignments(tmp_path, format):
    folder, output = write_folder(tmp_path / "files", 2), tmp_path / "shards"
    card = output / "README.md"
    pack(folder, output, format)
    assert "| sequences | 7 |" in card.read_text()  # 3 + 4
    (folder / "f1.a3m").write_text(a3m(["MKV", "MRV"]))
    pack(folder, output, format)
    assert "| sequences | 5 |" in card.read_text()
    card.write_text("mine")
    write_folder(folder, 2)
    assert pack(folder, output, format).remade
    assert card.read_text() == "mine"


@per_format
def test_datasets_reads_a_folder_anew_after_it_was_packed_again(tmp_path, format):
    """Its cache names a folder by its card, unless the card leaves the files to be found."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        folder = write_folder(tmp_path / str(number) / "files", 1 + number)
        output = tmp_path / "packed" / "shards"
        shutil.rmtree(output, ignore_errors=True)
        pack(folder, output, format)
        read = datasets.load_dataset(str(output))
        assert list(read) == ["train"]
        assert len(read["train"]) == 1 + number
        elsewhere = shutil.copytree(output, tmp_path / str(number) / "shards")  # the same name and card
        assert len(datasets.load_dataset(str(elsewhere), split="train")) == 1 + number
        assert len(list(datasets.load_dataset(str(output), split="train", streaming=True))) == 1 + number


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


def test_command(tmp_path):
    folder = write_folder(tmp_path / "files", 8)
    ran = CliRunner().invoke(app, ["pack", str(folder), "-o", str(tmp_path / "shards"), "--rows-per-shard", "3"])
    assert ran.exit_code == 0, ran.output
    assert "8 alignments in 3 shards" in ran.output
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 3


def test_row_groups_are_small(tmp_path, monkeypatch):
    """A reader holds a whole row group: one ends as soon as it has enough letters."""
    monkeypatch.setattr(packing, "_GROUP_BYTES", 60)
    report = pack(write_folder(tmp_path / "files", 4), tmp_path / "shards")  # 30, 44, 60 and 78 letters
    assert [pq.ParquetFile(report.shards[0]).metadata.row_group(k).num_rows for k in range(2)] == [2, 2]
    assert names_of(load_stream(tmp_path / "shards", shuffle_buffer=0)) == ["f0", "f1", "f2", "f3"]


def test_arguments_are_checked(tmp_path):
    folder = write_folder(tmp_path / "files", 1)
    for source, options, message in (
        (folder, {"format": "zip"}, "format must be 'parquet' or 'webdataset'"),
        (folder, {"on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
        (folder, {"rows_per_shard": 0}, "rows_per_shard must be at least 1"),
        ([], {}, "list of alignments to pack is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            pack(source, tmp_path / "shards", **options)
