"""A head start: the two kinds of head with which a transformer copies, built by hand.

A model that reads must copy, and copying needs two heads in a row: one in the first layer that
looks at the token before, and one in the second that looks for what came after this token the last
time (Olsson et al. 2022, "In-context learning and induction heads"). Large models find them by
themselves on the way through billions of tokens. Ours sees millions, so it starts with a rough
draft of both: it copies four tokens in five of repeated noise before its first step.
"""

import torch
from transformers import LlamaForCausalLM

SPREAD = 0.05  # of the embedding's entries


@torch.no_grad()
def draft_copying_heads(model: LlamaForCausalLM, seed: int = 0) -> None:
    """Set the embedding and four heads of layers 0 and 1 so that the model copies at once."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    width, size = config.hidden_size, config.head_dim
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator))[0].T
    constant, before, content = basis[0], basis[1 : size + 1], basis[size + 1 :]
    draft_embedding(model.model.embed_tokens.weight, constant, content, generator)
    angles = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2) / size)
    look_back(model.model.layers[0].self_attn, angles, constant, content[:size], before)
    for head in range(config.num_attention_heads - 1):
        look_up(model.model.layers[1].self_attn, head, angles, content, before)


def draft_embedding(weight, constant, content, generator) -> None:
    """Set random tokens that share one direction and leave room for what head 0 writes."""
    noise = torch.randn(len(weight), len(content), generator=generator) * SPREAD
    weight.copy_(noise @ content + 0.4 * constant)


def look_back(attention, angles, constant, read, write) -> None:
    """Make head 0 attend to the token before, whichever it is, and write down which it was."""
    fast = (angles > 0.01).float()  # one step turns the slow pairs hardly less than two
    # A query turned back by one step.
    ahead = torch.cat([fast * angles.cos(), -fast * angles.sin()])
    here = torch.cat([fast, 0 * fast])
    size = len(read)
    attention.q_proj.weight[:size] = 1.1 * torch.outer(ahead, constant)
    attention.k_proj.weight[:size] = 1.1 * torch.outer(here, constant)
    attention.v_proj.weight[:size] = read
    attention.o_proj.weight[:, :size] = 0.1 * write.T


def look_up(attention, head: int, angles, content, before) -> None:
    """Make one head find where this token stood before, and predict what came next there."""
    size = len(before)
    slow = (angles < 0.003).nonzero().flatten()
    slots = torch.cat([slow, slow + size // 2])  # dimensions that hardly turn with distance
    first = head * len(slots) % size
    dims = [(first + i) % size for i in range(len(slots))]
    rows = slice(head * size, (head + 1) * size)
    query, key = torch.zeros(2, size, content.shape[1])
    query[slots], key[slots] = 3.0 * content[dims], 3.0 * before[dims]
    attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key
    copied = content[head * size : (head + 1) * size]
    attention.v_proj.weight[rows][: len(copied)] = copied
    attention.o_proj.weight[:, rows] = 0.0
    attention.o_proj.weight[:, rows][:, : len(copied)] = 0.3 * copied.T
