"""From a trained bundle to finished maps: planned, resumable, verified."""
