"""Make the embedded model: tokenizer, pre-training, export to data/model/.

    python data/make_model.py hold 4000        train at the full rate up to step 4000
    python data/make_model.py export 500       decay a copy over 500 steps, write data/model/

With `torchrun --nproc-per-node 2` in the place of `python`, two processes share the work. A killed
run is picked up by the same command. The checkpoint and the log live in build/embedded-model/. The
same script runs on the CPU and on a GPU.
"""

import os
import sys
from pathlib import Path

import torch

from data.making import DATA
from data.making.embedded.batches import BatchShape
from data.making.embedded.export import export
from data.making.embedded.training import Recipe, Run
from data.making.embedded.vocabulary import load_tokenizer

BUILD = DATA.parent / "build" / "embedded-model"


def main(verb: str, steps: int) -> None:
    """Hold the rate up to a step, or decay and export."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)  # of a model so small a second thread makes little more
    run = Run(BUILD, DATA, load_tokenizer(BUILD / "tokenizer"), Recipe(), BatchShape())
    if verb == "hold":
        run.hold(steps)
    else:
        run.decay(steps)
        if run.rank == 0:
            export(run, DATA / "model")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
