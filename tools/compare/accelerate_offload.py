"""One cell of tools/compare.mjs: transformers in bfloat16 on the CPU, held, or with accelerate's disk offload."""
import glob
import json
import sys
import time

import torch
from accelerate import init_empty_weights
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_align_device_hook
from accelerate.utils import OffloadedWeightsLoader
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

request = json.loads(sys.argv[1])
directory = request["model"]
torch.set_num_threads(request["threads"])
torch.manual_seed(1)


def offloaded():
    """What accelerate.disk_offload does, reading the checkpoint's own files."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16)
    index = {}
    for file in glob.glob(f"{directory}/*.safetensors"):
        with safe_open(file, framework="pt") as shard:
            index |= {name: {"safetensors_file": file, "weight_name": name, "dtype": "bfloat16"} for name in shard.keys()}
    add_hook_to_module(model, AlignDevicesHook(io_same_device=True), append=True)
    attach_align_device_hook(
        model, execution_device=torch.device("cpu"), offload=True, weights_map=OffloadedWeightsLoader(index=index)
    )
    return model


def prompt(count):
    return torch.randint(3, model.config.vocab_size, (1, count))


with torch.inference_mode():
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16) if request["held"] else offloaded()
    model.eval()
    output = model(prompt(request["promptTokens"]), use_cache=True, logits_to_keep=1)
    token_seconds = []
    last = time.perf_counter()
    for _ in range(request["newTokens"] - 1):
        token = output.logits[:, -1:].argmax(-1)
        output = model(token, past_key_values=output.past_key_values, use_cache=True)
        now = time.perf_counter()
        token_seconds.append(now - last)
        last = now
    prefill_seconds = []
    for _ in range(2 if request["prefillTokens"] > 0 else 0):
        tokens = prompt(request["prefillTokens"])
        last = time.perf_counter()
        model(tokens, use_cache=True, logits_to_keep=1)
        prefill_seconds.append(time.perf_counter() - last)
print(json.dumps({"tokenSeconds": token_seconds, "prefillSeconds": prefill_seconds}))
