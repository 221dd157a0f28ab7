"""Numbers with their nouns, in what is printed."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, which is in the singular here.

    Examples
    --------
    >>> counted(1, "alignment"), counted(0, "row"), counted(1200, "family"), counted(2, "assay")
    ('1 alignment', '0 rows', '1,200 families', '2 assays')
    """
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{number:,} {noun}"
