"""Keys, what they may do, and what each of them has used up."""
