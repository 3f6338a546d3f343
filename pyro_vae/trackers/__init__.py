"""Trackers, which follow a run while it trains: anything with two methods, such as TensorBoard."""

from pyro_vae.trackers.following import Start, TensorBoard, Tracker, tracker_by_name

__all__ = ["Start", "TensorBoard", "Tracker", "tracker_by_name"]
