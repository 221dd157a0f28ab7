"""Run code as a user without this package does: in a fresh process, with an empty module cache and no network."""

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_msa":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import modeling_msa
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("modeling_msa can be imported")
"""


def without_remarks(stderr: str) -> str:
    """Drop what torch logs about classes of torchao, which transformers imports if it is there."""
    return "".join(line for line in stderr.splitlines(keepends=True) if "torch/utils/_pytree.py:" not in line)


def run_fresh(
    code: str, cwd: Path, *args: object, packaged: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run `code` in `cwd` with `args` in sys.argv; `packaged` leaves the package importable, `env` adds settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    given = {"HF_HOME": str(cwd / ".hf"), "HF_HUB_OFFLINE": "1", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    start = PRELUDE
    if packaged:
        start = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    command = [sys.executable, "-I", "-c", start + code, *map(str, args)]
    given |= env or {}
    return subprocess.run(command, cwd=cwd, env=kept | given, capture_output=True, text=True, timeout=300, check=False)
