"""Which arm is recommended: over the whole grid of needs."""
