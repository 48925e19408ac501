"""What a recipe needs, what it would take, and what keeps it from starting."""
