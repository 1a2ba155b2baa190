"""Plans: what a run will do, byte by byte, decided before it starts."""
