"""Predict which residues of a query touch, from its alignment; fit and judge such predictions by known contacts.

Known contacts are square arrays with 1 where two residues touch, 0 where they do not and -100 where it is unknown;
`modeling_msa.alignments.structure` makes them of a structure.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .inputs import evaluating, model_inputs

MIN_SEPARATION = 6  # pairs closer in sequence are not counted as contacts (CASP's convention)
RANGES: dict[str, tuple[int, int | None]] = {"short": (6, 11), "medium": (12, 23), "long": (24, None)}  # CASP's too


@dataclass(frozen=True, eq=False)
class ContactMap:
    """Contact probabilities of a query's residues.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the map. Residues that the alignment has no column for are
        left out.
    probabilities : ndarray, shape=(L, L), dtype=float32
        Probability that two residues are in contact: C-beta atoms within 8 Angstrom.
    depth : int
        Rows of the alignment that the model saw.
    """

    name: str
    query: str
    residues: np.ndarray
    probabilities: np.ndarray
    depth: int

    def top(self, count: int | None = None, min_separation: int = MIN_SEPARATION) -> np.ndarray:
        """Pairs of map indices i < j, most probable first.

        Parameters
        ----------
        count : int, optional
            How many; default: all.
        min_separation : int, default 6
            Least difference of residue numbers.

        Returns
        -------
        ndarray, shape=(pairs, 2), dtype=int64
            Indices from 0 into `probabilities` and `residues`.

        Examples
        --------
        >>> import numpy as np
        >>> from modeling_msa.tasks.contacts import ContactMap
        >>> probabilities = np.array([[0, 0.2, 0.9], [0.2, 0, 0.4], [0.9, 0.4, 0]], dtype=np.float32)
        >>> contacts = ContactMap("tripeptide", "MKV", np.array([1, 2, 3]), probabilities, depth=1)
        >>> contacts.top(min_separation=1).tolist()
        [[0, 2], [1, 2], [0, 1]]
        """
        i, j = np.triu_indices(len(self.residues), 1)
        far = self.residues[j] - self.residues[i] >= min_separation
        i, j = i[far], j[far]
        order = np.argsort(-self.probabilities[i, j], kind="stable")[:count]
        return np.stack([i[order], j[order]], axis=1)


def predict_contacts(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> ContactMap:
    """Predict the contacts of an alignment's query.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        With a fitted contact regression, in evaluation mode.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.

    Returns
    -------
    ContactMap

    Raises
    ------
    ValueError
        If the query is longer than the model's table, or its contact regression was never fitted.
    """
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    probabilities = model.predict_contacts(**inputs)[0].cpu().numpy()
    return ContactMap(seen.names[0], seen.query, seen.column_residues, probabilities, seen.depth)


def check_contacts(path: str | os.PathLike) -> None:
    """Raise, before work starts, if `write_contacts` knows no format by this ending: ValueError.

    Examples
    --------
    >>> check_contacts("map.rr")
    >>> check_contacts("map.csv")
    Traceback (most recent call last):
    ...
    ValueError: map.csv: contacts are written as .tsv, .npz or .rr; end the name with one of these.
    """
    if Path(path).suffix.lower() not in _WRITERS:
        *some, last = _WRITERS
        raise ValueError(
            f"{path}: contacts are written as {', '.join(some)} or {last}; end the name with one of these."
        )


def write_contacts(contacts: ContactMap, path: str | os.PathLike, min_separation: int = MIN_SEPARATION) -> None:
    """Write a contact map; the ending decides the format. The file appears whole or not at all.

    Parameters
    ----------
    contacts : ContactMap
        What to write.
    path : path
        ``.tsv``: a tab-separated table i, j, probability, with query residue numbers from 1, most probable pair
        first. ``.rr``: CASP's format RR, in the same order; a submission takes a line ``AUTHOR`` with the group's
        code as well. ``.npz``: the attributes of `ContactMap` under their names, for `numpy.load`; it has all pairs,
        and no pickled object.
    min_separation : int, default 6
        Least difference of residue numbers of the pairs in a ``.tsv`` or ``.rr``.

    Raises
    ------
    ValueError
        For another ending.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> probabilities = np.array([[0, 0.2, 0.9], [0.2, 0, 0.4], [0.9, 0.4, 0]], dtype=np.float32)
    >>> contacts = ContactMap("tripeptide", "MKV", np.array([1, 2, 3]), probabilities, depth=1)
    >>> path = Path(tempfile.mkdtemp(), "contacts.rr")
    >>> write_contacts(contacts, path, min_separation=1)
    >>> print(path.read_text())
    PFRMAT RR
    TARGET tripeptide
    METHOD MSA Transformer, 1 row of the alignment
    MODEL 1
    MKV
    1 3 0 8 0.900000
    2 3 0 8 0.400000
    1 2 0 8 0.200000
    END
    """
    check_contacts(path)
    with whole_file(path) as temporary:
        _WRITERS[Path(path).suffix.lower()](contacts, temporary, min_separation)


def _pair_lines(contacts: ContactMap, min_separation: int, form: str) -> str:
    pairs = contacts.top(min_separation=min_separation)
    numbers = contacts.residues[pairs].tolist()
    values = contacts.probabilities[pairs[:, 0], pairs[:, 1]].tolist()
    return "".join(form.format(i, j, value) for (i, j), value in zip(numbers, values, strict=True))


def _write_tsv(contacts: ContactMap, path: Path, min_separation: int) -> None:
    path.write_text("i\tj\tprobability\n" + _pair_lines(contacts, min_separation, "{}\t{}\t{:.6f}\n"))


def _write_rr(contacts: ContactMap, path: Path, min_separation: int) -> None:
    # blanks separate, tabs are not allowed; a contact is a distance of 0 to 8 Angstrom
    name = (contacts.name.split() or ["unknown"])[0]
    query = "".join(f"{contacts.query[start : start + 50]}\n" for start in range(0, len(contacts.query), 50))
    rows = f"{contacts.depth} row{'s' if contacts.depth != 1 else ''}"
    head = f"PFRMAT RR\nTARGET {name}\nMETHOD MSA Transformer, {rows} of the alignment\nMODEL 1\n"
    path.write_text(head + query + _pair_lines(contacts, min_separation, "{} {} 0 8 {:.6f}\n") + "END\n")


def _write_npz(contacts: ContactMap, path: Path, _: int) -> None:
    with path.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
        np.savez_compressed(file, **vars(contacts))


_WRITERS = {".tsv": _write_tsv, ".npz": _write_npz, ".rr": _write_rr}


@dataclass(frozen=True)
class ContactFit:
    """What `fit_contact_regression` fitted the regression on, and how well.

    Attributes
    ----------
    examples, pairs, positives : int
        Alignments, pairs of known state and contacts among these.
    weights, nonzero : int
        Row maps (layers times heads), and those whose weight the L1 penalty left above or below zero.
    precision : float
        Mean P@L on the examples themselves.
    """

    examples: int
    pairs: int
    positives: int
    weights: int
    nonzero: int
    precision: float


@dataclass(frozen=True, eq=False)
class _Example:
    """One MSA and its labelled pairs, numbered by column."""

    tokens: torch.Tensor  # (1, R, C) int64
    i: np.ndarray  # (pairs,) residue columns from 0, i < j
    j: np.ndarray
    touch: np.ndarray  # (pairs,) bool


def fit_contact_regression(
    model: MsaPreTrainedModel,
    examples: Iterable[tuple[Alignment | np.ndarray | torch.Tensor, np.ndarray]],
    *,
    regularization: float = 0.15,
    min_separation: int = MIN_SEPARATION,
    seed: int = 0,
) -> ContactFit:
    """Fit the model's contact regression on alignments whose contacts are known (paper, section 4.1).

    A logistic regression with an L1 penalty, by scikit-learn's liblinear solver, on the row maps of all layers and
    heads, symmetrised and APC-corrected (`contact_features`). Twenty families do (Rao et al., ICLR 2021); the
    settings are those of fair-esm's authors (facebookresearch/esm, issue 249). The rest of the model stays as it is.
    All features are in memory at the end: pairs times maps times 8 bytes, and twice that in the solver.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its ``contact_head.regression`` is overwritten, at the end, if all went well.
    examples : iterable of (alignment, contacts)
        As an `Alignment` (its rows are those that the model sees: see `modeling_msa.select_rows`; columns where the
        query has a gap are left out, as in `predict_contacts`), or as tokens ``(R, C)`` that begin with ``<cls>``.
        Contacts are a symmetric array of 1, 0 and -100, over the query's N residues, ``(N, N)``, or over the
        columns, ``(L, L)``.
    regularization : float, default 0.15
        scikit-learn's C, the inverse of the penalty's strength.
    min_separation : int, default 6
        Least difference of residue numbers (of columns, for tokens).
    seed : int, default 0
        Of the solver, which visits the features in random order.

    Returns
    -------
    ContactFit

    Raises
    ------
    ValueError
        Before the model runs: no examples, contacts of another size or with other values, no contact or nothing but
        contacts among the pairs. Afterwards, if no map is of use: then the model is left as it was.
    ImportError
        Without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("Fitting a contact regression takes scikit-learn: pip install scikit-learn.") from error
    known = [
        _labelled_example(model, *example, min_separation, f"example {number} (from 0)")
        for number, example in enumerate(examples)
    ]
    touch = np.concatenate([example.touch for example in known]) if known else np.zeros(0, dtype=bool)
    if not touch.any() or touch.all():
        raise ValueError(
            f"{len(known)} examples have {touch.sum()} contacts among {len(touch)} pairs of known state at least "
            f"{min_separation} residues apart; give examples with both."
        )
    bar = tqdm(known, desc="contact regression", unit="MSA", disable=None, leave=False)
    features = np.concatenate([contact_features(model, example.tokens, example.i, example.j) for example in bar])
    # the random numbers are of the order in which coordinates are visited; 100 iterations do not always do
    classifier = LogisticRegression(
        C=regularization, l1_ratio=1, solver="liblinear", max_iter=1000, random_state=seed
    ).fit(features, touch)
    nonzero = int(np.count_nonzero(classifier.coef_))
    if nonzero == 0:
        raise ValueError(
            f"No row map tells contacts from other pairs at C = {regularization}: train the model first, give more "
            "examples, or raise C (regularization)."
        )
    regression = _backbone(model).contact_head.regression
    with torch.no_grad():
        regression.weight.copy_(torch.from_numpy(classifier.coef_))
        regression.bias.copy_(torch.from_numpy(classifier.intercept_))
    scores = np.split(
        classifier.decision_function(features), np.cumsum([len(example.touch) for example in known[:-1]])
    )
    hits = []  # P@L, see precision
    for example, values in zip(known, scores, strict=True):
        length = example.tokens.shape[2] - 1
        hits.append(example.touch[np.argsort(-values, kind="stable")[:length]].sum() / length)
    return ContactFit(len(known), len(touch), int(touch.sum()), classifier.coef_.size, nonzero, float(np.mean(hits)))


