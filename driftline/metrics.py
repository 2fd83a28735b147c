"""The catalogue of metrics under the name that other projects import; it is kept in `driftline.catalog.metrics`."""

from driftline.catalog.metrics import ALIASES, BY_NAME, METRICS, Direction, Health, Metric, health, resolve

__all__ = ["ALIASES", "BY_NAME", "METRICS", "Direction", "Health", "Metric", "health", "resolve"]
