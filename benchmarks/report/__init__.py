"""What is written about a run. Nothing is imported here: the charts are drawn in another environment."""
