"""Token pairs of anybody's trainer: one array form, the numbers that follow from it, and the sequences that are shown.

Pure numpy. A pair is one sampled token with the engine's logprob and the trainer's.
"""
