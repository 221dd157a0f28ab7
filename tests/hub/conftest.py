"""Fixtures that the tests of conversion and of downloads share."""

import pytest


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with wide.pt and its contact regression."""
    from fair_esm import random_model, write_published

    folder = tmp_path_factory.mktemp("published")
    write_published(random_model(2, 16, 4, 24, 16), folder / "wide.pt")
    return folder
