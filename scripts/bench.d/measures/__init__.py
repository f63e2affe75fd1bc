"""The parts, one a file. `run` measures a part and adds its figures to the bench."""
