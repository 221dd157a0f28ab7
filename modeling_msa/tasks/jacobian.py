"""The categorical Jacobian: how the model's logits at one residue answer to substitutions at another.

Zhang et al., "Protein language models learn evolutionary statistics of interacting sequence motifs", PNAS 121,
e2406285121 (2024). Each residue of the query is replaced by each of the 20 amino acids, and the change of the logits
of the 20 amino acids at all residues is read, nothing masked: ``J[i, a, j, b]``. As in the authors' code
(zzhangzzhang/pLMs-interpretability), it is centred over each of its four axes and symmetrised; the Frobenius norms of
its 20 x 20 blocks, after the average product correction (APC), say which residues are in contact, without a fitted
regression.

The same numbers give the epistasis of pairs of substitutions. ``J[i, a, j, b] - J[i, a, j, wild type]`` is by how much
the substitution a at i changes the log ratio of b and the wild type at j: for probabilities that belong to one
distribution of sequences, log p(both) + log p(neither) - log p(only a) - log p(only b).

The Jacobian has 400 numbers for each ordered pair of residues. They lie in a temporary file and are read in blocks.
"""

from __future__ import annotations

import operator
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import torch
from tqdm import tqdm

from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, array_fields, separated
from ..alignments.variants import AMINO_ACIDS, Substitution, variant_name
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .contacts import MIN_SEPARATION, PairMap
from .context import context_layers, row_states, versions_per_batch
from .inputs import check_whole, model_inputs
from .strategies import Mode, check_mode

_TOKENS_PER_PASS = 2**14  # of several versions of the alignment in one pass, in exact mode
_BLOCK = 64  # residues; a block of pairs has 6.5 MB
_AXES = len(AMINO_ACIDS)


@dataclass(frozen=True, eq=False)
class CategoricalJacobian(PairMap):
    """What the categorical Jacobian says of a query's residues: contacts and pairs of substitutions.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the map. Residues without a column in the alignment are left
        out.
    scores : ndarray, shape=(L, L), dtype=float32
        Frobenius norms of the centred and symmetrised Jacobian after APC; higher is more likely in contact. They are
        not probabilities: they can be negative, and their size depends on the model. Zero on the diagonal.
    depth : int
        Number of alignment rows given to the model.
    mode : str
        "fast" or "exact".
    amino_acids : str
        The 20 letters of the axes of `jacobian`.
    pairs : tuple of str
        The strongest pairs of substitutions, such as ``A42V:G57D``, numbered like `residues`, strongest first.
    epistasis : ndarray, shape=(pairs,), dtype=float32
        Their epistasis in nats: positive if the two are better tolerated together than each of them alone suggests.
    jacobian : ndarray, shape=(L, 20, L, 20), dtype=float32, or None
        Change of the logit of amino acid b at j when i becomes a: neither centred nor symmetrised. Zero where a is the
        wild type. None unless it was requested.
    chains : tuple of Chain
        Chains of a complex, as in `ContactMap`; `pairs` are then numbered by chain, such as ``A:A42V:B:G57D``.
    """

    measure = "score"
    method = "categorical Jacobian of an MSA Transformer"

    name: str
    query: str
    residues: np.ndarray
    scores: np.ndarray
    depth: int
    mode: str
    amino_acids: str = AMINO_ACIDS
    pairs: tuple[str, ...] = ()
    epistasis: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    jacobian: np.ndarray | None = None
    chains: Chains = ()

    @property
    def values(self) -> np.ndarray:
        """The scores."""
        return self.scores

    def arrays(self) -> dict[str, Any]:
        """Return what an .npz file holds: the attributes, of the whole Jacobian float16."""
        fields = array_fields(vars(self))
        if self.jacobian is None:
            return {name: value for name, value in fields.items() if name != "jacobian"}
        return fields | {"jacobian": self.jacobian.astype(np.float16)}


