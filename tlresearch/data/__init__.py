"""Tensors in, batches out: the catalogue of data sets and what is made of them."""
