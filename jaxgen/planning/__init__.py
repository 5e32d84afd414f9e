"""What a program would need on a machine that need not be there."""
