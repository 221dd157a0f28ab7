"""Species of an alignment's rows, from their headers or from a table, and the rows of each species in two alignments.

A header names a species by a taxon number (``TaxID=`` of UniRef, ``OX=`` of UniProt), by an organism (``OS=``) or by
the end of an entry name (``_ECOLI``). What stands for many organisms is left out: UniProt's codes that begin with 9
(``_9BACT``), and names such as Bacteria, uncultured bacterium and marine metagenome.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .alignment import Alignment
from .tables import read_table

_TAXON = re.compile(r"\b(?:TaxID|OX)=(\d+)")
_ORGANISM = re.compile(r"\b(?:OS=(.+?)(?=\s+[A-Z]{2}=|\s*$)|Tax=(.+?)(?=\s+TaxID=|\s*$))")
_ENTRY = re.compile(r"(?:^|\||^\S.*\sRepID=)[A-Z0-9]+_([A-Z][A-Z0-9]{2,4})(?:/\d+-\d+)?(?=\s|$)")
# a species has two words at least; those of UniRef's clusters are the lowest taxon of all members
_MANY = re.compile(
    r"\S+|cellular organisms|(uncultured|unclassified|unidentified|environmental|synthetic)\b.*|.*\bmetagenome"
    r"|.* (bacterium|archaeon|sp\.)",
    re.IGNORECASE,
)
FORMS = ("taxon number (TaxID=, OX=)", "organism (OS=)", "entry name (_ECOLI)")
_READ = (
    "read are TaxID= (UniRef), OX= and OS= (UniProt) and entry names such as BLAT_ECOLI, but not groups of organisms "
    "(9BACT, Bacteria, uncultured bacterium)"
)


def species_in(header: str) -> tuple[str | None, str | None, str | None]:
    """Read the species in a header, in each of `FORMS`.

    Examples
    --------
    >>> species_in("sp|P62593|BLAT_ECOLX Beta-lactamase OS=Escherichia coli OX=562 GN=bla")
    ('562', 'Escherichia coli', 'ECOLX')
    >>> species_in("UniRef100_A0A178ZGW5 n=1 Tax=Fonsecaea erecta TaxID=1367422 RepID=A0A178ZGW5_9EURO")
    ('1367422', None, None)
    >>> species_in("LAR_DROME/418-503"), species_in("UniRef90_A0A2E1 n=2 Tax=Gammaproteobacteria TaxID=1236")
    ((None, None, 'DROME'), (None, None, None))
    """
    organism = _ORGANISM.search(header)
    if organism is not None and _MANY.fullmatch(organism[1] or organism[2]):
        return None, None, None
    taxon, entry = _TAXON.search(header), _ENTRY.search(header)
    return taxon and taxon[1], organism and organism[1], entry and entry[1]


class SharedSpecies(NamedTuple):
    """Species that two alignments share.

    Attributes
    ----------
    of_rows : pair of list of (str or None)
        The species of each row of both alignments.
    groups : dict of str to (list of int, list of int)
        Rows, from 0, of each species that both alignments have, in the order of the first alignment.
    form : str
        Where they were read: one of `FORMS`, or ``table``.
    """

    of_rows: tuple[list[str | None], list[str | None]]
    groups: dict[str, tuple[list[int], list[int]]]
    form: str


def shared_species(a: Alignment, b: Alignment, table: Mapping[str, str] | None = None) -> SharedSpecies:
    """Find the rows of each species in two alignments.

    All are read in the same form, the one in which the alignments share the most species: a taxon number in one and an
    entry name in the other are not compared.

    Parameters
    ----------
    a, b : Alignment
    table : mapping of str to str, optional
        Species by names of rows, whole headers or their first words; headers are then not read.

    Raises
    ------
    ValueError
        If an alignment has no row of known species, or no species is in both.
    """
    if table is not None:
        forms = {"table": tuple([_of_name(name, table) for name in each.names] for each in (a, b))}
    else:
        read = [[species_in(name) for name in each.names] for each in (a, b)]
        forms = {form: tuple([row[k] for row in rows] for rows in read) for k, form in enumerate(FORMS)}
    for k, each in enumerate((a, b)):
        if not any(any(of_rows[k]) for of_rows in forms.values()):
            what = "no row is in the table of species" if table is not None else f"no header names a species; {_READ}"
            more = "use the names of the rows" if table is not None else "pass a table of rows and species (--species)"
            raise ValueError(f"{_where(each)}: {what}; {more}.")
    found = {form: _groups(*of_rows) for form, of_rows in forms.items()}
    form = max(found, key=lambda each: len(found[each]))
    if not found[form]:
        examples = " and ".join(f"{next(s for rows in forms.values() for s in rows[k] if s)!r}" for k in (0, 1))
        raise ValueError(
            f"{_where(a)} and {_where(b)} share no species (they have, for example, {examples}); pass a table of rows "
            "and species (--species) if the headers name them in different ways."
        )
    return SharedSpecies(forms[form], found[form], form)  # type: ignore[arg-type]


def _groups(a: list[str | None], b: list[str | None]) -> dict[str, tuple[list[int], list[int]]]:
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for k, rows in enumerate((a, b)):
        for row, species in enumerate(rows):
            if species is not None:
                groups.setdefault(species, ([], []))[k].append(row)
    return {species: rows for species, rows in groups.items() if all(rows)}


def _of_name(name: str, table: Mapping[str, str]) -> str | None:
    return table.get(name, table.get(_first_word(name)))


def _first_word(name: str) -> str:
    return (name.split() or [""])[0]


def _where(alignment: Alignment) -> str:
    return alignment.source or alignment.names[0]


def rows_of_names(alignment: Alignment, names: Iterable[str], places: Iterable[str]) -> list[int]:
    """Rows, from 0, that have these names, whole headers or their first words.

    `places` say for messages where each name stands.

    Raises
    ------
    ValueError
        If no row has a name, or several have it.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(alignment.names):
        for each in {name, _first_word(name)}:
            rows.setdefault(each, []).append(row)
    found = []
    for name, place in zip(names, places, strict=True):
        there = rows.get(name, [])
        if len(there) != 1:
            what = "no row is" if not there else f"rows {there[0] + 1} and {there[1] + 1} are both"
            advice = "use the name in its header" if not there else "give them names of their own"
            raise ValueError(f"{place}: {what} named {name!r} in {_where(alignment)}; {advice}.")
        found += there
    return found


