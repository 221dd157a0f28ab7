"""The MSA Transformer (Rao et al., ICML 2021) for Hugging Face transformers.

``__init__.pyi`` lists the public names. Each is imported from its module when it is first asked for, so that
``msa --help`` does not wait for torch.
"""

import sys
from pathlib import Path

import lazy_loader

from ._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _is_command() -> bool:
    """Whether this process is the ``msa`` command, which registers the classes once it needs a model."""
    if not sys.argv:
        return False
    if sys.argv[0] == "-m":  # python -m looks for a module; its name is the interpreter's last argument
        return sys.orig_argv[-len(sys.argv)] == "modeling_msa.cli"
    return Path(sys.argv[0]).name in ("msa", "msa.exe")


# With the package imported, folders without code copies load through the auto classes, and those with them need no
# trust_remote_code.
if not _is_command():
    from .hub.registration import register

    register()
