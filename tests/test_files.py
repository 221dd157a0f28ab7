"""Files that the package writes have the mode that the user's umask gives, also where safetensors writes them."""

import os
import stat

import pytest
import yaml
from families import make_folder, make_labels, make_model
from small import small_model

from modeling_msa import MsaForMaskedLM, embed, fit_contacts, load_model
from modeling_msa._files import whole_file
from modeling_msa.tasks.embedding_files import write_embeddings

pytestmark = pytest.mark.usefixtures("one_thread")


def embeddings(folder, families, model):
    results = {name: embed(each, load_model(model, "cpu"), rows=4) for name, each in list(families.items())[:2]}
    write_embeddings(results, folder / "all.safetensors")
    write_embeddings(results, folder / "all.npz")


def training(folder, families, model, **keys):
    from modeling_msa.training.train import train

    recipe = {"model": str(model), "train_data": [str(model.parent / "alignments")], "output_dir": str(folder / "run")}
    recipe |= {"max_tokens": 64, "max_steps": 1, "save_steps": 1, "use_cpu": True, "disable_tqdm": True, **keys}
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    train(folder / "run.yaml")


def adapters(folder, families, model):
    training(folder, families, model, lora_r=2)


def contacts(folder, families, model):
    maps, alignments = make_labels(model.parent / "labels", families)["contacts"], model.parent / "alignments"
    known = [(alignments / f"{name}.a3m", maps / f"{name}.npy") for name in families]
    fit_contacts(known, model, folder / "fitted", device="cpu", regularization=1e4)


def conversion(folder, families, model):
    from fair_esm import convert, random_model

    convert(random_model(2, 16, 4, 24, 16), folder)


@pytest.mark.parametrize("mask", [0o022, 0o027], ids=oct)
@pytest.mark.parametrize("write", [embeddings, training, adapters, contacts, conversion])
def test_modes(tmp_path, write, mask):
    families = make_folder(tmp_path / "alignments", count=2)
    model = make_model(tmp_path / "model")
    before, folder = os.umask(mask), tmp_path / "written"
    try:
        folder.mkdir()
        write(folder, families, model)
        small_model(MsaForMaskedLM).save_pretrained(folder / "shards", max_shard_size="10KB")
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) > 2
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {oct(0o666 & ~mask)}
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*/")} == {oct(0o777 & ~mask)}


def test_a_file_that_was_not_written_does_not_appear(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "result"):
        pass
    assert not list(tmp_path.iterdir())
