"""The contract of windows: a long alignment is read in parts like alignments of their own, whose results are averaged.

Expected numbers are made here, column by column, from the tasks' results on the cut alignments. What fits is not
touched, bit for bit. Pairs that no window covers are NaN, and are told apart everywhere.
"""

import dataclasses

import numpy as np
import pytest
import torch
from families import family
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    categorical_jacobian,
    embed,
    embed_variants,
    evaluate_contacts,
    fit_distances,
    generate,
    load_model,
    precision,
    predict,
    predict_contacts,
    predict_distances,
    predict_profile,
    select_rows,
)
from modeling_msa.tasks.distances import column_attention_features
from modeling_msa.tasks.inputs import encode
from modeling_msa.tasks.windows import Windows, check_windows

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = family("long", 12, 47, 3)  # the model reads 31 columns


@pytest.fixture(scope="module")
def model():
    return small_model(MsaForMaskedLM)


def part(alignment, start, width):
    """Columns of an alignment without insertions, as an alignment of its own."""
    return Alignment.from_sequences([row[start : start + width] for row in alignment.sequences])


def weight(column, start, width, length):
    """Columns up to an edge of the window, this one included, but an end of the protein is not an edge."""
    left = column - start + 1 if start > 0 else width
    right = start + width - column if start + width < length else width
    return min(left, right, width)


def test_places_by_hand():
    """As few windows as the overlap allows, spread evenly from one end to the other."""
    assert Windows.place(47, 31).starts == (0, 8, 16)
    assert Windows.place(47, 31, overlap=15).starts == (0, 16)
    assert Windows.place(3000, 1023, overlap=512).starts == Windows.place(3000, 1023).starts
    assert Windows.place(1024, 1023).starts == (0, 1)
    assert Windows.place(10, 31, window=4, overlap=0).starts == (0, 3, 6)
    assert Windows.place(9, 31, window=4, overlap=3).starts == (0, 1, 2, 3, 4, 5)
    assert Windows.place(31, 31).starts == Windows.place(8, 31, window=8).starts == (0,)
    assert Windows.place(9, 31, window=5).weights[1].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.4, 0.2])
    first, _, last = Windows.place(9, 31, window=5).weights
    assert first.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert last.tolist() == first.tolist()[::-1]


@pytest.mark.parametrize("length", [9, 20, 33])
@pytest.mark.parametrize("width", [2, 5, 8])
def test_every_pair_within_the_overlap_is_covered(length, width):
    for overlap in range(width):
        windows = Windows.place(length, 31, width, overlap)
        covered = {
            (i, j) for start in windows.starts for i in range(start, start + width) for j in range(i, start + width)
        }
        assert {(i, min(i + k, length - 1)) for i in range(length) for k in range(overlap + 1)} <= covered
        assert (windows.starts[0], windows.starts[-1] + windows.width) == (0, length)
        assert all(b - a <= width - overlap for a, b in zip(windows.starts, windows.starts[1:], strict=False))
        shares = np.zeros(length)
        for columns, share in zip(windows.columns, windows.shares, strict=True):
            shares[columns] += share
        assert np.allclose(shares, 1)


def test_contacts_are_averaged_by_hand(model):
    """Pair by pair, with the product of the weights of its columns; pairs in no window are NaN."""
    found = predict_contacts(LONG, model, window=20, overlap=8)
    starts = (0, 9, 18, 27)
    maps = {start: predict_contacts(part(LONG, start, 20), model).probabilities for start in starts}
    expected = np.full((47, 47), np.nan)
    for i in range(47):
        for j in range(47):
            both = [start for start in starts if start <= min(i, j) and max(i, j) < start + 20]
            weights = [weight(i, start, 20, 47) * weight(j, start, 20, 47) for start in both]
            if both:
                values = [maps[start][i - start, j - start] for start in both]
                expected[i, j] = np.average(values, weights=weights)
    assert found.probabilities.dtype == np.float32
    assert np.array_equal(np.isnan(found.probabilities), np.isnan(expected))
    assert np.nanmax(np.abs(found.probabilities - expected)) <= 1e-6
    assert (len(found.residues), found.depth) == (47, 12)


