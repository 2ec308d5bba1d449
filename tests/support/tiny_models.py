"""Tiny random models of several architectures, and a small byte-level BPE, for the tests.

Not random as from_pretrained leaves them: weights are drawn wide enough that a wrong mask or a
wrong position shows in every logit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TEXT = [
    "The quick brown fox jumps over the lazy dog. Question: what is it? Answer: card arrival.",
    "Review: a wonderful film, warm and funny. Sentiment: positive. Review: dull. negative.",
    "How much is 12 plus 30? It is 42. I want to change my card payment and my exchange rate.",
    "The answer is yes, the answer is no, the answer is maybe; never, always and sometimes.",
]
_COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def tokenizer(*, bos: bool = False, template: bool = True) -> Any:
    """A byte-level BPE of 512 tokens; `bos` puts <s> in front, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_TEXT * 4, trainer)
    bpe.post_processor = (
        processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
        if bos
        else processors.ByteLevel(trim_offsets=False)
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=specials[3:],
    )
    if template:
        made.chat_template = CHAT_TEMPLATE
    return made


def config(kind: str, **changes: Any) -> Any:
    """A tiny config of the architecture `kind`."""
    import transformers as t

    size = {**_COMMON, **changes}
    sliding = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    heads = {k: v for k, v in size.items() if k != "head_dim"}
    if kind == "llama":
        return t.LlamaConfig(**size)
    if kind == "qwen3":
        return t.Qwen3Config(**size)
    if kind == "gemma2":
        return t.Gemma2Config(**size, **sliding, sliding_window=24, query_pre_attn_scalar=12)
    if kind == "gemma3":
        return t.Gemma3TextConfig(**size, **sliding, sliding_window=24, query_pre_attn_scalar=12)
    if kind == "mistral":
        return t.MistralConfig(**size, sliding_window=24)
    if kind == "gpt2":
        return t.GPT2Config(
            vocab_size=512,
            n_embd=48,
            n_layer=3,
            n_head=4,
            n_positions=512,
            bos_token_id=0,
            eos_token_id=1,
        )
    if kind == "mamba":
        return t.MambaConfig(
            vocab_size=512,
            hidden_size=48,
            num_hidden_layers=2,
            state_size=8,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    if kind == "jamba":
        return t.JambaConfig(
            **heads,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            num_experts=2,
            num_experts_per_tok=1,
            use_mamba_kernels=False,
            mamba_d_state=8,
        )
    if kind == "qwen3_next":
        return t.Qwen3NextConfig(
            **size,
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=12,
            linear_value_head_dim=12,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
        )
    raise ValueError(kind)


def model(kind: str, *, seed: int = 0, **changes: Any) -> Any:
    """A model of `kind` in fp32 and eval mode, with weights of standard deviation 0.12."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config(kind, **changes), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() == 2 and "A_log" not in name:
                weight.normal_(0, 0.12)
    return made.eval().requires_grad_(requires_grad=False)


def save(
    folder: Path, kind: str, *, bos: bool = False, template: bool = True, **changes: Any
) -> Path:
    """A model folder as `save_pretrained` leaves it."""
    model(kind, **changes).save_pretrained(folder)
    tokenizer(bos=bos, template=template).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, *, seed: int = 1, **changes: Any) -> Path:
    """A LoRA adapter for `base` with a B that isn't zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)  # A is drawn as the modules are made
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **changes}
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(**settings, task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    wrapped.save_pretrained(folder)
    return folder
