"""Make the embedded model: tokenizer, pre-training, export to data/model/.

    python -m data.making.make_model hold 4000        train at the full rate up to step 4000
    python -m data.making.make_model export 500       decay a copy over 500 steps, write data/model/

Run it from the repository's root. With `torchrun --nproc-per-node 2 -m` instead of `python -m`, two
processes share the work. A killed run continues when you give the same command again. The
checkpoint and the log are in build/embedded-model/. The same script runs on the CPU and on a GPU.
"""

import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch

from data.making import DATA
from data.making.embedded.batches import BatchShape
from data.making.embedded.export import export
from data.making.embedded.tokenizer import load_tokenizer
from data.making.embedded.training import Recipe, Run

BUILD = DATA.parent / "build" / "embedded-model"


def main(verb: str, steps: int) -> None:
    """Train at the full rate up to step `steps`, or decay over `steps` steps and export."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)  # a second thread hardly helps a model this small
    run = Run(BUILD, DATA, load_tokenizer(BUILD / "tokenizer"), Recipe(), BatchShape())
    if verb == "hold":
        run.hold(steps)
    else:
        run.decay(steps)
        if run.rank == 0:
            export(run, DATA / "model")


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("hold", "export"))
    parser.add_argument("steps", type=int)
    main(**vars(parser.parse_args()))