@torch.no_grad()
def contact_features(model: MsaPreTrainedModel, tokens: torch.Tensor, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Row maps of all layers and heads, symmetrised and APC-corrected: what the contact regression weighs.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its dropout is off for the time.
    tokens : torch.Tensor
        ``(1, R, C)``: one MSA without padding.
    i, j : ndarray, shape=(pairs,), dtype=int64
        Residue columns from 0 (``<cls>`` has none).

    Returns
    -------
    ndarray, shape=(pairs, layers * heads), dtype=float64
        Layer by layer, head by head.

    Examples
    --------
    >>> import numpy as np
    >>> from modeling_msa import MsaConfig, MsaModel, MsaTokenizer
    >>> from modeling_msa.tasks.contacts import contact_features
    >>> model = MsaModel(MsaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64))
    >>> tokens = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"]
    >>> i, j = np.triu_indices(5, 1)
    >>> contact_features(model, tokens, i, j).shape
    (10, 8)
    """
    backbone = _backbone(model)
    features = []

    def collect(module: torch.nn.Module, inputs: tuple) -> None:
        maps = inputs[0][0, :, 1:, 1:].cpu().double()  # (H, L, L) without <cls>
        maps = maps + maps.transpose(1, 2)
        sums = maps.sum(-1)
        corrected = maps - sums[:, :, None] * sums[:, None] / sums.sum(-1)[:, None, None]
        features.append(corrected[:, i, j].T.numpy())  # (pairs, H)

    # the head sees one layer's maps after the other, and its own weights do not matter here
    hook = backbone.contact_head.register_forward_pre_hook(collect)
    try:
        with evaluating(backbone):
            backbone.contact_logits(tokens.to(backbone.device))
    finally:
        hook.remove()
    return np.concatenate(features, axis=1)


def _backbone(model: MsaPreTrainedModel) -> MsaModel:
    return model.base_model  # type: ignore[return-value]


def _labelled_example(
    model: MsaPreTrainedModel,
    msa: Alignment | np.ndarray | torch.Tensor,
    contacts: np.ndarray,
    min_separation: int,
    where: str,
) -> _Example:
    tokenizer = MsaTokenizer.for_config(model.config)
    if isinstance(msa, Alignment):
        where = msa.source or f"{where}, {msa.names[0]}"
        columns = np.flatnonzero(msa.column_residues)  # those with a residue of the query
        residues = msa.column_residues[columns]
        index = residues - 1 if np.shape(contacts)[:1] == (len(msa.query),) else columns
        sizes = {len(msa.query): "the query's residues", msa.length: "its columns"}
        tokens = tokenizer(msa.drop_query_gaps(), verbose=False, return_tensors="pt")["input_ids"]
    else:
        tokens = torch.as_tensor(msa)
        tokens = tokens[None] if tokens.ndim == 2 else tokens
        begins = tokens.ndim == 3 and len(tokens) == 1 and (tokens[:, :, 0] == tokenizer.cls_token_id).all()
        if not begins or (tokens == tokenizer.pad_token_id).any():
            raise ValueError(
                f"{where}: tokens of shape {tuple(tokens.shape)} are not one MSA, (R, C), that begins with <cls> and "
                "has no padding; or give an Alignment."
            )
        residues = index = np.arange(tokens.shape[2] - 1)
        sizes = {len(index): "columns without <cls>"}
    rows, length = tokens.shape[1:]
    if rows > tokenizer.model_max_depth or length > tokenizer.model_max_length:
        raise ValueError(
            f"{where}: {rows} rows and {length} columns with <cls>, the model takes {tokenizer.model_max_depth} and "
            f"{tokenizer.model_max_length}: choose fewer rows (modeling_msa.select_rows), crop the columns."
        )
    contacts = _check_contacts(contacts, sizes, where)[np.ix_(index, index)]
    i, j = np.triu_indices(len(index), 1)
    counted = (residues[j] - residues[i] >= min_separation) & (contacts[i, j] >= 0)
    return _Example(tokens, i[counted], j[counted], contacts[i, j][counted] == 1)


def _check_contacts(contacts: np.ndarray, sizes: dict[int, str], where: str) -> np.ndarray:
    """Return contacts as int8, or raise if they are not a symmetric array of 1, 0, -100 of one of the sizes."""
    contacts = np.asarray(contacts)
    if contacts.ndim != 2 or contacts.shape[0] != contacts.shape[1] or len(contacts) not in sizes:
        wanted = " or ".join(f"({size}, {size}), {what}" for size, what in sizes.items())
        raise ValueError(f"{where}: contacts must have the shape {wanted}, but have {contacts.shape}.")
    wrong = ~np.isin(contacts, (0, 1, -100))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(
            f"{where}: contacts are 1, 0 or -100 (unknown), but at ({i}, {j}), from 0, stands {contacts[i, j]}: make "
            "contacts of distances first (< 8 Angstrom)."
        )
    contacts = contacts.astype(np.int8)
    if (contacts != contacts.T).any():
        i, j = np.argwhere(contacts != contacts.T)[0]
        raise ValueError(f"{where}: contacts must be symmetric, but ({i}, {j}) and ({j}, {i}), from 0, differ.")
    return contacts


def precision(
    scores: np.ndarray | ContactMap,
    contacts: np.ndarray,
    *,
    top: int | str = "L",
    min_separation: int = MIN_SEPARATION,
    max_separation: int | None = None,
) -> float:
    """Fraction of contacts among the pairs with the highest scores: P@L, P@L/2, P@L/5.

    As fair-esm computes it: of the pairs i < j in the range of separations whose state is known, the highest L/k are
    taken, k = 1, 2, 5, and the contacts among them are counted and divided by L/k (rounded down, at least 1). Where
    fewer pairs than that are in the range, the missing ones count as wrong.

    Parameters
    ----------
    scores : ndarray, shape=(L, L), or ContactMap
        Probabilities or any other score; only those with i < j are looked at. Of equal scores, the pair that comes
        first counts as higher.
    contacts : ndarray, shape=(L, L), dtype=bool or int
        1 (True) contact, 0 not, -100 unknown. For a `ContactMap` over its residues or over the whole query, (N, N).
    top : {"L", "L/2", "L/5"} or "L/" with another number, or int, default "L"
        How many pairs; L is the size of the map.
    min_separation, max_separation : int, optional
        Least and largest difference of residue numbers (of indices, for an array), both included. Short range is 6
        to 11, medium 12 to 23, long 24 and more: ``RANGES``.

    Returns
    -------
    float
        In [0, 1]; NaN if no pair in the range is known.

    Raises
    ------
    ValueError
        If shapes do not fit, contacts hold other numbers, scores hold NaN, or `top` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from modeling_msa.tasks.contacts import precision
    >>> contacts = np.zeros((8, 8), dtype=bool)
    >>> contacts[0, 6] = contacts[6, 0] = True
    >>> scores = np.zeros((8, 8))
    >>> scores[0, 6], scores[0, 7] = 0.5, 0.9
    >>> precision(scores, contacts, top=2)
    0.5
    """
    if isinstance(scores, ContactMap):
        residues, values = scores.residues, scores.probabilities
        sizes = {len(residues): "the map's residues", len(scores.query): "the query's"}
    else:
        values = np.asarray(scores, dtype=float)
        residues = np.arange(1, len(values) + 1)
        sizes = {len(values): "as the scores"}
    if values.shape != (len(residues), len(residues)):
        raise ValueError(f"Scores must be a square array, (L, L), but have the shape {values.shape}.")
    contacts = _check_contacts(contacts, sizes, "precision")
    if len(contacts) != len(residues):
        contacts = contacts[np.ix_(residues - 1, residues - 1)]
    count = _count_of(top, len(residues))
    i, j = np.triu_indices(len(residues), 1)
    separations = residues[j] - residues[i]
    counted = (separations >= min_separation) & (contacts[i, j] >= 0)
    if max_separation is not None:
        counted &= separations <= max_separation
    i, j = i[counted], j[counted]
    if np.isnan(values[i, j]).any():
        raise ValueError("Scores hold NaN.")
    if len(i) == 0:
        return float("nan")
    order = np.argsort(-values[i, j], kind="stable")[:count]
    return float((contacts[i[order], j[order]] == 1).sum() / count)


def _count_of(top: int | str, length: int) -> int:
    """Return the number of pairs that "L", "L/2" or a number stands for."""
    if not isinstance(top, str):
        count = operator.index(top)
    elif top == "L":
        count = length
    elif top.startswith("L/") and top[2:].isdecimal() and int(top[2:]) > 0:
        count = max(1, length // int(top[2:]))
    else:
        raise ValueError(f"top is L, L/2, L/5 or the like, or a number of pairs, but is {top!r}.")
    if count < 1:
        raise ValueError(f"top is a number of pairs, 1 or more, but is {count}.")
    return count


def precisions(scores: np.ndarray | ContactMap, contacts: np.ndarray) -> dict[str, float]:
    """Work out the usual table: P@L, P@L/2 and P@L/5 of all pairs at least 6 apart, and of each range.

    Parameters
    ----------
    scores, contacts
        As `precision`.

    Returns
    -------
    dict of str to float
        "P@L", "P@L/2", "P@L/5", then "short P@L" ... "long P@L/5"; see `precision`.
    """
    ranges = {"": (MIN_SEPARATION, None)} | {f"{name} ": limits for name, limits in RANGES.items()}
    return {
        f"{name}P@{top}": precision(scores, contacts, top=top, min_separation=least, max_separation=most)
        for name, (least, most) in ranges.items()
        for top in ("L", "L/2", "L/5")
    }
