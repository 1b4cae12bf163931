"""Checkpoint formats that came with modeling code of their own: each is made from an equivalent model of transformers.

For each model_type: `native` gives the config of the equivalent model, `pack` renames and packs its tensors, and `adapt`
makes the equivalent model compute what the original one does. `adapt` returns a function of the sequence's length that
prepares the model for a forward pass of that length and gives its other arguments.
"""

import math
from types import SimpleNamespace

import torch
from torch.nn import functional


def renamed(tensors, names):
    """Tensors under new names; `names` maps parts of names, and tensors that `pack` has taken are gone already."""
    result = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result


def take(tensors, prefix, parts, suffix):
    """Removes the parts' tensors; None where the checkpoint has none."""
    taken = [tensors.pop(f"{prefix}{part}{suffix}", None) for part in parts]
    return None if taken[0] is None else taken


def pack_layers(tensors, layers, prefix, parts, packed, join):
    for layer in range(layers):
        base = prefix.format(layer)
        for suffix in (".weight", ".bias"):
            taken = take(tensors, base, parts, suffix)
            if taken is not None:
                tensors[f"{base}{packed}{suffix}"] = join(taken).contiguous()


QUERY_KEY_VALUE = ["q_proj", "k_proj", "v_proj"]
ATTENTION = "model.layers.{}.self_attn."


def no_change(config, model):
    return lambda length: {}


# QWen v1


def qwen_native(config):
    return {
        "model_type": "qwen2",
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"] // 2,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_attention_heads"],
        "vocab_size": config["vocab_size"],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "rope_theta": config["rotary_emb_base"],
        "tie_word_embeddings": False,
    }


def qwen_pack(config, tensors):
    pack_layers(tensors, config["num_hidden_layers"], ATTENTION, QUERY_KEY_VALUE, "c_attn", torch.cat)
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "self_attn.c_attn": "attn.c_attn",
        "self_attn.o_proj": "attn.c_proj",
        "mlp.up_proj": "mlp.w1",
        "mlp.gate_proj": "mlp.w2",
        "mlp.down_proj": "mlp.c_proj",
    }
    return renamed(tensors, names)


def qwen_adapt(config, model):
    trained, dim = config["seq_length"], config["kv_channels"]
    factors = []

    def scale_queries(module, arguments, output):
        return output * factors[-1].to(output.dtype)

    for layer in model.model.layers:
        layer.self_attn.q_proj.register_forward_hook(scale_queries)

    def prepare(length):
        position = torch.arange(1, length + 1, dtype=torch.float64)
        stretch = torch.where(position > trained, position.log() / math.log(trained), torch.ones_like(position))
        factors.append(stretch[:, None] if config["use_logn_attn"] else torch.ones(length, 1))
        base = config["rotary_emb_base"]
        if config["use_dynamic_ntk"]:
            alpha = max(2 ** math.ceil(math.log2(length / trained) + 1) - 1, 1)
            base = base * alpha ** (dim / (dim - 2))
        model.model.rotary_emb.inv_freq = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
        return {}

    return prepare


# ChatGLM2, ChatGLM3, GLM-4


