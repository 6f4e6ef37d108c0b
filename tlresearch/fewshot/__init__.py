"""Few-shot and meta-learning."""
