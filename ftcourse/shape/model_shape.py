"""The shape of a model: the numbers of its config that decide its bytes."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ftcourse.errors import CourseError
from ftcourse.shape.families import FAMILIES, Family
from ftcourse.shape.hub import model_config, named_shapes


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that decide its bytes, in the words of transformers' configs."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    """Whether the output head reuses the embedding matrix, which then is stored once."""
    biased: tuple[str, ...] = ()
    """The linear modules of a layer that have a bias."""
    partial_rotary_factor: float = 1.0
    """Share of a head's width that positions turn."""
    hidden_act: str = "silu"
    """The function between the two halves of the MLP."""
    learned_positions: int = 0
    """Rows of the table of positions, where positions are learned (GPT-2)."""
    num_experts: int = 0
    """Experts of a layer that has some in the place of its MLP."""
    num_experts_per_tok: int = 0
    norm_topk_prob: bool = False
    """Whether the chances of a token's experts are divided by their sum."""
    moe_intermediate_size: int = 0
    """Width of an expert, where it is not ``intermediate_size``."""
    sliding_window: int = 0
    """Where not 0, layers see only so many tokens back; a few layers of Gemma 3 see all."""
    attn_logit_softcapping: float = 0
    """Where not 0, attention's scores pass through a tanh of this range (Gemma 2)."""
    final_logit_softcapping: float = 0
    """Where not 0, the logits do."""
    embedding_dropout: float = 0
    """Share of the embeddings that is zeroed in training."""
    attention_dropout: float = 0
    """Share of the attention's scores that is zeroed in training."""
    hidden_dropout: float = 0
    """Share of the outputs of attention and MLP that is zeroed in training."""
    max_position_embeddings: int | None = field(default=None, compare=False)
    """The longest text in tokens that the model was made for. No byte depends on it, so two shapes
    that differ here are equal."""

    @classmethod
    def named(cls, name: str) -> "ModelShape":
        """Return one of the shapes that ship with the package, such as ``llama-3.1-8b``."""
        if not isinstance(name, str) or name not in named_shapes():
            raise CourseError(
                "A shape's name is one of those that ship with ftcourse.",
                repr(name),
                "Use one of " + ", ".join(named_shapes()) + ".",
            )
        return cls.from_config(named_shapes()[name])

    @classmethod
    def from_config(cls, config: Any) -> "ModelShape":
        """Return the shape of a transformers config, given as an object or as its dictionary.

        Raises CourseError for a family whose layers this arithmetic does not know.
        """
        if not isinstance(config, dict) and not hasattr(config, "to_dict"):
            raise CourseError(
                "A shape is made from transformers' config of a model, or from its dictionary.",
                f"{type(config).__name__}: {str(config)[:60]!r}",
                "Try ModelShape.named('llama-3.1-8b'), or load_shape(folder).",
            )
        given = config if isinstance(config, dict) else config.to_dict()
        kind = given.get("model_type")
        family = FAMILIES.get(kind) if isinstance(kind, str) else None
        if family is None:
            raise CourseError(
                "The arithmetic knows decoders of these families: " + ", ".join(FAMILIES) + ".",
                f"model_type={given.get('model_type')!r}",
                "Use simulate_memory, which runs the model's own code, or a known family.",
            )
        values = _in_common_words(family, given)
        _check(family, values)
        heads = values["num_attention_heads"]
        switched = (names for switch, names in family.switches.items() if values.get(switch))
        values |= {
            "num_key_value_heads": (family.grouped and values.get("num_key_value_heads")) or heads,
            "head_dim": values.get("head_dim") or values["hidden_size"] // heads,
            "tie_word_embeddings": bool(values.get("tie_word_embeddings")),
            "biased": sum(switched, family.biased),
        }
        known = [f.name for f in fields(cls) if f.default is MISSING or values.get(f.name)]
        return cls(**{name: values[name] for name in known})

    @classmethod
    def of_stranger(cls, config: Any) -> "ModelShape":
        """Return what a simulation asks of a transformers config whose family we do not know.

        Its layers are Llama's here, which they are not: the arithmetic would be wrong.
        """
        numbers = {name: getattr(config, name, 0) for name in REQUIRED}
        experts = (getattr(config, name, 0) for name in ("num_experts", "num_local_experts"))
        return cls(
            config.model_type,
            **numbers,
            num_key_value_heads=numbers["num_attention_heads"],
            head_dim=0,
            tie_word_embeddings=config.tie_word_embeddings,
            num_experts=max(count or 0 for count in experts),
        )

    @property
    def family(self) -> Family:
        """What the layers of the model's family have."""
        return FAMILIES.get(self.model_type, FAMILIES["llama"])

    @property
    def rotary_types(self) -> tuple[str, ...]:
        """The types of layers that are there, of those that turn queries and keys differently."""
        every = self.family.sees_all_every
        return self.family.rotary_types[: 1 if self.num_hidden_layers < every else None]

    @property
    def rotary_width(self) -> int:
        """How many numbers of a head positions turn."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def widths(self) -> dict[str, int]:
        """The sizes that the rows of ``FAMILIES`` name."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "hidden": self.hidden_size,
            "queries": queries,
            "keys": keys,
            "qkv": queries + 2 * keys,
            "inner": self.intermediate_size,
            "gate_up": 2 * self.intermediate_size,
            "expert": self.moe_intermediate_size or self.intermediate_size,
        }

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one layer: name to (inputs, outputs)."""
        widths = self.widths
        sides = {name: words.split() for name, words in self.family.linears.items()}
        return {name: (widths[i], widths[o]) for name, (i, o) in sides.items()}


REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
"""The numbers that every model's config says."""
_OTHER_NAMES = {
    "n_embd": "hidden_size",
    "rotary_pct": "partial_rotary_factor",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "learned_positions",
    "activation_function": "hidden_act",
    "hidden_activation": "hidden_act",
    "num_local_experts": "num_experts",
    "embd_pdrop": "embedding_dropout",
    "attn_pdrop": "attention_dropout",
    "resid_pdrop": "hidden_dropout",
}
"""The words of some families for what most call by the name on the right."""