def categorical_jacobian(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    mode: Mode = "fast",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    pairs: int = 0,
    min_separation: int = MIN_SEPARATION,
    full: bool = False,
    batch_size: int | None = None,
) -> CategoricalJacobian:
    """Compute the categorical Jacobian of an alignment's query.

    Memory is bounded: the Jacobian, 1,600 bytes for each ordered pair of residues, lies in a temporary file (where
    TMPDIR says) and is read in blocks. There are no windows: a query that is longer than the model reads is refused.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``. Its contact regression is not used.
    mode : {"fast", "exact"}, default "fast"
        Run the homologs once for hundreds of versions of the query, or all rows for each of the 20 L versions. In fast
        mode homologs see a query that is masked, so that a substitution acts through the query's row alone.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all that `select_rows`
        has chosen, of other alignments at most 128.
    pairs : int, default 0
        Number of pairs of substitutions to list, those with the largest absolute epistasis.
    min_separation : int, default 6
        Smallest difference of their residue numbers.
    full : bool, default False
        Return the whole Jacobian too.
    batch_size : int, optional
        Number of versions of the query in one pass; default: by their size. It does not change the result.

    Raises
    ------
    TypeError
        If the model has no language model head.
    ValueError
        Before the model runs: if the query is longer than the model reads, the temporary file does not fit on its
        disk, or an argument is wrong.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, load_model
    >>> family = Alignment.from_sequences(["MKVLAWYC", "MRVL-WYC", "MKIIAWFC"])
    >>> result = categorical_jacobian(family, load_model(cls=MsaForMaskedLM), pairs=2, full=True)
    >>> result.scores.shape, len(result.pairs), result.jacobian.shape
    ((8, 8), 2, (8, 20, 8, 20))
    """
    if not isinstance(model, MsaForMaskedLM):
        raise TypeError(
            f"The Jacobian requires a model with a language model head, not {type(model).__name__}: "
            "load_model(name, cls=MsaForMaskedLM)."
        )
    check_mode(mode)
    check_whole(model)
    for name, value, least in (
        ("pairs", pairs, 0),
        ("min_separation", min_separation, 1),
        ("batch_size", batch_size, 1),
    ):
        if value is not None and operator.index(value) < least:
            raise ValueError(f"{name} must be at least {least}, but is {value}.")
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    wild = np.array([AMINO_ACIDS.find(letter) for letter in seen.sequences[0]])  # -1: not one of the 20
    strongest = _Strongest(pairs, min_separation, wild, separated(seen.chains, seen.column_residues))
    _check_disk(seen.length)
    with tempfile.TemporaryFile() as file:
        blocks = _Blocks(file, seen.length)
        for row, change in _changes(model, inputs["input_ids"], wild, mode, batch_size):
            blocks.put(row, change)
        norms = np.zeros((seen.length, seen.length))
        for i, j, block in blocks.symmetric():
            norms[i, j] = np.sqrt(np.square(blocks.centred(i, j, block)).sum((2, 3)))
            norms[j, i] = norms[i, j].T
            if pairs:
                strongest.add(i, j, block)
        whole = blocks.whole() if full else None
    names, epistasis = strongest.listed(seen)
    scores = average_product_corrected(norms).astype(np.float32)
    where = (seen.names[0], seen.query, seen.column_residues)
    return CategoricalJacobian(*where, scores, seen.depth, mode, AMINO_ACIDS, names, epistasis, whole, seen.chains)


def average_product_corrected(norms: np.ndarray) -> np.ndarray:
    """Subtract from each entry what its row and column suggest; the diagonal is left out, and zero.

    Examples
    --------
    >>> print(average_product_corrected(np.array([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]])).round(2))
    [[0.   0.   0.75]
     [0.   0.   1.33]
     [0.75 1.33 0.  ]]
    """
    norms = norms.copy()
    np.fill_diagonal(norms, 0)
    sums, total = norms.sum(axis=0), norms.sum()
    if total > 0:
        norms -= np.outer(sums, sums) / total
    np.fill_diagonal(norms, 0)
    return norms


