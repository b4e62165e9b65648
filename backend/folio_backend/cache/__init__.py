"""Pages, who holds them, how they are found again and which go first."""