def read_species(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a table with the columns ``name``, of rows, and ``species``.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, a cell is empty, or a name is listed twice.
    """
    names, species, _ = read_columns(path, ("name", "species"), once=("name",))
    return dict(zip(names, species, strict=True))


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], once: Sequence[str] = ()
) -> tuple[list[str], list[str], list[int]]:
    """Read two columns of a table, and the lines of its rows; the cells of those in `once` must all be different.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, lacks a column, or a cell is empty.
    """
    table = read_table(path)
    if lacking := [name for name in columns if name not in table.columns]:
        raise ValueError(
            f"{path}: there is no column {lacking[0]!r}; line 1 must name the columns {' and '.join(columns)}, but "
            f"has {', '.join(table.columns)}."
        )
    cells = [[cell.strip() for cell in table.cells(name)] for name in columns]
    for name, column in zip(columns, cells, strict=True):
        first: dict[str, int] = {}
        for line, cell in zip(table.lines, column, strict=True):
            if not cell:
                raise ValueError(f"{path}: line {line} has no {name}; fill in the cell, or remove the line.")
            if name in once and (other := first.setdefault(cell, line)) != line:
                raise ValueError(f"{path}: lines {other} and {line} both list {cell!r} as {name}; remove one of them.")
    return cells[0], cells[1], table.lines
