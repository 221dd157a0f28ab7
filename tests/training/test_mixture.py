"""The contract of mixtures: batches follow from seed and number alone; families of a batch are of like size, within a
budget of tokens; sources have their shares; any row of an alignment may be the query.
"""

import functools
import json
import time

import numpy as np
import pytest
import torch
from families import family
from made_up import AMINO_ACIDS, TOKENIZER, batches_equal
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from modeling_msa import Alignment, MsaDataCollatorForMaskedLM, write_alignment
from modeling_msa.training import mixture, simulation
from modeling_msa.training.building import make_trainer
from modeling_msa.training.mixture import BatchShape, FileSource, MixedFamilies, SimulatedSource
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train
from modeling_msa.training.trainer import _collate_whole

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
DASH = ord("-")


@pytest.fixture
def quick(monkeypatch):
    """In the place of simulated families others of 20 to 39 rows; worker processes make such ones too."""

    def size(seed, index, kind):
        return 20 + (seed + index) % 20, 40 + 3 * (index % 7) + (kind == "natural")

    monkeypatch.setattr(mixture, "family_size", size)
    monkeypatch.setattr(mixture, "make_family", lambda *at: (family("made", *size(*at), at[0] + at[1]), None))
    mixture._simulated.cache_clear()
    yield
    mixture._simulated.cache_clear()


@pytest.fixture
def shards(tmp_path):
    """40 families of 5 to 60 rows and 20 to 90 columns, as `msa pack` packs them."""
    (tmp_path / "files").mkdir()
    rng = np.random.default_rng(0)
    for k in range(40):
        made = family(f"f{k}", int(rng.integers(5, 61)), int(rng.integers(20, 91)), k)
        write_alignment(made, tmp_path / "files" / f"f{k}.a3m")
    pack_alignments(tmp_path / "files", tmp_path / "shards", rows_per_shard=16, progress=False)
    return tmp_path / "shards"


def mixed(shards, seed=0, **shape):
    limits = {"max_tokens": 2048, "max_rows": 32, "min_rows": 4, "multiple": 8} | shape
    return MixedFamilies([FileSource(str(shards)), SimulatedSource(seed)], [3, 1], 24, BatchShape(**limits), seed)


def codes_of(batch):
    return [feature["alignment"].tolist() for feature in batch]


def test_batches_follow_from_seed_and_number(shards, quick):
    data, again = mixed(shards), mixed(shards)
    whole = [codes_of(data[k]) for k in range(24)]
    assert str(data) == "75% shards (40 alignments), 25% simulated"
    assert [codes_of(again[k]) for k in (23, 5, 17)] == [whole[k] for k in (23, 5, 17)]
    assert codes_of(mixed(shards, seed=1)[5]) != whole[5]
    with pytest.raises(IndexError, match="no batch 24 among 24"):
        again[24]
    collator = MsaDataCollatorForMaskedLM(TOKENIZER, max_tokens=2048, pad_to_multiple_of=8)
    collate = functools.partial(_collate_whole, collator)
    loaded = [list(DataLoader(data, 1, collate_fn=collate, num_workers=n)) for n in (0, 1, 2)]
    for batches in loaded[1:]:
        assert all(batches_equal(*pair) for pair in zip(loaded[0], batches, strict=True))
    assert not batches_equal(loaded[0][0], loaded[0][1])


