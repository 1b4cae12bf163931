"""Writes tiny random GGUF models with the logits that transformers gives for their dequantized weights.

    python tools/make-gguf-fixtures.py --out test/fixtures/gguf

Needs torch, transformers and gguf (llama.cpp's Python package, which writes the files and whose gguf.quants quantizes and
dequantizes); the tests do not. Each case is a directory with model.gguf, expected.json (`input_ids`, and `greedy`: 12 ids
that follow, each from a full recomputation) and expected.safetensors (`logits`, float32). An engine passes if
max |got - expected| <= 1e-3 * max |expected| and the greedy ids are the same. Seeds are chosen so that at each greedy
step the best logit leads by 0.005 * max |expected|.

gguf.quants has no quantizers for the K types: their blocks are random bytes with scales that keep weights near the
usual size. Where transformers reads the file itself (llama and qwen2), its logits are compared too, so that names, rows and
dimensions are not only right by this script's own idea of them; that needs accelerate.
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

GREEDY_TOKENS = 12
LEAST_GAP = 0.005
# Where a block of each K type has its float16 scales, and how much larger its minimum's scale is, so that the mean is 0.
K_SCALES = {
    Type.Q2_K: ([80, 82], 1.5),
    Type.Q3_K: ([108], None),
    Type.Q4_K: ([0, 2], 7.5),
    Type.Q5_K: ([0, 2], 15.5),
    Type.Q6_K: ([208], None),
}
# Hugging Face module within a layer: GGUF name.
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
SANDWICH = {
    **LAYER,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def sizes(hidden, intermediate, layers, heads, kv_heads, vocabulary, head_dim, tied=False):
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "head_dim": head_dim,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# `types`: of the tensors whose GGUF name holds the key, first match; "" is the rest. Vectors are F32.
CASES = {
    "llama_q8_0": {
        "model_type": "llama",
        "config": {**sizes(64, 96, 2, 4, 2, 620, 16), "rope_theta": 10000.0},
        "types": {"": Type.Q8_0},
        "length": 17,
        "tokenizer": "spm_llama",
        "notes": "All matrices Q8_0, with a sentencepiece vocabulary.",
    },
    "llama_q4_k_m": {
        "model_type": "llama",
        "config": {**sizes(256, 256, 1, 8, 2, 97, 32), "rope_theta": 500000.0},
        "types": {"attn_v": Type.Q6_K, "ffn_down": Type.Q6_K, "output.weight": Type.Q6_K, "": Type.Q4_K},
        "length": 15,
        "notes": "Q4_K with Q6_K where llama.cpp's Q4_K_M has it.",
    },
    "llama_k_mix_rope_factors": {
        "model_type": "llama",
        "config": {**sizes(256, 256, 1, 4, 1, 53, 64), "rope_parameters": LLAMA3_ROPE},
        "types": {
            "token_embd": Type.Q3_K,
            "attn_q": Type.Q2_K,
            "attn_k": Type.Q3_K,
            "attn_output": Type.Q3_K,
            "ffn_up": Type.Q3_K,
            "ffn_down": Type.Q2_K,
            "output.weight": Type.Q2_K,
            "": Type.Q5_K,
        },
        "length": 60,
        "notes": "Q2_K, Q3_K and Q5_K; Llama 3's rotary scaling as a rope_freqs tensor.",
    },
    "qwen2_q5_tied": {
        "model_type": "qwen2",
        "config": {**sizes(64, 96, 2, 4, 2, 448, 16, tied=True), "rope_theta": 1000000.0},
        "types": {"attn_q": Type.Q5_1, "ffn": Type.Q5_1, "": Type.Q5_0},
        "length": 16,
        "tokenizer": "bytelevel_qwen",
        "notes": "Q5_0 and Q5_1, biases, tied head, a byte-level vocabulary.",
    },
    "qwen3_q4_0_bf16": {
        "model_type": "qwen3",
        "config": {**sizes(64, 96, 2, 4, 2, 101, 24), "rope_theta": 1000000.0},
        "types": {"attn": Type.BF16, "": Type.Q4_0},
        "length": 18,
        "notes": "Q4_0 and BF16, query and key norms, head width * heads (96) unlike the embedding (64).",
    },
    "mixtral_q4_1": {
        "model_type": "mixtral",
        "config": {
            **sizes(64, 64, 2, 4, 2, 89, 16),
            "rope_theta": 10000.0,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": None,
        },
        "types": {"ffn_gate_inp": Type.F32, "_exps": Type.Q4_1, "": Type.F16},
        "length": 14,
        "notes": "Experts stacked in Q4_1, router F32, the rest F16.",
    },
    "qwen2moe_q5_0": {
        "model_type": "qwen2_moe",
        "config": {
            **sizes(32, 64, 2, 4, 2, 83, 8),
            "rope_theta": 1000000.0,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
            "norm_topk_prob": False,
        },
        "types": {"ffn_gate_inp": Type.F32, "": Type.Q5_0},
        "length": 15,
        "notes": "A shared expert with its gate, biases; weights of experts are not divided by their sum.",
    },
    "qwen3moe_q8_0": {
        "model_type": "qwen3_moe",
        "config": {
            **sizes(32, 64, 2, 4, 2, 79, 16),
            "rope_theta": 1000000.0,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
        "types": {"ffn_gate_inp": Type.F32, "": Type.Q8_0},
        "length": 16,
        "notes": "Query and key norms; weights of experts are divided by their sum.",
    },
    "gemma_q4_0": {
        "model_type": "gemma",
        "config": {**sizes(64, 96, 2, 4, 1, 95, 16, tied=True), "rope_theta": 10000.0},
        "types": {"token_embd": Type.Q8_0, "": Type.Q4_0},
        "length": 13,
        "notes": "Q4_0 with a Q8_0 embedding, which is also the head.",
    },
    "gemma2_q5_1": {
        "model_type": "gemma2",
        "config": {
            **sizes(64, 96, 3, 4, 2, 93, 16, tied=True),
            "rope_theta": 10000.0,
            "sliding_window": 6,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 4.0,
            "final_logit_softcapping": 6.0,
        },
        "types": {"": Type.Q5_1},
        "length": 19,
        "notes": "Windows in turn, soft caps other than the defaults.",
    },
    "gemma3_f16": {
        "model_type": "gemma3_text",
        "config": {
            **sizes(40, 56, 7, 4, 2, 91, 8, tied=True),
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
        },
        "types": {"": Type.F16},
        "length": 21,
        "notes": "Five windows and one global layer, whose rotary embedding is scaled.",
    },
}


def layer_types(case):
    period = {"gemma2": 2, "gemma3_text": 6}.get(case["model_type"])
    count = case["config"]["num_hidden_layers"]
    kinds = ["full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(count)] if period else None
    return {"layer_types": kinds} if kinds else {}


def make_model(case, seed):
    """The model with random weights that keep activations near 1, before quantization."""
    config = AutoConfig.for_model(case["model_type"], **case["config"], **layer_types(case))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    gemma = case["model_type"].startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                # Gemma multiplies by 1 + w; the file holds the sum, so w is what is left of a float32 sum.
                parameter.copy_((1 + 0.2 * noise) - 1 if gemma else 1 + 0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * noise)
            elif "embed" in name:
                # Gemma multiplies embeddings by the root of their width.
                parameter.copy_(noise / math.sqrt(parameter.shape[-1]) if gemma else noise)
            else:
                parameter.copy_(noise * 1.5 / math.sqrt(parameter.shape[-1]))
    return model


def random_blocks(shape, kind, deviation, generator):
    """Random bytes of a K type; the scales are such that values deviate by about `deviation`."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    places, ratio = K_SCALES[kind]

    def with_scales(scales):
        for place, factor in zip(places, [1.0, ratio]):
            blocks[:, place : place + 2] = (scales * factor).astype(np.float16).reshape(-1, 1).view(np.uint8)
        return blocks

    unit = gguf.quants.dequantize(with_scales(np.full(len(blocks), 2.0**-7)), kind).std() * 2**7
    signs = generator.choice([1, -1], len(blocks))
    with_scales(signs * deviation / unit * generator.uniform(0.7, 1.3, len(blocks)))
    return blocks.reshape(shape[0], -1)


