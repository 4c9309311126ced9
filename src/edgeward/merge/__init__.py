"""One copy of identical layers for several models: groups, search with joint retraining, a store of shared tensors."""
