"""Write row-attention maps as feature files for other networks: NPZ and safetensors."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from .._files import check_ending, whole_file
from ..alignments.chains import format_chains, format_residues

if TYPE_CHECKING:  # so that the formats are known without torch
    from .row_maps import RowMaps

FORMATS = (".npz", ".safetensors")


def write_row_maps(row_maps: RowMaps, path: str | os.PathLike[str]) -> None:
    """Write row-attention maps, whole or not at all.

    The arrays are those of `RowMaps.blocks`, float16: ``maps`` ``(layers, heads, L, L)``, of a complex one for each
    pair of chains, such as ``A:B``. A JSON object says what they are: name, query, residues (ranges: ``"3-80,82"``),
    chains, depth, layers and heads (from 1), symmetrised (false), corrected (false), model, and the choice of rows. It
    is the string ``row_maps`` in the header of safetensors, and the array ``__metadata__`` in NPZ.

    Parameters
    ----------
    row_maps : RowMaps
        The maps; see `modeling_msa.row_maps`.
    path : path
        Ends with ``.npz`` or ``.safetensors``.

    Raises
    ------
    ValueError
        For another ending.

    Examples
    --------
    >>> import tempfile
    >>> from modeling_msa import bundled_family, load_model, read_alignment, row_maps
    >>> result = row_maps(read_alignment(bundled_family()), load_model(), layers=[4], rows=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_row_maps(result, f"{folder}/fn3.npz")
    ...     with np.load(f"{folder}/fn3.npz") as file:
    ...         print(file["maps"].shape, json.loads(str(file["__metadata__"]))["residues"])
    (1, 12, 80, 80) 1-80
    """
    suffix = check_ending(path, FORMATS)
    described = json.dumps(
        {
            "name": row_maps.name,
            "query": row_maps.query,
            "residues": format_residues(row_maps.chains, row_maps.residues.tolist()),
            "chains": format_chains(row_maps.chains),
            "depth": row_maps.depth,
            "layers": row_maps.layers,
            "heads": row_maps.heads,
            "symmetrised": False,
            "corrected": False,
            **row_maps.settings,
        }
    )
    arrays: dict[str, Any] = {name: np.ascontiguousarray(block) for name, block in row_maps.blocks().items()}
    with whole_file(path) as temporary:
        if suffix == ".safetensors":
            save_file(arrays, temporary, {"row_maps": described})
        else:
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez(file, **arrays | {"__metadata__": np.array(described)})
