"""The contract of building: what a recipe makes of alignments, labels, weights and adapters, and what it refuses."""

import pytest

from modeling_msa.training.building import make_trainer
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_family_holds_out_rows(recipe, data):
    folder, families = data[:2]
    path = recipe(train_data=[str(folder / "alignments" / "f0.a3m")], eval_fraction=0.4, repeats=3)
    trainer = make_trainer(parse_recipe(path))
    assert len(trainer.train_dataset) == 3
    training, held_out = trainer.train_dataset[0]["alignment"], trainer.eval_dataset[0]["alignment"]
    family = families["f0"]
    assert training.query == held_out.query == family.query
    assert sorted(training.names[1:] + held_out.names[1:]) == sorted(family.names[1:])
    assert len(held_out.names) - 1 == round(0.4 * (family.depth - 1))


def test_variants_are_split(recipe, data):
    family = str(data[0] / "alignments" / "f0.a3m")
    options = {"objective": "variants", "train_data": [family], "labels": str(data[2]["variants"])}
    trainer = make_trainer(parse_recipe(recipe(**options, eval_fraction=0.25)))
    names = data[2]["variants"].read_text().split()[1:]
    assert sorted([*trainer.train_dataset.names, *trainer.eval_dataset.names]) == sorted(
        n.split(",")[0] for n in names
    )
    example = trainer.eval_dataset[0]
    position = int(example["name"][1:-1])
    assert example["alignment"].query[position - 1] == example["name"][-1]
    figures = trainer.evaluate()
    assert {"eval_loss", "eval_spearman"} <= figures.keys()


def test_adapters_of_contacts_leave_out_what_the_logits_do_not_depend_on(recipe, data):
    path = recipe(config=None, model=str(data[3]), objective="contacts", labels=str(data[2]["contacts"]), lora_r=2)
    trainer = make_trainer(parse_recipe(path))
    names = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    # the last layer has only the two projections of the row map
    assert len({name for name in names if "layers.1" in name}) == 2 * 2
    assert len({name for name in names if "layers.0" in name}) == 8 * 2
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    trainer.model(**batch).loss.backward()
    assert all(p.grad is not None for p in trainer.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("token", ">f0\nHHH\n", "f0.*3 .*residues"),
        ("token", ">f0\nHHX\n", "X.* is not a class"),
        ("token", ">nobody\nHHE\n", "nobody"),
        ("token", "", "no label"),
    ],
)
def test_labels_that_do_not_fit(kind, text, message, recipe, tmp_path):
    (tmp_path / "labels.fasta").write_text(text)
    path = recipe(objective=kind, labels=str(tmp_path / "labels.fasta"), class_names=["H", "E", "C"])
    with pytest.raises(ValueError, match=message):
        train(path)
    assert not (tmp_path / "run").exists()


def test_class_ids_out_of_range_and_empty_data(recipe, tmp_path):
    (tmp_path / "labels.csv").write_text("name,label\nf0,0\nf1,3\n")
    with pytest.raises(ValueError, match=r"line 3.*3 is not a class.*0 to 1"):
        train(recipe(objective="sequence", labels=str(tmp_path / "labels.csv"), num_labels=2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no alignment"):
        train(recipe(train_data=[str(tmp_path / "empty")]))
    with pytest.raises(ValueError, match="max_rows is 99, but the model can read at most 32"):
        train(recipe(), ["--max_rows", "99"])


def test_labels_of_evaluation_may_be_in_another_file(recipe, data):
    folder, _, labels, _ = data
    options = {"objective": "sequence", "num_labels": 2, "eval_data": [str(folder / "alignments")]}
    classes = str(labels["classes"])
    trainer = make_trainer(parse_recipe(recipe(**options, labels=classes, eval_labels=classes)))
    assert len(trainer.train_dataset) == len(trainer.eval_dataset) == 8
    family = {"train_data": [str(folder / "alignments" / "f0.a3m")], "labels": str(labels["variants"])}
    trainer = make_trainer(parse_recipe(recipe(objective="variants", **family, eval_labels=family["labels"])))
    assert trainer.eval_dataset.names == trainer.train_dataset.names


def test_data_that_do_not_match_the_objective(recipe, data, tmp_path):
    (tmp_path / "numbers.jsonl").write_text('{"name": "f0", "labels": [0, 1]}\n')
    for keys, message in (
        ({"objective": "variants", "labels": str(data[2]["variants"])}, "exactly one alignment, but train_data has 8"),
        ({"eval_fraction": 0.01}, "leaves none on one side: pass eval_data"),
        ({"objective": "token", "labels": str(tmp_path / "numbers.jsonl")}, "set num_labels or class_names"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(parse_recipe(recipe(**keys)))