def _in_common_words(family: Family, given: dict[str, Any]) -> dict[str, Any]:
    """Return a config in the words of most, with what transformers takes where it says nothing."""
    stated = {name: value for name, value in given.items() if name not in _OTHER_NAMES}
    stated |= {
        word: given[name] for name, word in _OTHER_NAMES.items() if given.get(name) is not None
    }
    if "n_embd" in given:  # GPT-2's width of the MLP, unless it says another
        stated.setdefault("intermediate_size", 4 * given["n_embd"])
    values = {**family.defaults, **stated}
    if not values.get("use_sliding_window", True):
        values["sliding_window"] = 0
    values.setdefault("max_position_embeddings", values.get("learned_positions"))
    return values


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**40


def _check(family: Family, values: dict[str, Any]) -> None:
    """Refuse a config that lacks a number, or whose layers are not the family's usual ones."""
    numbers = {name: values.get(name) for name in REQUIRED}
    if wrong := {n: v for n, v in numbers.items() if not _is_count(v)}:
        raise CourseError(
            "A model's config says " + ", ".join(REQUIRED) + ", each at least 1.",
            ", ".join(f"{n}={v!r}"[:60] if n in values else f"no {n}" for n, v in wrong.items()),
            "Use the config.json that came with the model.",
        )
    heads, hidden = values["num_attention_heads"], values["hidden_size"]
    rules = {
        "num_key_value_heads": (
            lambda n: _is_count(n) and heads % n == 0,
            "divides num_attention_heads",
        ),
        "head_dim": (_is_count, "is a whole number of at least 1"),
        "sliding_window": (lambda n: n == 0 or _is_count(n), "is a whole number of tokens"),
        "tie_word_embeddings": (lambda x: isinstance(x, bool), "is true or false"),
    }
    for name, (keeps, rule) in rules.items():
        if values.get(name) is not None and not keeps(values[name]):
            do = "Use the config.json that came with the model."
            raise CourseError(f"{name} {rule}.", f"{name}={values[name]!r}"[:200], do)
    if values.get("head_dim") is None and hidden % heads:
        raise CourseError(
            "num_attention_heads divides hidden_size, where no head_dim is stated.",
            f"num_attention_heads={heads}, hidden_size={hidden}",
            "Use the config.json that came with the model.",
        )
    for name, usual in family.only.items():
        if values.get(name, usual) != usual:
            raise CourseError(
                f"The arithmetic knows {values['model_type']} with {name}={usual!r}.",
                f"{name}={values[name]!r}",
                "Use a model whose layers are the family's usual ones.",
            )


def load_shape(model: str) -> ModelShape:
    """Return the shape of a model: ``embedded``, a shape's name, a folder or a Hub id."""
    return ModelShape.from_config(model_config(model))


def is_known(model: str) -> bool:
    """Whether the arithmetic knows the model's family; the simulation needs not."""
    return model_config(model).get("model_type") in FAMILIES
