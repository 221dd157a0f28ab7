"""The contract of SizeGroupedSampler: batches of alignments of similar size waste under 15 % on padding; processes
split one order, which is new in each epoch.
"""

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from made_up import TOKENIZER, features, real_alignments, real_data, write_folder
from torch.utils.data import DataLoader

from modeling_msa import MsaDataCollator, MsaDataset, SizeGroupedSampler


def visits_of(features):
    return [feature["visit"] for feature in features]


class Sizes(list):
    """Sizes alone."""

    def size(self, index):
        return self[index]


def padding(order, sizes, collator, batch):
    tokens = padded = 0
    for start in range(0, len(order), batch):
        shapes = [collator.size(*sizes[k]) for k in order[start : start + batch]]
        tokens += sum(rows * columns for rows, columns in shapes)
        padded += len(shapes) * max(rows for rows, _ in shapes) * max(columns for _, columns in shapes)
    return 1 - tokens / padded


@pytest.mark.parametrize("batch", [2, 8, 32])
def test_padding_of_a_realistic_mix(batch):
    """Log-normal depths of 10 to 20,000 (median 450) and lengths of 40 to 800 (median 180)."""
    rng = np.random.default_rng(0)
    depths = np.exp(rng.normal(np.log(450), 2, 4000)).clip(10, 20_000).astype(int)
    lengths = np.exp(rng.normal(np.log(180), 0.6, 4000)).clip(40, 800).astype(int)
    sizes, collator = Sizes(zip(depths.tolist(), lengths.tolist(), strict=True)), MsaDataCollator(TOKENIZER)
    sampler = SizeGroupedSampler(sizes, batch, collator)
    order = list(sampler)
    assert sorted(order) == list(range(4000))
    assert padding(order, sizes, collator, batch) < 0.15
    assert padding(rng.permutation(4000).tolist(), sizes, collator, batch) > 0.5
    assert list(sampler) == order
    sampler.set_epoch(1)
    assert list(sampler) != order
    assert list(SizeGroupedSampler(sizes, batch, collator, seed=1)) != order


def test_padding_is_what_batches_have():
    sizes = [(5, 30), (200, 12), (6, 33), (180, 10)]
    collator = MsaDataCollator(TOKENIZER)
    batch = collator(features(*sizes))
    share = 1 - float(batch["attention_mask"].float().mean())
    assert share == pytest.approx(padding(range(4), sizes, collator, 4))
    order = list(SizeGroupedSampler(Sizes(sizes), 2, collator))
    assert sorted(map(sorted, (order[:2], order[2:]))) == [[0, 2], [1, 3]]


def test_an_incomplete_batch_is_the_last():
    sizes = Sizes([(10, 40)] * 4 + [(1000, 400)] * 3)
    for seed in range(9):
        order = list(SizeGroupedSampler(sizes, 2, seed=seed, pool_batches=2))
        assert sorted(order) == list(range(7))
    order = list(SizeGroupedSampler(sizes, 2))
    assert sorted(sorted({sizes[k] for k in order[start : start + 2]}) for start in (0, 2, 4)) == [
        [(10, 40)],
        [(10, 40)],
        [(1000, 400)],
    ]
    with pytest.raises(ValueError, match="has no size"):
        SizeGroupedSampler([1, 2], 2)
    with pytest.raises(ValueError, match="at least 1"):
        SizeGroupedSampler(sizes, 0)


@real_data
def test_padding_of_real_alignments():
    """Eight very different alignments: no grouping in pairs pads less."""
    dataset, collator = MsaDataset(real_alignments()), MsaDataCollator(TOKENIZER)
    sizes = [dataset[k]["alignment"].array.shape for k in range(len(dataset))]

    def pairings(rest):
        if not rest:
            yield []
        for other in rest[1:]:
            for more in pairings([k for k in rest if k not in (rest[0], other)]):
                yield [rest[0], other, *more]

    best = min(padding(order, sizes, collator, 2) for order in pairings(list(range(len(sizes)))))
    assert padding(list(SizeGroupedSampler(dataset, 2, collator)), sizes, collator, 2) == pytest.approx(best)


def test_an_unreadable_file_does_not_stop_the_sampler(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "f2.a3m").write_bytes(b"")
    dataset = MsaDataset(tmp_path, on_error="skip")
    assert sorted(SizeGroupedSampler(dataset, 2)) == list(range(6))
    assert dataset.size(2) == (1, 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_splits_and_resumes(tmp_path, processes):
    """Each process gets its part of one order, new in each epoch, and continues where a killed run stopped."""
    write_folder(tmp_path, 12)

    def loader(process):
        dataset = MsaDataset(tmp_path)
        sampler = SizeGroupedSampler(dataset, 2, seed=4)
        plain = DataLoader(dataset, batch_size=2, sampler=sampler, collate_fn=visits_of)
        return prepare_data_loader(
            plain, num_processes=processes, process_index=process, put_on_device=False, use_seedable_sampler=True
        )

    def epochs(loader, count):
        found = []
        for epoch in range(count):
            loader.set_epoch(epoch)
            found.append(list(loader))
        return found

    whole = [epochs(loader(process), 2) for process in range(processes)]
    for epoch in (0, 1):
        seen = sorted(visit for process in whole for batch in process[epoch] for visit in batch)
        assert seen == [(epoch, k) for k in range(12)]
    assert [[k for _, k in batch] for batch in whole[0][0]] != [[k for _, k in batch] for batch in whole[0][1]]
    for process in range(processes):
        resumed = skip_first_batches(loader(process), 2)
        resumed.set_epoch(1)
        assert list(resumed) == whole[process][1][2:]
