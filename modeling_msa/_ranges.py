"""Numbers and ranges as people write them, like ``3,10-12``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def parse_ranges(text: str, what: str) -> list[int]:
    """Read whole numbers and ranges, whose ends both count.

    Parameters
    ----------
    text : str
        Numbers and ranges, separated by commas.
    what : str
        What they stand for, which begins the message of an error: an option's name, for example.

    Returns
    -------
    list of int
        In the order of `text`, as often as they are written.

    Raises
    ------
    ValueError
        If a part is neither a number nor a range, or a range ends before it begins.

    Examples
    --------
    >>> parse_ranges("3, 10-12", "residues")
    [3, 10, 11, 12]
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"{what}: {part.strip()!r} is not a number or a range; write them like 3,10-12.")
        numbers += range(first, last + 1)
    return numbers


def format_ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers as `parse_ranges` reads them.

    Examples
    --------
    >>> format_ranges([3, 10, 11, 12])
    '3,10-12'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
