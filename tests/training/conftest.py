"""Fixtures for the tests of training: made-up data, and recipes that train on it."""

import pytest
import yaml
from families import make_config, make_folder, make_labels, make_model


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """Families, labels, a config and weights, in one folder."""
    folder = tmp_path_factory.mktemp("training")
    families = make_folder(folder / "alignments")
    make_config(folder / "config")
    return folder, families, make_labels(folder / "labels", families), make_model(folder / "model")


@pytest.fixture
def recipe(data, tmp_path):
    """`recipe(**keys)`: a recipe of masked language modelling, from scratch, with these keys changed."""

    def write(**keys):
        content = {
            "config": str(data[0] / "config"),
            "train_data": [str(data[0] / "alignments")],
            "output_dir": str(tmp_path / "run"),
            "max_tokens": 256,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
        } | keys
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """`datasets` waits for five seconds at the end of each pass over Parquet files."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """A cache of its own for `datasets`, and no progress bars."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
