"""How the embedded model is made: tokenizer, batches, training, export, abilities, card."""