def test_embeddings_are_averaged_by_hand(model):
    """By column of each layer, of all rows; the mean is that of the averages; <cls> of no window is in them."""
    options = {"layers": (0, 1, 2)}
    found = embed(LONG, model, which="rows", window=20, overlap=8, **options)
    starts = (0, 9, 18, 27)
    parts = {start: embed(part(LONG, start, 20), model, which="rows", **options) for start in starts}
    for layer in (0, 1, 2):
        expected = np.zeros((12, 47, 16))
        for i in range(47):
            both = [start for start in starts if start <= i < start + 20]
            weights = [weight(i, start, 20, 47) for start in both]
            expected[:, i] = np.average([parts[s].arrays[layer][:, i - s] for s in both], axis=0, weights=weights)
        assert np.abs(found.arrays[layer] - expected).max() <= 1e-5
        query, mean = (
            embed(LONG, model, which=which, window=20, overlap=8, layers=(layer,)).array for which in ("query", "mean")
        )
        assert np.array_equal(query, found.arrays[layer][0])
        assert np.abs(mean - expected[0].mean(0)).max() <= 1e-5
    assert (found.settings["window"], found.settings["overlap"]) == (20, 8)
    assert embed(LONG, model).settings["window"] is None


def test_distances_are_of_each_column_once(model, blocks):
    """Attention of each column is averaged over its windows, then over columns; <cls> is one column. In blocks too."""
    starts, total = (0, 9, 18, 27), 0
    for start in starts:
        tokens = encode(part(LONG, start, 20), model)["input_ids"]
        with torch.no_grad():
            maps = model(tokens, output_column_attentions=True).column_attentions  # (1, H, C, R, R) of each layer
        maps = torch.cat([each[0] for each in maps]).numpy()
        total = total + maps[:, 0] / 4
        for i in range(start, start + 20):
            all_weights = sum(weight(i, s, 20, 47) for s in starts if s <= i < s + 20)
            total = total + maps[:, 1 + i - start] * weight(i, start, 20, 47) / all_weights
    features = total / 48
    i, j = np.triu_indices(12, 1)
    options = {"window": 20, "overlap": 8}
    weights = fit_distances([LONG], model, **options)
    logits = weights.intercept + ((features + features.transpose(0, 2, 1))[:, i, j].T * 12) @ weights.weights.ravel()
    expected = 1 / (1 + np.exp(-logits))
    found = predict_distances(LONG, model, weights, **options)
    # the fit has no penalty, and magnifies roundings
    assert np.abs(found.predicted[i, j] - expected).max() <= 1e-3
    assert not np.allclose(predict_distances(LONG, model, weights, window=31).predicted[i, j], expected, atol=1e-3)
    assert found.hamming[0, 1] == np.mean(LONG.array[0] != LONG.array[1])
    blocks(40)
    tokens = encode(part(LONG, 0, 20), model)["input_ids"]
    shares = np.linspace(0.1, 2, 21, dtype=np.float32)
    with torch.no_grad():
        maps = torch.cat([each[0] for each in model(tokens, output_column_attentions=True).column_attentions]).numpy()
    mean = np.average(maps, axis=1, weights=shares)
    assert np.abs(column_attention_features(model, tokens, shares) - mean).max() <= 1e-6


def test_profiles_have_each_residue_in_the_middle(model):
    """As near as the ends allow: residue 1 is first, 24 in the middle, 47 last of 31."""
    whole = predict_profile(LONG, model)
    for residue, start in ((1, 0), (24, 8), (47, 16)):
        alone = predict_profile(part(LONG, start, 31), model)
        assert np.abs(whole.probabilities[residue - 1] - alone.probabilities[residue - 1 - start]).max() <= 1e-6


