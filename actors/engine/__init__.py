"""The engine supervisor: runs the units that are placed on its machine, behind one port for every engine."""
