"""The fictional drone maker Wrenfield: its facts, its customers, and the text around them."""
