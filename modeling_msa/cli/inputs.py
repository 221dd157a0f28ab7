"""The files that a command line names: alignments, structures and families of known structure."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import typer

from ..alignments.bundled import bundled_family, find_bundled
from ..alignments.known_contacts import KnownFamily, check_readable, contact_files, is_structure, list_families
from ..alignments.listing import list_alignments, name_of


def require(*paths: Path | None) -> None:
    """Raise FileNotFoundError for a path that does not exist; None is an option that was not passed."""
    for path in paths:
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder.")


def argument_of(path: Path) -> str:
    """Write an alignment as a command line names it: a bundled family by its name, and no file as one or as an option.

    Examples
    --------
    >>> argument_of(bundled_family()), argument_of(Path("fn3")), argument_of(Path("-x.a3m")), argument_of(Path("a/b"))
    ('fn3', './fn3', './-x.a3m', 'a/b')
    """
    families, name = bundled_family().parent, str(path)
    if path.parent == families:
        return path.stem
    is_name = path.name == name and (families / f"{name}.a3m").exists()
    return f"./{name}" if name.startswith("-") or is_name else name


def list_inputs(
    inputs: Iterable[str | os.PathLike[str]], leave_out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """List the alignment files that a command line names: files, folders, patterns, list files.

    Parameters
    ----------
    inputs : iterable of path
        Each a file, folder or list file as in `modeling_msa.alignments.listing.list_alignments`, the name of a family
        that comes with the package (``fn3``), or a pattern with ``*``, ``?`` or ``[...]``, in which ``**`` matches any
        depth of folders.
    leave_out : path, optional
        Folder of results: alignments inside it are not inputs of the folders above it.

    Returns
    -------
    list of Path
        In the given order, each file once. No file is opened.

    Raises
    ------
    FileNotFoundError
        If a file does not exist, or nothing matches a pattern.
    ValueError
        If a folder or list has no alignment, or two files have the same name apart from folder and ending: results
        are named after it.
    """
    results = None if leave_out is None else Path(leave_out).resolve()
    paths: dict[Path, Path] = {}
    for each in [os.fspath(path) for path in inputs]:
        for source in _expand(each):
            listed = {path.resolve(): path for path in list_alignments(source)}
            if os.path.isdir(source):
                without = {real: path for real, path in listed.items() if results not in real.parents}
                listed = without or listed  # the output is the very folder of the inputs: refused later
            paths |= {real: path for real, path in listed.items() if real not in paths}
    by_name: dict[str, Path] = {}
    for path in paths.values():
        if (other := by_name.setdefault(name_of(path), path)) != path:
            raise ValueError(
                f"{other} and {path} are both named {name_of(path)}, and results are named after their alignments: "
                "rename one of them, or run the command twice."
            )
    return list(paths.values())


def _expand(name: str) -> list[Path]:
    """Files and folders that one argument stands for."""
    if (bundled := find_bundled(name)) is not None:
        return [bundled]
    if is_structure(name) and not os.path.isdir(name):
        raise ValueError(f"{name} is a structure, not an alignment: pass it to msa contacts with --structure.")
    if os.path.exists(name) or not glob.has_magic(name):
        return [Path(name)]  # `list_alignments` says so if it does not exist
    if found := sorted(glob.glob(name, recursive=True)):
        return list(map(Path, found))
    raise FileNotFoundError(f"{name}: no file matches this pattern.")


def list_structures(structure: Path | None) -> dict[str, Path]:
    """Map names of alignments to their structures; a single file stands under ``""``, for every alignment."""
    if structure is None:
        return {}
    structure = find_bundled(str(structure), structure=True) or structure
    require(structure)
    files = contact_files(structure) if structure.is_dir() else {"": structure}
    check_readable(files.values())
    return files


def list_known(families: Path, structures: Path | None) -> list[KnownFamily]:
    """List families of known structure, and print which alignments have none."""
    require(families, structures)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        listed = list_families(families, structures)
    check_readable(family.structure for family in listed)
    for warning in caught:
        typer.echo(f"note: {warning.message}", err=True)
    return listed
