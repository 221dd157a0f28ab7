"""Fixtures that several tests share: fair-esm's models with random weights, converted once, and real alignments."""

from pathlib import Path

import pytest

MSA_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "msa"


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """`converted(size)`: fair-esm's model of a size of `fair_esm.SIZES`, and the folder converted from its file."""
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
    """`real_tokens(name, rows, columns)`: the first rows and columns of a real alignment, (1, R, C), by fair-esm."""
    import fair_esm

    def read(name, rows, columns=None):
        path = MSA_FOLDER / f"{name}.a3m"
        if not path.is_file():
            pytest.skip("the shared alignments are not here")
        return fair_esm.tokens([fair_esm.read_a3m(path, rows)])[..., :columns]

    return read


@pytest.fixture
def blocks(monkeypatch):
    """Call it to have plain inference work in small blocks."""
    from modeling_msa import modeling_msa_transformer

    def set_blocks(tokens: int = 40) -> None:
        monkeypatch.setattr(
            modeling_msa_transformer, "TOKENS_PER_BLOCK", {"cpu": (tokens, tokens), "other": (tokens, tokens)}
        )

    return set_blocks


@pytest.fixture(scope="module")
def one_thread():
    """Tensors here are small: more threads only wait for each other, above all on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
