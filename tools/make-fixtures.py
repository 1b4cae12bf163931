"""Writes tiny random checkpoints with the logits that transformers gives for them, for the tests of model families.

    python tools/make-fixtures.py --out test/fixtures/families

Needs torch and transformers; the tests do not. Each case is a directory with config.json and weights in the layout of
a published checkpoint, expected.json (`input_ids`, and `greedy`: 12 ids that follow, each from a full recomputation) and
expected.safetensors (`logits`, float32, [len(input_ids), vocab]). Weights are read exactly as stored; all arithmetic is
float32 with eager attention. An engine passes if max |got - expected| <= 1e-3 * max |expected| and the greedy ids are
the same. Seeds are chosen so that at each greedy step the best logit leads by 0.005 * max |expected|, and a float64 run
must agree with the stored logits to 1e-5 of the largest.

The cases below have awkward shapes: head_dim * heads unlike hidden_size, odd vocabularies, 6 query heads on 2 key/value
heads, settings of rope that only some published models have. The other directories of test/fixtures/families come from
the project's shared reference set, which has the same layout and rules.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

GREEDY_TOKENS = 12
LEAST_GAP = 0.005
COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "use_cache": True,
}
FAMILIES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "mlp_bias": False},
    "mistral": {"architectures": ["MistralForCausalLM"]},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False, "max_window_layers": 28},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "use_sliding_window": False},
}


def shape(hidden, intermediate, layers, heads, kv_heads, vocabulary, head_dim=None, positions=128, tied=False):
    """The size keys of config.json; head_dim is left out where published configs leave it out."""
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "tie_word_embeddings": tied,
    }
    return sizes if head_dim is None else {**sizes, "head_dim": head_dim}


CASES = {
    "llama_gqa3_sharded": {
        "family": "llama",
        "dtype": "bfloat16",
        "shards": 2,
        "length": 19,
        "config": {**shape(60, 90, 3, 6, 2, 157), "rope_theta": 10000.0, "rope_scaling": None},
        "notes": "Two shards, 6 query heads on 2 key/value heads, no head_dim in the config, odd vocabulary.",
    },
    "llama_wide_heads": {
        "family": "llama",
        "dtype": "float16",
        "length": 15,
        "config": {**shape(36, 50, 2, 3, 1, 109, head_dim=22), "rope_theta": 500000.0, "rope_scaling": None},
        "notes": "head_dim * heads (66) is larger than hidden_size (36); one key/value head.",
    },
    "llama_narrow_heads_llama3_v5": {
        "family": "llama",
        "dtype": "float32",
        "length": 28,
        "config": {
            **shape(52, 68, 2, 4, 2, 121, head_dim=8),
            "rope_parameters": {
                "factor": 4.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 16,
                "rope_theta": 300.0,
                "rope_type": "llama3",
            },
        },
        "notes": "head_dim * heads (32) is smaller than hidden_size (52); llama3 rope as rope_parameters.",
    },
    "llama_yarn_mscale_v5": {
        "family": "llama",
        "dtype": "float32",
        "length": 30,
        "config": {
            **shape(32, 44, 2, 4, 2, 101, head_dim=16, positions=128),
            "rope_parameters": {
                "beta_fast": 8.0,
                "beta_slow": 1.0,
                "factor": 8.0,
                "mscale": 0.9,
                "mscale_all_dim": 0.4,
                "original_max_position_embeddings": 16,
                "rope_theta": 1000.0,
                "rope_type": "yarn",
                "truncate": False,
            },
        },
        "notes": "yarn whose attention factor comes from mscale / mscale_all_dim, and whose bounds are not rounded.",
    },
    "qwen2_yarn_attention_factor": {
        "family": "qwen2",
        "dtype": "bfloat16",
        "length": 27,
        "config": {
            **shape(48, 66, 2, 4, 2, 119, positions=64),
            "rope_theta": 10000.0,
            "rope_scaling": {
                "attention_factor": 1.3,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "type": "yarn",
            },
        },
        "notes": "yarn with an explicit attention_factor, named by the old key type; biases on query, key and value.",
    },
    "qwen3_tied": {
        "family": "qwen3",
        "dtype": "bfloat16",
        "length": 21,
        "config": {
            **shape(40, 58, 3, 6, 2, 131, head_dim=10, tied=True),
            "rope_theta": 1000000.0,
            "rope_scaling": None,
        },
        "notes": "Tied head, query and key norms, head_dim * heads (60) unlike hidden_size (40).",
    },
    "mistral_window_bf16": {
        "family": "mistral",
        "dtype": "bfloat16",
        "length": 23,
        "config": {**shape(48, 70, 3, 6, 2, 107), "rope_theta": 10000.0, "sliding_window": 5},
        "notes": "Sliding window of 5 keys, no head_dim in the config, bfloat16.",
    },
}


def config_json(case):
    dtype_key = "dtype" if "rope_parameters" in case["config"] else "torch_dtype"
    config = {**COMMON, **FAMILIES[case["family"]], **case["config"], "model_type": case["family"]}
    return {**config, dtype_key: case["dtype"]}


def write_weights(directory, case, seed):
    """Random weights that keep activations near 1 and logits well apart, in `shards` files."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    tensors = {}
    for name, parameter in empty.state_dict().items():
        if name == "lm_head.weight" and case["config"]["tie_word_embeddings"]:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            values = 0.3 * noise
        else:
            values = noise * (1 if "embed" in name else 1.5 / math.sqrt(parameter.shape[1]))
        tensors[name] = values.to(getattr(torch, case["dtype"]))
    names, shards = list(tensors), case.get("shards", 1)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = names[len(names) * index // shards : len(names) * (index + 1) // shards]
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def load(directory, dtype):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def expect(directory, case, seed):
    """(logits, input ids, greedy ids) of the checkpoint in `directory`, or None if a greedy step is too close."""
    model = load(directory, torch.float32)
    vocabulary = case["config"]["vocab_size"]
    drawn = torch.randint(3, vocabulary, (case["length"] - 1,), generator=torch.Generator().manual_seed(seed))
    input_ids = [1, *drawn.tolist()]
    logits = model(torch.tensor([input_ids]), use_cache=False).logits[0]
    sequence = list(input_ids)
    for _ in range(GREEDY_TOKENS):
        last = model(torch.tensor([sequence]), use_cache=False).logits[0, -1]
        best = last.topk(2).values
        if best[0] - best[1] < LEAST_GAP * logits.abs().max():
            return None
        sequence.append(last.argmax().item())
    exact = load(directory, torch.float64)(torch.tensor([input_ids]), use_cache=False).logits[0]
    error = ((exact - logits).abs().max() / exact.abs().max()).item()
    if error > 1e-5:
        raise ValueError(f"{directory.name}: float32 and float64 logits differ by {error:.1e} of the largest")
    return logits, input_ids, sequence[len(input_ids) :]


def make(directory, name, case):
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config_json(case))
    for seed in range(1, 200):
        write_weights(directory, case, seed)
        expected = expect(directory, case, seed)
        if expected is not None:
            break
    else:
        raise ValueError(f"{name}: no seed below 200 keeps greedy steps apart")
    logits, input_ids, greedy = expected
    save_file({"logits": logits.contiguous()}, directory / "expected.safetensors")
    write_json(
        directory / "expected.json",
        {
            "case": name,
            "model_type": case["family"],
            "notes": case["notes"],
            "seed": seed,
            "input_ids": input_ids,
            "greedy": greedy,
        },
    )
    print(f"{name}: seed {seed}, largest logit {logits.abs().max():.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        make(options.out / name, name, case)


if __name__ == "__main__":
    main()