FITS = family("fits", 9, 31, 5)
TASKS = {
    "contacts": lambda family, model, **more: predict_contacts(family, model, **more).probabilities,
    "query": lambda family, model, **more: embed(family, model, **more).array,
    "mean": lambda family, model, **more: embed(family, model, which="mean", **more).array,
    "rows": lambda family, model, **more: embed(family, model, which="rows", **more).array,
    "distances": lambda family, model, **more: predict_distances(family, model, **more).predicted,
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("window", [{}, {"window": 31}, {"window": 31, "overlap": 30}, {"overlap": 3}])
def test_where_one_window_covers_all_nothing_changes(name, window, model):
    """Bit for bit what the model itself gives; the tasks' other tests hold it to the model's own methods."""
    tokens = encode(FITS, model)
    found = TASKS[name](FITS, model, **window)
    with torch.no_grad():
        states = model.msa(**tokens).last_hidden_state[0, :, 1:]
        expected = {
            "contacts": lambda: model.predict_contacts(**tokens)[0].numpy(),
            "query": lambda: states[0].numpy(),
            "mean": lambda: states[0].mean(0).numpy(),
            "rows": lambda: states.numpy(),
            "distances": lambda: predict_distances(FITS, model).predicted,
        }[name]()
    assert found.tobytes() == expected.tobytes()


def test_rows_are_chosen_once_on_the_whole_alignment(model):
    chosen = select_rows(LONG, 5)
    halves = [part(LONG, start, 31) for start in (0, 16)]
    assert any(select_rows(half, 5).names != part(chosen, 0, 31).names for half in halves)
    assert embed(LONG, model, which="rows", rows=5).row_names == chosen.names
    found = predict_contacts(LONG, model, rows=5).probabilities
    assert np.array_equal(found, predict_contacts(chosen, model).probabilities, equal_nan=True)


def test_columns_are_those_with_a_residue_of_the_query(model):
    """40 columns, of which the query has 30: they fit. Residues in lower case have no place in a window."""
    rows = ["mk" + "MKV-" * 10, *("RKVL" * 10 for _ in range(3))]
    assert not np.isnan(predict_contacts(Alignment.from_sequences(rows), model).probabilities).any()
    more = Alignment.from_sequences(["mk" + "MKVL" * 10, *("RKVL" * 10 for _ in range(3))])
    contacts = predict_contacts(more, model)
    assert contacts.residues.tolist() == list(range(3, 43))
    assert contacts.residues[contacts.uncovered()[0]].tolist() == [
        3,
        34,
    ]  # the first window ends at column 31, residue 33


def test_the_model_never_sees_more_than_a_window(model, monkeypatch):
    """Each has <cls> in front, and 24 columns of 200."""
    sizes, run = [], MsaModel.prepare

    def watched(self, input_ids=None, *arguments, **more):
        assert (input_ids[:, :, 0] == 0).all()
        sizes.append(tuple(input_ids.shape))
        return run(self, input_ids, *arguments, **more)

    monkeypatch.setattr(MsaModel, "prepare", watched)
    long = family("f", 12, 200, 0)
    for task in TASKS.values():
        task(long, model, window=24)
    assert set(sizes) == {(1, 12, 25)}


def test_bad_windows_are_refused_before_the_model_runs(model, monkeypatch):
    monkeypatch.setattr(MsaModel, "prepare", lambda *_, **__: pytest.fail("the model ran"))
    for more, words in (
        ({"window": 32}, "window is 32 columns, but the model reads at most 31: pass a smaller one"),
        ({"window": 1}, "window must be at least 2 columns, but is 1"),
        ({"window": -5}, "window must be at least 2 columns, but is -5"),
        ({"overlap": -1}, "overlap must be at least 0, but is -1"),
        ({"overlap": 31}, "overlap must be smaller than the window of 31 columns, but is 31"),
        ({"window": 9, "overlap": 9}, "overlap must be smaller than the window of 9 columns, but is 9"),
    ):
        for alignment in (FITS, LONG):
            for task in TASKS.values():
                with pytest.raises(ValueError, match=words):
                    task(alignment, model, **more)
            with pytest.raises(ValueError, match=words):
                fit_distances([alignment], model, **more)
            with pytest.raises(ValueError, match=words):
                evaluate_contacts([(alignment, np.zeros((alignment.length,) * 2))], model, **more)
            if "overlap" not in more:
                with pytest.raises(ValueError, match=words):
                    predict_profile(alignment, model, **more)
    with pytest.raises(TypeError):
        check_windows(7.5, None)


def test_tasks_without_windows_say_so(model, monkeypatch):
    monkeypatch.setattr(MsaModel, "prepare", lambda *_, **__: pytest.fail("the model ran"))
    words = (
        "the query has 47 aligned residues, but the model reads at most 31: cut .* .This task does not read in windows"
    )
    letter = LONG.query[0]
    for task in (
        lambda: categorical_jacobian(LONG, model),
        lambda: generate(LONG, model, iterations=1),
        lambda: embed_variants(LONG, [f"{letter}1{'A' if letter != 'A' else 'C'}"], model),
        lambda: predict(LONG, small_model(MsaForTokenClassification)),
        lambda: predict(LONG, small_model(MsaForSequenceClassification)),
    ):
        with pytest.raises(ValueError, match=words):
            task()


def test_precision_leaves_out_what_no_window_covers(model):
    """Of 9 residues, pairs 6 apart: (0,6) (1,7) (2,8) (0,7) (1,8) (0,8); the last three are in no window of 7."""
    nine = family("nine", 6, 9, 1)
    contacts = predict_contacts(nine, model, window=7, overlap=6)
    assert contacts.uncovered().tolist() == [[0, 7], [0, 8], [1, 8]]
    assert sorted(contacts.top().tolist()) == [[0, 6], [1, 7], [2, 8]]
    known = np.zeros((9, 9), dtype=np.int8)
    known[0, 6] = known[6, 0] = known[0, 8] = known[8, 0] = 1
    assert precision(contacts, known, top=3) == pytest.approx(1 / 3)
    assert precision(contacts, known) == pytest.approx(1 / 9)  # as always, missing pairs count as wrong
    assert np.isnan(precision(contacts, known, min_separation=7))
    with pytest.raises(ValueError, match="Scores contain NaN"):
        precision(contacts.probabilities, known)


def test_a_model_that_gives_nan_is_not_taken_for_windows():
    broken = small_model(MsaModel)
    with torch.no_grad():
        broken.layers[0].row_attention.q_proj.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="fits/0: the model gives NaN: load it in float32"):
        predict_contacts(FITS, broken)


def test_half_precision_and_other_numbers_of_rows(model):
    """float16 arrays are the rounded averages; a single row is read in windows too."""
    half = embed(LONG, model, dtype="float16", window=20).array
    assert np.array_equal(half, embed(LONG, model, window=20).array.astype(np.float16))
    assert predict_contacts(LONG.take([0]), model).depth == 1


def test_the_default_model_reads_a_protein_of_three_windows():
    """1,600 residues: every column is covered, and so are all pairs up to 512 apart."""
    query = "".join(np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), 1600))
    contacts = predict_contacts(Alignment.from_sequences([query, query[::-1]]), load_model())
    missing = contacts.uncovered()
    apart = missing[:, 1] - missing[:, 0]
    assert apart.min() > 512
    assert apart.max() == 1599
    i, j = np.triu_indices(1600, 1023)
    assert np.isnan(contacts.probabilities[i, j]).all()
    assert dataclasses.replace(contacts, probabilities=np.nan_to_num(contacts.probabilities)).uncovered().size == 0
