"""Stand-in for the part of TransformerEngine that Megatron-Core 0.16.1 builds a dense decoder on, in plain torch.

`install()` puts a package of that name into sys.modules, so that Megatron-Core's own TE* wrappers, layer specs and
parameter names stay in use and weights are converted by the real code. Tensor parallelism goes through Megatron-Core's
own collectives. No fp8, no experts, no context parallelism. Must run before anything of Megatron is imported.
"""

import contextlib
import importlib.machinery
import importlib.util
import sys
import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.megatron_cpu.adam import FusedAdam

VERSION = "2.6.0"  # from 2.7 on Megatron-Core wants te.pytorch.router, too


class Module(nn.Module):
    """What Megatron-Core calls on every TransformerEngine module."""

    def set_tensor_parallel_group(self, group) -> None:
        self.tp_group = group

    def set_is_first_microbatch(self, *_) -> None: ...

    def get_extra_state(self):
        return None

    def set_extra_state(self, state) -> None: ...


def parameter(size, dtype, device, fill: float | None = None) -> nn.Parameter:
    device = "meta" if str(device) == "meta" else "cpu"
    values = torch.empty(size, dtype=dtype or torch.float32, device=device)
    return nn.Parameter(values if fill is None else values.fill_(fill))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)


class RMSNorm(Module):
    def __init__(self, hidden_size, eps=1e-5, sequence_parallel=False, params_dtype=None, device=None, **options):
        super().__init__()
        assert not options.get("zero_centered_gamma")
        self.eps = eps
        self.weight = parameter(hidden_size, params_dtype, device, 1.0)
        self.weight.sequence_parallel = sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Linear(Module):
    def __init__(
        self,
        in_features,
        out_features,
        sequence_parallel=False,
        tp_group=None,
        tp_size=1,
        get_rng_state_tracker=None,
        init_method=None,
        bias=True,
        return_bias=False,
        parallel_mode=None,
        params_dtype=None,
        device=None,
        **_,
    ):
        super().__init__()
        out_features //= tp_size if parallel_mode == "column" else 1
        in_features //= tp_size if parallel_mode == "row" else 1
        self.in_features, self.tp_group, self.tp_size = in_features, tp_group, tp_size
        self.sequence_parallel, self.parallel_mode, self.return_bias = sequence_parallel, parallel_mode, return_bias
        self.use_bias = bias  # read by Megatron-Core's wrappers
        self.weight = parameter((out_features, in_features), params_dtype, device)
        self.bias = parameter(out_features, params_dtype, device, 0.0) if bias else None
        fork = get_rng_state_tracker().fork() if tp_size > 1 and get_rng_state_tracker else contextlib.nullcontext()
        with torch.no_grad(), fork:
            init_method(self.weight)
        if parallel_mode:
            mark(self.weight, 0 if parallel_mode == "column" else 1)
            if bias and parallel_mode == "column":
                mark(self.bias, 0)

    def forward(self, x: Tensor, is_first_microbatch=None):
        from megatron.core.tensor_parallel import mappings

        parallel = self.parallel_mode if self.tp_size > 1 else None
        if parallel == "column":
            gather = mappings.gather_from_sequence_parallel_region
            x = (gather if self.sequence_parallel else mappings.copy_to_tensor_model_parallel_region)(
                x, group=self.tp_group
            )
        y = F.linear(x, self.weight)
        if parallel == "row":
            scatter = mappings.reduce_scatter_to_sequence_parallel_region
            y = (scatter if self.sequence_parallel else mappings.reduce_from_tensor_model_parallel_region)(
                y, group=self.tp_group
            )
        if self.return_bias:
            return y, self.bias
        return y if self.bias is None else y + self.bias


def mark(tensor: Tensor, dimension: int) -> None:
    tensor.tensor_model_parallel, tensor.partition_dim, tensor.partition_stride = True, dimension, 1


