"""The contract of a fitted regression: the pipeline's own predictions, from two files without pickles, or words."""

import json

import numpy as np
import pytest
import torch
from families import family, make_model
from safetensors.numpy import load_file, save_file

from modeling_msa import (
    Alignment,
    FitnessModel,
    MsaForMaskedLM,
    MsaModel,
    evaluate_folds,
    fit_fitness,
    fitness_pipeline,
    fold_numbers,
    load_model,
    score_variants,
)
from modeling_msa.alignments.variants import parse_variants
from modeling_msa.tasks.fitness import check_labels

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = family("f", 8, 14, 1)
ALIGNMENT = Alignment.from_sequences(["m" + ROWS[0][1], *(row for _, row in list(ROWS)[1:])])
QUERY = ALIGNMENT.query
VARIANTS = [f"{QUERY[k]}{k + 1}{letter}" for k in range(1, 13) for letter in "AKW" if QUERY[k] != letter]
VALUES = np.random.default_rng(0).normal(size=len(VARIANTS))
FEATURES = (["embedding", "zero-shot"], ["one-hot"], ["one-hot", "embedding", "zero-shot"], ["embedding"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, cls=MsaForMaskedLM)


@pytest.fixture(scope="module")
def fitted(model):
    return fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, rows=4)


@pytest.mark.parametrize("kernel", ["ridge", "gp"])
@pytest.mark.parametrize("features", FEATURES)
def test_files_predict_what_the_pipeline_does(features, kernel, model, tmp_path):
    options = {"features": features, "kernel": kernel, "rows": 4, "which": "mutated", "layers": (1, -1)}
    pipeline = fitness_pipeline(ALIGNMENT, model, **options).fit(VARIANTS, VALUES)
    path = tmp_path / "f.safetensors"
    fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, folds=(), **options).save(path)
    loaded = FitnessModel.load(path)
    new = [f"{QUERY[4]}5D", f"{QUERY[4]}5D:{QUERY[8]}9E", f"{QUERY[0]}1A", f"{QUERY[3]}4*"]
    found = loaded.predict(ALIGNMENT, new, model)
    assert found.score[:2] == pytest.approx(pipeline.predict(new[:2]), abs=1e-5)
    assert np.isnan(found.score[2:]).all()
    assert "lower case" in found.reason[2]
    assert found.depth == 4
    singles = loaded.predict_all_singles(ALIGNMENT, model, offset=10)
    place = singles.residues.tolist().index(15), singles.amino_acids.index("D")
    assert singles.score[place] == pytest.approx(found.score[0], abs=1e-6)
    assert np.isnan(singles.score).sum() == 14  # the wild types


def test_evaluation_and_options_go_with_it(fitted, model, tmp_path):
    fitted.save(tmp_path / "f.safetensors")
    loaded = FitnessModel.load(tmp_path / "f.safetensors")
    assert [each.scheme for each in loaded.evaluations] == ["random", "modulo", "contiguous"]
    assert loaded.options == fitted.options
    assert loaded.options["layers"] == (2,)
    pipeline = fitness_pipeline(ALIGNMENT, model, rows=4)
    folds = fold_numbers(parse_variants(VARIANTS, ALIGNMENT), "modulo")
    expected = evaluate_folds(pipeline[1], pipeline[0].fit_transform(VARIANTS), VALUES, folds, "modulo")
    for found, right in zip(loaded.evaluations[1].metrics, expected.metrics, strict=True):
        assert found == pytest.approx(right, rel=1e-4, nan_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json", "f.safetensors"]
    assert json.loads((tmp_path / "f.json").read_text())["variants"] == len(VARIANTS)


def test_a_second_fit_writes_the_same_files(fitted, model, tmp_path):
    fitted.save(tmp_path / "a.safetensors")
    fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, rows=4).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_numbers_may_be_shifted_in_fit_and_prediction(fitted, model):
    def shifted(names, offset):
        return [f"{name[0]}{int(name[1:-1]) + offset}{name[-1]}" for name in names]

    again = fit_fitness(ALIGNMENT, shifted(VARIANTS, 50), VALUES, model, rows=4, offset=50, folds=())
    assert again.reference == fitted.reference
    found = again.predict(ALIGNMENT, shifted(VARIANTS, -7), model, offset=-7)
    assert found.score == pytest.approx(fitted.predict(ALIGNMENT, VARIANTS, model).score, abs=1e-6)


