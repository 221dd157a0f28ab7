"""The contract of embeddings of variants: those of the alignment whose query the variant is, and what fast means."""

import copy

import numpy as np
import pytest
import torch
from families import family, make_model
from made_up import SHARED, real_data
from safetensors.numpy import load_file

from modeling_msa import (
    Alignment,
    MsaTokenizer,
    embed,
    embed_variants,
    load_model,
    read_alignment,
    write_embeddings,
)
from modeling_msa.alignments.variants import mutate, parse_variants
from modeling_msa.tasks.context import context_layers, row_states

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("model") / "small", num_hidden_layers=3))


@pytest.fixture(scope="module")
def alignment():
    """The query begins with an insertion, so that residues and columns differ."""
    rows = [row for _, row in family("f", 6, 14, 1)]
    return Alignment.from_sequences(["m" + rows[0], *rows[1:]])


def variants_of(alignment, *changes):
    """Variants by residue number and new letter."""
    return [":".join(f"{alignment.query[n - 1]}{n}{letter}" for n, letter in some) for some in changes]


CHANGES = ([(2, "W")], [(5, "A"), (9, "D")], [(15, "C")], [(5, "A"), (9, "D")])


def test_exact_ones_are_those_of_the_alignment_with_the_variant_as_query(alignment, model):
    names = variants_of(alignment, *CHANGES)
    options = {"layers": (0, 2, -1), "rows": 4, "select": "first"}
    found = embed_variants(alignment, names, model, which="both", **options)
    assert found.features.shape == (4, 3 * 2 * 16)
    assert found.variants == tuple(names)
    assert (found.depth, found.settings["which"], found.settings["mode"]) == (4, "both", "exact")
    for k, some in enumerate(parse_variants(names, alignment)):
        for layer, states in embed(mutate(alignment, some), model, **options).arrays.items():
            places = [each.number - 2 for each in some]  # from 0, without the insertion
            right = np.concatenate([states.mean(0), states[places].mean(0)])
            assert np.abs(found.arrays[layer][k] - right).max() < 1e-5
    assert np.array_equal(found.arrays[3][1], found.arrays[3][3])


def test_which_and_batches_are_parts_of_both(alignment, model):
    names = variants_of(alignment, *CHANGES)
    for mode in ("exact", "fast"):
        both = embed_variants(alignment, names, model, which="both", mode=mode).features
        for which, part in (("mean", slice(0, 16)), ("mutated", slice(16, 32))):
            one = embed_variants(alignment, names, model, which=which, mode=mode, batch_size=1).features
            assert np.abs(one - both[:, part]).max() < 1e-5


def test_fast_is_exact_for_a_query_alone(alignment, model):
    """Nothing is approximated without other rows, in any layer."""
    alone = alignment.take([0])
    names = variants_of(alignment, *CHANGES)
    exact, fast = (
        embed_variants(alone, names, model, which="both", layers=range(4), mode=mode) for mode in ("exact", "fast")
    )
    assert np.abs(exact.features - fast.features).max() < 1e-5


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_fast_ones_are_states_against_the_context(alignment, model, layer):
    """Layer n is what a model of n layers without the final norm gives for the variant's row."""
    names = variants_of(alignment, *CHANGES)
    seen = alignment.drop_query_gaps()
    found = embed_variants(seen, names, model, layers=(layer,), mode="fast").arrays[layer]
    cut = copy.deepcopy(model).eval()
    cut.layers, cut.layer_norm = cut.layers[:layer], torch.nn.Identity()
    tokens = MsaTokenizer()(seen, return_tensors="pt")["input_ids"]
    rows = [mutate(seen, some).sequences[0] for some in parse_variants(names, seen)]
    versions = MsaTokenizer()(rows, return_tensors="pt")["input_ids"][0]
    expected = row_states(cut, context_layers(cut, tokens), versions)[:, 1:].mean(1).numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_variants_without_an_embedding(alignment, model):
    query = alignment.query
    names = ["WT", f"{query[0]}1A", f"{query[3]}4*", f"{query[3]}4A", f"{query[3]}4{query[3]}"]
    found = embed_variants(alignment, names, model, which="mutated")
    assert [bool(each) for each in found.reasons] == [True, True, True, False, True]
    assert "no mutated residue" in found.reasons[0]
    assert "lower case" in found.reasons[1]
    assert np.isnan(found.features).all(1).tolist() == [True, True, True, False, True]
    mean = embed_variants(alignment, names, model)
    assert np.array_equal(mean.features[0], mean.features[4])  # a residue that is replaced by itself is no change
    assert np.abs(mean.features[0] - embed(alignment, model, which="mean").array).max() < 1e-5
    half = embed_variants(alignment, names, model, dtype="float16")
    assert half.features.dtype == np.float16


