"""A cell of tools/gpu.mjs: transformers in bfloat16 on a GPU, whole or offloaded by accelerate, and the GPU's own peak.

The argument is JSON: {"model": CHECKPOINT, "mode": "held" | "cpu_offload" | "disk_offload" | "peak", "promptTokens": N,
"newTokens": N, "prefillTokens": N, "device": "cuda"}. Prints {"tokenSeconds": [...], "prefillSeconds": [...]} or {"peak": FLOP/s}.
"""
import json
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

request = json.loads(sys.argv[1])
torch.manual_seed(1)
device = torch.device(request.get("device", "cuda"))


def synchronize():
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work):
    synchronize()
    begin = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - begin


def peak():
    size = 8192
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(10))


def load():
    directory = request["model"]
    if request["mode"] == "held":
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, device_map=device)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    if request["mode"] == "cpu_offload":
        from accelerate import cpu_offload

        return cpu_offload(model, execution_device=device)
    from accelerate import disk_offload

    return disk_offload(model, request["directory"], execution_device=device)


def prompt(model, count):
    return torch.randint(3, model.config.vocab_size, (1, count), device=device)


def decode_with_static_cache(model):
    """Of generate() with transformers' own static cache, which compiles the step: seconds a token, the prompt's taken off."""
    ids = prompt(model, request["promptTokens"])

    def generate(count):
        model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False, cache_implementation="static")

    few, many = 2, request["newTokens"]
    for count in (few, many):
        generate(count)
    best = {count: min(seconds_of(lambda: generate(count)) for _ in range(3)) for count in (few, many)}
    return (best[many] - best[few]) / (many - few)


def decode_step_by_step(model):
    output = model(prompt(model, request["promptTokens"]), use_cache=True, logits_to_keep=1)
    cache, seconds = output.past_key_values, []
    for _ in range(request["newTokens"] - 1):
        token = output.logits[:, -1:].argmax(-1)

        def step():
            nonlocal output
            output = model(token, past_key_values=cache, use_cache=True)

        seconds.append(seconds_of(step))
    return sorted(seconds)[len(seconds) // 2]


if request["mode"] == "peak":
    print(json.dumps({"peak": peak()}))
    sys.exit()
with torch.inference_mode():
    model = load().eval()
    held = request["mode"] == "held"
    token_seconds = decode_with_static_cache(model) if held else decode_step_by_step(model)
    prefill = [
        seconds_of(lambda: model(prompt(model, request["prefillTokens"]), use_cache=True, logits_to_keep=1))
        for _ in range(3 if held else 1)
    ]
print(json.dumps({"tokenSeconds": token_seconds, "prefillSeconds": min(prefill)}))
