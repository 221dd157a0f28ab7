"""Packing of alignments into shards: Parquet or WebDataset files that training reads as a stream.

`load_alignments` and `load_stream` in `modeling_msa.training.shards` read them.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import DatasetCardData
from torch.utils.data import DataLoader
from tqdm import tqdm

from .._files import whole_file
from .._records import Record, State, difference, is_same, locked, state_of
from .._version import __version__
from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import read_alignment
from ..alignments.writing import write_alignment
from ..hub.errors import some_of

try:
    import datasets
    import datasets.distributed
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # the public names can be imported without the extra; `require_datasets` says what they need
    datasets = pa = pq = None  # type: ignore[assignment]

_ENDINGS = {"parquet": ".parquet", "webdataset": ".tar"}
_GROUP_BYTES = 32_000_000  # letters in a row group, which a reader holds in memory as a whole
_CARD = """---
{metadata}
---

# {name}

Multiple sequence alignments of proteins, one a row.

| | |
|---|---|
| alignments | {alignments:,} |
| sequences | {sequences:,} |
| residues in match columns | {residues:,} |

{content}
"""
_CONTENT = {
    ".parquet": """| column | |
|---|---|
| `name` | name of the alignment |
| `sequences` | its rows, all of one length, the query first: match columns only, `-` is a gap |
| `query` | residues of the query without gaps; residue numbers count these, from 1 |
| `query_a3m` | the query in A3M notation: residues without a column are in lower case |
| `depth`, `length` | rows and columns |
| `residues` | letters in `sequences` |""",
    ".tar": """A sample is an alignment as a compressed A3M file (`.a3m.gz`: the query first, insertions in
lower case) and its name, depth, length and residues (`.json`).""",
}


def require_datasets() -> None:
    """Raise ImportError, which says what to install, if `datasets` or pyarrow is missing."""
    if datasets is None:
        raise ImportError("Shards and datasets of alignments require datasets: pip install 'modeling-msa[train]'.")


def _schema() -> pa.Schema:
    text, number = pa.string(), pa.int32()
    columns = {"name": text, "sequences": pa.list_(text), "query": text, "query_a3m": text}
    return pa.schema(columns | {"depth": number, "length": number, "residues": pa.int64()})


class PackReport(NamedTuple):
    """What `pack_alignments` has written."""

    shards: list[Path]
    packed: int  # number of alignments in them
    unreadable: dict[str, str]  # file -> why it was left out
    sequences: int = 0  # rows of all alignments
    residues: int = 0  # letters in match columns
    remade: Mapping[str, str] = MappingProxyType({})  # shard -> why it was made again

    def __str__(self) -> str:
        lines = [f"{counted(self.packed, 'alignment')} in {counted(len(self.shards), 'shard')}"]
        lines += [f"{shard} was made again, because {reason}" for shard, reason in self.remade.items()]
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
    `query` (its residues without gaps, insertions included), `query_a3m` (the query in A3M notation, which shows the
    columns of its residues), `depth`, `length` and `residues` (letters in match columns): what training reads,
    without the names and insertions of the rows. WebDataset shards are tar files of compressed A3M files, which keep
    both, and of ``.json`` files with the name and the three numbers.

    Each shard appears whole or not at all. Shards that an interrupted call with the same arguments has left are kept,
    and only the others are written, and those of alignments whose content has changed since. At the end a
    ``README.md``, with which the Hub shows the folder as a dataset, states what they contain; one that you have
    written or changed is left as it is.

    Parameters
    ----------
    source : str, path-like, or sequence
        See `modeling_msa.alignments.listing.list_alignments`; or a list of files.
    output_dir : str or path-like
        Folder to create or to complete: ``train-00000-of-00042.parquet`` (or ``.tar``).
    format : {"parquet", "webdataset"}, default "parquet"
        Format of the shards.
    rows_per_shard : int, default 500
        Alignments in a shard. A training run needs at least as many shards as it has processes times workers.
    input_format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Format of the files; default: by their endings.
    on_error : {"raise", "skip"}, default "raise"
        Whether an unreadable file stops the call or is left out.
    workers : int, default 0
        Number of reading processes; 0 reads in this one.
    progress : bool, default True
        Show a progress bar.

    Returns
    -------
    PackReport

    Raises
    ------
    OSError, ValueError
        If there is nothing to read, a file is unreadable and not skipped, the folder contains other shards, or another
        call writes to it.
    """
    require_datasets()
    if format not in _ENDINGS:
        raise ValueError(f"format must be 'parquet' or 'webdataset', not {format!r}.")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard must be at least 1, not {rows_per_shard}.")
    single = isinstance(source, (str, os.PathLike))
    paths = list_alignments(source) if single else [Path(path) for path in source]  # type: ignore[arg-type,union-attr]
    if not paths:
        raise ValueError("The list of alignments to pack is empty.")
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    chunks = [paths[start : start + rows_per_shard] for start in range(0, len(paths), rows_per_shard)]
    names = [f"train-{k:05}-of-{len(chunks):05}{_ENDINGS[format]}" for k in range(len(chunks))]
    plan = dict(zip([output_dir / name for name in names], chunks, strict=True))
    with locked(output_dir):
        return _pack(plan, output_dir, {"format": input_format, "version": __version__}, on_error, workers, progress)


