"""How the layers of the known model families differ, one row for each family.

Each row says what transformers' modeling file of the family says. Sizes are words, which
``ModelShape`` turns into numbers.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

_QKV = {"q_proj": "hidden queries", "k_proj": "hidden keys", "v_proj": "hidden keys"}
_ATTENTION = {**_QKV, "o_proj": "queries hidden"}
_MLP = {"gate_proj": "hidden middle", "up_proj": "hidden middle", "down_proj": "middle hidden"}


@dataclass(frozen=True)
class Family:
    """What a family's layer has; the defaults are Llama's."""

    attention: dict[str, str] = field(default_factory=lambda: _ATTENTION)
    """The linear modules of attention: name to inputs and outputs, in words."""
    mlp: dict[str, str] = field(default_factory=lambda: _MLP)
    """Those of the MLP; a mixture's experts are none."""
    biased: tuple[str, ...] = ()
    """Linear modules that always have a bias."""
    switches: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Switches of the config, and the linear modules that each gives a bias."""
    norm: Literal["rms", "rms_fp32", "layer", "bare"] = "rms"
    """RMSNorm; the same with a weight that multiplies in fp32; LayerNorm; LayerNorm without any
    weight, in fp32."""
    norms: Literal["before", "after", "around", "parallel", "shared"] = "before"
    """Where the norms stand: before attention and before the MLP, after them, both; or on the
    layer's input, from which attention and MLP start side by side, each with its own or one."""
    qk_norm: Literal["", "head", "all"] = ""
    """Whether queries and keys are normalized: per head, or all heads at once."""
    grouped: bool = True
    """Whether queries may share keys and values (``num_key_value_heads``)."""
    partial_rotary: bool = False
    """Whether positions turn only a part of each head, which then is joined with the rest."""
    routes_in_fp32: bool = False
    """Whether a router's weights stay in fp32, and what they multiply goes to fp32, too."""
    scaled: bool = False
    """Whether embeddings and the outputs of attention and MLP are multiplied by a number."""
    live_hidden: int = 5
    """Hidden states, kept ones aside, that the code's variables and the backward pass hold when the
    last module of the MLP is at work."""
    masks: int = 1
    """Kinds of attention masks: two where some layers see only a window of the tokens."""
    head_bias: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)
    """What transformers takes where a config.json says nothing."""
    only: dict[str, Any] = field(default_factory=dict)
    """Switches that the arithmetic knows only in this position."""

    @property
    def linears(self) -> dict[str, str]:
        """All linear modules of a layer."""
        return {**self.attention, **self.mlp}

    @property
    def norms_per_layer(self) -> int:
        """How many norms a layer has."""
        return {"around": 4, "shared": 1}.get(self.norms, 2)

    @property
    def fused(self) -> bool:
        """Whether one module makes queries, keys and values, which then share its output."""
        return any(words.endswith(" qkv") for words in self.attention.values())

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two halves, of which one passes the activation function."""
        return len(self.mlp) != 2 or "gate_up_proj" in self.mlp


_LLAMA_BIASES = {"attention_bias": tuple(_ATTENTION), "mlp_bias": tuple(_MLP)}
_ATTENTION_BIAS = {"attention_bias": tuple(_ATTENTION)}
_WINDOW = {"sliding_window": 4096}
_NO_WINDOW = {"use_sliding_window": False}
_GEMMA = {"tie_word_embeddings": True, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"}
_GPT2 = {
    "tie_word_embeddings": True,
    "learned_positions": 1024,
    "hidden_act": "gelu_new",
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    "hidden_dropout": 0.1,
}
_ALL_LAYERS_SPARSE = {"mlp_only_layers": [], "decoder_sparse_step": 1}

FAMILIES = {
    "llama": Family(switches=_LLAMA_BIASES),
    "mistral": Family(defaults=_WINDOW),
    "qwen2": Family(biased=tuple(_QKV), defaults=_NO_WINDOW),
    "qwen3": Family(
        switches=_ATTENTION_BIAS, qk_norm="head", defaults={"head_dim": 128, **_NO_WINDOW}
    ),
    "smollm3": Family(switches=_LLAMA_BIASES, defaults={"tie_word_embeddings": True, **_NO_WINDOW}),
    "granite": Family(switches=_LLAMA_BIASES, scaled=True, live_hidden=6),
    "gemma": Family(switches=_ATTENTION_BIAS, norm="rms_fp32", defaults=_GEMMA),
    "gemma2": Family(
        switches=_ATTENTION_BIAS,
        norm="rms_fp32",
        norms="around",
        live_hidden=6,
        masks=2,
        defaults={
            **_GEMMA,
            **_WINDOW,
            "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
        },
    ),
    "gemma3_text": Family(
        switches=_ATTENTION_BIAS,
        norm="rms_fp32",
        norms="around",
        live_hidden=6,
        masks=2,
        qk_norm="head",
        defaults={**_GEMMA, **_WINDOW},
        only={"attn_logit_softcapping": None},
    ),
    "olmo": Family(switches=_ATTENTION_BIAS, norm="bare", only={"clip_qkv": None}),
    "olmo2": Family(switches=_ATTENTION_BIAS, norm="rms_fp32", norms="after", qk_norm="all"),
    "phi3": Family(
        partial_rotary=True,
        attention={"qkv_proj": "hidden qkv", "o_proj": "queries hidden"},
        mlp={"gate_up_proj": "hidden gate_up", "down_proj": "middle hidden"},
    ),
    "phi": Family(
        partial_rotary=True,
        attention={**_QKV, "dense": "queries hidden"},
        mlp={"fc1": "hidden middle", "fc2": "middle hidden"},
        biased=(*_QKV, "dense", "fc1", "fc2"),
        norm="layer",
        norms="shared",
        head_bias=True,
        defaults={"hidden_act": "gelu_new"},
        only={"qk_layernorm": False},
    ),
    "stablelm": Family(
        partial_rotary=True,
        live_hidden=6,
        switches={"use_qkv_bias": tuple(_QKV)},
        norm="layer",
        only={"qk_layernorm": False, "use_parallel_residual": False},
    ),
    "gpt_neox": Family(
        grouped=False,
        partial_rotary=True,
        attention={"query_key_value": "hidden qkv", "dense": "queries hidden"},
        mlp={"dense_h_to_4h": "hidden middle", "dense_4h_to_h": "middle hidden"},
        biased=("dense_h_to_4h", "dense_4h_to_h"),
        switches={"attention_bias": ("query_key_value", "dense")},
        norm="layer",
        norms="parallel",
        defaults={"attention_bias": True, "hidden_act": "gelu"},
        only={"use_parallel_residual": True, "hidden_dropout": 0.0},
    ),
    "gpt2": Family(
        grouped=False,
        attention={"c_attn": "hidden qkv", "attn.c_proj": "queries hidden"},
        mlp={"c_fc": "hidden middle", "mlp.c_proj": "middle hidden"},
        biased=("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
        norm="layer",
        defaults=_GPT2,
        only={"add_cross_attention": False},
    ),
    "mixtral": Family(mlp={}, routes_in_fp32=True),
    "qwen3_moe": Family(
        mlp={},
        switches=_ATTENTION_BIAS,
        qk_norm="head",
        defaults=_NO_WINDOW,
        only=_ALL_LAYERS_SPARSE,
    ),
}
