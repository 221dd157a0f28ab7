"""Hidden states of a family's alignment as features: of the query's residues, their mean, or of all rows.

Several families go into one file, keyed by name: safetensors, NPZ or Parquet. See `write_embeddings` for what is
where in it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from .inputs import check_whole, evaluating, model_inputs

WHICH = ("query", "mean", "rows")
SUFFIXES = (".safetensors", ".npz", ".parquet")
_METADATA = "__metadata__"  # safetensors' own name for it
_CHUNK = 16 * 2**20
_LONGEST_HEADER = 100_000_000  # bytes; the library refuses longer ones


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Hidden states of one family.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each residue column. Residues that the alignment has no column for are left out.
    row_names : tuple of str
        The R rows that the model saw, query first.
    arrays : dict of int to ndarray
        By layer: ``(L, D)`` of the query's residues, ``(D,)`` of their mean, or ``(R, L, D)`` of all rows. A row has
        a state in each column, where it has a gap too; ``<cls>`` has none.
    settings : dict
        How they were made: ``model``, ``which``, ``layers``, ``rows``, ``select``, ``seed``, ``coverage``,
        ``identity``, ``dtype`` and ``version`` (of modeling-msa).
    """

    name: str
    query: str
    residues: np.ndarray
    row_names: tuple[str, ...]
    arrays: dict[int, np.ndarray]
    settings: dict[str, Any]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers, in the order asked for: 0 is the embedding layer, then 1 to the number of layers."""
        return tuple(self.arrays)

    @property
    def depth(self) -> int:
        """Rows that the model saw, R."""
        return len(self.row_names)

    @property
    def array(self) -> np.ndarray:
        """The array, if there is one layer only."""
        if len(self.arrays) != 1:
            raise ValueError(f"There are {len(self.arrays)} layers, {self.layers}: take arrays[layer].")
        return next(iter(self.arrays.values()))


def embed(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    which: str = "query",
    layers: Sequence[int] = (-1,),
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    dtype: str = "float32",
) -> Embeddings:
    """Take hidden states of an alignment as features.

    Layers above the highest that is asked for do not run, and no state is kept that is not asked for.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        Its dropout is off for the time.
    which : {"query", "mean", "rows"}, default: "query"
        The query's residues, their mean, or all rows.
    layers : sequence of int, default: (-1,)
        0 is the output of the embedding layer, n that of layer n, -1 the last, which has passed the final layer norm:
        ``hidden_states`` of the model, ``representations`` of fair-esm.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.
    dtype : {"float32", "float16"}, default: "float32"
        Of the arrays; the mean is taken before.

    Returns
    -------
    Embeddings

    Raises
    ------
    ValueError
        Before the model runs: for no such layer, `which` or `dtype`, and what `modeling_msa.tasks.inputs.encode`
        refuses.

    Examples
    --------
    >>> from modeling_msa import load_model
    >>> family = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"])
    >>> result = embed(family, load_model(), layers=(0, -1))
    >>> result.arrays[4].shape, result.residues.tolist()
    ((5, 64), [3, 4, 5, 6, 7])
    >>> embed(family, load_model(), which="mean").array.shape
    (64,)
    """
    check_whole(model)
    if which not in WHICH:
        raise ValueError(f"which is {which!r}; it can be {', '.join(WHICH)}.")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype is {dtype!r}; it can be float32 or float16.")
    wanted = resolve_layers(layers, model.config.num_hidden_layers)
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    arrays = _hidden_states(model, inputs, wanted, which)
    return Embeddings(
        name=seen.names[0],
        query=seen.query,
        residues=seen.column_residues,
        row_names=seen.names,
        arrays={layer: array.astype(dtype) for layer, array in arrays.items()},
        settings={
            "model": _model_name(model),
            "which": which,
            "layers": list(wanted),
            "rows": rows,
            "select": select,
            "seed": seed,
            "coverage": coverage,
            "identity": identity,
            "dtype": dtype,
            "version": _version(),
        },
    )


def resolve_layers(layers: Iterable[int], count: int) -> tuple[int, ...]:
    """Number layers from 0 (the embedding layer) to `count`, each once; negative ones count from the end.

    Examples
    --------
    >>> resolve_layers([-1, 0, 12], 12)
    (12, 0)
    """
    layers = list(layers)
    wrong = [layer for layer in layers if not -count - 1 <= layer <= count]
    if wrong or not layers:
        what = f"layer {wrong[0]} is not there" if wrong else "no layer is named"
        raise ValueError(
            f"{what}: this model has 0 (the embedding layer) to {count}; -1 is the last, -{count + 1} layer 0."
        )
    return tuple(dict.fromkeys(layer % (count + 1) for layer in layers))


@torch.inference_mode()
def _hidden_states(
    model: MsaPreTrainedModel, inputs: Mapping[str, torch.Tensor], layers: tuple[int, ...], which: str
) -> dict[int, np.ndarray]:
    """Run `MsaModel.forward` as far as `layers` need it; its own recorder would keep the states of all layers."""
    backbone: MsaModel = model.base_model  # type: ignore[assignment]
    taken: dict[int, np.ndarray] = {}

    def take(layer: int, states: torch.Tensor) -> None:
        if layer in layers:
            states = states[0] if which == "rows" else states[0, 0]
            # a copy: float() and cpu() may give the tensor itself, of which this is a view
            part = states[..., 1:, :].float().clone()  # without <cls>
            taken[layer] = (part.mean(0) if which == "mean" else part).cpu().numpy()

    with evaluating(backbone):
        states, masks, _ = backbone._prepare(**inputs)
        kwargs = backbone._layer_kwargs({"output_column_attentions": False})
        take(0, states)
        last = len(backbone.layers)
        for number, layer in enumerate(backbone.layers[: max(layers)], 1):
            states = layer(states, **masks, **kwargs)[0]
            take(number, backbone.layer_norm(states) if number == last else states)
    return {layer: taken[layer] for layer in layers}


def _model_name(model: MsaPreTrainedModel) -> str:
    """Folder or Hub id as it was given; a checkpoint that comes with the package by its name alone."""
    name = model.name_or_path or ""
    return Path(name).name if Path(name).parent == Path(__file__).parents[1] / "checkpoints" else name


def _version() -> str:
    from .._version import __version__

    return __version__


def check_embeddings(path: str | os.PathLike[str]) -> str:
    """Check that embeddings can be written under this name; return its ending.

    Raises
    ------
    ValueError
        If the ending is none of ``.safetensors``, ``.npz`` and ``.parquet``.
    ImportError
        If it is Parquet and pyarrow is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: embeddings are written as {', '.join(SUFFIXES)}; end the name with one of these.")
    if suffix == ".parquet":
        _pyarrow()
    return suffix


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Writing Parquet takes pyarrow: pip install 'modeling-msa[train]'.") from error
    return pyarrow, pyarrow.parquet


