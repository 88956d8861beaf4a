"""Confinement of paths beneath named directories."""
