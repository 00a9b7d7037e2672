"""Fine-tuning of language models, small enough to read. A module imports only from those above it.

A file on this level holds what a lesson imports; a folder is machinery behind one public name.

ground     errors       the one error, in three parts: what must hold, what we got, what to do
           files        where the course's own files are, and the one way to write a file
           source       the package's own source and texts, shown in a lesson
           hardware     cards as facts, the machine at hand, its number format and the reason
           config       FinetuneConfig: the choices of a run
           config_file  a run as a TOML file: its config, its data, its folder

methods    quantize     weights in few bits: blocks, codebooks, integers, and what they cost
           lora         LoRA, rsLoRA, DoRA by hand: two thin matrices beside a frozen one
           adapters     bottleneck, prompt, prefix, IA3, norms: what else can be trained
           qlora        a weight in 4 bits, and the gradient that passes through it

memory     shape        ModelShape, load_shape, parameter_count: the numbers that decide the bytes
           memory       MemoryBreakdown, predict_memory: the bytes of a training step by arithmetic
           scale        what several cards cost: seconds, operations, and what would do instead

models     models       the only file that loads models, through transformers and peft
           records      what a record of training data is
           readers      files of records, place by place
           chat         dialogues as tokens, the supervised ones marked; and the model's answers
           data         records from a file or a dataset, and the support desk's dialogues
           audit        training data before the first step: broken, cut, twice, leaked
           loss         the loss of the next token without all logits at once
           evaluate     held-out loss, answers and their advice, with intervals
           voice        the brand's voice: which rules an answer keeps
           model_card   what goes along with a tuned model: its card, commands of other programs
           handbook     the handbook's pages, questions about them, and whether an answer is right
           retrieval    finds the pages that answer a question: chunks, words, vectors, stores
           rag          an answer from passages, with its page, or a decline

runs       loop         a training loop, short enough to read
           finder       a learning rate, found by a range test
           sweeps       recorded sweeps, with means over seeds
           lookups      many questions looked up at once, and recorded shares
           effects      what a run taught and what it broke: letters, pages, old texts
           claims       what one reads about fine-tuning, put on trial
           which_one    six ways of answering on the same questions: the table, with intervals
           needs        what somebody needs of the one who answers, as columns of that table
           decision     which of the six: what is dropped, what leads, how close it is
           train        finetune: one run on transformers.Trainer
           live         LiveBytes: every live byte while real code runs
           measure      measure_memory: the bytes of one real training step
           ranks        run_ranks: a run of several processes, each of them measured
           scorecard    one's own rounds of VRAM golf, kept in one file
           golf         VRAM golf: a loss to reach in few bytes, judged by measurement
           watch        trace_step: what a real step does at each adapted module
           simulate     simulate_memory: the real code on tensors without content

pictures   plots        data in, Axes out
           show         dialogues as a reader reads them, and tokens with their labels

roof       widgets      the panels of the lessons
           check        judges the exercises, and keeps the progress in one file
           drift        names of other libraries that we use, held against what is installed
           doctor       what this machine can do, and the traps of its environment
           setup        makes Colab ready for the lessons
           handout      a lesson without outputs and guesses, its seconds for this machine
           ports        a port that one program has for itself
           lab          copies the lessons and opens JupyterLab there
           cli          ftcourse lab | doctor | predict | finetune
"""

import logging

# On a CPU, bitsandbytes warns at import that an optional download is missing, and then of a cast at
# each 8-bit multiplication. Neither changes a result, and a learner would take them for mistakes.
# It stands here because the import of transformers may already import bitsandbytes.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
