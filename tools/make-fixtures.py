"""Writes tiny random checkpoints with the logits that transformers gives for them, for the tests of model families.

    python tools/make-fixtures.py --out test/fixtures/families [case ...]

Needs torch and transformers; the tests do not. Each case is a directory with config.json and weights in the layout of
a published checkpoint, expected.json (`input_ids`, and `greedy`: 12 ids that follow, each from a full recomputation) and
expected.safetensors (`logits`, float32, [len(input_ids), vocab]). Weights are read exactly as stored; all arithmetic is
float32 with eager attention. An engine passes if max |got - expected| <= 1e-3 * max |expected| and the greedy ids are
the same. Seeds are chosen so that at each greedy step the best logit leads by 0.005 * max |expected|, and a float64 run
must agree with the stored logits to 1e-5 of the largest.

fixture_cases.py has the cases. Families whose checkpoints come with modeling code of their own are made from an
equivalent model of transformers (original_formats.py). The other directories of test/fixtures/families come from the
project's shared reference set, which has the same layout and rules.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
from fixture_cases import CASES, COMMON, FAMILIES
from original_formats import FORMATS
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.utils.logging import disable_progress_bar

GREEDY_TOKENS = 12
LEAST_GAP = 0.005


def config_json(case):
    dtype_key = "dtype" if "rope_parameters" in case["config"] else "torch_dtype"
    config = {**COMMON, **FAMILIES[case["family"]], **case["config"], "model_type": case["family"]}
    return {**config, dtype_key: case["dtype"]}


def random_tensors(directory, case, seed):
    """Random weights that keep activations near 1 and logits well apart, under the names of published checkpoints."""
    generator = torch.Generator().manual_seed(seed)
    config = AutoConfig.from_pretrained(directory)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case["dtype"]))
    centre = 0 if config.model_type.startswith("gemma") else 1
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            values = centre + 0.2 * noise
        elif parameter.ndim == 1:
            values = 0.3 * noise
        else:
            values = noise * (1 if "embed" in name else 1.5 / math.sqrt(parameter.shape[1]))
        parameter.copy_(values)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    order = {name: index for index, name in enumerate(model.state_dict())}
    return dict(sorted(saved.items(), key=lambda item: order.get(item[0], len(order))))


def write_tensors(directory, tensors, shards=1):
    names = list(tensors)
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


def load(directory, case, dtype):
    """A function from token ids to logits [length, vocabulary], and the model."""
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **eager).eval()
    original = FORMATS.get(case["family"])
    prepare = original.adapt(case["config"], model) if original else lambda length: {}
    return lambda ids: model(torch.tensor([ids]), use_cache=False, **prepare(len(ids))).logits[0], model


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def expect(directory, case, seed):
    """Logits, input ids and greedy ids of the checkpoint in `directory`, or None if a greedy step is too close."""
    forward, model = load(directory, case, torch.float32)
    config = model.config.get_text_config()
    vocabulary = config.vocab_size
    drawn = torch.randint(3, vocabulary, (case["length"] - 1,), generator=torch.Generator().manual_seed(seed))
    input_ids = [1, *drawn.tolist()]
    logits = forward(input_ids)
    gap = LEAST_GAP * logits.abs().max()
    greedy = continue_greedily(lambda sequence, known: forward(sequence)[-1], input_ids, gap)
    if greedy is None:
        return None
    expected = {"input_ids": input_ids, "greedy": greedy}
    if (config.rope_parameters or {}).get("rope_type") == "dynamic":
        cache = DynamicCache()
        step = lambda sequence, known: model(torch.tensor([sequence[known:]]), past_key_values=cache).logits[0, -1]
        expected["greedy_cached"] = continue_greedily(step, input_ids, gap)
        if expected["greedy_cached"] is None:
            return None
    exact = load(directory, case, torch.float64)[0](input_ids)
    error = ((exact - logits).abs().max() / exact.abs().max()).item()
    if error > 1e-5:
        raise ValueError(f"{directory.name}: float32 and float64 logits differ by {error:.1e} of the largest")
    return logits, expected


def continue_greedily(step, input_ids, gap):
    """The ids that follow; `step` gives the last logits of a sequence of which so many ids are known already."""
    sequence, known = list(input_ids), 0
    for _ in range(GREEDY_TOKENS):
        last = step(sequence, known)
        best = last.topk(2).values
        if best[0] - best[1] < gap:
            return None
        known = len(sequence)
        sequence.append(last.argmax().item())
    return sequence[len(input_ids) :]


@torch.no_grad()
def make(directory, name, case):
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config_json(case))
    original = FORMATS.get(case["family"])
    with tempfile.TemporaryDirectory() as folder:
        native = Path(folder) if original else directory
        if original:
            write_json(native / "config.json", {**COMMON, **original.native(case["config"])})
        for seed in range(1, 200):
            tensors = random_tensors(native, case, seed)
            write_tensors(native, tensors, 1 if original else case.get("shards", 1))
            expected = expect(native, case, seed)
            if expected is not None:
                break
        else:
            raise ValueError(f"{name}: no seed below 200 keeps greedy steps apart")
    if original:
        write_tensors(directory, original.pack(case["config"], tensors))
    logits, values = expected
    save_file({"logits": logits.contiguous()}, directory / "expected.safetensors")
    about = {"case": name, "model_type": case["family"], "notes": case["notes"], "seed": seed}
    write_json(directory / "expected.json", {**about, **values})
    print(f"{name}: seed {seed}, largest logit {logits.abs().max():.2f}", flush=True)


def run(description, cases, make_case):
    """The command line that scripts of fixtures share: --out DIR and the names of cases."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("cases", nargs="*", help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    for name in options.cases or cases:
        make_case(options.out / name, name, cases[name])


if __name__ == "__main__":
    run(__doc__, CASES, make)
