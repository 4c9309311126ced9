"""What cameras give and what models find in it: sources, results, conventions, tracking, zones, metrics, drawing."""
