"""Alignments in shards: pack a folder into Parquet or WebDataset files, and read these as a stream.

A stream needs no list of files and no random access, so that it suits collections too large for a folder, on network
drives or the Hub. It is a `datasets.IterableDataset`, split by process and worker; its features are those of
`MsaDataset`, with the rows under ``sequences`` and the query in A3M notation under ``query`` in the place of an
`Alignment`. `modeling_msa.training.shards.load_alignments` gives the bare rows.
"""

from __future__ import annotations

import glob
import io
import itertools
import json
import logging
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import DatasetCardData
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import load_contacts
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import format_of, read_alignment
from ..alignments.writing import write_alignment

try:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.distributed import split_dataset_by_node
except ImportError as error:
    raise ImportError("Shards take datasets and pyarrow: pip install 'modeling-msa[train]'.") from error

logger = logging.getLogger(__name__)

_ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "sequences": pa.list_(pa.string()),
        "query": pa.string(),
        "query_a3m": pa.string(),
        "depth": pa.int32(),
        "length": pa.int32(),
        "residues": pa.int64(),
    }
)
_GROUP_BYTES = 32_000_000  # of letters in a row group, which a reader holds whole
_MOST_WORKERS = 1024
_CARD = """---
{metadata}
---

# {name}

Multiple sequence alignments of proteins, one a row.

| | |
|---|---|
| alignments | {alignments} |
| sequences | {sequences} |
| residues in match columns | {residues} |

{content}
"""
_CONTENT = {
    "parquet": """| column | |
|---|---|
| `name` | name of the alignment |
| `sequences` | its rows, all of one length, the query first: match columns only, `-` is a gap |
| `query` | residues of the query without gaps; residue numbers count these, from 1 |
| `query_a3m` | the query in A3M notation: residues without a column are in lower case |
| `depth`, `length` | rows and columns |
| `residues` | letters in `sequences` |""",
    "webdataset": """A sample is an alignment as a compressed A3M file (`.a3m.gz`: the query first, insertions in
lower case) and its name, depth, length and residues (`.json`).""",
}