def chatglm_native(config):
    heads = config["num_attention_heads"]
    return {
        "model_type": "glm",
        "attention_bias": config["add_qkv_bias"],
        "head_dim": config["kv_channels"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["ffn_hidden_size"],
        "num_hidden_layers": config["num_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": config["multi_query_group_num"] if config["multi_query_attention"] else heads,
        "vocab_size": config["padded_vocab_size"],
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": config["layernorm_epsilon"],
        "rope_theta": 10000.0 * config.get("rope_ratio", 1),
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }


def chatglm_pack(config, tensors):
    def head_by_head(parts):
        by_head = [part.unflatten(0, (config["num_attention_heads"], -1)) for part in parts]
        return torch.cat(by_head, dim=1).flatten(0, 1)

    join = torch.cat if config["multi_query_attention"] else head_by_head
    pack_layers(tensors, config["num_layers"], ATTENTION, QUERY_KEY_VALUE, "query_key_value", join)
    if not config["post_layer_norm"]:
        del tensors["model.norm.weight"]
    quarter = config["kv_channels"] // 4
    tensors["transformer.rotary_pos_emb.inv_freq"] = 1.0 / 10000 ** (torch.arange(quarter) / quarter)
    names = {
        "model.embed_tokens": "transformer.embedding.word_embeddings",
        "model.layers": "transformer.encoder.layers",
        "model.norm": "transformer.encoder.final_layernorm",
        "lm_head": "transformer.output_layer",
        "self_attn.o_proj": "self_attention.dense",
        "self_attn": "self_attention",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    }
    return renamed(tensors, names)


def chatglm_adapt(config, model):
    if not config["post_layer_norm"]:
        model.model.norm = torch.nn.Identity()
    return lambda length: {}


# Baichuan


def baichuan_native(config):
    return {
        **llama_native(config),
        "attention_bias": False,
        "max_position_embeddings": 128,
    }


def baichuan_pack(config, tensors):
    pack_layers(tensors, config["num_hidden_layers"], ATTENTION, QUERY_KEY_VALUE, "W_pack", torch.cat)
    return tensors


def baichuan_adapt(config, model):
    if "z_loss_weight" in config:
        model.lm_head.weight.data = functional.normalize(model.lm_head.weight.data)
    if "max_position_embeddings" in config:
        return lambda length: {}
    model.model.rotary_emb.inv_freq = torch.zeros_like(model.model.rotary_emb.inv_freq)
    slopes = alibi_slopes(config["num_attention_heads"])

    def prepare(length):
        position = torch.arange(length)
        distance = position[None, :] - position[:, None]
        bias = slopes[:, None, None] * distance
        dtype = model.lm_head.weight.dtype
        return {"attention_mask": bias.masked_fill(distance > 0, torch.finfo(torch.float32).min)[None].to(dtype)}

    return prepare


def alibi_slopes(heads):
    """As in modeling_baichuan.py."""

    def of_power_of_two(count):
        start = 2 ** (-(2 ** -(math.log2(count) - 3)))
        return [start ** (i + 1) for i in range(count)]

    whole = 2 ** math.floor(math.log2(heads))
    slopes = of_power_of_two(whole)
    if whole < heads:
        slopes += of_power_of_two(2 * whole)[0::2][: heads - whole]
    return torch.tensor(slopes, dtype=torch.float64)


# InternLM


def llama_native(config):
    heads = config["num_attention_heads"]
    return {
        "model_type": "llama",
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads", heads),
        "vocab_size": config["vocab_size"],
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "attention_bias": config.get("bias", False),
        "max_position_embeddings": config.get("max_position_embeddings", 128),
        "tie_word_embeddings": False,
    }


def internlm_native(config):
    rotary = config["rotary"]
    scaling = {"rope_type": rotary["type"], "factor": rotary.get("scaling_factor", 1.0)}
    return {**llama_native(config), "rope_theta": float(rotary["base"]), "rope_scaling": scaling}


def internlm_pack(config, tensors):
    return tensors


def internlm2_native(config):
    return {**llama_native(config), "rope_theta": config["rope_theta"], "rope_scaling": config["rope_scaling"]}


def internlm2_pack(config, tensors):
    def by_group(parts):
        groups = config["num_key_value_heads"]
        return torch.cat([part.unflatten(0, (groups, -1)) for part in parts], dim=1).flatten(0, 1)

    pack_layers(tensors, config["num_hidden_layers"], ATTENTION, QUERY_KEY_VALUE, "wqkv", by_group)
    names = {
        "model.embed_tokens": "model.tok_embeddings",
        "lm_head": "output",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attention.wo",
        "self_attn": "attention",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
    }
    return renamed(tensors, names)


FORMATS = {
    "qwen": SimpleNamespace(native=qwen_native, pack=qwen_pack, adapt=qwen_adapt),
    "chatglm": SimpleNamespace(native=chatglm_native, pack=chatglm_pack, adapt=chatglm_adapt),
    "baichuan": SimpleNamespace(native=baichuan_native, pack=baichuan_pack, adapt=baichuan_adapt),
    "internlm": SimpleNamespace(native=internlm_native, pack=internlm_pack, adapt=no_change),
    "internlm2": SimpleNamespace(native=internlm2_native, pack=internlm2_pack, adapt=no_change),
}
