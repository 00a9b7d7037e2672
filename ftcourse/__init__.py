"""Fine-tuning of language models, small enough to read. A module imports only from those above it.

ground     errors       the one error, in three parts: what must hold, what we got, what to do
           resources    where the course's own model, data and lessons lie
           source       the package's own source, shown in a lesson

nouns      hardware     cards as facts, the machine at hand, its number format and the reason
           families     how the layers of the known model families differ
           hub          what a model says of itself: config.json, from here, a folder or the Hub
           shape        ModelShape: the numbers of a model that decide its bytes
           config       FinetuneConfig: the choices of a run
           step         one training step, with the widths in bytes that follow from its choices
           parameters   the bytes that stay: weights, gradients, optimizer states
           inputs       what linear modules keep of their inputs
           attention    what attention keeps for its backward pass
           norms        what norms keep, and so of a layer's input
           activations  the bytes that come and go: what a layer keeps, and the logits
           widest       the widest moment of a layer's backward pass
           memory       MemoryBreakdown, and predict_memory: the peak of a step by arithmetic
           cache        breakdowns that took seconds, kept on the user's disk
           fit          what fits a card, how much of it, and the cheapest change that makes it fit
           records      runs that somebody measured, and the one nearest to a run one plans
           models       the only file that loads models, through transformers and peft
           chat         dialogues as tokens, the supervised ones marked; and the model's replies
           data         records from a file, and the support desk's dialogues
           loss         the loss of the next token without all logits at once

real runs  run          the folder of a run: is it the same run, where does it go on
           train        finetune: one run on transformers.Trainer
           evaluate     held-out loss and the brand's voice, with intervals
           measure      measure_memory: every live byte of one real step
           fakes        a model of fake tensors, for the simulation
           kernels      what a GPU's kernels do in another way than the CPU's
           allocator    PyTorch's caching allocator, written small
           simulate     simulate_memory: the real code on fake tensors

pictures   plots        data in, Axes out

roof       widgets      the panels of the lessons
           check        judges the exercises, and keeps the progress in one file
           doctor       what this machine can do, and the traps of its environment
           lab          copies the lessons and opens JupyterLab on them
           cli          ftcourse lab | doctor | predict | finetune
"""

import logging

# On a CPU, bitsandbytes warns at import that an optional download is missing, and then of a cast at
# each 8-bit multiplication. Neither changes a result, and a learner would take them for mistakes.
# It stands here because the import of transformers may already import bitsandbytes.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
