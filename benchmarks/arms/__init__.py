"""The contest of ``benchmarks/six_arms.py``, in the order of reading.

Each file imports only from those above it. The settings that a run chooses are in ``tries``; the
one thing that the command line changes, the model, is in ``subject``.

    tries      the arms, and what each of them tries
    subject    the model that all arms share
    recording  what is written down: lines, answers, seconds
    questions  the frozen questions, the pages, and counts of right answers
    training   rows and runs of the arms that are trained
    answering  a model's answers to prompts, and to questions with passages
    choosing   an arm's answers, and the try of an arm that does best
    columns    what the answers of an arm are worth
    costs      seconds, memory and bytes
    changes    the facts that change, and those that do not
    updates    what an arm learns of changed facts, and what it forgets
    shipping   the adapters of the lesson, with their cards
"""