def test_the_wild_type_has_a_value_where_it_has_features(model):
    options = {"folds": (), "rows": 4}
    both = fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, **options).predict(ALIGNMENT, ["WT", VARIANTS[0]], model)
    assert np.isnan(both.score).tolist() == [True, False]
    assert "no substitution" in both.reason[0]
    mean = fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, which="mean", **options)
    assert np.isfinite(mean.predict(ALIGNMENT, ["WT"], model).score).all()


def test_what_was_not_measured_is_left_out(model):
    variants = [*VARIANTS, "WT", f"{QUERY[0]}1A", f"{QUERY[4]}5D", VARIANTS[3]]
    values = [*VALUES, 0.0, 1.0, np.nan, VALUES[3]]
    known = check_labels(ALIGNMENT, variants, values, lines=range(2, len(variants) + 2))
    assert known.variants == tuple(VARIANTS)
    assert np.array_equal(known.values, VALUES)
    assert [text.partition(":")[0] for text in known.left_out] == [
        f"line {len(VARIANTS) + 2} (WT)",
        f"line {len(VARIANTS) + 3} ({QUERY[0]}1A)",
    ]


def wild(number):
    return f"{QUERY[number - 1]}{number}"


THREE = {"A": "Ala", "K": "Lys", "W": "Trp"}


@pytest.mark.parametrize(
    ("variants", "values", "words"),
    [
        ([], [], "fitting requires at least 2 variants with a value, but 0 can be used"),
        ([wild(5) + "D"], [1.0], "t.csv: fitting requires at least 2 variants with a value, but 1 can be used"),
        ([wild(5) + "D", wild(1) + "A"], [1, 2], r"but 1 can be used. Not used: line 3 \(.1A\): residue 1"),
        ([wild(5) + "D", wild(6) + "D"], [1.0, np.nan], "but 1 can be used"),
        ([wild(5) + "D", wild(6) + "D"], [1.5, 1.5], "t.csv: all 2 variants have the same value, 1.5"),
        (
            [wild(5) + "D", wild(6) + "D", wild(5) + "D"],
            [1, 2, 3],
            r"t.csv: 1 variant with several values: line 4 \(.5D\) is 3, but line 2 \(.5D\) is 1. Keep one",
        ),
        (
            [f"{wild(5)}D:{wild(8)}E", f"{wild(8)}E:{wild(5)}D"],
            [1, 2],
            r"1 variant with several values: line 3 .* is 2, but line 2",
        ),
        ([wild(5) + "D", wild(6) + "D"], [1, np.inf], r"t.csv: line 3 \(.6D\): the value is infinite"),
        ([wild(5) + "D"], [1, 2], "There are 1 variants, but 2 values"),
        (["A99D", "A98D"], [1, 2], r"t.csv: none .* 2 like line 2 \(A99D\): there is no residue 99"),
    ],
)
def test_labels_that_cannot_be_fitted(variants, values, words):
    with pytest.raises(ValueError, match=words):
        check_labels(ALIGNMENT, variants, values, source="t.csv", lines=range(2, len(variants) + 2))


def test_errors_before_the_model_runs(model, folder, monkeypatch):
    monkeypatch.setattr("modeling_msa.tasks.fitness._pipeline", None)
    few = VARIANTS[:3], VALUES[:3]
    with pytest.raises(ValueError, match=r"t.csv: modulo: fold [23] of 5 is empty, as there are only . mut"):
        fit_fitness(ALIGNMENT, *few, model, folds=["modulo"], source="t.csv")
    with pytest.raises(ValueError, match="24 labels cannot be drawn"):
        fit_fitness(ALIGNMENT, *few, model, folds=(), labels=[24])
    double = [*VARIANTS, f"{VARIANTS[0]}:{VARIANTS[-1]}"]
    with pytest.raises(ValueError, match="contiguous folds require variants with one substitution"):
        fit_fitness(ALIGNMENT, double, [*VALUES, 1], model, folds=["contiguous"])
    with pytest.raises(TypeError, match="Zero-shot scores require a model with a language model head, not MsaModel"):
        fit_fitness(ALIGNMENT, VARIANTS, VALUES, load_model(folder, cls=MsaModel))


