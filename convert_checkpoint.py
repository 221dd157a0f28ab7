#!/usr/bin/env python
"""Convert a fair-esm checkpoint of the MSA Transformer into a Hugging Face folder; ``--help`` says how."""

import typer

from modeling_msa.cli.convert import convert_command

if __name__ == "__main__":
    typer.run(convert_command)
