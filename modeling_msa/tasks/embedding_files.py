"""Write embeddings of families into one file, and merge such files: safetensors, NPZ or Parquet.

`write_embeddings` describes their content.
"""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from .._files import check_ending, whole_file

if TYPE_CHECKING:  # so that the formats are known without torch
    from .embeddings import Embeddings

FORMATS = (".safetensors", ".npz", ".parquet")
_METADATA = "__metadata__"  # safetensors' own name for it


def check_embeddings(path: str | os.PathLike[str]) -> str:
    """Return the ending of `path`; ValueError if it is not a format for embeddings, ImportError without pyarrow."""
    suffix = check_ending(path, FORMATS)
    if suffix == ".parquet":
        _pyarrow()
    return suffix


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Writing Parquet requires pyarrow: pip install 'modeling-msa[train]'.") from error
    return pyarrow, pyarrow.parquet


def write_embeddings(families: Mapping[str, Embeddings], path: str | os.PathLike[str]) -> None:
    """Write the embeddings of families into one file, which appears whole or not at all.

    safetensors, NPZ
        One array for each family under its name; with several layers ``NAME/layer_6`` and so on. A complex has one
        for each chain, ``NAME/A``, as if it were a family of its own.
    Parquet
        One row for each residue (for each row and residue, for each family with ``which="mean"``), in the columns
        ``name``, ``row`` (from 0, and ``row_name``), ``residue`` and, as lists of D numbers, ``layer_6`` and so on,
        for one layer too.

    Each describes how it was made: a JSON object ``settings``, as `Embeddings.settings`, and a JSON object
    ``families``, which has for each name ``query``, ``length`` (N), ``residues`` (those with a column, as ranges:
    ``"3-80,82-90"``), ``depth``, and ``row_names`` if there are rows. They are strings in the header of safetensors
    and in the schema's metadata of Parquet; in NPZ both are in one string under ``__metadata__``.

    Parameters
    ----------
    families : mapping of str to Embeddings
        By name, all of them made with the same settings.
    path : path
        Ends with ``.safetensors``, ``.npz`` or ``.parquet``.

    Raises
    ------
    ValueError, ImportError
        For another ending, no families, families of different settings, a name that cannot be a key, or a header
        longer than safetensors allows; for Parquet without pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import load_file
    >>> from modeling_msa import bundled_family, embed, load_model, read_alignment
    >>> result = embed(read_alignment(bundled_family()), load_model(), rows=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_embeddings({"fn3": result}, f"{folder}/fn3.safetensors")
    ...     load_file(f"{folder}/fn3.safetensors")["fn3"].shape
    (80, 192)
    """
    suffix = check_embeddings(path)
    if not families:
        raise ValueError(f"{path}: there are no families to write.")
    for name in families:
        if not name or "/" in name or name == _METADATA:
            raise ValueError(f"{path}: {name!r} cannot be a key in the file; rename the family, without '/'.")
    families = {
        f"{name}/{chain}" if chain else name: part
        for name, each in families.items()
        for chain, part in each.by_chain().items()
    }
    metadata = _merged([(name, _described(name, each)) for name, each in families.items()])
    with whole_file(path) as temporary:
        if suffix == ".parquet":
            _write_tables(itertools.starmap(_table, families.items()), temporary, metadata)
        else:
            _write_arrays(_keyed(families), temporary, metadata)


def _keyed(families: Mapping[str, Embeddings]) -> Iterator[tuple[str, np.ndarray]]:
    for name, each in families.items():
        for layer, array in each.arrays.items():
            yield name if len(each.arrays) == 1 else f"{name}/layer_{layer}", np.ascontiguousarray(array)


def _table(name: str, each: Embeddings) -> Any:
    pyarrow, _ = _pyarrow()
    columns: dict[str, Any] = {}
    count = next(iter(each.arrays.values()))[..., 0].size
    columns["name"] = pyarrow.array([name]).take(pyarrow.array(np.zeros(count, dtype=np.int64)))
    width = len(each.residues)
    if each.settings["which"] == "rows":
        columns["row"] = np.repeat(np.arange(each.depth, dtype=np.int32), width)
        columns["row_name"] = pyarrow.array(each.row_names).take(pyarrow.array(columns["row"]))
    if next(iter(each.arrays.values())).ndim > 1:
        columns["residue"] = np.tile(each.residues.astype(np.int32), count // width)
    for layer, array in each.arrays.items():
        flat = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
        columns[f"layer_{layer}"] = pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[-1])
    return pyarrow.table(columns)


