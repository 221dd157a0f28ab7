"""Coevolution of columns without a neural network: mutual information and direct coupling analysis (DCA), with APC.

They are what contact maps of a model are compared with. The 20 amino acids and the gap are the states of a column;
B, Z and U count as D, E and C, any other letter as a gap.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..alignments.alignment import Alignment
from ..alignments.sampling import sequence_weights
from .contacts import PairMap
from .inputs import prepare_alignment

Method = Literal["mi", "dca"]
METHODS: tuple[Method, ...] = ("mi", "dca")
_MEASURES = {"mi": ("mutual_information", "mutual information"), "dca": ("dca", "DCA")}

_STATES = "ACDEFGHIKLMNPQRSTVWY-"
_CODES = np.full(256, 20)
_CODES[[ord(letter) for letter in _STATES]] = np.arange(21)
_CODES[[ord(letter) for letter in "BZU"]] = [_STATES.index(letter) for letter in "DEC"]
_BYTES_PER_COUPLING = 4 * 20  # of the optimizer's history, the gradient and temporary arrays


@dataclass(frozen=True, eq=False)
class CoevolutionMap(PairMap):
    """Coevolution of a query's residues, without a model.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the map; as in `ContactMap`.
    scores : ndarray, shape=(L, L), dtype=float64
        Symmetric, zero on the diagonal; higher is more likely in contact. They are not probabilities and can be
        negative.
    depth : int
        Number of alignment rows that were used.
    measure : str
        "mutual_information" or "dca".
    method : str
        The same in words.
    """

    name: str
    query: str
    residues: np.ndarray
    scores: np.ndarray
    depth: int
    measure: str
    method: str

    @property
    def values(self) -> np.ndarray:
        """The scores."""
        return self.scores


def coevolution(
    alignment: Alignment,
    method: Method = "mi",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> CoevolutionMap:
    """Find the coevolution of an alignment's columns, from the rows that a model would see.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    method : {"mi", "dca"}, default "mi"
        `mutual_information` or `direct_coupling_analysis`, with their defaults.
    rows, select, seed, coverage, identity
        Which rows are used; see `modeling_msa.prepare_alignment`. For the rows of a `ContactMap`, pass what
        `predict_contacts` was given, and its `depth` as `rows`.

    Raises
    ------
    ValueError
        For another method, or if DCA would need more memory than the machine has.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKVLAWYC", "MRVLGWYC", "MKVLAWYC", "MRVLGWFC"])
    >>> result = coevolution(family, "mi")
    >>> result.residues[result.top(1, min_separation=1)]  # K2 and A5 change together
    array([[2, 5]])
    """
    check_method(method)
    seen = prepare_alignment(alignment, rows, select, seed, coverage, identity)
    if method == "dca":
        check_memory(seen)
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mi": mutual_information,
        "dca": direct_coupling_analysis,
    }
    where = (seen.names[0], seen.query, seen.column_residues)
    return CoevolutionMap(*where, functions[method](seen.array), seen.depth, *_MEASURES[method])


def check_method(method: str) -> None:
    """Raise ValueError for a method that does not exist."""
    if method not in METHODS:
        raise ValueError(f"method must be mi (mutual information) or dca (direct coupling analysis), not {method!r}.")


def check_memory(alignment: Alignment) -> None:
    """Raise ValueError if DCA of an alignment would need more memory than the machine has."""
    columns = int((alignment.residue_columns >= 0).sum())
    needed = _BYTES_PER_COUPLING * (21 * columns) ** 2
    if hasattr(os, "sysconf") and needed > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise ValueError(
            f"{alignment.source or alignment.names[0]}: DCA of {columns} residues requires about "
            f"{needed / 1e9:.1f} GB of memory, but this machine has {memory / 1e9:.1f}; use mutual information (mi)."
        )


def apc(scores: np.ndarray) -> np.ndarray:
    """Average product correction (Dunn et al., Bioinformatics 2008): s[i, j] - s[i, .] s[., j] / s[., .].

    The dots are means of the (L, L) scores without the diagonal, which becomes zero.
    """
    scores = scores.copy()
    np.fill_diagonal(scores, 0)
    means = scores.sum(0) / max(1, len(scores) - 1)
    overall = means.mean()
    corrected = scores - np.outer(means, means) / overall if overall else scores
    np.fill_diagonal(corrected, 0)
    corrected[np.abs(corrected) < 1e-6 * np.abs(scores).max(initial=0)] = 0  # rounding, which must not rank pairs
    return corrected


def mutual_information(
    array: np.ndarray,
    *,
    gaps: bool = False,
    pseudocount: float = 1.0,
    theta: float | None = None,
    correct: bool = True,
) -> np.ndarray:
    r"""Mutual information of columns, in nats, with average product correction (APC).

    .. math:: I_{ij} = \sum_{ab} p_{ij}(a, b) \ln \frac{p_{ij}(a, b)}{p_i(a) \, p_j(b)}, \qquad
        S_{ij} = I_{ij} - \frac{\bar I_{i} \bar I_{j}}{\bar I}

    The correction subtracts what two columns share with all others, such as their entropy and the phylogeny (Dunn,
    Wahl & Gloor, Bioinformatics 24, 333, 2008).

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes, as `Alignment.array`.
    gaps : bool, default False
        Treat the gap as a 21st state; otherwise a pair counts only the rows with a residue in both columns.
    pseudocount : float, default 1
        Added to the (weighted) count of each pair of states; counts of single states follow from these.
    theta : float, optional
        Weight each row by 1 / the number of rows that differ in at most this fraction of columns
        (`modeling_msa.sequence_weights`).
    correct : bool, default True
        Subtract the average product.

    Returns
    -------
    ndarray, shape=(L, L), dtype=float64
        Symmetric, zero on the diagonal. All zero for a single row, from which nothing can be learned; zero for
        columns that have only gaps.

    Examples
    --------
    >>> family = Alignment.from_sequences(["KAL", "RGL", "KAL", "RGL"])
    >>> print(mutual_information(family.array, pseudocount=0, correct=False).round(3))  # ln 2 = 0.693
    [[0.    0.693 0.   ]
     [0.693 0.    0.   ]
     [0.    0.    0.   ]]
    """
    if len(array) < 2:
        return np.zeros((array.shape[1],) * 2)
    codes = _CODES[array]
    weights = np.ones(len(codes)) if theta is None else sequence_weights(array, theta)
    states = 21 if gaps else 20
    length = codes.shape[1]
    one_hot = torch.from_numpy(np.eye(21, dtype=np.float32)[codes][:, :, :states].reshape(len(codes), -1))
    weighted = one_hot * torch.from_numpy(weights.astype(np.float32))[:, None]
    scores = np.zeros((length, length))
    step = max(1, 2**25 // (length * states**2))  # blocks of columns that take 128 MB
    for start in range(0, length, step):
        block = slice(start * states, (start + step) * states)
        pairs = (weighted[:, block].T @ one_hot).view(-1, states, length, states) + pseudocount  # (I, a, L, b)
        pairs /= pairs.sum((1, 3), keepdim=True).clamp(min=1e-12)
        # sum of p log p / (p_i p_j) as entropies: H_i + H_j - H_ij
        left, right = pairs.sum(3), pairs.sum(1)  # (I, a, L), (I, L, b)
        information = torch.special.entr(left).sum(1) + torch.special.entr(right).sum(2)
        scores[start : start + step] = (information - torch.special.entr(pairs).sum((1, 3))).numpy()
    scores = (scores + scores.T) / 2
    return _finished(scores, codes, apc if correct else np.copy)


def direct_coupling_analysis(
    array: np.ndarray, *, regularization: float = 0.01, theta: float | None = 0.2, iterations: int = 100
) -> np.ndarray:
    r"""Direct coupling analysis by pseudo-likelihood, with average product correction (APC).

    A Potts model of 21 states, with fields h and couplings J, is fitted to all columns at once by L-BFGS (Ekeberg et
    al., Phys. Rev. E 87, 012707, 2013). It minimises, over rows r of weight w,

    .. math:: -\sum_r w_r \sum_i \ln \frac{\exp(h_i(x_{ri}) + \sum_{j \ne i} J_{ij}(x_{ri}, x_{rj}))}
        {\sum_a \exp(h_i(a) + \sum_{j \ne i} J_{ij}(a, x_{rj}))}
        + \lambda \|h\|^2 + \lambda \frac{L - 1}{2} \|J\|^2

    J is one symmetric array, as in CCMpred (Seemayer, Gruber & Söding, Bioinformatics 30, 3128, 2014), so each
    coupling counts twice. Scores are the Frobenius norms of the couplings in zero-sum gauge, without the gap:

    .. math:: F_{ij} = \Bigl(\sum_{a, b \ne -} J'_{ij}(a, b)^2\Bigr)^{1/2}, \qquad
        S_{ij} = F_{ij} - \frac{\bar F_{i} \bar F_{j}}{\bar F}

    Time and memory grow with the square of the columns.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes, as `Alignment.array`.
    regularization : float, default 0.01
        The equation's lambda.
    theta : float, optional
        As in `mutual_information`.
    iterations : int, default 100
        Maximum number of iterations.

    Returns
    -------
    ndarray, shape=(L, L), dtype=float64
        Symmetric, zero on the diagonal. All zero for a single row, from which nothing can be learned; zero for
        columns that have only gaps.
    """
    if len(array) < 2:
        return np.zeros((array.shape[1],) * 2)
    codes = torch.from_numpy(_CODES[array])
    weights = np.ones(len(codes)) if theta is None else sequence_weights(array, theta)
    rows, length = codes.shape
    states = codes + 21 * torch.arange(length)  # (R, L): rows of the couplings, which embedding_bag sums
    weight = torch.from_numpy(weights.astype(np.float32))[:, None]
    # fields start from the log-frequencies
    counts = torch.zeros(length * 21).index_add_(0, states.flatten(), weight.expand(-1, length).flatten())
    frequency = (counts + 1 / 21) / (weight.sum() + 1)
    fields = frequency.log().view(length, 21)
    fields = (fields - fields.mean(1, keepdim=True)).flatten().requires_grad_()
    couplings = torch.zeros(length * 21, length * 21, requires_grad=True)
    off_diagonal = (1 - torch.eye(length)).repeat_interleave(21, 0).repeat_interleave(21, 1)

    def objective() -> torch.Tensor:
        symmetric = (couplings + couplings.T) / 2 * off_diagonal
        logits = (torch.nn.functional.embedding_bag(states, symmetric, mode="sum") + fields).view(rows, length, 21)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        loss = (loss.view(rows, length) * weight).sum()
        penalty = fields.square().sum() + (length - 1) / 2 * symmetric.square().sum()
        return loss + regularization * penalty

    optimizer = torch.optim.LBFGS(
        [fields, couplings], max_iter=iterations, history_size=5, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        blocks = ((couplings + couplings.T) / 2 * off_diagonal).view(length, 21, length, 21).double()
        blocks = (
            blocks - blocks.mean(1, keepdim=True) - blocks.mean(3, keepdim=True) + blocks.mean((1, 3), keepdim=True)
        )
        return _finished(blocks[:, :20, :, :20].square().sum((1, 3)).sqrt().numpy(), codes.numpy(), apc)


def _finished(scores: np.ndarray, codes: np.ndarray, correct: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Correct scores, after those of columns without residues, which are rounding, have become zero."""
    empty = (codes == 20).all(axis=0)
    scores[empty] = scores[:, empty] = 0
    np.fill_diagonal(scores, 0)
    return correct(scores)
