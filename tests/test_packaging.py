"""The packaging's contract.

The wheel holds the package's code, its checkpoint, its family, the configuration, the card's template and the
licence, and nothing else. The sdist makes the same wheel, and what lies about in somebody's clone gets into neither.
The wheel's metadata are what pyproject.toml declares. Installed beside its dependencies, without the checkout, the
command works.

What the package always imports is among its dependencies, what it imports on demand in an extra; nothing else is asked
for. The versions that are pinned fit what is declared.

The workflows call the targets that `.ci/run` calls, on the oldest and the newest Python that pyproject.toml names.
"""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.testing import CliRunner

import modeling_msa
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEM = f"modeling_msa-{PROJECT['version']}"
# what git leaves out, and git itself
NOT_COPIED = (
    ".git",
    ".venv*",
    "dist",
    "build",
    "demo",
    "verified",
    "made",
    "_build",
    "__pycache__",
    ".*_cache",
    "*.egg-info",
)
# in a clone after some work: a converted checkpoint, an environment, caches
STRAY = (
    "msa1b/model.safetensors",
    "family.a3m",
    ".venv/lib/some.py",
    "dist/old.whl",
    "demo/model/config.json",
    "modeling_msa/__pycache__/hub.cpython-311.pyc",
    "configuration/__pycache__/x.pyc",
    "tests/__pycache__/x.pyc",
)


def build(folder, out, *targets):
    chosen = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *chosen]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A clone in which things lie about, and the wheel and the sdist made in it, in a folder each."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(*NOT_COPIED))
    for name in STRAY:
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "clone" / name).write_text("stray")
    build(folder / "clone", folder / "out", "wheel", "sdist")
    return folder