def quantize(values, kind, generator):
    """(stored rows, float32 values that they mean)"""
    if kind in K_SCALES:
        stored = random_blocks(values.shape, kind, 1.5 / math.sqrt(values.shape[1]), generator)
    else:
        stored = gguf.quants.quantize(values, kind)
    return stored, gguf.quants.dequantize(stored, kind)


def type_of(name, types):
    return next(kind for key, kind in types.items() if key in name)


def rows_for_neighbours(weights, heads):
    """Row order of llama.cpp's converter: pairs that rotate together lie side by side."""
    return weights.reshape(heads, 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def rows_for_halves(weights, heads):
    return weights.reshape(heads, -1, 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def store_weights(model, case, seed):
    """GGUF name: (stored rows, type). The model's weights become what those mean."""
    generator = np.random.default_rng(seed)
    config = model.config
    sandwich = case["model_type"] in ("gemma2", "gemma3_text")
    tensors = {}

    def store(name, values, heads=None):
        ordered = values if heads is None else rows_for_neighbours(values, heads)
        if values.ndim == 1:
            tensors[name] = (ordered, Type.F32)
            return values
        kind = type_of(name, case["types"])
        stored, meant = quantize(ordered.reshape(-1, ordered.shape[-1]), kind, generator)
        tensors[name] = (stored.reshape(*values.shape[:-1], -1), kind)
        meant = meant.reshape(values.shape)
        return meant if heads is None else rows_for_halves(meant, heads)

    with torch.no_grad():
        for full, parameter in model.named_parameters():
            values = parameter.numpy().astype(np.float32)
            module, _, suffix = full.rpartition(".")
            if module in MODEL:
                name = f"{MODEL[module]}.{suffix}"
            else:
                _, _, layer, module = full.split(".", 3)
                if module == "mlp.experts.gate_up_proj":
                    gate, up = np.split(values, 2, axis=1)
                    gate = store(f"blk.{layer}.ffn_gate_exps.weight", gate)
                    up = store(f"blk.{layer}.ffn_up_exps.weight", up)
                    parameter.copy_(torch.from_numpy(np.concatenate([gate, up], axis=1)))
                    continue
                if module == "mlp.experts.down_proj":
                    parameter.copy_(torch.from_numpy(store(f"blk.{layer}.ffn_down_exps.weight", values)))
                    continue
                module, _, suffix = module.rpartition(".")
                name = f"blk.{layer}.{(SANDWICH if sandwich else LAYER)[module]}.{suffix}"
            if case["model_type"].startswith("gemma") and name.endswith("norm.weight"):
                tensors[name] = (values + 1, Type.F32)
                continue
            heads = None
            if case["model_type"] in ("llama", "mixtral"):
                heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module[-6:])
            if module == "mlp.shared_expert_gate":
                tensors[name] = (values[0], Type.F32)
                continue
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(store(name, values, heads))))
    if "rope_parameters" in case["config"] and case["model_type"] == "llama":
        head_dim = case["config"]["head_dim"]
        plain = 1 / 10000.0 ** (np.arange(0, head_dim, 2) / head_dim)
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        tensors["rope_freqs.weight"] = (factors.astype(np.float32), Type.F32)
    return tensors


