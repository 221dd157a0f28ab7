"""Alignments as rows of Hugging Face `datasets`: `load_alignments` for any use, `load_stream` for long training runs.

`load_alignments` gives the same rows for a folder of alignment files, for Parquet or WebDataset shards and for a
dataset on the Hub. `load_stream` gives the rows of shards as features for the collators, endlessly and with draws
that a resumed run repeats.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from glob import glob, has_magic
from typing import Any

import torch
from torch.utils.data import get_worker_info

from .._version import __version__
from .._words import counted
from ..alignments.alignment import FORMATS, Alignment
from ..alignments.known_contacts import load_contacts
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import decompress, format_of, read_alignment
from .packing import datasets, pa, query_in_a3m, require_datasets

logger = logging.getLogger(__name__)

COLUMNS = ("name", "sequences", "query")
_PARQUET, _TARS = (".parquet",), (".tar", ".tar.gz", ".tgz")
_BATCH = 16  # rows held at a time: one may have many megabytes
_MAX_WORKERS = 1024


def load_alignments(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    split: str | None = None,
    streaming: bool = False,
    input_format: str | None = None,
    on_error: str = "raise",
    num_proc: int | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    r"""Load alignments as a Hugging Face dataset with the columns `name`, `sequences` and `query`.

    Parameters
    ----------
    source : str, path-like, or sequence
        - A folder (with its subfolders), a pattern or files: alignments (see
          `modeling_msa.alignments.listing.list_alignments`), or Parquet files, or tar files, but only one kind.
          The last two may be ``hf://`` and other addresses.
        - Parquet requires the columns `name` and `sequences`; without `query`, the first row gives it. A tar file is
          one of `msa pack` or any other that contains alignment files, plain or compressed.
        - ``owner/name``, if no such path exists: a dataset on the Hub with these columns, or of such tar files.
    split : str, optional
        Split of the Hub's dataset, by default "train"; of Parquet and tar files those whose names begin with it, by
        default all.
    streaming : bool, default False
        List files now and read each when its turn comes. Otherwise all are read now, into the cache of `datasets`.
    input_format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Format of the alignments; default: by their endings, else by their content. `sequences` of Parquet files that
        `msa pack` has not made are "a3m" by default, with or without insertions.
    on_error : {"raise", "skip"}, default "raise"
        Whether an alignment that cannot be read stops the call or is left out. Warnings name those left out when they
        are read, not when the rows come from the cache.
    num_proc : int, optional
        Number of reading processes, without `streaming`.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset
        One row is one alignment. `name`: string, the file's without endings. `sequences`: list of strings of one
        length, the match columns of all rows, query first; insertions, which a model does not see, are left out.
        `query`: string, the query's residues without gaps, insertions included and in upper case: what residue
        numbers count.

    Raises
    ------
    OSError, ValueError
        If there are no such files, they are of several kinds, Parquet has other columns, a tar file has no alignment,
        or an alignment cannot be read and is not skipped: now, or when the stream comes to it. Without `streaming`,
        also if all files were skipped.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "1abc_A.a3m").write_text(">q\nmKV-L\n>r\nRVaGL\n")
    >>> list(load_alignments(folder, streaming=True))
    [{'name': '1abc_A', 'sequences': ['KV-L', 'RVGL'], 'query': 'MKVL'}]
    """
    require_datasets()
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
    if input_format not in (None, *FORMATS):
        raise ValueError(f"input_format must be one of {', '.join(FORMATS)}, not {input_format!r}.")
    settings = {"input_format": input_format, "on_error": on_error}
    if _is_hub_id(source):
        load = partial(datasets.load_dataset, source, split=split or "train")
        return _from_columns(load, str(source), streaming, num_proc, settings)
    kind, files = _find(_list_files(source), split)
    if kind == "parquet":
        load = partial(datasets.load_dataset, "parquet", data_files=files, split="train")
        return _from_columns(load, files[0], streaming, num_proc, settings)
    arguments = {"files": files, **settings}
    if streaming:
        return datasets.IterableDataset.from_generator(_read_rows, _features(), arguments)
    try:
        with _causes():
            return datasets.Dataset.from_generator(
                _read_rows,
                _features(),
                gen_kwargs=arguments,
                num_proc=num_proc,
                fingerprint=_fingerprint(files, settings),
                writer_batch_size=_BATCH,
            )
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        raise ValueError(f"None of {counted(len(files), 'file')} could be read; the warnings say why.") from None


def _from_columns(
    load: Callable[..., Any], where: str, streaming: bool, num_proc: int | None, settings: dict[str, Any]
) -> Any:
    """Dataset of our columns, made from one that `load` reads."""
    split = str(load.keywords["split"]).partition("[")[0]  # type: ignore[attr-defined]  # a stream has no slices
    head = load(streaming=True, split=split)  # knows the columns before anything is read
    _check_columns(head, where)
    known = head.column_names or []
    with _causes():
        dataset = load(streaming=True) if streaming else load(streaming=False, num_proc=num_proc)
    if "query_a3m" in known:  # made by `msa pack`, which has checked the rows
        return dataset.select_columns(list(COLUMNS)).cast(_features())
    if "__key__" not in known:
        dataset = dataset.select_columns([column for column in COLUMNS if column in known])
    options: dict[str, Any] = {} if streaming else {"num_proc": num_proc, "writer_batch_size": _BATCH}
    return dataset.map(
        partial(_convert, where=where, **settings),
        batched=True,
        batch_size=_BATCH,
        remove_columns=[column for column in dataset.column_names if column not in COLUMNS],
        features=_features(),
        **options,
    )


def _check_columns(head: datasets.IterableDataset, where: str) -> None:
    """Raise ValueError if a dataset's columns are neither ours nor those of a WebDataset."""
    known = list(head.features or head.column_names or [])
    if "__key__" in known:
        return
    lacking = [column for column in COLUMNS[:2] if column not in known]
    if lacking:
        raise ValueError(
            f"{where}: has the columns {', '.join(known)}, but not {' and '.join(lacking)}; rename columns "
            "(rename_column), or make the files with `msa pack`."
        )
    kind = head.features.arrow_schema.field("sequences").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)):
        raise ValueError(f"{where}: the column sequences is {kind}, but must be a list of strings, one per row.")


