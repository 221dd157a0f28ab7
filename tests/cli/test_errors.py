"""Errors of the input end in words and exit code 1; bugs keep their traceback."""

import errno
import warnings

import pytest
import typer

from modeling_msa.cli.errors import errors_in_words, is_of_the_input

MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("row 2"), True),
        (FileNotFoundError("none"), True),
        (MemoryError(), True),
        (RuntimeError(MEMORY), True),
        (OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("a bug"), False),
        (NotImplementedError("memory"), False),
        (KeyError("a bug"), False),
        (OSError(errno.ENOSPC, "no space"), False),
    ],
)
def test_whose_fault_an_error_is(error, expected):
    assert is_of_the_input(error) is expected


def test_words_and_exit_code(capsys):
    @errors_in_words()
    def fail():
        warnings.warn("lowercase letters", stacklevel=1)
        raise ValueError("x.txt: unknown format; pass format='a3m'.")

    with pytest.raises(typer.Exit) as error:
        fail()
    assert error.value.exit_code == 1
    expected = "warning: lowercase letters\nerror: x.txt: unknown format; pass --input-format a3m.\n"
    assert capsys.readouterr().err == expected
    for bug in (RuntimeError("a bug"), KeyError("a bug")):
        with pytest.raises(type(bug)), errors_in_words():
            raise bug
