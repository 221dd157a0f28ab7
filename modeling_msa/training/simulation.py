"""Protein families with known contacts, sampled from random Potts models along random trees.

Every family has its own model: a random topology of helices and strands (`random_topology`), a Potts model whose
couplings lie on the contacts of the topology (`random_potts`), and sequences that evolve in it along a random tree
(`evolve`), with deletions and fragments (`delete`). Depth, length, divergence, strength of the couplings, conservation
and shape of the tree vary from family to family. examples/synthetic_families has the log of how it came about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..alignments.alignment import Alignment

Touch = Callable[[int, int, float], None]  # of two columns, and how strongly they are coupled
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
CODES = np.frombuffer((AMINO_ACIDS + "-").encode(), dtype=np.uint8)
GAP = 20
# Frequencies in UniProt, in the order of AMINO_ACIDS, percent
BACKGROUND = np.array(
    [8.3, 1.4, 5.5, 6.8, 3.9, 7.1, 2.3, 5.9, 5.8, 9.7, 2.4, 4.1, 4.7, 3.9, 5.5, 6.6, 5.4, 6.9, 1.1, 2.9],
    dtype=np.float32,
)
# Kyte-Doolittle hydropathy, volume in cubic Angstrom (Zamyatnin), charge, aromatic or not
HYDROPATHY = np.array(
    [1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8, 1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3]
)
VOLUME = np.array(
    [89, 109, 111, 138, 190, 60, 153, 167, 169, 167, 163, 114, 113, 144, 174, 89, 116, 140, 228, 194], dtype=float
)
CHARGE = np.array([0, 0, -1, -1, 0, 0, 0.2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], dtype=float)
AROMATIC = np.array([aa in "FHWY" for aa in AMINO_ACIDS], dtype=float)
HELIX = np.array(
    [0.4, -0.3, -0.2, 0.4, -0.1, -1.0, -0.1, 0.0, 0.3, 0.4, 0.3, -0.3, -1.8, 0.3, 0.3, -0.3, -0.3, -0.3, 0, -0.1]
)
STRAND = np.array(
    [-0.3, 0.3, -0.8, -0.5, 0.4, -0.7, -0.1, 0.7, -0.3, 0.2, 0.2, -0.6, -1.2, -0.1, 0.0, -0.1, 0.3, 0.8, 0.3, 0.5]
)


def _standard(values: np.ndarray) -> np.ndarray:
    weights = BACKGROUND / BACKGROUND.sum()
    centred = values - (weights * values).sum()
    return centred / np.sqrt((weights * centred**2).sum())


HYDROPHOBIC, SIZE = _standard(HYDROPATHY), _standard(VOLUME)


def _similarity_root() -> np.ndarray:
    """R (20, 20), where R R^T is the similarity of amino acids: 1 on the diagonal, near 0 for dissimilar ones."""
    minor = [0.5 * _standard(values) for values in (CHARGE, AROMATIC, HELIX, STRAND)]
    properties = np.stack([HYDROPHOBIC, SIZE, *minor], 1)
    distance = ((properties[:, None] - properties[None]) ** 2).sum(-1)
    return np.linalg.cholesky(np.exp(-distance / 2))


# Noise drawn as SIMILAR @ normal is similar for similar amino acids, which replace each other in nature; with
# independent noise the substitutions of columns look nothing like BLOSUM62's.
SIMILAR = _similarity_root()


@dataclass(frozen=True)
class Topology:
    """Which columns touch, and how strongly they are coupled.

    Attributes
    ----------
    kinds : ndarray, shape=(L,), dtype="<U1"
        ``H`` helix, ``E`` strand, ``-`` loop.
    weights : ndarray, shape=(L, L), dtype=float32
        Strength of the coupling relative to a direct strand pair; 0 without a contact. Symmetric.
    """

    kinds: np.ndarray
    weights: np.ndarray

    @property
    def contacts_per_residue(self) -> float:
        """Contacts at least 6 apart per residue; proteins of 100 residues have about two."""
        return float((np.triu(self.weights, 6) > 0).sum() / len(self.kinds))


def random_topology(rng: np.random.Generator, length: int) -> Topology:
    """Place helices, strands and loops along the chain and pair them: ladders, sheets, packed helices."""
    kinds, elements = _elements(rng, length)
    weights = np.zeros((length, length), dtype=np.float32)

    def touch(i: int, j: int, weight: float) -> None:
        if 0 <= i < length and 0 <= j < length and abs(i - j) >= 3:
            weights[i, j] = weights[j, i] = max(weights[i, j], weight)

    strands = [e for e in elements if e[0] == "E"]
    helices = [e for e in elements if e[0] == "H"]
    for first, second in _sheet_neighbours(rng, strands):
        _ladder(rng, first, second, strands, touch)
    for index, helix in enumerate(helices):
        partners = helices[index + 1 :] + strands
        for partner in _near(rng, helix, partners)[: rng.integers(2, 5)]:
            _pack(rng, helix, partner, touch)
        for i in range(helix[1], helix[2]):
            for step, weight in ((3, 0.35), (4, 0.45)):
                if i + step < helix[2]:
                    touch(i, i + step, weight * rng.uniform(0.3, 1))
    for index, strand in enumerate(strands):  # sheets pack on sheets
        for partner in _near(rng, strand, strands[index + 2 :])[: rng.integers(0, 3)]:
            _pack(rng, strand, partner, touch)
    loops = np.flatnonzero(kinds == "-")
    for _ in range(rng.poisson(0.2 * length)):
        i, j = rng.choice(loops, 2) if len(loops) > 1 and rng.random() < 0.5 else rng.integers(0, length, 2)
        touch(int(i), int(j), rng.uniform(0.3, 1))
    return Topology(kinds, weights)


def _near(rng: np.random.Generator, element: tuple, others: list) -> list:
    """Sort `others` at random, close ones more likely first."""
    return sorted(others, key=lambda e: abs(e[1] - element[1]) * rng.exponential())


def _elements(rng: np.random.Generator, length: int) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Secondary structure: a letter per column, and elements (kind, start, end)."""
    kinds, elements = np.full(length, "-"), []
    helical = rng.choice([0.05, 0.5, 0.95], p=[0.35, 0.45, 0.2])
    start = int(rng.integers(0, 5))
    while start < length - 4:
        kind = "H" if rng.random() < helical else "E"
        end = min(start + int(rng.integers(8, 21) if kind == "H" else rng.integers(5, 12)), length)
        if end - start >= 4:
            kinds[start:end] = kind
            elements.append((kind, start, end))
        start = end + int(rng.integers(2, 6))
    return kinds, elements


