"""The loss of the next token in chunks: logits, the widest tensor, never all exist at once."""

from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from ftcourse.chat import IGNORED
from ftcourse.config import LOSS_CHUNK
from ftcourse.errors import CourseError


def chunked_cross_entropy(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    num_items: int | Tensor | None = None,
) -> Tensor:
    """Return the mean loss of the next token over the supervised ones, or sum / ``num_items``.

    hidden: shape (batch, length, hidden_size). labels: shape (batch, length), IGNORED where a token
    does not count. Each chunk's logits are freed after the forward pass and computed again in the
    backward pass.

    Twin: transformers.loss.loss_utils.ForCausalLMLoss, which holds all logits in float32.
    """
    hidden = hidden[:, :-1].flatten(0, 1)  # the last token has no next token
    targets = labels[:, 1:].flatten()

    def chunk_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = head(hidden).float()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    chunks = zip(hidden.split(LOSS_CHUNK), targets.split(LOSS_CHUNK), strict=True)
    total = sum(checkpoint(chunk_loss, h, t, use_reentrant=False) for h, t in chunks)
    return total / ((targets != IGNORED).sum() if num_items is None else num_items)


def _head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function that turns a model's hidden states into its logits."""
    config = model.config
    scale = getattr(config, "logits_scaling", None)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def head(hidden: Tensor) -> Tensor:
        logits = model.get_output_embeddings()(hidden)
        logits = logits / scale if scale else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    return head


def check_head(model: nn.Module) -> None:
    """Raise CourseError if a model's logits for two tokens differ from those of the chunked loss.

    It runs in training mode, because in evaluation mode bitsandbytes may repack 4-bit weights.
    """
    hidden, was_training = [], model.training
    hook = model.base_model.register_forward_hook(lambda *call: hidden.append(call[-1][0]))
    model.train()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            ids = torch.arange(2, device=model.device)[None]
            theirs = model(input_ids=ids, use_cache=False).logits
            ours = _head(model)(hidden[0])
    finally:
        hook.remove()
        model.train(was_training)
    if (ours - theirs).abs().max() > 0.01 * theirs.abs().max():
        raise CourseError(
            "The chunked loss needs to compute a model's logits as the model itself does.",
            f"{type(model).__name__}, whose logits differ from ours",
            "Use loss='full'.",
        )


def use_chunked_loss(model: nn.Module) -> None:
    """Make a causal language model compute its training loss in chunks.

    Without labels, as in generation, the model works as before.
    """
    whole_forward, head = model.forward, _head(model)

    def forward(self, *args, labels=None, num_items_in_batch=None, **inputs):
        if labels is None:
            return whole_forward(*args, **inputs)
        hidden = self.base_model(*args, **inputs).last_hidden_state
        loss = chunked_cross_entropy(hidden, head, labels, num_items_in_batch)
        return CausalLMOutput(loss)

    model.forward = MethodType(forward, model)