class LayerNormLinear(Linear):
    def __init__(self, in_features, out_features, eps=1e-5, normalization="LayerNorm", **options):
        super().__init__(in_features, out_features, **options)
        assert normalization == "RMSNorm" and not options.get("zero_centered_gamma")
        self.eps = eps
        self.layer_norm_weight = parameter(self.in_features, options.get("params_dtype"), options.get("device"), 1.0)
        self.layer_norm_weight.sequence_parallel = self.sequence_parallel

    def forward(self, x: Tensor, is_first_microbatch=None):
        return super().forward(rms_norm(x, self.layer_norm_weight, self.eps))


class DotProductAttention(Module):
    """Causal attention over padded [s, b, h, d] or packed [t, h, d] queries, keys and values."""

    def __init__(self, *_, softmax_scale=None, attention_dropout=0.0, **__):
        super().__init__()
        assert attention_dropout == 0.0
        self.scale = softmax_scale

    def forward(
        self, q, k, v, attention_mask=None, qkv_format="sbhd", attn_mask_type="causal",
        cu_seqlens_q=None, cu_seqlens_q_padded=None, **_,
    ):  # fmt: skip
        assert "causal" in attn_mask_type and attention_mask is None
        if qkv_format == "sbhd":
            mixed = self.attend(*(x.permute(1, 2, 0, 3) for x in (q, k, v)))
            return mixed.permute(2, 0, 1, 3).flatten(2)
        ends = (cu_seqlens_q if cu_seqlens_q_padded is None else cu_seqlens_q_padded).tolist()
        assert qkv_format == "thd" and ends[-1] == q.shape[0]
        rows = zip(ends[:-1], ends[1:], strict=True)
        mixed = [self.attend(*(x[a:b].transpose(0, 1)[None] for x in (q, k, v))) for a, b in rows]
        return torch.cat([x[0].transpose(0, 1) for x in mixed]).flatten(1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[b, heads, s, d]; fewer heads of keys and values than of queries are shared."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=True)


class Absent:
    """A name that Megatron-Core imports and a dense bf16 decoder never uses."""

    def __init__(self, *_, **__):
        raise NotImplementedError(f"the stand-in for TransformerEngine has no {type(self).__name__}")


def absent(*names: str) -> dict[str, type]:
    return {name: type(name, (Absent,), {}) for name in names}


class FP8GlobalStateManager:
    is_fp8_enabled = is_first_fp8_module = is_fp8_calibration = staticmethod(lambda: False)


CONTENTS = {
    "": {"__version__": VERSION},
    ".common": {},
    ".common.recipe": absent("DelayedScaling", "Format", "Recipe"),
    ".pytorch": {
        "Linear": Linear,
        "LayerNormLinear": LayerNormLinear,
        "RMSNorm": RMSNorm,
        "DotProductAttention": DotProductAttention,
        "fp8_model_init": contextlib.nullcontext,
        **absent("LayerNorm", "GroupedLinear", "TransformerLayer", "LayerNormMLP", "MultiheadAttention"),
    },
    ".pytorch.fp8": {"FP8GlobalStateManager": FP8GlobalStateManager, "fp8_autocast": contextlib.nullcontext},
    ".pytorch.distributed": {
        "activation_recompute_forward": contextlib.nullcontext,
        "is_fp8_activation_recompute_enabled": lambda: False,
        **absent("CudaRNGStatesTracker", "checkpoint"),
    },
    ".pytorch.float8_tensor": absent("Float8Tensor"),
    ".pytorch.tensor": absent("QuantizedTensor"),
    ".pytorch.ops": absent("Sequential", "FusibleOperation"),
    ".pytorch.module": {},
    ".pytorch.module.base": {"TransformerEngineBaseModule": Module, **absent("get_dummy_wgrad")},
    ".pytorch.optimizers": {"FusedAdam": FusedAdam, "FusedSGD": torch.optim.SGD},
}


def install() -> None:
    """Raises RuntimeError where the real one is installed: a test must not be mistaken about what it runs on."""
    if importlib.util.find_spec("transformer_engine"):
        raise RuntimeError("TransformerEngine is installed here; its stand-in must not hide it")
    for name, contents in CONTENTS.items():
        module = types.ModuleType(f"transformer_engine{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None, is_package=True)
        module.__path__ = []
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
        if name:
            parent, child = module.__name__.rsplit(".", 1)
            setattr(sys.modules[parent], child, module)
