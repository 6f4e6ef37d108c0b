"""Pure functions on tensors, usable in anybody's loop."""
