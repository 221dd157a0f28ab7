"""``python -m modeling_msa.cli``: the ``msa`` command."""

from . import app

app()
