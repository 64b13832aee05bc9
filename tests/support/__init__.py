"""What tests share: real databases, and waiting for a condition."""
