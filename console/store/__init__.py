"""The console's model of a run, without a screen: reducer, series and their decimation."""
