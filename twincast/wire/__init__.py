"""What travels: JSON in, JSON out, frames; pure."""
