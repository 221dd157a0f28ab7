"""The command ``msa``; Ctrl-C ends it without a traceback also while it is being loaded."""

import sys


def main() -> None:
    """Load the command line, and run it."""
    try:
        from .cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