def _sheet_neighbours(rng: np.random.Generator, strands: list) -> list[tuple]:
    """Pairs of adjacent strands: each strand joins the edge of a sheet or starts a new one."""
    pairs: list[tuple] = []
    sheet: list[tuple] = []
    for strand in strands:
        if not sheet or rng.random() < 0.08:
            sheet = [strand]
            continue
        edge = len(sheet) if rng.random() < 0.65 else 0
        pairs.append((sheet[edge - 1] if edge else sheet[0], strand))
        sheet.insert(edge, strand)
    if len(sheet) >= 4 and rng.random() < 0.3:  # a barrel closes
        pairs.append((sheet[0], sheet[-1]))
    return pairs


def _ladder(rng: np.random.Generator, first: tuple, second: tuple, strands: list, touch: Touch) -> None:
    """Pair two strands residue by residue, antiparallel or parallel, with weaker pairs next to the ladder."""
    hairpin = abs(strands.index(first) - strands.index(second)) == 1
    antiparallel = rng.random() < (0.9 if hairpin else 0.5)
    (_, a, a_end), (_, b, b_end) = sorted([first, second], key=lambda e: e[1])
    steps = min(a_end - a, b_end - b) + int(rng.integers(0, 2))
    shift = int(rng.integers(-1, 2))
    beside = rng.uniform(0.3, 0.8)
    for k in range(steps):
        i, j, sign = (a_end - 1 - k, b + k + shift, 1) if antiparallel else (a + k, b + k + shift, -1)
        inside = 1.0 if k % 2 else rng.uniform(0.6, 1.0)
        touch(i, j, inside * rng.uniform(0.7, 1.2))
        for step in (1, -1):
            if rng.random() < 0.75:
                touch(i, j + step, beside * rng.uniform(0.3, 1))
        if rng.random() < 0.4:
            touch(i, j + 2 * sign, 0.5 * beside)