def _convert(
    batch: Mapping[str, list[Any]], where: str, input_format: str | None, on_error: str
) -> dict[str, list[Any]]:
    """Checked rows of our columns, made from a batch of foreign ones."""
    rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    for values in zip(*batch.values(), strict=True):
        raw = dict(zip(batch, values, strict=True))
        try:
            row = _row_of_sample(raw) if "__key__" in raw else _row_of_columns(raw, where, input_format)
        except ValueError as error:
            _refuse(error, on_error)
            continue
        for column in COLUMNS:
            rows[column].append(row[column])
    return rows


def _features() -> datasets.Features:
    text = datasets.Value("string")
    return datasets.Features({"name": text, "sequences": datasets.List(text), "query": text})


def _fingerprint(files: list[str], settings: dict[str, Any]) -> str:
    """Name of the cache, which must not outlive its files."""
    if any("://" in file for file in files):  # nothing shows whether it has changed there
        return datasets.fingerprint.generate_random_fingerprint()
    found = [(os.path.abspath(file), os.stat(file)) for file in files]
    stats = [(path, each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino) for path, each in found]
    return datasets.fingerprint.Hasher.hash((__version__, COLUMNS, stats, settings))


@contextmanager
def _causes() -> Iterator[None]:
    """Raise the error that `datasets` met in a file instead of its report that there was one."""
    try:
        yield
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, (OSError, ValueError)) else error from None


def _refuse(error: Exception, on_error: str) -> None:
    if on_error == "raise":
        raise error
    logger.warning("skipped: %s", error)


@dataclass(frozen=True)
class _StreamSettings:
    where: str
    labels: Mapping[str, Any] | None
    on_error: str
    fixed: bool
    repeat: bool
    skipped: torch.Tensor = field(  # by worker, in memory that the workers share
        default_factory=lambda: torch.zeros(_MAX_WORKERS, dtype=torch.int64).share_memory_()
    )


