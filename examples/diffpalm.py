"""Pair paralogs as DiffPALM does (Lupo, Sgarbossa and Bitbol, PNAS 2024): by gradient descent on soft permutations.

    python examples/diffpalm.py A.a3m B.a3m -o pairs.tsv [--model msa1b] [--species TABLE] [--steps 100] [--runs 1]

Each species has a matrix of numbers, from which Sinkhorn's algorithm makes a soft permutation. The rows of A are
mixed by it, most of their residues are masked, and the model predicts these beside the rows of B. The loss flows back
through the mixed rows, which enter the model as embeddings (``inputs_embeds``), to the matrices. The pairs of the step
with the smallest loss, as permutations, are written.

Species need as many rows in both alignments here; of others the rows most similar to the query are used. The queries
and species with one row in each are unmasked context. `msa pair` is faster, and pairs unequal numbers.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from modeling_msa import Alignment, MsaForMaskedLM, MsaTokenizer, load_model, read_alignment
from modeling_msa.alignments.species import read_species, shared_species
from modeling_msa.hub.loading import quiet_loading

MASK = 32


def sinkhorn(scores: Tensor, iterations: int = 10) -> Tensor:
    """A matrix ``(n, n)`` with rows and columns that sum up to one, large where `scores` are."""
    for _ in range(iterations):
        scores = scores - scores.logsumexp(-1, keepdim=True)
        scores = scores - scores.logsumexp(-2, keepdim=True)
    return scores.exp()


def permutation(scores: Tensor) -> Tensor:
    """The permutation matrix ``(n, n)`` with the largest sum of `scores`."""
    rows, columns = linear_sum_assignment(scores.detach().cpu().numpy(), maximize=True)
    matrix = torch.zeros_like(scores)
    matrix[rows, columns] = 1
    return matrix


def pairing_loss(
    model: MsaForMaskedLM, a: Tensor, b: Tensor, mix: Tensor, masked: Tensor, context: Tensor | None = None
) -> Tensor:
    """Loss of the masked residues of A beside B.

    Parameters
    ----------
    model : MsaForMaskedLM
        In eval mode.
    a, b : torch.Tensor
        ``(R, L_A)`` and ``(R, L_B)`` int64: tokens of the rows of both, without <cls>.
    mix : torch.Tensor
        ``(R, R)``: how much of each row of A, the second axis, stands beside each row of B.
    masked : torch.Tensor
        ``(R, L_A)`` bool: what is masked, at the rows of B.
    context : torch.Tensor, optional
        ``(K, C)`` int64: known pairs, with <cls>, which come first and are not masked.

    Returns
    -------
    torch.Tensor
        Cross-entropy with the mixed rows of A, in nats per masked token; gradients flow to `mix`.
    """
    table = model.get_input_embeddings().weight  # (V, D)
    mixed = torch.einsum("ij,jlv->ilv", mix, F.one_hot(a, len(table)).to(table.dtype))  # (R, L_A, V)
    blank = F.one_hot(torch.tensor(MASK, device=a.device), len(table)).to(table.dtype)
    seen = torch.where(masked[..., None], blank, mixed)
    cls = torch.zeros(len(b), 1, dtype=torch.int64, device=a.device)
    parts = [F.one_hot(cls, len(table)), seen, F.one_hot(b, len(table))]
    rows = torch.cat([each.to(table.dtype) for each in parts], dim=1)  # (R, C, V)
    if context is not None:
        rows = torch.cat([F.one_hot(context, len(table)).to(table.dtype), rows])
    logits = model(inputs_embeds=(rows @ table)[None]).logits[0]  # (K + R, C, V)
    return F.cross_entropy(logits[-len(b) :, 1 : 1 + a.shape[1]][masked], mixed[masked])


def optimise(
    model: MsaForMaskedLM,
    a: Tensor,
    b: Tensor,
    sizes: list[int],
    context: Tensor | None = None,
    steps: int = 100,
    rate: float = 9.0,
    mask: float = 0.7,
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """Find the row of A for each row of B; the rows of a species follow each other, `sizes` at a time.

    Returns
    -------
    partners : ndarray, shape=(R,), dtype=int64
        Those of the step whose permutations had the smallest loss.
    losses : list of float
        Of the permutations at each step, all with the same residues masked.
    """
    random = torch.Generator().manual_seed(seed)
    scores = [(0.1 * torch.randn(n, n, generator=random)).to(a.device).requires_grad_() for n in sizes]
    optimizer = torch.optim.Adadelta(scores, lr=rate)
    losses, best = [], None
    always = (torch.rand(a.shape, generator=random) < mask).to(a.device)  # so that losses can be compared
    for _ in range(steps):
        gumbel = [-(-torch.rand(n, n, generator=random).log()).log().to(a.device) for n in sizes]
        noisy = [
            each - each.mean() + noise * each.std().nan_to_num() * more
            for each, more in zip(scores, gumbel, strict=True)
        ]
        masked = (torch.rand(a.shape, generator=random) < mask).to(a.device)
        optimizer.zero_grad()
        pairing_loss(model, a, b, torch.block_diag(*map(sinkhorn, noisy)), masked, context).backward()
        hard = torch.block_diag(*map(permutation, noisy))
        with torch.no_grad():
            losses.append(pairing_loss(model, a, b, hard, always, context).item())
        if best is None or losses[-1] < min(losses[:-1]):
            best = hard.argmax(1).cpu().numpy()
        optimizer.step()
    return best, losses


def species_rows(a: Alignment, b: Alignment, table: Path | None) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Rows of known pairs, of A and B, rows to pair, of A and B, and how many there are of each species."""
    shared = shared_species(a, b, table and read_species(table))
    known, free, sizes = [[0], [0]], [[], []], []
    for group in shared.groups.values():
        count = min(map(len, group)) if 0 not in group[0] + group[1] else 0
        if not count:
            continue
        if count > 1:
            sizes.append(count)
        for rows, each, chosen in zip(group, (a, b), free if count > 1 else known, strict=True):
            likeness = (each.array[rows] == each.array[0]).sum(axis=1)
            chosen += [rows[k] for k in np.argsort(-likeness, kind="stable")[:count]]
    return known, free, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alignments", nargs=2, type=Path, metavar="A B")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table of pairs, for msa pair --pairs")
    parser.add_argument("--model", default="msa-tiny", help="folder or Hub id (default: msa-tiny)")
    parser.add_argument("--species", type=Path, help="table with the columns name and species")
    parser.add_argument("--rows", type=int, default=64, help="maximum number of known pairs (default: 64)")
    parser.add_argument("--steps", type=int, default=100, help="steps of gradient descent (default: 100)")
    parser.add_argument("--runs", type=int, default=1, help="runs with other seeds; the best is kept (default: 1)")
    arguments = parser.parse_args()
    quiet_loading()
    a, b = (read_alignment(path).drop_query_gaps() for path in arguments.alignments)
    known, free, sizes = species_rows(a, b, arguments.species)
    model = load_model(arguments.model, cls=MsaForMaskedLM).eval().requires_grad_(False)
    tokens = [
        MsaTokenizer()(each, return_tensors="pt", verbose=False)["input_ids"][0].to(model.device) for each in (a, b)
    ]
    context = torch.cat([tokens[0][known[0]], tokens[1][known[1], 1:]], dim=1)[: arguments.rows]
    inputs = [each[rows, 1:] for each, rows in zip(tokens, free, strict=True)]
    runs = [optimise(model, *inputs, sizes, context, arguments.steps, seed=seed) for seed in range(arguments.runs)]
    partners, losses = min(runs, key=lambda run: min(run[1]))
    with open(arguments.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        pairs = [(free[0][k], row) for k, row in zip(partners, free[1], strict=True)]
        names = [(a.names[i].split()[0], b.names[j].split()[0]) for i, j in [*zip(*known, strict=True), *pairs]]
        writer.writerows([("name_a", "name_b"), *names])
    print(f"{arguments.output}: {len(pairs)} pairs by the model, {len(known[0])} known, loss {min(losses):.3f}")


if __name__ == "__main__":
    main()
