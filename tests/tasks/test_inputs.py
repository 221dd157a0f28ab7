"""Contract of `modeling_msa.tasks.inputs`: what the model sees of an alignment, and what is refused before it runs."""

import pytest
from small import small_model

from modeling_msa import Alignment, MsaForMaskedLM, prepare_alignment
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


def test_split_models_are_refused():
    model = small_model(MsaForMaskedLM)
    check_whole(model)
    model.msa.prepare = model.msa.prepare  # an attribute of the instance, as `split_rows` sets it
    with pytest.raises(ValueError, match="call it outside of split_rows"):
        check_whole(model)
