"""Alignments as rows of a Hugging Face dataset: name, sequences, query.

`load_alignments` gives the same rows of a folder of alignment files, of Parquet or WebDataset shards and of a dataset
on the Hub. They suit `datasets`' own methods (filter, map, push_to_hub) and the collators. For long training runs
`modeling_msa.training.streaming.load_stream` reads shards with draws that a resumed run repeats.
"""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from glob import glob, has_magic
from typing import TYPE_CHECKING, Any

from ..alignments.alignment import FORMATS, Alignment
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import format_of, read_alignment

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

COLUMNS = ("name", "sequences", "query")
_PARQUET, _TARS = (".parquet",), (".tar", ".tar.gz", ".tgz")
_BATCH = 16  # rows held at a time: one may have many megabytes


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
        `modeling_msa.alignments.listing.list_alignments`),
          or Parquet files, or tar files, but one kind only. ``hf://`` and other addresses work for the last two.
        - Parquet takes the columns `name` and `sequences`; `query` is made of the first row where it is not there.
          A tar file is one of `msa pack` or any other with alignment files in it, plain or compressed.
        - ``owner/name``, where there is no such path: a dataset on the Hub with these columns, or of such tar files.
    split : str, optional
        Of the Hub's dataset, by default "train"; of Parquet and tar files those whose names begin with it, by default
        all.
    streaming : bool, default False
        Files are listed now and read when it is their turn. Otherwise all are read now, into `datasets`' cache.
    input_format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Of the alignments; default: by their endings, else by their content. `sequences` of Parquet files that
        `msa pack` has not made are "a3m" by default, with or without insertions.
    on_error : {"raise", "skip"}, default "raise"
        What an alignment that cannot be read does. Those left out are named in warnings when they are read, not
        when the rows come from the cache.
    num_proc : int, optional
        Processes that read, without `streaming`.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset
        One row is one alignment. `name`: string, the file's without endings. `sequences`: list of strings of one
        length, the match columns of all rows, query first; insertions, which a model does not see, are left out.
        `query`: string, the query's residues without gaps, insertions included and in upper case, hence what
        residue numbers count.

    Raises
    ------
    ImportError
        Without `datasets`.
    OSError, ValueError
        If there are no such files, they are of several kinds, Parquet has other columns, a tar file has no
        alignment, or an alignment cannot be read and is not skipped: now, or as the stream comes to it. Without
        `streaming`, also if all files were skipped.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "1abc_A.a3m").write_text(">q\nmKV-L\n>r\nRVaGL\n")
    >>> list(load_alignments(folder, streaming=True))
    [{'name': '1abc_A', 'sequences': ['KV-L', 'RVGL'], 'query': 'MKVL'}]
    """
    from .streaming import datasets  # says which extra it takes

    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}.")
    if input_format not in (None, *FORMATS):
        raise ValueError(f"input_format is one of {', '.join(FORMATS)}, not {input_format!r}.")
    if _is_hub_id(source):
        load = partial(datasets.load_dataset, source, split=split or "train")
        return _from_columns(load, str(source), streaming, input_format, on_error, num_proc)
    kind, files = _find(source, split)
    if kind == "parquet":
        load = partial(datasets.load_dataset, "parquet", data_files=files, split="train")
        return _from_columns(load, files[0], streaming, input_format, on_error, num_proc)
    features, settings = _features(), {"input_format": input_format, "on_error": on_error}
    if streaming:
        return datasets.IterableDataset.from_generator(_read_rows, features, {"files": files, **settings})
    try:
        with _causes():
            return datasets.Dataset.from_generator(
                _read_rows,
                features,
                gen_kwargs={"files": files, **settings},
                num_proc=num_proc,
                fingerprint=_fingerprint(files, settings),
                writer_batch_size=_BATCH,
            )
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        raise ValueError(f"none of the {len(files)} files could be read; the warnings say why.") from None


def _fingerprint(files: list[str], settings: dict[str, Any]) -> str:
    """Name of the cache, which must not outlive what it was made of."""
    from .._version import __version__
    from .streaming import datasets

    if any("://" in file for file in files):  # nothing tells whether it is still the same there
        return datasets.fingerprint.generate_random_fingerprint()
    stats = [(os.path.abspath(file), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    return datasets.fingerprint.Hasher.hash((__version__, COLUMNS, stats, settings))


def _features() -> Any:
    from .streaming import datasets

    text = datasets.Value("string")
    return datasets.Features({"name": text, "sequences": datasets.List(text), "query": text})


def _is_hub_id(source: Any) -> bool:
    return (
        isinstance(source, str)
        and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None
        and not (os.path.exists(source) or os.path.isdir(os.path.dirname(source)))
    )


def _find(source: Any, split: str | None) -> tuple[str, list[str]]:
    """Kind ("alignments", "parquet" or "tar") and files of a source; none is opened."""
    files = _list_files(source)
    kinds = {kind: [file for file in files if _kind_of(file) == kind] for kind in ("alignments", "parquet", "tar")}
    found = {kind: those for kind, those in kinds.items() if those}
    if len(found) > 1:
        counts = " and ".join(f"{len(those)} of {kind} ({those[0]})" for kind, those in found.items())
        raise ValueError(f"the files are of several kinds, {counts}: load one kind at a time, by a pattern.")
    if not found:
        raise ValueError("there is no alignment to load: the list is empty.")
    ((kind, files),) = found.items()
    if split is not None:
        if kind == "alignments":
            raise ValueError(f"alignment files have no splits, so there is no {split!r}: give the files of the split.")
        names = sorted({re.split(r"[-_.]", os.path.basename(file))[0] for file in files})
        files = [file for file in files if re.match(rf"{re.escape(split)}[-_.]", os.path.basename(file))]
        if not files:
            raise ValueError(f"no file's name begins with the split {split!r}; they begin with {', '.join(names)}.")
    return kind, files


def _kind_of(file: str) -> str:
    lower = file.lower()
    return "parquet" if lower.endswith(_PARQUET) else "tar" if lower.endswith(_TARS) else "alignments"


def _list_files(source: Any) -> list[str]:
    if not isinstance(source, (str, os.PathLike)):
        return [file for each in source for file in _list_files(each)]
    text = os.fspath(source)
    if "://" in text:
        return [text]
    if os.path.isdir(text):
        shards = []
        for folder, folders, names in os.walk(text):
            folders[:] = [name for name in folders if not name.startswith(".")]
            shards += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        shards = sorted(file for file in shards if _kind_of(file) != "alignments")
        try:
            return shards + list(map(str, list_alignments(text)))
        except ValueError as error:
            if shards:
                return shards
            raise ValueError(f"{error} Nor has it shards (.parquet, .tar).") from None
    if has_magic(text) and not os.path.exists(text):
        if not (files := sorted(glob(text, recursive=True))):
            raise FileNotFoundError(f"{text}: no file fits the pattern.")
        return files
    return list(map(str, list_alignments(text)))


def _read_rows(files: list[str], input_format: str | None, on_error: str) -> Iterator[dict[str, Any]]:
    """Rows of alignment files and tar files. `datasets` splits the list between processes and workers."""
    for file in files:
        one = [(name_of(file), partial(read_alignment, file, input_format))]
        entries = _read_tar(file, input_format) if _kind_of(file) == "tar" else iter(one)
        while True:
            try:
                name, read = next(entries)
                alignment = read()
            except StopIteration:
                break
            except (OSError, ValueError) as error:
                _refuse(error, on_error)
                continue  # a tar file that is damaged has ended here
            yield {"name": name, "sequences": alignment.sequences, "query": alignment.query}


def _refuse(error: Exception, on_error: str) -> None:
    if on_error == "raise":
        raise error
    logger.warning("skipped: %s", error)


def _read_tar(file: str, input_format: str | None) -> Iterator[tuple[str, Callable[[], Alignment]]]:
    """Names of the alignments in a tar file, and how to read each."""
    empty = True
    try:
        for key, group in itertools.groupby(_members(file), key=lambda member: member[0]):
            by_name = {name: data for _, name, data in group}
            name = key.rpartition("/")[2]
            for each, data in by_name.items():
                if each.endswith(".json"):
                    name = _name_in(data) or name
            for each, data in by_name.items():
                if not each.endswith(".json"):
                    empty = False
                    yield name, partial(_parse, data, input_format or format_of(each), f"{file}, {each}")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: the tar file is damaged ({error}); fetch it again.") from None
    if empty:
        raise ValueError(f"{file}: there is no alignment (.a3m, .a2m, .fasta, .sto ..., .gz, .xz) in the tar file.")


def _members(file: str) -> Iterator[tuple[str, str, bytes]]:
    """Key of the sample, name and content of the members that count."""
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
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        data = lzma.decompress(data) if data.startswith(b"\xfd7zXZ\x00") else data
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{where}: is cut off or damaged ({error}); fetch it again.") from None
    try:
        return read_alignment(data.decode("utf-8", "replace") + "\n", format)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('alignment text: ')}") from None


def _from_columns(
    load: partial[Any],
    where: str,
    streaming: bool,
    input_format: str | None,
    on_error: str,
    num_proc: int | None,
) -> Any:
    """Dataset of our columns from one that has them; `load` takes `streaming`."""
    from .streaming import pa

    split = str(load.keywords["split"]).partition("[")[0]  # a stream has no parts of a split, which is fine here
    head = load(streaming=True, split=split)  # knows the columns before anything is read
    known = list(head.features or head.column_names or [])
    convert: Callable[..., dict[str, list[Any]]] = _checked
    if "__key__" in known:
        convert = _of_samples
    else:
        lacking = [column for column in COLUMNS[:2] if column not in known]
        if lacking:
            raise ValueError(
                f"{where}: has the columns {', '.join(known)}, but not {' and '.join(lacking)}; rename columns "
                "(rename_column), or make the files with `msa pack`."
            )
        kind = head.features.arrow_schema.field("sequences").type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not is_list or not (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)):
            raise ValueError(f"{where}: the column sequences is {kind}, but has to be a list of strings, one a row.")
    with _causes():
        dataset = load(streaming=True) if streaming else load(streaming=False, num_proc=num_proc)
    features = _features()
    if "query_a3m" in known and convert is _checked:  # of `msa pack`, which has checked the rows
        return dataset.select_columns(list(COLUMNS)).cast(features)
    if convert is _checked:
        dataset = dataset.select_columns([column for column in COLUMNS if column in known])
    settings = {"where": where, "input_format": input_format, "on_error": on_error}
    options: dict[str, Any] = {} if streaming else {"num_proc": num_proc, "writer_batch_size": _BATCH}
    return dataset.map(
        partial(convert, **settings),
        batched=True,
        batch_size=_BATCH,
        remove_columns=[column for column in dataset.column_names if column not in COLUMNS],
        features=features,
        **options,
    )


def _checked(
    batch: Mapping[str, list[Any]], where: str, input_format: str | None, on_error: str
) -> dict[str, list[Any]]:
    """Rows that are alignments, without insertions, and their queries without gaps."""
    rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    for k, (name, sequences) in enumerate(zip(batch["name"], batch["sequences"], strict=True)):
        source = f"{where}, {name}"
        try:
            if not all(isinstance(row, str) for row in sequences or []):
                raise ValueError(f"{source}: a row of the column sequences is no string.")
            alignment = Alignment.from_sequences(sequences or [], format=input_format or "a3m", source=source)
            given = batch["query"][k] if "query" in batch else None
            query = alignment.query if given is None else _residues(given, alignment, source)
        except ValueError as error:
            _refuse(error, on_error)
            continue
        for column, value in zip(COLUMNS, (name, alignment.sequences, query), strict=True):
            rows[column].append(value)
    return rows


def _residues(query: str, alignment: Alignment, where: str) -> str:
    """Residues of a query, which the alignment's first row has too, but for insertions."""
    query = re.sub(r"[-.~_*\s]", "", query).upper()  # in shards of `msa pack` it once was in A3M notation
    first, letters = alignment.query, iter(query)
    if not all(letter in letters for letter in first):
        raise ValueError(f"{where}: the first of the sequences, {first[:20]}, is not the query, {query[:20]}.")
    return query


def _of_samples(
    batch: Mapping[str, list[Any]], where: str, input_format: str | None, on_error: str
) -> dict[str, list[Any]]:
    """Rows of a WebDataset's samples, as `datasets` reads them."""
    from .streaming import _from_tar

    rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    for values in zip(*batch.values(), strict=True):
        try:
            feature = _from_tar(dict(zip(batch, values, strict=True)))
        except ValueError as error:
            _refuse(error, on_error)
            continue
        alignment = feature["alignment"]
        for column, value in zip(COLUMNS, (feature["name"], alignment.sequences, alignment.query), strict=True):
            rows[column].append(value)
    return rows


@contextmanager
def _causes() -> Iterator[None]:
    """Raise what `datasets` met in a file, not that something was met."""
    from .streaming import datasets

    try:
        yield
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, (OSError, ValueError)) else error from None
