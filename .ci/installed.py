"""Check that the environment that runs this holds modeling-msa, what its metadata require, and nothing else."""

import sys
from importlib.metadata import distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of what a distribution requires here, directly or not, itself included."""
    found: set[str] = set()
    left = {(canonicalize_name(name), extra) for extra in {"", *extras}}
    done: set[tuple[str, str]] = set()
    while left:
        done.add(item := left.pop())
        found.add(item[0])
        for line in distribution(item[0]).requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": item[1]}):
                left |= {(canonicalize_name(wanted.name), extra) for extra in {"", *wanted.extras}} - done
    return found


if __name__ == "__main__":
    expected = closure("modeling-msa")
    there = {canonicalize_name(each.metadata["Name"]) for each in distributions()} - {"pip", "setuptools"}
    expected -= {"setuptools"}  # torch requires it, and a new environment may have it anyway
    print(f"modeling-msa requires {len(expected) - 1} distributions, directly or not")
    if more := sorted(there - expected):
        sys.exit(f"Installed, but not required by anything declared: {', '.join(more)}")
    if lacking := sorted(expected - there):
        sys.exit(f"Declared, but not installed: {', '.join(lacking)}")
