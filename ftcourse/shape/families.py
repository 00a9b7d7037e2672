"""How the layers of the known model families differ, one row for each family.

Each row says what transformers' modeling file of the family says. Sizes are words, which
``ModelShape`` turns into numbers.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

_QKV = {"q_proj": "hidden queries", "k_proj": "hidden keys", "v_proj": "hidden keys"}
_ATTENTION = {**_QKV, "o_proj": "queries hidden"}
_MLP = {"gate_proj": "hidden inner", "up_proj": "hidden inner", "down_proj": "inner hidden"}
_NORMS = ("input_layernorm", "post_attention_layernorm")
_FOUR_NORMS = (*_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


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
    layer_norms: tuple[str, ...] = _NORMS
    """The norms of a layer in the order in which they stand in its code."""
    self_attn: str = "self_attn"
    """The name of the module that holds attention's linear modules."""
    act_fn: str = "act_fn"
    """The name of the MLP's function."""
    layers: str = "model.layers"
    """The path of the list of layers."""
    tables: tuple[str, ...] = ("model.embed_tokens",)
    """The paths of the embeddings of words and, where they are learned, of positions."""
    final_norm: str = "model.norm"
    rotary: str = "model.rotary_emb"
    """The path of what turns queries and keys by their positions."""
    rotary_types: tuple[str, ...] = ("",)
    """What the names of its tables begin with, one for each type of layer that has its own."""
    transposed: bool = False
    """Whether a linear module's weight is stored as (inputs, outputs): GPT-2's Conv1D."""
    norm: Literal["rms", "rms_fp32", "rms_plus_one", "layer", "bare"] = "rms"
    """RMSNorm; the same with a weight that multiplies in fp32, or one plus that weight; LayerNorm;
    LayerNorm without any weight, in fp32."""
    norms: Literal["before", "after", "around", "parallel", "shared"] = "before"
    """Where the norms stand: before attention and before the MLP, after them, both; or on the
    layer's input, from which attention and MLP start side by side, each with its own or one."""
    qk_norm: Literal["", "head", "head_last", "all"] = ""
    """Whether queries and keys are normalized: per head, the same after the values are made, or all
    heads at once."""
    grouped: bool = True
    """Whether queries may share keys and values (``num_key_value_heads``)."""
    partial_rotary: bool = False
    """Whether positions turn only a part of each head, which then is joined with the rest."""
    slices: bool = False
    """Whether fused queries, keys and values are cut out one by one, not split at once."""
    softmax_in_fp32: bool = True
    """Whether the code of eager attention asks for it; a GPU's autocast does so for all."""
    routes_in_fp32: bool = False
    """Whether a router's weights stay in fp32, and what they multiply goes to fp32, too."""
    scaled: bool = False
    """Whether the outputs of attention and MLP are multiplied by a number."""
    scaled_embedding: Literal["", "inside", "after"] = ""
    """Whether embeddings are multiplied by a number, inside of their module or after it."""
    scales_logits: bool = False
    """Whether logits are divided by a number."""
    rotates_in_fp32: bool = False
    """Whether the tables that turn queries and keys are in fp32."""
    holds: Literal["", "output", "both"] = ""
    """What the code's variables hold while the MLP works: attention's output, or its input, too."""
    sees_all_every: int = 1
    """One layer of so many sees all tokens, and the others see a window of them."""
    head_bias: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)
    """What transformers takes where a config.json says nothing."""
    only: dict[str, Any] = field(default_factory=dict)
    """Switches that the arithmetic knows only in this position."""

    @property
    def linears(self) -> dict[str, str]:
        """All linear modules of a layer."""
        return {**self.attention, **self.mlp}

    def path_of(self, linear: str) -> str:
        """Return where in a layer a linear module is."""
        if "." in linear:
            return linear
        return f"{self.self_attn if linear in self.attention else 'mlp'}.{linear}"

    @property
    def fused(self) -> bool:
        """Whether one module makes queries, keys and values, which then share its output."""
        return any(words.endswith(" qkv") for words in self.attention.values())


_LLAMA_BIASES = {"attention_bias": tuple(_ATTENTION), "mlp_bias": tuple(_MLP)}
_ATTENTION_BIAS = {"attention_bias": tuple(_ATTENTION)}
_WINDOW = {"sliding_window": 4096}
_NO_WINDOW = {"use_sliding_window": False}
_GEMMA = Family(
    switches=_ATTENTION_BIAS,
    norm="rms_plus_one",
    scaled_embedding="inside",
    defaults={"tie_word_embeddings": True, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"},
)
_LATER_GEMMA = replace(
    _GEMMA, layer_norms=_FOUR_NORMS, norms="around", defaults={**_GEMMA.defaults, **_WINDOW}
)
_CAPS = {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}
_GPT2 = {"tie_word_embeddings": True, "learned_positions": 1024, "hidden_act": "gelu_new"}
_GPT2 |= dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), 0.1)
_ALL_SPARSE = {"mlp_only_layers": [], "decoder_sparse_step": 1}

