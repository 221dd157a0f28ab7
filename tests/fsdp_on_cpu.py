"""The ``msa`` command under accelerate's FSDP on a CPU, for a test: ``accelerate launch ... fsdp_on_cpu.py train``.

accelerate shards on GPUs only, and silently runs DDP on a CPU; torch's FSDP2 runs on both. This sets the plugin
that accelerate has made from its configuration file, and changes nothing else.
"""

import os
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

make_state = AcceleratorState.__init__


def make_sharded_state(self, *args, **kwargs):
    make_state(self, *args, **kwargs)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and kwargs.get("fsdp_plugin") is not None:
        self.fsdp_plugin = kwargs["fsdp_plugin"]
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = make_sharded_state
    from modeling_msa.cli import app

    try:
        app()
    except SystemExit as end:
        # DTensor's caches hold the group of processes for good, so gloo's threads live on; see leave_processes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
