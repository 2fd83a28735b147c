"""The newest token logprob pairs: storage, filters, and the rankings a screen asks for."""