def test_families_of_like_size_fill_a_budget(shards):
    source, rng = FileSource(str(shards)), np.random.default_rng(0)
    written = [(int(rng.integers(5, 61)), int(rng.integers(20, 91))) for _ in range(40)]
    assert sorted(source.size(k) for k in range(40)) == sorted(written)
    seen, tokens, used = set(), [], []
    data = MixedFamilies([source], [1], 200, BatchShape(4096, 2, max_rows=32, min_rows=4, multiple=8))
    collator = MsaDataCollatorForMaskedLM(TOKENIZER, max_tokens=4096, pad_to_multiple_of=8)
    for k in range(200):
        shapes = [feature["alignment"].shape for feature in data[k]]
        assert len({rows for rows, _ in shapes}) == 1  # no padded rows
        assert 4 <= shapes[0][0] <= 32
        columns = [length + 1 for _, length in shapes]
        assert all(abs(each - columns[0]) <= 0.15 * columns[0] + 3 for each in columns)
        batch = collator(data[k])["input_ids"]
        assert batch.shape == (len(shapes), shapes[0][0], -(-max(columns) // 8) * 8)
        seen.add(len(shapes))
        tokens.append(batch.numel())
        used.append(shapes[0][0] * sum(columns) / batch.numel())
    assert max(tokens) <= 8192
    assert np.mean(tokens) > 0.75 * 8192
    assert np.mean(used) > 0.85
    assert len(seen) > 3


def test_rows_are_log_uniform(tmp_path):
    """Half of the numbers from 4 to 63 are below the geometric mean of 4 and 64, 16."""
    write_alignment(family("deep", 100, 22, 0), tmp_path / "deep.a3m")
    shape = BatchShape(64 * 24, max_rows=63, min_rows=4)
    data = MixedFamilies([FileSource(str(tmp_path / "deep.a3m"))], [1], 400, shape)
    rows = np.array([len(data[k][0]["alignment"]) for k in range(400)])
    assert (rows.min(), rows.max()) == (4, 63)
    assert abs((rows < 16).mean() - 0.5) < 0.075  # three standard deviations


def test_any_row_is_the_query_and_decides_the_columns(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.choice(AMINO_ACIDS, (12, 40))
    array[rng.random(array.shape) < 0.3] = DASH
    array[3, 5:] = DASH  # a fragment of five residues is no query
    text = [row.tobytes().decode() for row in array]
    write_alignment(Alignment.from_sequences(text, format="fasta"), tmp_path / "family.fasta")
    data = MixedFamilies([FileSource(str(tmp_path / "family.fasta"))], [1], 400, BatchShape(8 * 42, 1, 8, min_rows=8))
    counts = np.zeros(12)
    for k in range(400):
        view = data[k][0]["alignment"]
        (query,) = [k for k in range(12) if np.array_equal(array[k][array[k] != DASH], view[0])]
        columns = array[query] != DASH
        found = [int(np.flatnonzero((array[:, columns] == row).all(1))[0]) for row in view]
        assert len(set(found)) == len(found) == 8  # each row once
        counts[query] += 1
    # 0.3 + 0.7 / 12 of 400 for the first row, 0.7 / 12 for each other, and for the fragment the one with most residues
    longest = int((array != DASH).sum(1).argmax())
    expected = np.array([143.3, *[23.3] * 11])
    expected[[longest, 3]] += 23.3, -23.3
    assert counts[3] == 0
    assert (np.abs(counts - expected) < 3.5 * np.sqrt(expected) + 0.01).all()


def test_columns_are_cropped_to_the_budget(tmp_path):
    letters = np.tile(AMINO_ACIDS, 5)
    rows = [np.roll(letters, k).tobytes().decode() for k in range(20)]
    write_alignment(Alignment.from_sequences(rows, format="fasta"), tmp_path / "long.fasta")
    source = FileSource(str(tmp_path / "long.fasta"))
    starts = set()
    for k in range(60):
        data = MixedFamilies([source], [1], 60, BatchShape(800, 1, max_rows=16, min_rows=16, multiple=8))
        (feature,) = data[k]
        assert feature["alignment"].shape == (16, 47)  # 800 // 16 = 50, the multiple of 8 below it, less <cls>
        text = feature["alignment"][0].tobytes().decode()
        assert any(text in row for row in rows)
        starts.add(text[0])
    assert len(starts) > 10
    data = MixedFamilies([source], [1], 1, BatchShape(800, 1, max_rows=4, min_rows=4, max_columns=31, multiple=8))
    assert data[0][0]["alignment"].shape == (4, 23)


def test_shares_and_weights(tmp_path):
    for name, depth in (("shallow", 3), ("deep", 15)):  # log 4 and log 16: weights 1 and 2
        write_alignment(family(name, depth, 30, depth), tmp_path / f"{name}.a3m")
    write_alignment(family("other", 9, 30, 9), tmp_path / "other.a3m")
    both, other = tmp_path / "both.txt", tmp_path / "other.a3m"
    both.write_text("shallow.a3m\ndeep.a3m\n")
    sources = [FileSource(str(both)), FileSource(str(other))]
    data = MixedFamilies(sources, [6, 4], 600, BatchShape(100, 1, max_rows=2, min_rows=2))
    names = [data[k][0]["name"] for k in range(600)]
    assert abs(names.count(str(sources[0])) - 360) < 36  # three standard deviations
    random = np.random.default_rng(0)
    deep = int(np.argmax(sources[0].depths))
    assert abs(np.mean([sources[0].draw(0, random) == deep for _ in range(2000)]) - 2 / 3) < 0.032


def test_simulated_families_are_those_of_the_simulator(quick):
    source, random = SimulatedSource(3), np.random.default_rng(0)
    for item in (0, 21, 1000):
        drawn = {source.draw(item, random) for _ in range(500)}
        # of the item's lane, 32 of them, which have moved on by one in 16 items
        assert drawn == {16 * (item // 16 + k) + item % 16 for k in range(32)}
    for number, kind in ((21, "natural"), (22, "varied")):  # every third one
        made, _ = mixture.make_family(100_003, number, kind)
        assert np.array_equal(source.codes(number), made.array)
        assert source.size(number) == (made.depth, made.length)
    data = MixedFamilies([source], [1], 40, BatchShape(4096, 1, max_rows=8, min_rows=8))
    queries = {source.codes(16 * k + 7)[0].tobytes() for k in range(32)}
    found = [feature["alignment"][0].tobytes().replace(b"-", b"") in queries for feature in data[7]]
    assert len(found) > 3
    assert all(found)  # the first row is the query


def test_they_come_from_the_simulator():
    mixture._simulated.cache_clear()
    made, _ = simulation.make_family(100_000, 33, "natural")
    assert np.array_equal(SimulatedSource(0).codes(33), made.array)
    assert SimulatedSource(0).size(33)[0] == made.depth


def made_recipe(recipe, shards, **keys):
    shape = {"max_tokens": 1024, "max_rows": 16, "min_rows": 4, "max_columns": 64, "pad_to_multiple_of": 8}
    content = {"train_data": [str(shards), "simulated"], "shares": [1, 1], "depth": "log_uniform", "max_steps": 6}
    content |= {"random_positions": True, "average_decay": 0.9, "muon": True, "per_device_train_batch_size": 1}
    return recipe(**(shape | content | keys))


def trained(path, folder, *options):
    report = train(path, ["--output_dir", str(folder), *options])
    return report, load_file(folder / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_same_seed_same_weights_and_resume_is_exact(recipe, shards, quick, tmp_path):
    """With any number of workers; a resumed run makes only the batches that it still needs."""
    path = made_recipe(recipe, shards, save_strategy="steps", save_steps=4, gradient_accumulation_steps=2)
    _, one = trained(path, tmp_path / "one")
    _, two = trained(path, tmp_path / "two", "--dataloader_num_workers", "2")
    assert same(one, two)
    _, other = trained(path, tmp_path / "other", "--seed", "1")
    assert not same(one, other)
    (tmp_path / "again").mkdir()
    (tmp_path / "one" / "checkpoint-4").rename(tmp_path / "again" / "checkpoint-4")
    _, again = trained(path, tmp_path / "again", "--resume_from_checkpoint", "true", "--dataloader_num_workers", "1")
    assert same(one, again)
    assert not same(one, load_file(tmp_path / "one" / "checkpoint-6" / "model.safetensors"))  # not the average
    trainer = make_trainer(parse_recipe(path, ["--output_dir", str(tmp_path / "last")]))
    assert len(trainer.train_dataset) == 12
    trainer.train(resume_from_checkpoint=str(tmp_path / "again" / "checkpoint-4"))
    assert trainer.train_dataset.made == 4


def test_log_and_card_say_what_was_waited_for(recipe, shards, quick, tmp_path):
    path = made_recipe(recipe, shards, dataloader_num_workers=1)
    report, _ = trained(path, tmp_path / "run")
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    lines = [entry for entry in history if "loss" in entry]
    assert len(lines) == 6
    assert all(0 <= entry["batches_ready"] <= 3 for entry in lines)  # two of the queue, and one that accelerate holds
    assert sum(entry["data_seconds"] for entry in lines) == pytest.approx(report.figures["data_seconds"], abs=0.01)
    assert 0 < report.figures["data_seconds"] <= report.figures["train_runtime"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "50% shards (40 alignments), 50% simulated" in card
    assert str(shards) not in card
    assert "at most 1,024, with padding" in card
    assert "exponential moving average, decay 0.9" in card
    assert "alignments per step" not in card


def test_waiting_is_counted(recipe, monkeypatch):
    """A collator that needs 0.05 s for each of four batches."""
    trainer = make_trainer(parse_recipe(recipe()))
    collator = trainer.data_collator

    collate = type(collator).__call__

    def slow(self, items):
        time.sleep(0.05)
        return collate(self, items)

    monkeypatch.setattr(type(collator), "__call__", slow)
    trainer.train()
    assert 0.2 <= trainer.waited < 2


def test_a_source_that_does_not_exist(recipe, shards, tmp_path):
    with pytest.raises((OSError, ValueError), match="nowhere"):
        train(made_recipe(recipe, shards, train_data=[str(tmp_path / "nowhere"), "simulated"]))
    assert not (tmp_path / "run").exists()
