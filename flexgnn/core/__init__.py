"""The runtime: contracts, graphs, programs, plans and their execution. Imports no backend and no planner."""
