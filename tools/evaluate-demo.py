"""Measures the demo model with transformers and writes the reference numbers to MODEL/evaluation.json.

    python tools/evaluate-demo.py --corpus DIR --model test/fixtures/demo

DIR is what tools/demo-corpus.mjs wrote; only its held-out set is read. The bfloat16 weights are widened to float32 and
all arithmetic is float32. What is measured:

perplexity    exp of the mean negative log likelihood over all tokens of all held-out texts. Each text is encoded with
              the begin token, is one window (none is longer than 1024 tokens), and counts every token but the first.
exactMatch    for each kind of task, how many greedy continuations of at most 12 tokens begin with the answer, leading
              white space removed.
greedy        reference continuations up to the end token; `smallestGap` is the least difference between the best and
              the second-best logit on the way, divided by the largest magnitude of a logit in that step.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TASK_TOKENS = 12
PROMPTS = [
    {"prompt": "Once upon a time there was a brave girl called Mia. She lived in a castle", "tokens": 256},
    {
        "prompt": "Tom put the red key in the box. Ella hid the blue drum under the bed.\nWhere is the red key?",
        "tokens": 64,
    },
    {
        "messages": [
            {"role": "user", "content": "My name is Leo."},
            {"role": "assistant", "content": "Hello, Leo! I will remember your name."},
            {"role": "user", "content": "Count from 4 to 9."},
            {"role": "assistant", "content": "4, 5, 6, 7, 8, 9."},
            {"role": "user", "content": "What is my name?"},
        ],
        "tokens": 64,
    },
    {"messages": [{"role": "user", "content": "Tell me a story about Anna."}], "tokens": 256},
]


@torch.no_grad()
def perplexity(model, tokenizer, texts):
    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        if ids.shape[1] > model.config.max_position_embeddings:
            raise ValueError(f"a held-out text has {ids.shape[1]} tokens, more than one window")
        logits = model(ids).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return {"value": math.exp(total / count), "tokens": count, "texts": len(texts)}


@torch.no_grad()
def greedy(model, ids, limit):
    """Continues `ids` until the end token (kept) or `limit` tokens; also returns the smallest relative gap."""
    produced, gap, cache, feed = [], math.inf, None, torch.tensor([ids])
    while len(produced) < limit:
        output = model(feed, past_key_values=cache, use_cache=True)
        cache, logits = output.past_key_values, output.logits[0, -1]
        best = logits.topk(2).values
        gap = min(gap, ((best[0] - best[1]) / logits.abs().max()).item())
        produced.append(logits.argmax().item())
        if produced[-1] == model.generation_config.eos_token_id:
            break
        feed = torch.tensor([[produced[-1]]])
    return produced, gap


def exact_match(model, tokenizer, tasks):
    counts = {}
    for task in tasks:
        produced, _ = greedy(model, tokenizer(task["prompt"]).input_ids, TASK_TOKENS)
        text = tokenizer.decode(produced, skip_special_tokens=True).lstrip()
        count = counts.setdefault(task["kind"], {"right": 0, "total": 0})
        count["total"] += 1
        count["right"] += text.startswith(task["answer"])
        if not text.startswith(task["answer"]):
            print(f"wrong: {task['prompt']!r} -> {text!r}, not {task['answer']!r}")
    return counts


def reference(model, tokenizer, case):
    if "messages" in case:
        text = tokenizer.apply_chat_template(case["messages"], tokenize=False, add_generation_prompt=True)
        ids, source = tokenizer(text, add_special_tokens=False).input_ids, {"messages": case["messages"]}
    else:
        ids, source = tokenizer(case["prompt"]).input_ids, {"prompt": case["prompt"]}
    produced, gap = greedy(model, ids, case["tokens"])
    text = tokenizer.decode(produced, skip_special_tokens=True)
    print(f"\n{source}\n{text}\n(gap {gap:.4f})")
    return {**source, "promptIds": ids, "ids": produced, "text": text, "smallestGap": round(gap, 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="directory with heldout.json")
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    held_out = json.loads((options.corpus / "heldout.json").read_text(encoding="utf-8"))
    result = {
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, float32 on the CPU",
        "heldOutSeed": 1,
        "taskTokens": TASK_TOKENS,
        "perplexity": perplexity(model, tokenizer, held_out["texts"]),
        "exactMatch": exact_match(model, tokenizer, held_out["tasks"]),
        "greedy": [reference(model, tokenizer, case) for case in PROMPTS],
    }
    print(json.dumps({key: value for key, value in result.items() if key != "greedy"}, indent=2))
    (options.model / "evaluation.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
