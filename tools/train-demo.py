"""Trains the demo model and writes its checkpoint in the Hugging Face layout.

    node tools/demo-corpus.mjs --out DIR --seed 7
    python tools/train-demo.py --corpus DIR --out test/fixtures/demo --seed 7
    python tools/evaluate-demo.py --corpus DIR --model test/fixtures/demo

Needs torch, transformers and tokenizers; nothing that ships needs Python. The model is a Llama of 3.08 M
parameters: 8 layers, hidden size 192, 6 query heads and 2 key/value heads of 32, vocabulary 1344, untied head.
Parameters are float32 while they learn (matrix products in bfloat16) and are rounded to bfloat16 at the end.

The committed weights were made on one core of an AMD EPYC (Zen 4) with torch 2.13 on the CPU, in 1493 steps on 17065
documents (2.7 M tokens, 928 s), by these scripts with a smaller default of --documents and the learning rate of that
day. The defaults now give 24000 documents and 2104 steps, a run that was not finished. All seeds are fixed; another
machine or another torch gives an equally good model, not the same bits.
"""

import argparse
import json
import random
import re
import time
from pathlib import Path

import torch
from demo_heads import initialize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

BEGIN, END, SYSTEM, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = [BEGIN, END, SYSTEM, USER, ASSISTANT]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role: ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 1344
CONTEXT = 1024
OTHER_WEIGHT = 0.2
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def train_tokenizer(documents):
    """Byte-level BPE whose special tokens come first; encoding prepends the begin token.

    The numbers to 100 are added to the text often enough to become tokens of their own.
    """
    texts = [content for document in documents for content in contents(document)]
    texts += ["\n".join(f"{number}, {number}" for number in range(101))] * 500
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, 0)]
    )
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens: give it a larger corpus")
    return tokenizer


def contents(document):
    return [document["text"]] if "text" in document else [message["content"] for message in document["messages"]]


def weighted_pieces(document):
    """The document's text as (text, weight of its tokens in the loss) pairs.

    What answers a question, completes a sum or continues a list counts fully. Everything else counts little, because
    most of it cannot be foreseen.
    """
    yield BEGIN, OTHER_WEIGHT
    if "text" in document:
        for index, piece in enumerate(re.split(r"(?<=[?=:])( [^\n.]+)", document["text"])):
            yield piece, 1.0 if index % 2 == 1 else OTHER_WEIGHT
        yield END, 1.0
    else:
        for message in document["messages"]:
            yield f"<|{message['role']}|>", OTHER_WEIGHT
            yield message["content"] + END, 1.0 if message["role"] == "assistant" else OTHER_WEIGHT


def encode(tokenizer, document):
    """(ids, weights) of a document, from the begin token to the end token."""
    ids, weights = [], []
    for piece, weight in weighted_pieces(document):
        tokens = tokenizer.encode(piece, add_special_tokens=False).ids
        ids += tokens
        weights += [weight] * len(tokens)
    return ids[:CONTEXT], weights[:CONTEXT]


def padded(sequence):
    return (len(sequence[0]) + 15) // 16 * 16


def batches(sequences, tokens_per_batch, shuffler):
    """Batches of sequences of similar length, padded on the right: (ids, next ids, weights of the next ids).

    The order of the corpus is kept, but for shuffling within windows of sequences. Widths are multiples of 16: with
    few distinct shapes, the matrix kernels are compiled seldom.
    """
    for start in range(0, len(sequences), 1000):
        groups = [[]]
        for sequence in sorted(sequences[start : start + 1000], key=padded):
            if (len(groups[-1]) + 1) * padded(sequence) > tokens_per_batch:
                groups.append([])
            groups[-1].append(sequence)
        shuffler.shuffle(groups)
        for group in groups:
            width = max(map(padded, group))
            ids, weights = torch.zeros(len(group), width + 1, dtype=torch.long), torch.zeros(len(group), width + 1)
            for row, (tokens, token_weights) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                weights[row, : len(tokens)] = torch.tensor(token_weights)
            yield ids[:, :-1], ids[:, 1:], weights[:, 1:]


def train(sequences, options):
    """One pass over the sequences: Muon for the matrices of the layers, AdamW for the rest, a rate that falls to 0."""
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).float().train()
    initialize(model)
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and ".layers." in name]
    others = [parameter for name, parameter in named if parameter.ndim != 2 or ".layers." not in name]
    optimizers = [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]
    schedule = list(batches(sequences, options.tokens_per_batch, random.Random(options.seed)))
    started = time.monotonic()
    answers = []
    for step, (ids, targets, weights) in enumerate(schedule):
        rate = options.learning_rate * min(1, (step + 1) / 50, 1.8 * (1 - step / len(schedule)))
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        flat = weights.flatten()
        ((losses * flat).sum() / flat.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        answers.append(losses.detach()[flat == 1].mean().item())
        if step % 25 == 24 or step + 1 == len(schedule):
            seconds = time.monotonic() - started
            print(f"step {step + 1}/{len(schedule)} answers {sum(answers) / len(answers):.4f} {seconds:.0f} s", flush=True)
            answers.clear()
    return model.eval()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_weights(model, directory):
    """Two shards (the first half of the layers with the embedding, the rest) and their index, in bfloat16."""
    half = CONFIG["num_hidden_layers"] // 2
    shards = [{}, {}]
    for name, parameter in model.state_dict().items():
        first = name.startswith("model.embed") or any(name.startswith(f"model.layers.{index}.") for index in range(half))
        shards[0 if first else 1][name] = parameter.to(torch.bfloat16).contiguous()
    weight_map = {}
    for index, tensors in enumerate(shards):
        file = f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))
    total = sum(tensor.numel() * tensor.element_size() for tensors in shards for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def write_checkpoint(model, tokenizer, directory):
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(model, directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "config.json", CONFIG)
    write_json(directory / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "do_sample": False})
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN,
            "eos_token": END,
            "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONTEXT,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="directory with corpus.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with open(options.corpus / "corpus.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    tokenizer = train_tokenizer(documents)
    sequences = [encode(tokenizer, document) for document in documents]
    print(f"{len(sequences)} documents, {sum(len(ids) for ids, _ in sequences)} tokens")
    write_checkpoint(train(sequences, options), tokenizer, options.out)


if __name__ == "__main__":
    main()