class MsaStream(datasets.IterableDataset):
    """Rows of shards as features; see `load_stream`, which makes it."""

    labels: Mapping[str, Any] | None
    on_error: str
    fixed: bool
    repeat_passes: bool
    _skipped: torch.Tensor  # by worker, in shared memory

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.repeat_passes:
            yield from self._one_pass()
            return
        shared = self._epoch  # type: ignore[has-type]
        try:
            for k in itertools.count():
                if k:  # this worker's own count: workers do not wait for each other
                    self._epoch = shared + k
                empty = True
                for feature in self._one_pass():
                    empty = False
                    yield feature
                if empty:
                    return
        finally:
            self._epoch = shared

    def _one_pass(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        for row in super().__iter__():
            try:
                yield self._feature(row)
            except ValueError as error:
                if self.on_error == "raise":
                    raise
                self._skipped[0 if worker is None else worker.id] += 1
                logger.warning("skipped: %s", error)

    def shard(self, num_shards: int, index: int, contiguous: bool = True) -> MsaStream:
        """Take one of several parts, as accelerate does for each process."""
        return _as_stream(super().shard(num_shards, index, contiguous), vars(self))

    @property
    def skipped(self) -> int:
        """How many alignments were left out, in all passes and workers of this process."""
        return int(self._skipped.sum())

    def _feature(self, row: Mapping[str, Any]) -> dict[str, Any]:
        columns = ("name", "query", "sequences")
        feature = {key: row[key] for key in columns} if "sequences" in row else _from_tar(row)
        if row.get("query_a3m") is not None:  # older shards, and those of others, have one of the two under "query"
            feature["query"] = row["query_a3m"]
        name = feature["name"]
        # no place in a stream is the same for any number of workers, but the name is
        feature["visit"] = (0 if self.fixed else self.epoch, zlib.crc32(name.encode()))
        if self.labels is not None:
            if name not in self.labels:
                raise ValueError(f"{name}: has no label.")
            label = self.labels[name]
            if isinstance(label, os.PathLike):
                query = feature.get("alignment") or Alignment.from_sequences([feature["query"]], source=name)
                label = load_contacts(label, query)
            feature["labels"] = label
        return feature


def _from_tar(row: Mapping[str, Any]) -> dict[str, Any]:
    """Feature of a WebDataset's sample: an alignment file, and perhaps JSON with its name."""
    key = next((key for key in row if format_of(f"alignment.{key}") and row[key] is not None), None)
    name = (row.get("json") or {}).get("name") or row["__key__"].rpartition("/")[2]
    if key is None:
        raise ValueError(f"{row['__url__']}: the sample {row['__key__']!r} has no alignment (.a3m, .sto ...).")
    text = row[key] if isinstance(row[key], str) else row[key].decode("utf-8", "replace")
    try:
        return {"name": name, "alignment": read_alignment(f"{text}\n", format_of(f"alignment.{key}"))}
    except ValueError as error:
        raise ValueError(f"{row['__url__']}, {name}: {error}") from None


def _as_stream(stream: datasets.IterableDataset, settings: Mapping[str, Any]) -> MsaStream:
    """Turn the stream of a library's method, which makes a new object of its own class, back into ours."""
    stream.__class__ = MsaStream
    for name in MsaStream.__annotations__:
        setattr(stream, name, settings[name])
    return stream


def load_stream(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labels: Mapping[str, Any] | None = None,
    shuffle_buffer: int = 64,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    on_error: str = "raise",
    fixed: bool = False,
    repeat: bool = False,
) -> MsaStream:
    """Read shards as a stream of alignments, through Hugging Face `datasets`.

    Worker processes of a DataLoader share the shards. So do the processes of a run under accelerate, hence under
    Trainer, where ``accelerator_config={"dispatch_batches": False}`` is needed (else one process reads all); other
    programs say `rank` and `world_size`. Give at least as many shards, of equal size, as there are processes times
    workers.

    Parameters
    ----------
    files : str, path-like, or sequence
        Folder, pattern (``shards/*.parquet``), files, or addresses (``hf://datasets/...``, ``https://...``).
    labels : mapping of str to label, optional
        See `MsaDataset`.
    shuffle_buffer : int, default 64
        Shards are shuffled anew in each epoch, and alignments within a buffer of so many; 0: files in their order.
    seed : int, default 0
        Of the shuffle.
    rank, world_size : int, optional
        Take this process's part (`datasets.distributed.split_dataset_by_node`). Not under accelerate, which does so.
    on_error : {"raise", "skip"}, default "raise"
        What an unreadable alignment, or one without label, does; those skipped are counted in `skipped`.
    fixed : bool, default False
        See `MsaDataset`.
    repeat : bool, default False
        For training: begin again at the end, as the next epoch, so that no process waits for others with more
        alignments, and a resumed run, which reads again what it has trained on, goes on with the same batches.

    Returns
    -------
    MsaStream
        A `datasets.IterableDataset`; `set_epoch` reaches running workers.

    Raises
    ------
    ImportError
        Without `datasets`.
    OSError, ValueError
        If there are no such files, or they hold no alignments.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}.")
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size go together.")
    paths = _list_shards(files)
    kind = next((kind for kind, ending in _ENDINGS.items() if all(path.endswith(ending) for path in paths)), None)
    if kind is None:
        raise ValueError(f"shards are either all .parquet or all .tar, but these are {', '.join(paths[:3])} ...")
    stream = datasets.load_dataset(kind, data_files=paths, split="train", streaming=True)
    columns = stream.column_names or []
    if kind == "parquet" and not {"name", "query", "sequences"} <= set(columns):
        raise ValueError(f"{paths[0]}: has the columns {', '.join(columns)}; make shards with `msa pack`.")
    if shuffle_buffer:
        stream = stream.shuffle(seed=seed, buffer_size=shuffle_buffer)
    if rank is not None and world_size is not None:
        stream = split_dataset_by_node(stream, rank=rank, world_size=world_size)
    skipped = torch.zeros(_MOST_WORKERS, dtype=torch.int64).share_memory_()
    settings = {"labels": labels, "on_error": on_error, "fixed": fixed, "repeat_passes": repeat, "_skipped": skipped}
    return _as_stream(stream, settings)


def _list_shards(files: Any) -> list[str]:
    if not isinstance(files, (str, os.PathLike)):
        return [path for each in files for path in _list_shards(each)]
    text = os.fspath(files)
    if "://" in text:
        return [text]
    if os.path.isdir(text):
        paths = sorted(str(path) for path in Path(text).iterdir() if path.suffix in _ENDINGS.values())
        paths = [path for path in paths if not os.path.basename(path).startswith(".")]
    else:
        paths = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
    if not paths or not os.path.exists(paths[0]):
        raise FileNotFoundError(f"{text}: there are no such shards (.parquet or .tar); make them with `msa pack`.")
    return paths


class PackReport(NamedTuple):
    """What `pack_alignments` did."""

    shards: list[Path]
    packed: int  # alignments in them
    unreadable: dict[str, str]  # file -> why it was left out
    sequences: int = 0  # rows of all alignments
    residues: int = 0  # letters in match columns

    def __str__(self) -> str:
        lines = [f"{self.packed} alignments in {len(self.shards)} shards"]
        if self.unreadable:
            lines += [f"{len(self.unreadable)} could not be read:", *self.unreadable.values()]
        return "\n".join(lines)


def pack_alignments(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    format: str = "parquet",
    *,
    rows_per_shard: int = 500,
    input_format: str | None = None,
    on_error: str = "raise",
    workers: int = 0,
    progress: bool = True,
) -> PackReport:
    """Pack alignments into shards that can be read as a stream.

    One row, or sample, is one alignment. Parquet has the columns `name`, `sequences` (match columns of all rows),
    `query` (its residues without gaps, insertions included), `query_a3m` (the query in A3M notation, which tells
    the columns of its residues), `depth`, `length` and `residues` (letters in match columns): what training reads,
    without the rows' names and insertions. WebDataset shards are tar files of compressed A3M files, which keep both,
    and ``.json`` with the name and the three numbers.

    Each shard appears whole or not at all. Shards that an earlier, interrupted call of the same arguments left are
    kept, and only the others are made. At the end a ``README.md``, with which the Hub shows the folder as a dataset,
    counts what is in them; one that is there already stays.

    Parameters
    ----------
    source : str, path-like, or sequence
        See `modeling_msa.alignments.listing.list_alignments`; or a list of files.
    output_dir : str or path-like
        Folder to make or to complete: ``train-00000-of-00042.parquet`` (or ``.tar``).
    format : {"parquet", "webdataset"}, default "parquet"
        Of the shards.
    rows_per_shard : int, default 500
        Alignments in a shard. Have at least as many shards as a run has processes times workers.
    input_format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Of the files; default: by their endings.
    on_error : {"raise", "skip"}, default "raise"
        What an unreadable file does.
    workers : int, default 0
        Processes that read; 0: this one.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    PackReport

    Raises
    ------
    OSError, ValueError
        If there is nothing to read, a file is unreadable and not skipped, or the folder holds other shards.
    """
    if format not in _ENDINGS:
        raise ValueError(f"format is 'parquet' or 'webdataset', not {format!r}.")
    if on_error not in ("raise", "skip") or rows_per_shard < 1:
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}; rows_per_shard is at least 1.")
    single = isinstance(source, (str, os.PathLike))
    paths = list_alignments(source) if single else [Path(path) for path in source]  # type: ignore[arg-type,union-attr]
    if not paths:
        raise ValueError("there is no alignment to pack: the list is empty.")
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    chunks = [paths[start : start + rows_per_shard] for start in range(0, len(paths), rows_per_shard)]
    names = [f"train-{k:05}-of-{len(chunks):05}{_ENDINGS[format]}" for k in range(len(chunks))]
    plan = dict(zip([output_dir / name for name in names], chunks, strict=True))
    unreadable: dict[str, str] = {}
    kept = _check_earlier(output_dir, plan, unreadable)
    todo = [(shard, path) for shard, chunk in plan.items() if shard not in kept for path in chunk]
    reader = DataLoader(
        _Reader([path for _, path in todo], input_format), batch_size=None, num_workers=workers, collate_fn=_as_it_is
    )
    packed = sum(kept.values(), _Sizes())
    with tqdm(total=len(paths), initial=len(paths) - len(todo), unit="alignment", disable=not progress) as bar:
        rows = iter(reader)
        for shard, chunk in plan.items():
            if shard in kept:
                continue
            packed += _write_shard(shard, _readable(rows, chunk, on_error, unreadable, bar))
    if not packed.alignments:
        first = next(iter(unreadable.values()))
        raise ValueError(f"none of the {len(paths)} alignments could be read; the first: {first}")
    shards = [shard for shard in plan if shard.exists()]
    _write_card(output_dir, format, packed)
    return PackReport(shards, packed.alignments, unreadable, packed.sequences, packed.residues)


@dataclass
class _Sizes:
    """What is in shards."""

    alignments: int = 0
    sequences: int = 0
    residues: int = 0

    def __add__(self, other: _Sizes) -> _Sizes:
        return _Sizes(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def _sizes_of(name: str, alignment: Alignment) -> dict[str, Any]:
    """What a shard says of an alignment beside its rows."""
    residues = int(np.count_nonzero(alignment.array != ord("-")))
    return {"name": name, "depth": alignment.depth, "length": alignment.length, "residues": residues}


def _write_card(folder: Path, format: str, sizes: _Sizes) -> None:
    """Write the README.md that the Hub reads, unless there is one."""
    if (folder / "README.md").exists():
        return
    bounds = ("1K", "10K", "100K", "1M", "10M")
    place = sum(sizes.alignments >= 1000 * 10**k for k in range(len(bounds)))
    category = (
        f"{bounds[place - 1]}<n<{bounds[place]}" if 0 < place < len(bounds) else "n<1K" if not place else "n>10M"
    )
    metadata = DatasetCardData(
        pretty_name=folder.resolve().name,
        size_categories=[category],
        tags=["biology", "protein", "multiple-sequence-alignment"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": f"train-*{_ENDINGS[format]}"}]}],
    )
    text = _CARD.format(
        metadata=metadata.to_yaml(),
        name=metadata.pretty_name,
        content=_CONTENT[format],
        **{key: f"{value:,}" for key, value in asdict(sizes).items()},
    )
    with whole_file(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


class _Reader(Dataset):
    """Alignments, or why they cannot be read."""

    def __init__(self, paths: list[Path], format: str | None) -> None:
        self.paths = paths
        self.format = format

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Alignment | str:
        try:
            return read_alignment(self.paths[index], self.format)
        except (OSError, ValueError) as error:
            return str(error)


def _as_it_is(sample: Any) -> Any:
    return sample


def _readable(
    rows: Iterator[Any], chunk: list[Path], on_error: str, unreadable: dict[str, str], bar: tqdm
) -> Iterator[tuple[str, Alignment]]:
    for path in chunk:
        row = next(rows)
        bar.update()
        if isinstance(row, Alignment):
            yield name_of(path), row
        elif on_error == "raise":
            raise ValueError(f"{row}\n(on_error='skip' leaves such files out.)")
        else:
            unreadable[str(path)] = row


def _check_earlier(output_dir: Path, plan: dict[Path, list[Path]], unreadable: dict[str, str]) -> dict[Path, _Sizes]:
    """Shards that are there already, and what they hold; they must be those of this plan."""
    kept = {}
    for shard in sorted(path for path in output_dir.iterdir() if path.suffix in _ENDINGS.values()):
        if shard.name.startswith("."):
            continue  # of a call that was killed while writing
        rows = _sizes_in(shard) if shard in plan else []
        names = {row["name"] for row in rows}
        if not rows or not names <= {name_of(path) for path in plan[shard]}:
            raise ValueError(f"{shard}: is a shard of other alignments; give an empty folder, or remove it.")
        if "residues" not in rows[0]:
            raise ValueError(f"{shard}: was made by an older version, with other columns; give an empty folder.")
        kept[shard] = _Sizes(len(rows), sum(row["depth"] for row in rows), sum(row["residues"] for row in rows))
        for path in plan[shard]:
            if name_of(path) not in names:
                unreadable[str(path)] = f"{path}: left out of {shard.name} earlier"
    return kept


def _sizes_in(shard: Path) -> list[dict[str, Any]]:
    """What a shard says of its alignments beside their rows."""
    if shard.suffix == ".parquet":
        columns = [name for name in ("name", "depth", "residues") if name in pq.read_schema(shard).names]
        return pq.read_table(shard, columns=columns).to_pylist()
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(".json")]
        return [json.load(tar.extractfile(member)) for member in members]  # type: ignore[arg-type]


def _write_shard(shard: Path, rows: Iterator[tuple[str, Alignment]]) -> _Sizes:
    """Write alignments to a file that appears whole, unless there is none; count them."""
    first = next(rows, None)
    if first is None:
        return _Sizes()
    rows = itertools.chain([first], rows)
    with whole_file(shard) as temporary:
        return _write_parquet(temporary, rows) if shard.suffix == ".parquet" else _write_tar(temporary, rows)


def _write_parquet(path: Path, rows: Iterator[tuple[str, Alignment]]) -> _Sizes:
    group: list[dict[str, Any]] = []
    letters, packed = 0, _Sizes()
    # the page index lets a viewer fetch single rows
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_page_index": True}
    with pq.ParquetWriter(path, _SCHEMA, **options) as writer:
        for name, alignment in rows:
            query = alignment.raw_rows[0] if alignment.raw_rows else alignment.array[0].tobytes()
            sizes = _sizes_of(name, alignment)
            queries = {"query": alignment.query, "query_a3m": query.decode()}
            group.append({"sequences": alignment.sequences, **queries, **sizes})
            letters += alignment.array.size
            packed += _Sizes(1, alignment.depth, sizes["residues"])
            if letters > _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, _SCHEMA))
                group, letters = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, _SCHEMA))
    return packed


def _write_tar(path: Path, rows: Iterator[tuple[str, Alignment]]) -> _Sizes:
    packed = _Sizes()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "w") as tar:
        file = Path(folder, "alignment.a3m.gz")
        for name, alignment in rows:
            write_alignment(alignment, file)
            sizes = _sizes_of(name, alignment)
            # a number, since a sample's key ends at its first dot and names have dots
            for ending, content in (("a3m.gz", file.read_bytes()), ("json", json.dumps(sizes).encode())):
                member = tarfile.TarInfo(f"{packed.alignments:06}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            packed += _Sizes(1, alignment.depth, sizes["residues"])
    return packed
