"""Graphs on disk: the store, how graphs get into it, and in which node order."""