class MsaStream(datasets.IterableDataset if datasets else object):  # type: ignore[misc]
    """Rows of shards as features for the collators; `load_stream` makes it."""

    def __init__(self, rows: datasets.IterableDataset, settings: _StreamSettings) -> None:
        self.__dict__.update(rows.__dict__)  # to accelerate and Trainer it is `rows`: shards, epoch, columns
        self._rows = rows
        self._settings = settings

    @property
    def skipped(self) -> int:
        """Number of alignments that were left out, in all passes and workers of this process."""
        return int(self._settings.skipped.sum())

    @property
    def repeat_passes(self) -> bool:
        """Whether the stream begins again at its end."""
        return self._settings.repeat

    def set_epoch(self, epoch: int) -> None:
        """Begin a new pass, in another order and with other draws; reaches running workers."""
        super().set_epoch(epoch)
        self._rows.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream, as `datasets` does; a stream that repeats has none that could be resumed."""
        if self.repeat_passes:
            raise NotImplementedError("A stream with repeat=True cannot save its place: read it again up to there.")
        return self._rows.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a place in the stream."""
        self._rows.load_state_dict(state_dict)

    def shard(self, num_shards: int, index: int, contiguous: bool = True) -> MsaStream:
        """Take one of several parts, as accelerate does for each process."""
        return MsaStream(self._rows.shard(num_shards, index, contiguous), self._settings)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        for k in itertools.count() if self.repeat_passes else range(1):
            rows, epoch, empty = self._rows, self.epoch + k, True
            if k:
                rows = copy.deepcopy(rows)  # with an epoch of its own: workers do not wait for each other
                rows.set_epoch(epoch)
            for raw in rows:
                try:
                    feature = self._feature(raw, 0 if self._settings.fixed else epoch)
                except ValueError as error:
                    self._settings.skipped[0 if worker is None else worker.id] += 1
                    _refuse(error, self._settings.on_error)
                    continue
                empty = False
                yield feature
            if empty:
                return

    def _feature(self, raw: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        if raw.get("error") is not None:
            raise ValueError(raw["error"])
        row = raw if raw.get("query_a3m") is not None else _row_of_columns(raw, self._settings.where, None)
        name = row["name"]
        feature = {"name": name, "query": row["query_a3m"], "sequences": row["sequences"]}
        # an alignment's place in the stream depends on the number of workers, its name does not
        feature["visit"] = (epoch, zlib.crc32(name.encode()))
        if (labels := self._settings.labels) is None:
            return feature
        if name not in labels:
            raise ValueError(f"{name}: this alignment has no label.")
        label = labels[name]
        if isinstance(label, os.PathLike):
            label = load_contacts(label, Alignment.from_sequences([feature["query"]], source=name))
        return feature | {"labels": label}


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

    A stream requires neither a list of files nor random access, so it suits collections too large for a folder, on
    network drives or the Hub. Worker processes of a DataLoader share the shards. So do the processes of a run under
    accelerate, hence under Trainer, where ``accelerator_config={"dispatch_batches": False}`` is required (otherwise
    one process reads all); other programs pass `rank` and `world_size`. Provide at least as many shards, of equal
    size, as there are processes times workers.

    Parameters
    ----------
    files : str, path-like, or sequence
        Folder, pattern (``shards/*.parquet``), files, or addresses (``hf://datasets/...``, ``https://...``) of
        Parquet or tar files, as `load_alignments` reads them.
    labels : mapping of str to label, optional
        See `MsaDataset`.
    shuffle_buffer : int, default 64
        Number of alignments to choose the next one from; shards are shuffled too, and anew in each epoch. 0 keeps
        the files' order.
    seed : int, default 0
        Random seed of the shuffle.
    rank, world_size : int, optional
        Take this process's part (`datasets.distributed.split_dataset_by_node`). Leave them out under accelerate,
        which takes it itself.
    on_error : {"raise", "skip"}, default "raise"
        Whether an alignment that is unreadable or has no label stops the stream or is left out; `skipped` counts
        those left out.
    fixed : bool, default False
        See `MsaDataset`.
    repeat : bool, default False
        For training: begin again at the end, as the next epoch, so that no process waits for others with more
        alignments, and a resumed run, which reads again what it has trained on, continues with the same batches.

    Returns
    -------
    MsaStream
        A `datasets.IterableDataset` of features as `MsaDataset` has them, with the rows under ``sequences`` and the
        query in A3M notation under ``query`` in the place of an `Alignment`. `set_epoch` reaches running workers.

    Raises
    ------
    OSError, ValueError
        If there are no such files, or they contain no alignments.
    """
    require_datasets()
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
    if (rank is None) != (world_size is None):
        raise ValueError("Pass both rank and world_size, or neither.")
    kind, paths = _find(_list_files(files, shards_only=True))
    if kind == "alignments":
        raise ValueError(f"{paths[0]}: not a shard (.parquet or .tar); make shards with `msa pack`.")
    if kind == "parquet":
        rows = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
        _check_columns(rows, paths[0])
    else:
        arguments = {"files": paths, "input_format": None, "on_error": "keep"}
        rows = datasets.IterableDataset.from_generator(_read_rows, gen_kwargs=arguments)
    if shuffle_buffer:
        rows = rows.shuffle(seed=seed, buffer_size=shuffle_buffer)
    if rank is not None and world_size is not None:
        rows = datasets.distributed.split_dataset_by_node(rows, rank=rank, world_size=world_size)
    return MsaStream(rows, _StreamSettings(paths[0], labels, on_error, fixed, repeat))


def _is_hub_id(source: Any) -> bool:
    return (
        isinstance(source, str)
        and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None
        and not (os.path.exists(source) or os.path.isdir(os.path.dirname(source)))
    )


def _kind_of(file: str) -> str:
    lower = file.lower()
    return "parquet" if lower.endswith(_PARQUET) else "tar" if lower.endswith(_TARS) else "alignments"


def _list_files(source: Any, shards_only: bool = False) -> list[str]:
    """List the files of a source; none is opened."""
    if not isinstance(source, (str, os.PathLike)):
        return [file for each in source for file in _list_files(each, shards_only)]
    text = os.fspath(source)
    if "://" in text:
        return [text]
    if os.path.isdir(text):
        return _list_folder(text, shards_only)
    if has_magic(text) and not os.path.exists(text):
        if not (files := sorted(glob(text, recursive=True))):
            raise FileNotFoundError(f"{text}: no file matches the pattern.")
        return files
    return list(map(str, list_alignments(text)))


def _list_folder(folder: str, shards_only: bool) -> list[str]:
    shards = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shards += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    shards = sorted(file for file in shards if _kind_of(file) != "alignments")
    if shards_only:
        if not shards:
            raise FileNotFoundError(
                f"{folder}: the folder has no shards (.parquet or .tar); make them with `msa pack`."
            )
        return shards
    try:
        return shards + list(map(str, list_alignments(folder)))
    except ValueError as error:
        if shards:
            return shards
        raise ValueError(f"{error} It has no shards (.parquet, .tar) either.") from None


def _find(files: list[str], split: str | None = None) -> tuple[str, list[str]]:
    """Kind ("alignments", "parquet" or "tar") of files, and those of a split."""
    kinds = {kind: [file for file in files if _kind_of(file) == kind] for kind in ("alignments", "parquet", "tar")}
    found = {kind: those for kind, those in kinds.items() if those}
    if len(found) > 1:
        counts = " and ".join(f"{len(those)} of {kind} ({those[0]})" for kind, those in found.items())
        raise ValueError(f"The files are of several kinds, {counts}: load one kind at a time, by a pattern.")
    if not found:
        raise ValueError("The list of alignments to load is empty.")
    ((kind, files),) = found.items()
    if split is not None:
        if kind == "alignments":
            raise ValueError(f"Alignment files have no splits, so there is no {split!r}: pass the files of the split.")
        names = sorted({re.split(r"[-_.]", os.path.basename(file))[0] for file in files})
        files = [file for file in files if re.match(rf"{re.escape(split)}[-_.]", os.path.basename(file))]
        if not files:
            raise ValueError(f"No file's name begins with the split {split!r}; they begin with {', '.join(names)}.")
    return kind, files


def _row_of(name: str, alignment: Alignment) -> dict[str, Any]:
    queries = {"query": alignment.query, "query_a3m": query_in_a3m(alignment)}
    return {"name": name, "sequences": alignment.sequences, **queries}


def _row_of_columns(raw: Mapping[str, Any], where: str, input_format: str | None) -> dict[str, Any]:
    """Row of foreign columns, checked and without insertions; ``query_a3m`` is its own ``query`` if it has one."""
    source, sequences = f"{where}, {raw['name']}", raw["sequences"] or []
    if not all(isinstance(row, str) for row in sequences):
        raise ValueError(f"{source}: a row of the column sequences is not a string.")
    alignment = Alignment.from_sequences(sequences, format=input_format or "a3m", source=source)
    row = _row_of(raw["name"], alignment)
    if (given := raw.get("query")) is None:
        return row
    query = re.sub(r"[-.~_*\s]", "", given).upper()  # older versions of `msa pack` wrote A3M notation
    letters = iter(query)
    if not all(letter in letters for letter in alignment.query):  # they are a subsequence: the rest is insertions
        raise ValueError(
            f"{source}: the first of the sequences, {alignment.query[:20]}, is not the query, {query[:20]}."
        )
    return row | {"query": query, "query_a3m": given}


def _row_of_sample(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Row of a WebDataset's sample as `datasets` reads it: an alignment file, and perhaps JSON with its name."""
    key = next((key for key in raw if format_of(f"alignment.{key}") and raw[key] is not None), None)
    name = (raw.get("json") or {}).get("name") or raw["__key__"].rpartition("/")[2]
    if key is None:
        raise ValueError(f"{raw['__url__']}: the sample {raw['__key__']!r} has no alignment (.a3m, .sto ...).")
    data = raw[key].encode() if isinstance(raw[key], str) else raw[key]
    return _row_of(name, _parse(data, format_of(f"alignment.{key}"), f"{raw['__url__']}, {name}"))


def _read_rows(files: list[str], input_format: str | None, on_error: str) -> Iterator[dict[str, Any]]:
    """Rows of alignment files or tar files; `datasets` splits the list between processes and workers.

    With `on_error` "keep", one that cannot be read keeps its place, with the reason in ``error``.
    """
    for file in files:
        for name, alignment in _alignments_in(file, input_format):
            if isinstance(alignment, Alignment):
                row = _row_of(name, alignment)
                yield row if on_error == "keep" else {column: row[column] for column in COLUMNS}
            elif on_error == "keep":
                yield {"name": name, "error": str(alignment)}
            else:
                _refuse(alignment, on_error)


def _alignments_in(file: str, input_format: str | None) -> Iterator[tuple[str, Alignment | Exception]]:
    """Names and alignments of an alignment file or a tar file, or why one cannot be read."""
    if _kind_of(file) != "tar":
        yield name_of(file), _attempt(read_alignment, file, input_format)
        return
    empty = True
    try:
        for key, group in itertools.groupby(_members(file), key=lambda member: member[0]):
            contents = {member: data for _, member, data in group}
            names = [_name_in(data) for member, data in contents.items() if member.endswith(".json")]
            name = next(filter(None, reversed(names)), key.rpartition("/")[2])
            for member, data in contents.items():
                if not member.endswith(".json"):
                    empty = False
                    yield name, _attempt(_parse, data, input_format or format_of(member), f"{file}, {member}")
        if empty:
            raise ValueError(f"{file}: the tar file has no alignment (.a3m, .a2m, .fasta, .sto ..., .gz, .xz).")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        yield name_of(file), ValueError(f"{file}: the tar file is damaged ({error}); fetch it again.")
    except (OSError, ValueError) as error:
        yield name_of(file), error


def _attempt(read: Callable[..., Alignment], *args: Any) -> Alignment | Exception:
    try:
        return read(*args)
    except (OSError, ValueError) as error:
        return error


def _members(file: str) -> Iterator[tuple[str, str, bytes]]:
    """Key of the sample, name and content of the alignments and JSON files in a tar file."""
    import fsspec  # comes with datasets

    with fsspec.open(file, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if not member.isfile() or name.startswith(".") or not (format_of(name) or name.endswith(".json")):
                continue
            stem = name_of(name) if format_of(name) else name.removesuffix(".json")
            yield f"{folder}/{stem}", member.name, tar.extractfile(member).read()  # type: ignore[union-attr]


def _name_in(data: bytes) -> str | None:
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content.get("name") if isinstance(content, dict) else None


def _parse(data: bytes, format: str | None, where: str) -> Alignment:
    data = decompress(data, where)
    try:
        return read_alignment(data.decode("utf-8", "replace") + "\n", format)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('alignment text: ')}") from None
