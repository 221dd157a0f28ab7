"""Known contacts: files of contact maps and structures, and lists of the families that they belong to."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._files import require_file
from .._words import counted
from .alignment import Alignment
from .chains import refuse_chains
from .listing import list_alignments, name_of
from .reading import read_alignment

_IGNORE = -100
_ARRAYS = (".npy", ".npz")
_MAX_BYTES = 250_000_000
_STRUCTURES = (".pdb", ".ent", ".cif", ".mmcif")


def is_structure(name: str | os.PathLike[str]) -> bool:
    """Whether a file has the ending of a structure.

    Examples
    --------
    >>> is_structure("pdb1abc.ent.gz"), is_structure("1abc.a3m")
    (True, False)
    """
    return os.fspath(name).lower().removesuffix(".gz").endswith(_STRUCTURES)


def contact_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """List contact maps and structures of a folder by name, for `MsaDataset(labels=...)`.

    Contact maps are ``NAME.npy`` or ``NAME.npz``, structures ``NAME.pdb .ent .cif .mmcif``, with or without ``.gz``;
    NAME is that of the alignment.

    Raises
    ------
    ValueError
        If the folder contains none, or two with the same name.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
        if bare.suffix.lower() in (*_ARRAYS, *_STRUCTURES) and not path.name.startswith("."):
            if bare.stem in files:
                raise ValueError(f"{files[bare.stem]} and {path} are both named {bare.stem!r}; keep one.")
            files[bare.stem] = path
    if not files:
        raise ValueError(f"{folder}: contains neither contact maps (.npy, .npz) nor structures (.pdb, .cif).")
    return files


