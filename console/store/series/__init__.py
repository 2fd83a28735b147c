"""Time series of metrics: storage, decimation, smoothing and quantiles."""
