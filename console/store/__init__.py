"""What the operator's side remembers of a run, without a screen: reducer, series and their decimation."""
