"""Plug-ins that ship in the wheel: ordinary clients of the public API."""
