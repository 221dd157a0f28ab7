"""Contact baselines without a neural network: mutual information and pseudo-likelihood DCA, both with APC.

Both read an alignment's `array`, ``(R, L)`` uint8 ASCII codes, and return a symmetric ``(L, L)`` float64 score with a
zero diagonal. The ambiguous letter X counts as a gap.
"""

import numpy as np
import torch

from modeling_msa import sequence_weights

STATES = "ACDEFGHIKLMNPQRSTVWY-"
_CODES = np.full(256, 20)
_CODES[[ord(letter) for letter in STATES]] = np.arange(21)
_CODES[[ord(letter) for letter in "BZU"]] = [STATES.index(letter) for letter in "DEC"]


def apc(scores: np.ndarray) -> np.ndarray:
    """Average product correction (Dunn et al., Bioinformatics 2008), means without the diagonal."""
    scores = scores.copy()
    np.fill_diagonal(scores, 0)
    means = scores.sum(0) / max(1, len(scores) - 1)
    overall = means.mean()
    corrected = scores - np.outer(means, means) / overall if overall else scores
    np.fill_diagonal(corrected, 0)
    return corrected


def mutual_information(
    array: np.ndarray,
    *,
    gaps: bool = False,
    pseudocount: float = 1.0,
    theta: float | None = None,
    correct: bool = True,
) -> np.ndarray:
    """Mutual information of columns, in nats.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
    gaps : bool, default False
        Treat the gap as a 21st state; otherwise a pair counts only the rows with a residue in both columns.
    pseudocount : float, default 1
        Added to the (weighted) count of each pair of states; counts of single states follow from these.
    theta : float, optional
        Weight each row by 1 / the number of rows that differ in at most this fraction of columns
        (`modeling_msa.sequence_weights`).
    correct : bool, default True
        Subtract the average product (`apc`).
    """
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
    np.fill_diagonal(scores, 0)
    return apc(scores) if correct else scores


def pseudo_likelihood(
    array: np.ndarray, *, regularization: float = 0.01, theta: float | None = 0.2, iterations: int = 100
) -> np.ndarray:
    """Pseudo-likelihood DCA (Ekeberg et al., Phys. Rev. E 2013), symmetric as in CCMpred (Seemayer et al. 2014).

    One Potts model of 21 states is fitted to all columns at once by L-BFGS: the sum over columns and weighted rows of
    -log p(column | the others), plus `regularization` * |h|^2 on fields and `regularization` * (L - 1) / 2 * |J|^2 on
    couplings. The couplings are one symmetric array, so each counts twice. Scores are the Frobenius norms of
    the couplings in zero-sum gauge without the gap, APC-corrected.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
    regularization : float, default 0.01
    theta : float, optional
        As in `mutual_information`.
    iterations : int, default 100
        Maximum number of iterations.
    """
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
        return apc(blocks[:, :20, :, :20].square().sum((1, 3)).sqrt().numpy())