def add_tokenizer(writer, folder):
    """Only what the file needs: `folder` holds the tokenizer.json from which the vocabulary comes."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    names = {**{index: name for name, index in tokenizer["model"]["vocab"].items()}}
    names.update({index: token["content"] for index, token in added.items()})
    tokens = [names[index] for index in range(len(names))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    sentencepiece = tokenizer["model"]["byte_fallback"]
    types, scores = [], []
    ranks = {merge.replace(" ", ""): rank for rank, merge in reversed(list(enumerate(merges)))}
    for index, name in enumerate(tokens):
        if sentencepiece and name == "<unk>":
            types.append(gguf.TokenType.UNKNOWN)
        elif index in added:
            types.append(gguf.TokenType.CONTROL)
        elif sentencepiece and len(name) == 6 and name.startswith("<0x"):
            types.append(gguf.TokenType.BYTE)
        else:
            types.append(gguf.TokenType.NORMAL)
        scores.append(-float(ranks.get(name, len(merges))))
    writer.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    if sentencepiece:
        writer.add_token_scores(scores)
    else:
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_merges(merges)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for kind, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        token = config.get(f"{kind}_token")
        content = token["content"] if isinstance(token, dict) else token
        if content is not None:
            add(tokens.index(content))
    writer.add_add_bos_token(sentencepiece)
    writer.add_chat_template("{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}")


def write_gguf(path, case, tensors, tokenizers):
    config, kind = case["config"], case["model_type"]
    architecture = {"mixtral": "llama", "gemma3_text": "gemma3"}.get(kind, kind.replace("_", ""))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.parent.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    rope = config.get("rope_parameters", {})
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta")))
    if kind in ("llama", "mixtral"):
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(config["head_dim"])
    if "num_experts_per_tok" in config:
        writer.add_expert_count(config.get("num_local_experts", config.get("num_experts")))
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in config:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if kind in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if kind == "gemma3_text":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if "tokenizer" in case:
        add_tokenizer(writer, tokenizers / case["tokenizer"])
    for name, (stored, quantization) in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(stored), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def expect(model, case, seed):
    """(logits, input ids, greedy ids), or None if a greedy step is too close."""
    drawn = torch.randint(3, case["config"]["vocab_size"], (case["length"] - 1,), generator=torch.Generator().manual_seed(seed))
    input_ids = [1, *drawn.tolist()]
    logits = model(torch.tensor([input_ids]), use_cache=False).logits[0]
    sequence = list(input_ids)
    for _ in range(GREEDY_TOKENS):
        last = model(torch.tensor([sequence]), use_cache=False).logits[0, -1]
        best = last.topk(2).values
        if best[0] - best[1] < LEAST_GAP * logits.abs().max():
            return None
        sequence.append(last.argmax().item())
    return logits, input_ids, sequence[len(input_ids) :]


@torch.no_grad()
def check_with_transformers(path, case, input_ids, logits):
    """transformers reads these from GGUF itself, though not head widths of their own or frequency factors."""
    if case["model_type"] not in ("llama", "qwen2") or "rope_parameters" in case["config"]:
        return "not read by transformers"
    other = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    difference = (other(torch.tensor([input_ids])).logits[0] - logits).abs().max() / logits.abs().max()
    if difference > 1e-4:
        raise ValueError(f"{path}: transformers' own reader gives logits that differ by {difference:.1e} of the largest")
    return f"transformers' own reader agrees to {difference:.1e}"


def make(directory, name, case, tokenizers):
    directory.mkdir(parents=True, exist_ok=True)
    for seed in range(1, 200):
        model = make_model(case, seed)
        tensors = store_weights(model, case, seed)
        expected = expect(model, case, seed)
        if expected is not None:
            break
    else:
        raise ValueError(f"{name}: no seed below 200 keeps greedy steps apart")
    logits, input_ids, greedy = expected
    path = directory / "model.gguf"
    write_gguf(path, case, tensors, tokenizers)
    save_file({"logits": logits.contiguous()}, directory / "expected.safetensors")
    facts = {"case": name, "notes": case["notes"], "seed": seed, "input_ids": input_ids, "greedy": greedy}
    if "tokenizer" in case:
        facts["tokenizer"] = case["tokenizer"]
    (directory / "expected.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    checked = check_with_transformers(path, case, input_ids, logits)
    print(f"{name}: seed {seed}, {path.stat().st_size} bytes, largest logit {logits.abs().max():.2f}, {checked}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizers", type=Path, default=Path("test/fixtures/tokenizers"))
    parser.add_argument("--case", action="append", help="only this one; may be given again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        if not options.case or name in options.case:
            make(options.out / name, name, case, options.tokenizers)


if __name__ == "__main__":
    main()
