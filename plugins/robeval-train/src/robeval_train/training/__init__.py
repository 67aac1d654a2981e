"""Training: recipes, optimisers, the loop, and what is kept of it."""
