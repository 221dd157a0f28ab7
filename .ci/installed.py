"""Say whether the environment that runs this holds modeling-msa, what its metadata ask for, and nothing else."""

import sys
from importlib.metadata import distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of what a distribution asks for here, itself included, and of what those ask for."""
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
    expected -= {"setuptools"}  # torch asks for it, and a new environment may have it anyway
    print(f"modeling-msa asks for {len(expected) - 1} distributions, directly or not")
    if more := sorted(there - expected):
        sys.exit(f"Installed, though nothing declared asks for it: {', '.join(more)}")
    if lacking := sorted(expected - there):
        sys.exit(f"Declared, but not installed: {', '.join(lacking)}")
