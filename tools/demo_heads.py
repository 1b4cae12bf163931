"""The weights with which tools/train-demo.py starts.

To answer "Where is the red key?" a model must find the place in its context where "key" was said and copy what
followed. Such induction heads need two layers that only pay off together, so in a run of a few million tokens they do
not arise by themselves. Here the first three layers begin with them; training does the rest (and may undo them).

Layer 0: query head h looks at the token h + 1 places back. Coordinate 0 of every embedding is a constant; along it, key
weights are constant and query weights hold the rotation by h + 1 places, so that the rotary score peaks there.

Layers 1 and 2: keys and queries read what those heads wrote, through the same random projection, so that a position
attends to positions where an equal token stands at a given distance. They use the slower half of the rotary
frequencies, because the faster half turns too far over a document.
"""

import torch

CONSTANT = 3.0
SHARPNESS = 1.9
MATCH = 1.7

# (layer, key/value head, distance that its keys read, distances that its query heads read); 0 is the token itself.
MATCHING_HEADS = [(1, 0, 1, (1, 0, 2)), (1, 1, 0, (1, 2, 3)), (2, 0, 3, (3, 2, 1)), (2, 1, 2, (1, 2, 3))]


def normalize(model):
    """Activations near 1 in every layer: unit embeddings, matrices by their width, small outputs into the residual."""
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            parameter.normal_(0, 1)
            parameter[:, 0] = CONSTANT
        elif "lm_head" in name:
            parameter.normal_(0, 0.02)
        elif parameter.ndim == 2:
            into_residual = "o_proj" in name or "down_proj" in name
            parameter.normal_(0, (0.5 if into_residual else 1) * parameter.shape[1] ** -0.5)


def look_back(attention, config):
    """Makes each query head look a fixed number of places back, and write what it finds into a subspace of its own."""
    head, half = config.head_dim, config.head_dim // 2
    fast = half // 2
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    key = torch.zeros(head)
    key[:fast] = SHARPNESS
    attention.v_proj.weight[:, 0] = 0
    attention.q_proj.weight *= 0.1
    attention.k_proj.weight *= 0.1
    attention.k_proj.weight[:, 0] = key.repeat(config.num_key_value_heads)
    for index in range(config.num_attention_heads):
        turned = frequencies * (index + 1)
        query = SHARPNESS * torch.stack([turned.cos(), -turned.sin()])
        query[:, fast:] = 0
        attention.q_proj.weight[index * head : (index + 1) * head, 0] = query.flatten()
    torch.nn.init.orthogonal_(attention.o_proj.weight)


def reader(first, distance, config, size):
    """[size, hidden] weights that read what layer 0 wrote about the token `distance` places back."""
    if distance == 0:
        return first.v_proj.weight[:size]
    start = (distance - 1) * config.head_dim
    return first.o_proj.weight[:, start : start + size].T


@torch.no_grad()
def initialize(model):
    config = model.config
    head, half = config.head_dim, config.head_dim // 2
    group = config.num_attention_heads // config.num_key_value_heads
    normalize(model)
    first = model.model.layers[0].self_attn
    look_back(first, config)
    slow = torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, head)])
    for layer, key_head, key_distance, query_distances in MATCHING_HEADS:
        attention = model.model.layers[layer].self_attn
        attention.k_proj.weight[key_head * head + slow] = MATCH * reader(first, key_distance, config, len(slow))
        for index, distance in enumerate(query_distances):
            rows = (key_head * group + index) * head + slow
            attention.q_proj.weight[rows] = MATCH * reader(first, distance, config, len(slow))