def _described(name: str, each: Embeddings) -> dict[str, Any]:
    residues = _ranges(each.residues)
    family = {"query": each.name, "length": len(each.query), "residues": residues, "depth": each.depth}
    if each.settings["which"] == "rows":
        family["row_names"] = list(each.row_names)
    return {"settings": each.settings, "families": {name: family}}


def _ranges(numbers: np.ndarray) -> str:
    """Write ascending numbers as ranges: 3, 4, 5, 8 as "3-5,8-8"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" for run in runs)


def gather_embeddings(parts: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Merge several files that `write_embeddings` wrote into one.

    NPZ and Parquet require memory for the largest array or family. safetensors parts are mapped into memory, which
    requires as much address space as their total size; they are read while they are written.

    Parameters
    ----------
    parts : sequence of path
        With different names in them, all with the same settings, and with the ending of `path`.
    path : path
        File to write; it appears whole or not at all.

    Raises
    ------
    ValueError
        If two parts have a name in common, the settings differ, or the header is longer than safetensors allows.
    """
    suffix = check_embeddings(path)
    paths = [Path(part) for part in parts]
    metadata = _merged([(part, _read_metadata(part)) for part in paths])
    with whole_file(path) as temporary:
        if suffix == ".parquet":
            _write_tables(_read_tables(paths), temporary, metadata)
        else:
            _write_arrays(_read_arrays(paths), temporary, metadata)


def _merged(parts: Sequence[tuple[str | Path, Mapping[str, Any]]]) -> dict[str, str]:
    """Merge the metadata of named parts: one object ``settings``, the union of ``families``."""
    first, settings = parts[0][0], parts[0][1]["settings"]
    families: dict[str, Any] = {}
    for name, each in parts:
        if not _same_settings(each["settings"], settings):
            raise ValueError(f"{name} was embedded with other settings than {first}; use the same for both.")
        if twice := sorted(families.keys() & each["families"].keys()):
            raise ValueError(f"{name}: {twice[0]} is in an earlier file too; rename one of the alignments.")
        families |= each["families"]
    return {"settings": json.dumps(settings), "families": json.dumps(families)}


def _same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both were made in the same way, by one model; the path of its folder may be spelled in two ways."""
    if {**one, "model": ""} != {**other, "model": ""}:
        return False
    models = one["model"], other["model"]
    return models[0] == models[1] or (all(map(os.path.isdir, models)) and os.path.samefile(*models))


def _parsed(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    return {key: json.loads(metadata[key]) for key in ("settings", "families")}


def _read_metadata(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".safetensors":
        with safe_open(path, "np") as file:
            return _parsed(file.metadata())
    if path.suffix.lower() == ".npz":
        with np.load(path) as arrays:
            return json.loads(arrays[_METADATA].item())
    return _parsed({key.decode(): value for key, value in _pyarrow()[1].read_schema(path).metadata.items()})


def _read_arrays(paths: Iterable[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        if path.suffix.lower() == ".safetensors":
            yield from load_file(path).items()
        else:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name != f"{_METADATA}.npy":
                        with archive.open(name) as entry:
                            yield name.removesuffix(".npy"), np.lib.format.read_array(entry)


def _write_arrays(arrays: Iterable[tuple[str, np.ndarray]], path: Path, metadata: dict[str, str]) -> None:
    if path.suffix.lower() == ".safetensors":
        try:
            return save_file(dict(arrays), path, metadata)
        except SafetensorError as error:
            raise ValueError(
                f"safetensors cannot hold the names and settings of so many families ({error}): write Parquet, or a "
                "folder of files."
            ) from None
    # numpy.savez would require keys that can be Python arguments, and all arrays at once
    described = (_METADATA, np.array(json.dumps(_parsed(metadata))))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in itertools.chain(arrays, [described]):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_tables(paths: Iterable[Path]) -> Iterator[Any]:
    for path in paths:
        with _pyarrow()[1].ParquetFile(path) as part:
            yield from map(part.read_row_group, range(part.num_row_groups))


def _write_tables(tables: Iterable[Any], path: Path, metadata: dict[str, str]) -> None:
    """Write one or more row groups for each table."""
    with ExitStack() as stack:
        writer = None
        for table in tables:
            table = table.replace_schema_metadata(metadata)
            writer = writer or stack.enter_context(_pyarrow()[1].ParquetWriter(path, table.schema))
            writer.write_table(table)
