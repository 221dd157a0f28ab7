"""The options --window and --overlap: how a command reads alignments that are longer than the model reads."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from ..tasks.windows import Windows, check_windows
from .options import option

_LONG = "Long alignments"
Window = Annotated[
    int | None,
    option(
        "N",
        "Read alignments with more columns in overlapping windows of N. Default: all that the model reads (1,023 for "
        "the published models), so that there are windows only where they are needed.",
        _LONG,
        min=2,
    ),
]
Overlap = Annotated[
    int | None, option("N", "Minimum overlap of windows. Default: half a window (512 of 1,023).", _LONG, min=0)
]


@dataclasses.dataclass
class WindowOptions:
    """The two options of a command; ValueError if they do not fit each other."""

    window: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        check_windows(self.window, self.overlap)

    def of(self) -> dict[str, Any]:
        """Return them by name, as settings of a run and arguments of a task."""
        return dataclasses.asdict(self)

    def check(self, model: Any) -> None:
        """Raise ValueError if a model does not read such windows."""
        check_windows(self.window, self.overlap, _most(model))

    def note(self, model: Any, length: int) -> str:
        """Say in how many windows so many columns are read, unless they are read at once."""
        windows = Windows.place(length, _most(model), self.window, self.overlap)
        return f", in {len(windows)} windows of {windows.width:,}" if len(windows) > 1 else ""


def uncovered_note(contacts: Any) -> str:
    """Say how many pairs of a contact map are in no window, if there are any."""
    count = len(contacts.uncovered())
    return f"; {count:,} pairs are in no window: no probability, not counted in P@L" if count else ""


def _most(model: Any) -> int:
    """Columns that a model reads, without ``<cls>``."""
    return model.config.max_position_embeddings - 1