def epistasis_of(jacobian: np.ndarray, wild_type: str) -> np.ndarray:
    """Turn a whole Jacobian into the epistasis of all pairs of substitutions.

    Parameters
    ----------
    jacobian : ndarray, shape=(L, 20, L, 20)
        `CategoricalJacobian.jacobian`.
    wild_type : str
        Its L residues: ``"".join(result.query[number - 1] for number in result.residues)``.

    Returns
    -------
    ndarray, shape=(L, 20, L, 20)
        In nats, symmetric: positive if the two substitutions are better tolerated together than each alone suggests.
        Zero where one is the wild type, NaN where the wild type is not one of the 20 amino acids.
    """
    wild = np.array([AMINO_ACIDS.find(letter) for letter in wild_type])
    block = jacobian.transpose(0, 2, 1, 3)
    return _epistasis((block + block.transpose(1, 0, 3, 2)) / 2, wild, wild).transpose(0, 2, 1, 3)


def _epistasis(block: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Turn a block ``(I, J, 20, 20)`` of the symmetric Jacobian into epistasis, given the wild types of I and J."""
    block = block - np.take_along_axis(block, np.maximum(left, 0)[:, None, None, None], axis=2)
    block = block - np.take_along_axis(block, np.maximum(right, 0)[None, :, None, None], axis=3)
    block[left < 0] = np.nan
    block[:, right < 0] = np.nan
    return block


@torch.inference_mode()
def _changes(
    model: MsaForMaskedLM, ids: torch.Tensor, wild: np.ndarray, mode: Mode, batch_size: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Residue by residue, the change of all logits for each new amino acid: ``(L, 20, 20)`` float32, j, a, b."""
    rows, columns = ids.shape[1:]
    if mode == "fast":
        size = batch_size or versions_per_batch(model.msa, rows, columns)
    else:
        size = batch_size or max(1, _TOKENS_PER_PASS // (rows * columns))
    letters = MsaTokenizer.for_config(model.config)(AMINO_ACIDS, return_tensors="pt")["input_ids"][0, 0, 1:]
    letters = letters.to(ids.device)
    run = _reader(evaluation_copy(model), ids, letters, mode)
    reference = run(ids[0, :1])[0]  # (L, 20)
    group = max(1, size // _AXES)  # residues whose versions are run together
    with tqdm(total=_AXES * (columns - 1), desc="Jacobian", unit="version", disable=None, leave=False) as bar:
        for start in range(0, columns - 1, group):
            places = torch.arange(start, min(start + group, columns - 1), device=ids.device)
            versions = ids[0, :1].repeat(len(places) * _AXES, 1)
            versions[torch.arange(len(versions), device=ids.device), 1 + places.repeat_interleave(_AXES)] = (
                letters.repeat(len(places))
            )
            changes = torch.cat([run(some) for some in versions.split(size)]) - reference
            for row, change in zip(places.tolist(), changes.unflatten(0, (-1, _AXES)).cpu().numpy(), strict=True):
                if wild[row] >= 0:
                    change[wild[row]] = 0  # exactly, whatever the batch
                yield row, change.transpose(1, 0, 2)
            bar.update(len(versions))


def _reader(
    model: MsaForMaskedLM, ids: torch.Tensor, letters: torch.Tensor, mode: Mode
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from versions of the query ``(n, C)`` to the logits of amino acids ``(n, L, 20)`` float32."""

    def read(versions: torch.Tensor) -> torch.Tensor:
        if mode == "fast":
            states = row_states(model.msa, context_layers(model.msa, ids), versions)
        else:
            tokens = ids.repeat(len(versions), 1, 1)
            tokens[:, 0] = versions
            states = model.msa(tokens, return_dict=True).last_hidden_state[:, 0]
        # the head's inner tensors are several times the states
        return torch.cat([model.lm_head(some)[..., letters].float() for some in states[:, 1:].split(_AXES)])

    return read


def _check_disk(length: int) -> None:
    needed, folder = 4 * (length * _AXES) ** 2, tempfile.gettempdir()
    if needed > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"The Jacobian of {length} residues requires a temporary file of {needed / 2**20:,.0f} MiB, but "
            f"{free / 2**20:,.0f} MiB are free in {folder}: set TMPDIR to a folder on another disk."
        )


class _Blocks:
    """The Jacobian of L residues in a temporary file, one residue i after another, each ``(L, 20, 20)``: j, a, b."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file, self.length = file, length
        self.of_rows = np.zeros((length, _AXES, _AXES))  # means over j
        self.of_columns = np.zeros((length, _AXES, _AXES))  # means over i

    def put(self, row: int, change: np.ndarray) -> None:
        self.of_rows[row] = change.mean(axis=0, dtype=np.float64)
        self.of_columns += change / self.length
        self.file.seek(row * change.nbytes)
        self.file.write(change.tobytes())  # in the order of its axes

    def get(self, i: slice, j: slice) -> np.ndarray:
        """Block ``(I, J, 20, 20)``, its axes i, j, a, b."""
        block = np.empty((i.stop - i.start, j.stop - j.start, _AXES, _AXES), dtype=np.float32)
        for k, row in enumerate(range(i.start, i.stop)):
            self.file.seek((row * self.length + j.start) * _AXES**2 * 4)
            self.file.readinto(block[k])  # type: ignore[attr-defined]  # not in IO
        return block

    def whole(self) -> np.ndarray:
        """All of it, ``(L, 20, L, 20)``."""
        everything = np.empty((self.length, _AXES, self.length, _AXES), dtype=np.float32)
        for row in range(self.length):
            everything[row] = self.get(slice(row, row + 1), slice(0, self.length))[0].transpose(1, 0, 2)
        return everything

    def symmetric(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Blocks ``(I, J, 20, 20)`` of the symmetrised Jacobian, those on the diagonal and above it."""
        parts = [slice(k, min(k + _BLOCK, self.length)) for k in range(0, self.length, _BLOCK)]
        for k, i in enumerate(parts):
            for j in parts[k:]:
                yield i, j, (self.get(i, j) + self.get(j, i).transpose(1, 0, 3, 2)) / 2

    def centred(self, i: slice, j: slice, block: np.ndarray) -> np.ndarray:
        """Subtract from a symmetric block the means over i, a, j and b, one after another."""
        means = _over_letters((self.of_rows + self.of_columns.transpose(0, 2, 1)) / 2)  # of the symmetric one, over j
        return _over_letters(block) - means[i, None] - means[j].transpose(0, 2, 1) + means.mean(axis=0)


def _over_letters(block: np.ndarray) -> np.ndarray:
    block = block - block.mean(axis=-1, keepdims=True)
    return block - block.mean(axis=-2, keepdims=True)


class _Strongest:
    """The pairs of substitutions with the largest absolute epistasis."""

    def __init__(self, count: int, min_separation: int, wild: np.ndarray, residues: np.ndarray) -> None:
        self.count, self.min_separation, self.wild, self.residues = count, min_separation, wild, residues
        self.values = np.zeros(0, dtype=np.float32)
        self.places = np.zeros((0, 4), dtype=np.int64)  # i, j, a, b

    def add(self, i: slice, j: slice, block: np.ndarray) -> None:
        values = _epistasis(block, self.wild[i], self.wild[j])
        far = self.residues[None, j] - self.residues[i, None] >= self.min_separation
        sizes = np.nan_to_num(np.abs(values)) * far[..., None, None]  # zero where a substitution is none
        least = np.abs(self.values[-1]) if len(self.values) == self.count else 0.0
        if sizes.size > self.count:
            least = max(least, np.partition(sizes, -self.count, axis=None)[-self.count])
        found = np.nonzero((sizes >= least) & (sizes > 0))
        values = np.concatenate([self.values, values[found]])
        places = np.concatenate([self.places, np.stack(found, 1) + np.array([i.start, j.start, 0, 0])])
        # strongest first; of equal ones, that of the first residues
        order = np.lexsort((*places.T[::-1], -np.abs(values)))[: self.count]
        self.values, self.places = values[order], places[order]

    def listed(self, seen: Alignment) -> tuple[tuple[str, ...], np.ndarray]:
        """Names, such as ``A42V:G57D``, and epistasis."""
        names = []
        for i, j, a, b in self.places.tolist():
            numbers = seen.column_residues[[i, j]].tolist()
            each = [Substitution(seen.query[n - 1], n, AMINO_ACIDS[k]) for n, k in zip(numbers, (a, b), strict=True)]
            names.append(variant_name(each, seen.chains))
        return tuple(names), self.values
