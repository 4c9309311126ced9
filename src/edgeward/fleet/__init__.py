"""Devices, the links between them, and emulating both on one machine."""
