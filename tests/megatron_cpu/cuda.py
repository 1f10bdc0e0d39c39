"""What Megatron-Core 0.16.1 takes from torch.cuda, given by the CPU: device "cuda" then means "cpu" in this process.

Each replacement says what fails without it.
"""

import functools

import torch
import torch.distributed as dist
import torch.utils._device

FACTORIES = (
    "tensor", "as_tensor", "zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "zeros_like", "ones_like",
    "empty_like", "full_like",
)  # fmt: skip


class Stream:
    """Streams and events: on a CPU everything has happened when a call returns."""

    def __init__(self, *_, **__): ...
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def record_event(self, *_):
        return Stream()

    def nothing(self, *_): ...

    wait_stream = wait_event = record = synchronize = wait = nothing


def install() -> None:
    """Once a process, after Megatron-Core is imported and before a model is built."""
    if getattr(torch.cuda, "_stands_on_cpu", False):
        return
    if torch.cuda.is_available():
        raise RuntimeError("there is a GPU here; its replacement must not hide it")
    torch.cuda._stands_on_cpu = True
    replace_device_calls()
    replace_random_states()
    replace_devices()
    replace_collectives()


def replace_device_calls() -> None:
    """Device queries that are made as a matter of course, which fail with "Found no NVIDIA driver"."""
    cuda = torch.cuda
    cuda.is_available = lambda: False  # torch would ask device_count
    cuda.current_device = lambda: "cpu"
    cuda.device_count = lambda: 1
    cuda.get_device_capability = lambda *_: (0, 0)
    cuda.is_current_stream_capturing = lambda: False
    for name in ("synchronize", "empty_cache", "set_device", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *_, **__: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        setattr(cuda, name, lambda *_, **__: 0)
    cuda.Stream = cuda.Event = Stream
    cuda.stream = cuda.current_stream = cuda.default_stream = lambda *_: Stream()


def replace_random_states() -> None:
    """Megatron-Core's tracker forks CUDA generators; here it forks the CPU's."""
    import megatron.core.tensor_parallel.random as tracker

    torch.cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(int(seed))
    torch.cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    tracker._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    tracker._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def on_cpu(device):
    return "cpu" if str(device).startswith("cuda") else device


def replace_devices() -> None:
    """device="cuda" literals, `.cuda()`, pinned memory, and optimizers that test for 'torch.cuda.*Tensor'."""
    # transformers loads weights inside `torch.device("meta")`, which recognizes factories by identity through this
    # cache. Filled with the originals; otherwise buffers that no checkpoint holds would stay uninitialized.
    torch.utils._device._device_constructors()
    for name in FACTORIES:
        setattr(torch, name, factory(getattr(torch, name)))
    for owner in (torch.Tensor, torch.nn.Module):
        owner.to = mover(owner.to)
        owner.cuda = lambda self, *_, **__: self
    torch.Tensor.pin_memory = lambda self, *_: self
    type_of = torch.Tensor.type

    def type_(self, *args, **kwargs):
        found = type_of(self, *args, **kwargs)
        return found.replace("torch.", "torch.cuda.", 1) if isinstance(found, str) else found

    torch.Tensor.type = type_


def factory(make):
    @functools.wraps(make)
    def made(*args, **kwargs):
        kwargs.pop("pin_memory", None)
        if "device" in kwargs:
            kwargs["device"] = on_cpu(kwargs["device"])
        return make(*args, **kwargs)

    return made


def mover(move):
    @functools.wraps(move)
    def moved(self, *args, **kwargs):
        kwargs = {name: on_cpu(value) if name == "device" else value for name, value in kwargs.items()}
        return move(
            self, *(on_cpu(value) if isinstance(value, str | torch.device) else value for value in args), **kwargs
        )

    return moved


def replace_collectives() -> None:
    """gloo has no average, and its scatter sends wrong data from chunks that are not contiguous, without an error."""
    reduce, scatter = dist.all_reduce, dist.scatter

    def all_reduce(tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):
        if op != dist.ReduceOp.AVG:
            return reduce(tensor, op=op, group=group, async_op=async_op)
        reduce(tensor, group=group)
        tensor.div_(dist.get_world_size(group))

    def scatter_contiguous(tensor, scatter_list=None, *args, **kwargs):
        return scatter(tensor, scatter_list and [chunk.contiguous() for chunk in scatter_list], *args, **kwargs)

    dist.all_reduce, dist.scatter = all_reduce, scatter_contiguous
