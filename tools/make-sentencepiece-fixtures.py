"""Trains small SentencePiece models and records what the sentencepiece library makes of awkward texts.

    pip install sentencepiece protobuf tokenizers
    python tools/make-sentencepiece-fixtures.py test/fixtures/sentencepiece

Each `<name>.model` comes with `<name>.json`: `encoded` ([text, ids, decoding of the ids]) and `decoded` ([ids, text],
ids at random, so that broken characters occur). For Unigram models `converted` has what the tokenizers library gives
for the same model as tokenizer.json.
"""

import base64
import io
import json
import pathlib
import random
import sys

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as schema

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOREIGN = ["今天天气很好，我们去公园玩吧。", "こんにちは世界", "Привет, мир!", "안녕하세요 세계", "naïve café Ångström ﬁne ½ Ⅷ", "😀 test 👍🏽"]
CORPUS = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.strip()] + FOREIGN * 12
RULES = "41\t61\n42\t62 20 63\n20 20\t20\nFB01\t66 69\nBD\t31 2044 32\nE9 301\t65\n1F600\t3A 29\n3000\t20\nAD\t\n"
ALPHABET = list("abcdefgstuvAB     \t\n.,!?<>|'019éü½ﬁ今天こПرع😀👍\u200d\u3000\u00a0\u2581\u0301\u00ad\ufeff\u0001\ufffd가")
TEXTS = ["", " ", "  a  ", "\u2581", "\u2581\u2581 a", "a" * 90, "<|im_start|>user\nhi there", "1000000000000", "é\u0301ABB  B"]

MODELS = {
    "unigram_bytes": dict(model_type="unigram", vocab_size=420, byte_fallback=True, remove_extra_whitespaces=False,
                          normalization_rule_name="identity"),
    "unigram_rules": dict(model_type="unigram", vocab_size=420, normalization_rule_tsv="rules"),
    "unigram_defined": dict(model_type="unigram", vocab_size=430, byte_fallback=True, normalization_rule_tsv="rules",
                            user_defined_symbols=["<|im_start|>", " st", "é", "ab"]),
    "bpe_rules": dict(model_type="bpe", vocab_size=380, normalization_rule_tsv="rules", unk_surface=" ?? "),
    "bpe_suffix": dict(model_type="bpe", vocab_size=380, treat_whitespace_as_suffix=True,
                       normalization_rule_name="identity"),
    "bpe_defined": dict(model_type="bpe", vocab_size=500, byte_fallback=True, add_dummy_prefix=False,
                        remove_extra_whitespaces=False, normalization_rule_name="identity", split_digits=True,
                        user_defined_symbols=["<|im_start|>", "st", "  ", "\t"]),
}


def train(options, rules):
    options = {key: rules if value == "rules" else value for key, value in options.items()}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, minloglevel=2,
                                             character_coverage=0.98, num_threads=1, **options)
    return model.getvalue()


def with_unused(data, random_):
    model = schema.ModelProto.FromString(data)
    for piece in model.pieces:
        if piece.type == piece.NORMAL and len(piece.piece) > 1 and random_.random() < 0.3:
            piece.type = piece.UNUSED
    return model.SerializeToString()


def expected(data, random_):
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    texts = list(TEXTS)
    for _ in range(24):
        texts.append("".join(random_.choice(ALPHABET) for _ in range(random_.randint(1, 30))))
        line = random_.choice(CORPUS)
        start = random_.randrange(len(line))
        texts.append(line[start : start + random_.randint(1, 60)])
    rows = [[text, processor.encode(text), processor.decode(processor.encode(text))] for text in texts]
    size = processor.get_piece_size()
    high = [i for i in range(size) if processor.is_byte(i)][128:] or list(range(size))
    decoded = []
    for _ in range(30):
        ids = [random_.choice(high) if random_.random() < 0.6 else random_.randrange(size) for _ in range(10)]
        ids = [i for i in ids if not processor.is_control(i)]
        decoded.append([ids, processor.decode(ids)])
    result = {"encoded": rows, "decoded": decoded}
    if schema.ModelProto.FromString(data).trainer_spec.model_type == schema.TrainerSpec.UNIGRAM:
        converted = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(data)))
        ids = [converted.encode(text).ids for text in texts]
        decode = lambda row: converted.decode(row, skip_special_tokens=False)
        result["converted"] = [[text, row, decode(row)] for text, row in zip(texts, ids)]
    return result


def tokenizer_json(data):
    """As test/unit/sentencepiece.test.ts builds it."""
    model = schema.ModelProto.FromString(data)
    table = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": table} if table else None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [[piece.piece, piece.score] for piece in model.pieces],
            "byte_fallback": model.trainer_spec.byte_fallback,
        },
    }


def main(folder):
    rules = folder / "rules.tsv"
    rules.write_text(RULES)
    models = {name: train(options, str(rules)) for name, options in MODELS.items()}
    rules.unlink()
    for name in ("bpe_rules", "unigram_rules"):
        models[f"{name}_unused"] = with_unused(models[name], random.Random(3))
    for name, data in models.items():
        # Paths of the machine that it was trained on say nothing.
        model = schema.ModelProto.FromString(data)
        model.normalizer_spec.normalization_rule_tsv = ""
        data = model.SerializeToString()
        (folder / f"{name}.model").write_bytes(data)
        text = json.dumps(expected(data, random.Random(name)), ensure_ascii=True, separators=(",", ":"))
        (folder / f"{name}.json").write_text(text)


main(pathlib.Path(sys.argv[1]))