def _pack(rng: np.random.Generator, element: tuple, partner: tuple, touch: Touch) -> None:
    """Pack two elements: every second residue of a strand, about every 3.6th of a helix, touches the other."""
    turns = {"H": 3.6, "E": 2.0}
    (kind, a, a_end), (other, b, b_end) = element, partner
    here = np.arange(a + rng.uniform(0, turns[kind]), a_end - 0.5, turns[kind])
    there = np.arange(b + rng.uniform(0, turns[other]), b_end - 0.5, turns[other])
    there = there[:: -1 if rng.random() < 0.7 else 1]
    offset = int(rng.integers(-1, 2))
    for k, i in enumerate(here):
        for step, weight in ((0, 1.0), (1, 0.6), (-1, 0.3)):
            if 0 <= k + offset + step < len(there) and rng.random() < 0.85:
                j = round(there[k + offset + step])
                touch(round(i), j, weight * rng.uniform(0.5, 1.1))
                if rng.random() < 0.4:
                    touch(round(i) + int(rng.choice([-1, 1])), j, weight * rng.uniform(0.2, 0.6))


@dataclass(frozen=True)
class Potts:
    """A Potts model with couplings on a sparse graph.

    Attributes
    ----------
    fields : ndarray, shape=(L, 20), dtype=float32
    neighbours : ndarray, shape=(L, N), dtype=int64
        Coupled columns of each column, padded with the column itself.
    couplings : ndarray, shape=(L, N, 20, 20), dtype=float32
        ``[i, k, b, a]``: for state a of column i and state b of its k-th neighbour; 0 in the padding.
    colours : list of ndarray
        Sets of columns that are not coupled to each other and can be sampled at once.
    """

    fields: np.ndarray
    neighbours: np.ndarray
    couplings: np.ndarray
    colours: list[np.ndarray]


def random_potts(rng: np.random.Generator, topology: Topology, strength: float, conservation: float) -> Potts:
    """Draw couplings from physico-chemical terms and noise, fields from background, burial, structure and noise."""
    length = len(topology.kinds)
    degree = (topology.weights > 0).sum(1)
    width = max(1, int(degree.max()))
    neighbours = np.tile(np.arange(length)[:, None], (1, width))
    couplings = np.zeros((length, width, 20, 20), dtype=np.float32)
    slots = np.zeros(length, dtype=np.int64)
    mix = np.exp(rng.normal(0, 0.4, 4)) * [1.0, 1.1, 0.7, 0.3]
    noise = rng.uniform(0.5, 1.2)
    for i, j in zip(*np.triu_indices(length, 1), strict=True):
        if topology.weights[i, j] == 0:
            continue
        pair = _pair_energy(rng, mix, noise) * strength * topology.weights[i, j]
        for one, other, matrix in ((i, j, pair), (j, i, pair.T)):
            neighbours[one, slots[one]] = other
            couplings[one, slots[one]] = matrix.T
            slots[one] += 1
    burial = np.clip(degree / 5 - 0.6, -1, 1)
    fields = np.log(BACKGROUND / BACKGROUND.sum())[None] + 0.6 * burial[:, None] * HYDROPHOBIC
    fields = (
        fields
        + np.where((topology.kinds == "H")[:, None], HELIX, 0)
        + np.where((topology.kinds == "E")[:, None], STRAND, 0)
    )
    spread = conservation * rng.gamma(1.5, 1 / 1.5, length)
    fields = fields + rng.normal(size=(length, 20)) @ SIMILAR.T * spread[:, None]
    return Potts(fields.astype(np.float32), neighbours, couplings, _colour(topology.weights > 0))


