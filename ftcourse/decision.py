"""Which of the six ways of answering to use: computed from what was measured and needed."""