@pytest.mark.parametrize("ending", ["safetensors", "npz", "parquet"])
def test_files_are_named_by_variant(alignment, model, tmp_path, ending):
    names = [*variants_of(alignment, *CHANGES), "M1A"]
    found = embed_variants(
        alignment, [*names[:4], f"{alignment.query[0]}1A"], model, which="both", layers=(1, 3), mode="fast"
    )
    path = tmp_path / f"e.{ending}"
    write_embeddings(found.by_variant(), path)
    if ending == "parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pydict()
        assert table["name"] == names[:3]  # a variant that is there twice is written once
        assert np.array_equal(np.array(table["layer_3"], dtype=np.float32), found.arrays[3][:3])
    else:
        arrays = load_file(path) if ending == "safetensors" else dict(np.load(path))
        assert np.array_equal(arrays[f"{names[1]}/layer_3"], found.arrays[3][1])
        assert sum(not key.startswith("__") for key in arrays) == 6


def test_what_is_wrong_is_said_before_the_model_runs(alignment, model, monkeypatch):
    monkeypatch.setattr("modeling_msa.tasks.variant_embeddings._pooled", None)
    good = variants_of(alignment, [(4, "A")])
    for options, words in (
        ({"which": "query"}, "which must be one of mean, mutated, both"),
        ({"mode": "quick"}, "unknown mode 'quick'"),
        ({"dtype": "int8"}, "dtype must be float32 or float16"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"layers": [9]}, "unknown layer 9"),
    ):
        with pytest.raises(ValueError, match=words):
            embed_variants(alignment, good, model, **options)
    with pytest.raises(ValueError, match=r"t.csv: 1 of 1 variants do not fit the query, such as line 7 \(A99A\)"):
        embed_variants(alignment, ["A99A"], model, source="t.csv", lines=[7])
    wrong = "A" if alignment.query[3] != "A" else "C"
    with pytest.raises(ValueError, match=r"t.csv: .*line 3 \("):
        embed_variants(alignment, [*good, f"{wrong}4W"], model, source="t.csv", lines=[2, 3])
    with pytest.raises(ValueError, match="none of the variants can be embedded"):
        embed_variants(alignment, ["WT"], model, which="both")


@real_data
def test_numbers_of_a_protein_whose_alignment_begins_later():
    """TEM-1's residues 24 to 28 are lower case; V29, number 6 of the query, is the alignment's first column."""
    tem = read_alignment(SHARED / "fitness" / "blat_ecolx.a2m").take(range(3))
    found = embed_variants(tem, ["V29A", "K30E"], load_model("msa-tiny"), which="mutated", offset=23, mode="fast")
    rows = np.array(tem.array)
    rows[0, 0] = ord("A")
    other = Alignment.from_sequences([row.tobytes().decode() for row in rows])
    exact = embed(other.drop_query_gaps(), load_model("msa-tiny"), rows=3, select="first").array[0]
    near = embed_variants(tem, ["V29A"], load_model("msa-tiny"), which="mutated", offset=23, rows=3, select="first")
    assert np.abs(near.features[0] - exact).max() < 1e-4
    assert found.features.shape == (2, 64)
