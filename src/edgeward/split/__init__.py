"""Split inference: a plan deployed on hosts and run, and the transfer layer at the cut."""