def _pair_energy(rng: np.random.Generator, mix: np.ndarray, noise: float) -> np.ndarray:
    """Coupling of one contact, (20, 20), of zero mean along both axes and unit standard deviation."""
    own = mix * np.exp(rng.normal(0, 0.5, 4))
    energy = own[0] * np.outer(HYDROPHOBIC, HYDROPHOBIC) - own[1] * 3 * np.outer(CHARGE, CHARGE)
    energy = energy - own[2] * np.outer(SIZE, SIZE) + own[3] * 2 * np.outer(AROMATIC, AROMATIC)
    energy = energy / energy.std() + noise * SIMILAR @ rng.normal(size=(20, 20)) @ SIMILAR.T
    if rng.random() < 0.04:  # a disulfide
        energy[1, 1] += 6
    energy = energy - energy.mean(0, keepdims=True) - energy.mean(1, keepdims=True) + energy.mean()
    return energy / energy.std()


def _colour(graph: np.ndarray) -> list[np.ndarray]:
    """Colour greedily, columns with most neighbours first."""
    colours = np.full(len(graph), -1)
    for column in np.argsort(-graph.sum(1), kind="stable"):
        taken = set(colours[graph[column]].tolist())
        colours[column] = next(c for c in range(len(graph)) if c not in taken)
    return [np.flatnonzero(colours == c) for c in range(colours.max() + 1)]


def gibbs(rng: np.random.Generator, potts: Potts, states: np.ndarray, probability: np.ndarray) -> None:
    """Resample columns of `states` (n, L) in place given their neighbours, each with a `probability` (n or 1, L)."""
    for columns in potts.colours:
        redrawn = rng.random((len(states), len(columns)), dtype=np.float32) < probability[:, columns]
        rows, which = np.nonzero(redrawn)
        if len(rows) == 0:
            continue
        sites = columns[which]
        around = states[rows[:, None], potts.neighbours[sites]]  # (m, N)
        energy = potts.fields[sites]
        for k in range(around.shape[1]):
            energy = energy + potts.couplings[sites, k, around[:, k]]
        cumulative = np.exp(energy - energy.max(1, keepdims=True)).cumsum(1)
        drawn = rng.random((len(rows), 1), dtype=np.float32) * cumulative[:, -1:]
        states[rows, sites] = (cumulative < drawn).sum(1).clip(max=19)


def evolve(
    rng: np.random.Generator, potts: Potts, topology: Topology, depth: int, divergence: float, shape: float
) -> np.ndarray:
    """Sequences at the leaves of a random tree, (depth, L), 20 where a residue was lost along the way.

    Parameters
    ----------
    divergence : float
        Mean number of Gibbs updates of a column between root and leaf.
    shape : float
        The number of lineages grows as ``depth ** (time ** shape)``: below 1 they split early (a star), above 1 late
        (close relatives).
    """
    length, steps = len(potts.fields), 14
    states = rng.integers(0, 20, (1, length)).astype(np.int8)
    for _ in range(25):  # the root: a draw from the model
        gibbs(rng, potts, states, np.ones((1, length), dtype=np.float32))
    lost = np.zeros((1, length), dtype=bool)
    luck = np.zeros(1)  # lineages split at different rates
    rates = rng.gamma(2.0, 0.5, length).clip(0.1, 3)
    deletions = rng.uniform(0, 4) / steps
    loopiness = np.where(topology.kinds == "-", 1.0, 0.15)
    for step in range(1, steps + 1):
        wanted = max(len(states), round(depth ** ((step / steps) ** shape)))
        parents = rng.choice(len(states), wanted - len(states), p=np.exp(luck) / np.exp(luck).sum())
        kept = np.r_[np.arange(len(states)), parents]
        states, lost, luck = states[kept], lost[kept].copy(), luck[kept] + rng.normal(0, 0.3, len(kept))
        speed = rng.gamma(3.0, 1 / 3.0, (len(states), 1))
        gibbs(rng, potts, states, (1 - np.exp(-rates * speed * divergence / steps)).astype(np.float32))
        for row in np.flatnonzero(rng.random(len(states)) < deletions):
            start = int(rng.choice(length, p=loopiness / loopiness.sum()))
            lost[row, start : start + 1 + int(rng.geometric(0.35))] = True
    return np.where(lost, GAP, states)


