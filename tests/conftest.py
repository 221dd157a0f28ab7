"""Fixtures that several tests share, and how pytest-xdist spreads the files over its workers."""

import pytest

# The files that take longest, the longest first: xdist starts them first, so that no worker is left alone at the end.
LONGEST = (
    "test_exporting",
    "test_docs_site",
    "test_docs",
    "test_commands",
    "test_modeling_msa_transformer",
    "test_deployment",
    "test_distributed",
    "test_sharding",
    "test_train",
    "test_finetuning",
    "test_pushing",
    "test_sharing_msa_transformer",
    "test_conversion",
    "test_scoring",
)


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # xdist would start the files with most tests first


def pytest_collection_modifyitems(config, items):
    """In a worker of xdist, put the longest files first; `--dist loadfile` hands out files in this order."""
    if hasattr(config, "workerinput"):
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.stem, len(place)))


collect_ignore = ["hf_suite"]  # imports transformers' tests, which its run.py downloads


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """`converted(size)`: fair-esm's model of a size in `fair_esm.SIZES`, and the folder converted from its file."""
    import fair_esm

    made = {}

    def make(size):
        if size not in made:
            model = fair_esm.random_model(*fair_esm.SIZES[size])
            made[size] = model, fair_esm.convert(model, tmp_path_factory.mktemp(size))
        return made[size]

    return make


@pytest.fixture(scope="session")
def tiny(converted):
    """The folder of the tiny model."""
    return converted("msa-tiny")[1]


@pytest.fixture(scope="session")
def real_tokens():
    """`real_tokens(rows, columns)`: the first rows and columns of the bundled family, (1, R, C), by fair-esm."""
    import fair_esm
    from made_up import SEED

    def read(rows, columns=None):
        return fair_esm.tokens([fair_esm.read_stockholm(SEED, rows)])[..., :columns]

    return read


@pytest.fixture
def blocks(monkeypatch):
    """Call it to make plain inference work in small blocks."""
    from modeling_msa import inference_msa_transformer

    def set_blocks(tokens: int = 40) -> None:
        monkeypatch.setattr(inference_msa_transformer, "tokens_per_block", lambda *_: tokens)

    return set_blocks


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Call it to take a GPU's paths: query, key and value in one product, columns padded to a multiple of 8."""
    from modeling_msa import inference_msa_transformer, modeling_msa_transformer

    def take_paths() -> None:
        monkeypatch.setattr(inference_msa_transformer, "is_on_gpu", lambda _: True)
        monkeypatch.setattr(modeling_msa_transformer, "padding", lambda states: -states.shape[2] % 8)

    return take_paths


@pytest.fixture(scope="module")
def one_thread():
    """One torch thread: with small tensors, more threads only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