def write_embeddings(families: Mapping[str, Embeddings], path: str | os.PathLike[str]) -> None:
    """Write the embeddings of families into one file, which appears whole or not at all.

    safetensors, NPZ
        One array for each family under its name; with several layers ``NAME/layer_6`` and so on.
    Parquet
        One row for each residue (for each row and residue, for each family with ``which="mean"``), in the columns
        ``name``, ``row`` (from 0, and ``row_name``), ``residue`` and, as lists of D numbers, ``layer_6`` and so on,
        for one layer too.

    Each says how it was made: a JSON object ``settings``, as `Embeddings.settings`, and a JSON object ``families``,
    which has for each name ``query``, ``length`` (N), ``residues`` (those with a column, as ranges: ``"3-80,82-90"``),
    ``depth``, and ``row_names`` if there are rows. They are strings in the header of safetensors and in the schema's
    metadata of Parquet; in NPZ both are in one string under ``__metadata__``.

    Parameters
    ----------
    families : mapping of str to Embeddings
        By name, all of them made with the same settings.
    path : path
        Ends with ``.safetensors``, ``.npz`` or ``.parquet``.

    Raises
    ------
    ValueError
        For another ending, no family, families of different settings, a name that cannot be one.
    ImportError
        For Parquet without pyarrow.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import load_file
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> result = embed(read_alignment(bundled_family()), load_model(), rows=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_embeddings({"fn3": result}, f"{folder}/fn3.safetensors")
    ...     load_file(f"{folder}/fn3.safetensors")["fn3"].shape
    (86, 64)
    """
    suffix = check_embeddings(path)
    if not families:
        raise ValueError(f"{path}: there is no family to write.")
    for name in families:
        if not name or "/" in name or name == _METADATA:
            raise ValueError(f"{path}: {name!r} is no name for a family; it is a key in the file, without '/'.")
    metadata = _metadata(families, path)
    with whole_file(path) as temporary:
        if suffix == ".parquet":
            _write_parquet(families, temporary, metadata)
        elif suffix == ".npz":
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for key, array in _keyed(families).items():
                    _add_array(archive, key, array)
                _add_array(archive, _METADATA, np.array(json.dumps(_parsed(metadata))))
        else:
            save_file(_keyed(families), temporary, metadata)


