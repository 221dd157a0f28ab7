"""What msa contacts and msa jacobian write beside their maps: scripts for viewers, row maps, enrichment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .._files import check_ending, check_output
from .._ranges import parse_ranges
from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import is_structure
from ..tasks.contact_viewers import VIEWERS, check_viewer, write_viewer
from ..tasks.enrichment import write_enrichment
from ..tasks.row_map_files import FORMATS as ROW_MAP_FORMATS
from .options import option
from .runs import Run
from .structures import Known

if TYPE_CHECKING:
    from ..tasks.contacts import PairMap

_ROW_MAPS = "Row-attention maps"
Viewer = Annotated[
    str | None,
    option(
        "FILE",
        "Also write a script that draws the L strongest pairs on the structure, right and wrong ones in other "
        "colours: .pml for PyMOL, .cxc for ChimeraX. The word pml or cxc alone: a script beside each output. Requires "
        "--structure.",
    ),
]
EnrichmentFile = Annotated[
    str | None,
    option(
        "FILE",
        "Also write how many of the L strongest pairs each residue has, and their strength (.tsv). The word tsv "
        "alone: a table beside each output.",
        None,
        "--enrichment",
    ),
]
RowMapsFile = Annotated[
    str | None,
    option(
        "FILE",
        "Also write the tied row-attention maps, as features for other networks (.npz, .safetensors; float16, layers "
        "x heads x L x L). The word npz or safetensors alone: a file beside each output.",
        _ROW_MAPS,
        "--row-maps",
    ),
]
MapLayers = Annotated[str, option("LAYERS", "Layers from 1, such as 1-4,12; or all.", _ROW_MAPS)]
MapHeads = Annotated[str, option("HEADS", "Heads from 1, such as 1-4,12; or all.", _ROW_MAPS)]


def side_file(text: str | None, endings: Sequence[str], tag: str) -> Callable[[Path], Path] | None:
    """Return the function from a target to a further file that an option names; None without the option.

    Parameters
    ----------
    text : str
        The option: a file, or an ending alone, for a file beside each target.
    endings : sequence of str
        Of files that can be written.
    tag : str
        What files beside targets have in their names.
    """
    if text is None:
        return None
    kind = f".{text.removeprefix('.')}"
    if kind in endings:
        return lambda target: target.with_suffix(f".{tag}{kind}")
    path = Path(text)
    check_ending(path, endings)
    check_output(path)
    return lambda target: path


def parse_chosen(text: str, name: str) -> list[int] | None:
    """Read layers or heads; None means all.

    Examples
    --------
    >>> parse_chosen("1-3,12", "--map-layers"), parse_chosen("all", "--map-layers")
    ([1, 2, 3, 12], None)
    """
    return None if text.strip() == "all" else parse_ranges(text, name)


@dataclasses.dataclass
class Outputs:
    """The options of a command that ask for further files; `name` is the command's, `known` its structures."""

    name: str
    known: Known
    viewer: str | None = None
    enrichment: str | None = None
    row_maps: str | None = None
    map_layers: str = "all"
    map_heads: str = "all"
    between_chains: bool = False

    def __post_init__(self) -> None:
        self.script = side_file(self.viewer, VIEWERS, self.name)
        self.table = side_file(self.enrichment, (".tsv",), "enrichment")
        self.features = side_file(self.row_maps, ROW_MAP_FORMATS, "row_maps")
        self.layers = parse_chosen(self.map_layers, "--map-layers")
        self.heads = parse_chosen(self.map_heads, "--map-heads")
        if self.row_maps is None and (self.layers, self.heads) != (None, None):
            raise ValueError("--map-layers and --map-heads choose row maps: pass --row-maps too.")
        if self.script is not None and not self.known.files:
            raise ValueError("--viewer draws on a structure: pass --structure too.")

    def settings(self) -> dict[str, Any]:
        """Return the options on which the files depend."""
        return {} if self.features is None else {"map_layers": self.layers, "map_heads": self.heads}

    def beside(self, path: Path, target: Path) -> list[Path]:
        """List the files that are written beside a target, its precisions among them."""
        script = self.script if self.known.of(path) else None
        files = [each(target) for each in (script, self.table, self.features) if each is not None]
        return [*self.known.beside(path, target), *files]

    def check(self, run: Run) -> None:
        """Raise ValueError if a file would replace an input or another result."""
        options = {"--viewer": self.viewer, "--enrichment": self.enrichment, "--row-maps": self.row_maps}
        for name, text in options.items():
            if text is not None and Path(text).suffix and not run.is_single:
                raise ValueError(
                    f"{text} is one file: for several alignments, pass {name} {Path(text).suffix[1:]} for a file "
                    "beside each output."
                )
        taken = {each.resolve() for path in run.paths for each in (path, *self.known.of(path).values())}
        for path in run.paths:
            for file in run.files(path):
                if file.resolve() in taken:
                    raise ValueError(
                        f"{file} is an input, or would have two results: give each file a name of its own."
                    )
                taken.add(file.resolve())

    def check_model(self, model: Any) -> None:
        """Raise ValueError if the model does not have the layers and heads."""
        if self.features is not None:
            from ..tasks.row_maps import check_chosen

            check_chosen(model, self.layers, self.heads)

    def check_row_maps(self, family: Alignment, model: Any) -> None:
        """Raise ValueError, before the model runs, if it does not read the query at once."""
        if self.features is not None:
            from ..tasks.row_maps import check_length

            check_length(family, model)

    def check_structure(self, path: Path, target: Path, family: Alignment, assignments: Iterable[str]) -> None:
        """Raise ValueError, before the model runs, if the pairs cannot be drawn on an alignment's structure."""
        if self.script is None:
            return
        for structure in self.known.of(path).values():
            if not is_structure(structure):
                raise ValueError(f"{structure}: --viewer draws on a structure; pass a PDB or mmCIF file.")
            for matched in list(assignments)[:1]:  # all are of the same chains
                check_viewer(structure, family, self.script(target), self.known.chain_names(matched))

    def write(self, path: Path, target: Path, result: PairMap) -> str:
        """Write the script and the table of an alignment; return what is to be said of them."""
        if self.table is not None:
            write_enrichment(result, self.table(target), between_chains=self.between_chains)
        if self.script is None or not self.known.of(path):
            return ""
        structure, script = self.known.of(path)["structure"], self.script(target)
        chain = self.known.chain_names(self.known.matched)
        drawn = write_viewer(result, structure, script, chain, between_chains=self.between_chains)
        return f"\n{script}: {counted(drawn, 'pair')} drawn on {structure}"

    def write_features(self, target: Path, family: Alignment, model: Any, rows: dict[str, Any]) -> None:
        """Write the row maps of an alignment; `rows` are the options that choose rows."""
        if self.features is not None:
            from ..tasks.row_map_files import write_row_maps
            from ..tasks.row_maps import row_maps

            maps = row_maps(family, model, layers=self.layers, heads=self.heads, **rows)
            write_row_maps(maps, self.features(target))
