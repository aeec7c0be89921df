"""Weights, gradients, AdamW's moments and the average in shards, a process one of each (FSDP2, ZeRO's third stage).

ZeRO's first stage (ZeroRedundancyOptimizer) would shard 8 of the 20 bytes a parameter, and gathers the moments on one process in
pickles. Here all 20 are sharded, and each sharded tensor knows its whole: so a checkpoint is gathered a tensor at a time, is the
same files as without, and may be gone on from with another number of processes or without sharding.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..dier import DiER

STATE_BYTES = 20
"""Of a parameter: weight, gradient, two moments and average, float32 each."""
SHARE = 0.25
"""Of a GPU's memory that these may take before they are sharded: activations grow with the batch and need the rest."""


def choose_fsdp(wanted: str, processes: int, parameters: int, memory: int | None) -> tuple[bool, str]:
    """auto | on | off to a decision and its reason; `memory` is the device's in bytes, None = a CPU's."""
    state = STATE_BYTES * parameters
    size = f"{state / 1e9:.3g} GB of weights, gradients and optimizer state"
    if wanted == "off" or processes == 1:
        return False, f"{size} are in each process"
    if wanted == "on" or (memory is not None and state > SHARE * memory):
        return True, f"{size} are sharded over {processes} processes"
    room = "of a CPU" if memory is None else f"under {SHARE:.0%} of the GPU's {memory / 1e9:.3g} GB"
    return False, f"{size} are in each process: {room}"


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory; None for a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def shard(model: DiER, processes: int, device: torch.device, precision: str) -> None:
    """Shard a model, the same in all processes, in place: block by block, each of which is gathered when it is its turn.

    With bf16 a block's weights are gathered in bf16, which is what autocast makes of them anyway; gradients are summed in float32.
    """
    mesh = init_device_mesh(device.type, (processes,))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks():
        fully_shard(block, mesh=mesh, mp_policy=half if precision == "bf16" else MixedPrecisionPolicy())
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "encode")


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each: its shard, or all."""
    with torch.no_grad():
        return [tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach() for tensor in tensors]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor. Of a sharded one all processes must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on `other`'s device, and in shards as that is: each process takes its own, and nothing is sent."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
    return tensor.to(other.device)
