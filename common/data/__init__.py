"""Training data as flat tensors, and the laws that draw batches from them."""
