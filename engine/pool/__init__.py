"""Many engines as one: dispatch, membership, recovery, fix changes and weight syncs over the whole pool."""
