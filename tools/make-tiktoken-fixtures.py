"""Trains a small vocabulary in the form of QWen v1 and records what the tiktoken library makes of awkward texts.

    pip install tiktoken
    python tools/make-tiktoken-fixtures.py test/fixtures/qwen_v1

`expected.json` has `encoded` ([text, ids, decoding of the ids]) and `decoded` ([ids, text], ids at random).
"""

import base64
import json
import pathlib
import random
import sys
import unicodedata

import tiktoken
from tiktoken._educational import bpe_train

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The pattern and the special tokens of huggingface.co/Qwen/Qwen-7B, tokenization_qwen.py.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
FOREIGN = "今天天气很好，我们去公园玩吧。Привет мир 😀"
ALPHABET = list("abcdefgstuvAB     \t\r\n.,!?<>|'019éü½ﬁ今こПرع😀👍\u200d\u3000\u00a0\u0085\u017f\u0301\ufeff\u2028가")
TEXTS = ["", "<|im_start|>user\nhi<|im_end|>\n", "don't DON'T we'LL it'\u017f e\u0301", "a" * 100]


def main(folder):
    folder.mkdir(exist_ok=True)
    corpus = (ROOT / "README.md").read_text()[:12000] + FOREIGN * 8
    ranks = bpe_train(corpus, 330, PATTERN, visualise=None)
    count = len(ranks)
    special = {token: count + i for i, token in enumerate(SPECIAL)}
    encoding = tiktoken.Encoding("tiny", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in sorted(ranks.items(), key=lambda x: x[1])]
    (folder / "qwen.tiktoken").write_text("".join(lines))
    write = lambda name, value: (folder / name).write_text(json.dumps(value, separators=(",", ":")))
    write("config.json", {"model_type": "qwen", "vocab_size": count + len(SPECIAL)})
    write("tokenizer_config.json", {"tokenizer_class": "QWenTokenizer", "model_max_length": 8192})
    write("generation_config.json", {"chat_format": "chatml", "eos_token_id": count})

    random_ = random.Random(3)
    texts = list(TEXTS)
    source = [line for line in corpus.split("\n") if line]
    for _ in range(24):
        texts.append("".join(random_.choice(ALPHABET) for _ in range(random_.randint(1, 30))))
        line = random_.choice(source)
        start = random_.randrange(len(line))
        texts.append(line[start : start + 60])
    encoded = []
    for text in texts:
        ids = encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all")
        encoded.append([text, ids, encoding.decode(ids, errors="replace")])
    lists = [[random_.randrange(count) for _ in range(8)] for _ in range(24)]
    decoded = [[ids, encoding.decode(ids, errors="replace")] for ids in lists]
    write("expected.json", {"encoded": encoded, "decoded": decoded})


main(pathlib.Path(sys.argv[1]))
