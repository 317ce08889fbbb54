"""The built-in pair of nets, the open point distribution model, and what loads them."""
