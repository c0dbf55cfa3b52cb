"""Steps of training: module, optimisation, micro-batches, costs."""
