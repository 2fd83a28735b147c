"""The newest token logprob pairs: storage, filters, and the rankings of a screen."""
