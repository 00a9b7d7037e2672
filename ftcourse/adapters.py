"""What else can be trained beside a frozen model, each in a few lines, with its production twin.

What is added is float32, whatever number format the frozen model has.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu
from transformers import DynamicCache

from ftcourse.errors import CourseError

Rows = Tensor | None


class Bottleneck(nn.Module):
    """A frozen layer, and behind it a narrow detour to train.

    Its output y becomes y + up(relu(down(y))). ``up`` begins at
    zero, so the model begins as it was. Weights of shape (size,
    outputs) and (outputs, size), and two biases.

    Source: Houlsby et al. 2019, arXiv 1902.00751, section 2.1;
    there ``up`` begins near zero. No twin: peft lacks it.
    """

    def __init__(self, base: nn.Module, size: int):
        """Put a detour this narrow behind a linear layer."""
        super().__init__()
        outputs, device = sides(base)[1], base.weight.device
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(outputs, size, device=device)
        self.up = nn.Linear(size, outputs, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output plus the detour's."""
        y = self.base(x)
        narrow = relu(self.down(y.to(self.down.weight.dtype)))
        return y + self.up(narrow).to(y.dtype)


class IA3(nn.Module):
    """A frozen layer, and a factor to train for each number.

    They multiply what the layer gives, or what it gets if it is
    ``feedforward``. They begin at 1: (outputs,) or (inputs,).

    Source: Liu et al. 2022, arXiv 2205.05638, section 3.3.
    Twin: peft.IA3Config, equal to the last bit in float32.
    """

    def __init__(self, base: nn.Module, feedforward=False):
        """Scale a linear layer's outputs, or its inputs."""
        super().__init__()
        features = sides(base)[0 if feedforward else 1]
        ones = torch.ones(features, device=base.weight.device)
        self.base = base.requires_grad_(False)
        self.feedforward = feedforward
        self.scale = nn.Parameter(ones)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, scaled."""
        scale = self.scale.to(x.dtype)
        if self.feedforward:
            return self.base(x * scale)
        return self.base(x) * scale


class _BeforeText(nn.Module):
    """A frozen model that reads something trained before the text."""

    def __init__(self, model: nn.Module, num_virtual_tokens: int):
        super().__init__()
        _check_size("num_virtual_tokens", num_virtual_tokens)
        self.model = _freeze(model)
        self.num_virtual_tokens = num_virtual_tokens

    def widen(self, rows: Rows, value: int) -> Rows:
        """Put a value before each row for every virtual token."""
        sides = (self.num_virtual_tokens, 0)
        return None if rows is None else pad(rows, sides, value=value)

    def forward(self, input_ids: Tensor, labels: Rows = None, attention_mask: Rows = None) -> Any:
        """Return the model's output; a prompt has rows of its own in it, without labels."""
        before, mask = self.before(input_ids), self.widen(attention_mask, 1)
        if "inputs_embeds" in before:
            input_ids, labels = None, self.widen(labels, -100)
        return self.model(input_ids=input_ids, attention_mask=mask, labels=labels, **before)

    def generate(self, input_ids: Tensor, attention_mask: Rows = None, **options: Any) -> Tensor:
        """Return the text and what the model adds to it, one token after the other."""
        if others := options.keys() - {"max_new_tokens", "do_sample", "pad_token_id"}:
            raise CourseError("Text is written token by token.", ", ".join(others), "Leave it out.")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        written = self.model.generate(
            input_ids=self.widen(input_ids, 0),  # only counts, for what is before the text
            attention_mask=self.widen(mask, 1),
            **self.before(input_ids),
            **options,
        )
        return written[:, self.num_virtual_tokens :]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device


class PromptTuning(_BeforeText):
    """A frozen model that reads trained vectors before the text.

    ``prompt`` has shape (num_virtual_tokens, hidden_size): rows as
    words have them. It begins as the words ``ids``, or at random
    ones. The logits have a row more for each virtual token.

    Source: Lester et al. 2021, arXiv 2104.08691, section 2.
    Twin: peft.PromptTuningConfig, with TEXT or SAMPLE_VOCAB.
    """

    def __init__(self, model: nn.Module, num_virtual_tokens: int, ids: Sequence[int] | None = None):
        """Freeze a model; put virtual tokens before its text."""
        super().__init__(model, num_virtual_tokens)
        words, count = model.get_input_embeddings(), num_virtual_tokens
        if ids is None:
            ids = torch.randint(len(words.weight), (count,))
        ids = torch.as_tensor(ids, device=model.device).repeat(count)[:count]  # a short one again
        self.prompt = nn.Parameter(words(ids).detach().float())

    def before(self, input_ids: Tensor) -> dict[str, Any]:
        """Return the vectors of the prompt and of the words."""
        text = self.model.get_input_embeddings()(input_ids)
        prompt = self.prompt.expand(len(text), -1, -1).to(text)
        return {"inputs_embeds": torch.cat([prompt, text], 1)}


