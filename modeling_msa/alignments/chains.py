"""Chains of a complex that stand side by side in an alignment, and residue numbers by chain, such as ``B:42``.

An alignment of one protein has no chains, ``()``, and its residues are plain numbers everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .._ranges import format_ranges, parse_ranges
from .._words import counted

BETWEEN = 1_000_000  # a separation that no two residues of one chain have
MOST = 26 * 27  # chains with a name of one or two letters
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_CHANGE = re.compile(r"[A-Z]-?\d+[A-Z]")  # a name like this could not be told from a substitution
_WITH_NAME = re.compile(r"(?:([^:]*):)?(\d+)")


class Chain(NamedTuple):
    """One of the chains that stand side by side: its name, and how many residues of the query it has."""

    name: str
    length: int


Chains = tuple[Chain, ...]


def chain_names(count: int) -> list[str]:
    """Name chains as structures do.

    >>> chain_names(28)[:2], chain_names(28)[-2:]
    (['A', 'B'], ['AA', 'AB'])
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [(letters[k // 26 - 1] if k >= 26 else "") + letters[k % 26] for k in range(count)]


def as_chains(chains: str | Iterable[int | tuple[str, int]], where: str = "chains") -> Chains:
    """Read chains as users write them; one chain alone is none.

    Parameters
    ----------
    chains : str, or iterable of int or (name, length)
        Such as ``"120,95"`` or ``"A:120,B:95"``: residues of the query in each chain, in order. Without names they are
        A, B, C, ...
    where : str
        Begins the message of an error.

    Returns
    -------
    tuple of Chain

    Raises
    ------
    ValueError
        If a length is not a number, or less than 1, or a name is used twice or is not a name.

    Examples
    --------
    >>> as_chains("120,95")
    (Chain(name='A', length=120), Chain(name='B', length=95))
    >>> as_chains("H:120,L:95") == as_chains([("H", 120), ("L", 95)])
    True
    """
    parts = [part.strip() for part in chains.split(",")] if isinstance(chains, str) else list(chains)
    if len(parts) > MOST:
        raise ValueError(f"{where}: there are {counted(len(parts), 'chain')}; the most are {MOST}.")
    found = []
    for part, usual in zip(parts, chain_names(len(parts)), strict=True):
        name, length = (
            _read_chain(part, where) if isinstance(part, str) else part if isinstance(part, tuple) else ("", part)
        )
        name = name or usual
        if not _NAME.fullmatch(name) or _CHANGE.fullmatch(name):
            raise ValueError(
                f"{where}: {name!r} is not a name of a chain; use letters, digits, _, . and -, but not the form of a "
                "substitution, such as A42V."
            )
        if length < 1:
            raise ValueError(f"{where}: chain {name} has {length} residues; give each chain at least 1.")
        found.append(Chain(name, int(length)))
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where}: two chains are named {twice[0]}; give each a name of its own.")
    return tuple(found) if len(found) > 1 else ()


def _read_chain(text: str, where: str) -> tuple[str, int]:
    match = _WITH_NAME.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{where}: {text!r} is not a length of a chain; write them like 120,95 or with names, A:120,B:95."
        )
    return match[1] or "", int(match[2])


def format_chains(chains: Chains) -> str:
    """Write chains as `as_chains` reads them.

    >>> format_chains(as_chains("120,95"))
    'A:120,B:95'
    """
    return ",".join(f"{each.name}:{each.length}" for each in chains)


def check_chains(chains: Chains, residues: int, where: str) -> None:
    """Raise ValueError if chains do not make up a query of this many residues."""
    total = sum(each.length for each in chains)
    if chains and total != residues:
        lengths = " and ".join(str(each.length) for each in chains)
        raise ValueError(
            f"{where}: chains of {lengths} residues have {total} together, but the query has {residues}, insertions "
            "included; the lengths must sum up to the query's."
        )


def chain_indices(chains: Chains, residues: Sequence[int] | np.ndarray) -> np.ndarray:
    """Index of the chain, from 0, of residues numbered from 1 on the whole query; 0 without chains.

    >>> chain_indices(as_chains("3,4"), [1, 3, 4, 7]).tolist(), chain_indices((), [1, 9]).tolist()
    ([0, 0, 1, 1], [0, 0])
    """
    ends = list(accumulate(each.length for each in chains[:-1]))
    return np.searchsorted(ends, np.asarray(residues), side="left").astype(np.int64)


def chain_starts(chains: Chains) -> list[int]:
    """Number of residues of the query before each chain; ``[0]`` without chains."""
    return [0, *accumulate(each.length for each in chains[:-1])]


def chain_slices(chains: Chains, residues: int) -> list[tuple[int, int]]:
    """Start and end of each chain in a query of this many residues, from 0; of the whole query without chains."""
    starts = chain_starts(chains)
    return list(zip(starts, [*starts[1:], residues], strict=True))


def residue_names(chains: Chains, residues: Sequence[int] | np.ndarray) -> list[str]:
    """Name residues of the query, numbered from 1, as users see them: by chain, if there are chains.

    >>> residue_names(as_chains("3,4"), [3, 4]), residue_names((), [3, 4])
    (['A:3', 'B:1'], ['3', '4'])
    """
    if not chains:
        return [str(number) for number in np.asarray(residues).tolist()]
    starts = chain_starts(chains)
    pairs = zip(chain_indices(chains, residues).tolist(), np.asarray(residues).tolist(), strict=True)
    return [f"{chains[k].name}:{number - starts[k]}" for k, number in pairs]


def residue_number(chains: Chains, text: str | int, where: str = "residue") -> int:
    """Number, from 1 on the whole query, of a residue as users write it; the inverse of `residue_names`.

    Raises
    ------
    ValueError
        If the chain does not exist or has no such residue, if there are chains and it names none, or the reverse.

    Examples
    --------
    >>> residue_number(as_chains("3,4"), "B:1"), residue_number((), "4")
    (4, 4)
    """
    match = re.fullmatch(r"(?:([^:]*):)?(-?\d+)", str(text).strip())
    names = [each.name for each in chains]
    first = f"{names[0]}:" if names else ""
    if match is None:
        raise ValueError(f"{where}: {text!r} is not a residue; write it like {first}42.")
    name, number = match[1], int(match[2])
    if not chains:
        if name is not None:
            raise ValueError(f"{where}: {text} names a chain, but the alignment has one protein; pass its chains.")
        return number
    if name is None:
        raise ValueError(
            f"{where}: {text} names no chain; write it like {first}{number}; the chains are {', '.join(names)}."
        )
    k = chain_of_name(chains, name, where)
    if not 1 <= number <= chains[k].length:
        raise ValueError(f"{where}: chain {name} has residues 1 to {chains[k].length}; there is no residue {text}.")
    return chain_starts(chains)[k] + number


def separated(chains: Chains, residues: np.ndarray) -> np.ndarray:
    """Numbers whose differences are the separations of residues: between chains at least `BETWEEN`.

    >>> separated(as_chains("3,4"), np.array([1, 3, 4])).tolist()
    [1, 3, 2000004]
    """
    return residues + 2 * BETWEEN * chain_indices(chains, residues)


def parse_residues(text: str, chains: Chains, what: str) -> list[int]:
    """Read residues and ranges of residues, of a complex by chain; a chain's name alone is all of it.

    >>> parse_residues("3,10-12", (), "residues"), parse_residues("A:3, B:1-2", as_chains("3,2"), "residues")
    ([3, 10, 11, 12], [3, 4, 5])
    >>> parse_residues("B", as_chains("3,2"), "residues")
    [4, 5]
    """
    if not chains:
        return parse_ranges(text, what)
    starts, names = chain_starts(chains), [each.name for each in chains]
    numbers: list[int] = []
    for part in text.split(","):
        name, colon, rest = (each.strip() for each in part.partition(":"))
        if not colon and name not in names:
            raise ValueError(
                f"{what}: {part.strip()!r} names no chain; write residues like {names[0]}:3,{names[0]}:10-12, or a "
                f"whole chain, {names[0]}; the chains are {', '.join(names)}."
            )
        k = chain_of_name(chains, name, what)
        found = parse_ranges(rest, what) if colon else range(1, chains[k].length + 1)
        if wrong := [number for number in found if not 1 <= number <= chains[k].length]:
            raise ValueError(
                f"{what}: chain {name} has residues 1 to {chains[k].length}; there is no residue {name}:{wrong[0]}."
            )
        numbers += [starts[k] + number for number in found]
    return numbers


def format_residues(chains: Chains, residues: Sequence[int]) -> str:
    """Write ascending residue numbers as `parse_residues` reads them.

    >>> format_residues((), [3, 4, 5, 8]), format_residues(as_chains("3,4"), [2, 3, 4, 7])
    ('3-5,8', 'A:2-3,B:1,B:4')
    """
    if not chains:
        return format_ranges(residues)
    indices, starts = chain_indices(chains, residues), chain_starts(chains)
    parts = []
    for k in np.unique(indices).tolist():
        numbers = (np.asarray(residues)[indices == k] - starts[k]).tolist()
        parts += [f"{chains[k].name}:{part}" for part in format_ranges(numbers).split(",")]
    return ",".join(parts)


def array_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a result as an .npz file holds them: chains as names and lengths, and only if there are any.

    >>> list(array_fields({"depth": 2, "chains": ()})), list(array_fields({"depth": 2, "chains": as_chains("3,4")}))
    (['depth'], ['depth', 'chain_names', 'chain_lengths'])
    """
    fields = {name: value for name, value in values.items() if name != "chains"}
    if chains := values.get("chains"):
        fields["chain_names"] = np.array([each.name for each in chains])
        fields["chain_lengths"] = np.array([each.length for each in chains], dtype=np.int64)
    return fields


def require_chains(chains: Chains, where: str, what: str) -> None:
    """Raise ValueError if something for complexes is asked of one protein."""
    if not chains:
        raise ValueError(f"{where}: {what} requires the chains of a complex; pass them, such as --chains 120,95.")


def refuse_chains(chains: Chains, where: str, what: str) -> None:
    """Raise ValueError if something for one protein is asked of a complex; `what` says it in the singular."""
    if chains:
        raise ValueError(f"{where}: {what} is for one protein, but this is a complex of {format_chains(chains)}.")


def check_offset(chains: Chains, offset: int, where: str) -> None:
    """Raise ValueError for an offset of residue numbers in a complex, whose chains are numbered from 1."""
    if offset:
        refuse_chains(chains, where, f"an offset of residue numbers ({offset})")


def chain_of_name(chains: Chains, name: str, where: str = "chains") -> int:
    """Index of the chain with this name; ValueError if there is none."""
    names = [each.name for each in chains]
    if name not in names:
        raise ValueError(f"{where}: there is no chain {name!r}; the chains are {', '.join(names) or 'not known'}.")
    return names.index(name)