def _keyed(families: Mapping[str, Embeddings]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, each in families.items():
        for layer, array in each.arrays.items():
            arrays[name if len(each.arrays) == 1 else f"{name}/layer_{layer}"] = np.ascontiguousarray(array)
    return arrays


def _metadata(families: Mapping[str, Embeddings], path: str | os.PathLike[str]) -> dict[str, str]:
    settings = next(iter(families.values())).settings
    described = {}
    for name, each in families.items():
        if each.settings != settings:
            raise ValueError(f"{path}: {name} was embedded with other settings than the families before it.")
        described[name] = {
            "query": each.name,
            "length": len(each.query),
            "residues": _ranges(each.residues),
            "depth": each.depth,
        }
        if settings["which"] == "rows":
            described[name]["row_names"] = list(each.row_names)
    return {"settings": json.dumps(settings), "families": json.dumps(described)}


def _parsed(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {key: json.loads(metadata[key]) for key in ("settings", "families")}


def _ranges(numbers: np.ndarray) -> str:
    """Write ascending numbers as ranges.

    Examples
    --------
    >>> _ranges(np.array([3, 4, 5, 8]))
    '3-5,8-8'
    """
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" for run in runs)


def _add_array(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    """Add an array as `numpy.savez` does, which takes keys as Python arguments and all arrays at once."""
    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_parquet(families: Mapping[str, Embeddings], path: Path, metadata: Mapping[str, str]) -> None:
    pyarrow, parquet = _pyarrow()
    writer = None
    try:
        for name, each in families.items():  # a row group or more for each family
            columns: dict[str, Any] = {}
            count = next(iter(each.arrays.values()))[..., 0].size
            columns["name"] = pyarrow.array([name]).take(pyarrow.array(np.zeros(count, dtype=np.int64)))
            width = len(each.residues)
            if each.settings["which"] == "rows":
                columns["row"] = np.repeat(np.arange(each.depth, dtype=np.int32), width)
                columns["row_name"] = pyarrow.array(each.row_names).take(pyarrow.array(columns["row"]))
            if each.settings["which"] != "mean":
                columns["residue"] = np.tile(each.residues.astype(np.int32), count // width)
            for layer, array in each.arrays.items():
                flat = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
                columns[f"layer_{layer}"] = pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[-1])
            table = pyarrow.table(columns).replace_schema_metadata(metadata)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def gather_embeddings(parts: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Make one file of several that `write_embeddings` wrote; no more than a part of one is in memory.

    Parameters
    ----------
    parts : sequence of path
        With different names in them, all with the same settings, and with the ending of `path`.
    path : path
        File to write; it appears whole or not at all.

    Raises
    ------
    ValueError
        If two parts have a name in common, or the settings differ.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors import safe_open
    >>> from modeling_msa import load_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = [f"{folder}/{name}.safetensors" for name in ("a", "b")]
    ...     for name, part in zip("ab", parts):
    ...         write_embeddings({name: embed(Alignment.from_sequences(["MKV", "MRV"]), load_model())}, part)
    ...     gather_embeddings(parts, f"{folder}/all.safetensors")
    ...     with safe_open(f"{folder}/all.safetensors", "np") as file:
    ...         sorted(file.keys())
    ['a', 'b']
    """
    suffix = check_embeddings(path)
    paths = [Path(part) for part in parts]
    merge = {".safetensors": _gather_safetensors, ".npz": _gather_npz, ".parquet": _gather_parquet}[suffix]
    with whole_file(path) as temporary:
        merge(paths, temporary)


def _merged_metadata(paths: Sequence[Path], metadata: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Merge what the parts say: one object ``settings``, the union of ``families``."""
    settings = None
    families: dict[str, Any] = {}
    for path, each in zip(paths, metadata, strict=True):
        if settings is not None and each["settings"] != settings:
            raise ValueError(f"{path} was embedded with other settings than {paths[0]}.")
        settings = each["settings"]
        if twice := sorted(families.keys() & each["families"].keys()):
            raise ValueError(f"{path}: {twice[0]} is in an earlier file too; rename one of the alignments.")
        families |= each["families"]
    return {"settings": json.dumps(settings), "families": json.dumps(families)}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Header of a safetensors file, and where its data begin."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size


def _gather_safetensors(paths: Sequence[Path], target: Path) -> None:
    # the library serialises whole dictionaries only; the format is a length, a JSON header and the bytes
    headers = [_read_header(path) for path in paths]
    merged = _merged_metadata(paths, (_parsed(header.pop(_METADATA)) for header, _ in headers))
    tensors: dict[str, Any] = {_METADATA: merged}
    start = 0
    for path, (header, begin) in zip(paths, headers, strict=True):
        for key, entry in header.items():
            tensors[key] = entry | {"data_offsets": [start + offset for offset in entry["data_offsets"]]}
        start += path.stat().st_size - begin
    text = json.dumps(tensors).encode()
    if len(text) > _LONGEST_HEADER:
        raise ValueError(
            f"The names and settings of {len(paths)} families take {len(text):,} bytes, more than safetensors reads "
            "in a header: write Parquet, or a folder of files."
        )
    text += b" " * (-len(text) % 8)  # data are aligned to 8 bytes
    with open(target, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for path, (_, begin) in zip(paths, headers, strict=True):
            with open(path, "rb") as part:
                part.seek(begin)
                shutil.copyfileobj(part, file, _CHUNK)


def _gather_npz(paths: Sequence[Path], target: Path) -> None:
    entry = f"{_METADATA}.npy"
    described = []
    for path in paths:
        with np.load(path) as arrays:
            described.append(json.loads(arrays[_METADATA].item()))
    merged = _merged_metadata(paths, described)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in paths:
            with zipfile.ZipFile(path) as part:
                for name in part.namelist():
                    if name != entry:
                        with part.open(name) as source, archive.open(name, "w", force_zip64=True) as file:
                            shutil.copyfileobj(source, file, _CHUNK)
        _add_array(archive, _METADATA, np.array(json.dumps(_parsed(merged))))


def _gather_parquet(paths: Sequence[Path], target: Path) -> None:
    _, parquet = _pyarrow()
    schemas = [parquet.read_schema(path) for path in paths]
    described = ({key.decode(): value for key, value in schema.metadata.items()} for schema in schemas)
    schema = schemas[0].with_metadata(_merged_metadata(paths, map(_parsed, described)))
    with parquet.ParquetWriter(target, schema) as writer:
        for path in paths:
            with parquet.ParquetFile(path) as part:
                for group in range(part.num_row_groups):
                    writer.write_table(part.read_row_group(group).replace_schema_metadata(schema.metadata))
