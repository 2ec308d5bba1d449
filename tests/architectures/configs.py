"""Tiny configs of the architectures that `docs/reference/architectures.md` lists.

Two to four layers, as few as show every kind of layer; windows and chunks of 16 tokens, so that
short rows are longer; as many experts as make the router choose.
"""

from __future__ import annotations

from typing import Any

WIDTH, VOCABULARY, WINDOW = 32, 512, 16
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    **_IDS,
}
_HEAD = {"head_dim": 8}
_MIXED = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": WINDOW,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
    **_HEAD,
}
_LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    **_HEAD,
}
_MAMBA = {
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    **_IDS,
}
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,  # more than the text has
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_PICTURE = {"image_token_id": 300, "video_token_id": 301}
_QWEN_PICTURE = {**_PICTURE, "vision_start_token_id": 302, "vision_end_token_id": 303}
_N = {
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": VOCABULARY,
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    **_HEAD,
}
_GEMMA3N = {
    **_N,
    "intermediate_size": 48,
    "laurel_rank": 4,
    "altup_num_inputs": 2,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
}
_GEMMA4 = {**_N, "global_head_dim": 16}

# name -> (class of the config, what differs from the common figures; None: takes other names)
_CONFIGS: dict[str, tuple[str, dict[str, Any], bool]] = {
    # dense
    "llama": ("LlamaConfig", {}, True),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}, True),
    "ministral": ("MinistralConfig", {**_HEAD, **_MIXED}, True),
    "qwen2": ("Qwen2Config", {}, True),
    "qwen3": ("Qwen3Config", _HEAD, True),
    "gemma": ("GemmaConfig", _HEAD, True),
    "gemma2": ("Gemma2Config", {**_HEAD, **_MIXED, "query_pre_attn_scalar": 8}, True),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            **_HEAD,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 6,  # llama.cpp knows these with a window
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        },
        True,
    ),
    "phi": ("PhiConfig", {}, True),
    "phi3": ("Phi3Config", {"sliding_window": WINDOW}, True),
    "falcon": ("FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}, True),
    "starcoder2": ("Starcoder2Config", {"sliding_window": WINDOW}, True),
    "stablelm": ("StableLmConfig", {}, True),
    "cohere": ("CohereConfig", {"logit_scale": 0.5}, True),
    "cohere2": ("Cohere2Config", {**_HEAD, **_MIXED}, True),
    "olmo2": ("Olmo2Config", {}, True),
    "olmo3": ("Olmo3Config", _MIXED, True),
    "granite": ("GraniteConfig", {"logits_scaling": 2.0}, True),
    "glm4": ("Glm4Config", _HEAD, True),
    "smollm3": ("SmolLM3Config", {"no_rope_layers": [1, 0]}, True),
    "exaone4": ("Exaone4Config", {**_MIXED, "sliding_window_pattern": 2}, True),
    "ernie4_5": ("Ernie4_5Config", _HEAD, True),
    "nemotron": ("NemotronConfig", {}, True),
    "gpt2": ("GPT2Config", {**_GPT, **_NO_DROPOUT}, False),
    "gptj": ("GPTJConfig", {**_GPT, **_NO_DROPOUT, "rotary_dim": 4}, False),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 512,
            **_IDS,
        },
        False,
    ),
    "gpt_neox": ("GPTNeoXConfig", {}, True),
    "opt": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 16, "dropout": 0.0}, True),
    "bloom": ("BloomConfig", {**_GPT, "hidden_size": WIDTH}, False),
    # experts
    "mixtral": ("MixtralConfig", _LOCAL_MOE, True),
    "qwen2_moe": ("Qwen2MoeConfig", {**_MOE, "shared_expert_intermediate_size": 16}, True),
    "qwen3_moe": ("Qwen3MoeConfig", {**_MOE, **_HEAD}, True),
    "olmoe": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}, True),
    "phimoe": ("PhimoeConfig", {**_LOCAL_MOE, "sliding_window": WINDOW}, True),
    "granitemoe": ("GraniteMoeConfig", _LOCAL_MOE, True),
    "deepseek_v3": ("DeepseekV3Config", _LATENT, True),
    "glm4_moe": (
        "Glm4MoeConfig",
        {k: v for k, v in _LATENT.items() if "lora" not in k and "_head_dim" not in k},
        True,
    ),
    "llama4_text": (
        "Llama4TextConfig",
        {
            **_LOCAL_MOE,
            **_HEAD,
            "intermediate_size_mlp": 48,
            "num_hidden_layers": 4,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": WINDOW,
        },
        True,
    ),
    "gpt_oss": ("GptOssConfig", {**_LOCAL_MOE, **_HEAD, **_MIXED}, True),
    # states, and hybrids
    "mamba": (
        "MambaConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "state_size": 8,
            **_IDS,
        },
        False,
    ),
    "mamba2": (
        "Mamba2Config",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 1,
            "chunk_size": 8,
            **_IDS,
        },
        False,
    ),
    "jamba": (
        "JambaConfig",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
        },
        True,
    ),
    "falcon_h1": ("FalconH1Config", {**_MAMBA, "mamba_d_ssm": 64, **_HEAD}, True),
    "bamba": ("BambaConfig", {**_MAMBA, "attn_layer_indices": [1]}, True),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        {
            **_MAMBA,
            **_LOCAL_MOE,
            "shared_intermediate_size": 16,
            "layer_types": ["mamba", "attention"],
        },
        True,
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {**_MOE, **_LINEAR, "shared_expert_intermediate_size": 16},
        True,
    ),
    "qwen3_5_text": ("Qwen3_5TextConfig", _LINEAR, True),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}, True),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        {
            "lru_width": WIDTH,
            "attention_window_size": WINDOW,
            "block_types": ["recurrent", "attention"],
            **_HEAD,
        },
        True,
    ),
    # shared keys and values, sizes by layer
    "gemma3n_text": ("Gemma3nTextConfig", _GEMMA3N, True),
    "gemma4_text": ("Gemma4TextConfig", _GEMMA4, True),
}
_WRAPPED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # name -> (config, its text's, what of the text differs, the vision part, of the whole)
    "gemma3": (
        "Gemma3Config",
        "gemma3_text",
        {"num_hidden_layers": 2, **_MIXED},
        {"vision_config": _SIGLIP},
        {
            "mm_tokens_per_image": 4,
            "image_token_index": 300,
            "boi_token_index": 301,
            "eoi_token_index": 302,
        },
    ),
    "gemma4": (
        "Gemma4Config",
        "gemma4_text",
        {},
        {"vision_config": None, "audio_config": None},
        {},
    ),
    "qwen2_vl": (
        "Qwen2VLConfig",
        "qwen2",
        {"rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1]}},
        {
            "vision_config": {
                "depth": 1,
                "embed_dim": 16,
                "hidden_size": WIDTH,
                "num_heads": 2,
                "mlp_ratio": 2,
            }
        },
        _QWEN_PICTURE,
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        "qwen2",
        {"rope_parameters": _MROPE},
        {"vision_config": _QWEN_VISION | {"fullatt_block_indexes": [0]}},
        _QWEN_PICTURE,
    ),
    "qwen3_vl": (
        "Qwen3VLConfig",
        "qwen3",
        {"rope_parameters": {**_MROPE, "mrope_interleaved": True}},
        {
            "vision_config": _QWEN_VISION
            | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        },
        _QWEN_PICTURE,
    ),
    "llava": (
        "LlavaConfig",
        "llama",
        {},
        {"vision_config": {"model_type": "clip_vision_model", **_SIGLIP}},
        {"image_token_index": 300},
    ),
    "mistral3": (
        "Mistral3Config",
        "mistral",
        {},
        {"vision_config": {"model_type": "pixtral", **_SIGLIP}},
        {"image_token_index": 300},
    ),
    "qwen3_vl_moe": (
        "Qwen3VLMoeConfig",
        "qwen3_moe",
        {"rope_parameters": {**_MROPE, "mrope_interleaved": True}},
        {
            "vision_config": _QWEN_VISION
            | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        },
        _QWEN_PICTURE,
    ),
    "qwen3_5": (
        "Qwen3_5Config",
        "qwen3_5_text",
        {"rope_parameters": {**_MROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0}},
        {"vision_config": _QWEN_VISION | {"num_position_embeddings": 16}},
        _QWEN_PICTURE,
    ),
    "llama4": (
        "Llama4Config",
        "llama4_text",
        {},
        {
            "vision_config": _SIGLIP
            | {
                "vision_output_dim": 16,
                "projector_input_dim": 16,
                "projector_output_dim": 16,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            }
        },
        {"boi_token_index": 301, "eoi_token_index": 302, "image_token_index": 300},
    ),
    "internvl": (
        "InternVLConfig",
        "qwen2",
        {},
        {
            "vision_config": _SIGLIP
            | {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [14, 14]}
        },
        {"image_token_id": 300, "image_seq_length": 1},
    ),
    "smolvlm": (
        "SmolVLMConfig",
        "llama",
        {},
        {"vision_config": {"model_type": "smolvlm_vision", **_SIGLIP}},
        {"image_token_id": 300},
    ),
}

TEXT = tuple(_CONFIGS)
WRAPPED = tuple(_WRAPPED)
ALL = (*TEXT, *WRAPPED)


def config(kind: str) -> Any:
    """A tiny config of the architecture `kind`."""
    import transformers

    if kind in _WRAPPED:
        named, text, changes, vision, more = _WRAPPED[kind]
        inner = config(text).to_dict() | changes
        if kind.startswith("qwen") and not text.endswith("_text"):
            inner["model_type"] = f"{kind}_text"
        return getattr(transformers, named)(text_config=inner, **vision, **more, **_IDS)
    named, changes, common = _CONFIGS[kind]
    return getattr(transformers, named)(**(_TEXT | changes if common else changes))
