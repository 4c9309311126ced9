"""Which block runs where: objectives, constraints, exact solvers, explanations."""
