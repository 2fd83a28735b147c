"""Weights on their way from the trainer to the engines: publication, transports, and verification by digest."""
