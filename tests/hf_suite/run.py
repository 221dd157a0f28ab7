"""Run transformers' common model tests on the five classes: ``python tests/hf_suite/run.py [options of pytest]``.

The tests are in the source distribution of transformers only, which pip downloads in the version that is installed. It
leaves out a few of the modules that they import; empty ones take their place.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

STAND_INS = {
    "tests/__init__.py": "",
    "tests/utils/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/generation/__init__.py": "",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
}


def main() -> int:
    """Return pytest's exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", name]
        package = f"transformers=={transformers.__version__}"
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        with tarfile.open(next(folder.glob("transformers-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = (path for path in folder.glob("transformers-*") if path.is_dir())
        shutil.move(
            unpacked / "tests", folder / "tests"
        )  # alone: beside it lies the source, not the installed package
        shutil.rmtree(unpacked)
        for path, text in STAND_INS.items():
            if not (folder / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
        shutil.copy(Path(__file__).with_name("common_tests.py"), folder / "test_msa_transformer.py")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
            "test_msa_transformer.py",
            *sys.argv[1:],
        ]
        return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": name}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