FAMILIES = {
    "llama": Family(switches=_LLAMA_BIASES),
    "mistral": Family(defaults=_WINDOW),
    "qwen2": Family(biased=tuple(_QKV), defaults=_NO_WINDOW),
    "qwen3": Family(
        switches=_ATTENTION_BIAS, qk_norm="head", defaults={"head_dim": 128, **_NO_WINDOW}
    ),
    "smollm3": Family(switches=_LLAMA_BIASES, defaults={"tie_word_embeddings": True, **_NO_WINDOW}),
    "granite": Family(
        switches=_LLAMA_BIASES, scaled=True, scaled_embedding="after", scales_logits=True
    ),
    "gemma": _GEMMA,
    "gemma2": replace(_LATER_GEMMA, sees_all_every=2, defaults={**_LATER_GEMMA.defaults, **_CAPS}),
    "gemma3_text": replace(
        _LATER_GEMMA,
        rotary_types=("sliding_attention_", "full_attention_"),
        sees_all_every=6,
        qk_norm="head_last",
        only={"attn_logit_softcapping": None},
    ),
    "olmo": Family(
        switches=_ATTENTION_BIAS, norm="bare", rotates_in_fp32=True, only={"clip_qkv": None}
    ),
    "olmo2": Family(
        layer_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        rotates_in_fp32=True,
        switches=_ATTENTION_BIAS,
        norm="rms_fp32",
        norms="after",
        qk_norm="all",
    ),
    "phi3": Family(
        act_fn="activation_fn",
        partial_rotary=True,
        slices=True,
        attention={"qkv_proj": "hidden qkv", "o_proj": "queries hidden"},
        mlp={"gate_up_proj": "hidden gate_up", "down_proj": "inner hidden"},
    ),
    "phi": Family(
        act_fn="activation_fn",
        layer_norms=("input_layernorm",),
        final_norm="model.final_layernorm",
        partial_rotary=True,
        attention={**_QKV, "dense": "queries hidden"},
        mlp={"fc1": "hidden inner", "fc2": "inner hidden"},
        biased=(*_QKV, "dense", "fc1", "fc2"),
        norm="layer",
        norms="shared",
        head_bias=True,
        defaults={"hidden_act": "gelu_new", "partial_rotary_factor": 0.5},
        only={"qk_layernorm": False},
    ),
    "stablelm": Family(
        holds="both",
        partial_rotary=True,
        switches={"use_qkv_bias": tuple(_QKV)},
        norm="layer",
        defaults={"partial_rotary_factor": 0.25},
        only={"qk_layernorm": False, "use_parallel_residual": False},
    ),
    "gpt_neox": Family(
        act_fn="act",
        self_attn="attention",
        layers="gpt_neox.layers",
        tables=("gpt_neox.embed_in",),
        rotary="gpt_neox.rotary_emb",
        final_norm="gpt_neox.final_layer_norm",
        grouped=False,
        partial_rotary=True,
        attention={"query_key_value": "hidden qkv", "dense": "queries hidden"},
        mlp={"dense_h_to_4h": "hidden inner", "dense_4h_to_h": "inner hidden"},
        biased=("dense_h_to_4h", "dense_4h_to_h"),
        switches={"attention_bias": ("query_key_value", "dense")},
        norm="layer",
        norms="parallel",
        defaults={"attention_bias": True, "hidden_act": "gelu", "partial_rotary_factor": 0.25},
        only={"use_parallel_residual": True, "hidden_dropout": 0.0},
    ),
    "gpt2": Family(
        act_fn="act",
        holds="output",
        layer_norms=("ln_1", "ln_2"),
        self_attn="attn",
        layers="transformer.h",
        tables=("transformer.wte", "transformer.wpe"),
        final_norm="transformer.ln_f",
        transposed=True,
        softmax_in_fp32=False,
        grouped=False,
        attention={"c_attn": "hidden qkv", "attn.c_proj": "queries hidden"},
        mlp={"c_fc": "hidden inner", "mlp.c_proj": "inner hidden"},
        biased=("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
        norm="layer",
        defaults=_GPT2,
        only={"add_cross_attention": False},
    ),
    "mixtral": Family(mlp={}, routes_in_fp32=True, defaults={"norm_topk_prob": True}),
    "qwen3_moe": Family(
        mlp={}, switches=_ATTENTION_BIAS, qk_norm="head", defaults=_NO_WINDOW, only=_ALL_SPARSE
    ),
}