def _pack(
    plan: dict[Path, list[Path]],
    output_dir: Path,
    settings: dict[str, str | None],
    on_error: str,
    workers: int,
    progress: bool,
) -> PackReport:
    paths = list(itertools.chain.from_iterable(plan.values()))
    unreadable: dict[str, str] = {}
    remade: dict[str, str] = {}
    record = Record(output_dir / ".msa-pack.jsonl")
    kept = _check_earlier(output_dir, plan, record, settings, unreadable, remade)
    todo = {shard: chunk for shard, chunk in plan.items() if shard not in kept}
    files = list(itertools.chain.from_iterable(todo.values()))
    read: Any = partial(_read, format=settings["format"])
    rows = iter(DataLoader(files, batch_size=None, num_workers=workers, collate_fn=read))  # type: ignore[arg-type]
    total = sum(kept.values(), Counter())
    with tqdm(total=len(paths), initial=len(paths) - len(files), unit="alignment", disable=not progress) as bar:
        for shard, chunk in todo.items():
            states: dict[str, State | None] = {}
            names = [name_of(path) for path in chunk]
            record.add({"result": shard.name, "names": names})
            shard.unlink(missing_ok=True)  # of what has changed
            total += _write_shard(shard, _readable(rows, chunk, on_error, unreadable, states, bar))
            made = {shard.name: state_of(shard, is_ours=True)} if shard.exists() else {}
            made_from = {"settings": settings, "sources": states}
            record.add({"result": shard.name, "names": names, "files": made, **made_from})
    if not total:
        first = next(iter(unreadable.values()))
        raise ValueError(f"None of {counted(len(paths), 'alignment')} could be read; the first: {first}")
    _write_card(output_dir / "README.md", next(iter(plan)).suffix, total, record)
    shards = [shard for shard in plan if shard.exists()]
    return PackReport(shards, total["alignments"], unreadable, total["sequences"], total["residues"], remade)


def query_in_a3m(alignment: Alignment) -> str:
    """Query in A3M notation: gaps as ``-``, and residues without a column in lower case."""
    return (alignment.raw_rows[0] if alignment.raw_rows else alignment.array[0].tobytes()).decode("ascii")


def size_category(alignments: int) -> str:
    """Category of a dataset's size in the Hub's terms, such as ``1K<n<10K``."""
    bounds = ("1K", "10K", "100K", "1M", "10M")
    place = sum(alignments >= 1000 * 10**k for k in range(len(bounds)))
    if place == 0:
        return "n<1K"
    return "n>10M" if place == len(bounds) else f"{bounds[place - 1]}<n<{bounds[place]}"


