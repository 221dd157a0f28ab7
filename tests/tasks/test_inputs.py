"""Contract of `modeling_msa.tasks.inputs`: what the model sees of an alignment, and what is refused before it runs."""

import numpy as np
import pytest
from made_up import random_array
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaForTokenClassification,
    embed,
    evaluate_contacts,
    fit_distances,
    generate,
    predict,
    predict_contacts,
    predict_distances,
    prepare_alignment,
    score_all_singles,
    score_variants,
    select_rows,
)
from modeling_msa.tasks.inputs import check_whole, encode, model_inputs


def test_the_model_sees_residue_columns_of_chosen_rows():
    family = Alignment.from_sequences(["mKV-L", "RVAL", "R-AL", "RIAL"], source="f.a3m")
    seen = prepare_alignment(family, rows=3, select="first")
    assert seen.sequences == ["KVL", "RVL", "R-L"]
    assert seen.column_residues.tolist() == [2, 3, 4]


def test_rows_are_at_most_those_that_the_model_reads():
    model = small_model(MsaForMaskedLM)  # 16 rows, 32 columns with <cls>
    deep = Alignment.from_sequences(["MKVL"] * 20, source="deep.a3m")
    seen, inputs = model_inputs(deep, model, rows=128)
    assert seen.depth == 16
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (1, 16, 5)
    with pytest.raises(ValueError, match=r"deep.a3m: there are 20 rows, but the model reads at most 16"):
        encode(deep, model)
    with pytest.raises(
        ValueError, match=r"long.a3m: the query has 32 aligned residues, but the model reads at most 31"
    ):
        encode(Alignment.from_sequences(["M" * 32], source="long.a3m"), model)


MASKED = small_model(MsaForMaskedLM, max_row_position_embeddings=512)
LABELLED = small_model(MsaForTokenClassification, max_row_position_embeddings=512)
TASKS = {
    "prepare_alignment": lambda family, **rows: prepare_alignment(family, **rows).depth,
    "predict_contacts": lambda family, **rows: predict_contacts(family, MASKED, **rows).depth,
    "evaluate_contacts": lambda family, **rows: evaluate_contacts([(family, KNOWN)], MASKED, **rows).depths[0],
    "embed": lambda family, **rows: embed(family, MASKED, **rows).depth,
    "predict_distances": lambda family, **rows: len(predict_distances(family, MASKED, **rows).names),
    "fit_distances": lambda family, **rows: fit_distances([family], MASKED, **rows).families[0][1],
    "score_variants": lambda family, **rows: score_variants(family, ["WT"], MASKED, **rows).depth,
    "score_all_singles": lambda f, **rows: score_all_singles(f, MASKED, strategy="wt-marginals", **rows).depth,
    "predict": lambda family, **rows: predict(family, LABELLED, **rows).depth,
    "generate": lambda family, **rows: len(generate(family, MASKED, iterations=1, **rows).names),
}
KNOWN = np.zeros((9, 9), dtype=np.int8)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_rows_that_were_selected_are_all_used(task):
    """145 rows of 9 columns; generate's default is 600."""
    array = random_array(145, 9, gaps=0)
    family = Alignment.from_sequences([row.tobytes().decode() for row in array])
    assert task(family) == (145 if task is TASKS["generate"] else 128)
    assert task(select_rows(family, 140, "first")) == 140
    assert task(select_rows(family, 140, "first").drop_query_gaps().take(range(139))) == 139
    assert task(select_rows(family, 140, "first"), rows=20) == 20


def test_rows_that_were_selected_are_refused_if_the_model_reads_fewer():
    family = select_rows(Alignment.from_sequences(["MKVLWAYCD"] * 600, source="deep.a3m"), 513)
    for name, task in TASKS.items():
        if name != "prepare_alignment":
            with pytest.raises(ValueError, match=r"deep.a3m: there are 513 rows, but the model reads at most 512"):
                task(family)
    with pytest.raises(ValueError, match="All 2 seeds would use the same rows, which select_rows has chosen"):
        score_variants(family, ["WT"], MASKED, select="random", seed=(1, 2))


def test_a_selection_is_known_to_what_is_made_of_it():
    family = Alignment.from_sequences(["MK-L", "RVAL", "RI-L"])
    assert not family.is_selected
    assert not family.take([0, 1]).drop_query_gaps().is_selected
    seen = select_rows(family, 100)  # more than it has
    assert seen.is_selected
    assert seen.take([0, 2]).drop_query_gaps().is_selected
    assert prepare_alignment(family).is_selected
    settings = [embed(each, MASKED).settings["rows"] for each in (family, seen)]
    assert settings == [128, None]
    assert embed(seen, MASKED, rows=2).settings["rows"] == 2


def test_split_models_are_refused():
    model = small_model(MsaForMaskedLM)
    check_whole(model)
    model.msa.prepare = model.msa.prepare  # an attribute of the instance, as `split_rows` sets it
    with pytest.raises(ValueError, match="call it outside of split_rows"):
        check_whole(model)
