"""Which block runs where: objectives, constraints, exact solvers, explanations.

from edgeward.plan.constraints import Constraints
from edgeward.plan.planner import Planner

planner = Planner(profile, fleet)
best = planner.best(constraints=Constraints.parse("block 0 on device", "device->* <= 2 MB"))[0]
"""
