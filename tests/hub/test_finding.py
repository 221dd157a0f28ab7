"""Names of models: the checkpoint in the package has its name everywhere, a path is what it says."""

from pathlib import Path

import pytest

from modeling_msa.hub import finding
from modeling_msa.hub.finding import find_model, resolve_model

TINY = Path(finding.__file__).parents[1] / "checkpoints" / "msa-tiny"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_the_embedded_name_is_the_embedded_model(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(resolve_model("msa-tiny")) == Path(find_model("msa-tiny")) == TINY
    assert resolve_model(Path("msa-tiny")) == str(TINY)
    make(Path("msa-tiny"))
    with pytest.warns(UserWarning, match=r"msa-tiny is the model that comes with the package; pass \./msa-tiny for"):
        assert Path(resolve_model("msa-tiny")) == TINY
    for path in ("./msa-tiny", "msa-tiny/", str(tmp_path / "msa-tiny"), Path("msa-tiny")):
        assert resolve_model(path) == str(path)
    assert [resolve_model(name) for name in ("", ".", "..", "no")] == ["", ".", "..", "no"]
