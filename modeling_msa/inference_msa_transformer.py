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
"""How the model runs on a machine: in blocks where memory asks for it, in evaluation mode for one caller alone.

Results are the same up to rounding, and a hook sees the same.
"""

import functools
import sys
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_METHODS = (MethodType, functools.partial)


def evaluation_copy(model: ModuleT) -> ModuleT:
    """Copy a model's modules in evaluation mode; they share weights and buffers, and have the hooks of this moment.

    ``model.eval()`` sets flags that other threads read, such as one that trains the model. This changes nothing.
    """
    if torch.compiler.is_compiling():  # a graph cannot copy modules
        if any(module.training for module in model.modules()):
            raise ValueError("A model in training mode cannot be compiled for this: call model.eval() first.")
        return model
    copies = {id(module): object.__new__(type(module)) for module in model.modules()}
    for module in model.modules():
        state = vars(module).copy()
        state |= {name: _bound_to_copy(each, copies) for name, each in state.items() if type(each) in _METHODS}
        state["_modules"] = {name: child and copies[id(child)] for name, child in module._modules.items()}
        # transformers adds hooks of its own when outputs are first requested, here only to the copy
        state |= {name: getattr(module, name).copy() for name in ("_forward_hooks", "_forward_pre_hooks")}
        state["training"] = False
        state.pop("_compiled_call_impl", None)  # of module.compile(), bound to the original
        copies[id(module)].__dict__ = state
    return copies[id(model)]  # type: ignore[return-value]


def _bound_to_copy(value: Any, copies: dict[int, Any]) -> Any:
    """Bind a method that replaces one of an instance, as accelerate and Trainer set `forward`, to the copy."""
    if isinstance(value, MethodType) and id(value.__self__) in copies:
        return MethodType(value.__func__, copies[id(value.__self__)])
    if isinstance(value, functools.partial):
        arguments = (_bound_to_copy(each, copies) for each in value.args)
        return functools.partial(_bound_to_copy(value.func, copies), *arguments, **value.keywords)
    return copies.get(id(value), value) if isinstance(value, nn.Module) else value


def is_traced() -> bool:
    """Whether a graph is being made, which must depend neither on values nor on sizes."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_hooked(module: nn.Module, backward: bool = False) -> bool:
    """Whether a hook, or with `backward` one of the backward pass, sees what goes in and out of a module."""
    hooks = [module._forward_hooks, module._forward_pre_hooks]
    hooks += [global_hooks._global_forward_hooks, global_hooks._global_forward_pre_hooks]
    if backward:
        hooks += [module._backward_hooks, module._backward_pre_hooks]
        hooks += [global_hooks._global_backward_hooks, global_hooks._global_backward_pre_hooks]
    return any(hooks)


def inference_blocks(
    module: nn.Module, states: Tensor, axis: int, inner: int = 1, inside: bool = False
) -> list[slice]:
    """Slices along an axis of `states` ``(B, R, C, D)`` that `module` is to run on, one after another.

    Several in plain inference only, and if no hook is on `module` (with `inside`: not counting its own) nor in it.
    Reentrant checkpointing first trains without gradients, and must draw the same dropout again. `inner` is the number
    of large tensors at a time.
    """
    if torch.is_grad_enabled() or module.training or is_traced():
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
    most = total_memory(device) // 16 // (12 * states.shape[-1] * states.element_size())
    return tokens if tokens <= most else max(most // 2, 2**14)


def total_memory(device: torch.device) -> int:
    """Bytes of a device other than the CPU; the meta device, which holds nothing, is never short of them."""
    if device.type == "meta":
        return sys.maxsize
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 16 * 2**30


def is_on_gpu(states: Tensor) -> bool:
    """Whether few large operations are best; on a CPU it is the fewest copies."""
    return states.device.type not in ("cpu", "meta")


def fuses(states: Tensor, projections: list[nn.Module]) -> bool:
    """Whether to make one product of several: on a GPU, if each is a plain one.

    An adapter, quantization, shards, hooks and offloading require that the modules are called.
    """
    return is_on_gpu(states) and all(
        type(each) is nn.Linear
        and type(each.weight) is type(each.bias) is nn.Parameter
        and "forward" not in vars(each)
        and not is_hooked(each, backward=True)
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
