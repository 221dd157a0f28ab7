# Copyright 2026 The modeling-msa authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""How the model runs on a machine: in blocks where memory asks for it, without dropout in one thread alone.

Nothing here changes what is computed, nor what a hook sees.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as global_hooks
from torch.overrides import TorchFunctionMode

_this_thread = threading.local()


class _WithoutDropout(TorchFunctionMode):
    """Of any module: this package's, an adapter's, and those of a folder's own copy of this code."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return args[0]
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            kwargs = kwargs | {"dropout_p": 0.0}
        return func(*args, **kwargs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model without dropout, in this thread only.

    ``model.eval()`` would set flags that other threads read, such as one that trains the model. This changes nothing.
    """
    if is_evaluating() or not any(module.training for module in model.modules()):
        yield
        return
    _this_thread.without_dropout = True
    try:
        with _WithoutDropout():
            yield
    finally:
        _this_thread.without_dropout = False


def is_evaluating() -> bool:
    """Whether this thread is inside `evaluating` of a model in training mode."""
    return getattr(_this_thread, "without_dropout", False)


def is_training(module: nn.Module) -> bool:
    """Whether a module is to draw dropout."""
    # a graph cannot read a thread's variable
    return module.training and (torch.compiler.is_compiling() or not is_evaluating())


def is_traced() -> bool:
    """Whether a graph is being made, which must depend neither on values nor on sizes."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook sees what goes in and out of a module."""
    everywhere = global_hooks._global_forward_hooks or global_hooks._global_forward_pre_hooks
    return bool(module._forward_hooks or module._forward_pre_hooks or everywhere)


def inference_blocks(
    module: nn.Module, states: Tensor, axis: int, inner: int = 1, inside: bool = False
) -> list[slice]:
    """Slices along an axis of `states` ``(B, R, C, D)`` that `module` is to run on, one after another.

    Several in plain inference only, and if no hook is on `module` (with `inside`: not counting its own) nor in it.
    Reentrant checkpointing first trains without gradients, and must draw the same dropout again. `inner` is the number
    of large tensors at a time.
    """
    if torch.is_grad_enabled() or is_training(module) or is_traced():
        return [slice(None)]
    tokens, length, most = states[..., 0].numel(), states.shape[axis], tokens_per_block(states, inner)
    if tokens <= most or any(is_hooked(each) for each in module.modules() if not inside or each is not module):
        return [slice(None)]
    step = max(1, most * length // tokens)
    return [slice(start, start + step) for start in range(0, length, step)]


def tokens_per_block(states: Tensor, inner: int = 1) -> int:
    """Tokens that inference runs at once, with `inner` tensors of four times the states' width at a time."""
    tokens, device = states[..., 0].numel(), states.device
    if device.type == "cpu":
        # Inner tensors stay under 32 MB, where malloc reuses its pages, and products of fewer tokens are as fast. With
        # 16 blocks the inner tensors of one, up to 8 times its states, are half of all.
        return max(min(tokens // 16, 2048) // inner, 384)
    # A GPU is fastest with all tokens at once, whose inner tensors are 12 times their states: in blocks only where
    # that would be more than a sixteenth of its memory.
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 16 * 2**30
    most = memory // 16 // (12 * states.shape[-1] * states.element_size())
    return tokens if tokens <= most or device.type == "meta" else max(most // 2, 2**14)


def is_on_gpu(states: Tensor) -> bool:
    """Whether few large operations are best; on a CPU it is the fewest copies."""
    return states.device.type not in ("cpu", "meta")


def fuses(states: Tensor, projections: list[nn.Module]) -> bool:
    """Whether to make one product of several: on a GPU, if each is a plain one.

    An adapter, quantization, shards, hooks and offloading require that the modules are called.
    """
    return is_on_gpu(states) and all(
        type(each) is nn.Linear
        and type(each.weight) is nn.Parameter
        and "forward" not in vars(each)
        and not is_hooked(each)
        for each in projections
    )


def padding(states: Tensor) -> int:
    """Columns to add to ``(B, R, C, H, K)`` for products: on a GPU those of other than multiples of 8 are slow.

    Small ones are left: they wait for the processor, which would have more to start.
    """
    return -states.shape[2] % 8 if is_on_gpu(states) and states.numel() >= 2**23 else 0


def widen(tensor: Tensor) -> Tensor:
    """Bring half precision to float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
