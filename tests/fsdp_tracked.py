"""One rank of PyTorch's FSDP under PyTorch's own memory tracker: a program for test_sharding.

Reads {"config": ..., "shape": ..., "mesh": ...} and prints the bytes of each kind at the peak.
The group is PyTorch's fake one: this is the only process, and its collectives do nothing.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from math import prod

import torch
from torch import distributed
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM

from ftcourse import models
from ftcourse.config import FinetuneConfig


def load(config, changes, folder):
    """Return the model of a run; with changes to its shape, with random weights."""
    if changes:
        architecture = models.architecture("embedded")
        for name, value in changes.items():
            setattr(architecture, name, value)
        AutoModelForCausalLM.from_config(architecture).save_pretrained(folder)
        config = replace(config, model=folder)
    return models.attach_adapter(models.load_base(config), config).train()


def shard_like_accelerate(model, causal, mesh):
    """Make the units of ``fsdp2_prepare_model``."""
    whole = {"mesh": mesh, "reshard_after_forward": False}
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    norm = [causal.model.norm] if model is causal else []
    for layer in causal.model.layers:
        fully_shard(layer, mesh=mesh)
    if causal.config.tie_word_embeddings:
        fully_shard([*norm, embedding, head], **whole)
    else:
        fully_shard(embedding, mesh=mesh)
        fully_shard([*norm, head], **whole)
    fully_shard(model, mesh=mesh)


def peak_of(config, changes, sides, folder):
    """``sides``: how many shards; for hybrid sharding how many copies, and how many shards."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=prod(sides))
    names = ("copies", "shards")[-len(sides) :]
    model = load(config, changes, folder)
    causal = model if config.method == "full" else model.get_base_model()
    shard_like_accelerate(
        model, causal, init_device_mesh("cpu", tuple(sides), mesh_dim_names=names)
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=False)
    size = config.batch_size, config.max_length
    ids, labels = (torch.randint(causal.config.vocab_size, size) for _ in range(2))
    tracker = FSDPMemTracker(model, optimizer)
    tracker.track_inputs((ids, labels))
    with tracker:
        for step in range(2):
            if step:
                tracker.reset_mod_stats()
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    found = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {getattr(kind, "value", kind): size for kind, size in found.items()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        config = FinetuneConfig(**asked["config"])
        print(json.dumps(peak_of(config, asked["shape"], asked["mesh"], folder)), flush=True)
    os._exit(0)  # the fake group has nothing to leave
