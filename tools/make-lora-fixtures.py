"""Writes LoRA adapters as PEFT saves them, with the logits of their models, for test/conformance/lora.test.ts.

    python tools/make-lora-fixtures.py --models test/fixtures/families --out test/fixtures/lora

Needs torch and transformers; the tests do not. The logits come from transformers with weights W + scale * B A in float32.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

CASES = {
    "llama_attention": {
        "model": "llama_bias",
        "targets": ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj"],
        "config": {"r": 3, "lora_alpha": 7, "use_rslora": False},
        "dtype": "float32",
    },
    "qwen3_all_linear": {
        "model": "qwen3",
        "targets": [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
            "lm_head",
        ],
        "config": {
            "r": 4,
            "lora_alpha": 6,
            "use_rslora": True,
            "rank_pattern": {"mlp.down_proj": 2},
            "alpha_pattern": {"lm_head": 3},
        },
        "dtype": "bfloat16",
    },
    "phi3_packed": {
        "model": "phi3_longrope_short",
        "targets": ["self_attn.qkv_proj", "mlp.gate_up_proj"],
        "config": {"r": 3, "lora_alpha": 5, "use_rslora": False},
        "dtype": "float16",
    },
}


def pattern_value(pattern, module, default):
    for end, value in pattern.items():
        if module == end or module.endswith("." + end):
            return value
    return default


@torch.no_grad()
def make(models, out, name, case, seed):
    generator = torch.Generator().manual_seed(seed)
    directory = models / case["model"]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    config = case["config"]
    tensors = {}
    for module, linear in model.named_modules():
        if not isinstance(linear, torch.nn.Linear) or not module.endswith(tuple(case["targets"])):
            continue
        rank = pattern_value(config.get("rank_pattern", {}), module, config["r"])
        alpha = pattern_value(config.get("alpha_pattern", {}), module, config["lora_alpha"])
        scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
        dtype = getattr(torch, case["dtype"])
        a = (torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5).to(dtype)
        b = (torch.randn(linear.out_features, rank, generator=generator) * 0.3).to(dtype)
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
        linear.weight += scale * (b.float() @ a.float())
    target = out / name
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "target_modules": case["targets"], **config}
    (target / "adapter_config.json").write_text(json.dumps(adapter, indent=2) + "\n", encoding="utf-8")
    input_ids = json.loads((directory / "expected.json").read_text(encoding="utf-8"))["input_ids"]
    logits = model(torch.tensor([input_ids]), use_cache=False).logits[0]
    save_file({"logits": logits.contiguous()}, target / "expected.safetensors")
    expected = {"model": case["model"], "input_ids": input_ids}
    (target / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {len(tensors) // 2} modules, largest logit {logits.abs().max():.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed, (name, case) in enumerate(CASES.items()):
        make(options.models, options.out, name, case, seed)


if __name__ == "__main__":
    main()