def test_zero_shot_features_are_the_scores_of_score_variants(folder):
    """Frequencies are counted in all rows, as there, and not in those that the model sees."""
    mixing = load_model(folder, cls=MsaForMaskedLM)
    mixing.config.profile_weight = 0.5
    found = fit_fitness(ALIGNMENT, VARIANTS, VALUES, mixing, features=["zero-shot"], rows=4, folds=())
    wanted = score_variants(ALIGNMENT, [found.reference], mixing, mode="fast", rows=4)
    assert (wanted.profile_weight, wanted.depth < ALIGNMENT.depth) == (0.5, True)
    assert found.reference_features == pytest.approx(wanted.score, abs=1e-6)
    assert np.isfinite(found.predict(ALIGNMENT, VARIANTS, mixing).score).all()


def test_another_query_model_or_alignment_is_noticed(fitted, model, folder):
    other = Alignment.from_sequences(["mA" + ROWS[0][1][1:], *(row for _, row in list(ROWS)[1:])])
    with pytest.raises(ValueError, match=r"the query is not the one .*: it has A instead of . at residue 2"):
        fitted.predict(other, VARIANTS, model)
    with pytest.raises(ValueError, match="it has 14 residues instead of 15"):
        fitted.predict(ROWS, VARIANTS, model)
    fewer = ALIGNMENT.take([0, 1, 2])
    with pytest.raises(ValueError, match="fitted with another model or other rows"):
        fitted.predict(fewer, VARIANTS, model)
    changed = load_model(folder, cls=MsaForMaskedLM)
    with torch.no_grad():
        changed.msa.layers[0].feed_forward.fc1.weight *= 1.1
    with pytest.raises(ValueError, match="fitted with another model or other rows"):
        fitted.predict(ALIGNMENT, VARIANTS, changed)


def edited(path, **changes):
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | changes))


def test_files_that_are_something_else(fitted, model, tmp_path):
    path = tmp_path / "f.safetensors"
    described = path.with_suffix(".json")
    with pytest.raises(FileNotFoundError, match=r"f.safetensors: no such file"):
        FitnessModel.load(path)
    with pytest.raises(ValueError, match=r"unknown output format '.pkl'"):
        fitted.save(tmp_path / "f.pkl")
    with pytest.raises(ValueError, match=r"f.json: not a regression of msa fit-fitness; pass its .safetensors file"):
        FitnessModel.load(described)

    def refused(words):
        with pytest.raises(ValueError, match=f"f.safetensors: not a regression .*{words}"):
            FitnessModel.load(path)
        fitted.save(path)

    fitted.save(path)
    described.unlink()
    with pytest.raises(FileNotFoundError, match=r"f.json: no such file"):
        FitnessModel.load(path)
    fitted.save(path)
    described.write_text("{}")
    refused("kind")
    edited(described, kind="other")
    refused("the kind is 'other'")
    path.write_bytes(path.read_bytes()[:-9])
    refused("the two files are not of one fit")
    fit_fitness(ALIGNMENT, VARIANTS, VALUES, model, rows=3, folds=()).save(tmp_path / "g.safetensors")
    (tmp_path / "g.json").replace(described)
    refused("the two files are not of one fit")
    edited(described, regression={})
    refused("kernel")
    arrays = load_file(path)
    save_file(arrays | {"coef": arrays["coef"][:-1]}, path)
    from modeling_msa._files import file_sha256

    edited(described, sha256=file_sha256(path))
    refused("the arrays do not fit together")
    described.write_bytes(b"\xff\x00")
    refused("")


def test_descriptions_that_lack_something(fitted, tmp_path):
    """Without one of their entries, or with another kind of value in its place, they are refused when read."""
    path = tmp_path / "f.safetensors"
    fitted.save(path)
    whole = path.with_suffix(".json").read_text()
    described = json.loads(whole)
    inner = [(part, name) for part in ("options", "regression") for name in described[part]]
    for place in [*((name,) for name in described if name != "version"), *inner]:
        for value in ("delete", [[None]]):
            if value != "delete" and place[-1] in ("query", "model", "reference", *described["options"]):
                continue  # any text; options are refused by the tasks
            changed = json.loads(whole)
            at = changed if len(place) == 1 else changed[place[0]]
            if value == "delete":
                del at[place[-1]]
            else:
                at[place[-1]] = value
            path.with_suffix(".json").write_text(json.dumps(changed))
            with pytest.raises(ValueError, match=r"f.safetensors: not a regression that msa fit-fitness has written"):
                FitnessModel.load(path)
    for text in ("[]", "null", "1", '{"kind": []}', whole[:-20]):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(ValueError, match=r"not a regression that msa fit-fitness has written"):
            FitnessModel.load(path)
