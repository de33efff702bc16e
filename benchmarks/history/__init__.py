"""What a log of millions of entries answers of its past, beside what its users would build themselves."""