def check_readable(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise ImportError if one of these is a structure and gemmi, which reads structures, is missing."""
    if any(Path(path).suffix.lower() not in _ARRAYS for path in paths):
        from .structure import require_gemmi

        require_gemmi()


def load_contacts(path: str | os.PathLike[str], alignment: Alignment, chain: str | None = None) -> np.ndarray:
    """Read the contacts of a query from a contact map or a structure; shape=(N, N), dtype=int8.

    A contact map is ``.npy`` or ``.npz`` (its only array, or the one named ``contacts``) of 1 (contact), 0 and -100
    (unknown) over the query's N residues. A structure is read by `modeling_msa.structure_contacts`; `chain` is one of
    its chains, by default the one that fits the query best.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, does not have the query's size, or contains other values.
    """
    path = Path(path)
    if path.suffix.lower() not in _ARRAYS:
        from .structure import structure_contacts

        return structure_contacts(path, alignment, chain)
    values = _load_array(path)
    check_shape(values.shape, len(alignment.query), path, alignment.source or alignment.names[0])
    if not np.isin(values, (0, 1, _IGNORE)).all():
        wrong = values[~np.isin(values, (0, 1, _IGNORE))].flat[0]
        raise ValueError(f"{path}: contains {wrong}; a contact map contains only 1, 0 and -100.")
    return values.astype(np.int8)


def load_assignments(
    path: str | os.PathLike[str], alignment: Alignment, chain: str | None = None
) -> dict[str, np.ndarray]:
    """Read the contacts of a query as `load_contacts`, for each way in which a complex fits a structure equally well.

    The keys say which chains of the structure are those of the alignment: see `complex_contacts`. A contact map, and
    one protein, stand alone under the empty key.
    """
    if not alignment.chains or Path(path).suffix.lower() in _ARRAYS:
        return {"": load_contacts(path, alignment, chain)}
    from .structure import complex_contacts

    return complex_contacts(path, alignment, chain)


def _load_array(path: Path) -> np.ndarray:
    require_file(path)
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is not a NumPy array ({error}).") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        key = "contacts" if "contacts" in loaded.files else loaded.files[0]
        if key != "contacts" and len(loaded.files) > 1:
            raise ValueError(f"{path}: none of its arrays ({', '.join(loaded.files)}) is named contacts; rename one.")
        if loaded.zip.getinfo(f"{key}.npy").file_size > _MAX_BYTES:  # known before it is decompressed
            raise ValueError(f"{path}: has more than {_MAX_BYTES // 10**6} MB, which no contact map has.")
        return loaded[key]


def label_shape(label: Any) -> tuple[int, ...]:
    """Shape of a label that must fit the query's residues; () for other labels, and where finding out is slow."""
    if isinstance(label, os.PathLike):
        path = Path(label)
        return _load_array(path).shape if path.suffix.lower() == ".npy" else ()
    values = np.asarray(label)
    return values.shape if values.dtype.kind in "iu" else ()


def check_shape(shape: tuple[int, ...], residues: int, label: Any, where: str) -> None:
    """Raise ValueError if labels of this shape, of residues or pairs, do not fit a query of `residues` residues."""
    if any(count != residues for count in shape):
        source = f" ({label})" if isinstance(label, os.PathLike) else ""
        raise ValueError(
            f"{where}: labels{source} have {' x '.join(map(str, shape))} entries, but the query has {residues} "
            "residues, insertions included."
        )


class KnownFamily(NamedTuple):
    """An alignment's file, and the file of its structure or known contacts."""

    alignment: Path
    structure: Path
    chain: str | None = None


def list_families(
    source: str | os.PathLike[str], structures: str | os.PathLike[str] | None = None
) -> list[KnownFamily]:
    r"""List families of known structure without opening their files.

    Parameters
    ----------
    source : path
        A table with one line per family: alignment, TAB, structure and, optionally, TAB and the chain. Paths are
        relative to the table's folder; ``#`` begins a comment. With `structures`: a folder or list of alignments, see
        `modeling_msa.alignments.listing.list_alignments`.
    structures : path, optional
        Folder of structures (``.pdb .ent .cif .mmcif``, also ``.gz``) or contact maps (``.npy .npz``) with the names
        of the alignments. Alignments without one are left out, with a warning.

    Returns
    -------
    list of KnownFamily

    Raises
    ------
    OSError, ValueError
        If a file does not exist, a line cannot be read, two alignments have the same name, or the list is empty.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("families.tsv", "1abc.a3m", "pdb1abc.ent.gz"):
    ...     _ = (folder / name).write_text("1abc.a3m\tpdb1abc.ent.gz\tB\n")
    >>> for family in list_families(folder / "families.tsv"):
    ...     print(family.alignment.name, family.structure.name, family.chain)
    1abc.a3m pdb1abc.ent.gz B
    """
    source = Path(source)
    if structures is not None:
        known = contact_files(structures)
        paths = list_alignments(source)
        families = [KnownFamily(path, known[name_of(path)]) for path in paths if name_of(path) in known]
        if not families:
            raise ValueError(f"No alignment of {source} has a structure in {structures}; give them the same names.")
        if lacking := [name_of(path) for path in paths if name_of(path) not in known]:
            warnings.warn(
                f"{len(lacking)} of {counted(len(paths), 'alignment')} have no structure in {structures} and are left "
                f"out: {', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''}.",
                stacklevel=2,
            )
    elif source.is_dir():
        raise ValueError(
            f"{source} is a folder of alignments; pass the folder of their structures too (structures, --structures), "
            "or a table."
        )
    else:
        families = list(_table_of_families(source))
        if not families:
            raise ValueError(f"{source}: the table lists no family; each line is alignment, TAB, structure.")
    by_name: dict[str, Path] = {}
    for path, *_ in families:
        if by_name.setdefault(name_of(path), path) is not path:
            raise ValueError(
                f"{by_name[name_of(path)]} and {path} are both named {name_of(path)}; rename or drop one."
            )
    return families


def _table_of_families(table: Path) -> Iterator[KnownFamily]:
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        where = f"{table}, line {number}"
        if len(fields) not in (2, 3) or not all(fields[:2]):
            raise ValueError(
                f"{where}: {line.strip()!r} is not alignment, TAB, structure and, optionally, TAB, chain; for a list "
                "of alignments, pass the folder of their structures too (structures, --structures)."
            )
        family = KnownFamily(table.parent / fields[0], table.parent / fields[1], (fields[2:] or [""])[0] or None)
        for path in family[:2]:
            if not path.is_file():
                raise FileNotFoundError(f"{where}: {path} does not exist; paths are relative to the table's folder.")
        yield family


def read_known(
    alignment: Alignment | str | os.PathLike[str], known: np.ndarray | str | os.PathLike[str], chain: str | None = None
) -> tuple[Alignment, np.ndarray]:
    """Read a family and its known contacts, if they are given as files; see `modeling_msa.evaluate_contacts`."""
    family = alignment if isinstance(alignment, Alignment) else read_alignment(alignment)
    refuse_chains(family.chains, family.source or family.names[0], "a table of families of known structure")
    return family, known if isinstance(known, np.ndarray) else load_contacts(known, family, chain)
