"""The seed stack, the training loop and what they need: shared by all families."""