def delete(rng: np.random.Generator, states: np.ndarray, fragments: float) -> np.ndarray:
    """Cut off the ends of a share `fragments` of the rows, as local alignments do."""
    length = states.shape[1]
    states = states.copy()
    for row in np.flatnonzero(rng.random(len(states)) < fragments):
        left, right = (rng.exponential(0.15 * length, 2) * (rng.random(2) < 0.7)).astype(int)
        if left + right < 0.7 * length:
            states[row, :left] = GAP
            states[row, length - right :] = GAP
    return states


@dataclass(frozen=True)
class Ranges:
    """Ranges of the parameters of families; the first four are drawn on a logarithmic scale."""

    length: tuple[float, float]
    depth: tuple[float, float]
    strength: tuple[float, float]  # standard deviation of the couplings of a direct contact
    divergence: tuple[float, float]  # mean Gibbs updates of a column from root to leaf
    conservation: tuple[float, float]  # standard deviation of the fields, gamma-distributed over sites
    shape: tuple[float, float]  # of the tree, see `evolve`
    fragments: tuple[float, float]  # share of rows with ends cut off

    def draw(self, rng: np.random.Generator, name: str) -> float:
        """Draw a parameter by name."""
        low, high = getattr(self, name)
        if name in ("length", "depth", "strength", "divergence"):
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return rng.uniform(low, high)


KINDS = {
    "varied": Ranges((40, 130), (256, 2048), (0.4, 1.2), (20, 60), (0.2, 0.8), (0.05, 0.6), (0, 0.8)),
    # longer, closer relatives, more fragments
    "natural": Ranges((50, 150), (400, 1024), (0.45, 1.1), (3, 20), (0.2, 0.8), (0.2, 0.9), (0.2, 0.9)),
}


def family_size(seed: int, index: int, kind: str = "varied") -> tuple[int, int]:
    """Depth and length of a family, before the columns that its query has lost are left out; nothing is simulated."""
    rng, ranges = np.random.default_rng([seed, index]), KINDS[kind]
    length = int(ranges.draw(rng, "length"))
    return int(ranges.draw(rng, "depth")), length


def make_family(seed: int, index: int, kind: str = "varied") -> tuple[Alignment, np.ndarray]:
    """Make one family; it depends on seed, index and kind only.

    Returns
    -------
    alignment : Alignment
        Query first.
    contacts : ndarray, shape=(L, L), dtype=int8
        1 where two columns touch.
    """
    rng, ranges = np.random.default_rng([seed, index]), KINDS[kind]
    length, depth = int(ranges.draw(rng, "length")), int(ranges.draw(rng, "depth"))
    topology = random_topology(rng, length)
    while topology.contacts_per_residue < 1.5:
        topology = random_topology(rng, length)
    potts = random_potts(rng, topology, ranges.draw(rng, "strength"), ranges.draw(rng, "conservation"))
    states = evolve(rng, potts, topology, depth, ranges.draw(rng, "divergence"), ranges.draw(rng, "shape"))
    states = states[rng.permutation(len(states))]
    query = states[0]
    states = delete(rng, states, ranges.draw(rng, "fragments"))
    kept = query != GAP
    states[0] = query
    rows = CODES[states[:, kept]]
    contacts = (topology.weights > 0).astype(np.int8)[np.ix_(kept, kept)]
    names = [f"family_{seed}_{index}", *(f"row_{k}" for k in range(2, len(rows) + 1))]
    return Alignment.from_sequences([bytes(row).decode() for row in rows], names), contacts
