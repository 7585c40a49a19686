"""Nodes of a pipeline as tasks: local processes, or pods."""
