"""One step: the objective and its gradients, the update of the weights and of their EMA, what it costs."""
