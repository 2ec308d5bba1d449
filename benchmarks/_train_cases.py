"""What is trained in the training benchmark: models made from a seed, and rows to learn from."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.models.load import LoadedModel

SHAPES: dict[str, dict[str, int]] = {
    # 8.4 M parameters; 58 M, more than half of them in the embedding and the head.
    "small": {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "mid": {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
}
TOKENS = 4096
LONGEST = 1000  # below every peer's default cut
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """A model on disk with its rows, and what is known about them.

    Attributes:
        folder: model and tokenizer.
        rows: file of rows: user, assistant, input_ids, labels.
        config: of the model.
        pad: id of the padding token, which no row contains.
        lengths: tokens of each row.
        trained: labels of each row.
    """

    folder: Path
    rows: Path
    config: Any
    pad: int
    lengths: tuple[int, ...]
    trained: tuple[int, ...]


def texts(count: int) -> tuple[str, list[tuple[str, str]]]:
    """Return where the rows are from, and (user, assistant) pairs."""
    folder = os.environ.get("GAPMEND_DATA")
    if not folder:
        return "generated rows (GAPMEND_DATA is not set)", generated(count)
    path = Path(folder) / "llamafactory" / "alpaca_en_demo.json"
    read: list[dict[str, str]] = json.loads(path.read_text("utf-8"))
    pairs = [
        (f"{row['instruction']}\n{row.get('input', '')}".strip(), row["output"].strip())
        for row in read
    ]
    # Templates are told apart by their marks, and empty answers can't be trained.
    pairs = [pair for pair in pairs if all(pair) and "<|" not in "".join(pair)]
    random.Random(0).shuffle(pairs)
    return f"rows of {path.name}", pairs[:count]


def generated(count: int) -> list[tuple[str, str]]:
    """Return pairs of made-up words with lengths spread as those of instruction data."""
    rng = random.Random(0)
    words = ["".join(rng.choices("aeioulnrstdmkp", k=rng.randint(2, 9))) for _ in range(3000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]

    def text(middle: float, spread: float, longest: int) -> str:
        length = max(3, min(longest, round(rng.lognormvariate(middle, spread))))
        return " ".join(rng.choices(words, weights, k=length))

    return [(text(3.0, 0.6, 150), text(4.8, 0.9, 450)) for _ in range(count)]


def with_shared_prompts(
    loaded: LoadedModel, *, prompts: int, prompt: int = 160, answer: int = 40, answers: int = 4
) -> dict[str, list[tuple[str, str]]]:
    """Return the same rows twice: answers of one prompt, and each prompt changed at its start.

    Prompts are `prompt` tokens long, with their marks, and answers `answer`.
    """
    rng = random.Random(1)
    words = one_token_words(loaded.tokenizer)
    marks = 3  # user, end, assistant
    rows: dict[str, list[tuple[str, str]]] = {"shared": [], "apart": []}
    for number in range(prompts):
        asked = rng.choices(words, k=prompt - marks)
        for other in range(answers):
            said = "".join(rng.choices(words, k=answer - 1))
            # Letters, of which every byte-level vocabulary has each as a token.
            lead = {"shared": chr(65 + number % 26), "apart": chr(65 + (number + other) % 26)}
            for kind, letter in lead.items():
                rows[kind].append((letter + "".join(asked[1:]), said))
    return rows


def one_token_words(tokenizer: Any) -> list[str]:
    """Return words, with the space before them, that are one token each."""
    named = sorted(token for token in tokenizer.get_vocab() if token[:1] == "Ġ")
    words = [f" {token[1:]}" for token in named if token[1:].isascii() and token[1:].isalpha()]
    return [word for word in words if len(tokenizer.encode(word)) == 1][:100]


def make_case(name: str, pairs: Sequence[tuple[str, str]], folder: Path) -> Case:
    """Write the model of this name and the rows it can take."""
    from transformers import AutoConfig

    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    if not folder.exists():
        write_model(name, pairs, folder)
    loaded = load_model(name, BaseSpec(model=str(folder)), Path.cwd())
    return write_rows(loaded, pairs, folder, AutoConfig.from_pretrained(folder))


def write_rows(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], folder: Path, config: Any, name: str = ""
) -> Case:
    """Encode the rows once, for everybody."""
    from pipeline.training.examples.encode import encode_rows

    encoded = encode_rows(loaded, training_rows(pairs), allow_rejects=0.0).rows
    kept = [row for row in encoded if row.tokens <= LONGEST]
    path = folder / f"rows{name}.json"
    listed = [
        {
            "user": pairs[row.uid][0],
            "assistant": pairs[row.uid][1],
            "input_ids": row.input_ids.tolist(),
            "labels": row.labels.tolist(),
        }
        for row in kept
    ]
    path.write_text(json.dumps(listed), "utf-8")
    return Case(
        folder=folder,
        rows=path,
        config=config,
        pad=loaded.tokenizer.pad_token_id,
        lengths=tuple(row.tokens for row in kept),
        trained=tuple(row.trained_tokens for row in kept),
    )


def training_rows(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    """Return (user, assistant) pairs as `fit()` takes them."""
    from pipeline.training.examples.encode import TrainingRow

    return [
        TrainingRow(
            uid=uid,
            messages=({"role": "user", "content": user}, {"role": "assistant", "content": said}),
            tools=None,
            capability="bench",
        )
        for uid, (user, said) in enumerate(pairs)
    ]


def write_model(name: str, pairs: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write a Llama of this shape with random weights, in fp32, and a tokenizer of the rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(pairs)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[name],
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(pairs: Sequence[tuple[str, str]]) -> Any:
    """Return a byte-level BPE of at most TOKENS tokens with a plain chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for pair in pairs for text in pair), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