def _write_card(card: Path, ending: str, total: Counter, record: Record) -> None:
    """Write the README.md that the Hub reads, unless there is one that is not as an earlier call wrote it."""
    written = record.read().get(card.name)
    if card.exists() and not (written and is_same(card, written["files"][card.name])):
        return
    # no `configs`, as file names show the split: with them `datasets` knows a folder by its name and card only, and
    # reads its cache whatever the files contain now
    metadata = DatasetCardData(
        pretty_name=card.parent.resolve().name,
        size_categories=[size_category(total["alignments"])],
        tags=["biology", "protein", "multiple-sequence-alignment"],
    )
    text = _CARD.format(
        metadata=metadata.to_yaml(), name=metadata.pretty_name, content=_CONTENT[ending], **dict(total)
    )
    with whole_file(card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    record.add({"result": card.name, "files": {card.name: state_of(card, is_ours=True)}})


def _read(path: Path, format: str | None) -> tuple[State | None, Alignment | str]:
    """Return the state of a file, and its alignment or why it cannot be read."""
    state = None
    try:
        state = state_of(path)
        return state, read_alignment(path, format)
    except (OSError, ValueError) as error:
        return state, str(error)


def _readable(
    rows: Iterator[Any],
    chunk: list[Path],
    on_error: str,
    unreadable: dict[str, str],
    states: dict[str, State | None],
    bar: tqdm,
) -> Iterator[tuple[str, Alignment]]:
    """Name and alignment of the files of a shard that can be read; the states of all files go into `states`."""
    for path in chunk:
        states[_source(path)], row = next(rows)
        bar.update()
        if isinstance(row, Alignment):
            yield name_of(path), row
        elif on_error == "raise":
            raise ValueError(f"{row}\n(Pass on_error='skip' to leave such files out.)")
        else:
            unreadable[str(path)] = row


def _source(path: Path) -> str:
    return f"alignment {name_of(path)}"


def _check_earlier(
    output_dir: Path,
    plan: dict[Path, list[Path]],
    record: Record,
    settings: dict[str, str | None],
    unreadable: dict[str, str],
    remade: dict[str, str],
) -> dict[Path, Counter]:
    """Return the shards to keep and the size of each; raise ValueError if some are not part of the plan.

    Alignments that were left out go into `unreadable`, shards that are to be made again into `remade`.
    """
    kept, entries = {}, record.read()
    for shard in sorted(path for path in output_dir.iterdir() if path.suffix in _ENDINGS.values()):
        if shard.name.startswith("."):
            continue  # left by a call that was killed while writing
        entry = entries.get(shard.name, {})
        if shard not in plan or entry.get("names") != [name_of(path) for path in plan[shard]]:
            raise ValueError(
                f"{shard}: this shard has other alignments, or is of an earlier version; pass an empty folder, or "
                "remove the shard."
            )
        if "settings" not in entry:
            continue  # it was being written
        words = difference(entry, settings, {_source(path): path for path in plan[shard]}).split(", ")
        if not is_same(shard, entry["files"][shard.name]):
            words = [f"{shard.name} was changed"]
        if words != [""]:
            remade[shard.name] = some_of(words, 3)
            continue
        rows = _sizes_in(shard)
        kept[shard] = sum(map(_count, rows), Counter())
        left_out = [path for path in plan[shard] if name_of(path) not in {row["name"] for row in rows}]
        unreadable |= {str(path): f"{path}: left out of {shard.name} earlier" for path in left_out}
    return kept


def _sizes_in(shard: Path) -> list[dict[str, Any]]:
    """Names and sizes of the alignments in a shard, read without their rows."""
    if shard.suffix == ".parquet":
        return pq.read_table(shard, columns=["name", "depth", "residues"]).to_pylist()
    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(".json")]
        return [json.load(tar.extractfile(member)) for member in members]  # type: ignore[arg-type]


def _sizes_of(name: str, alignment: Alignment) -> dict[str, Any]:
    """Name and size of an alignment, as a shard states them."""
    residues = int(np.count_nonzero(alignment.array != ord("-")))
    return {"name": name, "depth": alignment.depth, "length": alignment.length, "residues": residues}


def _count(sizes: dict[str, Any]) -> Counter:
    return Counter(alignments=1, sequences=sizes["depth"], residues=sizes["residues"])


def _write_shard(shard: Path, rows: Iterator[tuple[str, Alignment]]) -> Counter:
    """Write alignments to a file that appears whole, unless there are none; return how many there are."""
    first = next(rows, None)
    if first is None:
        return Counter()
    rows = itertools.chain([first], rows)
    with whole_file(shard) as temporary:
        return _write_parquet(temporary, rows) if shard.suffix == ".parquet" else _write_tar(temporary, rows)


def _write_parquet(path: Path, rows: Iterator[tuple[str, Alignment]]) -> Counter:
    group: list[dict[str, Any]] = []
    letters = 0
    total: Counter = Counter()
    # the page index lets a viewer fetch single rows
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_page_index": True}
    schema = _schema()
    with pq.ParquetWriter(path, schema, **options) as writer:
        for name, alignment in rows:
            sizes = _sizes_of(name, alignment)
            queries = {"query": alignment.query, "query_a3m": query_in_a3m(alignment)}
            group.append({"sequences": alignment.sequences, **queries, **sizes})
            letters += alignment.array.size
            total += _count(sizes)
            if letters > _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, letters = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return total


def _write_tar(path: Path, rows: Iterator[tuple[str, Alignment]]) -> Counter:
    total: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "w") as tar:
        file = Path(folder, "alignment.a3m.gz")
        for name, alignment in rows:
            write_alignment(alignment, file)
            sizes = _sizes_of(name, alignment)
            # samples are numbered: a sample's key ends at its first dot, and names have dots
            for ending, content in (("a3m.gz", file.read_bytes()), ("json", json.dumps(sizes).encode())):
                member = tarfile.TarInfo(f"{total['alignments']:06}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            total += _count(sizes)
    return total
