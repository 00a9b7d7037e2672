"""What else can be trained beside a frozen model."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A frozen layer, and behind it a narrow detour that is trained.

    Source: Houlsby et al. 2019, arXiv 1902.00751, section 2.1.
    """

    def __init__(self, base: nn.Module, features: int, size: int):
        """Wrap a layer that gives ``features`` numbers a token."""
        super().__init__()
        self.base = base
        self.down = nn.Linear(features, size)
        self.up = nn.Linear(size, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output plus the detour's."""
        output = self.base(x)
        return output + self.up(torch.relu(self.down(output)))


def add_bottlenecks(
    model: nn.Module, size: int, target_modules: Sequence[str] = ("o_proj", "down_proj")
) -> nn.Module:
    """Freeze a model and put a Bottleneck behind each target."""
    model.requires_grad_(False)
    features = model.config.hidden_size
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in target_modules:
            model.set_submodule(name, Bottleneck(module, features, size))
    return model


def train_norms(model: nn.Module) -> nn.Module:
    """Freeze a model but for the scales of its norms."""
    for module in model.requires_grad_(False).modules():
        if type(module).__name__.endswith("Norm"):
            module.requires_grad_(True)
    return model
