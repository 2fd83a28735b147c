"""What is trained: policy, objective, corrections, optimiser step, tasks, and the models it starts from."""
