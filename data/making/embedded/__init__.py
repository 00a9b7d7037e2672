"""The making of the embedded model: tokenizer, batches, training, export, abilities."""