class PrefixTuning(_BeforeText):
    """A frozen model with trained keys and values in each layer.

    The text attends to them as to tokens that were read before it.
    Shape of ``prefix``: (num_virtual_tokens, keys and values of one
    layer after another, heads, head_dim). It begins at random.

    Source: Li and Liang 2021, arXiv 2101.00190, section 4; there a
    small network makes the prefix while it is trained (4.3).
    Twin: peft.PrefixTuningConfig without projection.
    """

    def __init__(self, model: nn.Module, num_virtual_tokens: int):
        """Freeze a model; put a prefix into each of its layers."""
        super().__init__(model, num_virtual_tokens)
        layers, heads, head_dim = attention_sizes(model.config)
        shape = (num_virtual_tokens, 2 * layers, heads, head_dim)
        self.prefix = nn.Parameter(torch.randn(shape, device=model.device))

    def before(self, input_ids: Tensor) -> dict[str, Any]:
        """Return the prefix as a cache of earlier tokens."""
        rows = self.prefix.permute(1, 2, 0, 3).unsqueeze(1)
        rows = rows.expand(-1, len(input_ids), -1, -1, -1)
        rows = rows.to(self.model.dtype)
        cache = DynamicCache()
        for layer in range(len(rows) // 2):
            key, value = rows[2 * layer], rows[2 * layer + 1]
            cache.update(key, value, layer)
        return {"past_key_values": cache}


def add_bottlenecks(
    model: nn.Module,
    size: int,
    target_modules: Sequence[str] = ("o_proj", "down_proj"),
) -> nn.Module:
    """Freeze a model; put a Bottleneck behind each target.

    The usual ones end the halves of a layer: attention and MLP.
    """
    _check_size("size", size)
    for name, module in _targets(model, target_modules):
        model.set_submodule(name, Bottleneck(module, size))
    return model


def add_ia3(
    model: nn.Module,
    target_modules: Sequence[str] = ("k_proj", "v_proj", "down_proj"),
    feedforward_modules: Sequence[str] = ("down_proj",),
) -> nn.Module:
    """Freeze a model; scale keys, values and the MLP's inside."""
    for name, module in _targets(model, target_modules, feedforward_modules):
        inside = name.rpartition(".")[2] in feedforward_modules
        model.set_submodule(name, IA3(module, inside))
    return model


def train_norms(model: nn.Module) -> nn.Module:
    """Freeze a model, but for its norms' weights and biases.

    Source: Zhao et al. 2023, arXiv 2312.11420. Its kin BitFit
    (Ben Zaken et al. 2021, arXiv 2106.10199) trains biases;
    most decoders have none. Twin: peft.LNTuningConfig.
    """
    for module in _freeze(model).modules():
        if type(module).__name__.endswith("Norm"):
            module.requires_grad_(True)
    return model


def sides(layer: nn.Module) -> tuple[int, int]:
    """Return a linear layer's inputs and outputs; GPT-2's Conv1D stores them in this order."""
    linear = isinstance(layer, nn.Linear)
    return (layer.in_features, layer.out_features) if linear else tuple(layer.weight.shape)


def attention_sizes(config: Any) -> tuple[int, int, int]:
    """Return a model's layers, its heads with keys of their own, and a head's width."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", heads), head_dim


def _freeze(model: nn.Module) -> nn.Module:
    """Return a model, frozen. Raises CourseError if it has one of these methods already."""
    if any(isinstance(module, (Bottleneck, IA3, _BeforeText)) for module in model.modules()):
        raise CourseError("A model gets one method.", "one that has one", "Load it once more.")
    return model.requires_grad_(False)


def _targets(model: nn.Module, names: Sequence[str], inside: Sequence[str] = ()) -> list:
    """Freeze a model; return names and linear layers whose names end in one of these words."""
    found = [
        (name, module)
        for name, module in _freeze(model).named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and name.rpartition(".")[2] in names
    ]
    missing = {*names, *inside} - ({name.rpartition(".")[2] for name, _ in found} & {*names})
    if missing or not found:
        got = " and ".join(f"no {name}" for name in sorted(missing)) or "none"
        raise CourseError("Target modules are a list of linear layers.", got, "Print the model.")
    return found


def _check_size(name: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CourseError(f"{name} is a whole number from 1 on.", repr(size), f"Try {name}=16.")
