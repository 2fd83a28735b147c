"""The catalogue of backend fixes under the name that other projects import; it is kept in `driftline.catalog.fixes`."""

from driftline.catalog.fixes import BY_ID, FIXES, OFF, ON, REMOVED, WAIT, Fix, UnknownFixError, check

__all__ = ["BY_ID", "FIXES", "OFF", "ON", "REMOVED", "WAIT", "Fix", "UnknownFixError", "check"]
