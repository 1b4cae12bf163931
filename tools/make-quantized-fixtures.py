"""Writes tiny checkpoints that come quantized, with the logits that transformers gives for their dequantized weights.

    python tools/make-quantized-fixtures.py --out test/fixtures/quantized

Needs torch and transformers; the tests do not. Layout and rules are those of make-fixtures.py. Codes, zeros and scales
are drawn at random, packed as the method's own tools pack them, and dequantized by the method's formula into a float32
checkpoint, from which the logits come: activations are not quantized, and weights are not rounded again.
"""

import importlib.util
import math
import tempfile
from pathlib import Path

import torch
from fixture_cases import shape
from safetensors.torch import save_file

specification = importlib.util.spec_from_file_location("fixtures", Path(__file__).with_name("make-fixtures.py"))
fixtures = importlib.util.module_from_spec(specification)
specification.loader.exec_module(fixtures)

SMALL = {**shape(32, 64, 1, 4, 2, 41), "rope_theta": 10000.0}
WIDE_KEYS = {**shape(32, 64, 1, 4, 4, 41), "rope_theta": 10000.0}
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
FLOAT4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
NORMAL_FLOAT4 = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
    + [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
    + [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)


def pack_stream(codes, bits):
    """[n, ...] codes to [ceil(n * bits / 32), ...] int32: a little-endian stream of bits down the first axis."""
    bit_planes = torch.stack([(codes >> bit) & 1 for bit in range(bits)], 1).flatten(0, 1)
    padding = torch.zeros((-len(bit_planes) % 32, *codes.shape[1:]), dtype=torch.long)
    words = torch.cat([bit_planes, padding]).reshape(-1, 32, *codes.shape[1:])
    weights = (1 << torch.arange(32)).reshape(1, 32, *[1] * (codes.ndim - 1))
    return (words * weights).sum(1).to(torch.uint32).view(torch.int32)


def pack_awq(codes):
    """[n, rows] codes to [n, rows / 8] int32, nibbles in AutoAWQ's order."""
    words = codes.reshape(len(codes), -1, 8)[:, :, AWQ_ORDER]
    return (words << (4 * torch.arange(8))).sum(2).to(torch.uint32).view(torch.int32)


class Draw:
    """Random parts of matrices whose weights keep activations near 1."""

    def __init__(self, generator):
        self.generator = generator

    def integers(self, shape, low, high):
        return torch.randint(low, high, shape, generator=self.generator)

    def scales(self, shape, levels, columns, dtype):
        """Of codes that spread over `levels` steps of one scale."""
        spread = 0.7 + 0.6 * torch.rand(shape, generator=self.generator)
        return (spread * 1.5 / math.sqrt(columns) / (levels / math.sqrt(12))).to(dtype)

    def normal(self, shape):
        return torch.randn(shape, generator=self.generator)

    def permutation(self, count):
        return torch.randperm(count, generator=self.generator)


def gptq(draw, module, rows, columns, bits=4, group_size=32, version=1, g_idx=None, zero=None):
    groups = 1 if group_size == -1 else math.ceil(columns / group_size)
    size = columns if group_size == -1 else group_size
    group_of = torch.arange(columns) // size
    if g_idx == "permuted":
        group_of = group_of[draw.permutation(columns)]
    levels = 1 << bits
    codes = draw.integers((columns, rows), 0, levels)
    zeros = draw.integers((groups, rows), levels // 2 - 1, levels // 2 + 1) if zero is None else torch.full((groups, rows), zero)
    scales = draw.scales((groups, rows), levels, columns, torch.float16)
    stored = zeros if version == 2 else (zeros - 1) & (levels - 1)
    tensors = {
        f"{module}.qweight": pack_stream(codes, bits),
        f"{module}.qzeros": pack_stream(stored.T.contiguous(), bits).T.contiguous(),
        f"{module}.scales": scales,
    }
    if g_idx is not None:
        tensors[f"{module}.g_idx"] = group_of.to(torch.int32)
    return tensors, ((codes - zeros[group_of]) * scales.float()[group_of]).T


def awq(draw, module, rows, columns, group_size=32, dtype=torch.float16):
    groups = columns // group_size
    codes, zeros = draw.integers((columns, rows), 0, 16), draw.integers((groups, rows), 5, 11)
    scales = draw.scales((groups, rows), 16, columns, dtype)
    tensors = {f"{module}.qweight": pack_awq(codes), f"{module}.qzeros": pack_awq(zeros), f"{module}.scales": scales}
    group_of = torch.arange(columns) // group_size
    return tensors, ((codes - zeros[group_of]) * scales.float()[group_of]).T


def pack_quantized(draw, module, rows, columns, bits=4, group_size=None, symmetric=True, actorder=False):
    groups = columns // group_size if group_size else 1
    group_of = torch.arange(columns) // (group_size or columns)
    if actorder:
        group_of = group_of[draw.permutation(columns)]
    levels = 1 << bits
    codes = draw.integers((rows, columns), 0, levels)
    scales = draw.scales((rows, groups), levels, columns, torch.bfloat16)
    zeros = torch.full((rows, groups), levels // 2)
    tensors = {
        f"{module}.weight_packed": pack_stream(codes.T.contiguous(), bits).T.contiguous(),
        f"{module}.weight_scale": scales,
        f"{module}.weight_shape": torch.tensor([rows, columns]),
    }
    if not symmetric:
        zeros = draw.integers((rows, groups), levels // 2 - 3, levels // 2 + 3)
        tensors[f"{module}.weight_zero_point"] = pack_stream(zeros, bits)
    if actorder:
        tensors[f"{module}.weight_g_idx"] = group_of.to(torch.int32)
    return tensors, (codes - zeros[:, group_of]) * scales.float()[:, group_of]


def int_quantized(draw, module, rows, columns):
    codes = draw.integers((rows, columns), -128, 128)
    scales = draw.scales((rows, 1), 256, columns, torch.float16)
    return {f"{module}.weight": codes.to(torch.int8), f"{module}.weight_scale": scales}, codes * scales.float()


def fp8(draw, module, rows, columns, strategy="tensor", block=None, suffix="weight_scale", dtype=torch.float32):
    shape = {"tensor": (), "channel": (rows, 1)}.get(strategy)
    if block:
        shape = (math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    values = (draw.normal((rows, columns)) * 100).clamp(-448, 448).to(torch.float8_e4m3fn)
    scales = draw.scales(shape, 100 * math.sqrt(12), columns, dtype)
    spread = scales.float().reshape(shape or (1, 1))
    if block:
        spread = spread.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return {f"{module}.weight": values, f"{module}.{suffix}": scales}, values.float() * spread


def nf4(draw, module, rows, columns):
    """Doubly quantized: absmax is level * scale + offset."""
    codes = draw.integers((rows * columns,), 0, 16)
    blocks = rows * columns // 64
    nested_codes, nested_map = draw.integers((blocks,), 0, 256).to(torch.uint8), torch.linspace(-1, 1, 256)
    nested_absmax = draw.scales((math.ceil(blocks / 256),), 8, columns, torch.float32)
    offset = (2.5 * 1.5) / math.sqrt(columns)
    nested_scales = nested_absmax.repeat_interleave(256)[:blocks]
    absmax = nested_map[nested_codes.long()] * nested_scales + torch.tensor(offset, dtype=torch.float32)
    state = '{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [%d, %d], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": %r}'
    text = (state % (rows, columns, offset)).encode()
    prefix = f"{module}.weight"
    tensors = {
        prefix: (codes[::2] << 4 | codes[1::2]).to(torch.uint8)[:, None],
        f"{prefix}.absmax": nested_codes,
        f"{prefix}.nested_absmax": nested_absmax,
        f"{prefix}.nested_quant_map": nested_map,
        f"{prefix}.quant_map": NORMAL_FLOAT4.clone(),
        f"{prefix}.quant_state.bitsandbytes__nf4": torch.frombuffer(bytearray(text), dtype=torch.uint8),
    }
    return tensors, (NORMAL_FLOAT4[codes].reshape(-1, 64) * absmax[:, None]).reshape(rows, columns)


def mxfp4(draw, name, experts, rows, columns):
    """The dequantized weight is [experts, columns, rows], as plain gpt-oss checkpoints store it."""
    codes = draw.integers((experts, rows, columns // 32, 32), 0, 16)
    exponent = round(math.log2(1.5 / math.sqrt(columns) / 2.9))
    scales = draw.integers((experts, rows, columns // 32), 126 + exponent, 129 + exponent)
    tensors = {
        f"{name}_blocks": (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8),
        f"{name}_scales": scales.to(torch.uint8),
    }
    weights = FLOAT4[codes] * torch.exp2(scales.float() - 127)[..., None]
    return tensors, weights.reshape(experts, rows, columns).transpose(1, 2)


def gptq_settings(**values):
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False, **values}


def compressed_settings(format, weights, **values):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}, **values}


def linears(module):
    return module.endswith("_proj")


PHI3 = {**shape(32, 48, 1, 4, 2, 43), "original_max_position_embeddings": 128, "rope_theta": 10000.0}
MIXTRAL = {**shape(32, 32, 1, 4, 2, 43), "num_experts_per_tok": 2, "num_local_experts": 3, "rope_theta": 10000.0}
GPT_OSS = {
    **shape(64, 32, 2, 4, 2, 41, head_dim=16),
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 6,
    "rope_parameters": {"rope_theta": 150000.0, "rope_type": "default"},
}
DEEPSEEK_V3 = {
    **shape(32, 40, 2, 2, 2, 43),
    "first_k_dense_replace": 1,
    "kv_lora_rank": 24,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_experts_per_tok": 2,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "rope_theta": 10000.0,
    "routed_scaling_factor": 2.5,
    "topk_group": 1,
    "v_head_dim": 12,
}

# Each case: the settings; `settings_file` if they are not in config.json; `make`, which packs a module; and `converts`,
# which modules it packs.
CASES = {
    "gptq_2bit": {
        "config": SMALL,
        "settings": gptq_settings(bits=2, group_size=16),
        "make": lambda *place: gptq(*place, bits=2, group_size=16, g_idx="plain"),
        "notes": "GPTQ of 2 bits in groups of 16, with a trivial g_idx.",
    },
    "gptq_3bit": {
        "config": WIDE_KEYS,
        "settings": gptq_settings(bits=3, checkpoint_format="gptq"),
        "make": lambda *place: gptq(*place, bits=3),
        "notes": "GPTQ of 3 bits, whose codes straddle words.",
    },
    "gptq_8bit_v2": {
        "config": SMALL,
        "settings": gptq_settings(bits=8, checkpoint_format="gptq_v2"),
        "make": lambda *place: gptq(*place, bits=8, version=2),
        "notes": "GPTQ of 8 bits in the second format, whose zeros are stored as they are.",
    },
    "gptq_head_channel": {
        "config": SMALL,
        "settings": {key: value for key, value in gptq_settings(group_size=-1, lm_head=True).items() if key != "quant_method"},
        "settings_file": "quantize_config.json",
        "converts": lambda module: linears(module) or module == "lm_head",
        "make": lambda *place: gptq(*place, group_size=-1, zero=8 if place[1] != "lm_head" else None),
        "notes": "GPTQ with one group a row and a quantized head; the settings are in quantize_config.json only.",
        "vocabulary": 48,
    },
    "gptq_dynamic": {
        "config": SMALL,
        "settings": gptq_settings(
            dynamic={
                "+:.*\\.layers\\.0\\.mlp\\.(up|gate)_proj": {"bits": 8, "group_size": 16},
                "-:.*self_attn\\.[qk]_proj$": {},
            }
        ),
        "converts": lambda module: linears(module) and not module.endswith(("q_proj", "k_proj")),
        "make": lambda *place: gptq(*place, bits=8, group_size=16) if place[1].endswith(("up_proj", "gate_proj")) else gptq(*place),
        "notes": "GPTQ with settings of their own for some modules, and others left unconverted.",
    },
    "gptq_actorder": {
        "config": SMALL,
        "settings": gptq_settings(group_size=16, desc_act=True, checkpoint_format="gptq"),
        "make": lambda *place: gptq(*place, group_size=16, g_idx="permuted"),
        "notes": "GPTQ in act-order.",
    },
    "gptq_uneven_groups": {
        "config": SMALL,
        "settings": gptq_settings(group_size=24, desc_act=True),
        "make": lambda *place: gptq(*place, group_size=24, g_idx="permuted"),
        "notes": "GPTQ in act-order with groups of 24 columns, which end within steps of 16.",
    },
    "awq_quant_config": {
        "config": SMALL,
        "settings": {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM", "modules_to_not_convert": ["down_proj"]},
        "settings_file": "quant_config.json",
        "converts": lambda module: linears(module) and not module.endswith("down_proj"),
        "make": awq,
        "notes": "AWQ with its settings in quant_config.json and a module left unconverted.",
    },
    "awq_small_groups_bf16": {
        "config": SMALL,
        "settings": {"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True, "version": "gemm"},
        "make": lambda *place: awq(*place, group_size=8, dtype=torch.bfloat16),
        "dtype": "bfloat16",
        "notes": "AWQ in groups of 8 columns, with bfloat16 scales.",
    },
    "compressed_pack_symmetric": {
        "config": SMALL,
        "settings": compressed_settings(
            "pack-quantized",
            {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 16},
            ignore=["lm_head", "re:.*mlp\\.down_proj$"],
        ),
        "converts": lambda module: linears(module) and not module.endswith("down_proj"),
        "make": lambda *place: pack_quantized(*place, group_size=16),
        "dtype": "bfloat16",
        "notes": "compressed-tensors pack-quantized, symmetric 4 bits in groups of 16, down_proj ignored by a pattern.",
    },
    "compressed_pack_asymmetric": {
        "config": SMALL,
        "settings": compressed_settings(
            "pack-quantized",
            {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32, "actorder": "group"},
            ignore=["lm_head"],
        ),
        "make": lambda *place: pack_quantized(*place, group_size=32, symmetric=False, actorder=True),
        "notes": "compressed-tensors pack-quantized with packed zeros and an order of columns.",
    },
    "compressed_pack_8bit_channel": {
        "config": SMALL,
        "settings": compressed_settings(
            "pack-quantized", {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}, ignore=["lm_head"]
        ),
        "make": lambda *place: pack_quantized(*place, bits=8),
        "notes": "compressed-tensors pack-quantized, 8 bits with a scale a row.",
    },
    "compressed_int8": {
        "config": SMALL,
        "settings": compressed_settings(
            "int-quantized", {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}, ignore=["lm_head"]
        ),
        "make": int_quantized,
        "notes": "compressed-tensors int-quantized: signed bytes with a scale a row.",
    },
    "compressed_fp8_channel": {
        "config": SMALL,
        "settings": compressed_settings(
            "float-quantized", {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}, ignore=["lm_head"]
        ),
        "make": lambda *place: fp8(*place, strategy="channel", dtype=torch.bfloat16),
        "dtype": "bfloat16",
        "notes": "compressed-tensors FP8 with a bfloat16 scale a row.",
    },
    "compressed_fp8_block": {
        "config": SMALL,
        "settings": compressed_settings(
            "float-quantized",
            {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "block", "block_structure": [24, 24]},
            ignore=["lm_head"],
        ),
        "make": lambda *place: fp8(*place, block=(24, 24)),
        "notes": "compressed-tensors FP8 in blocks of 24 by 24, which end within steps of 16 columns.",
    },
    "fp8_tensor": {
        "config": SMALL,
        "settings": {"quant_method": "fp8", "activation_scheme": "static", "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn.o_proj"]},
        "converts": lambda module: linears(module) and not module.endswith("o_proj"),
        "make": lambda *place: fp8(*place, suffix="weight_scale_inv"),
        "notes": "FP8 with one scale a matrix and o_proj left unconverted.",
    },
    "nf4_nested": {
        "config": {**SMALL, "hidden_size": 64},
        "settings": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
        "make": nf4,
        "notes": "bitsandbytes NF4, doubly quantized, whose blocks end with rows.",
    },
    "phi3_gptq": {
        "family": "phi3",
        "config": PHI3,
        "settings": gptq_settings(group_size=16, desc_act=True),
        "make": lambda *place: gptq(*place, group_size=16, g_idx="permuted"),
        "notes": "GPTQ in act-order of projections that hold several matrices.",
    },
    "mixtral_awq": {
        "family": "mixtral",
        "config": MIXTRAL,
        "settings": {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "modules_to_not_convert": ["gate"]},
        "converts": lambda module: linears(module) or module.endswith((".w1", ".w2", ".w3")),
        "make": lambda *place: awq(*place, group_size=16),
        "notes": "AWQ of experts, with the router left unconverted.",
    },
    "deepseek_v3_fp8": {
        "family": "deepseek_v3",
        "config": DEEPSEEK_V3,
        "settings": {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [16, 16]},
        "converts": lambda module: linears(module) or module.endswith("_with_mqa"),
        "make": lambda *place: fp8(*place, block=(16, 16), suffix="weight_scale_inv"),
        "dtype": "bfloat16",
        "notes": "Blocks of FP8 under latent attention, whose key half is used transposed.",
    },
    "gpt_oss_mxfp4": {
        "family": "gpt_oss",
        "config": GPT_OSS,
        "settings": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
        "experts": True,
        "make": mxfp4,
        "dtype": "bfloat16",
        "notes": "gpt-oss with experts in MXFP4.",
    },
}


def convert(case, tensors, seed):
    """(tensors of the quantized checkpoint, tensors of the plain one) in place of random ones of the same shapes."""
    draw = Draw(torch.Generator().manual_seed(seed))
    converts = case.get("converts", linears)
    quantized, plain = {}, {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        parts, weights = {name: tensor}, tensor
        if case.get("experts"):
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                experts, columns, rows = tensor.shape
                parts, weights = case["make"](draw, name, experts, rows, columns)
        elif tensor.ndim == 2 and converts(module):
            parts, weights = case["make"](draw, module, *tensor.shape)
        quantized.update(parts)
        plain[name] = weights.float().contiguous()
    return quantized, plain


@torch.no_grad()
def make(directory, name, case):
    directory.mkdir(parents=True, exist_ok=True)
    case = {"family": "llama", "dtype": "float16", "length": 9, **case}
    case["config"] = {**case["config"], "vocab_size": case.get("vocabulary", case["config"]["vocab_size"])}
    config = fixtures.config_json(case)
    with tempfile.TemporaryDirectory() as folder:
        native = Path(folder)
        fixtures.write_json(native / "config.json", config)
        for seed in range(1, 400):
            quantized, plain = convert(case, fixtures.random_tensors(native, case, seed), seed)
            fixtures.write_tensors(native, plain)
            expected = fixtures.expect(native, case, seed)
            if expected is not None:
                break
        else:
            raise ValueError(f"{name}: no seed below 400 keeps greedy steps apart")
    fixtures.write_tensors(directory, quantized)
    if "settings_file" in case:
        fixtures.write_json(directory / case["settings_file"], case["settings"])
    else:
        config["quantization_config"] = case["settings"]
    fixtures.write_json(directory / "config.json", config)
    logits, values = expected
    save_file({"logits": logits.contiguous()}, directory / "expected.safetensors")
    about = {"case": name, "model_type": case["family"], "notes": case["notes"], "seed": seed}
    fixtures.write_json(directory / "expected.json", {**about, **values})
    print(f"{name}: seed {seed}, largest logit {logits.abs().max():.2f}", flush=True)


if __name__ == "__main__":
    fixtures.run(__doc__, CASES, make)