def wheel_of(folder):
    """Contents by name."""
    with zipfile.ZipFile(folder / f"{STEM}-py3-none-any.whl") as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def shipped(clone):
    """What a wheel holds, by its name there: the file in the repository."""
    package = clone / "modeling_msa"
    files = [
        *package.rglob("*.py"),
        *package.glob("*.pyi"),
        *(package / "checkpoints").rglob("*.*"),
        *(package / "families").iterdir(),
        *(package / "tasks" / f"report.{kind}" for kind in ("html", "css", "js")),
    ]
    names = {path.relative_to(clone).as_posix(): path for path in files}
    config = [path for path in (clone / "configuration").rglob("*") if path.suffix in (".json", ".yaml")]
    names |= {f"modeling_msa/{path.relative_to(clone).as_posix()}": path for path in config}
    return names | {f"modeling_msa/{name}": clone / name for name in ("hub_card.md", "LICENSE")}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    wheel, files = wheel_of(built / "out"), shipped(built / "clone")
    info = {f"{STEM}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert set(wheel) == {*files, *info, f"{STEM}.dist-info/licenses/LICENSE"}
    for name, path in files.items():
        assert wheel[name] == path.read_bytes(), name
    assert wheel[f"{STEM}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    tiny = {name.rpartition("/")[2] for name in wheel if name.startswith("modeling_msa/checkpoints/msa-tiny/")}
    assert tiny >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert not [name for name in tiny if name.endswith(".py")]  # the package is the code
    assert {
        f"modeling_msa/{kind}_msa_transformer.py" for kind in ("configuration", "tokenization", "modeling")
    } <= set(wheel)
    assert {
        "modeling_msa/families/fn3.a3m",
        "modeling_msa/families/fn3.pdb",
        "modeling_msa/configuration/training/fitness.yaml",
    } <= set(wheel)


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
    with tarfile.open(built / "out" / f"{STEM}.tar.gz") as archive:
        names = {name.removeprefix(f"{STEM}/") for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    assert not names & set(STRAY)
    parts = [".ci", ".github", "benchmarks", "configuration", "docs", "examples", "modeling_msa", "tests"]
    assert sorted({name.split("/")[0] for name in names if "/" in name}) == parts
    top = {name for name in names if "/" not in name} - {"LICENSE", "README.md", "PKG-INFO", ".gitignore"}
    pinned = {"constraints.txt", "constraints-lowest.txt"}
    texts = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"}
    assert top == {"Makefile", "convert_checkpoint.py", "hub_card.md", "pyproject.toml", *pinned, *texts}
    assert "tests/data/golden_msa_tiny.json" in names
    assert {f"tests/{path.name}" for path in (built / "clone" / "tests").glob("*.py")} <= names
    build(tmp_path / STEM, tmp_path / "out", "wheel")
    assert wheel_of(tmp_path / "out") == wheel_of(built / "out")


def test_the_metadata_are_what_is_declared(built):
    wheel = wheel_of(built / "out")
    metadata = email.message_from_bytes(wheel[f"{STEM}.dist-info/METADATA"])
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    always = {(canonicalize_name(each.name), each.specifier) for each in wanted if each.marker is None}
    declared = [Requirement(line) for line in PROJECT["dependencies"]]
    assert always == {(canonicalize_name(each.name), each.specifier) for each in declared}
    assert all("extra ==" in str(each.marker) for each in wanted if each.marker is not None)
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert (metadata["Name"], metadata["License-Expression"]) == ("modeling-msa", "Apache-2.0")
    assert metadata["Version"] == modeling_msa.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    scripts = wheel[f"{STEM}.dist-info/entry_points.txt"].decode().split()
    assert scripts == ["[console_scripts]", "msa", "=", "modeling_msa._main:main"]


# `msa` as installed in a folder, in a process that sees what is installed but not the checkout
ALONE = """
import runpy, sys
from pathlib import Path

folder, checkout, sys.argv = Path(sys.argv[1]), Path(sys.argv[2]), ["msa", *sys.argv[3:]]
sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != checkout)]
try:
    runpy.run_path(str(folder / "bin" / "msa"), run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
from modeling_msa.hub.card import card_template
from modeling_msa.training.shipped import find_config, find_recipe

for found in (sys.modules["modeling_msa"].__file__, find_recipe("fitness"), find_config("msa-1b")):
    print(Path(found).relative_to(folder).as_posix())
print(len(card_template()))
"""


def test_installed_alone_the_command_works(built, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(tmp_path / "site"), str(built / "out" / f"{STEM}-py3-none-any.whl")], check=True)
    command = [
        sys.executable,
        "-I",
        "-c",
        ALONE,
        str(tmp_path / "site"),
        str(ROOT),
        "contacts",
        "fn3",
        "-o",
        "fn3.tsv",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    package = [
        "modeling_msa/__init__.py",
        "modeling_msa/configuration/training/fitness.yaml",
        "modeling_msa/configuration/models/msa-1b/config.json",
    ]
    assert run.stdout.splitlines()[1:] == [
        *package,
        str(len((built / "clone" / "hub_card.md").read_text(encoding="utf-8"))),
    ]
    CliRunner().invoke(app, ["contacts", "fn3", "-o", str(tmp_path / "here.tsv")], catch_exceptions=False)
    assert (tmp_path / "fn3.tsv").read_text() == (tmp_path / "here.tsv").read_text()


def test_the_citation_file_says_what_the_project_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "authors"} <= set(cited)
    assert (cited["title"], cited["version"]) == (PROJECT["name"], PROJECT["version"])
    assert (cited["license"], cited["type"]) == (PROJECT["license"], "software")
    paper = cited["preferred-citation"]
    surnames = [author["family-names"] for author in paper["authors"]]
    assert surnames == ["Rao", "Liu", "Verkuil", "Meier", "Canny", "Abbeel", "Sercu", "Rives"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    entry = re.search(r"^@inproceedings\{.*?^\}$", readme, flags=re.MULTILINE | re.DOTALL)[0]
    authors = re.search(r"author = \{(.*?)\}", entry, flags=re.DOTALL)[1]
    assert [author.split(",")[0] for author in re.split(r"\s+and\s+", authors)] == surnames
    assert f"year = {{{paper['year']}}}" in entry
    assert paper["url"] in readme


def test_the_changelog_has_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", changes, flags=re.MULTILINE)
    assert PROJECT["version"] in versions
    assert versions == sorted(versions, key=Version, reverse=True)
    kinds = set(re.findall(r"^### (.*)$", changes, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # those of Keep a Changelog


# import names that are not the distribution's
DISTRIBUTIONS = {"esm": "fair-esm", "sklearn": "scikit-learn", "yaml": "pyyaml"}
FOLDERS = ("modeling_msa", "tests", "benchmarks", "examples", "docs", ".ci")
PROGRAMS = [
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not {"made", "_build"} & set(path.relative_to(ROOT).parts)
]
# `tests` are transformers' own, which tests/hf_suite/run.py downloads
OURS = {*sys.stdlib_module_names, "modeling_msa", "tests", *(path.stem for path in PROGRAMS)}


def imported(path):
    """Distributions that a file imports: always, and on demand (in functions, for types, or if they are there)."""
    always, on_demand = set(), set()

    def visit(nodes, found):
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module]
                if not getattr(node, "level", 0):
                    found.update(name.split(".")[0] for name in names)
                continue
            caught = [ast.unparse(each.type) for each in getattr(node, "handlers", []) if each.type]
            optional = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            )
            optional |= bool({"ImportError", "ModuleNotFoundError"} & set(caught))
            visit(ast.iter_child_nodes(node), on_demand if optional else found)

    visit(ast.parse(path.read_text(encoding="utf-8")).body, always)
    return [
        {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names - OURS} for names in (always, on_demand)
    ]


def names_of(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements} - {"modeling-msa"}


CORE = names_of(PROJECT["dependencies"])
EXTRAS = {name: names_of(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def test_the_wheel_is_tried_in_an_empty_environment():
    dry = ["make", "--dry-run", "--always-make", "wheel-test", "VENV=v"]
    lines = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in ("-m venv v-wheel", "dist/*.whl", ".ci/installed.py", "msa contacts fn3 -o fn3.tsv"):
        assert line in lines


def test_the_lowest_versions_run_tests_that_exist():
    listed = re.search(
        r"^LOWEST_TESTS \?= (.*?[^\\])$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE | re.DOTALL
    )[1]
    missing = [name for name in listed.replace("\\", "").split() if not list(ROOT.glob(name))]
    assert missing == []
    assert "tests/test_golden.py" in listed


def test_what_the_package_imports_is_declared():
    needed, optional = set(), set()
    for path in [*(ROOT / "modeling_msa").rglob("*.py"), ROOT / "convert_checkpoint.py"]:
        always, on_demand = imported(path)
        assert always <= CORE, f"{path.name} imports what no dependency brings: {always - CORE}"
        extra = on_demand - CORE.union(*EXTRAS.values())
        assert not extra, f"{path.name} imports what no extra brings: {extra}"
        needed |= always
        optional |= on_demand
    assert not CORE - needed - optional
    for name in ("plot", "structure", "search"):
        assert EXTRAS[name] <= optional, name


def test_what_tests_and_programs_import_is_declared():
    for path in PROGRAMS:
        extra = set.union(*imported(path)) - CORE.union(*EXTRAS.values())
        assert not extra, f"{path.relative_to(ROOT)} imports what nothing declares: {extra}"


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(key): Version(version)
        for key, _, version in (line.partition("==") for line in lines)
        if version
    }


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_pinned_versions_fit_what_is_declared(name):
    pinned = pins(name)
    extras = EXTRAS if name == "constraints.txt" else {"plot", "structure", "search", "train", "export", "test"}
    lines = [*PROJECT["dependencies"], *(line for each in extras for line in PROJECT["optional-dependencies"][each])]
    for wanted in map(Requirement, lines):
        if wanted.name != "modeling-msa":
            assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    if name == "constraints-lowest.txt":
        assert {each: pinned[each] for each in ("transformers", "torch")} == {
            each.name: Version(bound.version)
            for each in map(Requirement, PROJECT["dependencies"])
            for bound in each.specifier
            if bound.operator == ">="
        }


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
MAKE = re.compile(r"^make (.+)$", flags=re.MULTILINE)


def commands(job):
    """Shell commands of a job, each for every combination of its matrix."""
    found = [step["run"].strip() for step in job["steps"] if "run" in step]
    for key, values in job.get("strategy", {}).get("matrix", {}).items():
        place = f"${{{{ matrix.{key} }}}}"
        found = [line.replace(place, value) for line in found for value in (values if place in line else [""])]
    return found


def targets(arguments):
    return {word for word in arguments.split() if "=" not in word}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_ci_runs_with_few_rights(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert {"schedule", "workflow_dispatch"} <= set(workflow[True])  # YAML 1.1 reads `on` so
    ours = targets(" ".join(MAKE.findall((ROOT / ".ci" / "run").read_text().replace(' VENV="$VENV"', ""))))
    assert ours == {"lint", "test", "test-lowest", "demo", "wheel-test", "docs"}
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))
        for command in commands(job):
            assert "${{" not in command
            if command != ".ci/run":
                arguments = MAKE.fullmatch(command)[1]
                # a target that is not there, or takes a file that is not there, ends with 2
                dry = ["make", "--dry-run", "--always-make", *arguments.split()]
                done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, command
                assert "Nothing to be done" not in done.stdout, command
                assert targets(arguments) <= {*ours, "test-newest", "verify-official"}


def test_the_workflows_take_the_pythons_that_are_declared():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    assert sorted(PYTHONS, key=Version) == PYTHONS
    assert PROJECT["requires-python"] == f">={oldest}"
    assert all(Version(python) in SpecifierSet(PROJECT["requires-python"]) for python in PYTHONS)
    assert jobs["matrix"]["strategy"]["matrix"]["python"] == [oldest, newest]
    steps = [step for job in jobs.values() for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert [step["with"]["python-version"] for step in steps] == [oldest, "${{ matrix.python }}"]
    assert commands(jobs["all"]) == [".ci/run"]
    # the whole suite, on three sets of versions
    assert commands(jobs["matrix"]) == ["make test-lowest LOWEST_TESTS=", "make test wheel-test", "make test-newest"]
